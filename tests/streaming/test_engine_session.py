"""A caller's side of the engine: what is refused, in one line and without harm to anybody, and pushes from many threads."""

import threading

import numpy as np
import pytest
import soxr
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.resampler import StreamResampler
from tests.dummies import speech_like, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


SIGNAL = speech_like(1.3, seed=3).numpy()


def offline(model, signal):
    return model.offline_inference(torch.from_numpy(signal)[None], torch.tensor([len(signal)]))


def assert_is(frames, whole):
    assert [f.token for f in frames] == whole["tokens_text"][0].tolist()
    assert np.array_equal(np.stack([f.codes for f in frames]), whole["tokens_audio"][0].numpy())
    assert np.abs(np.concatenate([f.audio for f in frames]) - whole["audio"][0].numpy()).max() < 1e-4


# ---------------------------------------------------------------------- what is refused

PUSHES = {
    "NaN": (np.array([0.0, np.nan], np.float32), "not finite"),
    "infinite": (np.array([0.0, -np.inf], np.float32), "not finite"),
    "int16": (np.zeros(9, np.int16), r"got int16 of shape \(9,\)\. Divide int16 by 32768"),
    "int16 tensor": (torch.zeros(9, dtype=torch.int16), r"got torch\.int16 of shape \(9,\)\. Divide int16 by 32768"),
    "int16 as float": (np.array([12000.0], np.float32), r"in -1\.\.1, got one of 1\.2e\+04\. Scale them: divide"),
    "float64": (np.zeros(9), r"got float64 of shape \(9,\)\. Send one channel"),
    "float16": (torch.zeros(9, dtype=torch.bfloat16), r"got torch\.bfloat16"),
    "bool": (np.zeros(9, bool), "got bool"),
    "complex": (np.zeros(9, np.complex64), "got complex64"),
    "big endian": (np.zeros(9, ">f4"), "got >f4"),
    "stereo": (np.zeros((2, 9), np.float32), r"of shape \(2, 9\)\. Send one channel"),
    "number": (np.float32(0.5) * np.ones((), np.float32), "got float32"),
    "list": ([0.0, 0.1], "a numpy array or a tensor of float32 samples, got list"),
    "bytes": (b"\0\0\0\0", "got bytes"),
    "None": (None, "got NoneType"),
    "text": ("silence", "got str"),
}


@pytest.mark.parametrize("audio, message", PUSHES.values(), ids=PUSHES)
def test_audio_that_is_refused_changes_nothing_for_anybody(model, audio, message):
    engine = model.open_engine(max_sessions=2)
    one, other, heard = engine.open_session(sample_rate=16000), engine.open_session(), {}
    for session in (one, other):
        session.push(SIGNAL[:7000])
    with pytest.raises(InputError, match=message) as refusal:
        one.push(audio)
    assert "\n" not in str(refusal.value)
    for session in (one, other):
        session.push(SIGNAL[7000:])
        session.flush()
    heard = engine.run_until_idle()
    for session in (one, other):
        assert_is(heard[session], offline(model, SIGNAL))


def test_a_refused_push_does_not_reach_the_resampler(model):
    engine = model.open_engine(max_sessions=1)
    session = engine.open_session(sample_rate=8000)
    session.push(SIGNAL[:5000])
    with pytest.raises(InputError, match="not finite"):
        session.push(np.array([0.0, np.nan], np.float32))
    session.push(SIGNAL[5000:])
    session.flush()
    assert_is(engine.run_until_idle()[session], offline(model, resampled(SIGNAL, 8000)))


OPTIONS = {
    "rate": ({"sample_rate": 11025}, "Audio of 11025 Hz is not supported, expected one of 8000"),
    "rate 0": ({"sample_rate": 0}, "Audio of 0 Hz is not supported"),
    "rate as text": ({"sample_rate": "8k"}, "Audio of '8k' Hz is not supported"),
    "sampling": ({"sampling": 0.7}, r"sampling is 0\.7, expected a mapping with text, speech"),
    "sampling of a channel": ({"sampling": {"text": 0.7}}, r"sampling\.text is 0\.7, expected a mapping"),
    "sampling key": ({"sampling": {"text": {"temprature": 1}}}, r"sampling\.text has no temprature: expected temperature"),
    "temperature": ({"sampling": {"speech": {"temperature": -1}}}, "temperature is -1, expected 0, or a number from"),
    "seed": ({"seed": -1}, "seed is -1, expected a whole number from 0"),
    "seed as text": ({"seed": "five"}, "seed is 'five', expected a whole number"),
}


@pytest.mark.parametrize("options, message", OPTIONS.values(), ids=OPTIONS)
def test_an_option_that_is_refused_takes_no_slot(model, options, message):
    engine = model.open_engine(max_sessions=1)
    with pytest.raises(InputError, match=message) as refusal:
        engine.open_session(**options)
    assert "\n" not in str(refusal.value) and len(engine) == 0
    engine.open_session().close()


