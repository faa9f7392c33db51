"""How well registered models tell strange images from normal ones, and whether their verdicts keep their promise.

    python benchmarks/anomaly.py                      every model registered for digits, its latest version
    python benchmarks/anomaly.py --dataset mnist nade pixel_cnn

Prints benchmarks/results/anomaly.md and writes it, with the same numbers as anomaly.json beside it. Everything is
measured on test images; calibration scores come with the registered model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import record
import typer
from torch import Tensor

from gdm_core.anomaly import (
    Calibration,
    auroc,
    false_alarms,
    lit_share,
    map_images,
    normalise_map,
    p_values,
    pixel_auroc,
    score_images,
    scorers_for,
)
from gdm_core.data import ImageDataset, load_dataset
from gdm_core.data.corruptions import inverted, pasted_block, shuffled, turned
from gdm_core.randomness import seeded_generator
from gdm_core.storage import StoredModel
from pipelines import tracking

RATES = (0.01, 0.05, 0.1)
SEED = 0
PASTES = 5
COMMAND = "python benchmarks/anomaly.py"


def strange_images(dataset: ImageDataset) -> dict[str, Tensor]:
    """Stored test images, corrupted: {kind: uint8 (N, C, H, W)}."""
    test, levels = dataset.splits["test"].images, dataset.levels
    return {
        "inverted": inverted(test, levels),
        "shuffled": shuffled(test, seeded_generator(SEED, "shuffled")),
        "turned": turned(test),
    }


def measure_scores(stored: StoredModel, dataset: ImageDataset) -> list[dict[str, Any]]:
    """One record per scorer: AUROC against each kind of strange image, realised false alarms at each rate."""
    model, treatment = stored.model, stored.treatment
    calibration = Calibration.from_tensors(stored.calibration)
    normal = treatment(dataset.splits["test"].images)
    strange = {kind: treatment(images) for kind, images in strange_images(dataset).items()}
    records = []
    for scorer in scorers_for(model):
        scores = score_images(model, scorer, normal)
        p = p_values(scores, calibration.scores_of(scorer.name))
        records.append({
            "scorer": scorer.name,
            "auroc": {kind: auroc(scores, score_images(model, scorer, x)) for kind, x in strange.items()},
            "false_alarms": [describe(false_alarms(p, rate, calibration.count)) for rate in RATES],
        })  # fmt: skip
    return records


def describe(record: Any) -> dict[str, Any]:
    return {**vars(record), "realised": record.realised, "as_promised": record.as_promised}


def measure_maps(stored: StoredModel, dataset: ImageDataset) -> list[dict[str, Any]]:
    """One record per calibrated heat map: the share of lit pixels on normal test images, and pixel AUROC of a pasted
    2x2 block on the same images.

    Each image is pasted into several times, at random places. The defect is what the block changed in the image the
    model sees: a pixel that had the pasted value before is as normal as it was. The AUROC of the whole block, those
    pixels included, is given beside it.
    """
    test = dataset.splits["test"].images.repeat(PASTES, 1, 1, 1)
    damaged, block = pasted_block(test, dataset.levels, seeded_generator(SEED, "pasted"), size=2)
    normal_x, damaged_x = stored.treatment(test), stored.treatment(damaged)
    changed, records = (damaged_x != normal_x).any(1), []
    for method, scale in Calibration.from_tensors(stored.calibration).scaled_maps(stored.model).items():
        damaged_map = normalise_map(map_images(stored.model, damaged_x, method), scale)
        normal_map = normalise_map(map_images(stored.model, normal_x[: len(test) // PASTES], method), scale)
        records.append({
            "map": method.name, "lit_share": lit_share(normal_map), "pixel_auroc": pixel_auroc(damaged_map, changed),
            "pixel_auroc_whole_block": pixel_auroc(damaged_map, block[:, 0]),
        })  # fmt: skip
    return records


def assess(version: tracking.ModelVersion) -> dict[str, Any]:
    """Everything measured of one registered version."""
    stored = tracking.load_registered(version.uri)
    dataset = load_dataset(**stored.card.dataset["specification"])
    if dataset.digest != stored.card.dataset["digest"]:
        raise typer.BadParameter(f"{version.uri} was made with other data than load_dataset gives here")
    return {
        "model": version.architecture, "version": version.uri, "dataset": dataset.name, "digest": dataset.digest,
        "treatment": stored.treatment.label, "calibration_count": Calibration.from_tensors(stored.calibration).count,
        "test_count": len(dataset.splits["test"]),
        "scores": measure_scores(stored, dataset), "maps": measure_maps(stored, dataset),
    }  # fmt: skip


def report(results: list[dict[str, Any]], where: dict[str, Any]) -> list[str]:
    """The three tables, with what they were measured on."""
    lines = record.heading("Anomaly detection", COMMAND, where) + [
        f"- {r['version']}: {r['dataset']} ({r['digest']}), {r['treatment']}; {r['calibration_count']} calibration "
        f"and {r['test_count']} test images"
        for r in results
    ]
    return lines + auroc_table(results) + alarm_table(results) + map_table(results)


def auroc_table(results: list[dict[str, Any]]) -> list[str]:
    kinds = list(results[0]["scores"][0]["auroc"])
    rows = [
        [r["model"], s["scorer"], *(f"{s['auroc'][kind]:.3f}" for kind in kinds)] for r in results for s in r["scores"]
    ]
    note = "AUROC of the test images against the same images corrupted; 0.5 is chance, below it normal looks stranger."
    return record.section("Strange images", note, ["model", "scorer", *kinds], rows)


def alarm_table(results: list[dict[str, Any]]) -> list[str]:
    rows = [[r["model"], s["scorer"], *map(alarm_cell, s["false_alarms"])] for r in results for s in r["scores"]]
    note = "Normal test images flagged; in brackets the 99 % beta-binomial interval of their number."
    return record.section("False alarms", note, ["model", "scorer", *(f"asked {rate:.0%}" for rate in RATES)], rows)


def alarm_cell(alarms: dict[str, Any]) -> str:
    outside = "" if alarms["as_promised"] else " **outside**"
    return f"{alarms['realised']:.1%}: {alarms['flagged']} [{alarms['low']}, {alarms['high']}]{outside}"


def map_table(results: list[dict[str, Any]]) -> list[str]:
    maps = [(r["model"], one) for r in results for one in r["maps"]]
    rows = [
        [model, m["map"], f"{m['lit_share']:.2%}", f"{m['pixel_auroc']:.3f}", f"{m['pixel_auroc_whole_block']:.3f}"]
        for model, m in maps
    ]
    note = (
        "Lit: share of the pixels of normal test images above their threshold. Pixel AUROC: the pixels that a pasted "
        f"2x2 block changed against all others, {PASTES} pastes of every test image together; and all pixels of the "
        "block, also those that had its value before."
    )
    return record.section("Heat maps", note, ["model", "map", "lit", "pixel AUROC", "whole block"], rows)


def main(
    models: Annotated[list[str] | None, typer.Argument(help="architectures such as nade; all if none is named")] = None,
    dataset: Annotated[str, typer.Option(help="name of the data set")] = "digits",
    folder: Annotated[Path, typer.Option(help="where anomaly.md and anomaly.json go")] = record.RESULTS,
) -> None:
    """Measure the latest registered version of each model on one data set."""
    latest = [v for v in tracking.list_versions() if "latest" in v.aliases and v.dataset == dataset]
    chosen = sorted((v for v in latest if not models or v.architecture in models), key=lambda v: (v.family, v.name))
    if not chosen:
        raise typer.BadParameter(f"no model is registered for {dataset}: train one first, or run `make run`")
    where = record.circumstances(packages=("torch", "scikit-learn"))
    results = [assess(version) for version in chosen]
    record.keep("anomaly", report(results, where), {**where, "seed": SEED, "results": results}, folder)


if __name__ == "__main__":
    typer.run(main)
