"""What the pages and the API name exists, and the API names everything public."""

import re

import pytest

import fedpeft_jax
from tests.docs.pages import PAGES
from tests.helpers import ROOT

API = "\n".join(page.read_text() for page in ROOT.glob("docs/api/*.md"))
RELIABILITY = (ROOT / "docs" / "reliability.md").read_text()
COMMANDS = "".join(
    path.read_text()
    for path in (
        ROOT / "fedpeft_jax" / "experiment" / "cli.py",
        *ROOT.glob("fedpeft_jax/commands/*.py"),
        *ROOT.glob("experiments/*.py"),
    )
)
FLAGS = {*fedpeft_jax.FIELDS, "help", "flagfile"}
FOLDERS = "fedpeft_jax|experiments|docs|tests"


def test_the_api_documents_every_public_name():
    pattern = r"^\.\. (?:auto\w+|py:data):: (\w+)$"
    documented = re.findall(pattern, API, re.M)
    assert sorted(documented) == sorted(fedpeft_jax.__all__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_paths_exist(page):
    """Links of the repository view; the build of the site checks their anchors."""
    text = page.read_text()
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    for path in re.findall(rf"`((?:{FOLDERS})/[\w./-]+)", text):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_flags_in_the_text_exist(page):
    for flag in re.findall(r"`(?:[^`\n]* )?--(\w+)", page.read_text()):
        names = {flag, flag.removeprefix("no")}  # --nocache is --cache=False
        defined = any(f'"{name}"' in COMMANDS for name in names)
        assert names & FLAGS or defined, flag


def test_the_tests_of_faults_exist():
    """Every fault of the reliability page names the test that causes it."""
    named = re.findall(r"`((?:\w+/)*test_\w+\.py)(?:::(\w+))?`", RELIABILITY)
    assert len(named) > 50
    for path, function in named:
        folder = ROOT / "tests" / ("" if "/" in path else "experiment")
        file = folder / path.removeprefix("tests/")
        assert file.is_file(), path
        assert not function or f"def {function}(" in file.read_text(), function
