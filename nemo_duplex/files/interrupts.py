"""Ctrl-C at a moment of our choosing.

Libraries in C call back into Python (soundfile to write a block, eSpeak to hand over audio), and what is raised there is
dropped: a Ctrl-C that comes in a callback is lost, and leaves a file that is cut short and looks whole.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Holds Ctrl-C and SIGTERM back in this block, and gives a function that lets one that came take its effect.

    So does the end of the block. Only the main thread gets signals; in another one nothing is held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: came.append(number)) for number in _SIGNALS}

    def let_through() -> None:
        if came:
            _restore(before)
            signal.raise_signal(came.pop(0))

    try:
        yield let_through
        let_through()
    finally:
        _restore(before)


def _restore(handlers: dict) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)
