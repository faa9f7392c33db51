"""The command line: train, resume, repeat, evaluate, list, promote, import. `python -m pipelines --help`.

Everything heavy is imported inside the commands, so that --help answers at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from pipelines.typed import key_values, parse_temperatures, refuse_beside_resume

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Train deep generative models, track every run, register and promote what comes out.",
)  # fmt: skip

Offline = Annotated[
    Path | None, typer.Option(help="Write the run to this folder instead of the store; take it in later by `import`.")
]
LAST_PORT = 65_436  # a hundred from it are tried
Seconds = Annotated[float, typer.Option(help="Save a checkpoint about every so many seconds.", min=0.0)]


def main() -> None:
    """Run a command. What a user can mend is one sentence on the screen, without a traceback."""
    try:
        app()
    except (ValueError, RuntimeError) as error:
        if not _is_the_users(error):
            raise
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(1)


@app.command()
def train(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="One of `python -m pipelines models`.")] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="The model's own arguments, as channels=32.")
    ] = None,
    dataset: Annotated[
        str,
        typer.Option(
            help="digits, mnist, fashion_mnist, kmnist, cifar10, svhn, binarized_mnist, cifar10_subset, omniglot28, "
            "harmonics or folder:PATH."
        ),
    ] = "digits",
    size: Annotated[int | None, typer.Option(help="Height and width of a folder's images (32).", min=1)] = None,
    channels: Annotated[int | None, typer.Option(help="1 (grey) or 3 (colour) for a folder's images (1).")] = None,
    treatment: Annotated[
        str | None, typer.Option(help="Pixels: threshold, dynamic, levels or real. Default: the natural one.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images. Default: the model's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step. Default: the model's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: the model's.")] = None,
    seed: Annotated[int, typer.Option(help="Decides weights, order and noise.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="float32, or bfloat16 for autocast.")] = "float32",
    threads: Annotated[int | None, typer.Option(help="Processor threads. Default: all cores.", min=1)] = None,
    resume: Annotated[str | None, typer.Option(metavar="RUN_ID", help="Go on with a stopped run.")] = None,
    offline: Offline = None,
    checkpoint_seconds: Seconds = 10.0,
) -> None:
    """Train a model, evaluate it, register it: `train pixel_cnn --dataset mnist --epochs 5 channels=32`."""
    if resume is not None:
        from pipelines.training_run import resume_run

        refuse_beside_resume(context)
        _finish(lambda **watching: resume_run(resume, offline=offline, **watching), checkpoint_seconds)
        return
    if model is None:
        raise ValueError("name a model to train (`python -m pipelines models` lists them), or --resume RUN_ID")
    from pipelines.configuration import resolve
    from pipelines.training_run import start_run

    configuration, data = resolve(
        model, dataset, arguments=key_values(arguments or []), size=size, channels=channels, treatment=treatment,
        epochs=epochs, batch_size=batch_size, learning_rate=learning_rate, seed=seed, device=device,
        precision=precision, threads=threads,
    )  # fmt: skip
    for note in data.notes:
        typer.secho(f"note: {note}", fg="yellow", err=True)
    _finish(lambda **watching: start_run(configuration, data, offline=offline, **watching), checkpoint_seconds)


@app.command()
def rerun(
    run_id: Annotated[str, typer.Argument(help="A run of the store.")],
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda. Default: the run's.")] = None,
    offline: Offline = None,
    checkpoint_seconds: Seconds = 10.0,
) -> None:
    """Repeat a run from what it logged: same data, arguments, seed and threads."""
    from pipelines.training_run import repeat_run

    _finish(lambda **watching: repeat_run(run_id, device, offline=offline, **watching), checkpoint_seconds)


@app.command()
def evaluate(
    uri: Annotated[str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION or NAME (its latest).")],
    split: Annotated[str, typer.Option(help="validation, or test for the final word.")] = "validation",
    k: Annotated[int, typer.Option(help="Draws in an importance-weighted bound.", min=1)] = 1000,
    temperatures: Annotated[
        str | None,
        typer.Option(help="Anneal with so many, or `standard`. Default: log Z exactly where it is soon enumerated, "
                     "else 2000."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compute a registered model's likelihood on one split of its data set, anew."""
    from pipelines.report import likelihood_report

    uri = uri if uri.startswith("models:/") else f"models:/{uri}@latest"
    report = likelihood_report(uri, split, k, None if temperatures is None else parse_temperatures(temperatures))
    typer.echo(json.dumps(report, indent=1) if as_json else "\n".join(f"{key:>20}  {v}" for key, v in report.items()))


