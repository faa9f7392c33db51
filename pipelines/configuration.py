"""What a run was asked for, resolved to the last default: enough to repeat it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import torch

from gdm_core.contract import TrainingConfig
from gdm_core.data import ImageDataset, Treatment, load_dataset, load_recorded, treatment_for
from gdm_core.data.treatments import TREATMENTS
from gdm_core.registry import argument_defaults, build_model, check_arguments, model_class, pixel_kinds

DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class RunConfiguration:
    """Everything that decides a run. `dataset` is what `load_dataset` takes; `arguments` are the constructor's."""

    model: str
    dataset: dict[str, Any]
    treatment: dict[str, Any]
    arguments: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> TrainingConfig:
        return TrainingConfig(**self.training)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @staticmethod
    def from_json(text: str) -> RunConfiguration:
        """The configuration `to_json` wrote; ValueError where it is none."""
        try:
            configuration = RunConfiguration(**json.loads(text))
            TrainingConfig(**configuration.training)
        except (TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"this is not the configuration of a run: {error}") from None
        return configuration

    def on(self, device: str) -> RunConfiguration:
        """The same on another device; ValueError where it is not here."""
        return dataclasses.replace(self, training={**self.training, "device": _device(device)})

    def parameters(self) -> dict[str, Any]:
        """As a run's parameters: one level deep."""
        return {
            "model": self.model,
            "dataset": self.dataset["name"],
            "treatment": self.treatment["name"],
            **self.training,
            **{f"model.{name}": value for name, value in self.arguments.items()},
        }


def resolve(
    model: str,
    dataset: str = "digits",
    *,
    arguments: dict[str, Any] | None = None,
    size: int | None = None,
    channels: int | None = None,
    treatment: str | None = None,
    **training: Any,
) -> tuple[RunConfiguration, ImageDataset]:
    """Check everything a user asked for and fill in the rest; returns it with the data set, which it had to load.

    What is wrong with the model or its arguments is said before any data is read. Raises ValueError (DataError).
    """
    given = check_arguments(model, arguments or {})
    _pixels(model, given, treatment)
    config = _training_config(model, {name: value for name, value in training.items() if value is not None})
    data = load_dataset(dataset, size=size, channels=channels)
    pixels = _pixels(model, given, treatment, data.pixels)
    reduced = given.get("levels") if pixels == "levels" else None
    chosen = treatment_for(treatment, data.levels, pixels, reduced)
    resolved = {**argument_defaults(model), **given, **_pixel_arguments(model, chosen)}
    specification = {**data.specification}
    with torch.random.fork_rng(devices=[]):
        build_model(model, data.data_shape, **resolved)  # refuses what its constructor does not take
    return RunConfiguration(model, specification, chosen.to_dict(), resolved, dataclasses.asdict(config)), data


def reload(configuration: RunConfiguration, digest: str | None = None) -> ImageDataset:
    """The data set of a configuration; DataError where its images are no longer those of the digest."""
    return load_recorded(configuration.dataset, digest)


def check_device(configuration: RunConfiguration) -> None:
    """Raise ValueError where a run that was made on a GPU is to go on, or to be repeated, on a machine without one."""
    if configuration.config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("the run was made on a GPU, and torch sees none here: "
                         "`python -m pipelines rerun RUN_ID --device cpu` repeats it on the processor, once a run that "
                         "was written to a folder is imported")  # fmt: skip


def treatment_of(configuration: RunConfiguration) -> Treatment:
    return Treatment.from_dict(configuration.treatment)


def _pixels(model: str, arguments: dict[str, Any], treatment: str | None, meant: str | None = None) -> str:
    """The kind of pixels: by the model's argument, the treatment's name, what the data is meant as, the model's first.

    What the data is meant as counts only for models that take it.
    """
    known = pixel_kinds(model)
    if treatment is not None and treatment not in TREATMENTS:
        raise ValueError(f"unknown pixel treatment {treatment!r}; known are {', '.join(TREATMENTS)}")
    natural = meant if meant in known else known[0]
    wanted = arguments.get("pixels") or (TREATMENTS[treatment] if treatment else natural)
    if wanted not in known:
        fitting = [name for name, pixels in TREATMENTS.items() if pixels in known]
        raise ValueError(f"{model} does not model {wanted} pixels; choose --treatment {' or '.join(fitting)}")
    return wanted


def _pixel_arguments(model: str, treatment: Treatment) -> dict[str, Any]:
    """What a constructor has to know of the treatment, where it takes it."""
    known = argument_defaults(model)
    facts = {"pixels": treatment.pixels, "levels": treatment.levels}
    return {name: value for name, value in facts.items() if name in known}


def _training_config(model: str, given: dict[str, Any]) -> TrainingConfig:
    config = dataclasses.replace(model_class(model).default_training, **given)
    for name in ("epochs", "batch_size", "threads"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if not 0 < config.learning_rate < float("inf"):
        raise ValueError(f"learning_rate must be positive, got {config.learning_rate}")
    threads = config.threads or torch.get_num_threads()
    return dataclasses.replace(config, device=_device(config.device), threads=threads)


def _device(device: str) -> str:
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch sees no GPU here: use --device cpu or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
