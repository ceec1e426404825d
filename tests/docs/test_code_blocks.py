"""Every Python block of the pages runs.

The Python blocks of a page share a namespace, in their order, in a temporary folder.
The data are tiny and the compiler does not optimise; nothing else is changed, so that a
page must say `rounds=40` where it can.
"""

import functools
import importlib.util

import pytest

import fedpeft_jax
from fedpeft_jax.evaluation import BASELINES
from fedpeft_jax.experiment.plugins import REGISTRIES
from fedpeft_jax.features import PRETRAINERS
from tests.docs.pages import PAGES, blocks
from tests.small_runs import small_runs

PYTHON_PAGES = [page for page in PAGES if blocks(page, "python")]
PRETRAINING = {"hidden": (16,), "epochs": 100, "learning_rate": 0.01, "noise": 0.1}


QUICK = {"max_buckets": 1, "warm_up_rounds": 0, "features": 8, "baselines": "random"}
"""Settings that blocks which leave them out get, so that a run compiles in a second."""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A folder to run in, tiny data, a short pretraining, and no lasting plugins."""
    monkeypatch.chdir(tmp_path)
    short = functools.partial(PRETRAINERS["autoencoder"], **PRETRAINING)
    for registry in (*REGISTRIES.values(), BASELINES):
        for name, factory in registry.items():
            monkeypatch.setitem(registry, name, factory)
    monkeypatch.setitem(PRETRAINERS, "autoencoder", short)
    with small_runs():
        yield


def run_blocks(page, *, slow):
    """Runs the blocks of a page; without `slow`, slow blocks are only compiled."""
    namespace = {"__name__": "__main__"}
    for block in blocks(page, "python"):
        code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
        kind, _, name = block.marker.partition(" ")
        assert kind in ("", "slow", "needs"), f"{page}: unknown marker {block.marker!r}"
        left_out = kind == "needs" and importlib.util.find_spec(name) is None
        if not left_out and (slow or kind != "slow"):
            exec(code, namespace)


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.stem)
def test_python_runs(page, tiny, monkeypatch):
    for name in ("configure", "train"):
        quick = functools.partial(getattr(fedpeft_jax, name), **QUICK)
        monkeypatch.setattr(fedpeft_jax, name, quick)
    run_blocks(page, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON_PAGES, ids=lambda page: page.stem)
def test_all_python_runs_with_its_own_settings(page, tiny):
    run_blocks(page, slow=True)
