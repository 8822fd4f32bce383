"""How an evaluation is made: the keys of `conf/evaluate.yaml` that a scorer reads."""

from __future__ import annotations

from dataclasses import dataclass, field

from nemo_duplex.evaluation.judge.setting import JudgeSetting
from nemo_duplex.inputs import InputError, did_you_mean

#: What can be measured, beside turn-taking, which always is; a group of report.json each, but for the controls.
PARTS = ("controls", "speech", "judge", "gt_llm")
#: What each word of `what` stands for.
WHAT = {
    "all": PARTS,
    "turn_taking": ("controls",),
    "speech": ("speech",),
    "judge": ("judge",),
    "gt_llm": ("gt_llm",),
}
_MOST = 2**32 - 1  # largest seed, and number of turns: what random generators take


@dataclass(frozen=True)
class EvaluationSetting:
    """What is measured, and by whom.

    Args:
        what: one of `WHAT`. `all` asks a judge only if `judge.url` is given, and a language model if `judge.llm` is. What is
            left out is taken from the report of before, if it is of the same conversations.
        vad: what finds the agent's speech: energy or silero.
        asr_turns: agent turns of each set and voice that the recogniser hears; None: all; 0: none.
        recogniser: `whisper-tiny.en`, or the path of a model.
        utmos, dnsmos, ecapa2: files of these scorers.
        voice: a recording of the voice that the agent should have.
        judge: who gives the GPT score.
        control_turns: conversations that tell something when they are played again with the interrupter muted; 0: no controls.
        examples: conversations in report.html with picture and sound.
        workers: processes that listen and judge.
        seed: of everything random.

    Raises:
        InputError: for a number out of range, or a word that is not known.

    Examples:
        >>> EvaluationSetting(what="speech").parts
        ('speech',)
    """

    what: str = "all"
    vad: str = "energy"
    asr_turns: int | None = 60
    recogniser: str = "whisper-tiny.en"
    utmos: str | None = None
    dnsmos: str | None = None
    ecapa2: str | None = None
    voice: str | None = None
    judge: JudgeSetting = field(default_factory=JudgeSetting)
    control_turns: int = 5
    examples: int = 6
    workers: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.what not in WHAT:
            raise InputError(f"what={self.what}: expected one of {', '.join(WHAT)}.{did_you_mean(self.what, WHAT)}")
        for key in ("asr_turns", "control_turns", "examples", "seed"):
            number = getattr(self, key)
            if number is not None and not 0 <= number <= _MOST:
                raise InputError(f"{key}={number}: expected 0 to {_MOST}.")
        if self.workers < 1:
            raise InputError(f"workers={self.workers}: expected 1 or more processes.")

    @property
    def parts(self) -> tuple[str, ...]:
        """Of `PARTS`, those that are measured. A judge costs money or hours, so `all` asks one only if it is named."""
        asked = {"judge": self.judge.url, "gt_llm": self.judge.llm}
        return tuple(part for part in WHAT[self.what] if self.what != "all" or asked.get(part, "always"))
