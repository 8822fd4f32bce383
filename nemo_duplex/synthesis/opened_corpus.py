"""What a corpus is made by, opened in one process: its voices, its source, and the cuts that they make."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from nemo_duplex.conversation import SPEAKERS, Speaker
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.corpus_spec import CorpusSpec, as_written
from nemo_duplex.synthesis.cuts import DialogueCuts
from nemo_duplex.synthesis.events import noise_digest
from nemo_duplex.synthesis.spoken_turns import spoken_turn
from nemo_duplex.synthesis.text.dialogue_files import DialogueFiles
from nemo_duplex.synthesis.text.grammar import Grammar
from nemo_duplex.synthesis.text.sources import TextSource
from nemo_duplex.synthesis.tts.cast import Cast
from nemo_duplex.synthesis.tts.engines import open_cast

#: Of what a spec makes. With another number, shards are not continued, nor is a training on dialogues that it composes.
FORMAT = 3


class OpenedCorpus:
    """The voices and the source of a spec. Opened again, in any process, it makes the same cuts.

    Args:
        spec: of the corpus.

    Attributes:
        cast: who speaks.
        missing_voices: a line for each engine that is not installed.
        source: of the texts.
        dialogues: the cuts, by number.

    Raises:
        InputError: for an engine or a file that cannot be opened, or a source that cannot be spoken.

    Examples:
        >>> from nemo_duplex.synthesis.corpus_spec import CorpusSpec
        >>> from nemo_duplex.synthesis.tts.engines import CastSpec
        >>> espeak = CastSpec(agent="espeak", dev=(("espeak", 1.0),))
        >>> OpenedCorpus(CorpusSpec(cast=espeak)).dialogues.cut("dev", 0).custom["engine"]
        'espeak-ng 1.52.0'
    """

    def __init__(self, spec: CorpusSpec) -> None:
        self.spec = spec
        self.cast, self.missing_voices = open_cast(spec.cast)
        self.source: TextSource = Grammar(spec.long_answers, spec.read_aloud)
        if spec.source:
            language = spec.text.language
            for speaker in SPEAKERS if language is not None else ():
                if reason := _cannot_say(self.cast, speaker, "a", language):
                    raise InputError(f"language={language}: {reason.detail}")
            cannot_say = partial(_cannot_say, self.cast)
            too_long = partial(_too_long, self.cast, spec.dialogues.longest_turn)
            voices = json.dumps(self.cast.describe(), sort_keys=True)
            self.source = DialogueFiles(spec.source, spec.text, cannot_say, too_long, voices, spec.text_store)
        self.dialogues = DialogueCuts(spec.dialogues, self.source, self.cast)

    @cached_property
    def made_of(self) -> dict[str, Any]:
        """Everything that decides what its cuts are: settings, and texts and voices by their content, not by their place."""
        spec = as_written(self.spec) | {"source": ()}
        del spec["text"], spec["text_store"], spec["cast"]
        folder = spec["dialogues"]["events"].pop("noise_folder")
        return {
            "format": FORMAT,
            "spec": spec,
            "source": self.source.describe()["sha256"],
            "noise": noise_digest(folder) if self.spec.dialogues.events.noise else None,
            "cast": self.cast.describe(),
        }

    def summary(self) -> list[str]:
        """What of the source and the voices is used and what is left out, as lines to print; none where all is built in."""
        return [*self.missing_voices, *(self.source.summary() if isinstance(self.source, DialogueFiles) else [])]


def _cannot_say(cast: Cast, speaker: Speaker, text: str, language: str | None) -> OddRow | None:
    reason = cast.cannot_say(speaker, text, language)
    return None if reason is None else OddRow("a text that the voices cannot say", reason)


def _too_long(cast: Cast, longest: Seconds, speaker: Speaker, text: str, language: str | None) -> OddRow | None:
    """Why a turn is too long for every voice that may speak it; None if it is not, or that would take long to find out."""
    voice = cast.agent if speaker == "agent" else cast.quick_user
    if voice is None:
        return None
    try:
        spoken_turn(cast.speak, speaker, text, replace(voice, language=language), longest)
    except OddRow as odd:
        return odd
    return None
