"""Where a test runs: on the processor, and once more on a GPU where torch sees one."""

from __future__ import annotations

import pytest
import torch

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="it needs a GPU, and torch sees none")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]
