"""The scorers of quality and of speakers that are there, and of the others, why not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.sound import Samples, Sound
from nemo_duplex.evaluation.speech.sound_scorer import RATE, QualityScorer, SoundScorer
from nemo_duplex.evaluation.speech.speakers import SpeakerEncoder
from nemo_duplex.inputs import NotInstalled, read_mono

#: Names of the quality scorers, and of the similarities of speakers, as report.json has them.
QUALITY = ("distillmos", "utmos", "dnsmos")
SPEAKERS = ("secs", "ecapa2_secs")


@dataclass(frozen=True)
class SpeechScorers:
    """Scorers by the name of their entry in report.json.

    Args:
        quality: of `QUALITY`.
        speakers: of `SPEAKERS`: the encoder of each.
        missing: name -> why it is not there, with the cure.
        voice: a recording of the voice that the agent should have; None takes the corpus' own.

    Examples:
        >>> scorers = open_scorers()                                                  # doctest: +SKIP
        >>> list(scorers.quality), scorers.missing["utmos"]                           # doctest: +SKIP
        (['distillmos', 'dnsmos'], 'give utmos=PATH of utmos22_strong_step7459_v1.pt, or of a TorchScript or ONNX file')
    """

    quality: Mapping[str, QualityScorer] = field(default_factory=dict)
    speakers: Mapping[str, SpeakerEncoder] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    voice: Sound | None = None

    @property
    def all(self) -> dict[str, SoundScorer]:
        """Those that are there, by name."""
        return {**self.quality, **self.speakers}

    def described(self) -> list[Scorer]:
        """What they are, for the report."""
        return [one.scorer for one in self.all.values()]


def open_scorers(
    utmos: str | Path | None = None,
    dnsmos: str | Path | None = None,
    ecapa2: str | Path | None = None,
    voice: str | Path | None = None,
) -> SpeechScorers:
    """Opens the scorers that are installed, and those whose files are given.

    Args:
        utmos: file of UTMOS, see `UTMOS`.
        dnsmos: `sig_bak_ovr.onnx`; by default that of the wheel speechmos, where it is installed.
        ecapa2: file of ECAPA2, see `ECAPA2`.
        voice: a recording of the voice that the agent should have.

    Raises:
        InputError: for a file that is given and cannot be used.
    """
    from nemo_duplex.evaluation.speech.distillmos import DistillMOS
    from nemo_duplex.evaluation.speech.dnsmos import DNSMOS
    from nemo_duplex.evaluation.speech.speakers import ECAPA2, Resemblyzer
    from nemo_duplex.evaluation.speech.utmos import UTMOS

    quality: dict[str, QualityScorer] = {}
    speakers: dict[str, SpeakerEncoder] = {}
    missing: dict[str, str] = {}

    def open_one(name: str, into: dict, build: Callable[[], SoundScorer]) -> None:
        try:
            into[name] = build()
        except NotInstalled as why:
            missing[name] = str(why)

    open_one("distillmos", quality, DistillMOS)
    if utmos is None:
        missing["utmos"] = "give utmos=PATH of utmos22_strong_step7459_v1.pt, or of a TorchScript or ONNX file"
    else:
        quality["utmos"] = UTMOS(utmos)
    open_one("dnsmos", quality, lambda: DNSMOS(dnsmos))
    open_one("secs", speakers, Resemblyzer)
    if ecapa2 is None:
        missing["ecapa2_secs"] = "give ecapa2=PATH of ecapa2.pt, or of a TorchScript or ONNX file"
    else:
        speakers["ecapa2_secs"] = ECAPA2(ecapa2)
    return SpeechScorers(quality, speakers, missing, None if voice is None else _voice(voice))


def _voice(path: str | Path) -> Sound:
    samples = read_mono(path, RATE, "voice")
    return Samples.of(samples, RATE)