@pytest.mark.parametrize("end, word", [("flush", "flushed"), ("close", "closed")])
def test_an_ended_session_takes_nothing_any_more(model, end, word):
    """And its slot is the next caller's."""
    engine = model.open_engine(max_sessions=1)
    session = engine.open_session()
    session.push(SIGNAL)
    getattr(session, end)()
    for name, *value in (("push", SIGNAL[:10]), ("flush",), ("stop",), ("start",), ("say", "six"), ("mute", True)):
        with pytest.raises(InputError, match=f"This session was {word}. Open another one with open_session"):
            getattr(session, name)(*value)
    engine.run_until_idle()
    assert session.over and len(engine) == 0
    assert bool(session.transcript.agent) == (word == "flushed")
    session.close()
    session.close()
    other = engine.open_session()
    other.push(SIGNAL)
    other.flush()
    assert_is(engine.run_until_idle()[other], offline(model, SIGNAL))


# ---------------------------------------------------------------------- what is taken


def test_any_memory_of_float32_is_heard(model):
    """Empty, read-only, every other sample, backwards, a tensor with a gradient; and buffers that are used again."""
    engine = model.open_engine(max_sessions=1)
    session = engine.open_session()
    readonly = SIGNAL[:5000].copy()
    readonly.flags.writeable = False
    strided, backwards = np.repeat(SIGNAL[5000:9000], 2)[::2], SIGNAL[9000:12000][::-1].copy()[::-1]
    assert not strided.flags.c_contiguous and not backwards.flags.c_contiguous
    session.push(np.zeros(0, np.float32))
    for part in (readonly, strided, backwards):
        session.push(part)
    session.push(torch.repeat_interleave(torch.from_numpy(SIGNAL[12000:16000]), 2)[::2])
    session.push(torch.from_numpy(SIGNAL[16000:18000]).requires_grad_())
    buffer = np.empty(1000, np.float32)
    for start in range(18000, len(SIGNAL), 1000):
        part = buffer[: len(SIGNAL[start : start + 1000])]
        part[:] = SIGNAL[start : start + 1000]
        session.push(part)
        buffer.fill(9.0)
    session.push(torch.zeros(0))
    session.flush()
    assert_is(engine.run_until_idle()[session], offline(model, SIGNAL))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no other device here")
def test_a_tensor_of_another_device_is_heard(model):
    session = model.open_session()
    frames = session.push(torch.from_numpy(SIGNAL).cuda())
    assert_is(frames + session.flush(), offline(model, SIGNAL))


def resampled(samples, rate):
    resampler = StreamResampler(rate, 16000)
    return np.concatenate([resampler.push(samples), resampler.flush()])


@pytest.mark.parametrize("rate", [8000, 24000, 44100, 48000])
def test_a_caller_of_another_rate_is_heard_as_the_whole_resampled(model, rate):
    signal = soxr.resample(speech_like(2.1, seed=5).numpy(), 16000, rate)
    whole = offline(model, resampled(signal, rate))
    for chunk in (rate // 50, 777):
        session, frames = model.open_session(sample_rate=rate), []
        for start in range(0, len(signal), chunk):
            frames += session.push(signal[start : start + chunk])
        assert len(frames) >= (len(signal) / rate - 0.17) // 0.08 - 1, "An answer must not wait for the resampler."
        assert_is(frames + session.flush(), whole)


# ---------------------------------------------------------------------- threads


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("end", ["flush", "close"])
def test_a_session_ends_once_while_another_thread_pushes(model, rate, end):
    """Each push is heard as a whole or refused, and what was heard is resampled to its end: 20 races per case."""
    for seed in range(20):
        engine = model.open_engine(max_sessions=1)
        session, refused, taken = engine.open_session(sample_rate=rate), [], []

        def push(session=session, refused=refused, taken=taken):
            for start in range(0, len(SIGNAL), 700):
                try:
                    session.push(SIGNAL[start : start + 700])
                    taken.append(SIGNAL[start : start + 700])
                except InputError as error:
                    refused.append(str(error))

        thread = threading.Thread(target=push)
        thread.start()
        for _ in range(seed):
            engine.step()
        getattr(session, end)()
        thread.join()
        assert all(f"This session was {end}" in message for message in refused)
        frames = engine.run_until_idle().get(session, [])
        assert session.over and len(engine) == 0
        if end == "flush" and taken:
            heard = np.concatenate(taken)
            heard = heard if rate == 16000 else resampled(heard, rate)
            assert session._index == -(-len(heard) // 1280), "A frame was lost, or made of nothing."
            assert not frames or frames[-1].index == session._index - 1


def test_a_slot_is_not_given_away_before_its_last_frame(model):
    """Another thread asks for slots all the time while encoder chunks of two frames are answered one by one."""
    engine, stop, stolen = model.open_engine(max_sessions=1), threading.Event(), []

    def steal():
        while not stop.is_set():
            try:
                stolen.append(engine.open_session())
            except InputError:
                continue
            stolen[-1].close()

    session = engine.open_session()
    thread = threading.Thread(target=steal)
    thread.start()
    try:
        for _ in range(4):
            session.push(SIGNAL)
            session.flush()
            frames = []
            while not session.over:
                frames += engine.step().get(session, [])
            assert [f.index for f in frames] == list(range(17))
            session = None
            while session is None:
                try:
                    session = engine.open_session()
                except InputError:
                    continue
    finally:
        stop.set()
        thread.join()
