"""Which models there are: names, arguments and descriptions, and that no file is forgotten."""

from __future__ import annotations

import ast
import inspect
import math
from pathlib import Path
from typing import Literal

import pytest
import torch

import gdm_core
from gdm_core import registry
from gdm_core.contract import PIXEL_KINDS, GenerativeModel, TrainingConfig, capabilities
from gdm_core.registry import (
    FAMILIES,
    argument_defaults,
    build_model,
    check_arguments,
    convert,
    describe_model,
    list_models,
    model_class,
    pixel_kinds,
    register,
)  # fmt: skip

MODELS = Path(gdm_core.__file__).parent / "models"
FOLDERS = {"autoregressive": "autoregressive", "energy": "energy", "autoencoders": "autoencoder",
           "adversarial": "adversarial"}  # fmt: skip
TABLE = {
    "autoregressive": [
        "conditional_gated_pixel_cnn",
        "eonade",
        "fvsbn",
        "gated_pixel_cnn",
        "image_transformer",
        "independent_bernoulli",
        "made",
        "markov_chain",
        "mixture_of_bernoullis",
        "multiscale_pixel_rnn",
        "nade",
        "pixel_cnn",
        "pixel_cnn_plus_plus",
        "pixel_rnn",
        "rnade",
        "wavenet",
    ],
    "energy": ["boltzmann_machine", "dbm", "dbn", "deep_energy", "gaussian_rbm", "helmholtz_machine", "label_rbm",
               "rbm"],  # fmt: skip
    "autoencoder": ["vae"],
    "adversarial": ["dcgan"],
}
every_model = pytest.mark.parametrize("name", list_models())


@pytest.fixture
def empty_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_models", {})
    monkeypatch.setattr(registry, "_papers", {})


# --- names -------------------------------------------------------------------------------------------------------


def test_the_models_of_each_family() -> None:
    assert {family: list_models(family) for family in FAMILIES} == TABLE
    assert list_models() == sorted(sum(TABLE.values(), []))
    assert gdm_core.list_models is list_models and gdm_core.build_model is build_model


NAMED = [model_class, describe_model, argument_defaults, lambda name: build_model(name, (1, 8, 8))]


@pytest.mark.parametrize("call", NAMED)
def test_an_unknown_name_lists_the_known(call) -> None:
    with pytest.raises(ValueError, match="'nadee'.*" + ", ".join(list_models())):
        call("nadee")


def test_an_unknown_family_lists_the_known() -> None:
    with pytest.raises(ValueError, match="'autoencoders'.*" + ", ".join(FAMILIES)):
        list_models("autoencoders")


def test_a_name_is_given_once_and_to_a_known_family(empty_registry: None) -> None:
    def decorate(name: str, family: str) -> type:
        return register(name, family=family, paper="Nobody, 1900")(type("Fake", (GenerativeModel,), {}))

    fake = decorate("fake", "energy")
    assert (fake.name, fake.family, list_models()) == ("fake", "energy", ["fake"])
    with pytest.raises(ValueError, match="'fake' is registered already"):
        decorate("fake", "energy")
    with pytest.raises(ValueError, match="family must be one of .*, got 'flows'"):
        decorate("other", "flows")
    assert list_models() == ["fake"] and model_class("fake") is fake


# --- files -------------------------------------------------------------------------------------------------------


def registering_files(folder: Path) -> set[str]:
    """The files whose source has a class under `@register`."""
    found = set()
    for path in folder.glob("*.py"):
        classes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)]
        if any(ast.unparse(mark).startswith("register(") for node in classes for mark in node.decorator_list):
            found.add(path.stem)
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_family_imports_every_file_with_a_model_and_no_other(folder: str) -> None:
    tree = ast.parse((MODELS / folder / "__init__.py").read_text())
    lines = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert all(line.module == f"gdm_core.models.{folder}" for line in lines)
    assert {alias.name for line in lines for alias in line.names} == registering_files(MODELS / folder)


def test_every_family_is_imported_and_has_its_folder() -> None:
    tree = ast.parse((MODELS / "__init__.py").read_text())
    imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == {path.name for path in MODELS.iterdir() if (path / "__init__.py").is_file()} == FOLDERS.keys()
    assert {*FOLDERS.values()} == {*FAMILIES}


@every_model
def test_a_model_lies_in_its_family_s_folder(name: str) -> None:
    path = Path(inspect.getfile(model_class(name)))
    assert FOLDERS[path.parent.name] == model_class(name).family
    assert path.parent.parent == MODELS


# --- descriptions ------------------------------------------------------------------------------------------------


@every_model
def test_a_description_is_complete(name: str) -> None:
    description, model = describe_model(name), build_model(name, (1, 8, 8))
    assert (description.name, description.family) == (name, model.family)
    assert any(word.strip("();,:").isdigit() and len(word.strip("();,:")) == 4 for word in description.paper.split())
    first, *rest = description.idea.split("\n")
    assert len(first) > 40 and rest, "the file's docstring: the idea, the formula, the paper"
    assert any(line.startswith("    ") or "minimise" in line or "=" in line for line in rest), "no formula"
    assert description.capabilities == capabilities(model) and "Samples" in description.capabilities
    assert description.arguments.keys() == description.argument_types.keys() == model.arguments.keys()
    assert all(default is not inspect.Parameter.empty for default in description.arguments.values())
    assert description.pixels == list(pixel_kinds(name)) and {*description.pixels} <= {*PIXEL_KINDS}


