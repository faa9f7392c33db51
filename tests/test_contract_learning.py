"""How every registered model learns, through the one loop: all of it, the same again, and undisturbed."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gdm_core.contract import Batch, GenerativeModel, TrainingConfig, capabilities
from gdm_core.likelihoods import likelihood
from gdm_core.registry import list_models, model_class
from gdm_core.training import train
from tests.contract_cases import CASES, ENSEMBLES, Case, Images, copy_of_state, every_case, labels_of, same_state, use

CONFIG = TrainingConfig(epochs=2, batch_size=4, learning_rate=0.01, seed=3)
STEPS = 3  # of an epoch of ten images; the last batch is smaller


@every_case
def test_every_parameter_learns(case: Case) -> None:
    """Gets a gradient from `loss` where there is one; and one epoch of the loop moves it."""
    model = case.build().train()
    if hasattr(type(model), "loss"):
        model.loss(Batch(case.images(10), labels_of(10)))["loss"].backward()
        without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
        assert not without, f"no gradient reaches {without}"
        model.zero_grad()
    before = copy_of_state(model)
    progress = list(itertools.takewhile(lambda p: p.epoch == 0, train(model, Images(case), CONFIG)))
    assert math.isfinite(progress[-1].metrics["loss"])
    unmoved = [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    assert not unmoved
    assert all(value.isfinite().all() for value in model.state_dict().values())


WITH_LOSS = {label: case for label, case in CASES.items() if hasattr(model_class(case.name), "loss")}


def test_models_with_a_loss_are_those_of_the_table() -> None:
    """The others learn by an update of their own: counting, contrastive divergence, two players."""
    assert {case.name for case in WITH_LOSS.values()} == {
        "conditional_gated_pixel_cnn", "gated_pixel_cnn",
        "eonade", "fvsbn", "helmholtz_machine", "image_transformer", "independent_bernoulli", "made", "markov_chain",
        "mixture_of_bernoullis", "multiscale_pixel_rnn", "nade", "pixel_cnn", "pixel_cnn_plus_plus",
        "pixel_rnn", "rnade", "vae", "wavenet",
    } <= {*list_models()}


@pytest.mark.parametrize("case", WITH_LOSS.values(), ids=WITH_LOSS)
def test_the_loss_is_a_scalar_in_nats_per_image(case: Case) -> None:
    """The mean over the batch, not the sum: twice the same images have the same loss."""
    model, x = case.build().eval(), case.images(10)
    losses = []
    for images in (x, x.repeat(40, 1, 1, 1)):
        torch.manual_seed(0)
        metrics = model.loss(Batch(images, labels_of(len(images))))
        assert all(value.dim() == 0 for value in metrics.values())
        losses.append(metrics["loss"].item())
    assert losses[1] == pytest.approx(losses[0], rel=0.1)
    if "ExactLikelihood" in capabilities(model) and case.name not in ENSEMBLES:
        expected = model.log_prob(x)
        if "Classifies" in capabilities(model):  # given its class, by Bayes under even classes
            posterior = model.class_log_prob(x)
            expected = expected + posterior.gather(1, labels_of(10)[:, None])[:, 0] + math.log(posterior.shape[1])
        assert losses[0] == pytest.approx(-expected.mean().item(), rel=1e-5)


def run(case: Case, resume: dict | None = None, between: Callable | None = None) -> tuple[dict, dict, list]:
    """Train a fresh model; its final state, the update's state as bytes, and every checkpoint on the way."""
    model, checkpoints = case.build(seed=0 if resume is None else 12345), []
    for progress in train(model, Images(case), CONFIG, resume):
        checkpoints.append(as_bytes(progress.state_dict()))
        if between is not None:
            between(model)
    return copy_of_state(model), progress.metrics, checkpoints


def as_bytes(state: dict) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


@every_case
def test_resumed_equals_uninterrupted_bit_for_bit(case: Case) -> None:
    """At the epoch's end (as far as there are two epochs), in the middle of the first and in the last."""
    state, metrics, checkpoints = run(case)
    assert len(checkpoints) % STEPS == 0
    for step in {1, STEPS, STEPS + 2} & set(range(1, len(checkpoints))):
        resume = torch.load(io.BytesIO(checkpoints[step - 1]), weights_only=True)
        again, metrics_again, rest = run(case, resume)
        assert len(rest) == len(checkpoints) - step
        assert same_state(state, again), f"differs after resuming at step {step}"
        assert metrics == metrics_again
        left, right = (torch.load(io.BytesIO(c[-1]), weights_only=True)["update"] for c in (checkpoints, rest))
        assert equal(left, right), f"the update differs after resuming at step {step}"


def equal(left: object, right: object) -> bool:
    """Equality of nested dictionaries, lists and tensors."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return torch.equal(left, right) if isinstance(left, Tensor) else left == right


@every_case
def test_nothing_done_between_steps_changes_the_training(case: Case) -> None:
    def meddle(model: GenerativeModel) -> None:
        model.eval()
        torch.manual_seed(77)
        torch.rand(5)
        model.sample(2)
        likelihood(model, case.images(), k=2, temperatures=3, chains=2)
        for capability in capabilities(model):
            use(model, capability, case.images())

    plain, meddled = run(case), run(case, between=meddle)
    assert same_state(plain[0], meddled[0]) and plain[1] == meddled[1]
