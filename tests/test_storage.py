"""A stored model comes back with the same density; what is not as it says is refused before memory is taken."""

from __future__ import annotations

import json
import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gdm_core.data.treatments import treatment_for
from gdm_core.randomness import seeded
from gdm_core.registry import build_model, list_models
from gdm_core.storage import StorageError, load_model, read_card, save_model
from gdm_core.tensor_files import file_digest, read_header, read_tensors, tensor_table, write_tensors
from tests.stores import DATASET, tiny_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_model(tmp_path / "model")


def change_card(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / "model.json"
    card = json.loads(path.read_text())
    change(card)
    path.write_text(json.dumps(card))


def replace_weights(folder: Path, tensors: dict[str, torch.Tensor], honest_table: bool = False) -> None:
    """New weights with the digest that fits them; with an honest table the card describes them too."""
    write_tensors(folder / "model.safetensors", tensors)
    digest = file_digest(folder / "model.safetensors")
    change_card(folder, lambda card: card["digests"].update({"model.safetensors": digest}))
    if honest_table:
        change_card(folder, lambda card: card.update(tensors=tensor_table(tensors)))


def write_raw(path: Path, header: object, data: bytes, length: int | None = None) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(StorageError) as error:
        load_model(folder)
    sentence = str(error.value)
    assert "\n" not in sentence and len(sentence) < 600
    assert all(word in sentence for word in words), sentence


def test_a_stored_model_has_the_same_density_and_card(folder: Path, tmp_path: Path) -> None:
    stored = load_model(folder)
    again = tmp_path / "again"
    save_model(
        stored.model, again, dataset=DATASET, treatment=stored.treatment, calibration=stored.calibration,
        extra={"note": [1, 2]},
    )  # fmt: skip
    twice = load_model(again)
    images = torch.bernoulli(torch.full((20, 1, 4, 4), 0.5))
    assert torch.equal(stored.model.log_prob(images), twice.model.log_prob(images))
    assert not twice.model.training
    assert twice.card.extra == {"note": [1, 2]} and twice.card.dataset == DATASET
    assert twice.treatment == stored.treatment
    assert {k: v.tolist() for k, v in twice.calibration.items()} == {
        k: v.tolist() for k, v in stored.calibration.items()
    }
    assert sorted(path.name for path in again.iterdir()) == [
        "calibration.safetensors", "model.json", "model.safetensors"
    ]  # fmt: skip


@pytest.mark.parametrize("name", list_models())
def test_every_architecture_comes_back(tmp_path: Path, name: str) -> None:
    """Its outline, on the meta device, must be that of the real one."""
    with seeded(0):
        model = build_model(name, (1, 8, 8)).eval()
    save_model(model, tmp_path, dataset=DATASET, treatment=treatment_for(None, 17, model.pixels))
    state = load_model(tmp_path).model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


def test_loading_leaves_the_random_state_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    load_model(folder)
    assert torch.equal(before, torch.get_rng_state())


def test_saving_refuses_nan_and_leaves_the_old_model(folder: Path) -> None:
    stored = load_model(folder)
    with torch.no_grad():
        stored.model.logit.fill_(float("nan"))
    with pytest.raises(StorageError, match="not finite"):
        save_model(stored.model, folder, dataset=DATASET, treatment=stored.treatment)
    load_model(folder)


def test_saving_refuses_what_json_cannot_say(folder: Path) -> None:
    stored = load_model(folder)
    with pytest.raises(StorageError, match="JSON"):
        save_model(stored.model, folder, dataset={"mean": float("nan")}, treatment=stored.treatment)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "calibration.safetensors"])
