"""Delays Ctrl-C until it can take effect.

C libraries call back into Python (soundfile to write a block, eSpeak to deliver audio) and drop what is raised there: a Ctrl-C
during a callback would be lost, and would leave a truncated file that looks complete.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Delays Ctrl-C and SIGTERM in this block. Yields a function that lets a signal that arrived take effect.

    The end of the block does the same. Only the main thread receives signals: in another thread this does nothing.
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
