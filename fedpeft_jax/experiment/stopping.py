"""Stops a run between two rounds when the process receives SIGINT or SIGTERM."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

Stop = Callable[[], "signal.Signals | None"]
"""Returns the signal that asked the run to stop, or None."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def never_stop() -> None:
    """Returns None: nothing asks the run to stop."""


@contextlib.contextmanager
def stop_on_signals(*, kill: bool = False) -> Iterator[Stop]:
    """Within the block, the first SIGINT or SIGTERM is recorded, and nothing is raised.

    The run reads the record after every chunk of rounds, saves its state and ends. The
    second signal has its usual effect at once. Outside the main thread signals are left
    alone, because Python handles them in the main thread.

    Args:
      kill: whether the second signal ends the process without returning to Python, also
        in the middle of a computation. Otherwise a second SIGINT raises
        KeyboardInterrupt, as a notebook needs it.

    Yields:
      A function that returns the signal that was received first, or None.

    Example:
      >>> with stop_on_signals() as stop:
      ...   signal.raise_signal(signal.SIGTERM)
      ...   stop().name
      'SIGTERM'
    """
    received: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():
        yield never_stop
        return
    before: dict[signal.Signals, Any] = {s: signal.getsignal(s) for s in _SIGNALS}

    def restore() -> None:
        for one, handler in before.items():
            signal.signal(one, handler)

    def record(number: int, frame: FrameType | None) -> None:
        received.append(signal.Signals(number))
        restore()
        if kill:
            for one in _SIGNALS:
                signal.signal(one, signal.SIG_DFL)
        # Not print, which must not be entered twice.
        text = f"\n{received[0].name}: finishing what runs; once more to stop at once\n"
        with contextlib.suppress(OSError):
            os.write(2, text.encode())

    for one in _SIGNALS:
        signal.signal(one, record)
    try:
        yield lambda: received[0] if received else None
    finally:
        restore()
