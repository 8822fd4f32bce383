"""What NeMo's in-tree duplex models write in a validation (`ResultsLogger`, nemo_toolkit 3.0.0):

    pred_wavs/{set}_{id}_rank{r}.wav        the user and the agent in two channels; the agent alone if the user's was not given
    pred_wavs/{set}_{id}_rank{r}_GT.wav     the same with the agent of the corpus; `_tf`, `_eou` and others are not read
    metadatas/{set}_rank{r}.json            JSON lines: id, target_text, pred_text, pred_audio (a transcript)
    metadatas/{set}.json                    those of all ranks

Ids are cut to 150 characters: of conversations whose first 150 are the same, the last one's sound is there. Both channels
are as long as the longest conversation of their batch; `corpus=` tells how long each of them is. Where `pred_text` tells when
turns begin and end, as "<|0.8|> text <$3.2$>", they are the agent's turns. Nobody says when the user speaks: by VAD, or
`corpus=`.
"""

from __future__ import annotations

import glob
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile

from nemo_duplex.evaluation.readers.found_rows import FoundRow
from nemo_duplex.evaluation.readers.row_fields import RowFields, without_none
from nemo_duplex.evaluation.readers.text_channel import Mark, channel_of
from nemo_duplex.files.json_rows import json_rows
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.frames import Seconds

WAVS, METADATA = "pred_wavs", "metadatas"
_OF_RANK = re.compile(r"(?P<set>.+)_rank(?P<rank>\d+)")
_MARK = re.compile(r"<\|(?P<bos>\d+(?:\.\d+)?)\|>|<\$(?P<eos>\d+(?:\.\d+)?)\$>|<(?P<text_end>\d+(?:\.\d+)?)>")
_NO_SOUND = "Score a model that speaks: DuplexSTTModel writes no pred_wavs."
_COLUMNS = {"pred_audio": "asr_text", "src_text": "user_text", "pred_src_text": "pred_user_text"}  # -> key of custom


def rows_of_nemo(folder: Path, odd: OddRows) -> Iterator[FoundRow]:
    """A row for every line of the metadata; files that are empty (a validation that has not ended) are passed over."""
    for file in _metadata_files(folder / METADATA):
        rank = _OF_RANK.fullmatch(file.stem)
        set_name, number = (rank["set"], rank["rank"]) if rank else (file.stem, "*")
        lines = list(json_rows(file, "outputs"))
        left = Counter(line.value.get("id") for line in lines if isinstance(line.value, dict))
        for line in lines:
            place = f"{file}:{line.line}"
            try:
                if line.odd is not None:
                    raise line.odd
                fields = RowFields(line.value)
                name = fields.text("id") or ""
                place += f" (conversation {name})"
                left[name] -= 1
                if left[name]:
                    raise OddRow("a sound that a later one has replaced", cure="NeMo cuts ids to 150 characters: shorten them.")
                row = _row(fields, _wav(folder / WAVS, f"{set_name}_{name}", number))
                yield FoundRow(set_name, place, row, folder, crops=True)
            except OddRow as reason:
                odd.add(reason, place)


def _metadata_files(folder: Path) -> list[Path]:
    """Those of the ranks, and those of sets of which no rank has one."""
    files = [file for file in sorted(folder.glob("*.json")) if file.stat().st_size]
    of_ranks = [file for file in files if _OF_RANK.fullmatch(file.stem)]
    names = {match["set"] for file in of_ranks if (match := _OF_RANK.fullmatch(file.stem))}
    return of_ranks + [file for file in files if file not in of_ranks and file.stem not in names]


def _wav(folder: Path, name: str, rank: str) -> Path:
    if rank != "*":
        found = [folder / f"{name}_rank{rank}.wav"]
    else:
        found = [p for p in sorted(folder.glob(f"{glob.escape(name)}_rank*.wav")) if _OF_RANK.fullmatch(p.stem)]
    if not found or not found[0].is_file():
        raise OddRow("no wav of the conversation", f"{folder / name}_rank{rank}.wav", _NO_SOUND)
    return found[0]


def _row(fields: RowFields, wav: Path) -> dict[str, Any]:
    try:
        header = soundfile.info(wav)
    except (soundfile.LibsndfileError, OSError) as error:
        raise OddRow("audio that cannot be read", str(error), "Write it again.") from error
    corpus_agent = wav.with_name(f"{wav.stem}_GT.wav")
    row = {
        "id": fields.text("id"),
        "audio" if header.channels == 2 else "agent_audio": str(wav.resolve()),
        "reference_audio": str(corpus_agent.resolve()) if corpus_agent.is_file() else None,
        "reference_text": fields.text("target_text") or None,
        "custom": without_none({key: fields.text(column) or None for column, key in _COLUMNS.items()}),
    }
    return without_none(row | _written(fields.text("pred_text") or "", header.frames / header.samplerate))


def _written(text: str, duration: Seconds) -> dict[str, Any]:
    """The keys of a row for what the agent wrote.

    Examples:
        >>> _written("<|0.8|> Yes. <$2.4$>", 4.0)["agent_turns"]
        [{'start': 0.8, 'end': 2.4, 'text': 'Yes.', 'unfinished': False}]
    """
    found = list(_MARK.finditer(text))
    if not any(match["bos"] or match["eos"] for match in found):
        return {"pred_agent_text": text}
    found = [match for match in found if not match["text_end"]]
    ends = [match.start() for match in found[1:]] + [len(text)]
    marks = [
        Mark(time, bool(match["bos"]), _MARK.sub(" ", text[match.end() : end]))
        for match, end in zip(found, ends, strict=True)
        if (time := float(match["bos"] or match["eos"])) < duration  # NeMo writes the marks of a batch's padding too
    ]
    channel = channel_of(marks, duration)
    turns = [
        {"start": t.start, "end": t.end, "text": t.text, "unfinished": bool(t.custom.get("unfinished"))} for t in channel.turns
    ]
    return {"agent_turns": turns, "unterminated": channel.unterminated, "orphan_eos": channel.orphan_eos}
