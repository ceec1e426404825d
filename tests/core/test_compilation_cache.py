"""Compiled programs on disk: one that was not written whole is compiled again."""

import os
import pathlib
import subprocess
import sys

from fedpeft_jax.core.compilation_cache import remove_damaged_programs

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import jax
from fedpeft_jax.core.compilation_cache import use_compilation_cache
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
use_compilation_cache()
print(jax.jit(lambda x: x * 3)(2.0))
"""


def output(cache):
    """Returns what the program prints; a warning is an error."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env={"XDG_CACHE_HOME": str(cache), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout + run.stderr


def test_a_part_of_a_program_is_replaced(tmp_path):
    """JAX itself would warn in every later run, and never replace the file."""
    assert output(tmp_path) == "6.0\n"
    programs = list((tmp_path / "fedpeft_jax" / "jax").glob("*-cache"))
    whole = {path: path.stat().st_size for path in programs}
    assert whole
    for path, size in whole.items():
        path.write_bytes(path.read_bytes()[: size // 2])
    assert output(tmp_path) == "6.0\n"
    assert all(path.stat().st_size > size // 2 for path, size in whole.items())


def test_only_files_after_the_last_check_are_read(tmp_path):
    assert remove_damaged_programs(tmp_path) == []
    old, new = tmp_path / "jit_a-cache", tmp_path / "jit_b-cache"
    for path in (old, new):
        path.write_bytes(b"no program")
    os.utime(old, (0, 0))
    assert remove_damaged_programs(tmp_path) == ["jit_b-cache"]
    assert old.exists() and not new.exists()


def test_a_folder_that_is_not_there(tmp_path):
    assert remove_damaged_programs(tmp_path / "none") == []