def test_missing_and_truncated_files_are_refused(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    for cut in (0, 5, len(whole) // 2, len(whole) - 1):
        (folder / name).write_bytes(whole[:cut])
        refused(folder, name)
    (folder / name).unlink()
    refused(folder, name, "missing")


@pytest.mark.parametrize("name", ["model.safetensors", "calibration.safetensors"])
def test_a_flipped_byte_and_a_longer_file_are_refused(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    refused(folder, name, "damaged")
    (folder / name).write_bytes(whole + b"\0")
    refused(folder, name)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda card: card.update(schema_version=99), "99"),
        (lambda card: card.update(architecture="transformer"), "transformer"),
        (lambda card: card.update(arguments={"units": 3}), "units"),
        (lambda card: card.update(data_shape=[1, 4]), "shape"),
        (lambda card: card.update(data_shape=[1, 4, 10**9]), "shape"),
        (lambda card: card.update(data_shape=[1, 5, 4]), "logit"),
        (lambda card: card.update(pixels="colourful"), "colourful"),
        (lambda card: card.update(pixels="real"), "pixels"),
        (lambda card: card.update(levels=3), "pixels"),
        (lambda card: card.update(treatment={"name": "threshold"}), "treatment"),
        (lambda card: card.update(surprise=1), "surprise"),
        (lambda card: card.pop("tensors"), "tensors"),
        (lambda card: card.update(tensors=[]), "table"),
        (lambda card: card["tensors"].update(more={"shape": [2], "dtype": "F32"}), "more"),
        (lambda card: card["tensors"]["logit"].update(shape=[1, 4, -4]), "logit"),
        (lambda card: card["tensors"]["logit"].update(shape=[2**40, 2]), "bytes"),
        (lambda card: card["tensors"]["logit"].update(dtype="F64"), "logit"),
        (lambda card: card["tensors"]["logit"].update(dtype="PICKLE"), "logit"),
        (lambda card: card["digests"].clear(), "damaged"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(folder: Path, change: Callable[[dict], None], word: str) -> None:
    change_card(folder, change)
    refused(folder, word)


def test_a_card_that_is_no_card_is_refused(folder: Path) -> None:
    for text in ("[]", "{}", "nonsense", "[" * 100_000, '{"schema_version": ' + "9" * 10_000 + "}", "\0"):
        (folder / "model.json").write_text(text)
        refused(folder, "model.json")
    (folder / "model.json").write_text(" " * (4 * 2**20 + 1))
    refused(folder, "larger")


@pytest.mark.parametrize(
    ("header", "length"),
    [
        ({}, 2**63),
        ({}, 2**31),
        ({}, 0),
        ([], None),
        ({"logit": []}, None),
        ({"logit": {"dtype": "F32", "shape": [1, 4, 4]}}, None),
        ({"logit": {"dtype": "F32", "shape": [1, 4, 4], "data_offsets": [0, 32]}}, None),
        ({"logit": {"dtype": "F32", "shape": [1, 4, 4], "data_offsets": [-64, 0]}}, None),
        ({"logit": {"dtype": "F32", "shape": [1, 4, 4], "data_offsets": [8, 72]}}, None),
        ({"logit": {"dtype": "F32", "shape": [1, 4, 4], "data_offsets": ["0", "64"]}}, None),
        ({"logit": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 64]}}, None),
        ({"logit": {"dtype": "F32", "shape": "long", "data_offsets": [0, 64]}}, None),
    ],
)
def test_hostile_headers_are_refused(folder: Path, header: object, length: int | None) -> None:
    write_raw(folder / "model.safetensors", header, bytes(64), length)
    refused(folder, "model.safetensors")


def test_overlapping_tensors_are_refused(tmp_path: Path) -> None:
    entry = {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}
    write_raw(tmp_path / "file.safetensors", {"a": entry, "b": entry}, bytes(8))
    with pytest.raises(StorageError, match="not where its header says"):
        read_header(tmp_path / "file.safetensors", 2**20)


def test_terabytes_are_refused_without_taking_memory(folder: Path) -> None:
    """Card and header agree on ten terabytes; a sparse file even has the size."""
    entry = {"dtype": "F32", "shape": [1, 2**20, 2**21 + 2**19], "data_offsets": [0, 10 * 2**40]}
    write_raw(folder / "model.safetensors", {"logit": entry}, b"")
    change_card(folder, lambda card: card["tensors"]["logit"].update(shape=entry["shape"]))
    tracemalloc.start()
    refused(folder, "bytes of memory")
    (folder / "model.safetensors").unlink()
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(2**34)
    change_card(folder, lambda card: card["tensors"]["logit"].update(shape=[1, 4, 4]))
    refused(folder, "model.safetensors")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_a_network_too_large_to_build_is_refused_at_once(tmp_path: Path) -> None:
    model = build_model("pixel_cnn", (1, 4, 4), channels=4, blocks=1)
    save_model(model, tmp_path, dataset=DATASET, treatment=treatment_for(None, 17, model.pixels))
    change_card(tmp_path, lambda card: card["arguments"].update(blocks=10**6))
    refused(tmp_path, "parts")
    change_card(tmp_path, lambda card: card["arguments"].update(blocks=10**12))
    refused(tmp_path, "blocks")
    change_card(tmp_path, lambda card: card["arguments"].update(blocks=1, channels=2**20))
    refused(tmp_path, "tensor")


def test_weights_that_are_not_the_model_s_are_refused(folder: Path) -> None:
    good = torch.zeros(1, 4, 4)
    replace_weights(folder, {"logit": good, "extra": torch.zeros(2)})
    refused(folder, "extra")
    replace_weights(folder, {"other": good})
    refused(folder, "logit")
    replace_weights(folder, {"logit": good.double()})
    refused(folder, "F64")
    replace_weights(folder, {"logit": good.double()}, honest_table=True)
    refused(folder, "model.json", "logit")
    replace_weights(folder, {"logit": good, "extra": torch.zeros(2)}, honest_table=True)
    refused(folder, "model.json", "extra")


def test_nan_weights_are_refused(folder: Path) -> None:
    replace_weights(folder, {"logit": torch.full((1, 4, 4), float("nan"))}, honest_table=True)
    refused(folder, "NaN", "logit")


class Bomb:
    def __reduce__(self) -> tuple:
        return (exec, ("raise SystemExit('code ran')",))


def test_a_pickle_is_refused_and_never_run(folder: Path) -> None:
    for name in ("model.safetensors", "calibration.safetensors", "model.json"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(pickle.dumps(Bomb()))
        refused(folder, name)
        (folder / name).write_bytes(whole)


def test_the_card_can_be_read_without_the_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert read_card(folder).architecture == "independent_bernoulli"


def test_a_file_without_a_table_is_checked_in_itself(tmp_path: Path) -> None:
    path = tmp_path / "values.safetensors"
    write_tensors(path, {"test": torch.arange(5.0)})
    assert read_tensors(path, read_header(path, 100), 100)["test"].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(StorageError, match="bytes of memory"):
        read_header(path, 10)
