"""Keeps compiled programs on disk, so that the same run starts sooner the next time.

JAX writes the file of a program in place and never replaces it. A process that is
killed meanwhile leaves a part of a file, which JAX would fail to read in every later
run; such a file is removed before JAX sees it.
"""

import os
import pathlib
import time
import zlib

import jax

from fedpeft_jax.core.user_cache import user_cache

_CHECKED = ".checked"


def use_compilation_cache() -> None:
    """Stores compiled programs in the user's cache folder.

    It does nothing if JAX is configured with another folder.
    """
    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        folder = user_cache("jax")
        if folder is not None:
            remove_damaged_programs(folder)
            jax.config.update("jax_compilation_cache_dir", str(folder))


def remove_damaged_programs(folder: pathlib.Path) -> list[str]:
    """Removes the programs that were not written whole, and returns their names.

    Only files that are newer than the last check are read. Files that cannot be read or
    removed stay, because JAX works without them.

    Args:
      folder: JAX's cache of compiled programs.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as name:
      ...   folder = pathlib.Path(name)
      ...   whole = zlib.compress(b"program" * 100)
      ...   _ = (folder / "jit_a-cache").write_bytes(whole)
      ...   _ = (folder / "jit_b-cache").write_bytes(whole[:-4])
      ...   remove_damaged_programs(folder)
      ['jit_b-cache']
    """
    removed = []
    try:
        stamp, began = folder / _CHECKED, time.time()
        checked = stamp.stat().st_mtime if stamp.exists() else 0.0
        for path in sorted(folder.glob("*-cache")):
            # File systems round times down, by up to two seconds.
            if path.stat().st_mtime > checked - 2 and not _is_whole(path.read_bytes()):
                path.unlink()
                removed.append(path.name)
        stamp.write_text("Programs that are older than this file are whole.\n")
        os.utime(stamp, (began, began))
    except OSError:
        pass
    return removed


def _is_whole(compressed: bytes) -> bool:
    if compressed.startswith(b"\x28\xb5\x2f\xfd"):
        return True  # Zstandard, which JAX uses where it is installed.
    try:
        zlib.decompress(compressed)
    except zlib.error:
        return False
    return True
