"""How likely each model finds binarised MNIST after a training of given length, beside the published numbers.

    python benchmarks/likelihood.py --models nade,made --minutes 10            small sizes on the processor
    python benchmarks/likelihood.py --size paper --device cuda --minutes 20    the papers' sizes on a GPU

Prints each row and adds it to benchmarks/results/likelihood.json, which likelihood.md is made from: a model that is run
again replaces its row, the others keep theirs, each with its own date, commit, device and seed. The weights are those
of the best round on validation images; test images are seen once, at the end. Recipes: likelihood_recipes.py.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import record
import torch
import typer
from budget import Plan, Rounds, learning_speed, now, plan_training
from likelihood_recipes import SIZES, Recipe, recipes
from likelihood_table import cells, report
from torch import Tensor

import gdm_core
from gdm_core.contract import ExactLikelihood, GenerativeModel, LatentLikelihood, TrainingConfig, has
from gdm_core.data import ImageDataset, TreatedSplit, Treatment, evaluation_images, load_dataset, treatment_for
from gdm_core.likelihoods import Likelihood, likelihood
from gdm_core.registry import check_arguments
from gdm_core.training import train
from pipelines.selection import Selection

BINARISATIONS = {"fixed": ("binarized_mnist", "threshold"), "dynamic": ("mnist", "dynamic")}  # data set, treatment
CHOOSING_IMAGES = 2000  # of the validation images, in every round
FINAL = {"k": 1000, "temperatures": 10_000, "chains": 100}  # estimators' settings
ROUNDS = 100  # at most, without a time budget
NAME = "likelihood"


def load(binarisation: str) -> tuple[ImageDataset, Treatment]:
    name, treatment = BINARISATIONS[binarisation]
    dataset = load_dataset(name)
    return dataset, treatment_for(treatment, dataset.levels, "binary")


def build(recipe: Recipe, data_shape: tuple[int, int, int], config: TrainingConfig, compiled: bool) -> GenerativeModel:
    """A model with fresh weights on its device; `compiled` ones learn by torch.compile and are evaluated without it."""
    torch.manual_seed(config.seed)
    model = gdm_core.build_model(recipe.model, data_shape, **recipe.arguments).to(config.device)
    if compiled:
        learning = "training_logits" if hasattr(model, "training_logits") else "loss"
        setattr(model, learning, torch.compile(getattr(model, learning)))
    return model


def run(
    recipe: Recipe, binarisation: str, dataset: ImageDataset, treatment: Treatment, config: TrainingConfig,
    minutes: float | None, compiled: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Train one recipe and evaluate it: a row of the table without where and when it was made."""
    config = replace(config, batch_size=recipe.batch_size, learning_rate=recipe.learning_rate)
    data = TreatedSplit(dataset.splits["train"], treatment, config.seed)
    choosing = evaluation_images(dataset.splits["validation"], treatment)[:CHOOSING_IMAGES]
    begin = now(config.device)
    plan = _plan(recipe, binarisation, data, choosing, config, minutes, compiled)
    planning = now(config.device) - begin
    typer.echo(f"{recipe.label}, {binarisation}: {plan.images / len(data):.2f} passes in {plan.rounds} rounds")
    model = build(recipe, dataset.data_shape, config, compiled)
    fitted = fit(model, Rounds(data, plan, config.seed), choosing, config, plan)
    found = {
        split: evaluate(model, evaluation_images(dataset.splits[split], treatment)) for split in ("validation", "test")
    }
    return {
        "model": recipe.model, "label": recipe.label, "binarisation": binarisation, "dataset": dataset.name,
        "digest": dataset.digest, "treatment": treatment.label, "arguments": model.arguments,
        "dimensions": model.dimensions, "parameters": sum(p.numel() for p in model.parameters()),
        "config": asdict(config), "compiled": compiled, "minutes": minutes, "planning_seconds": planning,
        "passes": plan.images / len(data), **fitted, **{split: _numbers(record) for split, record in found.items()},
    }  # fmt: skip


def _plan(
    recipe: Recipe, binarisation: str, data: TreatedSplit, choosing: Tensor, config: TrainingConfig,
    minutes: float | None, compiled: bool,
) -> Plan:  # fmt: skip
    most = recipe.passes[binarisation]
    if minutes is None:
        return Plan(most * len(data), min(most, ROUNDS))
    model = build(recipe, tuple(data.split.images.shape[1:]), config, False)
    validation = 0.0
    if chooses(model):
        begin = now(config.device)
        evaluate(model, choosing)
        validation = now(config.device) - begin
    speed = learning_speed(
        lambda: build(recipe, model.data_shape, config, compiled), data, config, 60 * minutes
    )
    return plan_training(60 * minutes, speed, validation, len(data), most)


