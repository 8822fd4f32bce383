"""The process that measures one build, in turns with the process of another build. `turns.py` starts it and asks it.

    python one_build.py CHECKOUT '{"part": "ticks", "threads": 1, "model": "tiny"}'

It is run by its path and takes nemo_duplex from CHECKOUT, so one file measures both builds. It uses only what both have.

A line of JSON on stdin is a question, a line of JSON on stdout is the answer; whatever else is printed goes to stderr. The
first answer comes unasked, when everything is loaded: which package it is. The process ends with its input.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from torch import nn

    from nemo_duplex.data.batch import DuplexBatch
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.streaming.step_timer import StepTimer

#: Ticks before those that are measured; training steps are warmed up by the key warmup.
_WARM_UP = 24
#: Seconds of audio that a model takes whole before it is measured.
_WARM_UP_SECONDS = 2.0
#: Llama by layers, width, heads, heads of keys and values, width of the feed-forward layers, tokens.
_LLAMA = {"smollm": (30, 576, 9, 3, 1536, 49152), "smollm_tiny": (2, 32, 2, 1, 64, 64)}


class Questions:
    """Iterates over the questions; each is answered before the next is read.

    Args:
        asked, answers: streams of lines.
    """

    def __init__(self, asked: TextIO, answers: TextIO) -> None:
        self._asked, self._answers = asked, answers

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while line := self._asked.readline():
            yield json.loads(line)

    def ready(self, **figures: Any) -> None:
        """Everything is loaded: says from where."""
        self.answer(package=str(_package()), **figures)

    def answer(self, **figures: Any) -> None:
        """Plain data; `times` are lists of Seconds by figure."""
        self._answers.write(json.dumps(figures) + "\n")
        self._answers.flush()


# --- ticks of an engine -----------------------------------------------------------------------------------------------


def ticks(questions: Questions, model: str, path: str | None = None) -> None:
    """Serves callers, in ticks of 80 ms that follow each other at once, by engines of different options.

    Questions: {"simulate": N, "ticks": T}, whether N new callers have 99 of T ticks in time; {"open": N}, N callers come, at
    different times; {"ticks": T}, the next T ticks of these, rounded up to whole encoder chunks; {"save": PATH}. All but the
    last may have `options` of `model.open_engine`, each of which has its own engine.

    Args:
        model, path: as `_agent`.
    """
    from nemo_duplex.benchmark.callers import user_speech
    from nemo_duplex.benchmark.sessions import Simulation, simulate

    agent = _agent(model, path)
    audio = user_speech(None, agent.user_sample_rate)
    questions.ready()
    served: dict[str, _Served] = {}
    for question in questions:
        options = question.get("options", {})
        if "simulate" in question:
            found = simulate(agent, audio, question["simulate"], Simulation(question["ticks"], options=options))
            questions.answer(in_time=found.in_time)
        elif "open" in question:
            served[json.dumps(options)] = _Served(agent, audio, question["open"], options)
            questions.answer()
        elif "save" in question:
            agent.save_to(question["save"])
            questions.answer()
        else:
            questions.answer(times=served[json.dumps(options)].ticks(question["ticks"]))


class _Served:
    """An engine with callers, warm."""

    def __init__(self, agent: DuplexS2SModel, audio: Any, callers: int, options: dict[str, Any]) -> None:
        from nemo_duplex.benchmark.callers import Caller

        self._stages: dict[str, list[float]] = {}
        self._chunk = agent.perception.chunk_frames
        self._engine = agent.open_engine(max_sessions=callers, timer=_timer(self._stages), **options)
        users = [Caller(audio, agent.perception.samples_per_frame, number) for number in range(callers)]
        self._calls: list[tuple[Any, Any]] = []
        for tick in range(self._chunk):
            self._calls += [(user, self._engine.open_session()) for user in users[tick :: self._chunk]]
            self._tick()
        for _ in range(_WARM_UP):
            self._tick()

    def ticks(self, count: int) -> dict[str, list[float]]:
        """Seconds of each tick, and of each run of each stage."""
        self._stages.clear()
        whole = [self._tick() for _ in range(-(-count // self._chunk) * self._chunk)]
        return {"tick": whole, **{name: times for name, times in self._stages.items() if name != "step"}}

    def _tick(self) -> float:
        start = time.perf_counter()
        for user, session in self._calls:
            session.push(user.next_frame())
        self._engine.step()
        return time.perf_counter() - start


def _timer(stages: dict[str, list[float]]) -> StepTimer:
    """A timer that also notes every time in `stages`."""
    from nemo_duplex.streaming.step_timer import StepTimer

    class Noting(StepTimer):
        @contextmanager
        def stage(self, name: str) -> Iterator[None]:
            start = time.perf_counter()
            with super().stage(name):
                yield
            stages.setdefault(name, []).append(time.perf_counter() - start)

    return Noting()


# --- a whole recording ------------------------------------------------------------------------------------------------


def recording(questions: Questions, whose: str, folder: str, size: Any, seconds: float) -> None:
    """Gives a model a whole recording; each question is one run, answered with its time and the `frames` (token, codes).

    Args:
        whose: "in_tree": NeMo's model, whose checkpoint is left in `folder`; "ours": the same weights from there.
        size: of random weights, "tiny", "small" or "paper".
        seconds: of the recording.
    """
    import torch

    from nemo_duplex.benchmark.callers import user_speech
    from nemo_duplex.frames import USER_SAMPLE_RATE

    if whose == "in_tree":
        model, what = _in_tree(Path(folder), size)
    else:
        from nemo_duplex.models.interop import from_in_tree

        model, what = from_in_tree(Path(folder) / "checkpoint").eval(), ""
    audio = torch.tensor(user_speech(None, USER_SAMPLE_RATE, seconds), dtype=torch.float32)[None]
    with torch.inference_mode():
        short = audio[:, : round(_WARM_UP_SECONDS * USER_SAMPLE_RATE)]
        model.offline_inference(short, torch.tensor([short.shape[1]]))
        questions.ready(what=what)
        for _ in questions:
            start = time.perf_counter()
            answer = model.offline_inference(audio, torch.tensor([audio.shape[1]]))
            took = time.perf_counter() - start
            tokens, codes = answer["tokens_text"][0].tolist(), answer["tokens_audio"][0].tolist()
            questions.answer(times={"recording": [took]}, frames=list(zip(tokens, codes)))


def _in_tree(folder: Path, size: Any) -> tuple[nn.Module, str]:
    """NeMo's model with random weights, and what it is in words."""
    import torch
    from nemo.collections.speechlm2.models import DuplexS2SModel

    from nemo_duplex.benchmark.measured_models import describe_parts, write_parts

    config = write_parts(folder, size)
    torch.manual_seed(0)
    model = DuplexS2SModel(config)
    torch.nn.init.normal_(model.audio_head.weight, std=0.02)
    model.save_pretrained(folder / "checkpoint")
    return model.eval(), describe_parts(config)


