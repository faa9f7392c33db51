"""Laws of annealing machines of several layers from their images on, against enumeration of all their states."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from gdm_core.annealing import annealed_log_prob
from gdm_core.contract import GenerativeModel
from gdm_core.likelihoods import annealing_report, why_not_over_images
from gdm_core.models.energy.sampling.guessed_completion import log_joint
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from tests.autoregressive_cases import chi_square_bound

SHAPE = (1, 2, 2)
CASES = pytest.mark.parametrize(
    ("name", "hidden_units"), [("dbn", (3, 2)), ("dbn", (3, 2, 2)), ("dbm", (3, 2)), ("dbm", (2, 3, 2))]
)


def states(units: int) -> Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=units)), dtype=torch.float64)


IMAGES = states(4).view(-1, *SHAPE)


def machine(name: str, hidden_units: tuple[int, ...], scale: float = 1.0) -> GenerativeModel:
    """Parameters and starts of annealing drawn at random: guesses that have nothing to do with the posterior.

    Those of a belief network have no feedback to mend them, so its layers below the chains are smoother.
    """
    torch.manual_seed(2)
    model = build_model(name, SHAPE, hidden_units=hidden_units).double()
    with torch.no_grad():
        for values in itertools.chain(model.parameters(), model.buffers()):
            values.normal_(0, 0.5 if name == "dbn" else scale)
        if name == "dbn":
            for values in itertools.chain(model.top.parameters(), model.top.buffers()):
                values.normal_(0, 1.5 * scale)
    return model


@torch.no_grad()
def log_joint_of(model: GenerativeModel) -> tuple[Tensor, Tensor]:
    """log p(x, ..) + log Z of every state that chains of an image can stand at, and the states, (16, rest, ..).

    Layers above the chains are summed out, so are those of a belief network between them and the image.
    """
    units = model.tempered().machine.dimensions
    if model.name == "dbm":
        even = states(units).view(16, -1, units)
        return -model.folded().free_energy(even.flatten(0, 1)).view(16, -1), even
    sizes = [4, *model.guessed_units]
    everything = states(sum(sizes))
    joint = log_joint(model, everything.split(sizes, 1)).view(16, -1, 2**units).logsumexp(1)
    return joint, states(units).expand(16, -1, -1)


def exact_log_prob(model: GenerativeModel) -> Tensor:
    joint, _ = log_joint_of(model)
    return joint.logsumexp(1) - joint.logsumexp((0, 1))


@CASES
@torch.no_grad()
def test_weighed_guesses_average_to_the_image_s_probability(name: str, hidden_units: tuple[int, ...]) -> None:
    """E_q[p*(s) p(x, h | s) / q(h | x)] = p*(x), of guesses that are poor; and of every kind that is possible."""
    model, n = machine(name, hidden_units), 40_000
    family, joint = model.tempered(), log_joint_of(model)[0].logsumexp(1)
    start, log_guessed = family.at_images(IMAGES.repeat_interleave(n, 0), seeded_generator(0))
    weight = ((family.log_density(start, 1.0) - log_guessed).view(16, n) - joint[:, None]).exp()
    error = (weight.var(1) / n).sqrt()
    assert ((weight.mean(1) - 1).abs() < 5 * error).all() and error.max() < 0.05
    assert log_guessed.view(16, n).std(1).min() > 0.01
    if name == "dbm":
        guessed = start.v.view(16, n, -1)
        means = torch.cat(model.mean_field(IMAGES.flatten(1))[::2], 1)
        assert torch.equal(guessed[..., :4], IMAGES.view(16, 1, 4).expand(-1, n, -1))
        assert torch.allclose(guessed.mean(1), means, atol=0.02)  # a guess that is no worse than it has to be


@CASES
@torch.no_grad()
def test_probabilities_from_images_back_add_up_to_one(name: str, hidden_units: tuple[int, ...]) -> None:
    """Of where the forward chains end, which after three temperatures is somewhere else than the model."""
    model, n = machine(name, hidden_units, 1.5), 10_000
    family, betas = model.tempered(), torch.linspace(0, 1, 3, dtype=torch.float64)
    start, log_guessed = family.at_images(IMAGES.repeat_interleave(n, 0), seeded_generator(0))
    log_w = annealed_log_prob(family, start, betas, seeded_generator(1)) - log_guessed
    found = log_w.view(16, n).exp()
    error = (found.var(1) / n).sum().sqrt().item()
    assert found.mean(1).sum().item() == pytest.approx(1, abs=5 * error) and error < 0.05
    assert (found.mean(1) - exact_log_prob(model).exp()).abs().max() > 0.005  # so the law is not that of the model


@CASES
@torch.no_grad()
def test_draws_of_a_small_machine_are_exact(name: str, hidden_units: tuple[int, ...]) -> None:
    model, n = machine(name, hidden_units), 100_000
    chains, exact = model.tempered().draws(n, seeded_generator(0))
    *_, last = chains
    joint, standing = log_joint_of(model)
    codes = 2 ** torch.arange(last.v.shape[1]).double()
    p = torch.zeros(2 ** last.v.shape[1], dtype=torch.float64)
    p.index_add_(0, (standing.flatten(0, 1) @ codes).long(), joint.flatten().softmax(0))
    counts = torch.bincount((last.v @ codes).long(), minlength=len(p))
    assert exact and ((counts - n * p).square() / (n * p)).sum() < chi_square_bound(len(p) - 1)
    assert torch.allclose(last.logits, model.tempered().machine.hidden_logits(last.v))


@pytest.mark.parametrize(("name", "hidden_units"), [("dbn", (17, 3)), ("dbm", (3, 13))])
def test_draws_of_a_larger_machine_are_ends_of_chains(name: str, hidden_units: tuple[int, ...]) -> None:
    model = build_model(name, SHAPE, hidden_units=hidden_units, sampling_steps=4)
    chains, exact = model.tempered().draws(6, seeded_generator(0))
    found = list(chains)
    assert not exact and len(found) == 5
    assert all(len(found[0].v) == 6 and not torch.equal(found[0].v, later.v) for later in found[1:])
    report = annealing_report(model, IMAGES[:3].float(), 5, chains=4, chains_per_image=2)
    assert report.of_bound and not report.backwards_is_bound


@CASES
def test_the_report_brackets_the_enumerated_likelihood(name: str, hidden_units: tuple[int, ...]) -> None:
    model = machine(name, hidden_units)
    assert why_not_over_images(model) == ""
    found, exact = annealing_report(model, IMAGES, 300, chains=400, chains_per_image=300), exact_log_prob(model)
    log_z = log_joint_of(model)[0].logsumexp((0, 1)).item()
    assert found.of_bound and found.backwards_is_bound and found.exact.value == pytest.approx(log_z, abs=1e-9)
    assert found.forwards.low <= log_z <= found.forwards.high and found.backwards.low <= log_z <= found.backwards.high
    bound = found.optimistic + found.forwards.value - log_z  # with the true constant a bound
    assert (bound <= exact + 1e-9).all() and (bound < exact - 0.01).any()
    assert ((found.conservative - exact) * exact.exp()).sum() < 0.01
    torch.testing.assert_close(found.conservative.exp(), exact.exp(), atol=0.05, rtol=0)
