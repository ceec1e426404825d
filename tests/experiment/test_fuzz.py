"""Hostile settings, specs and flags: one line of error, or exactly what was written."""

import json
import math
import random
import subprocess
import sys

import numpy as np
import pytest

from fedpeft_jax.core import specs
from fedpeft_jax.core.errors import InputError
from fedpeft_jax.core.settings import kind_of
from fedpeft_jax.experiment import FIELDS, configure
from fedpeft_jax.experiment.plugins import REGISTRIES
from tests.helpers import ROOT
from tests.small_runs import load_command, run_cli

NUMBERS = [n for n, f in FIELDS.items() if kind_of(f) in (int, float)]
TEXTS = [n for n, f in FIELDS.items() if kind_of(f) is str]
STRANGE = [
    math.nan, math.inf, -math.inf, 1.5, -1, 0, 1e400, -1e30, 1e-320, 2**31, 2**32,
    2**63, 2**64, -(2**63), 10**30, 10**5000, "1", "", "many", b"1", True, [1], (1,),
    {}, {1}, 1j, object, np.float64(np.nan), np.int64(-1), np.uint64(2**64 - 1),
    np.float32(0.5), np.array(3), np.array([1, 2]), np.bool_(True),
]  # fmt: skip
WORDS = [
    "", " ", "\0", "x" * 5000, "\ud800", "a\nb", "none()", "()", "(", ")", ",", ",,",
    "a" * 200, "`", "'", '"', "lambda: 0", "__import__('os')", "fedmf.fedmf",
    "-" * 3000,
    "-" * 20000, "(" * 300, "[" * 20000, "a(" * 90 + ")" * 90,
    "a(b=" + "9" * 5000 + ")",
    "a(b=" + "-" * 20000 + "1)", "a(b=1e999)", "a(b=nan)", "a(b=1, b=2)", "a(**{})",
    "a(b=" + "(" * 60 + "1," + ")" * 60 + ")", "a(b=0x" + "f" * 400 + ")", "a(b=1if 2)",
    "\uff46\uff45\uff44\uff4d\uff46", "fedmf #", "(fedmf)", "mean;mean", "a\tb", "1",
    "é",
]  # fmt: skip
LITERALS = [
    "1e400", "-1e400", "nan", "None", "True", "-1", "0", "1.5", "'x'", "()", "[]", "{}",
    "(1, 'a')", "(0,)", "(True,)", "(1e300,)", "10000000000", "-1e300", "1e-320", "1j",
    "b'a'", "...", "{1}", "9" * 30, "9" * 900, "((((((1,),),),),),)",
    "'" + "z" * 300 + "'",
    "(1,) * 9", "1 + 1", "0.9999999999999999999", "(65536,) + ()",
    str((65537,)), str((1,) * 17), "f'{1}'",
]  # fmt: skip


def outcome(settings):
    """What `configure` returns, None for an error of one line; all else fails."""
    try:
        config = configure(**settings)
    except InputError as error:
        message = str(error)
        assert message and "\n" not in message and len(message) < 5000
        return None
    flat = config.flat()
    assert configure(**json.loads(json.dumps(flat))) == config
    for name, value in settings.items():
        assert flat[name] == value, "another value than the one that was written"
        assert type(flat[name]) in (int, float, str, bool)
    return config


def mutations(seed, text, number):
    """Texts that differ from a spec in one to four places."""
    draw = random.Random(f"{seed}{text}")
    letters = "()=,.'\"-+*[]{}0123456789eE_ \t\n\0\\#;:aN\u00e9"
    for _ in range(number):
        changed = list(text)
        for _ in range(draw.randint(1, 4)):
            place = draw.randrange(len(changed) + 1)
            changed[place : place + draw.randint(0, 2)] = draw.choice(letters)
        yield "".join(changed)


def written(setting, name, changes):
    """A spec with some arguments, and the needed ones that are not among them."""
    given = {
        argument: "0.1"
        for argument, p in specs.arguments(REGISTRIES[setting][name]).items()
        if p.default is p.empty
    }
    inner = ", ".join(f"{k}={v}" for k, v in {**given, **changes}.items())
    return f"{name}({inner})"