def fit(
    model: GenerativeModel, data: Rounds, choosing: Tensor, config: TrainingConfig, plan: Plan
) -> dict[str, Any]:
    """Train by the plan, leaving the weights of the round that was best on the `choosing` images in the model."""
    selection, by_round, seconds, begin = Selection(), [], 0.0, now(config.device)
    for progress in train(model, data, replace(config, epochs=plan.rounds)):
        if not progress.end_of_epoch:
            continue
        seconds += now(config.device) - begin
        if chooses(model):
            found = evaluate(model, choosing)
            selection.offer(model, found)
            by_round.append(found.mean)
            typer.echo(f"  round {len(by_round)} of {plan.rounds}: {found.mean:.3f} after {seconds:.0f} s")
        begin = now(config.device)
    selection.restore(model)
    return {
        "training_seconds": seconds, "rounds": plan.rounds, "validation_by_round": by_round,
        "chosen_round": by_round.index(max(by_round)) + 1 if by_round else None,
    }  # fmt: skip


def chooses(model: GenerativeModel) -> bool:
    """Whether a likelihood picks the round: an estimate of log Z is too noisy, and errs to the good side."""
    return has(model, ExactLikelihood) or has(model, LatentLikelihood)


def evaluate(model: GenerativeModel, images: Tensor) -> Likelihood:
    """The likelihood in full float32, whatever precision the training had."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        return likelihood(model, images, **FINAL)
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _numbers(found: Likelihood) -> dict[str, Any]:
    log_z = found.log_partition
    return {
        "mean": found.mean, "standard_error": found.standard_error, "count": len(found.values), "kind": found.kind,
        "unit": found.unit, "settings": found.settings,
        "log_z": None if log_z is None else {"value": log_z.value, "low": log_z.low, "high": log_z.high},
    }  # fmt: skip


def main(
    models: Annotated[str | None, typer.Option(help="names with commas between them; all if none is named")] = None,
    datasets: Annotated[str, typer.Option(help="fixed, dynamic, or both with a comma")] = "fixed,dynamic",
    size: Annotated[str, typer.Option(help="small or paper")] = "small",
    minutes: Annotated[
        float | None, typer.Option(help="of training a model; 0 trains to the recipe's end [small: 10, paper: 0]")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
    seed: Annotated[int, typer.Option(help="of weights, order and pixels")] = 0,
    threads: Annotated[int | None, typer.Option(help="torch's threads; its own choice if not named")] = None,
    precision: Annotated[str, typer.Option(help="float32, or bfloat16 autocast in training")] = "float32",
    compiled: Annotated[bool, typer.Option("--compile", help="train by torch.compile")] = False,
    folder: Annotated[Path, typer.Option(help="where likelihood.md and likelihood.json go")] = record.RESULTS,
) -> None:
    """Train and evaluate models on binarised MNIST."""
    if size not in SIZES or not set(datasets.split(",")) <= set(BINARISATIONS):
        raise typer.BadParameter("size is small or paper, datasets are fixed and dynamic")
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("torch sees no GPU here")
    try:
        chosen = recipes(size, models.split(",") if models else None)
        for recipe in chosen:
            check_arguments(recipe.model, recipe.arguments)
            if models and not recipe.passes.keys() & set(datasets.split(",")):
                raise ValueError(f"{recipe.label} has no row on {datasets}, only on {', '.join(recipe.passes)}")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    torch.set_num_threads(threads or torch.get_num_threads())
    limit = {"small": 10.0, "paper": 0.0}[size] if minutes is None else minutes
    config = TrainingConfig(seed=seed, device=device, precision=precision)
    for binarisation in datasets.split(","):
        dataset, treatment = load(binarisation)
        for recipe in (recipe for recipe in chosen if binarisation in recipe.passes):
            where = record.circumstances(device)
            row = run(recipe, binarisation, dataset, treatment, config, limit or None, compiled)
            row |= {"size": size, "where": where}
            rows = record.with_row(record.read(NAME, folder).get("rows", []), row, ("binarisation", "label", "size"))
            record.write(NAME, report(rows), {"rows": rows}, folder)
            typer.echo(" | ".join(cells(row)))


if __name__ == "__main__":
    typer.run(main)
