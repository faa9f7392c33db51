"""What the command line makes of what was typed: values out of words, and a sentence where they do not go together."""

from __future__ import annotations

import typer


def parse_temperatures(text: str) -> int | str:
    """A number, or `standard` for the 14,501 of Salakhutdinov and Murray."""
    if text != "standard" and not text.isdecimal():
        raise ValueError(f"--temperatures must be a number or standard, got {text!r}")
    return text if text == "standard" else int(text)


def refuse_beside_resume(context: typer.Context) -> None:
    """A run that goes on is the one it was: ValueError for anything else that is asked for beside --resume."""
    may = {"resume", "offline", "checkpoint_seconds"}
    given = [name for name in context.params if context.get_parameter_source(name).name != "DEFAULT"]
    beside = [name if name in ("model", "arguments") else f"--{name.replace('_', '-')}" for name in given
              if name not in may]  # fmt: skip
    if beside:
        raise ValueError(
            f"--resume goes on with what the run was asked for: leave out {', '.join(beside)}, or train a new run"
        )


def key_values(pairs: list[str]) -> dict[str, str]:
    """The model's own arguments, {key: value as typed}; ValueError for what is no key=value."""
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no key=value: a model's own arguments are written as channels=32")
    return dict(pair.split("=", 1) for pair in pairs)
