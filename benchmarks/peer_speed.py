"""How fast models learn and draw here and in pytorch-generative, in one run on one machine.

    git clone https://github.com/EugenHotaj/pytorch-generative; pip install tensorboard      which it imports
    python benchmarks/peer_speed.py --peer pytorch-generative            about half an hour
    python benchmarks/peer_speed.py --peer pytorch-generative --models made,nade     the other rows stay
    python benchmarks/peer_speed.py --peer pytorch-generative --models image_transformer --no-sampling

Prints benchmarks/results/peer_speed.md and writes it, with the same numbers as peer_speed.json beside it. The two of a
pair have the same architecture at 28x28 pixels, as far as the libraries allow (parameters are counted), and take turns,
each in a process of its own (turns.py). speed.md compares with numbers of another machine; here nothing has to be set
right for the machine or the moment.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import record
import torch
import typer
from arithmetic import matrix_rate
from torch import nn
from torch.nn import functional
from turns import WARM_UP, Step, Turns

import gdm_core
from gdm_core.contract import Batch, TrainingConfig
from gdm_core.randomness import seeded_generator

SHAPE, PIXELS, SAMPLES = (1, 28, 28), 784, 64
TURN = 1.0  # seconds, at least one step
NAME = "peer_speed"


@dataclass(frozen=True)
class Pair:
    """A model here and in the other library, the images that each draws at once, and the goals of this project."""

    model: str
    arguments: dict[str, Any]
    peer: str
    peer_arguments: dict[str, Any]
    batch_size: int
    sizes: str
    peer_samples: int = SAMPLES  # fewer where the other takes minutes
    goals: dict[str, float] = field(default_factory=lambda: {"training": 1})


PAIRS = [
    Pair("fvsbn", {}, "FullyVisibleBeliefNetwork", {"n_dims": PIXELS}, 128, "784"),
    Pair("nade", {"hidden_units": 500}, "NADE", {"input_dim": PIXELS, "hidden_dim": 500}, 128, "784-500",
         goals={"training": 4}),
    Pair("made", {"hidden_units": (500,)}, "MADE", {"input_dim": PIXELS, "hidden_dims": [500]}, 128, "784-500"),
    Pair("pixel_cnn", {"blocks": 15, "channels": 16}, "PixelCNN", {"n_residual": 15, "residual_channels": 16}, 64,
         "15 blocks, 16 channels", 16, {"training": 1, "sampling": 50}),
    Pair("gated_pixel_cnn", {"blocks": 10, "channels": 128, "dropout": 0.0}, "GatedPixelCNN", {}, 16,
         "10 blocks, 128 channels", 4, {"training": 1, "sampling": 100}),
    Pair("image_transformer", {"features": 64, "blocks": 3, "heads": 4, "dropout": 0.0}, "ImageGPT",
         {"n_transformer_blocks": 3, "n_attention_heads": 4, "n_embedding_channels": 64}, 16,
         "3 blocks, 64 features, 4 heads", 4),
]  # fmt: skip


# --- the contestants ---------------------------------------------------------------------------------------------


def images(count: int) -> torch.Tensor:
    """As many pixels on as in binarised MNIST."""
    return (torch.rand(count, *SHAPE, generator=seeded_generator(0, NAME)) < 0.13).float()


def our_model(pair: Pair) -> nn.Module:
    torch.manual_seed(0)
    return gdm_core.build_model(pair.model, SHAPE, **pair.arguments)


def their_model(pair: Pair, peer: Path) -> nn.Module:
    """Their model, having seen an image: only then it knows what size it draws."""
    sys.path.insert(0, str(peer))
    from pytorch_generative import models

    torch.manual_seed(0)
    model = getattr(models, pair.peer)(**pair.peer_arguments)
    model(images(1))
    return model


def our_learning(pair: Pair) -> Step:
    model, batch = our_model(pair).train(), Batch(images(pair.batch_size))
    update = next(model.training_phases(TrainingConfig(1, pair.batch_size, 1e-3))).update
    return lambda: update(batch)


def their_learning(pair: Pair, peer: Path) -> Step:
    """What their trainer does with a batch, with the loss and the optimiser of their training scripts."""
    model, x = their_model(pair, peer).train(), images(pair.batch_size)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> float:
        optimiser.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(model(x), x, reduction="none").flatten(1).sum(1).mean()
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def our_sampling(pair: Pair) -> Step:
    model = our_model(pair).eval()
    return lambda: model.sample(SAMPLES, generator=seeded_generator(0, NAME))


def their_sampling(pair: Pair, peer: Path) -> Step:
    model = their_model(pair, peer).eval()
    return lambda: model.sample(pair.peer_samples)


# --- the measurement ---------------------------------------------------------------------------------------------


def measure(pair: Pair, peer: Path, rounds: int, with_sampling: bool = True) -> list[dict[str, Any]]:
    """The rows of a pair: learning, then sampling unless that is left out."""
    learning = {"ours": partial(our_learning, pair), "theirs": partial(their_learning, pair, peer)}
    sampling = {"ours": partial(our_sampling, pair), "theirs": partial(their_sampling, pair, peer)}
    counted = {"ours": _parameters(our_model(pair)), "theirs": _parameters(their_model(pair, peer))}
    return [
        {"model": pair.model, "what": what, "sizes": pair.sizes, "batch_size": pair.batch_size, "parameters": counted,
         "goal": pair.goals.get(what), "at_once": at_once, **in_turns(contestants, at_once, rounds)}
        for what, contestants, at_once in (
            ("training", learning, dict.fromkeys(learning, pair.batch_size)),
            ("sampling", sampling, {"ours": SAMPLES, "theirs": pair.peer_samples}),
        )
        if what == "training" or with_sampling
    ]  # fmt: skip


def in_turns(contestants: dict[str, Callable[[], Step]], at_once: dict[str, int], rounds: int) -> dict[str, Any]:
    """Images per second of both, and their ratio within each round."""
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    with Turns(contestants, torch.get_num_threads()) as turns:
        takes = {name: _seconds_of_a_step(turns, name) for name in contestants}
        steps = {name: math.ceil(TURN / seconds) for name, seconds in takes.items()}
        warm_up = {name: WARM_UP if seconds < TURN else 0 for name, seconds in takes.items()}
        rates, names = [], list(contestants)
        for _ in range(rounds):
            rates.append(matrix_rate("cpu"))
            for name in names:
                seconds = turns.seconds(name, steps[name], warm_up[name])
                speeds[name].append(steps[name] * at_once[name] / seconds)
            names.reverse()  # nobody always comes first
    ratios = [ours / theirs for ours, theirs in zip(speeds["ours"], speeds["theirs"], strict=True)]
    found = {name: record.spread(values) for name, values in speeds.items()}
    return {"images_per_second": found, "ratio": record.spread(ratios), "matrix_gflops": record.spread(rates)}


def _seconds_of_a_step(turns: Turns, name: str) -> float:
    """After the first one, which sets up what later ones use; a short one after some more."""
    turns.seconds(name, 1, warm_up=0)
    seconds = turns.seconds(name, 1, warm_up=0)
    return turns.seconds(name, 1) if seconds < TURN else seconds


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# --- the report --------------------------------------------------------------------------------------------------

COLUMNS = [
    "model", "sizes", "images/s of", "theirs", "ours", "ratio", "goal", "reached", "parameters, theirs / ours", "made",
]  # fmt: skip


def report(rows: list[dict[str, Any]]) -> list[str]:
    note = (
        f"Made by `python benchmarks/{NAME}.py`; each row says when and where. Medians over rounds in turns, at least "
        f"{TURN:g} s each, with the lowest and the highest; ratios are taken within a round. Training: learning steps "
        "with Adam in float32 on one batch of random binary images, the batch size in brackets. Sampling: "
        f"{SAMPLES} images at once here; as many there, or fewer (in brackets) where they take minutes, the time being "
        "taken to grow with the number of images. Weights are random. Parameters: those stored; weights that a mask "
        "cuts off count where a library keeps them (ours in FVSBN, theirs in PixelCNN)."
    )
    return ["# Speed beside pytorch-generative", "", note, "", *record.table(COLUMNS, [_cells(row) for row in rows])]


def _cells(row: dict[str, Any]) -> list[str]:
    where, speeds, goal, counted = row["where"], row["images_per_second"], row["goal"], row["parameters"]
    made = f"{where['date']}, {where['commit']}, theirs {row['peer']}, {where['device']}, {where['threads']} threads"
    reached = {None: "", True: "yes", False: "**no**"}[None if goal is None else row["ratio"]["median"] >= goal]
    return [
        row["model"], row["sizes"], f"{row['what']} ({row['at_once']['theirs']})",
        record.spread_text(speeds["theirs"], 1), record.spread_text(speeds["ours"], 1),
        record.spread_text(row["ratio"], 1), "" if goal is None else f"{goal:g}", reached,
        f"{counted['theirs']:,} / {counted['ours']:,}",
        f"{made}, {record.spread_text(row['matrix_gflops'], 1)} GFLOP/s of matrix products",
    ]  # fmt: skip


def main(
    peer: Annotated[Path, typer.Option(help="a checkout of pytorch-generative", exists=True, file_okay=False)],
    version: Annotated[str | None, typer.Option(help="its version, where it is no git checkout")] = None,
    models: Annotated[str | None, typer.Option(help="names with commas between them; all if none is named")] = None,
    rounds: Annotated[int, typer.Option(help="turns of each")] = 5,
    sampling: Annotated[bool, typer.Option(help="time sampling too: some calls take the other minutes")] = True,
    threads: Annotated[int | None, typer.Option(help="torch's threads; its own choice if not named")] = None,
    folder: Annotated[Path, typer.Option(help="where peer_speed.md and peer_speed.json go")] = record.RESULTS,
) -> None:
    """Time models beside those of pytorch-generative on this machine."""
    if not (peer / "pytorch_generative").is_dir():
        raise typer.BadParameter(f"no pytorch_generative in {peer}: clone it as the first lines of this file say")
    torch.set_num_threads(threads or torch.get_num_threads())
    chosen, known = models.split(",") if models else [pair.model for pair in PAIRS], {pair.model for pair in PAIRS}
    if unknown := set(chosen) - known:
        raise typer.BadParameter(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    made = {"where": record.circumstances(), "peer": version or record.commit(peer)}
    rows, order = record.read(NAME, folder).get("rows", []), {pair.model: place for place, pair in enumerate(PAIRS)}
    for pair in (one for one in PAIRS if one.model in chosen):
        for row in measure(pair, peer.resolve(), rounds, sampling):
            rows = record.with_row(rows, {**row, **made}, ("model", "what"))
        rows = sorted(rows, key=lambda row: (order[row["model"]], row["what"] != "training"))
        record.write(NAME, report(rows), {"rows": rows}, folder)  # a long run that is stopped keeps what it has
    record.keep(NAME, report(rows), {"rows": rows}, folder)


if __name__ == "__main__":
    typer.run(main)
