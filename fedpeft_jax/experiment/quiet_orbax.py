"""Silences the tracebacks that Orbax's threads print when a write fails.

Orbax raises the error in the caller, too, which reports it as one line.
"""

import functools
import logging
import sys


@functools.cache
def silence_orbax() -> None:
    """Installs two filters, for the log of Orbax and for its closed event loops."""
    logging.getLogger("absl").addFilter(_is_no_failed_thread)
    previous = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        # TensorStore calls the event loop of a write that has failed already.
        if str(unraisable.exc_value) != "Event loop is closed":
            previous(unraisable)

    sys.unraisablehook = hook


def _is_no_failed_thread(record: logging.LogRecord) -> bool:
    return "_SignalingThread.run() raised" not in record.getMessage()