def plugins():
    """Every plugin once, under one of the settings that may name it."""
    return [
        (setting, name)
        for setting, registry in REGISTRIES.items()
        for name in registry
        if setting not in ("private_optimizer", "server_optimizer")
        and setting != "shared_server_optimizer"
    ]


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers(name):
    for value in STRANGE:
        outcome({name: value})


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_bounds_that_hold(name):
    field = FIELDS[name]
    bounds = field.metadata["bounds"]
    assert bounds.least is not None or bounds.above is not None
    assert bounds.most is not None or bounds.below is not None
    for value in (math.nan, 1e300, -1e300, 2**70, -(2**70)):
        with pytest.raises(InputError, match=f"`{name}="):
            configure(**{name: value})


@pytest.mark.parametrize("name", TEXTS)
def test_texts(name):
    for value in WORDS:
        outcome({name: value})
    for value in (1, 1.0, True, b"a", ["a"], {"a": 1}, np.array("a"), object()):
        assert outcome({name: value}) is None


@pytest.mark.parametrize(("setting", "name"), plugins())
def test_arguments_of_specs(setting, name):
    for argument in specs.arguments(REGISTRIES[setting][name]):
        for literal in LITERALS:
            outcome({setting: written(setting, name, {argument: literal})})


@pytest.mark.parametrize(("setting", "name"), plugins())
def test_mutated_specs(setting, name):
    for text in mutations(7, written(setting, name, {}), 8):
        outcome({setting: text})


@pytest.mark.parametrize("value", [np.int64(3), np.int8(3), np.uint32(3), 3])
def test_numpy_integers_are_integers(value):
    config = configure(local_epochs=value, latent_scale=value, rounds=np.int64(30))
    assert type(config.training.local_epochs) is int
    assert (config.training.local_epochs, config.run.rounds) == (3, 30)
    assert configure(cohort_fraction=np.float32(0.5)).server.cohort_fraction == 0.5


@pytest.mark.parametrize("seed", [-1, 2**32, 2**63])
def test_no_two_seeds_are_the_same_run(seed):
    for name in ("seed", "data_seed"):
        with pytest.raises(InputError, match="at least 0 and below 4294967296"):
            configure(**{name: seed})
        configure(**{name: 2**32 - 1})


FLAGGED = ["", "-1", "1e400", "nan", "inf", "0x", "9" * 40, "9" * 5000, "1.5", "many",
           "\udcff", "a\nb", "(" * 250, "`x`"]  # fmt: skip


@pytest.mark.parametrize("name", FIELDS)
def test_flags(name, capsys):
    load_command("run")
    for value in FLAGGED:
        code = run_cli("--print_config", **{name: value})
        captured = capsys.readouterr()
        if code == 0:
            found = json.loads(captured.out)
            assert configure(**found).flat() == found
            if kind_of(FIELDS[name]) is str:
                assert found[name] == value or value == ""
        else:
            assert code == 2 and captured.out == ""
            (line,) = captured.err.splitlines()
            assert line.startswith("error: ") and len(line) < 2100


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\xff\xfe\x00--rounds=3", "no text in UTF-8"),
        (b"--flagfile=SELF", "includes itself"),
        (b"--no_such_flag", "no_such_flag"),
        (b"rounds=3", "unexpected argument"),
        (b"--rounds", "rounds"),
        (b"--flagfile=/no/such/file", "/no/such/file"),
        (None, "Is a directory"),
    ],
)
def test_flag_files(capsys, tmp_path, content, says):
    path = tmp_path / "file.flags"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content.replace(b"SELF", str(path).encode()))
    assert run_cli("--print_config", f"--flagfile={path}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and says in line


@pytest.mark.parametrize("out", ["file", "file/below", "x" * 300, "/dev/null"])
def test_folders_that_cannot_be_written(capsys, tmp_path, monkeypatch, out):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert run_cli(out=out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot write ") and "--out" in line


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--seeds=0,-1", "at least 0"),
        ("--seeds=1,1", "write 0,1,2"),
        (f"--seeds={'9' * 5000}", "write 0,1,2"),
        ("--vary=full='x", "a quote that is not closed"),
    ],
)
def test_a_grid_that_cannot_be(capsys, tmp_path, argument, says):
    row = "--vary=full=frozen"
    assert run_cli(row, argument, script="grid", out=tmp_path / "grid") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line and not (tmp_path / "grid").exists()


def test_from_a_shell(tmp_path):
    """The same in a process of its own, without a home that can be written."""
    argument = "--backbone=fedmf(init_mean=" + "-" * 900 + "1)"
    found = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "run.py"), argument],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "HOME": "/dev/null", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 2 and found.stdout == ""
    assert found.stderr.startswith("error: ") and found.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
