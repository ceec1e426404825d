"""The user's cache folder, for files that can be computed again.

Its location is as the XDG specification defines it:

https://specifications.freedesktop.org/basedir-spec/latest/
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

_log = logging.getLogger(__name__)


def user_cache(name: str, note: Callable[[str], None] | None = None) -> Path | None:
    """Returns this package's folder of the given name in the user's cache folder.

    Args:
      name: what the folder is for, e.g. `'datasets'`.
      note: receives a sentence if there is no home folder; None for the log.

    Returns:
      ``$XDG_CACHE_HOME/fedpeft_jax/name``, or ``~/.cache/fedpeft_jax/name`` if the
      variable is not set or not absolute (the specification ignores relative paths).
      Without a home folder, None, with a note. Nothing is created.

    Example:
      >>> folder = user_cache("datasets")
      >>> folder.parts[-2:]
      ('fedpeft_jax', 'datasets')
    """
    xdg = os.environ.get("XDG_CACHE_HOME", "")
    try:
        base = Path(xdg) if os.path.isabs(xdg) else Path.home() / ".cache"
        if not base.is_absolute():
            raise RuntimeError(f"HOME is {os.environ['HOME']!r}, no absolute path")
    except RuntimeError as error:
        (note or _log.warning)(f"files of {name!r} are not cached: {error}")
        return None
    return base / "fedpeft_jax" / name
