"""Recorded speech as an engine: `recorded:/data/manifest.json` says exactly the texts that a manifest has, by their speakers.

A NeMo manifest, one JSON object a line: `audio_filepath` (a path from the manifest's folder, or a whole one), `text`, and where
they are known `offset`, `duration` (seconds) and `speaker`.
"""

from __future__ import annotations

from pathlib import Path

from nemo_duplex.files.atomic import sha256
from nemo_duplex.files.json_rows import json_rows
from nemo_duplex.files.nemo_manifest import ManifestRow, manifest_row
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import InputError, existing_file
from nemo_duplex.synthesis.tts.cast import EngineVoices, every_fifth_for_dev, with_users
from nemo_duplex.synthesis.tts.utterance import Utterance, Voice

_SOMEBODY = "somebody"  # who speaks where a row does not say it


class RecordedEngine:
    """Says what was recorded.

    Args:
        manifest: its path.

    Raises:
        InputError: if the file is missing, or a row has not what it needs; names the row.
    """

    sample_rate = 0  # each recording has its own

    def __init__(self, manifest: Path) -> None:
        digest = sha256(existing_file(manifest, "recorded"))
        self.name, self.version = f"recorded-{manifest.stem}", digest[:8]
        self._recordings: dict[tuple[str, str], ManifestRow] = {}
        for row in json_rows(manifest, "recorded"):
            place = f"{manifest}:{row.line}"
            try:
                if row.odd is not None:
                    raise row.odd
                found = manifest_row(row.value, manifest, place)
            except OddRow as odd:
                raise InputError(f"{place}: {odd}. {odd.cure}".rstrip()) from None
            if not found.text.strip():
                raise InputError(
                    f"{place}: the row has no text, of which the engine knows what is said. Add it, or remove the row."
                )
            speaker = str(found.other.get("speaker") or _SOMEBODY)
            self._recordings.setdefault((speaker, " ".join(found.text.split())), found)
        if not self._recordings:
            raise InputError(f"recorded: {manifest} has no rows.")
        #: In the order in which they come first.
        self.speakers = list(dict.fromkeys(speaker for speaker, _ in self._recordings))

    def speak(self, text: str, voice: Voice) -> Utterance:
        """The recording of `text` by the speaker `voice.name`; blanks may differ.

        Raises:
            InputError: if there is none, or its audio cannot be read.
        """
        if (reason := self._missing(text, voice.name)) is not None:
            raise InputError(reason)
        found = self._recordings[voice.name, " ".join(text.split())]
        try:
            audio, sample_rate = found.samples()
        except OddRow as odd:
            raise InputError(f"{found.place}: {odd}. {odd.cure}") from None
        if not audio.shape[1]:
            raise InputError(f"{found.place}: {found.path} ends before the offset {found.offset:g} s.")
        return Utterance(text, audio.mean(axis=0), sample_rate)

    def cannot_say(self, text: str, voice: Voice) -> str | None:
        """Why not: no speaker has said it. One that another speaker has said is found out when it is spoken."""
        said = " ".join(text.split())
        return None if any((name, said) in self._recordings for name in self.speakers) else self._missing(text, None)

    def _missing(self, text: str, speaker: str | None) -> str | None:
        if speaker is not None and speaker not in self.speakers:
            return f"{self.name} has no speaker {speaker!r}: expected one of {', '.join(self.speakers[:5])}."
        if speaker is not None and (speaker, " ".join(text.split())) in self._recordings:
            return None
        by = "" if speaker is None else f" by {speaker}"
        return f"{self.name} has no recording of {text[:60]!r}{by}."


def recorded_voices(manifest: str | None) -> EngineVoices:
    """The speakers of a manifest; of five or more, every fifth is one of dev. The first is its agent. Raises as its engine."""
    if not manifest:
        raise InputError("recorded: expected a manifest, such as recorded:/data/manifest.json")
    engine = RecordedEngine(Path(manifest))
    users = [Voice(f"{engine.name}-{name}", name, engine=engine.name) for name in engine.speakers]
    agent = Voice("agent", engine.speakers[0], engine=engine.name)
    return with_users(engine, agent, *every_fifth_for_dev(users))
