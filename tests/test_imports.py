"""Imports run one way, as the folders say: which wing may know of which."""

import ast
import pathlib
import subprocess
import sys

import pytest

import fedpeft_jax
from tests.helpers import ROOT

PACKAGE = pathlib.Path(fedpeft_jax.__file__).parent

# Each wing beside those that it may import, itself included.
MAY_IMPORT = {
    "core": {"core"},
    "data": {"core", "data"},
    "features": {"core", "features"},
    "embeddings": {"core", "features", "embeddings"},
    "backbones": {"core", "embeddings", "backbones"},
    "federated": {"core", "data", "backbones", "federated"},
    "evaluation": {"core", "data", "backbones", "evaluation"},
    "privacy": {"core", "privacy"},
}
MAY_IMPORT["experiment"] = {*MAY_IMPORT, "experiment"}
MAY_IMPORT["grids"] = {*MAY_IMPORT, "grids"}
MAY_IMPORT["serving"] = {*MAY_IMPORT, "serving"}
MAY_IMPORT["grids"] = {*MAY_IMPORT, "grids"} - {"serving"}
MAY_IMPORT["reports"] = {"core", "evaluation", "experiment", "reports"}
MAY_IMPORT["commands"] = {*MAY_IMPORT, "commands"}

# In a folder of plugins a file may import these, and the registry alone its siblings.
SHARED = ("base", "checks", "codes", "entries", "layers", "levels", "payloads")

# Optional or slow to import: inside the function that needs them.
LAZY = {
    "torch",
    "sentence_transformers",
    "matplotlib",
    "sklearn",
    "safetensors",
    "dp_accounting",
    "jax_privacy",
    "tensorboardX",
    "IPython",
}

FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE
}


def imports(name, at_import_time=False):
    """Absolute names of what a module imports, for type checkers alone included."""
    pending = [ast.parse(FILES[name].read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide who imports whom"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if not (at_import_time and isinstance(node, ast.FunctionDef | ast.Lambda)):
            pending.extend(ast.iter_child_nodes(node))


def modules_of(name):
    """The modules of the package that a module imports, `.__init__` for a folder."""
    for target in imports(name):
        parts = target.split(".")[1:] if target.startswith("fedpeft_jax.") else []
        while parts and ".".join(parts) not in FILES:
            if ".".join([*parts, "__init__"]) in FILES:
                parts.append("__init__")
                break
            parts.pop()  # a class or a function
        if parts:
            yield ".".join(parts)


@pytest.mark.parametrize("name", FILES)
def test_imports_run_one_way(name):
    wings = {module.partition(".")[0] for module in modules_of(name)}
    assert wings <= MAY_IMPORT[name.partition(".")[0]]


def test_there_is_no_circle():
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, [*open_, name]
        if name not in done:
            open_.append(name)
            for module in modules_of(name):
                visit(module)
            done.add(open_.pop())

    for name in FILES:
        visit(name)


@pytest.mark.parametrize(
    "wing",
    ["embeddings", "backbones", "federated.aggregators", "federated.pipelines"],
)
def test_plugins_know_their_base_alone(wing):
    for name in FILES:
        if name.startswith(f"{wing}.") and not name.endswith((*SHARED, "__init__")):
            own = {m for m in modules_of(name) if m.startswith(f"{wing}.")}
            assert own <= {f"{wing}.{shared}" for shared in SHARED}, name


@pytest.mark.parametrize("name", FILES)
def test_heavy_packages_are_imported_where_they_are_used(name):
    tops = {target.partition(".")[0] for target in imports(name, at_import_time=True)}
    assert not tops & LAZY


def in_a_fresh_process(code):
    command = [sys.executable, "-c", code]
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_importing_everything_starts_no_backend():
    """`jax.distributed.initialize` refuses to run once a backend has started."""
    names = [f"fedpeft_jax.{name.removesuffix('.__init__')}" for name in FILES]
    imported = "; ".join(f"import {name}" for name in names)
    code = f"""
import socket
import fedpeft_jax; {imported}
import jax
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    address = "127.0.0.1:%d" % free.getsockname()[1]
jax.distributed.initialize(address, num_processes=1, process_id=0)
print(jax.process_count(), jax.numpy.ones(2).sum())
jax.distributed.shutdown()
"""
    assert in_a_fresh_process(code) == "1 2.0"


def test_importing_the_package_needs_no_extra():
    code = f"import sys, fedpeft_jax; print(sorted({LAZY!r} & set(sys.modules)))"
    assert in_a_fresh_process(code) == "[]"
