"""Whether the agent says what it writes: its voice, transcribed, against its own text channel.

PocketSphinx (BSD, its English model is in the wheel) works without a network, but gets 60 % of eSpeak's words wrong. With a
bigram model of the very texts that can be said, it gets 1 to 6 % wrong. That is good enough to compare two voices with each
other, but not a word error rate to report: hence the label. Texts in other languages than English are not scored.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import soxr
from kaldialign import edit_distance

from nemo_duplex.conversation import Conversation, holds
from nemo_duplex.evaluation.confidence import Estimate, estimate_ratio
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.words import words

LABEL = "biased bigram ASR, not reportable"
_DISCOUNT = 0.5  # taken from every bigram's count and left to words that never followed
_MOST_UNKNOWN = 0.25  # of all words; German, French, Spanish lack 0.3 to 0.5, English full of names and figures 0.2
_MARGIN: Seconds = 0.2  # of sound around a turn: a codec smears its edges
# Level, and noise laid under it: PocketSphinx mishears after digital silence (voice en-us: 24 % wrong, with the noise 1.4 %).
_PEAK, _NOISE = 0.7, 0.002


@dataclass(frozen=True)
class SpokenTurn:
    """A stretch of agent audio (S,) at `sample_rate` Hz, with the text that it should say; `of` names its conversation."""

    of: str
    text: str
    audio: np.ndarray
    sample_rate: int


def word_errors(reference: str, transcript: str) -> tuple[int, int]:
    """Wrong, missing and added words of `transcript`, and the words of `reference`; case and punctuation do not count."""
    expected = words(reference)
    return edit_distance(expected, words(transcript))["total"], len(expected)


def spoken_by_agent(outcome: Outcome) -> list[SpokenTurn]:
    """The agent's whole turns. One that was cut off may have written more than it said, so it is left out."""
    interrupted = [t for t in outcome.agent if any(t.start < q.turn.start < t.end for q in outcome.questions)]
    whole = [t for t in outcome.agent if t.text and t not in interrupted and not t.custom.get("unfinished")]
    audio, rate = outcome.audio / np.float32(32768), outcome.sample_rate
    return [SpokenTurn(outcome.id, t.text, _stretch(audio, rate, t.start, t.end), rate) for t in whole]


def spoken_by_reference(outcome: Outcome) -> list[SpokenTurn]:
    """The whole turns of the original agent voice; none where the corpus has no agent audio."""
    cut = outcome.cut
    turns = [t for t in Conversation.from_cut(cut).agent if t.text and not t.was_cut and not t.custom.get("begun_before")]
    if not turns or not holds(cut, "target_audio"):
        return []
    audio, rate = cut.load_target_audio()[0], cut.target_audio.sampling_rate
    return [SpokenTurn(cut.id, t.text, _stretch(audio, rate, t.start, t.end), rate) for t in turns]


def _stretch(audio: np.ndarray, rate: int, start: Seconds, end: Seconds) -> np.ndarray:
    return audio[max(0, round((start - _MARGIN) * rate)) : round((end + _MARGIN) * rate)]


def word_error_rate(recogniser: BigramRecogniser, spoken_turns: Sequence[SpokenTurn], seed: int = 0) -> Estimate:
    """Errors over words, both pooled; `n` counts words. Conversations are resampled for the interval."""
    parts: dict[str, list[tuple[int, int]]] = {}
    for u in spoken_turns:
        parts.setdefault(u.of, []).append(word_errors(u.text, recogniser.transcribe(u.audio, u.sample_rate)))
    sums = [(sum(e for e, _ in rows), sum(n for _, n in rows)) for rows in parts.values()]
    return estimate_ratio(sums, proportion=False, seed=seed)


