"""Everything at once: callers that join, talk, leave, break and give commands, all at random."""

import random
from types import SimpleNamespace

import numpy as np
import pytest

from nemo_duplex.inputs import InputError
from tests.streaming.calls import alone, assert_begins


class Caller:
    """One of the sessions of a schedule: pushes its call in chunks, and may break, leave or fall silent in between.

    A plain one must get its call's answer. One with options of its own draws its sample rate and sampling, and gives commands
    at random; it must get what it would get alone with the same commands at the same frames.
    """

    COMMANDS = (("stop",), ("start",), ("say", "It is six"), ("say", "What"), ("mute", True), ("mute", False))

    def __init__(self, engine, call, rng):
        self.model, self.call, self.rng = engine.model, call, rng
        self.options = drawn_options(rng) if rng.random() < 0.35 else None
        self.commands = {}
        self.session = engine.open_session(**(self.options or {}))
        self.frames, self.at, self.gone = [], 0, False  # gone: it ended, or will not end by itself

    def act(self):
        session, rng = self.session, self.rng
        if self.options and rng.random() < 0.2:
            command = rng.choice(self.COMMANDS)
            self.commands.setdefault(len(self.frames), []).append(command)
            getattr(session, command[0])(*command[1:])
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
        """Whether it got its whole answer; either way its frames are those of the call."""
        finished = self.session._ended == "flushed"
        call = self.call if self.options is None else alone(self.model, self.call.signal, self.commands, **self.options)
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
    """Returns how many callers got their whole answer, and how many of them gave commands."""
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
    return len(finished), sum(bool(caller.commands) for caller in finished)


@pytest.mark.parametrize("seed", range(6))
def test_random_schedules(model, calls, seed):
    run_schedule(model, calls, seed)


@pytest.mark.slow
def test_more_random_schedules(model, calls):
    finished, with_commands = np.sum([run_schedule(model, calls, seed) for seed in range(6, 36)], axis=0)
    assert finished > 60 and with_commands > 15, "Most callers broke off: nothing was compared to its end."
