"""Ignores warnings in a block of code, in one thread at a time.

The filters of Python's warnings belong to the process. Two threads that change them at
the same time may leave the filters of one block behind after both have ended.
"""

import contextlib
import threading
import warnings
from collections.abc import Iterator

_LOCK = threading.RLock()


@contextlib.contextmanager
def ignored_warnings(kind: type[Warning]) -> Iterator[None]:
    """Ignores warnings of a kind within the block.

    Args:
      kind: the class of the warnings; `Warning` for all of them.

    Example:
      >>> with ignored_warnings(UserWarning):
      ...   warnings.warn("nobody reads this")
    """
    with _LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore", kind)
        yield
