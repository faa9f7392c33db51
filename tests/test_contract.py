"""What every registered model owes, by capability: parametrised by the registry, so a new model is tested unasked.

The generic laws run over every (model, capability, pixels, shape); below them are the laws that only one capability
has. What runs is held against a table: a capability that gets lost is a red test and not a test that no longer runs.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gdm_core.contract import CAPABILITIES, GenerativeModel, TrainingConfig, capabilities
from gdm_core.data.treatments import treatment_for
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model, list_models, model_class, pixel_kinds
from gdm_core.storage import load_model, save_model
from gdm_core.training import train
from tests.contract_cases import (
    ANY,
    ENSEMBLES,
    LEVELS,
    PAIRS,
    SHAPES,
    USED,
    USES,
    Case,
    Images,
    cases_with,
    copy_of_state,
    every_case,
    every_use,
    every_use_image_by_image,
    every_use_of_images,
    halfway,
    same_state,
    use,
)  # fmt: skip

EXACT_IN_ORDER = {
    "Samples", "SamplesStepwise", "ExactLikelihood", "PixelLikelihood", "Completes", "CompletesStepwise",
    "PixelConditional",
}  # fmt: skip
# Which model can do what. A new model adds its line; a line that no longer holds is a lost capability.
EXPECTED = {
    "conditional_gated_pixel_cnn": EXACT_IN_ORDER | {"Classifies"},
    "dcgan": {"Samples", "Encodes", "Decodes", "Reconstructs", "Discriminates"},
    "deep_energy": {"Samples", "SamplesStepwise", "Energy", "RunsChains", "Completes", "SurpriseMap"},
    "dbm": {
        "Samples", "SamplesStepwise", "UnnormalisedBound", "Anneals", "Enumerates", "RunsChains", "HiddenLayers",
        "Encodes", "Reconstructs", "Completes", "Filters",
    },
    "dbn": {
        "Samples", "SamplesStepwise", "UnnormalisedBound", "Anneals", "Enumerates", "RunsChains", "HiddenLayers",
        "Encodes", "Reconstructs", "Completes", "Filters",
    },
    "eonade": EXACT_IN_ORDER | {"InAnyOrder"},
    "fvsbn": EXACT_IN_ORDER,
    "gated_pixel_cnn": EXACT_IN_ORDER,
    "image_transformer": EXACT_IN_ORDER,
    "independent_bernoulli": EXACT_IN_ORDER,
    "made": EXACT_IN_ORDER,
    "markov_chain": EXACT_IN_ORDER,
    "mixture_of_bernoullis": EXACT_IN_ORDER | {"Filters"},
    "multiscale_pixel_rnn": EXACT_IN_ORDER,
    "nade": EXACT_IN_ORDER,
    "pixel_cnn": EXACT_IN_ORDER,
    "pixel_cnn_plus_plus": EXACT_IN_ORDER,
    "pixel_rnn": EXACT_IN_ORDER,
    "helmholtz_machine": {"Samples", "Completes", "LatentLikelihood", "HiddenLayers", "Reconstructs", "Filters"},
    "boltzmann_machine": {
        "Samples", "SamplesStepwise", "Energy", "Anneals", "Enumerates", "RunsChains", "HiddenLayers", "Encodes",
        "Reconstructs", "Completes", "Filters", "SurpriseMap",
    },
    "label_rbm": {
        "Samples", "SamplesStepwise", "Energy", "Anneals", "Enumerates", "RunsChains", "HiddenLayers", "Encodes",
        "Reconstructs", "Completes", "Filters", "SurpriseMap", "Classifies",
    },
    "gaussian_rbm": {
        "Samples", "SamplesStepwise", "Energy", "Anneals", "Enumerates", "RunsChains", "HiddenLayers", "Encodes",
        "Reconstructs", "Completes", "Filters", "SurpriseMap",
    },
    "rbm": {
        "Samples", "SamplesStepwise", "Energy", "Anneals", "Enumerates", "RunsChains", "HiddenLayers", "Encodes",
        "Reconstructs", "Completes", "Filters", "SurpriseMap",
    },
    "rnade": EXACT_IN_ORDER,
    "wavenet": EXACT_IN_ORDER,
    "vae": {"Samples", "LatentLikelihood", "Encodes", "Decodes", "Reconstructs"},
}  # fmt: skip
NUMBER_OF_PAIRS = 208

# --- what is collected -------------------------------------------------------------------------------------------


def test_every_model_has_the_capabilities_of_the_table() -> None:
    found = {name: {capability for model, capability in PAIRS if model == name} for name in list_models()}
    assert found == EXPECTED
    assert len(PAIRS) == NUMBER_OF_PAIRS == sum(map(len, EXPECTED.values()))


def test_every_capability_of_the_contract_has_laws_here() -> None:
    assert USES.keys() == CAPABILITIES.keys()


def test_every_pair_is_used_in_every_shape_and_kind_of_pixels() -> None:
    used = {(case.name, capability) for case, capability in USED.values()}
    assert used == set(PAIRS)
    kinds = sum(len(pixel_kinds(name)) * len(capabilities(model_class(name))) for name in list_models())
    assert len(USED) == kinds * len(SHAPES)


# --- laws of every capability ------------------------------------------------------------------------------------


@every_use
def test_results_have_their_shape_and_are_finite(case: Case, capability: str) -> None:
    model, x = case.build().eval(), case.images()
    result, expected = use(model, capability, x), USES[capability].shape(model, len(x))
    assert result.dim() == len(expected)
    assert all(size in (ANY, actual) for size, actual in zip(expected, result.shape, strict=True)), result.shape
    assert result.isfinite().all()
    assert result.is_floating_point()


@every_use
def test_a_seed_repeats_and_the_global_state_plays_no_part(case: Case, capability: str) -> None:
    model, x = case.build().eval(), case.images()
    first = use(model, capability, x)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    second = use(model, capability, x)
    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())


@every_use
@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
def test_using_a_model_changes_nothing_in_it(case: Case, capability: str, training: bool) -> None:
    model, x = case.build().train(training), case.images()
    before, given = copy_of_state(model), x.clone()
    use(model, capability, x)
    assert same_state(before, model.state_dict())
    assert model.training == training
    assert all(module.training == training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(x, given)


@every_use_image_by_image
def test_an_image_has_the_same_result_alone_and_in_company(case: Case, capability: str) -> None:
    axis = USES[capability].images_axis
    model, x = case.build().eval(), case.images(5)
    together = use(model, capability, x)
    for i in range(len(x)):
        torch.testing.assert_close(use(model, capability, x[i : i + 1]), together.narrow(axis, i, 1))


def bad_images(case: Case) -> Iterator[tuple[str, Tensor]]:
    x = case.images()
    yield "shape", x[:, :, :-1]
    yield "channels", x.repeat(1, 2, 1, 1)
    yield "flat", x.flatten(1)
    yield "integers", x.round().long()
    yield "booleans", x > 0.5
    for name, value in {"NaN": math.nan, "infinite": math.inf, "above 1": 1.5, "below 0": -0.5}.items():
        yield name, x.index_fill(3, torch.tensor([0]), value)
    if case.pixels != "real":
        yield "between levels", x.index_fill(3, torch.tensor([0]), 0.4)


@every_use_of_images
def test_bad_images_are_refused_by_name(case: Case, capability: str) -> None:
    model = case.build().eval()
    for name, x in bad_images(case):
        with pytest.raises(ValueError, match="image|pixel"):
            use(model, capability, x)
            pytest.fail(f"took {name}")


@pytest.mark.parametrize("name, arguments", [("gaussian_rbm", {}), ("rnade", {}), ("vae", {"pixels": "real"})])
def test_levels_of_real_pixels_are_none_or_those_of_images(name: str, arguments: dict) -> None:
    for levels in (-3, 0, 1, 257):
        with pytest.raises(ValueError, match="levels"):
            build_model(name, (1, 2, 2), levels=levels, **arguments)
    assert [build_model(name, (1, 2, 2), levels=n, **arguments).levels for n in (None, 2, 256)] == [None, 2, 256]


@every_case
def test_saved_and_loaded_it_does_the_same(case: Case, tmp_path: Path) -> None:
    model, x = case.build(), case.images()
    for _ in train(model, Images(case), TrainingConfig(epochs=2, batch_size=4, learning_rate=0.01)):
        pass
    save_model(model, tmp_path, dataset={"name": "made up"}, treatment=treatment_for(None, LEVELS, case.pixels))
    loaded = load_model(tmp_path).model
    model.eval()
    assert (loaded.name, loaded.data_shape, loaded.pixels, loaded.levels) == (
        model.name, model.data_shape, model.pixels, model.levels
    )  # fmt: skip
    for capability in capabilities(model):
        assert torch.equal(use(model, capability, x), use(loaded, capability, x)), capability


# --- sampling ----------------------------------------------------------------------------------------------------


@cases_with("Samples")
def test_samples_are_images_of_their_kind(case: Case) -> None:
    model = case.build().eval()
    x = model.sample(6, generator=seeded_generator(0))
    assert model.check_images(x) is x
    assert not x.requires_grad
    assert len(x.unique()) > 1
    assert not torch.equal(x, model.sample(6, generator=seeded_generator(1)))
    one_stream = seeded_generator(0)
    assert torch.equal(x, model.sample(6, generator=one_stream))
    assert not torch.equal(x, model.sample(6, generator=one_stream)), "the generator was not used up"


@cases_with("Samples")
def test_without_a_generator_the_global_seed_counts(case: Case) -> None:
    model = case.build().eval()
    torch.manual_seed(3)
    x, y = model.sample(6), model.sample(6)
    torch.manual_seed(3)
    assert torch.equal(x, model.sample(6)) and not torch.equal(x, y)


@cases_with("Samples")
def test_threads_with_one_seed_agree_whoever_else_is_sampling(case: Case) -> None:
    model = case.build().eval()
    expected, results, over = model.sample(3, generator=seeded_generator(5)), [], threading.Event()

    def others() -> None:
        while not over.is_set():
            torch.rand(10)
            model.sample(1)

    def draw() -> None:
        results.extend(model.sample(3, generator=seeded_generator(5)) for _ in range(3))

    noise, drawing = threading.Thread(target=others), [threading.Thread(target=draw) for _ in range(2)]
    for thread in (noise, *drawing):
        thread.start()
    for thread in drawing:
        thread.join()
    over.set()
    noise.join()
    assert len(results) == 6 and all(torch.equal(expected, x) for x in results)


@cases_with("Samples")
def test_bad_requests_for_samples_are_refused(case: Case) -> None:
    model = case.build().eval()
    for n in (0, -1):
        with pytest.raises(ValueError, match="n must be at least 1"):
            model.sample(n)
    # with a normal prior, temperature 0 is the image of its mean
    bad = [-1.0, math.nan, math.inf] + ([] if "Decodes" in capabilities(model) else [0.0])
    for temperature in bad:
        with pytest.raises(ValueError, match="temperature"):
            model.sample(2, temperature=temperature)
    with pytest.raises(ValueError, match="labels"):
        model.sample(2, labels=torch.zeros(3, dtype=torch.long))  # neither as many as images nor, mostly, any at all


@cases_with("SamplesStepwise")
def test_steps_are_images_that_end_in_the_sample(case: Case) -> None:
    model = case.build().eval()
    steps, copies = [], []
    for x in model.sample_steps(3, generator=seeded_generator(2)):
        steps.append(model.check_images(x))
        copies.append(x.clone())
    assert len(steps) > 1
    assert torch.equal(steps[-1], model.sample(3, generator=seeded_generator(2)))
    assert all(torch.equal(x, copy) for x, copy in zip(steps, copies, strict=True)), "a step was changed afterwards"
    for bad in ({"n": 0}, {"n": 2, "temperature": -1.0}, {"n": 2, "labels": torch.zeros(2)}):
        with pytest.raises(ValueError):
            next(iter(model.sample_steps(**bad)))


# --- likelihoods -------------------------------------------------------------------------------------------------


def every_image(pixels: str) -> tuple[tuple[int, int, int], Tensor]:
    """A shape, and all its images: 2^9 binary ones of 3x3, or LEVELS^6 of 2x3."""
    shape, levels = ((1, 3, 3), 2) if pixels == "binary" else ((1, 2, 3), LEVELS)
    grey = torch.arange(levels, dtype=torch.float64) / (levels - 1)
    return shape, torch.cartesian_prod(*[grey] * math.prod(shape)).view(-1, *shape)


def any_parameters(model: GenerativeModel, scale: float = 3.0) -> GenerativeModel:
    """The model in double precision, its parameters random and large."""
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * (parameter + 0.3 * torch.randn_like(parameter)))
    return model


DISCRETE = {(name, pixels) for name in list_models() for pixels in pixel_kinds(name) if pixels != "real"}
BOUNDS = {"LatentLikelihood", "UnnormalisedBound"}  # see test_vae.py, test_dbn.py, test_dbm.py
BOUNDED = {(name, pixels) for name, pixels in DISCRETE if BOUNDS & EXPECTED[name]}


@torch.no_grad()
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name, pixels", sorted(DISCRETE - BOUNDED))
def test_any_parameters_give_a_normalised_density(name: str, pixels: str, seed: int) -> None:
    shape, everything = every_image(pixels)
    model = any_parameters(Case(name, pixels, shape).build(seed))
    if "ExactLikelihood" in capabilities(model):
        log_prob = model.log_prob(everything)
    else:
        log_prob = -model.energy(everything) - model.exact_log_partition()
    assert log_prob.logsumexp(0).item() == pytest.approx(0, abs=1e-9)
    assert log_prob.std() > 0.5, "parameters this large should prefer some images"


@cases_with("ExactLikelihood")
def test_densities_of_discrete_pixels_are_probabilities(case: Case) -> None:
    model = any_parameters(case.build())
    log_prob = model.log_prob(case.images().double())
    assert log_prob.dtype == torch.float64
    assert (log_prob < 0).all() or case.pixels == "real"


@cases_with("ExactLikelihood", "PixelLikelihood")
def test_the_map_sums_to_the_density(case: Case) -> None:
    model, x = any_parameters(case.build()), case.images().double()
    parts = model.log_prob_map(x)
    if case.name in ENSEMBLES:
        assert (parts.flatten(1).sum(1) < model.log_prob(x)).all()
    else:
        torch.testing.assert_close(parts.flatten(1).sum(1), model.log_prob(x))
    assert (parts <= 0).all() or case.pixels == "real"


@cases_with("LatentLikelihood")
@torch.no_grad()
def test_more_draws_tighten_the_bound(case: Case) -> None:
    model, x = case.build().eval(), case.images()
    weights = model.log_weights(x, 4000, generator=seeded_generator(0)).double()
    elbo, bound = weights.mean(0), weights.logsumexp(0) - math.log(4000)
    assert (elbo < bound).all()
    assert (weights.std(0) > 0).all(), "the draws of the latent code are all the same"


@cases_with("Energy", "Enumerates")
@torch.no_grad()
def test_the_enumerated_constant_normalises_the_energy(case: Case) -> None:
    model = any_parameters(case.build())
    assert 1 <= model.enumerable_units() <= 9
    if case.shape == (1, 3, 3) and case.pixels == "binary":  # of real pixels it is an integral
        total = (-model.energy(every_image("binary")[1])).logsumexp(0)
        torch.testing.assert_close(total, model.exact_log_partition().double())


@cases_with("Anneals", "Enumerates")
@torch.no_grad()
def test_annealing_estimates_the_enumerated_constant(case: Case) -> None:
    model = any_parameters(case.build(), scale=1.0)
    weights = model.anneal(300, torch.linspace(0, 1, 200, dtype=torch.float64), generator=seeded_generator(0))
    estimate = weights.logsumexp(0) - math.log(300)
    assert estimate.item() == pytest.approx(model.exact_log_partition().item(), abs=0.2)
    assert weights.std() > 0


# --- completion --------------------------------------------------------------------------------------------------


@cases_with("Completes")
def test_completion_keeps_what_is_known(case: Case) -> None:
    model, x = case.build().eval(), case.images(6)
    for seed in range(3):
        known = torch.rand(6, 1, *case.shape[1:], generator=seeded_generator(seed)).round()
        completed = model.complete(x, known, generator=seeded_generator(0))
        assert torch.equal(completed * known, x * known)
        assert model.check_images(completed) is completed
        hidden = torch.where(known.bool(), x, torch.full_like(x, math.nan))
        assert torch.equal(completed, model.complete(hidden, known, generator=seeded_generator(0)))
        assert not torch.equal(completed, model.complete(x, known, generator=seeded_generator(1)))


@cases_with("Completes")
def test_everything_known_returns_the_images(case: Case) -> None:
    model, x = case.build().eval(), case.images()
    known = torch.ones(1, 1, *case.shape[1:])
    assert torch.equal(model.complete(x, known), x)
    assert len(model.complete(x[:0], known)) == 0


@cases_with("Completes")
def test_one_mask_for_all_is_that_mask_for_each(case: Case) -> None:
    model, x = case.build().eval(), case.images()
    one = model.complete(x, halfway(model), generator=seeded_generator(0))
    each = model.complete(x, halfway(model).expand(len(x), -1, -1, -1), generator=seeded_generator(0))
    assert torch.equal(one, each)


@cases_with("Completes", "ExactLikelihood")
def test_nothing_known_is_a_sample(case: Case) -> None:
    """Of the models that draw exactly; a Boltzmann machine's clamped chain is another chain than its sampler's."""
    model, x = case.build().eval(), case.images()
    known = torch.zeros(1, 1, *case.shape[1:])
    completed = model.complete(x, known, temperature=0.7, generator=seeded_generator(4))
    assert torch.equal(completed, model.sample(len(x), temperature=0.7, generator=seeded_generator(4)))


@cases_with("Completes")
def test_bad_requests_for_completion_are_refused(case: Case) -> None:
    model, x = case.build().eval(), case.images()
    known = halfway(model)
    for bad in (known[0], known[..., :-1], known.repeat(3, 1, 1, 1), 0.5 * known, known * math.nan):
        with pytest.raises(ValueError, match="known"):
            model.complete(x, bad)
    for temperature in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="temperature"):
            model.complete(x, known, temperature=temperature)


# --- codes, pictures, verdicts -----------------------------------------------------------------------------------


@cases_with("Decodes")
@torch.no_grad()
def test_decoded_codes_are_images_between_0_and_1(case: Case) -> None:
    model = case.build().eval()
    z = model.sample_latent(5, generator=seeded_generator(0))
    assert z.dim() == 2 and z.shape[0] == 5
    assert not torch.equal(z, model.sample_latent(5, generator=seeded_generator(1)))
    x = model.decode(10 * z)
    assert x.min() >= 0 and x.max() <= 1
    torch.testing.assert_close(x[:1], model.decode(10 * z[:1]))
    if "Encodes" in capabilities(model):
        assert model.encode(case.images()).shape[1:] == z.shape[1:]


@cases_with("Reconstructs")
@torch.no_grad()
def test_reconstructions_lie_between_0_and_1(case: Case) -> None:
    model = any_parameters(case.build())
    x = model.reconstruct(case.images().double())
    assert x.min() >= 0 and x.max() <= 1


@cases_with("Filters")
def test_filters_are_pictures_apart_from_the_graph(case: Case) -> None:
    filters = case.build().filters()
    assert not filters.requires_grad and filters.std() > 0


@cases_with("SurpriseMap")
def test_surprise_is_never_negative_and_needs_no_graph(case: Case) -> None:
    model, x = case.build().eval(), case.images()
    plain = model.surprise_map(x)
    assert (plain >= 0).all() and not plain.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(model.surprise_map(x), plain)


# --- Markov chains and hidden units ------------------------------------------------------------------------------


@cases_with("RunsChains")
def test_chains_wander_among_images(case: Case) -> None:
    model, x = any_parameters(case.build().eval(), scale=0.1), case.images(6).double()
    chain = model.chain_steps(x, generator=seeded_generator(0))
    steps = [next(chain) for _ in range(4)]
    assert all(model.check_images(step) is step for step in steps)
    assert not torch.equal(steps[0], x) and not torch.equal(steps[2], steps[3])


@cases_with("HiddenLayers")
@torch.no_grad()
def test_activations_are_means_of_switches(case: Case) -> None:
    layers = any_parameters(case.build()).hidden_layers(case.images().double())
    assert layers and all(layer.min() >= 0 and layer.max() <= 1 for layer in layers)
