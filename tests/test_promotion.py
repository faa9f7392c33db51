"""Who becomes champion: decided by paired differences on validation, at equal everything else."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import numpy
import pytest

from gdm_core.storage import StorageError
from pipelines import promotion
from pipelines.registry_reader import LogPartition, ModelVersion

NORMAL = numpy.random.default_rng(0).normal(-20, 3, 200)
NOISE = numpy.random.default_rng(1).normal(0, 1, 200)
PLAIN = ModelVersion(
    name="digits-nade", version="1", aliases=("champion",), run_id="old", run_status="FINISHED", experiment_id="1",
    created=datetime.now(UTC), architecture="nade", family="autoregressive", dataset="digits", dataset_digest="d",
    treatment="binary, on if >= 0.5", pixels="binary", data_shape=(1, 8, 8), likelihood_kind="exact", test_mean=-20.0,
    test_standard_error=0.2, test_count=300, bits_per_dimension=None, log_partition=None, validation_mean=-20.0,
    parameters=1, training_seconds=1.0, sampling_seconds=1.0, epochs=1, frechet_distance=None, tags={},
)  # fmt: skip


def version(**changes) -> ModelVersion:
    return dataclasses.replace(PLAIN, version="2", run_id="new", aliases=(), **changes)


def decide(monkeypatch: pytest.MonkeyPatch, gain: float, new: ModelVersion, old: ModelVersion = PLAIN):
    values = {"old": {"validation": NORMAL}, "new": {"validation": NORMAL + NOISE - NOISE.mean() + gain}}
    monkeypatch.setattr(promotion, "per_image_likelihood", values.get)
    return promotion.decide(new, old)


def test_the_bar_is_one_paired_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    error = NOISE.std(ddof=1) / numpy.sqrt(200)  # 0.07, while either mean alone has an error of 0.2
    assert decide(monkeypatch, 1.01 * error, version()).promoted
    assert not decide(monkeypatch, 0.99 * error, version()).promoted


def test_an_estimated_log_z_has_to_be_outweighed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = {"likelihood_kind": "estimate"}
    old = dataclasses.replace(PLAIN, **kind, log_partition=LogPartition(10.0, 9.8, 10.2))
    new = version(**kind, log_partition=LogPartition(10.0, 9.9, 10.1))
    assert decide(monkeypatch, 0.4, new, old).promoted  # needed: 0.2 + 0.1 + 0.07
    assert not decide(monkeypatch, 0.33, new, old).promoted


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"dataset_digest": "e"}, "data set"),
        ({"data_shape": (1, 9, 9)}, "image shape"),
        ({"treatment": "17 levels"}, "pixel treatment"),
        ({"likelihood_kind": "lower bound"}, "kind of likelihood"),
        ({"likelihood_kind": "none"}, "by hand"),
    ],
)
def test_unlike_is_never_compared(changes: dict, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decision = decide(monkeypatch, 100.0, version(**changes))
    assert not decision.promoted and word in decision.reason


def test_the_first_with_a_likelihood_is_champion_and_missing_values_decide_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert promotion.decide(version(), None).promoted
    assert not promotion.decide(version(likelihood_kind="none"), None).promoted
    monkeypatch.setattr(promotion, "per_image_likelihood", lambda run_id: {})
    assert "missing" in promotion.decide(version(), PLAIN).reason

    def damaged(run_id: str) -> dict:
        raise StorageError("likelihood.safetensors is cut short")

    monkeypatch.setattr(promotion, "per_image_likelihood", damaged)
    assert promotion.decide(version(), PLAIN) == promotion.Decision(
        False, "not comparable with champion 1: likelihood.safetensors is cut short"
    )
