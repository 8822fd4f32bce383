"""What callers say and hear, and what they are to hear: shared by the tests of the engine."""

from types import SimpleNamespace

import numpy as np
import torch

# Lengths in samples: less than a frame, on an edge, past one, the half window (200) that an encoder chunk hears ahead.
LENGTHS = (1, 200, 201, 1280, 1281, 2560, 5321, 9999, 12800, 16161, 19200, 23457)


def expected(model, signals):
    """Each signal, with what offline inference makes of it."""
    lens = torch.tensor([len(s) for s in signals])
    whole = model.offline_inference(torch.nn.utils.rnn.pad_sequence(signals, batch_first=True), lens)
    return [
        SimpleNamespace(
            signal=signal.numpy(),
            tokens=whole["tokens_text"][i, : whole["tokens_len"][i]].tolist(),
            codes=whole["tokens_audio"][i, : whole["tokens_len"][i]].numpy(),
            audio=whole["audio"][i, : whole["audio_len"][i]].numpy(),
        )
        for i, signal in enumerate(signals)
    ]


def assert_begins(frames, call, whole=True):
    """The frames are those of the call, all of them or the first."""
    count = len(frames)
    assert [f.index for f in frames] == list(range(count))
    assert [f.token for f in frames] == call.tokens[:count]
    if frames:
        assert np.array_equal(np.stack([f.codes for f in frames]), call.codes[:count])
        audio = np.concatenate([f.audio for f in frames])
        assert np.abs(audio - call.audio[: len(audio)]).max() < 1e-4
    assert count == len(call.tokens) if whole else count <= len(call.tokens)


def alone(model, signal, commands, **options):
    """What a caller gets in an engine of its own; its `commands` {frame: [(method, argument)]} come before that frame."""
    engine, frames, commands = model.open_engine(max_sessions=1), [], dict(commands)
    session = engine.open_session(**options)
    session.push(signal)
    for end in (False, True):
        if end:
            session.flush()
        while True:
            for command, *value in commands.pop(len(frames), []):
                getattr(session, command)(*value)
            answer = engine.step().get(session)
            if not answer:
                break
            frames += answer
    return SimpleNamespace(
        signal=signal,
        frames=frames,
        tokens=[f.token for f in frames],
        codes=np.stack([f.codes for f in frames]),
        audio=np.concatenate([f.audio for f in frames]),
    )
