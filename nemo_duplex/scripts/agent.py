"""The workflow of an agent with a pretrained language model: which script runs with which keys, and how the hours are shared.

texts ── bank ── (ear, codec) ── corpus ── train ── evaluate

    out/settings/talk.yaml     the data: conf/data/voices.yaml with the texts and the bank of this folder
    out/settings/bank.yaml     the same for make_bank.py
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.scripts.chain import EVALUATION, NETWORK, Scripts
from nemo_duplex.scripts.workflow import Step

#: Shares of the hours; ear and codec from nothing take theirs from the training's.
_SHARES = {"texts": 0.1, "bank": 0.15, "ear": 0.15, "codec": 0.0, "corpus": 0.03, "train": 0.5, "evaluate": 0.07}
_FROM_NOTHING = {"ear": 0.15, "codec": 0.12}
#: SmolLM2 writes 2,800 dialogues an hour on two cores; in their share of time the bank's voices speak what so many need.
_DIALOGUES_PER_HOUR = 2000
_LEAST_DIALOGUES = 40
#: Conversations of each set to evaluate on, for each minute of its share.
_EVALUATED_PER_MINUTE = 1.5

_TALK = """# @package _global_
# The data of this agent, for synthesize.py and for train_duplex.py data.compose=...
defaults: [data/voices, _self_]

seed: {seed}
bank: {out}/bank
takes: 2
datasets:
  everyday:
    source: [{out}/texts/dialogues.jsonl]
"""
_BANK = """# @package _global_
# The same, for make_bank.py.
defaults: [make_bank, talk, _self_]

