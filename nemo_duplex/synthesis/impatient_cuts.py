"""The Impatient set of any two-channel corpus: of each silence between user turns half is left (paper, section 5.2).

    source      |-- question --|   answer (agent)    |-- next --|
    silence                     <- a -><removed><- b ->
    impatient   |-- question --|       |-- next --|                 a = b = a quarter of the silence

The user's channel is cut in the middle of each silence, so turns keep their samples, with what is heard around them. The
agent's channel is silent, because a model answers; what it should say is in `references`, as in `timing.impatient`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import MonoCut
from lhotse.cut import Cut

from nemo_duplex.conversation import Conversation, Speaker, Turn, holds
from nemo_duplex.files.atomic import require_space, sha256, whole_file
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.frames import AGENT_SAMPLE_RATE, FRAME_RATE, Seconds
from nemo_duplex.inputs import InputError, existing_folder, one_line
from nemo_duplex.synthesis.cuts import two_channel_cut
from nemo_duplex.synthesis.executors import run_locally
from nemo_duplex.synthesis.inspection.sets import SetShard, summary_of
from nemo_duplex.synthesis.opened_corpus import FORMAT
from nemo_duplex.synthesis.shards import Shard, begin, clear, markers_of, require_slices_stay
from nemo_duplex.synthesis.timing import LAST_ANSWER, Rhythm, moved

_FADE: Seconds = 0.010  # over which the two sides of a removed silence are mixed
_AFTER_SPEECH: Seconds = 0.2  # of the last turn: its echo is not repeated
_SPEAKERS: dict[str, Speaker] = {"user": "user", "agent": "agent", "assistant": "agent", "system": "agent"}


@dataclass(frozen=True)
class _Silences:
    """What is taken out of a channel: (first sample, samples, samples of silence kept before it) of each piece, in order."""

    pieces: tuple[tuple[int, int, int], ...]
    sample_rate: int

    def at(self, time: Seconds) -> Seconds:
        """Where a time of the source is then; one inside of a piece is where the piece was."""
        sample, by = time * self.sample_rate, 0.0
        for first, count, _ in self.pieces:
            by += min(max(sample - first, 0), count)
        return time - by / self.sample_rate

    def taken_out_of(self, audio: np.ndarray) -> np.ndarray:
        """(S,) without the pieces."""
        fade = round(_FADE * self.sample_rate)
        kept, last = [], 0
        for first, count, silent in self.pieces:
            before = audio[last:first].copy()
            width = min(fade, silent, count)
            ramp = np.linspace(0.0, 1.0, width, dtype=np.float32)
            before[len(before) - width :] *= 1 - ramp
            before[len(before) - width :] += ramp * audio[first + count - width : first + count]
            kept.append(before)
            last = first + count
        return np.concatenate([*kept, audio[last:]])


def impatient_cut(cut: Cut, rhythm: Rhythm) -> MonoCut | None:
    """The Impatient form of a cut; None if its user says nothing.

    Args:
        cut: with a `recording` of the user and supervisions of `user` and `agent` (or `assistant`, or `system`), in any case of
            letters.
        rhythm: its `impatient` is the part of the silences that is left; its response gap and tail are used.

    Raises:
        InputError: with the cut's id, if it has other speakers, or its recording cannot be read.
    """
    names = {s.speaker: _SPEAKERS[s.speaker.lower()] for s in cut.supervisions if str(s.speaker).lower() in _SPEAKERS}
    source = Conversation.from_cut(cut, names or None)
    if not source.user:
        return None
    rate = cut.recording.sampling_rate
    silences = _silences(source, rhythm.impatient, rate)
    users, references, interrupts = [], [], []
    expected = (0.0, 0.0)
    for number, turn in enumerate(source.user):
        answers = _answers(source, number)
        start = silences.at(turn.start)
        events = {}
        if number:
            last = max(t.end for t in source.user[:number])
            events = {"silence": round(start - silences.at(last), 4), "source_silence": round(turn.start - last, 4)}
        user = moved(turn, start - turn.start, events)
        users.append(replace(user, custom={k: v for k, v in user.custom.items() if k not in ("gap", "barge_in")}))
        references.append([" ".join(answer.full_text or answer.text for answer in answers)])
        interrupts.append(expected[0] < user.start < expected[1])
        begin = FRAME_RATE.time(FRAME_RATE.nearest(user.end + rhythm.response_gap))
        expected = (begin, begin + sum(t.custom.get("whole_duration", t.duration) for t in answers))
    frames = FRAME_RATE.count(max(users[-1].end + LAST_ANSWER, expected[1] + rhythm.tail))
    custom = {key: value for key, value in source.custom.items() if key not in ("target_audio", "target_codes")}
    custom |= {"source": cut.id, "factor": rhythm.impatient, "interrupts": interrupts, "references": references}
    if "events" in custom:
        custom["events"] = _moved_events(custom["events"], silences, FRAME_RATE.time(frames))
    made = Conversation(f"{cut.id}-impatient", FRAME_RATE.time(frames), tuple(users), custom)
    audio = silences.taken_out_of(_user_audio(cut))
    speech_end = max(turn.end for turn in users) + _AFTER_SPEECH
    user_audio = _as_long_as(audio, FRAME_RATE.samples(frames, rate), round(speech_end * rate))
    agent_rate = getattr((cut.custom or {}).get("target_audio"), "sampling_rate", AGENT_SAMPLE_RATE)
    agent_audio = np.zeros(FRAME_RATE.samples(frames, agent_rate), dtype=np.float32)
    return two_channel_cut(made, user_audio, agent_audio, rate, agent_rate)


def _user_audio(cut: Cut) -> np.ndarray:
    """(S,) of the user."""
    try:
        return cut.load_audio()[0]
    except Exception as error:  # lhotse, soundfile and the file system each raise their own
        raise InputError(f"Cut {cut.id}: its recording cannot be read ({one_line(error)}). Copy or write it again.") from error


def write_impatient(
    source: Path,
    out: Path,
    rhythm: Rhythm,
    workers: int | None = 1,
    slice: tuple[int, int] = (0, 1),
    overwrite: bool = False,
    check_hashes: bool = True,
) -> dict[str, Any] | None:
    """Writes the Impatient set of the cuts in a folder, shard by shard, or what is missing of it.

    Args:
        source: Lhotse Shar, or a folder that holds one in `shar`.
        out: the set is in its folder `impatient`.
        rhythm: as for `impatient_cut`.
        workers: processes; None: one per CPU core.
        slice: (i, n): only every n-th shard from i on.
        overwrite: whether to remove the set first.
        check_hashes: whether shards that are there are compared with their hashes, or only with their sizes.

    Returns:
        What `corpus.json` says; None while shards of other slices are missing.

    Raises:
        InputError: if there are no cuts, they have no user and agent, or cannot be read; if the folder holds another set, or a
            corpus; for a full disk.
    """
    folder = existing_folder(source, "impatient_of")
    folder = folder / "shar" if (folder / "shar").is_dir() else folder
    found = [path for path in sorted(folder.glob("cuts.*.jsonl*")) if re.fullmatch(r"cuts\.\d+\.jsonl(\.gz)?", path.name)]
    if not found:
        raise InputError(
            f"impatient_of: {folder} holds no cuts (cuts.000000.jsonl.gz ...). Give a set such as CORPUS/dev, or a Lhotse Shar."
        )
    if (out / "corpus.json").is_file() and "impatient_of" not in summary_of(out):
        raise InputError(f"out: {out} holds a corpus, whose corpus.json would be replaced. Choose another folder.")
    require_slices_stay(overwrite, slice)
    sources = [_Source.of(path) for path in found]
    fingerprint = _fingerprint(sources, rhythm)
    if overwrite:
        clear(out, "impatient")
    begin(out, "impatient", fingerprint)
    shards = [Shard("impatient", number, 0, part.num_cuts, fingerprint) for number, part in enumerate(sources)]
    jobs = [job for job in list(zip(shards, sources))[slice[0] :: slice[1]] if job[0].done(out, check_hashes) is None]
    require_space(out, sum(path.stat().st_size for _, part in jobs for path in part.audio))
    with closing(run_locally(partial(_write, out, rhythm), jobs, workers)) as made:
        for _ in made:
            pass
    markers = markers_of(out, shards)
    if markers is None:
        return None
    counts: Counter[str] = Counter()
    for marker in markers:
        counts.update(marker["counts"])
    facts = {"hours": round(counts.pop("seconds", 0) / 3600, 3), **counts}
    if counts["onsets_after_the_first"]:
        facts["interruption_rate"] = round(counts["interruptions"] / counts["onsets_after_the_first"], 4)
    summary = {"sets": {"impatient": facts}, "impatient_of": str(source), "factor": rhythm.impatient}
    with whole_file(out / "corpus.json") as path:
        path.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


@dataclass(frozen=True)
class _Source:
    """A shard of the source: its manifest, the shard's recordings if they are in a file of it, and all files with audio."""

    manifest: Path
    recordings: Path | None
    audio: tuple[Path, ...]
    num_cuts: int

    @classmethod
    def of(cls, manifest: Path) -> _Source:
        part = manifest.name.split(".")[1]
        recordings = next(iter(sorted(manifest.parent.glob(f"recording.{part}.*"))), None)
        try:
            with gzip.open(manifest, "rt", encoding="utf-8") if manifest.suffix == ".gz" else open(manifest) as lines:
                rows = [json.loads(line) for line in lines if line.strip()]
            apart = {path: row["id"] for row in rows for path in _audio_apart(row)} if recordings is None else {}
        except Exception as error:  # gzip, zlib and json each raise their own; rows of any other kind raise more
            raise _unreadable(manifest.parent, f"{manifest.name}: {one_line(error)}") from error
        for path, cut_id in apart.items():
            if not path.is_file():
                raise _unreadable(manifest.parent, f"cut {cut_id}: there is no recording {path}")
        return cls(manifest, recordings, (recordings,) if recordings else tuple(apart), len(rows))

    def cuts(self) -> Iterator[Cut]:
        """The cuts with their recordings.

        Raises:
            InputError: if a file cannot be read to its end.
        """
        files = {"cuts": self.manifest} | ({"recording": self.recordings} if self.recordings else {})
        try:
            yield from SetShard(self.manifest.parent.name, self.manifest.name.split(".")[1], files).cuts()
        except OddRow as odd:
            raise _unreadable(self.manifest.parent, odd.detail) from odd


