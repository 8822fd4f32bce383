"""A conversation and what a model did in it, as one JSON object: a row of `conversations.jsonl`.

Any model's output can be scored in this form, and `examples/evaluate.py` writes its predictions in it. Times are seconds from
the start of the audio; paths are relative to the folder of the file. docs/how-to/score-any-model.md explains each key.

    id, set, duration
    audio                                        two channels in one file: the user, then the agent; or:
    user_audio, agent_audio, reference_audio     one channel each; of the last one also two, the user and the agent
    user_turns, reference_turns, agent_turns     lists of {start, end, text, full_text, language, words, unfinished, custom}
    references                                   right answers of each user turn, where there are no reference turns: a text, a
                                                 list of texts, or null
    agent_frames                                 in place of agent_turns: {frame_sec, bos, eos, delay}, BOS and EOS by frame
    text_entries, unterminated, orphan_eos       of the text channel
    pred_agent_text                              all that the agent wrote, where its times are not known
    events                                       what happens beside the turns: {kind, speaker, start, end, text}
    custom (or meta)                             anything else
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import soundfile

from nemo_duplex.conversation import TOLERANCE, Conversation, Speaker, Turn, Word
from nemo_duplex.evaluation.labels import labelled_events, user_pauses
from nemo_duplex.evaluation.outcome import Outcome, TextEntry, questions
from nemo_duplex.evaluation.readers.row_fields import RowFields, without_none
from nemo_duplex.evaluation.readers.text_channel import Mark, TextChannel, channel_of
from nemo_duplex.evaluation.sound import SoundFile
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.frames import FRAME_RATE, Seconds
from nemo_duplex.inputs import InputError, one_line

#: Name of a file of such rows.
CONVERSATIONS = "conversations.jsonl"
#: The audio files of a row.
AUDIO_KEYS = ("audio", "user_audio", "agent_audio", "reference_audio")
_NUM_CHANNELS = dict(zip(AUDIO_KEYS, ((2,), (1,), (1,), (1, 2)), strict=True))
#: Where a conversation's custom says that its user turns are found by VAD (`listening.py`), because the files do not give them.
USER_TURNS_FROM, VAD = "user_turns_from", "vad"

_TURN_LISTS = ("user_turns", "reference_turns", "ref_agent_turns", "agent_turns")
_RATES = ("user_sample_rate", "agent_sample_rate", "sample_rate")
#: Keys of the row that a conversation keeps in its custom.
_IN_CUSTOM = ("references", "events", "pred_agent_text", "reference_text")
_KNOWN = (
    *("id", "set", "duration", "agent_frames", "text_entries", "unterminated", "orphan_eos", "custom", "meta"),
    *AUDIO_KEYS,
    *_TURN_LISTS,
    *_RATES,
    *_IN_CUSTOM,
)
_MOST_FRAMES = 1 << 40
_END: Seconds = 1e-3  # by which a turn may end later than its conversation


def row_of(outcome: Outcome, set_name: str, files: Mapping[str, str]) -> dict[str, Any]:
    """An outcome as a row; `outcome_of` gives it back exactly, but for `speech`, which is found again by VAD.

    Args:
        set_name: of the set that it belongs to.
        files: the audio files that were written, by their keys (`AUDIO_KEYS`), relative to the folder of the rows.
    """
    assert set(files) <= set(AUDIO_KEYS), f"files of a row are {AUDIO_KEYS}, got {list(files)}"
    custom = dict(outcome.conversation.custom)
    row = {"id": outcome.id, "set": set_name, "duration": outcome.duration, **files}
    if custom.get(USER_TURNS_FROM) != VAD or outcome.conversation.user:
        row["user_turns"] = [_turn_row(turn) for turn in outcome.conversation.user]
    row["reference_turns"] = [_turn_row(turn) for turn in outcome.conversation.agent] or None
    if outcome.writes:
        row["agent_turns"] = [_turn_row(turn) for turn in outcome.agent]
    row["text_entries"] = [list(entry) for entry in outcome.text_entries] or None
    row["unterminated"], row["orphan_eos"] = outcome.unterminated or None, outcome.orphan_eos or None
    row |= {key: custom.pop(key) for key in _IN_CUSTOM if custom.get(key) is not None}
    return without_none(row | {"custom": custom or None})


def outcome_of(row: Any, folder: Path) -> Outcome:
    """The outcome that a row holds, without `speech`; of the audio files only the headers are read.

    Args:
        row: a decoded line.
        folder: of the file that it is from.

    Raises:
        OddRow: if something is missing, has the wrong kind, or lies outside of the audio.

    Examples:
        >>> turn = {"start": 0.5, "end": 1.5, "text": "Hello?"}
        >>> outcome = outcome_of({"id": "a", "duration": 4.0, "user_turns": [turn], "references": ["Hi."]}, Path("."))
        >>> outcome.user, outcome.questions[0].reference.texts, outcome.writes
        ([(0.5, 1.5)], ('Hi.',), False)
    """
    fields = RowFields(row)
    name = fields.text("id")
    if not name:
        raise OddRow("no id", cure="Give every conversation an id of its own.")
    others = fields.others(_KNOWN)
    sounds = _Sounds.of(fields, folder)
    duration = fields.time("duration")
    if duration is None:
        duration = sounds.duration
    if duration is None or duration <= 0:
        raise OddRow("no duration", cure="Name the audio of the conversation, or give its `duration` in seconds.")
    custom = others | fields.object("meta") | fields.object("custom")
    users = [_turn(turn, "user", duration) for turn in fields.objects("user_turns")]
    if not fields.has("user_turns"):
        custom.setdefault(USER_TURNS_FROM, VAD)
    timed, untimed = _reference_turns(fields, duration)
    custom |= without_none({key: fields.text(key) for key in ("pred_agent_text", "reference_text")})
    custom |= _references(fields, untimed, len(users))
    if fields.has("events"):
        custom["events"] = fields.items("events")
    channel = _text_channel(fields, duration)
    try:
        conversation = Conversation(name, duration, (*users, *timed), custom)
        labelled_events(conversation), user_pauses(conversation)  # refuses those that cannot be scored
        return Outcome(
            conversation=conversation,
            questions=questions(conversation),
            agent=channel.turns,
            agent_sound=sounds.agent,
            user_sound=sounds.user,
            reference_sound=sounds.reference,
            unterminated=channel.unterminated,
            orphan_eos=channel.orphan_eos,
            text_entries=tuple(_text_entry(fields, entry) for entry in fields.items("text_entries")),
            writes=channel.writes,
        )
    except InputError as error:
        raise OddRow("turns that do not fit", str(error)) from error


# ---- turns


def _turn_row(turn: Turn) -> dict[str, Any]:
    custom = dict(turn.custom)
    unfinished = custom.pop("unfinished") if custom.get("unfinished") is True else None
    words = [{"text": w.text, "offset": w.offset, "start": w.start, "end": w.end} for w in turn.words]
    row = {"start": turn.start, "end": turn.end, "text": turn.text or None, "full_text": turn.full_text}
    more = {"language": turn.language, "words": words or None, "unfinished": unfinished, "custom": custom or None}
    return without_none(row | more)


def _turn(fields: RowFields, speaker: Speaker, duration: Seconds) -> Turn:
    """A turn, its end moved to that of the audio where it is a little later."""
    start, end = fields.needed_time("start"), fields.needed_time("end")
    what = f"{fields.name} lasts from {start:g} to {end:g} s"
    if start < 0 or end < start:
        raise OddRow("a turn that runs backwards or begins before 0", what, "Give times in seconds from the audio's start.")
    late = end > duration + TOLERANCE or start >= duration
    if late and speaker == "user":
        cure = "Give times in seconds from the start of the audio, not in milliseconds, samples or frames."
        raise OddRow("a turn outside of the audio", f"{what}, the audio {duration:g} s", cure)
    custom = fields.object("custom") | ({"unfinished": True} if fields.flag("unfinished") else {})
    text = fields.text("text") or ""
    words = _words(fields, text)
    turn = Turn(speaker, start, end, text, fields.text("full_text"), words, custom, fields.text("language"))
    return replace(turn, end=duration) if end > duration + _END and not late else turn


def _words(fields: RowFields, text: str) -> tuple[Word, ...]:
    words, position = [], 0
    for word in fields.objects("words"):
        symbol, offset = word.text("text") or "", word.count("offset")
        if offset is None:
            found = text.find(symbol, position)
            offset = found if found >= 0 else position
        position = offset + len(symbol)
        words.append(Word(symbol, offset, word.needed_time("start"), word.needed_time("end")))
    return tuple(words)


def _reference_turns(fields: RowFields, duration: Seconds) -> tuple[list[Turn], list[str]]:
    """What the agent of the corpus says: with times, and the texts of turns without."""
    key = "reference_turns" if fields.has("reference_turns") else "ref_agent_turns"
    timed, untimed = [], []
    for turn in fields.objects(key):
        if not turn.has("start"):
            untimed.append(turn.text("full_text") or turn.text("text") or "")
        elif (found := _turn(turn, "agent", duration)).start < duration:
            late = found.end > duration + _END
            timed.append(replace(found.cut_at(duration), custom={**found.custom, "unfinished": True}) if late else found)
    if timed and untimed:
        raise OddRow("reference turns with and without times", cure="Give all of them start and end, or none.")
    return timed, untimed


def _references(fields: RowFields, untimed: list[str], users: int) -> dict[str, Any]:
    """The right answers: for each user turn where the row says so, else as one text."""
    if fields.has("references"):
        listed = fields.items("references")
        if fields.has("user_turns") and len(listed) != users:
            cure = "Give one entry for each user turn: a text, or a list of texts."
            raise OddRow("not as many references as user turns", f"{len(listed)} references, {users} user turns", cure)
        for index, entry in enumerate(listed):
            texts = [""] if entry is None else [entry] if isinstance(entry, str) else entry
            if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
                detail = f"references[{index}] is {entry!r:.40}, expected a text or a list of texts"
                raise OddRow("a value of the wrong kind", detail)
        return {"references": listed} if fields.has("user_turns") else {"reference_text": _joined(listed)}
    if not untimed:
        return {}
    if fields.has("user_turns") and len(untimed) == users:
        return {"references": untimed}
    return {"reference_text": _joined(untimed)}


def _joined(listed: list[Any]) -> str:
    return " ".join(entry if isinstance(entry, str) else entry[0] for entry in listed if entry is not None)


# ---- the text channel


def _text_channel(fields: RowFields, duration: Seconds) -> TextChannel:
    if fields.has("agent_turns") or not fields.has("agent_frames"):
        turns = tuple(_turn(turn, "agent", math.inf) for turn in fields.objects("agent_turns"))
        counts = (fields.count("unterminated") or 0, fields.count("orphan_eos") or 0)
        return TextChannel(turns, *counts, writes=fields.has("agent_turns"))
    frames = RowFields(fields.object("agent_frames"), "agent_frames")
    seconds = FRAME_RATE.seconds if not frames.has("frame_sec") else frames.needed_time("frame_sec")
    if seconds <= 0:
        raise OddRow("a value of the wrong kind", f"agent_frames.frame_sec is {seconds}, expected more than 0")
    delay = frames.count("delay") or 0
    marks = [Mark((frame + delay) * seconds, kind == "bos") for kind in ("bos", "eos") for frame in _frames(frames, kind)]
    return channel_of(marks, duration)


def _frames(fields: RowFields, key: str) -> list[int]:
    found = fields.items(key)
    for frame in found:
        if isinstance(frame, bool) or not isinstance(frame, int) or not 0 <= frame < _MOST_FRAMES:
            raise OddRow("a value of the wrong kind", f"{fields.path(key)} has {frame!r:.40}, expected frames from 0 on")
    return found


def _text_entry(fields: RowFields, entry: Any) -> TextEntry:
    match entry:
        case [int() | float() as time, "bos" | "word" | "eos" as kind] if abs(time) < math.inf:
            return TextEntry(time, kind)
    raise OddRow("a value of the wrong kind", f"text_entries has {entry!r:.40}, expected [seconds, 'bos', 'word' or 'eos']")


# ---- sounds


@dataclass(frozen=True)
class _Sounds:
    user: SoundFile | None = None
    agent: SoundFile | None = None
    reference: SoundFile | None = None
    duration: Seconds | None = None

    @classmethod
    def of(cls, fields: RowFields, folder: Path) -> _Sounds:
        names = {key: _path(folder, name) for key in AUDIO_KEYS if (name := fields.text(key)) is not None}
        if "audio" in names and {"user_audio", "agent_audio"} & set(names):
            raise OddRow("audio and user_audio or agent_audio", cure="Name a file of two channels as audio, or one of each.")
        found = {key: audio_header(path, _NUM_CHANNELS[key]) for key, path in names.items()}
        for key, header in found.items():
            for declared in {"sample_rate", key.replace("audio", "sample_rate")}:
                rate = fields.count(declared)
                if rate is not None and rate != header.samplerate and key != "reference_audio":
                    detail = f"{names[key]} has {header.samplerate} Hz, {declared} says {rate}"
                    raise OddRow("not the declared sample rate", detail, "Correct the file's header or the row.")

        def sound(key: str, channel: int = 0) -> SoundFile | None:
            return SoundFile(names[key], found[key].samplerate, channel) if key in names else None

        both = "audio" in names
        user, agent = (sound("audio", 0), sound("audio", 1)) if both else (sound("user_audio"), sound("agent_audio"))
        reference = sound("reference_audio", found["reference_audio"].channels - 1) if "reference_audio" in found else None
        first = next((found[key] for key in ("audio", "user_audio", "agent_audio") if key in found), None)
        duration = None if first is None else first.frames / first.samplerate
        return cls(user, agent, reference, duration)


def _path(folder: Path, name: str) -> Path:
    """A path that is relative to a folder; one that was written on Windows has `\\` for `/`."""
    path = folder / name
    return path if "\\" not in name or path.exists() else folder / name.replace("\\", "/")


def audio_header(path: Path, channels: Sequence[int]) -> Any:
    """`soundfile.info` of a file with one of these numbers of channels.

    Raises:
        OddRow: if it is missing, cannot be read, has no samples, or another number of channels.
    """
    try:
        header = soundfile.info(path)
    except (soundfile.LibsndfileError, OSError, TypeError, ValueError) as error:
        if not path.is_file():
            raise OddRow("an audio file is missing", str(path), "Paths are relative to the folder of the rows.") from error
        raise OddRow("audio that cannot be read", f"{path}: {one_line(error)}", "Write it as wav or flac.") from error
    if header.frames == 0:
        raise OddRow("audio without samples", str(path), "Write or copy it again.")
    if header.channels not in channels:
        one = "Name a file of both channels as audio." if header.channels == 2 else "Keep the speaker's channel."
        cure = "Name files of one channel as user_audio and agent_audio." if 1 not in channels else one
        expected = " or ".join(map(str, channels))
        raise OddRow("another number of channels", f"{path} has {header.channels}, expected {expected}", cure)
    return header