manifests: true
"""


@dataclass(frozen=True)
class Agent:
    """What `make agent` is asked for.

    Args:
        out: folder of everything.
        examples: folder of the scripts.
        hours: for everything, on two cores.
        llm: as `pretrained_llm` takes it.
        ear: `.nemo` to go on from; None: from nothing.
        codec: `.nemo`; None: one is trained.
        seed: of texts, corpora and trainings.
    """

    out: Path
    examples: Path
    hours: float
    llm: str
    ear: Path | None
    codec: Path | None
    seed: int = 0

    def write_settings(self) -> None:
        """Writes what the steps take as their configurations; what is as it should be stays."""
        self._settings.mkdir(parents=True, exist_ok=True)
        for name, text in (("talk", _TALK), ("bank", _BANK)):
            path, text = self._settings / f"{name}.yaml", text.format(out=self.out.resolve(), seed=self.seed)
            if not path.is_file() or path.read_text() != text:
                with whole_file(path) as part:
                    part.write_text(text)

    def plan(self) -> list[list[Step]]:
        """The steps in order, those that run side by side in one list."""
        parts = [self._ear(), *([] if self.codec else [self._codec()])]
        return [[self._texts()], [self._bank()], parts, [self._corpus()], [self._training()], [self._evaluation()]]

    # ------------------------------------------------------------------ what the steps share

    @property
    def _scripts(self) -> Scripts:
        return Scripts(self.examples)

    @property
    def _settings(self) -> Path:
        return self.out / "settings"

    @property
    def _talk(self) -> list[str]:
        return [f"--config-dir={self._settings.resolve()}", "--config-name=talk"]

    @property
    def _codec_file(self) -> Path:
        return self.codec or self.out / "codec" / "codec.nemo"

    def _minutes(self, name: str) -> float:
        extra = {"ear": 0.0 if self.ear else _FROM_NOTHING["ear"], "codec": 0.0 if self.codec else _FROM_NOTHING["codec"]}
        share = _SHARES[name] + extra.get(name, 0.0)
        if name == "train":  # ear and codec are trained side by side
            share -= max(0.0, max(_SHARES["ear"] + extra["ear"], extra["codec"]) - _SHARES["ear"])
        return 60 * self.hours * share

    @property
    def _evaluated(self) -> int:
        """Conversations of each set to evaluate on."""
        return max(4, round(_EVALUATED_PER_MINUTE * self._minutes("evaluate")))

    # ------------------------------------------------------------------ the steps

    def _texts(self) -> Step:
        count = max(_LEAST_DIALOGUES, round(_DIALOGUES_PER_HOUR * self._minutes("texts") / 60))
        return Step(
            "texts",
            "SmolLM2 writes everyday dialogues",
            self._scripts.command("write_dialogues", [f"out={self.out}/texts", f"count={count}", f"seed={self.seed}"]),
            outputs=["texts"],
            reads=self._scripts.reads("write_dialogues", ["write_dialogues.yaml"], ["synthesis/writing"]),
            minutes=self._minutes("texts"),
        )

    def _bank(self) -> Step:
        keys = [f"--config-dir={self._settings.resolve()}", "--config-name=bank", f"out={self.out}/bank"]
        return Step(
            "bank",
            "voices speak what the dialogues need, once",
            self._scripts.command("make_bank", keys),
            outputs=["bank"],
            reads=[*self._scripts.reads("make_bank", ["make_bank.yaml"], ["synthesis"]), self._settings],
            after=["texts"],
            minutes=self._minutes("bank"),
        )

    def _ear(self) -> Step:
        spoken = self.out / "bank" / "manifests" / "everyday"
        keys = [
            f"manifests=[{spoken}/user_train.jsonl,{spoken}/agent_train.jsonl]",
            f"held_out=[{spoken}/user_dev.jsonl]",
            f"out={self.out}/ear",
            f"minutes={self._minutes('ear'):.2f}",
            f"seed={self.seed}",
            f"threads={2 if self.codec else 1}",
            *(
                [f"init={self.ear}", "aligned=0", "rate=5e-4", "matrix_rate=1e-3"]
                if self.ear
                else ["tokenizer_size=1024", "encoder.d_model=176"]
            ),
        ]
        return Step(
            "ear",
            "trains the user encoder on the users' voices",
            self._scripts.command("train_encoder", keys),
            outputs=["ear"],
            reads=[
                *self._scripts.reads("train_encoder", ["train_encoder.yaml"], ["perception", "training"]),
                *_given(self.ear),
            ],
            after=["bank"],
            minutes=self._minutes("ear"),
        )

    def _codec(self) -> Step:
        keys = [
            f"data={self.out}/bank/manifests/everyday/agent_train.jsonl",
            f"out={self.out}/codec",
            f"minutes={self._minutes('codec'):.2f}",
            f"seed={self.seed}",
            "threads=1",
            "codec=voice",
        ]
        return Step(
            "codec",
            "trains the agent's voice",
            self._scripts.command("train_codec", keys),
            outputs=["codec"],
            reads=self._scripts.reads("train_codec", ["train_codec.yaml"], ["codec", "training"]),
            after=["bank"],
            minutes=self._minutes("codec"),
        )

    def _corpus(self) -> Step:
        keys = [*self._talk, f"out={self.out}/corpus", f"dev={self._evaluated}", "sets=[dev,impatient]", "scale=0"]  # no train
        return Step(
            "corpus",
            "speaks conversations to validate and to evaluate on",
            self._scripts.command("synthesize", [*keys, f"codec={self._codec_file}"]),
            outputs=["corpus"],
            reads=[
                *self._scripts.reads("synthesize", ["synthesize.yaml"], ["synthesis", "codec"]),
                self._settings,
                *_given(self.codec),
            ],
            after=["bank", *([] if self.codec else ["codec"])],
            minutes=self._minutes("corpus"),
        )

    def _training(self) -> Step:
        keys = [
            "--config-name=duplex_smollm",
            f"data.compose={self._settings.resolve()}/talk.yaml",
            f"data.validation={self.out}/corpus",
            f"out={self.out}/train",
            f"minutes={self._minutes('train'):.2f}",
            f"seed={self.seed}",
            f"model.pretrained_llm={self.llm}",
            f"model.pretrained_asr={self.out}/ear/encoder.nemo",
            f"model.pretrained_audio_codec={self._codec_file}",
        ]
        rooms = [*NETWORK, "codec", "data", "training"]
        configurations = ["duplex_tiny.yaml", "duplex_smollm.yaml"]
        return Step(
            "train",
            "trains the duplex agent, on dialogues that are made meanwhile",
            self._scripts.command("train_duplex", keys),
            outputs=["train"],
            reads=[*self._scripts.reads("train_duplex", configurations, rooms), self._settings],
            after=["ear", "corpus"],
            minutes=self._minutes("train"),
        )

    def _evaluation(self) -> Step:
        keys = [
            f"model={self.out}/train/agent.nemo",
            f"data={self.out}/corpus/questions",  # which have known answers
            f"out={self.out}",
            f"seed={self.seed}",
            f"asr_turns={self._evaluated}",
            "overwrite=true",  # the last agent here may be another
        ]
        return Step(
            "evaluate",
            "lets the agent talk, and measures how it does",
            self._scripts.command("evaluate", keys),
            outputs=EVALUATION,
            reads=self._scripts.reads("evaluate", ["evaluate.yaml"], [*NETWORK, "codec", "evaluation", "streaming"]),
            after=["train"],
            minutes=self._minutes("evaluate"),
        )


def _given(part: Path | None) -> list[Path]:
    """The file of a part that no step makes, so that what is made with it depends on it."""
    return [] if part is None else [part]