def _audio_apart(row: dict[str, Any]) -> list[Path]:
    """The audio files that a cut of a manifest names."""
    sources = (row.get("recording") or {}).get("sources", ())
    return [Path(source["source"]) for source in sources if source["type"] == "file"]


def _unreadable(folder: Path, what: str) -> InputError:
    return InputError(f"impatient_of: {folder} cannot be read: {what}. Copy or write it again.")


def _fingerprint(sources: Sequence[_Source], rhythm: Rhythm) -> str:
    """Of everything that the set is made of: cuts and audio by their content, not by their place."""
    made_of: list[Any] = [FORMAT, rhythm.impatient, rhythm.response_gap, rhythm.tail]
    for part in sources:
        made_of.append(sha256(part.manifest))
        made_of += [_digest(path) for path in part.audio]
    return hashlib.sha256(repr(made_of).encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    """The SHA-256 of a file; of a shard of `synthesize`, as its marker says it, so that the shard is not read twice."""
    try:
        marker = json.loads((path.parent.parent / "state" / f"{path.name.split('.')[1]}.json").read_text())
        if marker["bytes"][path.name] == path.stat().st_size:
            return str(marker["sha256"][path.name])
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        pass
    return sha256(path)


def _write(out: Path, rhythm: Rhythm, job: tuple[Shard, _Source]) -> None:
    shard, source = job
    content: dict[str, Any] = {"counts": {}}
    shard.write(out, _cuts(source, rhythm, content["counts"]), ("recording", "target_audio"), content)


def _cuts(source: _Source, rhythm: Rhythm, counts: dict[str, Any]) -> Iterator[MonoCut]:
    total: Counter[str] = Counter()
    for cut in source.cuts():
        if not holds(cut, "recording"):
            raise _unreadable(source.manifest.parent, f"cut {cut.id}: it has no recording of the user")
        try:
            made = impatient_cut(cut, rhythm)
        except InputError as error:
            raise InputError(f"impatient_of: {source.manifest.parent}: {error}") from error
        if made is None:
            total["left_out_without_user"] += 1
            continue
        interrupts = made.custom["interrupts"]
        total.update(cuts=1, seconds=made.duration, user_turns=len(interrupts))
        total.update(onsets_after_the_first=len(interrupts) - 1, interruptions=sum(interrupts))
        yield made
    counts.update(total)


def _silences(source: Conversation, factor: float, rate: int) -> _Silences:
    """The middle of each silence between user turns, in whole samples, so that turns move by whole samples."""
    pieces, end = [], source.user[0].end
    for turn in source.user[1:]:
        silence = turn.start - end
        if silence > 0:
            count = round(silence * rate) - round(factor * silence * rate)
            first = round((end + factor * silence / 2) * rate)
            pieces.append((first, count, first - round(end * rate)))
        end = max(end, turn.end)
    return _Silences(tuple(pieces), rate)


def _answers(source: Conversation, number: int) -> list[Turn]:
    """The agent's turns after the start of a user turn and before the next."""
    users = source.user
    until = users[number + 1].start if number + 1 < len(users) else source.duration
    return [turn for turn in source.agent if users[number].start < turn.start < until]


def _moved_events(events: list[dict[str, Any]], silences: _Silences, duration: Seconds) -> list[dict[str, Any]]:
    """The events with their new times, without those that are gone."""
    found = []
    for event in events:
        start, end = silences.at(event["start"]), min(silences.at(event["end"]), duration)
        if end - start > _FADE:
            found.append(event | {"start": round(start, 4), "end": round(end, 4)})
    return found


def _as_long_as(audio: np.ndarray, samples: int, speech_end: int) -> np.ndarray:
    """(S,) of so many samples. What is missing is what is heard after the last turn, back and forth."""
    missing = samples - len(audio)
    if missing <= 0:
        return audio[:samples]
    background = audio[min(speech_end, len(audio)) :]
    if len(background) < 2:
        return np.pad(audio, (0, missing))
    return np.concatenate([audio, np.pad(background, (0, missing), mode="reflect")[len(background) :]])
