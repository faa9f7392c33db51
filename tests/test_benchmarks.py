"""What benchmarks decide before they print: plans that fit the time, rows that gather, numbers that are never mixed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from gdm_core.contract import Batch, GenerativeModel, TrainingConfig
from gdm_core.data import ImageDataset, load_dataset, treatment_for
from gdm_core.likelihoods import Likelihood
from gdm_core.registry import build_model
from pipelines.configuration import resolve
from tests.devices import DEVICES

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # they are scripts: each finds its neighbours so

import arithmetic  # noqa: E402
import digits as every_model  # noqa: E402
import incremental_sampling  # noqa: E402
import likelihood as benchmark  # noqa: E402
import likelihood_table  # noqa: E402
import record  # noqa: E402
import speed  # noqa: E402
import speed_table  # noqa: E402
from budget import Plan, Rounds, plan_training  # noqa: E402
from likelihood_recipes import PUBLISHED, RECIPES, SIZES, Recipe, recipes  # noqa: E402

WHERE = {"date": "2026-01-01", "commit": "abc", "device": "cpu", "threads": 2}
TINY = Recipe("pixel_cnn", {"channels": 4, "blocks": 1, "kernel_size": 3}, 100, 3e-3, {"fixed": 3, "dynamic": 3})


class Numbers:
    """Training data whose image n is n everywhere; remembers which rounds were asked for."""

    def __len__(self) -> int:
        return 7

    def batch(self, rows: torch.Tensor, epoch: int) -> Batch:
        return Batch(rows[:, None, None, None].float(), torch.full((len(rows),), epoch))


@pytest.mark.parametrize("images, rounds", [(21, 3), (30, 3), (12, 4), (5, 1), (20, 2)])
def test_no_image_is_seen_again_before_all_others_have_been(images: int, rounds: int) -> None:
    data = Rounds(Numbers(), Plan(images, rounds), seed=0)
    seen = []
    for epoch in range(rounds):
        order = torch.randperm(len(data))
        batches = [data.batch(rows, epoch) for rows in order.split(4)]
        assert all((batch.labels == epoch).all() for batch in batches)
        seen += torch.cat([batch.images for batch in batches])[order.argsort()].flatten().int().tolist()
    assert len(seen) == rounds * (images // rounds)
    for begin in range(0, len(seen), 7):
        part = seen[begin : begin + 7]
        assert len(set(part)) == len(part)
    if len(seen) >= 14:
        assert seen[:7] != seen[7:14]  # every pass has an order of its own


@pytest.mark.parametrize("speed", [20.0, 900.0, 1e5])
@pytest.mark.parametrize("validation", [0.0, 0.5, 40.0])
def test_a_plan_fits_the_time_and_never_exceeds_the_recipe(speed: float, validation: float) -> None:
    plan = plan_training(600, speed, validation, images_per_pass=50_000, most_passes=60)
    took = plan.images / speed + plan.rounds * validation
    assert took <= 600 + 1e-6 and plan.images <= 60 * 50_000 and plan.rounds <= 60
    assert plan.images == 60 * 50_000 or took > 599  # the time is used, or the recipe done
    assert plan.rounds == 1 or plan.rounds * validation <= 60


def test_a_validation_that_takes_longer_than_the_time_leaves_a_plan() -> None:
    assert plan_training(10, 5.0, 40.0, 1000, 10) == Plan(1, 1)


def row(binarisation: str = "fixed", label: str = "nade", mean: float = -90.0, **changes: Any) -> dict[str, Any]:
    test = {"mean": mean, "standard_error": 0.5, "count": 10_000, "kind": "exact", "settings": {}, "log_z": None}
    return {
        "model": label, "label": label, "binarisation": binarisation, "size": "small", "test": test, "where": WHERE,
        "dimensions": 784, "dataset": "data", "digest": "0", "treatment": "binary", "parameters": 12, "passes": 1.5,
        "training_seconds": 60.0, "compiled": False, "config": {"seed": 0, "precision": "float32"}, **changes,
    }  # fmt: skip


def test_a_row_replaces_the_one_it_repeats_and_no_other() -> None:
    rows: list[dict[str, Any]] = []
    first = [row(), row("dynamic"), row(size="paper"), row(label="made")]
    for one in [*first, row(mean=-88.0)]:
        rows = record.with_row(rows, one, ("binarisation", "label", "size"))
    assert len(rows) == 4 and all(one in rows for one in first[1:])
    assert [one["test"]["mean"] for one in rows if one == row(mean=-88.0)] == [-88.0] and first[0] not in rows


def test_published_numbers_stand_beside_their_own_binarisation_only() -> None:
    text = "\n".join(likelihood_table.report([row("fixed"), row("dynamic"), row("dynamic", "pixel_rnn, row LSTM")]))
    fixed, dynamic = text.split("## Dynamic binarisation")
    assert "-88.33" in fixed and "-85.65" not in fixed
    assert "-85.65" in dynamic and "-88.33" not in dynamic and "-80.54" not in text
    for label, published in PUBLISHED.items():
        assert label in {recipe.label for size in SIZES for recipe in RECIPES[size]} and published
        for number in published.values():
            assert -300 < number.nats < likelihood_table.LEAK_GATE and number.tag in "PSCRM"
            assert ("unconfirmed" in number.text) == (number.tag == "M")


def test_a_number_that_is_too_good_is_flagged_as_a_leak() -> None:
    assert likelihood_table.is_suspected_leak(row(mean=-76.9))
    assert not likelihood_table.is_suspected_leak(row(mean=-77.1))
    assert not likelihood_table.is_suspected_leak(row(mean=-17.0, dimensions=64))
    estimate = row(mean=-76.0)
    estimate["test"] |= {"kind": "estimate", "log_z": {"value": 1.0, "low": 0.5, "high": 2.0}}
    assert not likelihood_table.is_suspected_leak(estimate)
    text = "\n".join(likelihood_table.report([row(mean=-70.0), row(label="rbm", test=estimate["test"])]))
    assert text.count("suspected leak") == 1 and "log Z 1.00 [0.50, 2.00]" in text


def test_every_recipe_can_be_built_for_mnist() -> None:
    for size in SIZES:
        for recipe in RECIPES[size]:
            assert build_model(recipe.model, (1, 28, 28), **recipe.arguments).pixels == "binary"
        labels = [recipe.label for recipe in RECIPES[size]]
        assert len(set(labels)) == len(labels)
    assert {recipe.label for recipe in RECIPES["small"]} == {recipe.label for recipe in RECIPES["paper"]}
    with pytest.raises(ValueError, match="no small recipe for dcgan"):
        recipes("small", ["nade", "dcgan"])


@pytest.mark.parametrize("size", SIZES)
def test_recipes_that_need_labels_have_rows_where_there_are_labels_only(size: str) -> None:
    for recipe in RECIPES[size]:
        with_labels = recipe.model == "conditional_gated_pixel_cnn"
        assert set(recipe.passes) == ({"dynamic"} if with_labels else set(benchmark.BINARISATIONS))
    with pytest.raises(typer.BadParameter, match="conditional_gated_pixel_cnn has no row on fixed, only on dynamic"):
        benchmark.main("conditional_gated_pixel_cnn", "fixed", size)


def trained(config: TrainingConfig, compiled: bool = False, recipe: Recipe = TINY, **options: Any) -> dict[str, Any]:
    digits = load_dataset("digits")
    fewer = {"train": digits.splits["train"].take(torch.arange(400))}
    digits = ImageDataset("digits", digits.splits | fewer, digits.levels)
    treatment = treatment_for(None, digits.levels, "binary")
    return benchmark.run(recipe, "fixed", digits, treatment, config, options.get("minutes"), compiled)


def test_the_best_round_on_validation_is_the_one_whose_weights_are_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    means = iter([-20.0, -10.0, -15.0])
    evaluate, offered = benchmark.evaluate, []

    def pretend(model: GenerativeModel, images: torch.Tensor) -> Likelihood:
        """The second of three rounds is the best; afterwards the truth."""
        found = evaluate(model, images)
        mean = next(means, None)
        if mean is None:
            return found
        offered.append(found.values[:150])
        return replace(found, values=torch.full((len(images),), mean, dtype=torch.float64))

    monkeypatch.setattr(benchmark, "evaluate", pretend)
    found = trained(TrainingConfig())
    assert found["validation_by_round"] == [-20, -10, -15] and found["chosen_round"] == 2
    assert found["validation"]["mean"] == pytest.approx(offered[1].mean().item(), abs=1e-6)
    assert found["validation"]["mean"] != pytest.approx(offered[2].mean().item(), abs=1e-3)
    assert found["test"]["kind"] == "exact" and found["test"]["count"] == 300
    assert json.dumps(found)


def test_an_estimate_chooses_no_round_and_has_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(benchmark.FINAL, "temperatures", 30)
    found = trained(TrainingConfig(), recipe=Recipe("rbm", {"hidden_units": 4}, 100, 0.05, {"fixed": 2}))
    assert found["chosen_round"] is None and found["validation_by_round"] == []
    log_z = found["test"]["log_z"]
    assert found["test"]["kind"] == "estimate" and log_z["low"] < log_z["value"] < log_z["high"]


def test_a_time_budget_is_kept() -> None:
    recipe = replace(TINY, passes={"fixed": 10_000})
    found = trained(TrainingConfig(), recipe=recipe, minutes=0.03)
    assert 0 < found["passes"] < 1_000 and found["training_seconds"] < 10  # 1.8 s, on a machine that may be busy


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("recipe", [TINY, replace(TINY, model="made", arguments={"hidden_units": (30,)})])
def test_compiling_and_half_precision_change_held_out_likelihoods_by_rounding_only(
    recipe: Recipe, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trained(TrainingConfig(device=device), recipe=recipe)["test"]["mean"]
    if device == "cpu":
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))  # without a C++ compiler
    compiled = trained(TrainingConfig(device=device), compiled=True, recipe=recipe)["test"]["mean"]
    half = trained(TrainingConfig(device=device, precision="bfloat16"), recipe=recipe)["test"]["mean"]
    assert compiled == pytest.approx(plain, abs=1e-2)
    assert half == pytest.approx(plain, abs=0.1) and half != plain


@pytest.mark.parametrize(
    "name, arguments, expected, counted",
    [
        ("fvsbn", {}, 2 * 64 * 64, "operators"),  # W x, and the gradient of W; none of x
        ("nade", {"hidden_units": 7}, 6 * 64 * 7, "formula"),
        ("independent_bernoulli", {}, 0, None),
    ],
)
def test_multiply_adds_of_a_learning_step(name: str, arguments: dict, expected: int, counted: str | None) -> None:
    timed = speed.Timed(speed.Case(name, (1, 8, 8), arguments, batch_size=30), "cpu")
    assert (timed.cost, timed.counted) == (expected, counted)
    assert arithmetic.share_of_rate(1e6, 5e3, gflops=100) == pytest.approx(0.1)


def test_only_a_gpu_is_timed_with_graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert incremental_sampling.measure_graphs(speed.GRAPHS, "cpu") == []
    model = build_model("pixel_cnn", (1, 4, 4), channels=3, blocks=1).eval()
    found = incremental_sampling.graph_round(model, 3, "cpu")
    assert found["equal"] == 1 and found["graph"] > 0 and found["steps"] > 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(typer.BadParameter, match="no GPU"):
        speed.main(device="cuda", folder=tmp_path)


def test_a_thousand_images_are_wanted_in_five_seconds() -> None:
    def text(seconds: float, images: int) -> str:
        spread = record.spread([seconds])
        row = {
            "model": "pixel_cnn", "data_shape": [1, 28, 28], "images": images, "recording_seconds": 9.0,
            "graph": spread, "steps": record.spread([20.0]), "equal": record.spread([0.5]),
        }  # fmt: skip
        return incremental_sampling.graphs_section([row])[-1]

    assert "| 5 [5, 5] | 20 [20, 20] | 9 | yes | 50.00% |" in text(5.0, 1000)
    assert "**no**" in text(5.1, 1000) and "**no**" in text(3.0, 500) and "yes" in text(2.5, 500)


def test_a_peer_is_compared_with_its_own_architecture() -> None:
    peers = {(peer.model, peer.what): peer for peer in speed_table.PEERS}
    rate = {"median": 108.5, "low": 1.0, "high": 2.0}
    measured = {
        "model": "pixel_cnn", "data_shape": [1, 28, 28], "arguments": {"blocks": 15, "channels": 16, "dropout": 0.0},
        "sampling_seconds": {"median": 0.5}, "training_images_per_second": {"median": 99.0}, "matrix_gflops": rate,
    }  # fmt: skip
    sampling, training = peers["pixel_cnn", "sampling"], peers["pixel_cnn", "training"]
    assert speed_table.speed_up(sampling, measured, 64) == (128, pytest.approx(50.4))  # 25.2 s against 0.5
    assert speed_table.speed_up(training, measured, 64) == (99, pytest.approx(0.25))
    text = "\n".join(speed_table.peers_section([measured], 64))
    assert "| 50.4 | 101 | 50 | yes |" in text and "| 0.25 | 0.5 |" in text and "nade" not in text
    for change in ({"model": "nade"}, {"data_shape": [1, 8, 8]}, {"arguments": {"blocks": 2, "channels": 16}}):
        assert not speed_table.is_same(sampling, measured | change)
    assert peers["nade", "training"].goal == 4 and peers["gated_pixel_cnn", "sampling"].goal == 100


def test_the_table_of_all_models_says_who_trains_in_time_and_what_came_of_it() -> None:
    where = {**WHERE, "load": "0.1 before the start"}
    test = {"mean": -16.6, "standard_error": 0.2, "kind": "exact", "unit": "nats per image", "count": 300}
    quick = {"model": "a", "variant": "", "dataset": "digits", "family": "energy", "training_seconds": 59.9}
    quick |= {"seconds": 90.0, "health": "good", "test": {**test, "bits_per_dimension": None}}
    quick |= {"frechet": None, "where": where}
    slow = {**quick, "model": "b", "training_seconds": 60.1, "test": {**test, "count": 0}, "frechet": 23.04}
    first, second = every_model.report([quick, slow])[-2:]
    assert "| yes |" in first and "-16.60 ± 0.20 nats per image, exact, 300 images |" in first
    assert "| **no** |" in second and "Frechet distance 23.0" in second and "nan" not in second
    varied = {**quick, "dataset": "harmonics", "variant": every_model.VARIANTS[-2].variant}
    varied["test"] = {**test, "bits_per_dimension": 2.5}
    lines = every_model.report([quick, varied, slow])
    assert lines[lines.index("## Variants") - 2] == second
    name = "a, data harmonics, dropout 0.0, epochs 12, learning_rate 0.01"
    assert lines[-1].startswith(f"| {name} | energy | 59.9 | 90.0 |  |")
    assert "300 images, 2.500 bits per dimension |" in lines[-1]


def test_variants_are_runs_that_can_be_made() -> None:
    for case in every_model.VARIANTS:
        configuration, data = resolve(case.model, case.dataset, arguments=case.arguments, **case.training)
        assert data.name == case.dataset and configuration.arguments.items() >= case.arguments.items()


@pytest.mark.parametrize("name", ["deep_energy", "dcgan"])
def test_arithmetic_is_counted_where_gradients_are_taken_by_hand(name: str) -> None:
    timed = speed.Timed(speed.Case(name, speed.SMALL, {}, 4), "cpu")
    assert timed.cost > 1e5 and timed.counted == "operators"
