"""The console command: which command it runs, and what it says otherwise."""

import configparser
import shutil
import subprocess
import sys

import pytest

from fedpeft_jax.commands import COMMANDS
from tests.helpers import ROOT
from tests.small_runs import finished, run_cli, small_runs


def console(*arguments):
    code = f"import sys; sys.argv = {['fedpeft-jax', *arguments]!r}; "
    code += "from fedpeft_jax.commands import main; main()"
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )


def test_the_console_command_is_declared():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    declared = parser["options.entry_points"]["console_scripts"].strip()
    assert declared == "fedpeft-jax = fedpeft_jax.commands:main"


def test_a_command_prints_its_settings():
    found = console("run", "--print_config", "--rounds=77")
    assert found.returncode == 0, found.stderr
    assert '"rounds": 77' in found.stdout


def test_help_lists_the_commands_and_the_flags_of_one():
    found = console("--help")
    assert found.returncode == 0
    assert all(f"  {name} " in found.stdout for name in COMMANDS)
    found = console("grid", "--help")
    assert "--seeds" in found.stdout and "--local_epochs" in found.stdout
    assert found.stdout.startswith("Runs many settings")


@pytest.mark.parametrize("arguments", [(), ("walk",), ("--rounds=3",)])
def test_anything_else_is_refused(arguments):
    found = console(*arguments)
    assert found.returncode == 2
    assert found.stderr.startswith("error: ") and "usage: " in found.stderr
    assert "Traceback" not in found.stderr


def test_the_report_of_a_run_is_its_table(capsys):
    with small_runs():
        path = finished().path
    assert run_cli(f"--runs={path},{path}", script="report") == 0
    printed = capsys.readouterr().out
    assert printed.count("fedmf: frozen + lora(rank=4)") == 1
    assert "most popular" in printed and "evaluation" in printed


def test_the_report_of_runs_compares_them(capsys, tmp_path):
    with small_runs():
        path = finished().path
    other = tmp_path / "other"
    shutil.copytree(path, other)
    for name in ("config.json", "summary.json"):
        text = (other / name).read_text()
        (other / name).write_text(text.replace('"seed": 0', '"seed": 1'))
    assert run_cli(f"--runs={path},{other}", script="report") == 0
    printed = capsys.readouterr().out
    assert "seeds 0, 1" in printed and "LoRA 4" in printed
    text = (other / "summary.json").read_text()
    (other / "summary.json").write_text(text.replace('"synthetic"', '"mine"'))
    assert run_cli(f"--runs={path},{other}", script="report") == 2
    assert "are not comparable" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        ("{", "cannot be read"),
        ("[]", "is no summary of format 1"),
        ('{"format": 9}', "is no summary of format 1"),
    ],
)
def test_a_report_of_what_is_no_run(capsys, tmp_path, content, says):
    if content is not None:
        (tmp_path / "summary.json").write_text(content)
    assert run_cli(f"--runs={tmp_path}", script="report") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line and says in line


def test_a_report_of_nothing(capsys):
    assert run_cli(script="report") == 2
    assert "name folders of runs" in capsys.readouterr().err
