"""The Chains page without a browser, and what it rests on: the course of chains, how they mix, their figure."""

from __future__ import annotations

import itertools
import math
from contextlib import nullcontext

import numpy
import pytest
import torch
from torch import Tensor

from dashboard import chains
from dashboard.chains import Course
from dashboard.figures.chains import chain_figure
from dashboard.jobs import Job
from dashboard.views import chains as view
from gdm_core.chain_statistics import autocorrelation_time
from gdm_core.contract import GenerativeModel
from gdm_core.energies import energy_or_bound
from gdm_core.randomness import seeded_generator
from gdm_core.registry import build_model
from pipelines import tracking
from tests.live_models import register_model
from tests.stores import new_store, using
from tests.test_dashboard_live import empty_store, page, words  # noqa: F401


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A store with a model that runs chains and one that does not."""
    folder = tmp_path_factory.mktemp("chains")
    with using(new_store(folder)):
        yield {name: register_model(folder, name) for name in ("rbm", "vae")}


def course(model: GenerativeModel, start: Tensor, steps: int = 150, **rest: object) -> Course:
    settings = {"temperature": 1.0, "seed": 0, "classify": None, "data": start, **rest}
    return chains.running(model, nullcontext(), start, steps, **settings)(Job("chains"))


# --- what is computed -------------------------------------------------------------------------------------------------


def test_the_course_is_the_models_own_chain(models) -> None:
    model = tracking.load_model(models["rbm"])
    start = chains.noise(model, 5, 0)
    found = course(model, start)
    own = list(itertools.islice(model.chain_steps(start, 1.0, seeded_generator(0, "chain")), 150))
    assert found.moments[0] == 0 and found.moments[-1] == 150 and len(found.moments) <= chains.FRAMES + 2
    for moment, frame in zip(found.moments[1:], found.frames[1:], strict=True):
        assert torch.equal(frame, own[moment - 1])
    with torch.no_grad():
        energies = torch.stack([model.energy(x).double() for x in (start, *own)])
    assert torch.equal(found.values, energies) and found.what == "energy"
    assert found.autocorrelation_time == autocorrelation_time(energies[15:])


@torch.no_grad()
@pytest.mark.parametrize("name", ["dbn", "dbm"])
def test_where_there_is_no_energy_the_bound_on_it_is_followed(name: str) -> None:
    """With one noise for all steps and for the data, so that an image has the same value whenever it comes."""
    model = build_model(name, (1, 2, 2), hidden_units=(3, 2))
    start = chains.noise(model, 4, 0)
    found = course(model, start, 30)
    assert found.what == "bound on the free energy" and torch.equal(found.data, found.values[0])
    own = list(itertools.islice(model.chain_steps(start, 1.0, seeded_generator(0, "chain")), 30))
    bounds = torch.stack([energy_or_bound(model, x, 8).double() for x in (start, *own)])
    torch.testing.assert_close(found.values, bounds)
    for x, value in zip(own, found.values[1:], strict=True):
        again = (x == own[-1][:1]).flatten(1).all(1)
        torch.testing.assert_close(value[again], found.values[-1, 0].expand(int(again.sum())), rtol=0, atol=1e-5)
    figure = chain_figure(found.values.numpy(), found.what, found.data.numpy(), 0)
    assert figure.layout.yaxis.title.text == "bound on the free energy, nats"


@pytest.mark.parametrize("pixels", ["binary", "levels", "real"])
def test_noise_takes_every_value_a_pixel_can_have(pixels: str) -> None:
    name = "dcgan" if pixels == "real" else "made"
    model = build_model(name, (1, 8, 8), **({} if pixels == "real" else {"pixels": pixels, "levels": 5}))
    x = chains.noise(model, 40, 0)
    assert model.check_images(x) is x and torch.equal(x, chains.noise(model, 40, 0))
    assert len(x.unique()) == {"binary": 2, "levels": 5}.get(pixels, x.numel()) or pixels == "real"
    assert x.mean() == pytest.approx(0.5, abs=0.03)


def test_a_class_is_that_of_the_nearest_training_images() -> None:
    images = torch.cat([torch.zeros(6, 1, 2, 2), torch.ones(6, 1, 2, 2)])
    classify = chains.nearest_neighbours(images, torch.tensor([3] * 6 + [7] * 6))
    assert classify(torch.tensor([0.1, 0.9]).view(2, 1, 1, 1).expand(-1, 1, 2, 2)).tolist() == [3, 7]


def still(values: Tensor, classes: list | None = None, pixels: str = "binary", frames: Tensor | None = None) -> Course:
    frames = torch.zeros(3, values.shape[1], 1, 2, 2) if frames is None else frames
    moments = [0, len(values) // 2, len(values) - 1]
    return Course(frames, moments, values, "energy", torch.tensor([1.0, 3.0]).double(),
                  None if classes is None else numpy.array(classes), 0.1, pixels)  # fmt: skip


def test_it_is_said_how_the_chains_mix() -> None:
    values = torch.randn(101, 2, dtype=torch.float64)
    lines = "\n".join(view.statistics(still(values, [[1, 1], [1, 2], [1, 3]])))
    time = autocorrelation_time(values[10:])
    assert f"{time:.1f} steps" in lines and f"about {2 * 91 / time:,.0f} independent" in lines
    assert "**50%** of the chains ended in another class" in lines
    difference = values[-1].mean() - 2
    assert f"difference {difference:+.2f}" in lines


def test_chains_that_stand_still_are_said_to() -> None:
    found = still(torch.ones(50, 3, dtype=torch.float64))
    assert math.isinf(found.autocorrelation_time) and "never changes" in view.statistics(found)[0]


def test_chains_that_still_move_in_one_direction_have_not_arrived() -> None:
    falling = torch.linspace(50, 0, 101, dtype=torch.float64)[:, None] + torch.randn(101, 6, dtype=torch.float64)
    assert still(falling).under_way and "have not arrived" in view.statistics(still(falling))[0]
    rest = torch.randn(101, 6, dtype=torch.float64)
    assert not still(rest).under_way and not still(rest[:, :1]).under_way


def test_saturation_is_what_the_data_does_not_have() -> None:
    frames = torch.cat([torch.full((2, 2, 1, 2, 2), 0.5), torch.ones(1, 2, 1, 2, 2)])
    assert still(torch.zeros(9, 2), pixels="real", frames=frames).saturation == pytest.approx(0.9)
    assert still(torch.zeros(9, 2)).saturation is None


def test_the_figure_has_chains_mean_data_and_moment() -> None:
    values = numpy.random.default_rng(0).normal(size=(2001, 20))
    figure = chain_figure(values, "energy", [0.0, 1.0, 2.0], 700)
    assert len(figure.data) == 12 + 1 and all(len(line.x) <= 400 for line in figure.data)
    numpy.testing.assert_allclose(figure.data[-1].y, values[figure.data[-1].x].mean(1))
    assert figure.layout.shapes[-1].x0 == 700 and figure.layout.yaxis.title.text == "energy, nats"


# --- the page ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["Test images", "Noise"])
def test_the_page_runs_chains_and_says_how_they_mix(models, start: str) -> None:
    test = page("chains", start=start, n="3", steps="20")
    said = words(test)
    assert not test.error and "Autocorrelation time of the energy" in said and "another class" in said
    assert "cannot run a Markov chain: digits-vae" in said
    job = test.session_state["_jobs"].get("chains models:/digits-rbm/1")
    assert job.result.frames.shape == (21, 3, 1, 8, 8)


def test_a_step_can_be_chosen(models) -> None:
    test = page("chains", n="2", steps="10")
    slider = next(one for one in test.select_slider if one.label == "Step")
    slider.set_value(4).run()
    assert not test.exception and next(one for one in test.select_slider if one.label == "Step").value == 4


def test_an_upload_is_asked_for(models) -> None:
    assert "Upload an image: every chain starts at it." in words(page("chains", start="Upload"))


def test_chains_that_saturate_are_said_and_not_shown(models, monkeypatch) -> None:
    monkeypatch.setattr(Course, "saturation", 0.7)
    test = page("chains", n="2", steps="10")
    assert "The chains saturate: 70%" in test.error[0].value and "nearest training images" not in words(test)


def test_without_models_it_says_which_could(empty_store) -> None:  # noqa: F811
    assert "`rbm`" in words(page("chains")) and "python -m pipelines train rbm" in words(page("chains"))
