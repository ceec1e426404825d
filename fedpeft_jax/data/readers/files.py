"""Opens the files of a data set by their exact names, and bounds what they unpack to.

Readers pass open files to Polars, because it interprets '*', '?' and '[' in a path as
a pattern and would read other files.
"""

import contextlib
import gzip
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import polars as pl

from fedpeft_jax.core.errors import InputError

MOST_BYTES = 2 << 30
"""The most bytes that one member of a zip archive may unpack to."""

MOST_RATIO = 200
"""How many times its size a compressed file may unpack to. Logs reach about 30."""

DAMAGE = (
    zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, struct.error,
    EOFError, ValueError, LookupError,
    NotImplementedError,  # a compression method that Python does not support
    RuntimeError,  # an encrypted member
)  # fmt: skip
"""The exceptions of Python's modules for an archive that is damaged or unusual."""

_CHECKED = 1 << 30  # bytes: the part of a compressed file whose ratio is checked
_SMALL = 1 << 26  # bytes: the ratio of less is not checked
_BLOCK = 1 << 20


def is_file(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path names a regular file; False for a path that is invalid."""
    return os.path.isfile(path)


def unreadable(path: str | os.PathLike[str], error: BaseException) -> InputError:
    """Returns an InputError for a file that cannot be opened or decompressed."""
    shown = " ".join(os.fspath(path).replace("\0", "\\0").split())
    if isinstance(error, FileNotFoundError):
        return InputError(f"{shown}: no such file: check the name")
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return InputError(
        f"{shown}: cannot be read ({' '.join(reason.split())[:200]}): check the file "
        "and its permissions, or download it again"
    )


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns every error of reading a file, except those of Polars, into an InputError.

    Example:
      >>> with reading("no.csv"):
      ...     open("no.csv")
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: no.csv: no such file: check the name
    """
    try:
        yield
    except InputError:
        raise
    except MemoryError as error:
        raise InputError(
            f"{path}: is too large for the memory of this machine: use a smaller file"
        ) from error
    # ValueError: a name with a NUL. PanicException: a file that makes Polars fail.
    except (
        OSError, EOFError, zlib.error, ValueError, pl.exceptions.PanicException,
    ) as error:  # fmt: skip
        raise unreadable(path, error) from error


def open_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file.

    Raises:
      InputError: if it is not a regular file.
      OSError: if it cannot be opened.
    """
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise InputError(f"{path}: is a folder: name a file in it")
    if not stat.S_ISREG(mode):  # reading a pipe could wait for ever
        raise InputError(f"{path}: is a pipe or a device: name a regular file")
    return Path(path).open("rb")


def open_unpacked(path: str | os.PathLike[str]) -> BinaryIO:
    """Opens a regular file, gzip-compressed or not, to read its content.

    Raises:
      InputError: if it is not a regular file.
      OSError: if it cannot be opened.
    """
    with open_file(path) as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast("BinaryIO", gzip.open(path)) if packed else open_file(path)


def check_ratio(path: str | os.PathLike[str]) -> None:
    """Raises InputError if a file is gzip-compressed and unpacks to far more data.

    A small file of this kind could fill the memory. The first GiB is checked.

    Raises:
      InputError: for such a file.
      OSError: if the file cannot be read.
    """
    with open_file(path) as file:
        if file.read(2) != b"\x1f\x8b":
            return
        file.seek(0)
        with gzip.open(file) as content:
            done = 0
            while done < _CHECKED and (block := content.read(_BLOCK)):
                done += len(block)
                if done > _SMALL and done > MOST_RATIO * file.tell():
                    raise InputError(
                        f"{path}: unpacks to more than {MOST_RATIO} times its size, "
                        "which no table does: unpack it and check what it holds"
                    )


def check_member(archive: str | os.PathLike[str], member: zipfile.ZipInfo) -> None:
    """Raises InputError if a member of an archive is too large, or its name is a path.

    Example:
      >>> check_member("x.zip", zipfile.ZipInfo("../x"))
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: x.zip: its member '../x' leads out of the folder: use
      another archive
    """
    name = member.filename
    if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
        raise InputError(
            f"{archive}: its member {name!r} leads out of the folder: use another "
            "archive"
        )
    if member.file_size > MOST_BYTES:
        raise InputError(
            f"{archive}: its member {name!r} unpacks to {member.file_size} bytes, more "
            f"than the {MOST_BYTES} that are allowed: unpack it and check what it holds"
        )


def check_name(name: str) -> None:
    """Raises InputError unless a name is that of a file, without any folder.

    Example:
      >>> check_name("../x.zip")
      Traceback (most recent call last):
      ...
      fedpeft_jax.InputError: '../x.zip' is not the name of a file: use a name without
      folders
    """
    bad = name in ("", ".", "..") or any(sign in name for sign in "/\\:\0")
    if bad or len(name) > 200 or not name.isprintable():
        raise InputError(
            f"{name[:80]!r} is not the name of a file: use a name without folders"
        )


def archive_problem(name: str, path: Path) -> str | None:
    """Returns what is wrong with a `.zip` or `.gz` file, by the checksums in it.

    Args:
      name: the name of the file, whose end determines what is checked.
      path: the file.

    Returns:
      The problem; None if there is none, or if the file is of another kind.
    """
    try:
        if name.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    check_member(name, member)
                bad = archive.testzip()
            return None if bad is None else f"its member {bad!r} is damaged"
        if name.endswith(".gz"):
            check_ratio(path)
            with gzip.open(path) as content:
                if not content.read(1):
                    return "it unpacks to nothing"
                while content.read(_BLOCK):
                    pass
    except InputError as error:
        return str(error)
    except DAMAGE as error:
        return f"it is damaged, or not such an archive ({error})"
    return None
