"""Lets an agent answer a benchmark, and writes what the official scripts read.

Each sample is played to the agent as it is; what it says is written time-synchronous to the input, and as long. Words with
times are written too, always: the official scripts end where `output.json` is missing.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soxr
from tqdm import tqdm

from nemo_duplex.evaluation.activity import Vad, energy_vad
from nemo_duplex.evaluation.full_duplex_bench.heard_words import HeardWords, require_source, written_words
from nemo_duplex.evaluation.full_duplex_bench.samples import Sample, Version, read_tree
from nemo_duplex.evaluation.full_duplex_bench.tool_use import end_of_first_turn
from nemo_duplex.evaluation.full_duplex_bench.transcript import TimedWord, read_json, transcript, write_json
from nemo_duplex.evaluation.full_duplex_bench.wav_files import RATE, duration, fitted, read_wav, write_wav
from nemo_duplex.files.atomic import sha256, whole_file
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import InputError

if TYPE_CHECKING:
    from nemo_duplex.evaluation.generation import Agent, Reply

#: Who wrote the outputs of a sample: a file of ours beside theirs, which none of their scripts reads.
MARKER = "nemo_duplex.json"
_RESULTS = ("rating.json", "content_tag.json", "latency_intervals.json", "general_split.json", MARKER)
_INPUTS: dict[Version, tuple[str, ...]] = {
    "v1": ("input.wav",),
    "v1.5": ("input.wav", "clean_input.wav"),
    "v2": ("A.wav",),
    "v3": ("input.wav",),
}


@dataclass
class Written:
    """What was done with the samples of a benchmark.

    Args:
        written: those that the agent answered now.
        kept: those that this model had answered before.
        odd: those that were left out, by reason.
    """

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    odd: OddRows = field(default_factory=OddRows)

    def lines(self) -> list[str]:
        """For people: how many were answered, and what was left out, with the first one of each reason."""
        left_out = [
            f"left out: {found['count']} with {reason}, such as {found['first'][0]}"
            for reason, found in self.odd.describe().items()
        ]
        return [f"{len(self.written)} samples answered, {len(self.kept)} were complete", *left_out]


class Writer:
    """Writes the outputs of one agent.

    Args:
        agent: anything that generates like a DuplexS2SModel.
        model: names it: what was written under another name is another model's.
        version: of the benchmark.
        words: `recogniser` or `text_channel`, see `heard_words.py`.
        provider: in the names of v3's files.
        vad: finds the agent's speech for words of the text channel.
        device: where the user's audio is put.
        heard: recognises words; None: Whisper tiny.en.

    Raises:
        InputError: for another source of words, or a provider that cannot be part of a file's name.
        NotInstalled: if the recogniser is missing.

    Examples:
        >>> from nemo_duplex.evaluation.full_duplex_bench.from_corpus import corpus_channels, write_corpus
        >>> tasks = write_corpus(corpus_channels(corpus, ["dev"]), "v1", "bench")
        >>> writer = Writer(model, "mine", "v1", words="text_channel")
        >>> writer.write("bench", "answers").lines()    # doctest: +ELLIPSIS
        ['... samples answered, 0 were complete']
    """

    def __init__(
        self,
        agent: Agent,
        model: str,
        version: Version,
        *,
        words: str = "recogniser",
        provider: str = "nemo_duplex",
        vad: Vad = energy_vad,
        device: str = "cpu",
        heard: HeardWords | None = None,
    ) -> None:
        check_setting(words, provider)
        self._agent, self._model, self._version = agent, model, version
        self._provider, self._vad, self._device = provider, vad, device
        # the words of the user are recognised whatever those of the agent come from
        self._heard = (heard or HeardWords()) if words == "recogniser" or version != "v1" else None
        self._from_text = words == "text_channel"
        self._words = words if self._from_text or self._heard is None else self._heard.name

    def write(
        self, bench: str | Path, out: str | Path, *, batch_size: int = 8, overwrite: bool = False, progress: bool = False
    ) -> Written:
        """Answers all samples of a benchmark.

        Args:
            bench: folder of tasks, or folder of one task.
            out: the same tree with the outputs; may be `bench` itself. Samples that are complete there are kept.
            batch_size: samples at a time; they are sorted by length, so that little is padding.
            overwrite: whether to replace outputs of another model.
            progress: whether to show a bar.

        Raises:
            InputError: if there are no samples, or none of them can be used.
        """
        tree, done = read_tree(bench, self._version), Written()
        single = "" in {sample.of for sample in tree}
        jobs: list[tuple[Sample, Path]] = []
        for sample in tree:
            target = Path(out) / sample.folder.name if single else Path(out) / sample.of / sample.folder.name
            try:
                sample.check()
                if self._is_complete(sample, target):
                    done.kept.append(sample.name)
                elif not overwrite and (whose := self._of_another(target)):
                    raise OddRow("outputs of another model", whose, "Give overwrite=true, or another out.")
                else:
                    jobs.append((sample, target))
            except OddRow as odd:
                done.odd.add(odd, sample.name)
        jobs.sort(key=lambda job: -duration(self._inputs(job[0])[0]))
        with tqdm(total=len(jobs), disable=not progress, desc="samples") as bar:
            for start in range(0, len(jobs), batch_size):
                batch = jobs[start : start + batch_size]
                self._answer(batch, done)
                bar.update(len(batch))
        done.odd.check("bench", len(done.written) + len(done.kept), 1.0, "bench", "samples")
        return done

    # --- what is there already

    def _outputs(self) -> tuple[str, ...]:
        if self._version == "v1":
            return "output.wav", "output.json"
        if self._version == "v1.5":
            return "output.wav", "clean_output.wav", "output.json", "clean_output.json", "input.json", "clean_input.json"
        if self._version == "v2":
            return "B.wav", "combined.wav", "A.json", "B.json"
        return f"output_{self._provider}.wav", f"result_{self._provider}.json"

    def _inputs(self, sample: Sample) -> list[Path]:
        found = [sample.folder / name for name in _INPUTS[self._version]]
        if self._version == "v2" and not found[0].is_file():
            return [sample.folder / "input.wav"]
        return found

    def _made_of(self, sample: Sample) -> dict[str, Any]:
        """What outputs depend on."""
        inputs = {path.name: sha256(path) for path in self._inputs(sample) if path.is_file()}
        return {"model": self._model, "words": self._words, "inputs": inputs}

    def _is_complete(self, sample: Sample, target: Path) -> bool:
        marker = _marker(target)
        outputs = marker.get("outputs")
        return (
            isinstance(outputs, dict)
            and {key: marker.get(key) for key in ("model", "words", "inputs")} == self._made_of(sample)
            and set(outputs) == set(self._outputs())
            and all((target / name).is_file() and sha256(target / name) == digest for name, digest in outputs.items())
        )

    def _of_another(self, target: Path) -> str:
        """Which output is not of this model; "" if there is none."""
        if _marker(target).get("model") == self._model:
            return ""
        return next((name for name in self._outputs() if (target / name).is_file()), "")

    # --- answering

    def _answer(self, jobs: Sequence[tuple[Sample, Path]], done: Written) -> None:
        usable, signals = [], []
        for sample, target in jobs:
            try:
                heard = [read_wav(path, self._agent.user_sample_rate) for path in self._inputs(sample)]
            except OddRow as odd:
                done.odd.add(odd, sample.name)
                continue
            usable.append((sample, target))
            signals += heard
        if not usable:
            return
        replies = iter(self._replies(signals))
        for sample, target in usable:
            # begun, so that a run that ends here leaves outputs that are known as ours
            write_json(target / MARKER, self._made_of(sample))
            _copy_inputs(sample.folder, target, self._outputs())
            self._write(sample, target, [next(replies) for _ in self._inputs(sample)])
            outputs = {name: sha256(target / name) for name in self._outputs()}
            write_json(target / MARKER, self._made_of(sample) | {"outputs": outputs})
            done.written.append(sample.name)

    def _replies(self, signals: Sequence[np.ndarray]) -> list[Reply]:
        import torch

        from nemo_duplex.evaluation.generation import replies

        lens = torch.tensor([len(signal) for signal in signals], device=self._device)
        padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(signal) for signal in signals], batch_first=True)
        return list(replies(self._agent, padded.to(self._device), lens))

    def _write(self, sample: Sample, target: Path, replies: Sequence[Reply]) -> None:
        inputs = self._inputs(sample)
        sounds = [self._sound(path, reply) for path, reply in zip(inputs, replies, strict=True)]
        if self._version in ("v1", "v1.5"):
            since = sample.event()[1] if self._version == "v1" and sample.task.name == "user_interruption" else 0.0
            for path, reply, sound in zip(inputs, replies, sounds, strict=True):
                name = path.name.replace("input", "output")
                write_wav(target / name, sound)
                write_json((target / name).with_suffix(".json"), transcript(self._said(reply, sound, since)))
                if self._version == "v1.5":
                    write_json((target / path.name).with_suffix(".json"), transcript(self._heard_in(path)))
        elif self._version == "v2":
            user = read_wav(inputs[0], RATE)
            if not (target / "A.wav").is_file():
                write_wav(target / "A.wav", user)
            write_wav(target / "B.wav", sounds[0])
            write_wav(target / "combined.wav", np.stack([user, sounds[0]], axis=1))
            write_json(target / "A.json", transcript(self._heard_in(inputs[0])))
            write_json(target / "B.json", transcript(self._said(replies[0], sounds[0], 0.0)))
        else:
            write_wav(target / f"output_{self._provider}.wav", sounds[0])
            words = self._said(replies[0], sounds[0], 0.0)
            write_json(target / f"result_{self._provider}.json", self._result(sample, self._heard_in(inputs[0]), words))

    def _sound(self, path: Path, reply: Reply) -> np.ndarray:
        """(S,) at 16 kHz, as long as the input."""
        said = soxr.resample(np.asarray(reply.sound, np.float32), self._agent.agent_sample_rate, RATE)
        return fitted(said, len(read_wav(path, RATE)))

    def _said(self, reply: Reply, sound: np.ndarray, since: float) -> Sequence[TimedWord]:
        if self._from_text:
            return written_words(reply.turns, self._vad(sound, RATE), since)
        assert self._heard is not None
        return self._heard.of(sound, RATE, since)

    def _heard_in(self, path: Path) -> Sequence[TimedWord]:
        assert self._heard is not None
        return self._heard.of(read_wav(path, RATE), RATE)

    def _result(self, sample: Sample, user: Sequence[TimedWord], agent: Sequence[TimedWord]) -> dict[str, Any]:
        """The content of v3's `result_{provider}.json`; our agents call no tools."""
        scenario, _, speaker = sample.folder.name.rpartition("_")
        about, end, said = sample.annotation(), end_of_first_turn(user), transcript(agent)
        about = about if isinstance(about, dict) else {}
        result = {
            "pid": speaker,
            "example_id": str(about.get("id") or scenario),
            "category": about.get("domain", "unknown"),
            "title": about.get("title", ""),
            "provider": self._provider,
            "evaluated_at": datetime.datetime.now().isoformat(timespec="seconds"),
            "input_transcript": transcript(user)["text"],
            "input_asr_chunks": transcript(user)["chunks"],
            "user_speech_end_rel": 0 if end is None else round(end, 3),
            "transcript": said["text"],
            "asr_chunks": said["chunks"],
            "actual_tool_calls": [],
            "status": "completed",
        }
        if agent and end is not None:
            start = round(agent[0].start, 3)
            result |= {"perceived_total_latency": round(start - end, 3), "audio_agent_speech_start": start}
        return result


def _marker(target: Path) -> dict[str, Any]:
    try:
        found = read_json(target / MARKER)
    except OddRow:
        return {}
    return found if isinstance(found, dict) else {}


def _copy_inputs(source: Path, target: Path, outputs: Sequence[str]) -> None:
    """The files of a sample that are nobody's output, so that its copy is complete."""
    if source.resolve() == target.resolve():
        return
    for path in source.iterdir():
        results = path.name in (*outputs, *_RESULTS) or path.name.startswith(("output", "clean_output", "result_", "."))
        if path.is_file() and not results:
            with whole_file(target / path.name) as part:
                shutil.copyfile(path, part)


def check_setting(words: str, provider: str) -> None:
    """Checks what a Writer is given, before a model is read.

    Raises:
        InputError: for another source of words, or a provider that cannot be part of a file's name.
    """
    require_source(words)
    if not provider or any(not (c.isalnum() or c in "._-") for c in provider):
        raise InputError(f"provider={provider}: expected letters, digits, '.', '_' and '-': it becomes a part of file names.")
