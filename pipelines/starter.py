"""The starter set: one or two models of each family on digits, trained when the project is first run."""

from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from pipelines.registered_model import model_name

DATASET = "digits"


@dataclass(frozen=True)
class Recipe:
    """How a starter model is trained; what is not said is the model's default. Chosen on validation images."""

    model: str
    arguments: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def registered_name(self) -> str:
        return model_name(DATASET, self.model)


STARTER_SET = (  # the longest first, so that two workers end together
    Recipe("pixel_cnn", {"dropout": 0.6, "position_bias": True}),
    Recipe("dcgan"),
    Recipe("nade"),
    Recipe("vae"),
    Recipe("rbm"),
)


def missing_recipes() -> list[Recipe]:
    """The recipes whose model has no registered version."""
    from pipelines.registry_reader import list_versions

    known = {version.name for version in list_versions()}
    return [recipe for recipe in STARTER_SET if recipe.registered_name not in known]


def train_starter_set() -> bool:
    """Train what is missing, a process per core and one thread each; says one line per model. True if all went well."""
    recipes = missing_recipes()
    if not recipes:
        print("starter set: already trained", flush=True)
        return True
    begin, workers = time.monotonic(), min(len(recipes), os.cpu_count() or 1, 4)
    print(f"starter set: training {', '.join(r.model for r in recipes)} on {DATASET}", flush=True)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        futures = {pool.submit(train_recipe, recipe): recipe for recipe in recipes}
        results = [_report(futures[future], future) for future in as_completed(futures)]
    print(f"starter set: {sum(results)} of {len(results)} trained in {time.monotonic() - begin:.0f} s", flush=True)
    return all(results)


def train_recipe(recipe: Recipe) -> str:
    """Train, evaluate and register one recipe; returns its report. Runs in a worker process."""
    from pipelines.configuration import resolve
    from pipelines.interruption import end_like_ctrl_c
    from pipelines.report import result_report
    from pipelines.training_run import start_run

    end_like_ctrl_c()
    configuration, data = resolve(
        recipe.model, DATASET, arguments=recipe.arguments, threads=1, device="cpu", **recipe.training
    )
    return result_report(start_run(configuration, data, announce=_quiet))


def _report(recipe: Recipe, future: Future[str]) -> bool:
    problem = future.exception()
    if problem is not None:
        print(f"  {recipe.model}: failed, {problem} (its run has the traceback)", flush=True)
        return False
    print("  " + future.result().replace("\n", "\n    "), flush=True)
    return True


def _quiet(line: str) -> None:
    """A worker's run id would stand among other models' lines."""
