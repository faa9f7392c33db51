"""What would make the processor wait for a GPU: a number read back, an image sent from memory that is not pinned.

Nothing here needs a GPU: tensors have shapes and a device, and no numbers that anybody could read.
"""

from __future__ import annotations

import itertools

import pytest
import torch

from gdm_core.contract import Batch, GenerativeModel, SamplesStepwise, TrainingConfig, has
from gdm_core.layers.raster_sampling import last
from gdm_core.registry import build_model
from gdm_core.training import train
from tests.autoregressive_cases import BUILDERS
from tests.pretended_gpu import Copies, pretended_gpu

pytestmark = pytest.mark.filterwarnings("ignore:Accessing the data pointer")  # of a copied tensor without numbers

SHAPE = (2, 2, 3)
READ_THEIR_MEMBERS = {  # once for a batch, see OrderingEnsemble.reads_members
    "made with orderings", "made with masks", "made with orderings and masks"
}  # fmt: skip
RBM_OPTIONS = [
    {}, {"persistent": False}, {"steps": 3}, {"momentum": 0.5}, {"weight_decay": 0.1}, {"centred": True},
    {"sparsity_target": 0.1}, {"fast_learning_rate": 0.1},
    {"momentum": 0.5, "weight_decay": 0.1, "centred": True, "sparsity_target": 0.1, "fast_learning_rate": 0.1},
]  # fmt: skip


class RandomImages:
    def __len__(self) -> int:
        return 50

    def batch(self, rows: torch.Tensor, epoch: int) -> Batch:
        return Batch(torch.rand(len(rows), *SHAPE), torch.zeros(len(rows), dtype=torch.long))


def steps_of_training(name: str, **arguments: object) -> Copies:
    """Four of an epoch's five steps, by the loop."""
    model = build_model(name, SHAPE, **arguments)
    config = TrainingConfig(epochs=1, batch_size=10, device="cuda")
    with pretended_gpu(model) as copies:
        steps = [progress.step for progress in itertools.islice(train(model, RandomImages(), config), 4)]
        assert steps == [1, 2, 3, 4] and model.device.type == "cuda"
    return copies


@pytest.mark.parametrize("options", RBM_OPTIONS, ids=str)
def test_contrastive_divergence_waits_for_nothing(options: dict) -> None:
    """Each batch's images and labels are sent from pinned memory, and nothing else goes either way."""
    assert steps_of_training("rbm", hidden_units=5, **options).counts == {"pinned cpu to cuda": 8}


@pytest.mark.parametrize("name", ["gaussian_rbm", "dbn", "boltzmann_machine"])
def test_nor_do_the_machines_that_learn_alike(name: str) -> None:
    assert steps_of_training(name).counts == {"pinned cpu to cuda": 8}


@pytest.mark.parametrize("name", [name for name in BUILDERS if name not in READ_THEIR_MEMBERS])
def test_a_batch_of_samples_is_drawn_without_reading_a_value(name: str) -> None:
    """The noise is sent once; an ensemble's choice of members too. What a model keeps was read by its first batch."""
    model = BUILDERS[name](SHAPE, 2).eval()
    model.sample(1)
    with pretended_gpu(model) as copies:
        assert drawn(model).shape == (3, *SHAPE)
    assert copies.counts == {"cpu to cuda": 2 if getattr(model, "number_of_members", 1) > 1 else 1}


def test_so_is_a_batch_of_drawn_classes() -> None:
    model = build_model("conditional_gated_pixel_cnn", SHAPE, classes=3, channels=4, blocks=1).eval()
    with pretended_gpu(model) as copies:
        assert drawn(model).shape == (3, *SHAPE)
    assert copies.counts == {"cpu to cuda": 2}


def drawn(model: GenerativeModel) -> torch.Tensor:
    """Three images, drawn step by step: a graph, which needs a GPU, records just these steps."""
    steps = model.sample_steps(3) if has(model, SamplesStepwise) else iter([model.sample(3)])
    return last(steps)


def test_the_watch_sees_what_waits() -> None:
    with pretended_gpu() as copies:
        x, here = torch.ones(3, device="cuda"), torch.ones(3)
        for read in (x.sum().item, x.tolist, x.any().__bool__, x.nonzero, x.unique, lambda: x[x > 0]):
            with pytest.raises((RuntimeError, NotImplementedError), match="aten|shape|data"):
                read()
        assert not copies.counts
        x.cpu()
        here.copy_(x)
        here.to("cuda")
        here.pin_memory().to("cuda")
        x.to(torch.float64)
    assert copies.counts == {"cuda to cpu": 2, "cpu to cuda": 1, "pinned cpu to cuda": 1}
