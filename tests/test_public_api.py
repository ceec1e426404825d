"""The public names: there, documented, and what the README says of them."""

import inspect
import re
import subprocess
import sys

import pytest
from small_runs import ROOT

import fedpeft_jax

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


def test_import_needs_no_extra():
    code = (
        "import sys; import fedpeft_jax;"
        "print(sorted({'torch', 'matplotlib', 'sentence_transformers', 'sklearn'}"
        " & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"


def test_the_readme_links_to_files_that_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    paths = re.findall(r"`((?:fedpeft_jax|experiments|docs)/[\w./-]+)`", README)
    assert links
    for path in {*links, *paths}:
        assert (ROOT / path).exists() or "direction" in path, path


def test_the_readmes_python_compiles():
    for block in re.findall(r"```python\n(.*?)```", README, re.S):
        compile(block, "README.md", "exec")
