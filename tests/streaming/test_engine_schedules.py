"""Everything at once: callers that join, speak, leave, break and make their agents do things, all at random."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from nemo_duplex.inputs import InputError
from tests.streaming.calls import alone, assert_begins


class Caller:
    """One of the sessions of a schedule: pushes its call in chunks, and may break, leave or fall silent in between.

    A plain one must hear its call's answer. One with wishes draws its sample rate and how its agent chooses, and makes it do
    things at random; it must hear what it would hear alone, from an agent that it makes do the same at the same frames.
    """

    WISHES = (("stop",), ("start",), ("say", "It is six"), ("say", "What"), ("mute", True), ("mute", False))

    def __init__(self, engine, call, rng):
        self.model, self.call, self.rng = engine.model, call, rng
        self.options = drawn_options(rng) if rng.random() < 0.35 else None
        self.wishes = {}
        self.session = engine.open_session(**(self.options or {}))
        self.frames, self.at, self.gone = [], 0, False  # gone: it ended, or will not end by itself

    def act(self):
        session, rng = self.session, self.rng
        if self.options and rng.random() < 0.2:
            wish = rng.choice(self.WISHES)
            self.wishes.setdefault(len(self.frames), []).append(wish)
            getattr(session, wish[0])(*wish[1:])
        what = rng.random()
        if what < 0.04:
            bad = rng.choice([np.full(9, np.nan, np.float32), np.zeros(9), np.zeros((2, 9), np.float32)])
            with pytest.raises(InputError):
                session.push(bad)
            if rng.random() < 0.5:
                session.close()  # most servers would hang up
        elif what < 0.07:
            session._transcript = SimpleNamespace(add=lambda index, token: 1 / 0)
            self.gone = True
        elif what < 0.1:
            session.close()
        elif what < 0.9:
            size = min(rng.choice([1, 160, 320, 1280, 1281, 2560, 5000]), len(self.call.signal) - self.at)
            session.push(self.call.signal[self.at : self.at + size])
            self.at += size
            if self.at == len(self.call.signal):
                session.flush()
        self.gone |= session._ended is not None

    def hang_up(self):
        if not self.gone:
            self.session.push(self.call.signal[self.at :])
            self.session.flush()

    def check(self):
        """Whether it has heard its call to the end; either way its frames are those of the call."""
        finished = self.session._ended == "flushed"
        call = self.call if self.options is None else alone(self.model, self.call.signal, self.wishes, **self.options)
        assert_begins(self.frames, call, whole=finished)
        self.session.close()
        with pytest.raises(InputError):
            self.session.push(np.zeros(1, np.float32))
        return finished


def drawn_options(rng):
    def channel():
        heat = {"temperature": rng.choice([0.0, 0.5, 1.0, 1.5])}
        return heat | {"top_k": rng.choice([0, 1, 5]), "top_p": rng.choice([1.0, 0.7])}

    text = channel() | {"repetition_penalty": rng.choice([1.0, 1.3])}
    return {
        "sample_rate": rng.choice([None, None, 8000, 16000, 24000, 44100, 48000]),
        "sampling": rng.choice([None, {"text": text, "speech": channel()}]),
        "seed": rng.randrange(1 << 63),
    }


def run_schedule(model, calls, seed):
    """Returns how many callers were heard to their end, and how many of them had wishes."""
    rng = random.Random(seed)
    engine, everybody = model.open_engine(max_sessions=8), []
    for _ in range(25):
        while len(engine) < 8 and rng.random() < 0.4:
            everybody.append(Caller(engine, rng.choice(calls), rng))
        for caller in everybody:
            if not caller.gone:
                caller.act()
        answers = engine.step()
        for caller in everybody:
            caller.frames += answers.get(caller.session, [])
    for caller in everybody:
        caller.hang_up()
    answers = engine.run_until_idle()
    for caller in everybody:
        caller.frames += answers.get(caller.session, [])
    finished = [caller for caller in everybody if caller.check()]
    assert len(engine) == 0
    return len(finished), sum(bool(caller.wishes) for caller in finished)


@pytest.mark.parametrize("seed", range(12))
def test_random_schedules(model, calls, seed):
    run_schedule(model, calls, seed)


@pytest.mark.slow
def test_two_hundred_random_schedules(model, calls):
    finished, with_wishes = np.sum([run_schedule(model, calls, seed) for seed in range(200)], axis=0)
    assert finished > 400 and with_wishes > 100, "Most callers broke off: nothing was compared to its end."
