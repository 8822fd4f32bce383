"""Table 4 of the paper: what codecs cost, and what their reconstruction keeps of the same utterances.

    bitrate              of FSQ codecs computed: codebooks x log2(codes) x frames per second; of others what their packets take
    quality              of originals and reconstructions, by every scorer that is there (the paper: Torchaudio-Squim)
    CER, WER             characters and words that a recogniser hears wrong in them (the paper: CER by MMS)
    SECS                 similarity of the speaker before and after (the paper: ECAPA2)
    STOI, PESQ, SI-SDR,
    mel distance         of reconstructions beside originals, aligned

The originals have a row too: a recogniser and a scorer are not perfect on them either, and the codec cannot be blamed for that.
Whether a codec was trained on these utterances is not known here: choose what it has not heard.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nemo_duplex.evaluation.codecs.differences import differences
from nemo_duplex.evaluation.codecs.speech_codec import SpeechCodec
from nemo_duplex.evaluation.codecs.trial import ORIGINAL, CodecTrial
from nemo_duplex.evaluation.codecs.utterances import Utterance, read_utterances
from nemo_duplex.evaluation.confidence import estimate_ratio
from nemo_duplex.evaluation.paper import TABLE_4
from nemo_duplex.evaluation.scorer import Scorer, made_by, not_run
from nemo_duplex.evaluation.speech.full_reference import FullReferenceScorer
from nemo_duplex.evaluation.speech.kept_answers import KeptAnswers
from nemo_duplex.evaluation.speech.normalized_text import character_errors, word_errors
from nemo_duplex.evaluation.speech.quality import KEPT, mean_entry, similarity_entry
from nemo_duplex.evaluation.speech.recogniser import Recogniser
from nemo_duplex.evaluation.speech.speech_scorers import SpeechScorers
from nemo_duplex.evaluation.speech.squim import Squim
from nemo_duplex.inputs import InputError

_NO_TEXT = "no utterance has a text: give a corpus, a manifest with texts, or a .txt beside each recording"
_NO_RECOGNISER = "no recogniser was asked for"
_NOT_UNDERSTOOD = "the recogniser does not know the language of any text"
_NO_SQUIM = "give squim=PATH of SQUIM_SUBJECTIVE as TorchScript or ONNX"
_ERRORS: Mapping[str, Callable[[str, str, str], tuple[int, int]]] = {"cer": character_errors, "wer": word_errors}


@dataclass(frozen=True)
class CodecScorers:
    """Who judges.

    Args:
        speech: scorers of quality and of speakers.
        pairs: scorers of a sound beside its original, by the names of their numbers.
        recogniser: for CER and WER; None leaves them out.
        squim: file of `Squim`. The clean speech that it wants is the longest original.
        missing: name -> why it is not there, beside what `speech` says.
    """

    speech: SpeechScorers
    pairs: Mapping[str, FullReferenceScorer] = field(default_factory=dict)
    recogniser: Recogniser | None = None
    squim: str | Path | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CodecTable:
    """A table, and what can be heard of it.

    Args:
        report: plain data, the content of codecs.json: `rows` {original, then each codec: its numbers}, `differences`, `voices`
            {voice: rows, where there are two or more}, `codecs` with what each is, `scorers`, `data`, `ids` and `texts` of
            the utterances, `heard` {row: transcripts}, `left_out`, `paper`. Numbers are `kbps`, `delay_ms`, and entries
            as `made_by` or `not_run` gives them, with `each` utterance's: of each scorer of quality, `cer` and `wer`
            (`n` are characters and words; each: errors, and out of how many), and of codecs `secs`, `ecapa2_secs`, `stoi`,
            `pesq`, `si_sdr`, `mel_distance`.
        trial: gives the sounds.
    """

    report: dict[str, Any]
    trial: CodecTrial


def codec_table(
    codecs: Sequence[SpeechCodec],
    data: str | Path,
    scorers: CodecScorers,
    *,
    absent: Mapping[str, str] | None = None,
    sets: Sequence[str] = ("dev",),
    limit: int = 228,
    folder: str | Path | None = None,
    workers: int = 1,
    seed: int = 0,
    progress: bool = True,
) -> CodecTable:
    """Sends utterances through codecs and measures what is left of them.

    Args:
        codecs: of `open_codecs` and `open_conventional`; the first is what the others are compared with.
        data, sets, limit: which utterances, as `read_utterances`.
        absent: codecs that cannot be tried, with the reason; they have rows that say so.
        folder: where `quality.jsonl` keeps answers, so that nothing is judged twice.
        workers: processes that judge, and threads that listen; 0 judges here.
        seed: of the bootstrap over utterances.

    Raises:
        InputError: if nothing can be used, two rows have one name, or a file of a scorer cannot be used.
    """
    names = [ORIGINAL, *(one.name for one in codecs), *(absent or {})]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"codecs: {twice!r} names two rows of the table. Rename a file.")
    utterances, odd = read_utterances(data, sets, limit)
    scorers = _with_squim(scorers, utterances)
    kept = KeptAnswers(None if folder is None else Path(folder) / KEPT)
    trial = CodecTrial(utterances, codecs, scorers.speech.all, scorers.pairs, scorers.recogniser, kept)
    trial.run(workers, progress)
    everyone, rows = range(len(utterances)), {}
    for name in (ORIGINAL, *trial.codecs):
        rows[name] = _row(trial, scorers, name, everyone, seed)
    for name, why in (absent or {}).items():
        rows[name] = {key: not_run(why) for key in rows[codecs[0].name]}
    report = {
        "data": str(data),
        "utterances": len(utterances),
        "seconds": round(sum(len(u.samples) / u.sample_rate for u in utterances), 1),
        "left_out": odd.describe(),
        "codecs": {one.name: one.about() for one in codecs},
        "rows": rows,
        "differences": differences(rows, [one.name for one in codecs], seed),
        "voices": _by_voice(trial, scorers, seed),
        "scorers": {scorer.name: scorer.as_dict() for scorer in _described(scorers)},
        "paper": {name: dict(row) for name, row in TABLE_4.items()},
        "ids": [u.id for u in utterances],
        "texts": [u.text for u in utterances],
        "heard": {name: [trial.heard.get((i, name)) for i in everyone] for name in (ORIGINAL, *trial.codecs)},
    }
    return CodecTable(report, trial)


def _with_squim(scorers: CodecScorers, utterances: Sequence[Utterance]) -> CodecScorers:
    if scorers.squim is None:
        return replace(scorers, missing={**scorers.missing, "squim": _NO_SQUIM})
    longest = max(utterances, key=lambda u: len(u.samples) / u.sample_rate)
    squim = Squim(scorers.squim, longest.samples, longest.sample_rate)
    return replace(scorers, speech=replace(scorers.speech, quality={"squim": squim, **scorers.speech.quality}))


def _described(scorers: CodecScorers) -> list[Scorer]:
    pairs = [one.scorer for one in scorers.pairs.values()]
    return [*scorers.speech.described(), *pairs, *([scorers.recogniser.scorer] if scorers.recogniser else [])]


def _row(trial: CodecTrial, scorers: CodecScorers, name: str, among: Sequence[int], seed: int) -> dict[str, Any]:
    """The entries of the originals, or of a codec, over some of the utterances."""

    def answers(scorer: str, row: str = name) -> list[Any]:
        return [trial.answers.get((i, row, scorer)) for i in among]

    found: dict[str, Any] = {"kbps": trial.kbps.get(name), "delay_ms": _milliseconds(trial, name)}
    found |= {scorer: not_run(why) for scorer, why in {**scorers.speech.missing, **scorers.missing}.items()}
    for scorer, quality in scorers.speech.quality.items():
        found[scorer] = mean_entry(quality.scorer, answers(scorer), "score", seed)
    found |= {key: _errors(trial, scorers, key, name, among, seed) for key in _ERRORS}
    if name == ORIGINAL:
        return found
    for scorer, encoder in scorers.speech.speakers.items():
        before, after = answers(scorer, ORIGINAL), answers(scorer)
        found[scorer] = similarity_entry(encoder.scorer, before, after, seed, "no utterance can be judged")
    for scorer, beside in scorers.pairs.items():
        found[scorer] = mean_entry(beside.scorer, answers(scorer), "score", seed)
    return found


def _milliseconds(trial: CodecTrial, name: str) -> float | None:
    return round(1000 * trial.delays[name], 2) if name in trial.delays else None


def _errors(trial: CodecTrial, scorers: CodecScorers, key: str, name: str, among: Sequence[int], seed: int) -> dict[str, Any]:
    """The share of characters or words that the recogniser hears wrong."""
    if scorers.recogniser is None:
        return not_run(scorers.missing.get(key, _NO_RECOGNISER))
    each: list[tuple[int, int] | None] = []
    for i in among:
        u, heard = trial.utterances[i], trial.heard.get((i, name))
        each.append(None if u.text is None or heard is None else _ERRORS[key](u.text, heard, u.language))
    parts = [one for one in each if one is not None]
    if not parts:
        return not_run(_NOT_UNDERSTOOD if any(trial.utterances[i].text for i in among) else _NO_TEXT)
    return made_by(scorers.recogniser.scorer, estimate_ratio(parts, proportion=False, seed=seed)) | {"each": each}


def _by_voice(trial: CodecTrial, scorers: CodecScorers, seed: int) -> dict[str, Any]:
    """The rows over the utterances of each voice, where there are several; without what each utterance scored."""
    voices: dict[str, list[int]] = {}
    for i, u in enumerate(trial.utterances):
        if u.voice is not None:
            voices.setdefault(u.voice, []).append(i)
    if len(voices) < 2:
        return {}
    found: dict[str, Any] = {}
    for voice, among in voices.items():
        rows = {name: _row(trial, scorers, name, among, seed) for name in (ORIGINAL, *trial.codecs)}
        for row in rows.values():
            for entry in row.values():
                if isinstance(entry, dict):
                    entry.pop("each", None)
        found[voice] = {"utterances": len(among), "rows": rows}
    return found
