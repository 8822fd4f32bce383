"""The phonemes of English text, and with which of them each word of the text begins.

hibari's reader makes them, by the rules and the lexicon of misaki, in the phonemes that Kokoro was trained on. It reads digits,
units and abbreviations as words; those are matched with the words of the text, so that each is known by its place in the text.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate

import regex

from nemo_duplex.files.wheels import Wheel
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, one_line
from nemo_duplex.synthesis.tts.languages import foreign_words, is_english, script
from nemo_duplex.synthesis.tts.word_times import word_spans

HIBARI = Wheel(
    "hibari-tts",
    "0.2.1",
    {
        "hibari/assets/hibari.onnx": "5f70741d4e900f4e85d0037498736cc1b3e1b9a63a13546a5da1e63abf4fccd8",
        "hibari/assets/lexicon_us_gold.json.gz": "63ae94f8ef0e906d5b24fe9b59ffcbd1529aca5686a774610e43973cbaa86ad2",
        "hibari/assets/lexicon_us_silver.json.gz": "c4c2546ebf1eb07010331e7ef785a431aa17ba8e7bfb6b4af8d654ee96a71fd3",
        "hibari/assets/normalize.json": "d478ff05404bc43ac3e0468e306674e51085f1b1afc94cdef7c7ea4fb0d56bd8",
        "hibari/assets/oov.json": "b462e6e5dbdf0e7346c732385d0dd844f612f1770871441c56932bff4ca75d8c",
        "hibari/assets/oov.onnx": "d3cfd8122c5f172a98c8de38268bf1213ee09f2c2ae4df6e055fc6532590fe76",
        "hibari/assets/tagger.json.gz": "d2da7502284bbbe45d49e0b7ce3ce67bdab82254150f4317f1b8559b4d38d0eb",
        "hibari/assets/tokenizer_exceptions.json": "ddf3a3da07bdcf5144270ea4530191d8580fb4fd6f5ae93296e87916e795659a",
        "hibari/assets/vocab.json": "70abefbe8a1c8865e43e0a43bbdc25b91a33e4aa053479d443ccf23e20a59e5d",
    },
)

#: The durations of phonemes are multiples of it, in hibari and in Kokoro.
PHONEME_UNIT: Seconds = 0.025
# The audio of both is 75 ms ahead of the durations. Seen where a stop follows a pause (its burst came 25 to 50 ms before the
# word began, which has a closure of 40 ms before the burst), and as the median of an alignment with eSpeak (-83 ms).
_UNITS_AHEAD = 3

_MOST_AT_ONCE = 400  # phonemes; the models were trained on up to 510
_MOST = 2000  # phonemes of a text: two minutes of speech
_MOST_CHARACTERS = 4000
_CLAUSE_ENDS = set(";:,.!?—…")
_STRESS = "ˈˌː"
# Of a word that is in no lexicon the reader drops what is behind 24 letters, and it has names of powers of ten up to 10^33.
_TOO_LONG = regex.compile(r"[\p{L}\p{M}'’]{25,}|\d[\d,]{36,}")
_SHOWN = 40  # characters of a text or a word in a message


@dataclass(frozen=True)
class Run:
    """Phonemes that a model speaks at once: a sentence, or a part of a long one.

    Args:
        ids: of the phonemes, with the 0 before and after them that the models speak as silence.
        begins: {first character of a word of the text: index of its first phoneme in `ids`}.
    """

    ids: tuple[int, ...]
    begins: dict[int, int]

    def onsets(self, durations: Sequence[float], samples_per_unit: int, first: int) -> dict[int, int]:
        """{first character of a word: its first sample}.

        Args:
            durations: of the phonemes, in units of `PHONEME_UNIT`.
            samples_per_unit: of the audio.
            first: sample of the audio at which the run begins.
        """
        ends = [0, *accumulate(round(duration) for duration in durations)]
        units = {character: max(0, ends[index] - _UNITS_AHEAD) for character, index in self.begins.items()}
        return {character: first + unit * samples_per_unit for character, unit in units.items()}


class EnglishPhonemes:
    """Reads English text.

    Raises:
        NotInstalled: if hibari's package is missing.
        InputError: if one of its files has other content.

    Examples:
        >>> (run,) = EnglishPhonemes().runs("Good day.")
        >>> len(run.ids), run.begins
        (11, {0: 1, 5: 6})
    """

    def __init__(self) -> None:
        HIBARI.check()
        from hibari import Hibari
        from hibari.g2p import G2P
        from hibari.g2p.normalize import normalize

        self._reader, self._normalized, self._sentences = G2P(), normalize, Hibari.split_sentences
        self._ids: dict[str, int] = json.loads(HIBARI.path("hibari/assets/vocab.json").read_text(encoding="utf-8"))
        self._marks = {number: mark for mark, number in self._ids.items()}
        self._letters = set(json.loads(HIBARI.path("hibari/assets/oov.json").read_text(encoding="utf-8"))["in"])
        self._blank = self._ids[" "]

    def runs(self, text: str) -> list[Run]:
        """The phonemes of a text, in the parts that a model speaks at once.

        Raises:
            InputError: if it has no words, is too long, or the reader fails.
        """
        read: list[tuple[str, int, int | None]] = []  # each word: its run, the index of its first phoneme
        runs: list[Run] = []
        for piece in self._pieces(text):
            ids, words = self._spoken(piece)
            if words:
                read += [(word, len(runs), begins) for word, begins in words]
                runs.append(Run(tuple(ids), {}))
        if not runs:
            raise InputError(f"hibari's reader finds no words in {_shown(text)}: give it words to say.")
        if sum(len(run.ids) for run in runs) > _MOST:
            raise InputError(f"{_shown(text)} is more than two minutes of speech: cut it into turns.")
        spans = word_spans(text)
        written = [self._plain(text[begin:end]).lower() for begin, end in spans]
        for i, j in _matches(written, [word for word, _, _ in read]):
            _, run, begins = read[j]
            if begins is not None:
                runs[run].begins[spans[i][0]] = begins
        return runs

    def sounds(self, text: str) -> list[str]:
        """The phonemes of a text, without marks of stress, clauses and blanks.

        Raises:
            InputError: as `runs`.
        """
        spoken = (self._marks.get(number, " ") for run in self.runs(text) for number in run.ids)
        return [mark for mark in spoken if unicodedata.category(mark)[0] == "L" and mark not in _STRESS]

    def cannot_say(self, text: str, language: str | None, engine: str) -> str | None:
        """Why `engine`, which speaks these phonemes, cannot say a text: the culprit and a cure; None if it can."""
        others = "take agent_voice=espeak, and espeak in user_voices."
        if language is not None and not is_english(language):
            return f"{engine} speaks English, and {_shown(text)} is in the language {language}: {others}"
        if foreign := foreign_words(text, "en"):
            return f"{engine} speaks English, and {_shown(foreign[0])} is in other letters: {others}"
        if not any(character.isalnum() for character in text):
            return f"{engine} makes no sound of {_shown(text)}: give it words to say."
        if len(text) > _MOST_CHARACTERS:
            return f"{_shown(text)} has {len(text)} characters; {engine} says up to {_MOST_CHARACTERS}: cut it into turns."
        for found in _TOO_LONG.findall(text):
            if found.lower() not in self._reader.lexicon.golds:
                return f"{engine} says only the beginning of {_shown(found)}: write blanks or punctuation in it."
        if unknown := [c for c in text if c.isalpha() and not self._plain(c)]:
            return f"{engine} does not read the letter {unknown[0]!r}: write it with another one."
        return None

    def _pieces(self, text: str) -> Iterator[list[tuple[str, str]]]:
        """(what is read, its phonemes with the blank after them) of every token, in lists that are spoken at once."""
        for sentence in self._sentences(self._plain(text)):
            try:
                tokens = self._reader.phonemize_tokens(self._reader.tokenize(self._normalized(sentence)))
            except (IndexError, KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
                raise InputError(f"hibari's reader cannot read {_shown(sentence)} ({one_line(error)}).") from error
            piece: list[tuple[str, str]] = []
            for token in tokens:
                phonemes = (token.phonemes or "") + (" " if token.whitespace else "")
                if piece and sum(len(spoken) for _, spoken in piece) + len(phonemes) > _MOST_AT_ONCE:
                    clauses = [i for i, (_, spoken) in enumerate(piece, 1) if spoken.strip()[-1:] in _CLAUSE_ENDS]
                    cut = clauses[-1] if clauses else len(piece)
                    yield piece[:cut]
                    piece = piece[cut:]
                piece.append((token.text, phonemes))
            yield piece

    def _spoken(self, piece: list[tuple[str, str]]) -> tuple[list[int], list[tuple[str, int | None]]]:
        """The ids of a piece, and its words, each with the index of its first phoneme if that is known."""
        ids, words = [0], list[tuple[str, int | None]]()
        for token, phonemes in piece:
            begins = len(ids)
            ids += [self._ids[p] for p in (phonemes if begins > 1 else phonemes.lstrip()) if p in self._ids]
            if phonemes.strip():
                first: int | None = begins
                for begin, end in word_spans(token):
                    words.append((token[begin:end].lower(), first))
                    first = None
        while ids[-1] == self._blank:
            ids.pop()
        return [*ids, 0], words

    def _plain(self, text: str) -> str:
        """The text in letters and digits that the reader knows, "ễ" as "e"; what it cannot read is left out."""
        plain = text if text.isascii() else "".join(map(self._plain_character, text))
        return plain.replace("](", "] (")  # in which the reader takes "[a](/b/)" for a word and its phonemes

    def _plain_character(self, character: str) -> str:
        kind = unicodedata.category(character)
        if script(character) == "Greek":  # one letter, or the text is refused: a symbol
            return unicodedata.name(character).split(" WITH ")[0].split()[-1].lower()
        if kind == "Nd":
            return str(unicodedata.digit(character))
        if kind[0] not in "LM" or character in self._letters:
            return character
        return "".join(c for c in unicodedata.normalize("NFKD", character) if c in self._letters)


def _matches(written: list[str], read: list[str]) -> Iterator[tuple[int, int]]:
    """(i, j) of each word i of the text that is read as the words from j on, or as word j."""
    for _, i, i_end, j, j_end in SequenceMatcher(None, written, read, autojunk=False).get_opcodes():
        if i_end - i == j_end - j:
            yield from zip(range(i, i_end), range(j, j_end))
        elif i < i_end and j < j_end:
            yield i, j


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN].rstrip() + "...")
