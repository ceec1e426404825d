"""Every command of the pages names what exists: flags, values, presets, extras."""

import configparser
import contextlib
import re
import subprocess

import pytest
from absl import flags
from absl.testing import flagsaver

from fedpeft_jax.commands import COMMANDS
from fedpeft_jax.experiment import cli
from fedpeft_jax.grids.addresses import apply
from fedpeft_jax.grids.axes import read_row
from tests.docs.pages import PAGES, blocks
from tests.helpers import ROOT
from tests.small_runs import load_command

BASH_PAGES = [page for page in PAGES if blocks(page, "bash")]
PROGRAMS = (
    "python", "python3", "pip", "fedpeft-jax", "pytest", "jupyter", "tensorboard",
)  # fmt: skip
MODULES = {"venv", "sphinx", "pytest"}  # of `python -m`
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def recorded(page, folder):
    """The commands that the bash blocks of a page run, as lists of words.

    Bash itself runs the blocks, with programs that only write down what they are called
    with. Loops and variables are thus read as a user's shell reads them.
    """
    log, programs = folder / "log", folder / "programs"
    programs.mkdir()
    for name in PROGRAMS:
        stub = programs / name
        stub.write_text(f"""#!/bin/bash\nprintf '%s\\x1f' {name} "$@" >> {log}
echo >> {log}\n""")
        stub.chmod(0o755)
    (folder / ".venv" / "bin").mkdir(parents=True)
    (folder / ".venv" / "bin" / "activate").touch()
    (folder / "check").symlink_to(programs / "pytest")
    text = "\n".join(block.code for block in blocks(page, "bash"))
    done = subprocess.run(
        ["/bin/bash", "-eu", "-c", text],
        cwd=folder,
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [line.split("\x1f")[:-1] for line in log.read_text().splitlines()]


@contextlib.contextmanager
def flags_of(name):
    """The module of a command; no flags of others, which the process may have defined.

    Absl has one table of flags in a process.
    """
    kept = own_flags()
    for _, flag in kept:
        delattr(flags.FLAGS, flag.name)
    try:
        yield load_command.__wrapped__(name)
    finally:
        for _, flag in own_flags():
            delattr(flags.FLAGS, flag.name)
        for module, flag in kept:
            flags.FLAGS[flag.name] = flag
            flags.FLAGS.register_flag_by_module(module, flag)


def own_flags():
    """The flags that commands of the package defined, with the modules that did."""
    return [
        (module, flag)
        for module, found in flags.FLAGS.flags_by_module_dict().items()
        for flag in found
        if module.startswith("fedpeft_jax")
    ]


def check_command(name, words):
    """Parses the flags of a command, resolves its settings, and runs a quick one."""
    with flagsaver.flagsaver(), flags_of(name) as command:
        flags.FLAGS.unparse_flags()
        rest = cli.parse_flags([name, *words])
        folders = name == "report"  # the one command with arguments
        assert len(rest) == 1 or folders, f"unexpected arguments {rest[1:]}"
        settings = cli.settings_from_flags()
        rows = flags.FLAGS.vary if "vary" in flags.FLAGS else None
        for row in rows or ():
            cli.configure_row(apply(settings, read_row(row)))
        if settings and not rows:
            cli.configure_row(settings)
        if {"--list", "--print_config"} & {*words}:
            assert command.main(rest) == 0


def check_words(words):
    """Checks one command of a page."""
    program, *rest = words
    if program == "pip":
        extras = set(SETUP["options.extras_require"])
        for word in rest:
            assert not (found := re.search(r"\[(.*)\]", word)) or extras >= {
                *found[1].split(",")
            }, f"{word} names an extra that does not exist"
    elif program == "fedpeft-jax":
        check_command(rest[0], rest[1:])
    elif program in ("python", "python3") and rest[0] == "-m":
        assert rest[1] in MODULES
    elif program in ("python", "python3"):
        script = ROOT / rest[0]
        assert script.is_file(), f"{rest[0]} does not exist"
        if script.stem in COMMANDS:
            check_command(script.stem, rest[1:])
        else:  # a benchmark, which has flags of its own
            for word in rest[1:]:
                assert f'"{word[2:].partition("=")[0]}"' in script.read_text(), word


@pytest.mark.parametrize("page", BASH_PAGES, ids=lambda page: page.stem)
def test_commands_exist(page, tmp_path, monkeypatch):
    """Their flags, values, presets, scripts and extras do, and quick ones run."""
    monkeypatch.chdir(ROOT)
    commands = recorded(page, tmp_path)
    assert commands
    for words in commands:
        if "--help" not in words:
            check_words(words)
