"""The architecture, read from the source: which file may import what, and what no file may do.

Every exception stands in a table with its reason; a line that is no longer needed is as red as a broken rule.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("gdm_core", "pipelines", "dashboard")
FAMILIES = ("autoregressive", "energy", "autoencoders", "adversarial")

# Who may import which part of the project. The longest prefix of a file's path counts; "models/*" is its own family.
MAY_IMPORT = {
    "gdm_core/__init__.py": {"gdm_core"},
    "gdm_core/annealing.py": set(),
    "gdm_core/capabilities.py": {"gdm_core.annealing"},
    # The updates are the default training phase, imported when it is asked for.
    "gdm_core/contract.py": {"gdm_core.capabilities", "gdm_core.updates"},
    "gdm_core/updates.py": {"gdm_core.contract"},
    "gdm_core/randomness.py": set(),
    "gdm_core/registry.py": {"gdm_core.contract"},
    "gdm_core/training.py": {"gdm_core.contract", "gdm_core.randomness"},
    "gdm_core/interpolation.py": set(),
    "gdm_core/chain_statistics.py": set(),
    "gdm_core/energies.py": {"gdm_core.contract", "gdm_core.randomness"},
    "gdm_core/health.py": {
        "gdm_core.chain_statistics", "gdm_core.contract", "gdm_core.energies", "gdm_core.randomness",
    },
    "gdm_core/tensor_files.py": set(),
    "gdm_core/layers": {"gdm_core.contract", "gdm_core.layers"},
    "gdm_core/likelihoods": {
        "gdm_core.annealing", "gdm_core.contract", "gdm_core.energies", "gdm_core.likelihoods", "gdm_core.randomness",
    },
    "gdm_core/quality": {"gdm_core.contract", "gdm_core.randomness", "gdm_core.quality"},
    "gdm_core/anomaly": {"gdm_core.contract", "gdm_core.energies", "gdm_core.randomness", "gdm_core.anomaly"},
    "gdm_core/data": {"gdm_core.contract", "gdm_core.randomness", "gdm_core.data"},
    "gdm_core/models/__init__.py": {"gdm_core.models"},
    **{
        f"gdm_core/models/{family}": {
            "gdm_core.annealing", "gdm_core.contract", "gdm_core.layers", "gdm_core.registry", "gdm_core.updates",
            "gdm_core.randomness",
            f"gdm_core.models.{family}",
        }
        for family in FAMILIES
    },
    # A stored model is rebuilt from its card: these meet the registry with every architecture in it.
    "gdm_core/outline.py": {"gdm_core.contract", "gdm_core.registry"},
    "gdm_core/card.py": {
        "gdm_core.contract", "gdm_core.registry", "gdm_core.models", "gdm_core.tensor_files",
        "gdm_core.data.treatments",
    },
    "gdm_core/storage.py": {
        "gdm_core.contract", "gdm_core.registry", "gdm_core.card", "gdm_core.outline", "gdm_core.tensor_files",
        "gdm_core.data.treatments",
    },
    "pipelines": {"pipelines", "gdm_core"},
    "dashboard": {
        "dashboard", "gdm_core",
        "pipelines.tracking",  # the read side of the store: what the dashboard knows of runs and registered models
        "pipelines.store",  # where the store is: part of every cache's key, and the address on the page
        "pipelines.tracker",  # StoreError, the one sentence that a page shows
    },
}  # fmt: skip

SCIENCE = {"torch", "torchvision", "numpy", "scipy", "sklearn", "torchmetrics", "PIL", "safetensors"}

# The files where an outside service may be imported, each with its reason.
BOUNDARY = {
    "mlflow": {
        "pipelines/store.py": "the store itself: its address, client and one-time set-up",
        "pipelines/artifact_store.py": "MLflow's interface for where artifacts lie",
        "pipelines/run_writer.py": "writes runs",
        "pipelines/registry_reader.py": "MLflow's exception, turned into one sentence",
        "pipelines/model_files.py": "lists and downloads the files of a registered model",
        "pipelines/registered_model.py": "registers a model, with its signature",
        "pipelines/pyfunc_model.py": "the model that MLflow's own pyfunc loads",
        "dashboard/warm_up.py": "imports it early in the background, because it takes seconds; uses nothing of it",
    },
    "plotly": {
        "dashboard/figures": "figures, apart from the web",
        "dashboard/warm_up.py": "imports it early in the background",
    },
    "streamlit": {"dashboard": "the web"},
    "ray": {"pipelines/fan_out.py": "the cluster"},
}
# Used directly, but in the version that a pinned package brings: they must be the ones that it raises and holds.
THROUGH_ANOTHER = {
    "sqlalchemy": "its exceptions, as MLflow's store raises them",
    "requests": "its exceptions, as MLflow's client raises them",
    "filelock": "a lock around the store's set-up; torch brings it",
}
NOT_YET = {"pipelines/fan_out.py"}  # named by the design, not written so far

# Where everything may be caught: (file, function) and why. Each logs what it caught.
CATCH_ALL = {
    ("pipelines/training_run.py", "_guarded"): "the run's boundary: marks it FAILED and raises again",
    ("dashboard/page.py", "boundary"): "a page's boundary: one sentence in place of a traceback",
    ("dashboard/jobs.py", "_run"): "a job's boundary: its thread has nobody to raise to; its page shows one sentence",
}

MOST_LINES, LONGEST_FUNCTION = 250, 40
LONGER_FILES: dict[str, str] = {}
LONGER_FUNCTIONS = {
    ("pipelines/cli.py", "train"): "its signature is the list of its flags",
}


@cache
def sources() -> dict[str, ast.Module]:
    paths = [path for top in PRODUCT for path in sorted((ROOT / top).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(), str(path)) for path in paths}


@cache
def project_modules() -> frozenset[str]:
    return frozenset(re.sub(r"/__init__$", "", path.removesuffix(".py")).replace("/", ".") for path in sources())


def imports(path: str) -> Iterator[str]:
    """Every module a file imports, at whatever depth; `from package import module` names the module."""
    for node in ast.walk(sources()[path]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in project_modules() else str(node.module) for name in names)


def inside(name: str, allowed: str, separator: str = ".") -> bool:
    return name == allowed or name.startswith(allowed + separator)


def rule_of(path: str) -> set[str]:
    rules = [prefix for prefix in MAY_IMPORT if inside(path, prefix, "/")]
    assert rules, f"{path} has no rule: add one to MAY_IMPORT"
    return MAY_IMPORT[max(rules, key=len)]


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """Every call with the dotted name of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def functions(path: str) -> Iterator[ast.FunctionDef]:
    return (n for n in ast.walk(sources()[path]) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


every_file = pytest.mark.parametrize("path", sorted(sources()))


# --- dependencies point one way ----------------------------------------------------------------------------------


def test_the_source_is_found() -> None:
    assert {path.split("/")[0] for path in sources()} == {*PRODUCT}
    assert len(sources()) > 80
    assert "gdm_core.contract" in set(imports("gdm_core/training.py"))
    families = {path.split("/")[2] for path in sources() if path.startswith("gdm_core/models/") and path.count("/") > 2}
    assert families == {*FAMILIES}


@every_file
def test_imports_within_the_project_follow_the_arrows(path: str) -> None:
    ours = {name for name in imports(path) if name.split(".")[0] in PRODUCT}
    forbidden = {name for name in ours if not any(inside(name, allowed) for allowed in rule_of(path))}
    assert not forbidden, f"{path} may import {sorted(rule_of(path))}"


def test_no_rule_is_left_over() -> None:
    """A rule for a file that is gone, or that allows the dashboard what it no longer uses."""
    gone = {prefix for prefix in MAY_IMPORT if not any(inside(path, prefix, "/") for path in sources())}
    assert not gone
    used = {name for path in sources() if path.startswith("dashboard/") for name in imports(path)}
    assert not [allowed for allowed in MAY_IMPORT["dashboard"] if not any(inside(name, allowed) for name in used)]


@pytest.mark.parametrize("path", [path for path in sorted(sources()) if path.startswith("gdm_core/")])
def test_the_science_imports_no_tracker_and_no_web(path: str) -> None:
    outside = {name.split(".")[0] for name in imports(path)} - sys.stdlib_module_names - {*PRODUCT}
    assert outside <= SCIENCE


@pytest.mark.parametrize("package", BOUNDARY)
def test_an_outside_service_is_imported_at_its_boundary_alone(package: str) -> None:
    importers = {path for path in sources() if any(inside(name, package) for name in imports(path))}
    allowed = BOUNDARY[package]
    assert not {path for path in importers if not any(inside(path, place, "/") for place in allowed)}
    idle = {place for place in allowed if not any(inside(path, place, "/") for path in importers)}
    assert idle <= NOT_YET, "no longer needed in BOUNDARY"
    assert not NOT_YET & sources().keys(), "written by now"


def test_figures_and_what_is_computed_know_no_streamlit() -> None:
    for path in sources():
        names = ("scoring", "sampling", "completing", "masks", "pixel_surprise", "hidden_units", "weight_colours",
                 "class_beliefs", "class_bars")  # fmt: skip
        computes = {f"dashboard/{name}.py" for name in names}
        if path.startswith("dashboard/figures/") or path in computes:
            assert not any(inside(name, "streamlit") for name in imports(path)), path


def test_models_are_reached_by_name() -> None:
    """Nothing outside `models` imports the module of one model."""
    for path in sources():
        if not path.startswith("gdm_core/models/"):
            assert not [name for name in imports(path) if name.startswith("gdm_core.models.")], path


def test_every_direct_dependency_is_pinned() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    requirements = [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]
    pinned = {re.split(r"[=\[]", line)[0].lower() for line in requirements}
    distribution = {"sklearn": "scikit-learn", "PIL": "pillow"}
    pinned |= THROUGH_ANOTHER.keys()
    used = {name.split(".")[0] for path in sources() for name in imports(path)} - sys.stdlib_module_names - {*PRODUCT}
    assert not {name for name in used if distribution.get(name, name) not in pinned}


# --- what no file may do -----------------------------------------------------------------------------------------


@every_file
def test_nothing_is_unpickled_or_executed(path: str) -> None:
    unsafe = {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not {name for name in imports(path) if name.split(".")[0] in unsafe}
    for call, name in calls(sources()[path]):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        place = f"{path}:{call.lineno}"
        assert name not in ("eval", "exec", "compile", "__import__"), place
        assert not name.endswith("torch.load") or options.get("weights_only") == "True", place
        assert options.get("allow_pickle", "False") == "False", place
        assert not re.search(r"(mlflow\.(pyfunc|pytorch|sklearn)|pyfunc)\.load_model$", name), place
        assert options.get("shell", "False") == "False", place


def test_catching_everything_happens_at_the_boundaries_and_is_logged() -> None:
    found = {}
    for path in sources():
        for function in functions(path):
            for node in ast.walk(function):
                if isinstance(node, ast.ExceptHandler) and catches_everything(node.type):
                    found[path, function.name] = ast.unparse(ast.Module(node.body, []))
        handlers = [n for n in ast.walk(sources()[path]) if isinstance(n, ast.ExceptHandler)]
        catching = sum(catches_everything(handler.type) for handler in handlers)
        assert catching == sum(place == path for place, _ in found), f"{path} catches everything outside a function"
        assert not [n for _, n in calls(sources()[path]) if n.endswith("suppress(Exception)")]
    assert found.keys() == CATCH_ALL.keys()
    assert all(re.search(r"\.exception\(|_log_failure\(", body) for body in found.values())


def catches_everything(kind: ast.expr | None) -> bool:
    if isinstance(kind, ast.Tuple):
        return any(map(catches_everything, kind.elts))
    return kind is None or ast.unparse(kind) in ("Exception", "BaseException")


def test_nothing_wide_is_suppressed() -> None:
    for path, tree in sources().items():
        for call, name in calls(tree):
            if name.endswith("suppress"):
                assert not any(catches_everything(kind) for kind in call.args), f"{path}:{call.lineno}"


@every_file
def test_no_stubs_asserts_or_writing_to_data(path: str) -> None:
    """A capability is a method that works; a check raises a sentence; a weight is changed in the forward pass."""
    for node in ast.walk(sources()[path]):
        assert not isinstance(node, ast.Assert), f"{path}:{node.lineno}: an assert"
        stub = isinstance(node, ast.Raise) and node.exc and "NotImplementedError" in ast.unparse(node.exc)
        assert not stub, f"{path}:{node.lineno}: a stub"
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        written = [t for t in targets if isinstance(t, ast.Attribute | ast.Subscript)]
        assert not any(re.search(r"\.data(\[|$)", ast.unparse(t)) for t in written), f"{path}:{node.lineno}"
    in_place = [name for _, name in calls(sources()[path]) if re.search(r"\.data\.\w+_$", name)]
    assert not in_place


@pytest.mark.parametrize("path", [path for path in sorted(sources()) if path.startswith("gdm_core/")])
def test_the_science_prints_nothing(path: str) -> None:
    assert not [call.lineno for call, name in calls(sources()[path]) if name == "print"]


# --- sizes and words ---------------------------------------------------------------------------------------------


def test_files_hold_one_idea() -> None:
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in sources()}
    assert {path for path, lines in lengths.items() if lines > MOST_LINES} == LONGER_FILES.keys()


def test_functions_are_short() -> None:
    lengths = {(path, f.name): length_without_docstring(f) for path in sources() for f in functions(path)}
    assert {place for place, lines in lengths.items() if lines > LONGEST_FUNCTION} == LONGER_FUNCTIONS.keys()
    assert sorted(lengths.values())[len(lengths) // 2] <= 10


def length_without_docstring(function: ast.FunctionDef) -> int:
    first = function.body[0]
    docstring = ast.get_docstring(function) is not None and first.end_lineno - first.lineno + 1
    return function.end_lineno - function.lineno + 1 - docstring


@every_file
def test_a_file_says_what_it_is(path: str) -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "manager", "base", "misc"}
    assert not vague & {part.removesuffix(".py") for part in path.split("/")}
    assert ast.get_docstring(sources()[path]), "no docstring"


@every_file
def test_public_signatures_have_types(path: str) -> None:
    tree = sources()[path]
    nested = {id(inner) for f in functions(path) for inner in ast.walk(f) if inner is not f}
    for function in functions(path):
        if id(function) in nested or (function.name.startswith("_") and function.name != "__init__"):
            continue
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        untyped = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
        assert not untyped, f"{path}:{function.lineno} {function.name}({', '.join(untyped)})"
        assert function.returns is not None, f"{path}:{function.lineno} {function.name} -> ?"
    assert tree.body
