"""What `python -m pipelines partition` prints: log Z and log p of images from both sides, and what is a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gdm_core.likelihoods import AnnealingReport, LogPartition


def partition_report(uri: str, temperatures: int | str, chains: int, images: int) -> list[str]:
    """A registered model annealed now, a line for each number; images are the first of the validation split."""
    from gdm_core.data import evaluation_images, load_recorded
    from gdm_core.likelihoods import annealing_report
    from pipelines.registry_reader import load_registered

    stored = load_registered(uri)
    dataset = load_recorded(stored.card.dataset.get("specification"), stored.card.dataset.get("digest"))
    seen = evaluation_images(dataset.splits["validation"], stored.treatment)[:images]
    return lines_of(annealing_report(stored.model, seen, temperatures, chains), uri, dataset.name)


def lines_of(found: AnnealingReport, uri: str, dataset: str) -> list[str]:
    """The report in words."""
    forwards, backwards = found.forwards, found.backwards
    side = "on average too large" if found.backwards_is_bound else "from ends of long chains: not a bound"
    forwards_are, energy = ("forwards  ", "a bound on -E(x)") if found.of_bound else ("optimistic", "-E(x)")
    lines = [
        f"{uri}: {forwards.temperatures:,} temperatures, {forwards.chains} chains",
        f"log Z forwards   {_interval(forwards)}  on average too small; about {forwards.effective_sample_size:.0f} "
        "chains count",
        f"log Z backwards  {_interval(backwards)}  {side}",
    ]
    if found.exact is not None:
        lines.append(f"log Z exactly    {found.exact.value:.3f}")
    count = len(found.optimistic)
    lines += [
        f"log p(x), mean of {count} validation images of {dataset}, nats per image:",
        f"  {forwards_are}     {found.optimistic.mean():.3f}  {energy} less log Z forwards",
        f"  conservative   {found.conservative.mean():.3f}  a lower bound for where the chains forwards end (RAISE)",
        f"  gap            {found.gap:.3f}",
    ]
    return [*lines, f"doubt: {forwards.doubt}"] if forwards.doubt else lines


def _interval(found: LogPartition) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
