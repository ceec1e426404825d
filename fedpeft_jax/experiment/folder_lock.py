"""A lock on a folder, so that two processes never write the same run.

The lock is `flock` on the folder itself. It needs no file, and the operating system
releases it when the process ends, also after a crash.
"""

import os
import pathlib
import weakref
from collections.abc import Callable

from fedpeft_jax.core.errors import InputError


class FolderLock:
    """Holds the lock of a folder until `release`, or until the object is collected.

    Where the system has no such locks (Windows, some network file systems), nothing is
    locked.

    Args:
      path: the folder, which must exist.

    Raises:
      InputError: if another process, or another part of this one, holds the lock.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryDirectory() as folder:
      ...   first = FolderLock(pathlib.Path(folder))
      ...   try:
      ...     FolderLock(pathlib.Path(folder))
      ...   except InputError:
      ...     print("refused")
      ...   first.release()
      ...   FolderLock(pathlib.Path(folder)).release()
      refused
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.release: Callable[[], object] = _no_lock
        try:
            import fcntl
        except ImportError:  # Windows
            return
        handle = os.open(path, os.O_RDONLY)
        close = weakref.finalize(self, os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            close()
            raise InputError(
                f"another process is writing to {path}: wait until it ends, or set "
                "`out` to a new folder"
            ) from None
        except OSError:  # this file system has no locks
            pass
        self.release = close


def is_free(path: pathlib.Path) -> bool:
    """Returns whether nobody holds the lock of a folder.

    Args:
      path: the folder; one that does not exist is free.

    Example:
      >>> is_free(pathlib.Path("no/such/folder"))
      True
    """
    if path.is_dir():
        try:
            FolderLock(path).release()
        except InputError:
            return False
    return True


def _no_lock() -> None:
    """Releases nothing."""
