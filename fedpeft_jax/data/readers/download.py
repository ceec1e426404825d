"""Fetches published files: resumed, checked, and put in place whole or not at all.

What is there is never fetched again. An address that fails is followed by the next one;
what has arrived is kept beside the target (`NAME.part`) and completed by the next try.
"""

import contextlib
import gzip
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fedpeft_jax.core.errors import InputError

_BLOCK = 1 << 18
_TRIES = 4
_BACK_OFF_S = 1.0
_TIMEOUT_S = 30.0
_MISMATCH = "its checksum is another one"

Progress = Callable[[int, int], None]
"""Hears of bytes that arrived, of how many (0 if the server does not say)."""


class File(NamedTuple):
    """A published file.

    Attributes:
      name: of the file.
      urls: where it is, the official address first, mirrors after it.
      md5: its checksum; None asks the official address for `URL.md5`, and goes by the
        archive's own checksums where there is none.
    """

    name: str
    urls: tuple[str, ...]
    md5: str | None = None


def fetch(
    file: File, folder: str | os.PathLike[str], progress: Progress | None = None
) -> Path:
    """Returns the file's path in a folder, fetched if it is not there.

    Raises:
      InputError: if no address gives the file, with what each answered and where to put
        it by hand; or if the folder cannot be written.

    Example:
      >>> import tempfile
      >>> folder = Path(tempfile.mkdtemp())
      >>> _ = (folder / "there.zip").write_bytes(b"kept")
      >>> fetch(File("there.zip", ("http://nowhere.invalid/there.zip",)), folder).name
      'there.zip'
    """
    target = Path(folder) / file.name
    if target.exists():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(target.parent):
            if not target.exists():  # another run was quicker
                _fetch(file, target, progress)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"cannot write {target}: {reason}; free some space or set --data_dir"
        ) from error
    return target


def _fetch(file: File, target: Path, progress: Progress | None) -> None:
    part, failures = target.with_name(f"{target.name}.part"), []
    for url in file.urls:
        problem = _fetch_from(url, part, progress)
        if problem is None:
            problem = _wrong(file, part)
            if problem is None:
                os.replace(part, target)
                return
            part.unlink()
            if problem == _MISMATCH:
                # Pieces of two editions, or a fault on the way: once more, whole.
                problem = _fetch_from(url, part, progress) or _wrong(file, part)
                if problem is None:
                    os.replace(part, target)
                    return
                part.unlink(missing_ok=True)
        failures.append(f"{url}: {problem}")
    raise InputError(
        f"cannot download {file.name} ({'; '.join(failures)}): check the connection, "
        f"or put the file at {target} by hand"
    )


def _fetch_from(url: str, part: Path, progress: Progress | None) -> str | None:
    """Completes a partial file; returns what went wrong, if anything."""
    problem = "no answer"
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_BACK_OFF_S * 2 ** (attempt - 1))
        held = part.stat().st_size if part.exists() else 0
        request = urllib.request.Request(url, headers={"User-Agent": "fedpeft_jax"})
        if held:
            request.add_header("Range", f"bytes={held}-")
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
                if _write(answer, part, held, progress):
                    return None
            problem = "the connection was cut"
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and held:
                # Complete already, or of another edition: the checksum will tell.
                if error.headers.get("Content-Range", "").endswith(f"/{held}"):
                    return None
                part.unlink()
                continue
            problem = f"the server answered {error.code} {error.reason}"
            if error.code < 500 and error.code not in (408, 429):
                return problem  # it would answer the same again
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.filename:
                raise  # of the disk, not of the connection
            reason = getattr(error, "reason", None) or error
            problem = str(reason) or type(error).__name__
    return problem


def _write(
    answer: http.client.HTTPResponse, part: Path, held: int, progress: Progress | None
) -> bool:
    """Appends the answer to the partial file; returns whether all of it came."""
    resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
    done = held if resumed else 0
    length = answer.headers.get("Content-Length")
    total = done + int(length) if length else 0
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


def _wrong(file: File, path: Path) -> str | None:
    """What is wrong with a file that arrived, None if nothing is."""
    expected = file.md5 or _published_md5(file.urls[0])
    if expected is not None:
        with path.open("rb") as content:
            found = hashlib.file_digest(content, "md5").hexdigest()
        return None if found == expected else _MISMATCH
    try:
        if file.name.endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                bad = archive.testzip()
            return None if bad is None else f"its member {bad} is damaged"
        if file.name.endswith(".gz"):
            with gzip.open(path) as content:
                while content.read(1 << 20):
                    pass
    except (zipfile.BadZipFile, EOFError, zlib.error, gzip.BadGzipFile) as error:
        return f"it is damaged or something else ({error})"
    return None


def _published_md5(url: str) -> str | None:
    request = urllib.request.Request(
        f"{url}.md5", headers={"User-Agent": "fedpeft_jax"}
    )
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:
            words = answer.read(4096).decode("latin-1").split()
    except (OSError, http.client.HTTPException):
        return None
    digests = [w.lower() for w in words if len(w) == 32 and _is_hex(w)]
    return digests[0] if digests else None


def _is_hex(word: str) -> bool:
    return all(letter in "0123456789abcdefABCDEF" for letter in word)


@contextlib.contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Waits for another process that fetches into the folder; a lock dies with it."""
    try:
        import fcntl
    except ImportError:  # Windows: two runs at once fetch twice, and the last one stays
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def movielens_file(name: str, md5: str | None) -> File:
    """Where GroupLens publishes a MovieLens data set."""
    return File(
        f"{name}.zip",
        (f"https://files.grouplens.org/datasets/movielens/{name}.zip",),
        md5,
    )


_AMAZON = {
    "amazon-2018": (
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2/",
        "https://jmcauley.ucsd.edu/data/amazon_v2/",
        "http://deepyeti.ucsd.edu/jianmo/amazon/",
    ),
    "amazon-2023": (
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/raw/",
        "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_2023/raw/",
    ),
}
_AMAZON_FOLDERS = {
    "amazon-2018": ("categoryFilesSmall", "metaFiles2"),
    "amazon-2023": ("review_categories", "meta_categories"),
}


def amazon_files(name: str, files: Sequence[str]) -> list[File]:
    """Where a category's files of reviews and items are published."""
    return [
        File(file, tuple(f"{base}{folder}/{file}" for base in _AMAZON[name]))
        for folder, file in zip(_AMAZON_FOLDERS[name], files, strict=True)
    ]
