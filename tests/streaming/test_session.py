"""What a session says equals offline inference, whatever the chunks; what cannot be used is refused and changes nothing."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import soxr
import torch

from nemo_duplex.channels.transcript import Transcript
from nemo_duplex.frames import FRAME_RATE
from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.resampler import StreamResampler
from nemo_duplex.streaming.rows import AgentRows
from nemo_duplex.streaming.session import _checked
from nemo_duplex.user_activity.detector import HANGOVER, UserActivity, listen
from tests.dummies import speech_like, voice_like

CHUNKS = {"1 frame": [1280], "odd": [1, 7, 1279, 333, 2048], "10 s": [160000], "20 ms": [320]}


def offline(model, *signals):
    lens = torch.tensor([len(s) for s in signals])
    return model.offline_inference(torch.nn.utils.rnn.pad_sequence(list(signals), batch_first=True), lens)


def stream(model, signal, chunks):
    session, frames, start, i = model.open_session(), [], 0, 0
    while start < len(signal):
        size = chunks[i % len(chunks)]
        frames += session.push(signal[start : start + size].numpy())
        start, i = start + size, i + 1
    return frames + session.flush(), session


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_a_session_equals_offline_inference(model, chunks):
    signal = speech_like(9.5)[: 9 * 16000 + 4321]  # past the attention window, and no whole number of frames
    whole = offline(model, signal)
    frames, _ = stream(model, signal, chunks)
    assert [f.index for f in frames] == list(range(int(whole["tokens_len"][0])))
    assert [f.token for f in frames] == whole["tokens_text"][0].tolist()
    assert np.array_equal(np.stack([f.codes for f in frames]), whole["tokens_audio"][0].numpy())
    assert np.abs(np.concatenate([f.audio for f in frames]) - whole["audio"][0].numpy()).max() < 1e-4
    assert (whole["tokens_audio"] < model.layout.codebook_size).any(), "A silent model would prove nothing."
    assert whole["tokens_text"].unique().numel() > 3


def test_offline_rows_do_not_depend_on_each_other(model):
    signals = [speech_like(s, seed) for seed, s in enumerate((3.0, 5.13, 0.04))]
    together = offline(model, *signals)
    for i, signal in enumerate(signals):
        alone = offline(model, signal)
        frames = int(alone["tokens_len"][0])
        assert int(together["tokens_len"][i]) == frames == -(-len(signal) // 1280)
        assert torch.equal(together["tokens_text"][i, :frames], alone["tokens_text"][0])
        assert torch.equal(together["tokens_audio"][i, :frames], alone["tokens_audio"][0])
        samples = int(alone["audio_len"][0])
        assert int(together["audio_len"][i]) == samples == frames * 1764
        assert (together["audio"][i, :samples] - alone["audio"][0]).abs().max() < 1e-4
        assert together["text"][i] == alone["text"][0]


def test_two_sessions_do_not_disturb_each_other(model):
    first, second = speech_like(3, seed=1), speech_like(3, seed=2)
    a, b = model.open_session(), model.open_session()
    heard = {"a": [], "b": []}
    for start in range(0, 48000, 1600):
        heard["a"] += a.push(first[start : start + 1600].numpy())
        heard["b"] += b.push(second[start : start + 1600].numpy())
    for name, signal, session in (("a", first, a), ("b", second, b)):
        tokens = [f.token for f in heard[name] + session.flush()]
        assert tokens == offline(model, signal)["tokens_text"][0].tolist()


def test_the_text_of_the_frames_is_the_text_of_the_transcript(model):
    frames, session = stream(model, speech_like(8), [1280])
    turns = session.transcript.agent
    assert turns, "A silent model would prove nothing."
    assert "".join(f.text for f in frames).replace(" ", "") == "".join(t.text for t in turns).replace(" ", "")
    again = Transcript(model.layout, model.tokenizer, model.perception.frame_rate)
    assert [again.add(f.index, f.token) for f in frames] == [f.text for f in frames]
    assert turns == again.conversation(len(frames)).agent, "at the times of the frames"
    assert all(turn.end <= session.transcript.duration for turn in turns)


def test_silence_is_a_session_too(model):
    session = model.open_session()
    assert session.flush() == [] and session.transcript.duration == 0


def test_bad_pushes_are_refused_in_one_line(model):
    session = model.open_session()
    with pytest.raises(InputError, match=r"float32 samples of shape \(S,\), got int16 of shape .10,.. Convert it"):
        session.push(np.zeros(10, np.int16))
    with pytest.raises(InputError, match=r"shape \(2, 10\)"):
        session.push(np.zeros((2, 10), np.float32))
    with pytest.raises(InputError, match="not finite"):
        session.push(np.array([0.0, np.nan], np.float32))
    session.push(np.zeros(10, np.float32))
    session.flush()
    with pytest.raises(InputError, match="flushed"):
        session.push(np.zeros(10, np.float32))
    session.close()
    session.close()
    with pytest.raises(InputError, match="closed"):
        session.flush()


class Bytes:
    """A tokenizer of one id per byte, as byte-level BPE has them for what it rarely saw."""

    def ids_to_text(self, ids):
        return bytes(ids).decode(errors="replace")


def test_a_character_is_shown_when_all_of_it_is_there():
    layout = SimpleNamespace(text_bos=1, text_eos=2, text_pad=0, text_lead=2, text_tail=1, speech_delay=1)
    model = SimpleNamespace(layout=layout, tokenizer=Bytes(), perception=SimpleNamespace(frame_rate=FRAME_RATE))
    transcript = Transcript(model.layout, model.tokenizer, model.perception.frame_rate)
    tokens = [1, *"né😀".encode(), 0, ord("!"), 0xC3, 2, ord("o"), 0xC3]
    shown = [transcript.add(i, token) for i, token in enumerate(tokens)]
    assert shown == ["", "n", "", "é", "", "", "", "😀", "", "!", "", "\ufffd", "o", ""]
    assert [turn.text for turn in transcript.conversation(len(tokens)).agent] == ["né😀!\ufffd", "o\ufffd"]


SIGNAL = speech_like(1.3, seed=3).numpy()


FULL = np.array([0.5, -1.0, 0.25] * 1000, np.float32)
PCM = (FULL * 32768).astype(np.int16)


@pytest.mark.parametrize(
    "audio",
    [
        PCM,
        torch.from_numpy(PCM),
        PCM.astype(np.int32) * 65536,
        ((FULL + 1) * 128).astype(np.uint8),
        FULL.astype(np.float64),
        FULL.astype(">f4"),
        torch.from_numpy(FULL).bfloat16(),
        FULL.tolist(),
        tuple(FULL.tolist()),
        PCM.tobytes(),
        bytearray(PCM.tobytes()),
    ],
    ids=lambda audio: str(getattr(audio, "dtype", type(audio).__name__)),
)
def test_what_the_error_says_makes_samples_that_a_session_takes(audio):
    with pytest.raises(InputError, match="Convert it: ") as error:
        _checked(audio)
    converted = eval(str(error.value).rpartition("Convert it: ")[2].removesuffix("."), {"np": np, "audio": audio})
    assert _checked(converted).tolist() == FULL.tolist()


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_what_scales_samples_is_said_for_every_depth(bits):
    loud = FULL * 2.0 ** (bits - 1)
    with pytest.raises(InputError, match=f"{bits}-bit (samples|ones) by {2 ** (bits - 1)}[,.]"):
        _checked(loud)
    assert _checked(loud / 2.0 ** (bits - 1)).tolist() == FULL.tolist()


def test_channels_are_sent_one_at_a_time():
    with pytest.raises(InputError, match="one dimension, instead of 2"):
        _checked(np.stack([FULL, FULL]))
    assert _checked(np.stack([FULL, FULL])[0]).tolist() == FULL.tolist()


def assert_is(frames, whole):
    assert [f.token for f in frames] == whole["tokens_text"][0].tolist()
    assert np.array_equal(np.stack([f.codes for f in frames]), whole["tokens_audio"][0].numpy())
    assert np.abs(np.concatenate([f.audio for f in frames]) - whole["audio"][0].numpy()).max() < 1e-4


# ---------------------------------------------------------------------- what is refused

PUSHES = {
    "NaN": (np.array([0.0, np.nan], np.float32), "not finite"),
    "infinite": (np.array([0.0, -np.inf], np.float32), "not finite"),
    "int16": (np.zeros(9, np.int16), r"got int16 of shape \(9,\)\. Convert it: .* / 32768\."),
    "int16 tensor": (torch.zeros(9, dtype=torch.int16), r"got torch\.int16 of shape \(9,\)\. Convert it: .* / 32768\."),
    "int16 as float": (np.array([12000.0], np.float32), r"in -1\.\.1, got one of 1\.2e\+04\. Scale them: divide"),
    "float64": (np.zeros(9), r"got float64 of shape \(9,\)\. Convert it: audio\.astype\(np\.float32\)\.$"),
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
        assert_is(heard[session], offline(model, torch.from_numpy(SIGNAL)))


def test_a_refused_push_does_not_reach_the_resampler(model):
    engine = model.open_engine(max_sessions=1)
    session = engine.open_session(sample_rate=8000)
    session.push(SIGNAL[:5000])
    with pytest.raises(InputError, match="not finite"):
        session.push(np.array([0.0, np.nan], np.float32))
    session.push(SIGNAL[5000:])
    session.flush()
    assert_is(engine.run_until_idle()[session], offline(model, torch.from_numpy(resampled(SIGNAL, 8000))))


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
    assert_is(engine.run_until_idle()[other], offline(model, torch.from_numpy(SIGNAL)))


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
    assert_is(engine.run_until_idle()[session], offline(model, torch.from_numpy(SIGNAL)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no other device here")
def test_a_tensor_of_another_device_is_heard(model):
    session = model.open_session()
    frames = session.push(torch.from_numpy(SIGNAL).cuda())
    assert_is(frames + session.flush(), offline(model, torch.from_numpy(SIGNAL)))


def test_audio_over_full_scale_is_taken_up_to_what_was_never_scaled(model):
    session = model.open_session()
    session.push(np.array([99.0, -100.0], np.float32))
    for loud in (101.0, -101.0):
        with pytest.raises(InputError, match="got one of 101"):
            session.push(np.array([0.0, loud], np.float32))


def test_an_error_in_a_session_of_its_own_reaches_its_caller(model):
    session = model.open_session()
    session._transcript = SimpleNamespace(add=lambda index, token: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        session.push(SIGNAL)
    with pytest.raises(InputError, match="ended by an error"):
        session.push(SIGNAL)


def resampled(samples, rate):
    resampler = StreamResampler(rate, 16000)
    return np.concatenate([resampler.push(samples), resampler.flush()])


@pytest.mark.parametrize("rate", [8000, 24000, 44100, 48000])
def test_a_caller_of_another_rate_is_heard_as_the_whole_resampled(model, rate):
    signal = soxr.resample(speech_like(2.1, seed=5).numpy(), 16000, rate)
    whole = offline(model, torch.from_numpy(resampled(signal, rate)))
    for chunk in (rate // 50, 777):
        session, frames = model.open_session(sample_rate=rate), []
        for start in range(0, len(signal), chunk):
            frames += session.push(signal[start : start + chunk])
        assert len(frames) >= (len(signal) / rate - 0.17) // 0.08 - 1, "An answer must not wait for the resampler."
        assert_is(frames + session.flush(), whole)


@pytest.mark.parametrize("rate", [8000, 24000, 48000])
def test_the_last_milliseconds_of_another_rate_are_a_frame_of_their_own(model, rate):
    """10 samples at 16 kHz more than two frames: fewer than the resampler holds back."""
    session = model.open_session(sample_rate=rate)
    frames = session.push(speech_like(0.3, 1, rate).numpy()[: (2 * 1280 + 10) * rate // 16000])
    assert len(frames + session.flush()) == 3


def test_the_user_is_heard_speaking_at_any_rate(model):
    quiet = np.zeros(24000, np.float32)
    signal = np.concatenate([quiet, voice_like(1.0, 2, 48000).numpy(), quiet, quiet])
    active = []
    for rate, heard in ((48000, signal), (16000, resampled(signal, 48000))):
        session = model.open_session(sample_rate=rate)
        active.append([frame.user_active for frame in session.push(heard) + session.flush()])
    assert active[0] == active[1] and 12 < sum(active[0]) < 18


def speaks_twice() -> torch.Tensor:
    silence = torch.zeros(14321)
    return torch.cat([silence, voice_like(0.7, 1), silence, 0.05 * voice_like(0.5, 2), silence])


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_a_frame_knows_of_the_user_what_the_encoder_has_heard(model, chunks):
    """Up to the end of the frame, or of its encoder chunk if that is earlier; from where the frame before stopped."""
    signal, perception = speaks_twice(), model.perception
    frames, _ = stream(model, signal, chunks)
    user, expected = UserActivity(16000), []
    user.push(signal.numpy())
    listen([user])
    for index in range(len(frames)):
        chunk_end = (index // perception.chunk_frames + 1) * perception.chunk_samples - perception.lead_samples
        expected.append(user.spoke(min((index + 1) * 1280, chunk_end, len(signal))))
    assert [frame.user_active for frame in frames] == expected
    assert np.count_nonzero(np.diff(expected)) == 4, "Silence, speech, silence, speech, silence."


def test_who_speaks_is_known_before_the_encoder_chunk_is_whole(model):
    """A voice from 1.0 s on, in pushes of 20 ms: known within 150 ms, whatever the frames wait for."""
    session, known = model.open_session(), None
    signal = torch.cat([torch.zeros(16000), voice_like(0.4, 3), torch.zeros(12800)]).numpy()
    frames = []
    for start in range(0, len(signal), 320):
        frames += session.push(signal[start : start + 320])
        if known is None and session.user_activity.active:
            known = (start + 320) / 16000
    assert known is not None and 1.0 < known <= 1.15 and not session.user_activity.active
    assert known - 0.02 < next(f.index for f in frames if f.user_active) * 0.08 + 0.0925 + 0.08
    ended = session.user_activity.since
    assert 1.4 + HANGOVER - 0.1 < ended < 1.4 + HANGOVER + 0.15 and frames[-1].user_active is False


def test_a_long_recording_keeps_nobody_waiting(model):
    """A step listens to as much of each caller as its encoder takes, and a frame more."""
    engine, heard = model.open_engine(max_sessions=2), []
    one, other = engine.open_session(), engine.open_session()
    one.push(np.zeros(160000, np.float32))
    other.push(np.zeros(160, np.float32))
    for _ in range(3):
        engine.step()
        heard.append(one.user_activity.hops)
    limit = (model.perception.chunk_samples + 1280) // 256
    assert heard[0] == limit and heard[2] <= 3 * limit and other.user_activity.hops == 0


def test_what_is_told_of_a_user_does_not_depend_on_the_others(model):
    alone, _ = stream(model, speaks_twice(), [1280])
    engine = model.open_engine(max_sessions=3)
    sessions = [engine.open_session() for _ in range(3)]
    for session, signal in zip(sessions, (speech_like(3.0), speaks_twice(), voice_like(2.0))):
        session.push(signal.numpy())
        session.flush()
    answers = engine.run_until_idle()
    assert [f.user_active for f in answers[sessions[1]]] == [f.user_active for f in alone]
    assert any(f.user_active for f in answers[sessions[2]])


# ---------------------------------------------------------------------- threads


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("end", ["flush", "close"])
def test_a_session_ends_once_while_another_thread_pushes(model, rate, end):
    """Each push is heard as a whole or refused, and what was heard is resampled to its end: 8 races per case."""
    for seed in range(0, 16, 2):
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


@pytest.mark.parametrize("stage", ["hear", "think", "speak"])
def test_a_slot_is_not_given_away_before_its_last_frame(model, monkeypatch, stage):
    """Somebody asks for a slot in the middle of every frame; encoder chunks have two frames, which are answered one by one."""
    engine, run, asked = model.open_engine(max_sessions=1), getattr(AgentRows, stage), []

    def asked_meanwhile(*arguments):
        with pytest.raises(InputError, match="No free slot"):
            engine.open_session()
        asked.append(len(engine))
        return run(*arguments)

    monkeypatch.setattr(AgentRows, stage, asked_meanwhile)
    session = engine.open_session()
    session.push(SIGNAL)
    session.flush()
    assert [frame.index for frame in engine.run_until_idle()[session]] == list(range(17))
    assert asked == [1] * (9 if stage == "hear" else 17) and session.over
    engine.open_session()


def test_a_slot_is_taken_as_soon_as_it_is_free_while_another_thread_steps(model):
    engine, done, heard = model.open_engine(max_sessions=1), threading.Event(), []

    def step():
        while not done.wait(0.001):
            for frames in engine.step().values():
                heard.extend(frame.index for frame in frames)

    thread = threading.Thread(target=step)
    thread.start()
    try:
        for _ in range(3):
            deadline = time.monotonic() + 20
            session = engine.open_session()
            session.push(SIGNAL[:5000])
            session.flush()
            while not session.over:
                assert time.monotonic() < deadline
                time.sleep(0.001)
    finally:
        done.set()
        thread.join()
    assert heard == 3 * [0, 1, 2, 3]