@every_model
def test_defaults_fit_any_small_image(name: str) -> None:
    for shape in ((1, 8, 8), (1, 5, 9), (3, 6, 6)):
        model = build_model(name, shape)
        assert (model.data_shape, model.name, model.pixels) == (shape, name, pixel_kinds(name)[0])
        assert model.arguments == argument_defaults(name)
        assert model.dimensions == math.prod(shape)
        assert model.device.type == "cpu"


@every_model
def test_arguments_are_kept_and_a_seed_repeats_the_weights(name: str) -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(4)
        states.append(build_model(name, (1, 6, 6)).state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    for key, default in argument_defaults(name).items():
        assert build_model(name, (1, 6, 6), **{key: default}).arguments == argument_defaults(name)


@every_model
def test_default_training_is_usable(name: str) -> None:
    config = model_class(name).default_training
    assert isinstance(config, TrainingConfig)
    assert min(config.epochs, config.batch_size, config.learning_rate) > 0


@every_model
@pytest.mark.parametrize("shape", [(8, 8), (1, 0, 8), (1, 8, 8, 8), (-1, 8, 8)])
def test_a_shape_that_is_none_is_refused(name: str, shape: tuple) -> None:
    with pytest.raises(ValueError, match="data_shape must be"):
        build_model(name, shape)


# --- arguments ---------------------------------------------------------------------------------------------------


@every_model
def test_an_unknown_argument_lists_the_known(name: str) -> None:
    known = ", ".join(argument_defaults(name)) or "none"
    with pytest.raises(ValueError, match=f"{name} has no argument 'hiden_units'; known are {known}"):
        build_model(name, (1, 8, 8), hiden_units=3)


@pytest.mark.parametrize("key", ["self", "data_shape", "name", "pixels"])
def test_what_is_no_argument_of_nade_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="nade has no argument"):
        check_arguments("nade", {key: "binary"})


@pytest.mark.parametrize(
    "value, hint, expected",
    [
        ("32", int, 32), (32, int, 32), (32.0, int, 32), (" 7 ", int, 7), ("-3", int, -3),
        ("0.5", float, 0.5), ("1e-3", float, 1e-3), (2, float, 2.0), ("-1", float, -1.0),
        ("true", bool, True), ("False", bool, False), (True, bool, True),
        ("binary", Literal["binary", "real"], "binary"), ("2", Literal[1, 2], 2),
        ("none", int | None, None), (None, int | None, None), ("4", int | None, 4), ("0.5", int | float, 0.5),
        ("1,2", tuple[int, ...], (1, 2)), ("(1, 2)", tuple[int, ...], (1, 2)),
        ([1, "2"], tuple[int, ...], (1, 2)), ("7", tuple[int, ...], (7,)), ("", tuple[int, ...], ()),
        ("text", str, "text"),
    ],
)  # fmt: skip
def test_values_are_converted_to_the_annotated_type(value: object, hint: object, expected: object) -> None:
    converted = convert(value, hint)
    assert converted == expected and type(converted) is type(expected)


@pytest.mark.parametrize("value", ["x", "3.5", 3.5, "", "true", True, None, math.nan, math.inf, [3], {}, "1,2", b"3"])
def test_what_is_no_whole_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="nade: hidden_units=.* is not a whole number"):
        build_model("nade", (1, 8, 8), hidden_units=value)


@pytest.mark.parametrize("value", ["x", "", True, None, math.nan, -math.inf, "nan", "inf", [0.5], 1j, "1e999"])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="pixel_cnn: dropout=.* is not a number"):
        build_model("pixel_cnn", (1, 8, 8), dropout=value)


@pytest.mark.parametrize("value", ["yes", "2", 2, None, "", [True]])
def test_what_is_neither_true_nor_false_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="rbm: persistent=.* is not true or false .*choose one of True, False"):
        build_model("rbm", (1, 8, 8), persistent=value)


@pytest.mark.parametrize("value", ["grey", "real", None, 1, ""])
def test_a_choice_that_is_none_lists_the_choices(value: object) -> None:
    with pytest.raises(ValueError, match="pixel_cnn: pixels=.* is not one of binary, levels"):
        build_model("pixel_cnn", (1, 8, 8), pixels=value)


@pytest.mark.parametrize("value", ["many", 2.5, True, [2]])
def test_an_optional_number_is_a_number_or_none(value: object) -> None:
    assert build_model("vae", (1, 4, 4), pixels="real", levels="none").levels is None
    with pytest.raises(ValueError, match="vae: levels="):
        build_model("vae", (1, 4, 4), pixels="real", levels=value)


@pytest.mark.parametrize("value, hint", [(3, tuple[int, ...]), (None, tuple[int, ...]), ("1,x", tuple[int, ...])])
def test_what_is_no_list_of_numbers_is_refused(value: object, hint: object) -> None:
    with pytest.raises(ValueError):
        convert(value, hint)


def test_types_of_arguments_are_said_in_words() -> None:
    assert describe_model("rbm").argument_types["sparsity_target"] == "a number or none"
    several = "a whole number, or several with commas between them"
    assert describe_model("made").argument_types["hidden_units"] == several
    described = [kind for name in list_models() for kind in describe_model(name).argument_types.values()]
    assert not [kind for kind in described if "|" in kind or "[" in kind or "<" in kind]
