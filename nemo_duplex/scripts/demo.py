"""The demo's workflow: which script runs with which keys, and how the minutes are shared out.

corpus ──┬── (codec ∥ encoder) ──┬── codes ── train ── evaluate
         └── or the bundled ones ┘
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nemo_duplex.scripts.chain import EVALUATION, NETWORK, PACKAGE, Scripts
from nemo_duplex.scripts.workflow import Step

BUNDLED_ENCODER = PACKAGE / "bundled" / "user_encoder.nemo"
BUNDLED_CODEC = PACKAGE / "bundled" / "agent_codec.nemo"
BUNDLED_OPEN_ENCODER = PACKAGE / "bundled" / "open_encoder.nemo"
BUNDLED_VOICE_CODEC = PACKAGE / "bundled" / "voice_codec.nemo"

#: Minutes of the whole demo on two cores, without and with the training of encoder and codec.
MINUTES, MINUTES_FROM_SCRATCH = 20.0, 45.0
#: Share of the minutes that encoder and codec take, side by side, from scratch.
_PARTS = 0.45
#: Shares of the minutes that are left; the training stops by the clock, the others are given as much as fits in it.
_SHARES = {"synthesize": 0.06, "codes": 0.06, "train": 0.7, "evaluate": 0.18}
#: Per minute left: hours of training dialogues (0.25 are 5 h in 20 minutes), dialogues to evaluate on in each set.
_HOURS, _DIALOGUES = 0.25, 3.0
# What encoder and codec learn without in their minutes. Of voices as clear as the demo's, an encoder has 1.3 % word errors
# after nine minutes without augmentation of the audio, with it 2.5 %.
_EFFECTS = ("room", "babble", "noise", "lowpass", "tilt", "clipping", "telephone", "packet_loss")
_LEFT_OUT = {
    "codec": ["adversarial=null"],
    "encoder": ["augmentation.speed=[1.0,1.0]", *(f"augmentation.{effect}=0" for effect in _EFFECTS)],
}
#: Sentences of the agent's voice that a codec is trained on, per minute of its training (1500 in 20 minutes).
_SENTENCES = 75


@dataclass(frozen=True)
class DemoVoices:
    """Who speaks in the demo, and the bundled parts that know them.

    Args:
        agent: engine of its voice.
        users: engines of their voices, with weights, as `user_voices` of `synthesize.py` takes them.
        codec_config: of a codec for the agent's voice (conf/codec).
        encoder, codec: `.nemo` files.
    """

    agent: str
    users: str
    codec_config: str
    encoder: Path
    codec: Path


#: By the demo's key `voices`. The first one needs the packages of the extra `voices`; the bundled encoder knows eSpeak's alone.
VOICES = {
    "hibari": DemoVoices("hibari", "{espeak: 1}", "voice", BUNDLED_ENCODER, BUNDLED_VOICE_CODEC),
    "espeak": DemoVoices("espeak", "{espeak: 1}", "small", BUNDLED_ENCODER, BUNDLED_CODEC),
}


@dataclass(frozen=True)
class Demo:
    """What the demo is asked for.

    Args:
        out: folder of everything.
        examples: folder of the scripts.
        voices: who speaks, and the encoder and codec to take unless from scratch.
        minutes: for the whole demo; None takes the default.
        from_scratch: whether encoder and codec are trained too.
        seed: of the corpus and of every training.
    """

    out: Path
    examples: Path
    voices: DemoVoices
    minutes: float | None = None
    from_scratch: bool = False
    seed: int = 0

    def plan(self) -> list[list[Step]]:
        """The steps in order, those that run side by side in one list."""
        steps = [[self._corpus()], [self._codes()], [self._training()], [self._evaluation()]]
        if self.from_scratch:
            codec = self._part("codec", "trains the agent's voice", "codec")
            encoder = self._part("encoder", "trains the user encoder", "perception")
            steps.insert(1, [codec, encoder])
        return steps

    # ------------------------------------------------------------------ what the steps share

    @property
    def _scripts(self) -> Scripts:
        return Scripts(self.examples)

    @property
    def _total_minutes(self) -> float:
        return self.minutes or (MINUTES_FROM_SCRATCH if self.from_scratch else MINUTES)

    @property
    def _part_minutes(self) -> float:
        """Minutes of encoder and codec, side by side."""
        return _PARTS * self._total_minutes if self.from_scratch else 0.0

    @property
    def _minutes_left(self) -> float:
        return self._total_minutes - self._part_minutes

    @property
    def _dialogues(self) -> int:
        """Dialogues of each set to evaluate on."""
        return max(4, round(_DIALOGUES * self._minutes_left))

    @property
    def _encoder_and_codec(self) -> tuple[Path, Path]:
        """Files of the trained parts, or of the given ones."""
        if self.from_scratch:
            return self.out / "encoder" / "encoder.nemo", self.out / "codec" / "codec.nemo"
        return self.voices.encoder, self.voices.codec

    @property
    def _given(self) -> list[Path]:
        """Parts that no step makes, so that the steps which read them depend on their files."""
        return [] if self.from_scratch else [self.voices.codec, self.voices.encoder]

    @property
    def _corpus_keys(self) -> list[str]:
        sets = ["train", "dev", "impatient", *(["agent"] if self.from_scratch else [])]
        keys = [
            f"out={self.out}/corpus",
            f"seed={self.seed}",
            f"hours={max(0.05, _HOURS * self._minutes_left):.2f}",
            "duration=12.8",
            f"agent_voice={self.voices.agent}",
            f"user_voices.train={self.voices.users}",
            f"user_voices.dev={self.voices.users}",
            "long_answers=0",  # a small agent learns the short ones in the time there is
            "read_aloud=0",
            f"dev={self._dialogues}",
            f"sets=[{','.join(sets)}]",
        ]
        return [*keys, f"agent_utterances={round(_SENTENCES * self._part_minutes)}"] if self.from_scratch else keys

    # ------------------------------------------------------------------ the steps

    def _corpus(self) -> Step:
        return Step(
            "synthesize",
            "speaks dialogues into a two-channel corpus",
            self._scripts.command("synthesize", self._corpus_keys),
            outputs=["corpus"],
            reads=self._scripts.reads("synthesize", ["synthesize.yaml"], ["synthesis"]),
            minutes=_SHARES["synthesize"] * self._minutes_left,
        )

    def _part(self, name: str, about: str, room: str) -> Step:
        keys = [
            f"data={self.out}/corpus",
            f"out={self.out}/{name}",
            f"minutes={self._part_minutes:.2f}",
            "threads=1",
            f"seed={self.seed}",
            *_LEFT_OUT[name],
            *([f"codec={self.voices.codec_config}"] if name == "codec" else []),
        ]
        return Step(
            name,
            about,
            self._scripts.command(f"train_{name}", keys),
            outputs=[name],
            reads=self._scripts.reads(f"train_{name}", [f"train_{name}.yaml"], [room, "training"]),
            after=["synthesize"],
            minutes=self._part_minutes,
        )

    def _codes(self) -> Step:
        _, codec = self._encoder_and_codec
        return Step(
            "codes",
            "encodes the agent's channel, once",
            self._scripts.command("synthesize", [*self._corpus_keys, f"codec={codec}"]),
            outputs=["corpus/*/shar/target_codes.*", "corpus/*/state/target_codes*"],
            reads=[*self._scripts.reads("synthesize", [], ["codec"]), *self._given],
            after=["synthesize", *(["codec"] if self.from_scratch else [])],
            minutes=_SHARES["codes"] * self._minutes_left,
        )

    def _training(self) -> Step:
        encoder, codec = self._encoder_and_codec
        minutes = _SHARES["train"] * self._minutes_left
        keys = [
            "--config-name=duplex_tiny",
            f"data.train={self.out}/corpus",
            f"data.validation={self.out}/corpus",
            f"out={self.out}/train",
            f"minutes={minutes:.2f}",
            f"seed={self.seed}",
            f"model.pretrained_asr={encoder}",
            f"model.pretrained_audio_codec={codec}",
        ]
        reads = self._scripts.reads("train_duplex", ["duplex_tiny.yaml"], [*NETWORK, "codec", "data", "training"])
        return Step(
            "train",
            "trains the duplex agent",
            self._scripts.command("train_duplex", keys),
            outputs=["train"],
            reads=[*reads, *self._given],
            after=["codes", *(["codec", "encoder"] if self.from_scratch else [])],
            minutes=minutes,
        )

    def _evaluation(self) -> Step:
        keys = [
            f"model={self.out}/train/agent.nemo",
            f"data={self.out}/corpus",
            f"out={self.out}",
            f"seed={self.seed}",
            f"asr_turns={self._dialogues}",
            "overwrite=true",  # the demo's last agent may be another
        ]
        return Step(
            "evaluate",
            "lets the agent talk, and measures how it does",
            self._scripts.command("evaluate", keys),
            outputs=EVALUATION,
            reads=self._scripts.reads("evaluate", ["evaluate.yaml"], [*NETWORK, "codec", "evaluation", "streaming"]),
            after=["train"],
            minutes=_SHARES["evaluate"] * self._minutes_left,
        )
