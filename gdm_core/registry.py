"""Which models there are: register, list, describe, build."""

from __future__ import annotations

import inspect
import math
import numbers
import re
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gdm_core.contract import GenerativeModel, capabilities

FAMILIES = ("autoregressive", "energy", "autoencoder", "adversarial")

_models: dict[str, type[GenerativeModel]] = {}
_papers: dict[str, str] = {}


@dataclass(frozen=True)
class ModelDescription:
    """What the registry knows of a model: idea and formula come from the first lines of its file."""

    name: str
    family: str
    paper: str
    idea: str
    arguments: dict[str, typing.Any]  # name -> default
    argument_types: dict[str, str]
    capabilities: list[str]
    pixels: list[str]


def register(name: str, *, family: str, paper: str) -> Callable[[type], type]:
    """Class decorator: make a model known under an explicit name."""

    def decorate(model_class: type[GenerativeModel]) -> type[GenerativeModel]:
        if name in _models:
            raise ValueError(f"a model named {name!r} is registered already")
        if family not in FAMILIES:
            raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
        model_class.name, model_class.family = name, family
        _models[name], _papers[name] = model_class, paper
        return model_class

    return decorate


def list_models(family: str | None = None) -> list[str]:
    """The names of the registered models, sorted; of one family where given."""
    if family is not None and family not in FAMILIES:
        raise ValueError(f"unknown family {family!r}; known are {', '.join(FAMILIES)}")
    return sorted(name for name, model in _models.items() if family in (None, model.family))


def model_class(name: str) -> type[GenerativeModel]:
    """The class registered under a name; an unknown name raises with the known ones."""
    if name not in _models:
        raise ValueError(f"unknown model {name!r}; known models are {', '.join(list_models())}")
    return _models[name]


def build_model(name: str, data_shape: Sequence[int], **arguments: typing.Any) -> GenerativeModel:
    """Build a model with fresh weights. Unknown or ill-typed arguments raise, naming the known ones."""
    kind = model_class(name)
    checked = check_arguments(name, arguments)
    model = kind(tuple(data_shape), **checked)
    model.arguments = {**argument_defaults(name), **checked}
    return model


def describe_model(name: str) -> ModelDescription:
    """Everything the registry knows of one model."""
    kind = model_class(name)
    parameters = _parameters(name)
    module = inspect.getmodule(kind)
    return ModelDescription(
        name=name,
        family=kind.family,
        paper=_papers[name],
        idea=inspect.cleandoc((module.__doc__ if module else None) or kind.__doc__ or ""),
        arguments=argument_defaults(name),
        argument_types={key: _type_name(hint) for key, hint in _hints(name).items() if key in parameters},
        capabilities=capabilities(kind),
        pixels=list(pixel_kinds(name)),
    )


def pixel_kinds(name: str) -> tuple[str, ...]:
    """The kinds of pixels a model can be built for: its `pixel_kinds` attribute, the default first."""
    return tuple(model_class(name).pixel_kinds)


def argument_defaults(name: str) -> dict[str, typing.Any]:
    return {key: parameter.default for key, parameter in _parameters(name).items()}


def check_arguments(name: str, arguments: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """Arguments with values checked and converted to the constructor's annotated types (text such as '32' too)."""
    known, hints = _parameters(name), _hints(name)
    checked = {}
    for key, value in arguments.items():
        if key not in known:
            raise ValueError(f"{name} has no argument {key!r}; known are {', '.join(known) or 'none'}")
        try:
            checked[key] = convert(value, hints[key])
        except ValueError as error:
            raise ValueError(f"{name}: {key}={value!r} is not {_type_name(hints[key])} ({error})") from None
    return checked


def convert(value: typing.Any, hint: typing.Any) -> typing.Any:
    """Convert a value, or its text from a command line, to an annotated type; ValueError where it does not fit."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return _choose(value, inner)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(value, inner)
    if origin in (tuple, list):
        parts = re.split(r"[,\s]+", value.strip("()[] ")) if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            raise ValueError("expected several values, such as 1,2")
        return tuple(convert(part, inner[0]) for part in parts if part != "")
    if hint is bool:
        return _choose({"true": True, "false": False}.get(str(value).lower(), value), (True, False))
    if hint is int:
        return _whole_number(value)
    if hint is float:
        return _number(value)
    if not isinstance(value, hint):
        raise ValueError(f"expected {_type_name(hint)}")
    return value


def _convert_union(value: typing.Any, choices: tuple) -> typing.Any:
    if type(None) in choices and (value is None or value == "none"):
        return None
    problems = []
    for choice in choices:
        try:
            return convert(value, choice)
        except ValueError as error:
            problems.append(str(error))
    raise ValueError("; ".join(dict.fromkeys(problems)))


def _choose(value: typing.Any, choices: tuple) -> typing.Any:
    for choice in choices:
        if value == choice or (not isinstance(choice, str) and str(value) == str(choice)):
            return choice
    raise ValueError(f"choose one of {', '.join(map(str, choices))}")


def _whole_number(value: typing.Any) -> int:
    whole = isinstance(value, numbers.Integral | str) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole:
        raise ValueError("expected a whole number")
    return int(value)


def _number(value: typing.Any) -> float:
    number = float(value) if isinstance(value, numbers.Real | str) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    return number


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(model_class(name).__init__).parameters
    return {key: value for key, value in parameters.items() if key not in ("self", "data_shape")}


def _hints(name: str) -> dict[str, typing.Any]:
    return typing.get_type_hints(model_class(name).__init__)


def _type_name(hint: typing.Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(map(str, typing.get_args(hint)))
    if typing.get_origin(hint) is types.UnionType:
        return " or ".join("none" if one is types.NoneType else _type_name(one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"{_type_name(typing.get_args(hint)[0])}, or several with commas between them"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}.get(hint, str(hint))