class BigramRecogniser:
    """PocketSphinx with a bigram model of given texts.

    Args:
        texts: what may be said. Words that its dictionary does not know cannot be recognised; they are in `unknown`.

    Raises:
        ImportError: if the package `pocketsphinx` (an optional extra) is not installed.
        InputError: if its English dictionary lacks more than a quarter of the words.
    """

    _RATE = 16000

    def __init__(self, texts: Iterable[str]) -> None:
        import pocketsphinx

        sentences = [words(text) for text in texts]
        model = Path(pocketsphinx.get_model_path()) / "en-us"
        pronunciations = _pronunciations(model / "cmudict-en-us.dict", {w for s in sentences for w in s})
        self.unknown = sorted({w for s in sentences for w in s} - pronunciations.keys())
        known = [[w for w in s if w in pronunciations] for s in sentences]
        _check_language(sum(map(len, sentences)), sum(map(len, known)), self.unknown)
        with tempfile.TemporaryDirectory() as folder:
            grammar, dictionary = Path(folder, "texts.lm"), Path(folder, "texts.dict")
            grammar.write_text(bigram_arpa([s for s in known if s]), encoding="utf-8")
            dictionary.write_text("".join(line for w in sorted(pronunciations) for line in pronunciations[w]), encoding="utf-8")
            self._decoder = pocketsphinx.Decoder(
                hmm=str(model / "en-us"), lm=str(grammar), dict=str(dictionary), cmn="batch", logfn=os.devnull, loglevel="FATAL"
            )

    def transcribe(self, audio: np.ndarray, sample_rate: int) -> str:
        """The words in (S,) audio of full scale 1; "" where there are none."""
        sound = soxr.resample(np.asarray(audio, np.float32), sample_rate, self._RATE)
        if not len(sound) or not np.abs(sound).max():
            return ""
        noise = np.random.default_rng(0).standard_normal(len(sound))
        sound = _PEAK * sound / np.abs(sound).max() + _NOISE * noise
        self._decoder.start_utt()
        self._decoder.process_raw((np.clip(sound, -1, 1) * 32767).astype(np.int16).tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr if found else ""


def _check_language(words_in_all: int, known: int, unknown: Sequence[str]) -> None:
    if words_in_all - known > _MOST_UNKNOWN * words_in_all or not known:
        share = 1 - known / max(words_in_all, 1)
        raise InputError(
            f"the offline recogniser knows English alone: its dictionary lacks {share:.0%} of the words of the texts "
            f"({', '.join(unknown[:3])}). Other languages are not scored; asr_turns=0 leaves this score out."
        )


def _pronunciations(path: Path, wanted: set[str]) -> dict[str, list[str]]:
    """Dictionary lines of the wanted words, with their variants `word(2)`. Ours have no apostrophes, the dictionary's do."""
    found: dict[str, list[str]] = {}
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            entry, _, phones = line.partition(" ")
            word, variant, number = entry.partition("(")
            word = word.replace("'", "")
            if word in wanted:
                found.setdefault(word, [])
                number = f"({len(found[word]) + 1})" if found[word] else ""
                found[word].append(f"{word}{number} {phones.strip()}\n")
    return found


def bigram_arpa(sentences: Sequence[Sequence[str]]) -> str:
    """A bigram model in the ARPA format: absolute discounting, backing off to unigrams (Ney, Essen and Kneser 1994)."""
    marked = [["<s>", *s, "</s>"] for s in sentences]
    unigrams = Counter(w for s in marked for w in s[1:])
    bigrams = Counter(pair for s in marked for pair in pairwise(s))
    followed = Counter(first for s in marked for first in s[:-1])
    kinds = Counter(first for first, _ in bigrams)
    total = sum(unigrams.values())
    # the unigram mass of the words that do follow: backing off must not count it again
    covered: defaultdict[str, float] = defaultdict(float)
    for first, second in bigrams:
        covered[first] += unigrams[second] / total
    lines = [f"\\data\\\nngram 1={len(unigrams) + 1}\nngram 2={len(bigrams)}\n\n\\1-grams:"]
    for word in ["<s>", *sorted(unigrams)]:
        probability = _log(unigrams[word] / total) if word != "<s>" else -99.0
        left = _DISCOUNT * kinds[word] / followed[word] / max(1 - covered[word], 1e-6) if followed[word] else 1.0
        lines.append(f"{probability:.4f} {word} {_log(left):.4f}")
    lines.append("\n\\2-grams:")
    for (first, second), count in sorted(bigrams.items()):
        lines.append(f"{_log((count - _DISCOUNT) / followed[first]):.4f} {first} {second}")
    return "\n".join([*lines, "\n\\end\\\n"])


def _log(probability: float) -> float:
    return math.log10(probability)
