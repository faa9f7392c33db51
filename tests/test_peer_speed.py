"""What the comparison with another library rests on: the same architectures, turns, ratios within a round, goals."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # it is a script: it finds its neighbours so

import peer_speed  # noqa: E402
import record  # noqa: E402

LIBRARY = '''
import torch
from torch import nn


class MADE(nn.Module):
    """In the place of the other library's, which knows its images' shape when it has seen some."""

    def __init__(self, input_dim, hidden_dims):
        super().__init__()
        self.weight, self.seen = nn.Parameter(0.1 * torch.ones(input_dim, *hidden_dims)), None

    def forward(self, x):
        self.seen = x.shape[1:]
        return (x.flatten(1) @ self.weight @ self.weight.T).view_as(x)

    def sample(self, n):
        return torch.zeros(n, *self.seen)
'''


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of a library of one model."""
    package = tmp_path / "peer" / "pytorch_generative"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "models.py").write_text(LIBRARY)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in sys.modules if name.startswith("pytorch_generative")]:
        monkeypatch.delitem(sys.modules, name)
    return package.parent


def test_both_of_a_pair_learn_and_draw(peer: Path) -> None:
    (pair,) = (one for one in peer_speed.PAIRS if one.model == "made")
    for learning in (peer_speed.our_learning(pair), peer_speed.their_learning(pair, peer)):
        steps = [learning(), learning()]
        before, after = (float(step["loss"] if isinstance(step, dict) else step) for step in steps)
        assert 0 < after < before
    assert peer_speed.our_sampling(pair)().shape == (peer_speed.SAMPLES, *peer_speed.SHAPE)
    assert peer_speed.their_sampling(pair, peer)().shape == (pair.peer_samples, *peer_speed.SHAPE)


def test_pairs_are_models_of_ours_with_their_arguments() -> None:
    for pair in peer_speed.PAIRS:
        model = peer_speed.our_model(pair)
        assert all(model.arguments[name] == value for name, value in pair.arguments.items())
        assert model.arguments.get("dropout", 0) == 0  # the other library has none


def test_a_ratio_is_of_one_round_and_counts_images_not_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    script = {"ours": iter([9.0, 0.5, 0.5, 2.0, 1.0]), "theirs": iter([9.0, 4.0, 8.0, 2.0])}
    asked: list[tuple[str, int, int]] = []

    class Turns:
        def __init__(self, contestants: dict[str, Any], threads: int) -> None:
            assert list(contestants) == ["ours", "theirs"]

        def __enter__(self) -> Turns:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def seconds(self, name: str, steps: int, warm_up: int = peer_speed.WARM_UP) -> float:
            asked.append((name, steps, warm_up))
            return next(script[name])

    monkeypatch.setattr(peer_speed, "Turns", Turns)
    found = peer_speed.in_turns(dict.fromkeys(["ours", "theirs"]), {"ours": 64, "theirs": 16}, 2)
    warm = peer_speed.WARM_UP  # only where a step is short, and nobody always comes first
    assert asked[5:] == [("ours", 2, warm), ("theirs", 1, 0), ("theirs", 1, 0), ("ours", 2, warm)]
    assert found["images_per_second"]["ours"] == {"median": 96, "low": 64, "high": 128}  # 2 x 64 / 2 and / 1
    assert found["ratio"] == {"median": (32 + 16) / 2, "low": 16, "high": 32}  # 64 : 2 and 128 : 8, round by round


def test_a_run_keeps_other_rows_and_says_what_is_reached(
    peer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))  # the other processes would run it again
    monkeypatch.setattr(peer_speed, "TURN", 0.02)
    folder = tmp_path / "results"
    spread = {"median": 3.0, "low": 2.0, "high": 5.0}
    old = {"model": "nade", "what": "training", "sizes": "784-500", "batch_size": 128, "goal": 4, "ratio": spread,
           "parameters": {"ours": 1, "theirs": 2}, "at_once": {"ours": 128, "theirs": 128}, "peer": "abc",
           "images_per_second": {"ours": spread, "theirs": spread}, "matrix_gflops": spread,
           "where": {"date": "2026-01-01", "commit": "c", "device": "cpu", "threads": 2}}  # fmt: skip
    folder.mkdir()
    (folder / "peer_speed.json").write_text(json.dumps({"rows": [old]}))
    peer_speed.main(peer, version="its tests", models="made", rounds=1, threads=torch.get_num_threads(), folder=folder)
    rows = json.loads((folder / "peer_speed.json").read_text())["rows"]
    assert [(row["model"], row["what"]) for row in rows] == [
        ("nade", "training"), ("made", "training"), ("made", "sampling"),
    ]  # fmt: skip
    assert rows[0] == old and rows[1]["parameters"] == {"theirs": 784 * 500, "ours": 2 * 784 * 500 + 784 + 500}
    lines = (folder / "peer_speed.md").read_text().splitlines()
    assert "| 3 [2, 5] | 4 | **no** |" in next(line for line in lines if line.startswith("| nade"))
    assert "its tests" in next(line for line in lines if line.startswith("| made"))


@pytest.mark.parametrize("sampling", [True, False])
def test_sampling_may_be_left_out(sampling: bool, peer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spread = {"median": 1.0, "low": 1.0, "high": 1.0}
    found = {"images_per_second": {"ours": spread, "theirs": spread}, "ratio": spread, "matrix_gflops": spread}
    monkeypatch.setattr(peer_speed, "in_turns", lambda contestants, at_once, rounds: found)
    threads = torch.get_num_threads()
    peer_speed.main(peer, version="v", models="made", sampling=sampling, threads=threads, folder=tmp_path)
    rows = json.loads((tmp_path / "peer_speed.json").read_text())["rows"]
    assert [row["what"] for row in rows] == ["training", "sampling"][: 1 + sampling]


def test_a_folder_without_git_has_not_the_commit_of_the_checkout_around_it(tmp_path: Path) -> None:
    assert record.commit(tmp_path) == record.commit(record.ROOT / "tests") == "unknown"


def test_what_is_no_checkout_or_no_model_is_said(peer: Path, tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="clone it"):
        peer_speed.main(tmp_path, folder=tmp_path)
    with pytest.raises(typer.BadParameter, match="unknown: madam; there are fvsbn"):
        peer_speed.main(peer, models="madam", folder=tmp_path)
