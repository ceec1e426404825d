"""Makes what several runs of one process have in common once.

A run passes a key and a function to a `Once` for everything that other runs could have
in common with it: the split data, the encoded text, the pretraining. A run that is
alone makes all of it anew.
"""

from collections.abc import Callable, Hashable
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Once(Protocol):
    """Returns what a function makes, or what it made before for the same key."""

    def __call__(self, key: Hashable, make: Callable[[], T]) -> T:
        """Returns the value of a key.

        Args:
          key: everything that the value depends on. The first part is its name.
          make: makes the value.
        """
        ...


def make_anew(key: Hashable, make: Callable[[], Any]) -> Any:
    """Returns what the function makes, for a run that is alone.

    Args:
      key: is ignored.
      make: makes the value.

    Example:
      >>> make_anew("the answer", lambda: 42)
      42
    """
    del key
    return make()
