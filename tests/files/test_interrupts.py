from __future__ import annotations

import signal
import threading

import pytest

from nemo_duplex.files.interrupts import held_back


def test_ctrl_c_waits_until_it_is_let_through():
    reached = []
    with pytest.raises(KeyboardInterrupt):
        with held_back() as let_through:
            let_through()  # nothing has come
            signal.raise_signal(signal.SIGINT)
            reached.append("after the signal")
            let_through()
            reached.append("after it was let through")
    assert reached == ["after the signal"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_takes_effect_at_the_end_of_the_block():
    reached = []
    with pytest.raises(KeyboardInterrupt):
        with held_back():
            signal.raise_signal(signal.SIGINT)
            reached.append("end")
    assert reached == ["end"]


def test_an_error_of_the_block_comes_first_and_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ValueError, match="mine"):
        with held_back():
            signal.raise_signal(signal.SIGTERM)
            raise ValueError("mine")
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_has_no_signals_to_hold_back():
    def work() -> None:
        with held_back() as let_through:
            let_through()
        done.append(True)

    done: list[bool] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