# --- training ---------------------------------------------------------------------------------------------------------


def training(questions: Questions, model: str, keys: Sequence[str], batch: int, seconds: float, warmup: int) -> None:
    """Trains by Lightning, as examples/train_duplex.py does, on one batch. Each question asks for some {"steps": N}.

    Args:
        model: "smollm" or "smollm_tiny".
        keys: `key=value` of conf/duplex_tiny.yaml.
        batch, seconds: conversations in a step, and how long each is.
        warmup: steps before the first question.
    """
    import lightning.pytorch as pl
    from torch.utils.data import DataLoader

    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.training.trainer import lightning_trainer, trainer_arguments

    pl.seed_everything(0, verbose=False)
    with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as files:
        config, section = _smollm_config(model, Path(files), keys)
        silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        given = {**trainer_arguments(config.trainer), **dict.fromkeys(silent, False), "default_root_dir": files}
        given |= {"limit_val_batches": 0, "callbacks": [_turns_of_steps(questions, warmup)]}
        trainer = lightning_trainer("trainer", given)
        agent = DuplexS2SModel(section, trainer)
        same = [_conversations(agent, batch, seconds)] * trainer.max_steps
        trainer.fit(agent, train_dataloaders=DataLoader(same, batch_size=None))  # type: ignore[arg-type]


def _turns_of_steps(questions: Questions, warmup: int) -> Any:
    """A callback that times as many training steps as it is asked for, then waits for the next question.

    It says at first how many operations the products of the first step were, those of layers that run again included.
    """
    from lightning.pytorch import Callback
    from torch.utils.flop_counter import FlopCounterMode

    class Turns(Callback):
        def __init__(self) -> None:
            self._asked, self._steps, self._losses = iter(questions), max(1, warmup), []  # type: ignore[var-annotated]
            self._seconds: list[float] = []
            self._counter = FlopCounterMode(display=False)

        def on_train_batch_start(self, *_: Any) -> None:
            if not self._losses:
                self._counter.__enter__()
            self._start = time.perf_counter()

        def on_train_batch_end(self, trainer: Any, model: Any, outputs: Any, *_: Any) -> None:
            self._seconds.append(time.perf_counter() - self._start)
            if not self._losses:
                self._counter.__exit__(None, None, None)
            self._losses.append(float(outputs["loss"]))
            if len(self._seconds) < self._steps:
                return
            if len(self._losses) == len(self._seconds):  # the warm-up
                questions.ready(loss=self._losses[0], operations=self._counter.get_total_flops())
            else:
                questions.answer(times={"step": self._seconds})
            question, self._seconds = next(self._asked, None), []
            if question is None:
                trainer.should_stop = True
            else:
                self._steps = question["steps"]

    return Turns()


