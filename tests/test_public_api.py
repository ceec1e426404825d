"""The public names: there, documented, and what the README says of them."""

import importlib.util
import inspect
import re

import jax
import numpy as np
import pytest

import fedpeft_jax
from fedpeft_jax.embeddings import EMBEDDINGS
from tests.helpers import ROOT
from tests.small_runs import FEATURES, NUM_ITEMS, finish, small_runs

README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", fedpeft_jax.__all__)
def test_public_names_are_documented(name):
    value = getattr(fedpeft_jax, name)
    if not isinstance(value, dict):
        assert inspect.getdoc(value)


def test_all_is_sorted_and_complete():
    public = {
        name
        for name, value in vars(fedpeft_jax).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert set(fedpeft_jax.__all__) == public
    assert len(set(fedpeft_jax.__all__)) == len(fedpeft_jax.__all__)


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "fedpeft_jax" / "py.typed").exists()


def test_every_file_says_what_it_is_for_and_stays_short():
    for folder in ("fedpeft_jax", "experiments"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = path.read_text().splitlines()
            assert lines[0].lstrip("r").startswith('"""'), path
            assert len(lines) <= 270, f"{path} has {len(lines)} lines"


@pytest.mark.parametrize(
    "script", ["run.py", "grid.py", "benchmark.py", "benchmark_case.py"]
)
def test_the_engine_can_be_driven_by_public_names(script):
    """The mains start a command of the package, or read nothing but public names."""
    code = (ROOT / "experiments" / script).read_text()
    deep = set(re.findall(r"from (fedpeft_jax\.[\w.]+) import", code))
    assert deep == (
        set() if script.startswith("benchmark") else {"fedpeft_jax.commands"}
    )


def readme_module(name, folder):
    """The module of a README block whose first line is the path of NAME.py."""
    (block,) = re.findall(rf"```python\n# \S+{name}\.py\n(.*?)```", README, re.S)
    path = folder / f"{name}.py"
    path.write_text(block)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readmes_embedding_runs(tmp_path, monkeypatch):
    """As the README says: one file, one line in the registry, one flag."""
    module = readme_module("direction", tmp_path)
    monkeypatch.setitem(EMBEDDINGS, "direction", module.Direction)
    with small_runs():
        run = finish(tmp_path / "run", embedding="direction")
    sent = run.summary["communication"]["uplink_bytes_per_client_round"]
    assert sent["peft"] == 4 * (NUM_ITEMS + FEATURES)
    compressed = {**run.variables["params"], **run.variables["rows"]}
    assert any(np.any(leaf) for leaf in jax.tree.leaves(compressed))