@app.command()
def partition(
    uri: Annotated[str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION or NAME (its latest).")],
    temperatures: Annotated[str, typer.Option(help="So many of annealing, or `standard`.")] = "2000",
    chains: Annotated[int, typer.Option(help="Annealed at once.", min=2)] = 100,
    images: Annotated[int, typer.Option(help="Validation images whose log-likelihood is bracketed.", min=1)] = 100,
) -> None:
    """How sure a registered energy model's log Z is: annealed forwards, backwards, and from images."""
    from pipelines.partition_report import partition_report

    uri = uri if uri.startswith("models:/") else f"models:/{uri}@latest"
    typer.echo("\n".join(partition_report(uri, parse_temperatures(temperatures), chains, images)))


@app.command("list")
def list_registered(
    every: Annotated[bool, typer.Option("--all", help="Every version, not only the newest and the aliased.")] = False,
) -> None:
    """The registered models with their likelihoods."""
    from pipelines.report import version_table

    typer.echo(version_table(every))


@app.command()
def models(markdown: Annotated[bool, typer.Option(help="As the README's table.")] = False) -> None:
    """The models that can be trained, with their arguments."""
    from pipelines.report import markdown_model_table, model_table

    typer.echo(markdown_model_table() if markdown else model_table())


@app.command()
def promote(
    name: Annotated[str, typer.Argument(help="A registered model, such as digits-nade.")],
    version: Annotated[str, typer.Argument(help="Its version number.")],
    alias: Annotated[str, typer.Option(help="The alias to point at it.")] = "champion",
) -> None:
    """Point an alias of a registered model at a version."""
    from pipelines import tracking

    tracking.get_version(f"models:/{name}/{version}")
    tracking.set_alias(name, alias, version)
    typer.echo(f"{name}@{alias} is version {version}")


@app.command("import")
def import_runs(directory: Annotated[Path, typer.Argument(help="Where `train --offline` wrote.")]) -> None:
    """Take in runs made on a machine that reaches no server. Twice imports once."""
    from pipelines.offline import import_directory
    from pipelines.report import import_report

    report = import_directory(directory)
    typer.echo(import_report(report))
    if report.problems:
        raise SystemExit(1)


@app.command()
def starter() -> None:
    """Train the starter set on digits: every model that has no registered version yet."""
    from pipelines.starter import train_starter_set

    if not train_starter_set():
        raise SystemExit(1)


@app.command()
def serve(
    train_starter: Annotated[bool, typer.Option("--starter/--no-starter", help="Train the starter set too.")] = True,
    mlflow_port: Annotated[int, typer.Option(help="First port to try for MLflow.", min=1, max=LAST_PORT)] = 5000,
    dashboard_port: Annotated[
        int, typer.Option(help="First port to try for the dashboard.", min=1, max=LAST_PORT)
    ] = 8501,
) -> None:
    """MLflow's server, the dashboard, and the starter set, until Ctrl-C. `make run` calls this."""
    from pipelines.serve import serve as run_services

    raise SystemExit(run_services(train_starter, mlflow_port, dashboard_port))


def _is_the_users(error: Exception) -> bool:
    """Whether its sentence says what to do: bad input, a store that is down, a damaged file, a loss that diverged."""
    from gdm_core.tensor_files import StorageError
    from gdm_core.training import DivergenceError
    from pipelines.tracker import StoreError

    return isinstance(error, (ValueError, StorageError, DivergenceError, StoreError))


def _finish(run: object, checkpoint_seconds: float) -> None:
    """Run with a progress bar, then say what came out."""
    from pipelines.interruption import end_like_ctrl_c
    from pipelines.progress_bar import ProgressBar
    from pipelines.report import result_report

    end_like_ctrl_c()
    try:
        with ProgressBar() as bar:
            result = run(checkpoint_seconds=checkpoint_seconds, watch=bar, announce=bar.announce)  # type: ignore[operator]
    except KeyboardInterrupt:  # here, because Typer would end the program without a word
        typer.secho("stopped", err=True)
        raise typer.Exit(130) from None
    typer.echo(result_report(result))