def _conversations(agent: DuplexS2SModel, batch: int, seconds: float) -> DuplexBatch:
    """Conversations of equal length: noise as loud as speech, random codes, and a turn in every four seconds."""
    import torch

    from nemo_duplex.data.batch import DuplexBatch
    from nemo_duplex.frames import FRAME_RATE

    generator, layout, frames = torch.Generator().manual_seed(1), agent.layout, round(seconds / FRAME_RATE.seconds)
    samples = frames * agent.perception.samples_per_frame
    text = torch.full((batch, frames), layout.text_pad)
    for start in range(12, frames - 30, 50):
        text[:, start], text[:, start + 30] = layout.text_bos, layout.text_eos
        text[:, start + 1 : start + 16] = torch.randint(3, layout.text_vocab_size, (batch, 15), generator=generator)
    return DuplexBatch(
        ids=[str(number) for number in range(batch)],
        user_audio=0.1 * torch.randn(batch, samples, generator=generator),
        user_audio_lens=torch.full((batch,), samples),
        agent_tokens=text,
        num_frames=torch.full((batch,), frames),
        agent_codes=torch.randint(layout.codebook_size, (batch, layout.num_codebooks, frames), generator=generator),
    )


# --- agents -----------------------------------------------------------------------------------------------------------


def _agent(name: str, path: str | None = None) -> DuplexS2SModel:
    """An agent in evaluation mode.

    Args:
        name: a size of `random_model`; "demo": the agent at `path`, None: random weights in the geometry of `make demo`;
            "smollm": random weights in the geometry of SmolLM2-135M; "smollm_tiny": the same in little.
    """
    import torch

    from nemo_duplex.benchmark.measured_models import MeasuredAgent, random_model
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel

    if name == "demo":
        return MeasuredAgent(path, None, "cpu", "32").model
    if name in _LLAMA:
        torch.manual_seed(0)
        with tempfile.TemporaryDirectory(prefix="nemo_duplex-benchmark-") as folder:
            return DuplexS2SModel(_smollm_config(name, Path(folder))[1]).eval()
    return random_model(name, "cpu", "32")  # type: ignore[arg-type]


def _smollm_config(name: str, folder: Path, keys: Sequence[str] = ()) -> tuple[Any, dict[str, Any]]:
    """conf/duplex_tiny.yaml with these keys, and its section model with a language model of this name; both parts are ours."""
    from nemo_duplex.scripts.config import load

    bundled = _package().parent / "bundled"
    ear, codec = bundled / "open_encoder.nemo", bundled / "voice_codec.nemo"
    given = ["data.train=none", "out=none", f"model.pretrained_asr={ear}", f"model.pretrained_audio_codec={codec}"]
    config = load("duplex_tiny", [*given, "model.attention_window=250", *keys])
    layers, width, heads, key_heads, feed_forward, tokens = _LLAMA[name]
    llm = {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": feed_forward,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    }
    return config, {**config.model, "llm": llm, "tokenizer": _words(folder / "tokenizer.json", tokens)}


def _words(path: Path, tokens: int) -> dict[str, Any]:
    """Writes a tokenizer of so many words; returns a `model.tokenizer:` section."""
    specials = ["<unk>", "<s>", "</s>"]
    words = [*specials, *(f"w{number}" for number in range(len(specials), tokens))]
    model = {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "<unk>"}
    path.write_text(json.dumps({"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": [], "model": model}))
    return {"model_path": str(path), "pad": "<unk>", "bos": "<s>", "eos": "</s>"}


# --- the process ------------------------------------------------------------------------------------------------------

PARTS: dict[str, Callable[..., None]] = {"ticks": ticks, "recording": recording, "training": training}


def take_package(checkout: Path) -> None:
    """Makes `checkout` the place of nemo_duplex, before anything else that is installed or named in PYTHONPATH.

    Ends the process if it is found somewhere else all the same.
    """
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(checkout), *(place for place in sys.path if Path(place).resolve() != here)]
    if not _package().resolve().is_relative_to(checkout.resolve()):
        sys.exit(f"nemo_duplex is that of {_package()}, expected that of {checkout}.")


def _package() -> Path:
    """The file of the package that is imported."""
    import nemo_duplex.version

    return Path(nemo_duplex.__file__)


def main() -> None:
    """Loads what it is told to, then answers."""
    given = json.loads(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print
    take_package(Path(sys.argv[1]))
    import torch

    from nemo_duplex.scripts.cli import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(given.pop("threads"))
    PARTS[given.pop("part")](Questions(sys.stdin, answers), **given)


if __name__ == "__main__":
    main()
