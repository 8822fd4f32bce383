"""A small two-channel corpus whose audio and codes tell their time, so that every frame can be checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from lhotse import CutSet, MonoCut, Recording, RecordingSet

from nemo_duplex.conversation import Conversation, Turn, Word
from tests.dummies import wav_bytes

USER, AGENT = 0.1, 0.5  # levels at the start of the channels; both rise by 0.01 per second
WORDS = (Word("the", 0, 1.44, 1.8), Word("answer", 4, 1.8, 2.4))
#: The user in frames 2 to 9, the agent in frames 18 to 29.
TURNS = (Turn("user", 0.16, 0.8, "question"), Turn("agent", 1.44, 2.4, "the answer", words=WORDS))
FIELDS = {"recording": "wav", "target_audio": "wav", "target_codes": "numpy"}


def ramp(seconds: float, rate: int, level: float) -> np.ndarray:
    return (level + np.arange(round(seconds * rate)) / rate / 100).astype(np.float32)


def cut(name: str, seconds: float = 3.2, turns: tuple[Turn, ...] = TURNS) -> MonoCut:
    """A conversation with the codes (t + 1, t + 101) in frame t."""
    user, agent = (
        Recording.from_bytes(wav_bytes(ramp(seconds, rate, level), rate), f"{name}-{level}")
        for rate, level in ((16000, USER), (22050, AGENT))
    )
    supervisions = Conversation(name, seconds, turns).to_supervisions()
    made = MonoCut(name, 0, seconds, 0, recording=user, supervisions=supervisions)
    made.target_audio = agent
    frames = np.arange(1, round(seconds / 0.08) + 1)
    codes = np.stack([frames, frames + 100], axis=1).astype(np.int16)
    return made.attach_tensor("target_codes", codes, frame_shift=0.08, temporal_dim=0)


def write(folder: Path, *cuts: MonoCut, fields: tuple[str, ...] = tuple(FIELDS), shard_size: int = 2) -> Path:
    """A Shar folder with these fields of the cuts; the others stay named in its manifest, as where shards are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    CutSet.from_cuts(cuts).to_shar(folder, fields=FIELDS, shard_size=shard_size)
    for field in set(FIELDS) - set(fields):
        for shard in folder.glob(f"{field}.*"):
            shard.unlink()
    return folder


def write_noise(folder: Path) -> Path:
    """A manifest of 9 s of noise."""
    soundfile.write(folder / "noise.wav", np.random.default_rng(0).normal(0, 0.05, 9 * 16000), 16000)
    recording = Recording.from_file(folder / "noise.wav", recording_id="noise")
    CutSet.from_cuts([recording.to_cut()]).to_file(folder / "noise.jsonl")
    return folder / "noise.jsonl"


def write_room(folder: Path) -> Path:
    """A manifest of an impulse response: the direct sound, and half of it 0.1 s later."""
    response = np.zeros(3200, np.float32)
    response[0], response[1600] = 0.8, 0.4
    soundfile.write(folder / "room.wav", response, 16000)
    recording = Recording.from_file(folder / "room.wav", recording_id="room")
    RecordingSet.from_recordings([recording]).to_file(folder / "rooms.jsonl")
    return folder / "rooms.jsonl"
