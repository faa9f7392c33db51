"""The independent Bernoulli: counted once, and resumed with its counts."""

from __future__ import annotations

import torch

from gdm_core.contract import TrainingConfig
from gdm_core.models.autoregressive.independent_bernoulli import IndependentBernoulli
from gdm_core.training import train
from tests.autoregressive_cases import Images


def test_independent_bernoulli_is_fitted_in_closed_form():
    images = (torch.rand(50, 2, 3, 3) < 0.3).float()
    model = IndependentBernoulli((2, 3, 3))
    steps = list(train(model, Images(images), TrainingConfig(epochs=5, batch_size=7)))
    assert len(steps) == 8  # one pass, however many epochs are asked for
    expected = (images.double().sum(0) + 1) / 52
    torch.testing.assert_close(model.logit.detach().double().sigmoid(), expected, rtol=1e-6, atol=0)


def test_independent_bernoulli_resumes_with_its_counts():
    images, config = (torch.rand(50, 1, 3, 3) < 0.4).float(), TrainingConfig(batch_size=7)
    whole = IndependentBernoulli((1, 3, 3))
    state = None
    for progress in train(whole, Images(images), config):
        if progress.step == 3:
            state = {**progress.state_dict(), "model": {k: v.clone() for k, v in whole.state_dict().items()}}
    resumed = IndependentBernoulli((1, 3, 3))
    list(train(resumed, Images(images), config, resume=state))
    assert torch.equal(resumed.logit, whole.logit)
