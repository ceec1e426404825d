"""Downloads published files: resumed, checked, and complete or absent.

A file that exists is not downloaded again. If an address fails, the next one is tried.
A partial file is kept beside the target (`NAME.part`), and the next try completes it.
"""

import contextlib
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fedpeft_jax.core.errors import InputError
from fedpeft_jax.data.readers.files import archive_problem, check_name

_BLOCK = 1 << 18
_TRIES = 4
_TIMEOUT_S = 30.0
_MISMATCH = "its checksum does not match"

Progress = Callable[[int, int], None]
"""Receives the bytes downloaded so far, and the total (0 if it is unknown)."""


class File(NamedTuple):
    """A published file.

    Attributes:
      name: the name of the file.
      urls: its addresses, first the official one and then mirrors.
      md5: its checksum. If None, it is read from `URL.md5` of the official address; if
        that does not exist, the checksums within the archive are used.
    """

    name: str
    urls: tuple[str, ...]
    md5: str | None = None


def fetch(
    file: File,
    folder: str | os.PathLike[str],
    progress: Progress | None = None,
    *,
    back_off_s: float = 1.0,
) -> Path:
    """Downloads a file into a folder, unless it exists there.

    Args:
      file: the name, the addresses and the checksum.
      folder: the folder, which is created if it does not exist.
      progress: receives the progress of the download.
      back_off_s: seconds to wait before the second try of an address; doubled before
        every further try.

    Returns:
      The path of the file.

    Raises:
      InputError: if no address gives the file, with the reason of each and the path to
        put the file at by hand; if the folder cannot be written; or if the name is a
        path.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> _ = (folder / "there.zip").write_bytes(b"kept")
      >>> fetch(File("there.zip", ("http://nowhere.invalid/there.zip",)), folder).name
      'there.zip'
    """
    check_name(file.name)
    target = Path(folder) / file.name
    if _is_there(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target.parent):
            if not _is_there(target):  # another run may have been faster
                _fetch(file, target, progress, back_off_s)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{target}: cannot be written ({reason}): free some space, or set "
            "`data_dir` to another folder"
        ) from error
    return target


def _is_there(target: Path) -> bool:
    return os.path.exists(target) and os.path.getsize(target) > 0


def _fetch(
    file: File, target: Path, progress: Progress | None, back_off_s: float
) -> None:
    part, failures = target.with_name(f"{target.name}.part"), []
    for url in file.urls:
        # A second time, from the start, if the checksum does not match: the file may
        # have parts of two editions, or a fault of the transfer.
        for _ in range(2):
            problem = _fetch_from(url, part, progress, back_off_s)
            if problem is None:
                problem = _problem_of(file, part)
                if problem is None:
                    os.replace(part, target)
                    return
                part.unlink()
            if problem != _MISMATCH:
                break
        failures.append(f"{url}: {problem}")
    raise InputError(
        f"{file.name}: cannot be downloaded ({'; '.join(failures)}): check the "
        f"connection, or put the file at {target} by hand"
    )


def _fetch_from(
    url: str, part: Path, progress: Progress | None, back_off_s: float
) -> str | None:
    """Completes a partial file; returns the problem, None if there was none."""
    problem = "no answer"
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(back_off_s * 2 ** (attempt - 1))
        held = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(url, headers={"User-Agent": "fedpeft_jax"})
        if held:
            request.add_header("Range", f"bytes={held}-")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                if _is_other_range(answer, held):
                    part.unlink()
                    problem = "the server answered with another part of the file"
                    continue
                if _write(answer, part, held, progress):
                    return None
            problem = "the connection was cut"
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and held:
                # It is complete, or of another edition: the checksum will show it.
                if error.headers.get("Content-Range", "").endswith(f"/{held}"):
                    return None
                part.unlink()
                continue
            problem = f"the server answered {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                return problem  # another try would have the same answer
        except (OSError, ValueError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.filename:
                raise  # an error of the disk, not of the connection
            reason = getattr(error, "reason", None) or error
            problem = str(reason) or type(error).__name__
    return problem


def _write(
    answer: http.client.HTTPResponse, part: Path, held: int, progress: Progress | None
) -> bool:
    """Appends the answer to the partial file; returns whether it is complete."""
    resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
    done = held if resumed else 0
    length = answer.headers.get("Content-Length", "").strip()
    # Without a usable length, the content is all that can be checked.
    total = done + int(length) if length.isascii() and length.isdigit() else 0
    with part.open("ab" if resumed else "wb") as file:
        while True:
            try:
                block = answer.read(_BLOCK)
            except http.client.IncompleteRead as error:
                file.write(error.partial)
                return False
            if not block:
                break
            file.write(block)
            done += len(block)
            if progress is not None:
                progress(done, total)
        file.flush()
        os.fsync(file.fileno())
    return not total or done >= total


def _is_other_range(answer: http.client.HTTPResponse, held: int) -> bool:
    """Returns whether a partial answer starts at another byte than was asked for."""
    start = answer.headers.get("Content-Range", f"bytes {held}-")
    partial = answer.status == http.HTTPStatus.PARTIAL_CONTENT
    return partial and not start.startswith(f"bytes {held}-")


def _problem_of(file: File, path: Path) -> str | None:
    """Returns the problem of a downloaded file, None if there is none."""
    if path.stat().st_size == 0:
        return "the answer was empty"
    expected = file.md5 or _published_md5(file.urls[0])
    if expected is not None:
        with path.open("rb") as content:
            found = hashlib.file_digest(content, "md5").hexdigest()
        return None if found == expected else _MISMATCH
    return archive_problem(file.name, path)


def _published_md5(url: str) -> str | None:
    request = urllib.request.Request(
        f"{url}.md5", headers={"User-Agent": "fedpeft_jax"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            words = answer.read(4096).decode("latin-1").split()
    except (OSError, ValueError, http.client.HTTPException):
        return None
    digests = [w.lower() for w in words if len(w) == 32 and _is_hex(w)]
    return digests[0] if digests else None


def _is_hex(word: str) -> bool:
    return all(letter in "0123456789abcdefABCDEF" for letter in word)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Waits while another process downloads into the folder.

    The lock is released when that process ends.
    """
    try:
        import fcntl
    except ImportError:  # Windows: two runs at once download the file twice
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
