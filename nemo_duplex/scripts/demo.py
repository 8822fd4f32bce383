"""The demo's workflow: which script runs with which keys, and how the minutes are shared out.

corpus ──┬── (codec ∥ encoder) ──┬── codes ── train ── evaluate
         └── or the bundled ones ┘
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nemo_duplex.scripts.config import conf_folder
from nemo_duplex.scripts.workflow import Step

_PACKAGE = Path(__file__).parents[1]
BUNDLED_ENCODER = _PACKAGE / "bundled" / "user_encoder.nemo"
BUNDLED_CODEC = _PACKAGE / "bundled" / "agent_codec.nemo"

#: Minutes of the whole demo on two cores, without and with the training of encoder and codec.
MINUTES, MINUTES_FROM_SCRATCH = 20.0, 45.0
#: Share of the minutes that encoder and codec take, side by side, from scratch.
_PARTS = 0.45
#: Shares of the minutes that are left; the training stops by the clock, the others are given as much as fits in it.
_SHARES = {"synthesize": 0.06, "codes": 0.06, "train": 0.7, "evaluate": 0.18}
#: Per minute left: hours of training dialogues (0.25 are 5 h in 20 minutes), dialogues to evaluate on in each set.
_HOURS, _DIALOGUES = 0.25, 3.0
#: Rooms that the network is made of.
_NETWORK = ("llm", "perception", "models")
#: Sentences of the agent's voice that a codec is trained on, per minute of its training (1500 in 20 minutes).
_SENTENCES = 75


@dataclass(frozen=True)
class Demo:
    """What the demo is asked for.

    Args:
        out: folder of everything.
        examples: folder of the scripts.
        minutes: for the whole demo; None takes the default.
        from_scratch: whether encoder and codec are trained too.
        encoder, codec: `.nemo` files, unless from scratch.
        seed: of the corpus and of every training.
    """

    out: Path
    examples: Path
    minutes: float | None = None
    from_scratch: bool = False
    encoder: Path = BUNDLED_ENCODER
    codec: Path = BUNDLED_CODEC
    seed: int = 0

    def plan(self) -> list[list[Step]]:
        """The steps in order, those that run side by side in one list."""
        total = self.minutes or (MINUTES_FROM_SCRATCH if self.from_scratch else MINUTES)
        parts = _PARTS * total if self.from_scratch else 0.0
        left = total - parts
        minutes = {name: share * left for name, share in _SHARES.items()}
        out, seed, made = self.out, f"seed={self.seed}", ["codec", "encoder"] if self.from_scratch else []
        codec = out / "codec" / "codec.nemo" if made else self.codec
        encoder = out / "encoder" / "encoder.nemo" if made else self.encoder
        given = [] if made else [codec, encoder]

        sets = ["train", "dev", "impatient", *(["agent"] if made else [])]
        dialogues = max(4, round(_DIALOGUES * left))
        corpus = [f"out={out}/corpus", seed, f"hours={max(0.05, _HOURS * left):.2f}", "duration=12.8", f"dev={dialogues}"]
        corpus += [f"sets=[{','.join(sets)}]", *([f"agent_utterances={round(_SENTENCES * parts)}"] if made else [])]
        train = ["--config-name=duplex_tiny", f"data.train={out}/corpus", f"data.validation={out}/corpus", f"out={out}/train"]
        train += [f"minutes={minutes['train']:.2f}", seed]
        train += [f"model.pretrained_asr={encoder}", f"model.pretrained_audio_codec={codec}"]
        judge = [f"model={out}/train/agent.nemo", f"data={out}/corpus", f"out={out}", seed, f"asr_turns={dialogues}"]

        def part(name: str, about: str, room: str) -> Step:
            keys = [f"data={out}/corpus", f"out={out}/{name}", f"minutes={parts:.2f}", "threads=1", seed]
            reads = self._reads(f"train_{name}", [f"train_{name}.yaml"], [room, "training"])
            return Step(name, about, self._command(f"train_{name}", keys), [name], reads, ["synthesize"], parts)

        first = Step(
            "synthesize",
            "speaks dialogues into a two-channel corpus",
            self._command("synthesize", corpus),
            ["corpus"],
            self._reads("synthesize", ["synthesize.yaml"], ["synthesis"]),
            minutes=minutes["synthesize"],
        )
        codes = Step(
            "codes",
            "encodes the agent's channel, once",
            self._command("synthesize", [*corpus, f"codec={codec}"]),
            ["corpus/*/shar/target_codes.*", "corpus/*/state/target_codes*"],
            [*self._reads("synthesize", [], ["codec"]), *given],
            ["synthesize", *made[:1]],
            minutes["codes"],
        )
        training = Step(
            "train",
            "trains the duplex agent",
            self._command("train_duplex", train),
            ["train"],
            [
                *self._reads("train_duplex", ["duplex_tiny.yaml"], [*_NETWORK, "codec", "data", "training"]),
                *given,
            ],
            ["codes", *made],
            minutes["train"],
        )
        evaluation = Step(
            "evaluate",
            "lets the agent talk, and measures how it does",
            self._command("evaluate", judge),
            ["report.json", "report.html", "conversation.wav", "events.csv", "timelines"],
            self._reads("evaluate", ["evaluate.yaml"], [*_NETWORK, "codec", "evaluation", "streaming"]),
            ["train"],
            minutes["evaluate"],
        )
        trained = [part("codec", "trains the agent's voice", "codec"), part("encoder", "trains the user encoder", "perception")]
        return [[first], *([trained] if made else []), [codes], [training], [evaluation]]

    def _command(self, verb: str, keys: Sequence[str]) -> list[str]:
        return [sys.executable, str(self.examples / f"{verb}.py"), *keys]

    def _reads(self, verb: str, configurations: Sequence[str], rooms: Sequence[str]) -> list[Path]:
        """What a script depends on: itself, its configurations, the vocabulary, and the rooms that it calls."""
        vocabulary = [_PACKAGE / name for name in ("frames.py", "conversation.py", "channels")]
        configured = [conf_folder() / name for name in configurations]
        return [self.examples / f"{verb}.py", *configured, *vocabulary, *(_PACKAGE / room for room in rooms)]
