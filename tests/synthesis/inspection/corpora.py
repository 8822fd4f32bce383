"""Small corpora whose every sample and time is known, written as Shar, and ways to change them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from lhotse import MonoCut, Recording, fastcopy
from lhotse.array import Array, TemporalArray
from lhotse.shar.utils import to_shar_placeholder

from nemo_duplex.synthesis.cuts import DialogueCuts
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec
from nemo_duplex.synthesis.mix import Acoustics
from nemo_duplex.synthesis.text.grammar import Grammar
from nemo_duplex.synthesis.timing import Rhythm
from tests.synthesis.tones import cast_of

CLEAN = Acoustics(noise=0.0, room=0.0, leak=0.0, level_db=(-26.0, -26.0))
Cuts = list[MonoCut]
_FIELDS = {"target_audio", "target_codes"}


def dialogues(set_name: str, count: int = 4, acoustics: Acoustics = CLEAN) -> Cuts:
    """Dialogues of the grammar, hummed, with barge-ins; copies that a test may change."""
    return [copy(cut) for cut in _dialogues(set_name, count, acoustics)]


@lru_cache(maxsize=4)
def _dialogues(set_name: str, count: int, acoustics: Acoustics) -> tuple[MonoCut, ...]:
    spec = DialogueSpec(seed=3, quiet=0.0, acoustics=acoustics, rhythm=Rhythm(barge_in=0.7))
    cuts = DialogueCuts(spec, Grammar(), cast_of())
    return tuple(cuts.cut(set_name, index) for index in range(count))


def corpus(folder: Path, change: Callable[[Cuts], object] = lambda cuts: None, sets: Mapping[str, Cuts] | None = None) -> Path:
    """Writes train and dev; `change` is given dev's cuts, and may return others."""
    folder.mkdir(exist_ok=True)
    (folder / "corpus.json").write_text(json.dumps({"spec": {"dialogues": {"rhythm": {"stop_delay": 0.64}}}}))
    for name, cuts in (sets or {"train": dialogues("train"), "dev": dialogues("dev")}).items():
        changed = change(cuts) if name == "dev" else None
        write(folder / name / "shar", changed or cuts)
    return folder


def copy(cut: MonoCut) -> MonoCut:
    supervisions = [fastcopy(s, custom=dict(s.custom or {})) for s in cut.supervisions]
    return fastcopy(cut, supervisions=supervisions, custom=dict(cut.custom or {}))


def write(folder: Path, cuts: Cuts, shard_size: int = 3) -> None:
    """As SharWriter, which would pad and cut what does not fit its manifest: here faults are written as they are."""
    folder.mkdir(parents=True)
    for number, first in enumerate(range(0, len(cuts), shard_size)):
        shard = cuts[first : first + shard_size]
        with gzip.open(folder / f"cuts.{number:06d}.jsonl.gz", "wt", encoding="utf-8") as manifest:
            for cut in shard:
                custom = cut.custom or {}
                held = {name: to_shar_placeholder(custom[name]) for name in _FIELDS & set(custom)}
                bare = fastcopy(cut, recording=to_shar_placeholder(cut.recording), custom=custom | held)
                manifest.write(json.dumps(bare.to_dict()) + "\n")
        for field in sorted({"recording"} | _FIELDS & set(shard[0].custom or {})):
            with tarfile.open(folder / f"{field}.{number:06d}.tar", "w") as tar:
                for cut in shard:
                    held = cut.recording if field == "recording" else cut.custom[field]
                    if isinstance(held, Recording):
                        member(tar, f"{cut.id}.wav", held.sources[0].source)
                        member(tar, f"{cut.id}.json", json.dumps(to_shar_placeholder(held).to_dict()).encode())
                    else:
                        member(tar, f"{cut.id}.npy", held.array.storage_key)
                        member(tar, f"{cut.id}.json", json.dumps(to_shar_placeholder(held).to_dict()).encode())


def member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


def heard(cut: MonoCut, speaker: str, change: Callable[[np.ndarray], np.ndarray], rate: int | None = None) -> None:
    """Replaces a channel of a cut by what `change` makes of it."""
    field = "recording" if speaker == "user" else "target_audio"
    old = getattr(cut, field)
    samples = change((cut.load_audio() if speaker == "user" else cut.load_target_audio())[0].copy())
    file = io.BytesIO()
    soundfile.write(file, samples, rate or old.sampling_rate, format="WAV", subtype="FLOAT")
    new = Recording.from_bytes(file.getvalue(), old.id)
    if speaker == "user":
        cut.recording = new
    else:
        cut.custom["target_audio"] = new


def add_codes(cut: MonoCut, values: np.ndarray) -> None:
    """Gives a cut (T, K) codes of the agent."""
    file = io.BytesIO()
    np.save(file, values)
    array = Array("memory_npy", "", file.getvalue(), list(values.shape))
    cut.custom["target_codes"] = TemporalArray(array, temporal_dim=0, frame_shift=0.08, start=0)


def turns(cut: MonoCut, speaker: str):
    return [s for s in cut.supervisions if s.speaker == speaker]


def barge_in(cuts: Cuts):
    """(cut, user turn, agent turn) of the first barge-in that cuts an answer."""
    for cut in cuts:
        for s in turns(cut, "user"):
            if s.custom.get("barge_in"):
                for a in turns(cut, "agent"):
                    if a.start < s.start < a.end + 1e-3 and "cut" in a.custom:
                        return cut, s, a
    raise AssertionError("no barge-in")
