"""A whole corpus: which shards it has, what makes them, what is written about them."""

from __future__ import annotations

import hashlib
import json
import math
import socket
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, cast

from lhotse import MonoCut
from tqdm import tqdm

from nemo_duplex.files.atomic import require_space, whole_file
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.corpus_spec import CorpusSpec
from nemo_duplex.synthesis.corpus_summary import LeftOut, summarize
from nemo_duplex.synthesis.cuts import DialogueSet, utterance_cut
from nemo_duplex.synthesis.executors import run_locally
from nemo_duplex.synthesis.opened_corpus import OpenedCorpus
from nemo_duplex.synthesis.ray_executor import RayCluster, run_on_ray
from nemo_duplex.synthesis.shards import Shard, are_marked, begin, clear, require_slices_stay, shards_of
from nemo_duplex.synthesis.spoken_turns import agent_utterance
from nemo_duplex.synthesis.tts.utterance import Utterance

SETS = ("train", "dev", "impatient", "agent")

_SHARD_SIZE = {"train": 50, "dev": 50, "impatient": 50, "agent": 300}
_FIELDS = {name: ("recording", "target_audio") for name in SETS} | {"agent": ("recording",)}
_MEAN = Path("train", "state", "mean.json")
_PILOT = 50  # dialogues whose mean length tells how many make the hours asked for, within some 5 %
_LIKELY: dict[str, Seconds] = {"dev": 30.0, "impatient": 25.0, "agent": 4.0}  # of an item, to know the space it takes
_BYTES_PER_HOUR = 90e6  # FLAC; 83 MB were measured with eSpeak and 87 MB with hibari


def synthesize(
    spec: CorpusSpec,
    out: Path,
    sets: Sequence[str] = SETS,
    workers: int | None = 1,
    slice: tuple[int, int] = (0, 1),
    overwrite: bool = False,
    cluster: RayCluster | None = None,
    check_hashes: bool = True,
) -> dict[str, Any] | None:
    """Makes the sets of a corpus, or what is missing in them.

    Args:
        spec: the corpus.
        out: its folder.
        sets: of `SETS`.
        workers: shards at once; None: one per CPU core, on a cluster as many as there is room for.
        slice: (i, n): only every n-th shard from i on, for one of n jobs on one folder.
        overwrite: whether to remove all sets from the folder first.
        cluster: of Ray, whose nodes make the shards; None: local processes make them.
        check_hashes: whether shards that are there are compared with their hashes, or only with their sizes.

    Returns:
        What `corpus.json` says; None while shards of other slices are missing.

    Raises:
        InputError: for an unknown set, a source that cannot be read or spoken, a folder made with other settings, a full disk.
    """
    if not sets:
        raise InputError(f"sets=[]: expected some of {', '.join(SETS)}.")
    if workers is not None and workers < 1:
        raise InputError(f"workers={workers}: expected 1 or more processes.")
    for name in sets:
        if name not in SETS:
            raise InputError(f"sets: {name!r} is none of {', '.join(SETS)}.")
    require_slices_stay(overwrite, slice)
    maker = _maker(spec)
    if overwrite:
        for name in SETS:
            clear(out, name)
    for name in dict.fromkeys((*sets, *SETS)):
        begin(out, name, maker.fingerprint)
    planned = {name: maker.shards(name, out) for name in SETS if name in sets or (out / name / "state").is_dir()}
    shards = [shard for name in sets for shard in planned[name]]
    todo = [shard for shard in shards[slice[0] :: slice[1]] if shard.done(out, check_hashes) is None]
    hours = sum(maker.seconds_per_item(shard.set_name, out) * shard.count for shard in todo) / 3600
    require_space(out, int(hours * _BYTES_PER_HOUR))
    if "train" in planned:
        maker.keep_mean(out)
    with tqdm(total=sum(s.count for s in todo), desc="synthesis", unit=" cuts", disable=not todo, delay=2) as progress:
        make = partial(_make_shard, spec, out)
        with closing(run_on_ray(make, todo, workers, cluster, out) if cluster else run_locally(make, todo, workers)) as markers:
            for marker in markers:
                progress.update(marker["shard"]["count"])
    if not all(are_marked(out, planned[name]) for name in sets):
        return None
    summary = summarize(maker, planned, out)
    return summary if all(name in summary["sets"] or not planned[name] for name in sets) else None


def source_summary(spec: CorpusSpec) -> list[str]:
    """What of a corpus' source and voices is used and what is left out, as lines to print; none where all is built in."""
    return _maker(spec).summary()


class _Maker(OpenedCorpus):
    """Makes the shards of one spec in one process."""

    def shards(self, set_name: str, out: Path) -> list[Shard]:
        return shards_of(set_name, self._num_items(set_name, out), _SHARD_SIZE[set_name], self.fingerprint)

    def make(self, shard: Shard, out: Path) -> dict[str, Any]:
        content: dict[str, Any] = {}
        cuts = self._utterances(shard, content) if shard.set_name == "agent" else self._dialogues(shard, content)
        return shard.write(out, cuts, _FIELDS[shard.set_name], content)

    def seconds_per_item(self, set_name: str, out: Path) -> Seconds:
        """Mean length of the first dialogues of train, which decides how many there are; a guess for the other sets.

        The mean is kept in the folder: of a thousand jobs on it, not each has to speak to know it.
        """
        if set_name != "train":
            return _LIKELY[set_name]
        if self.spec.dialogues.duration is not None:
            return self.spec.dialogues.duration
        kept = _mean_of(out / _MEAN, self.fingerprint)
        return self._mean_seconds if kept is None else kept

    def keep_mean(self, out: Path) -> None:
        """Writes the mean length of the dialogues of train, if it was needed."""
        if self.spec.dialogues.duration is None and self.spec.hours and _mean_of(out / _MEAN, self.fingerprint) is None:
            with whole_file(out / _MEAN) as path:
                path.write_text(json.dumps({"fingerprint": self.fingerprint, "seconds_per_dialogue": self._mean_seconds}))

    @cached_property
    def _mean_seconds(self) -> Seconds:
        lengths = [self.dialogues.spoken("train", index).conversation.duration for index in range(_PILOT)]
        return sum(lengths) / len(lengths)

    def _agent_utterance(self, text: str) -> Utterance:
        return agent_utterance(text, self.cast, self.source.language_of(text), self.spec.dialogues.longest_turn)

    @cached_property
    def agent_texts(self) -> list[str]:
        return self.source.agent_texts(self.spec.agent_utterances)

    def _num_items(self, set_name: str, out: Path) -> int:
        if set_name == "train":
            return math.ceil(self.spec.hours * 3600 / self.seconds_per_item("train", out) - 1e-6) if self.spec.hours else 0
        return len(self.agent_texts) if set_name == "agent" else self.spec.dev

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.made_of, sort_keys=True).encode()).hexdigest()[:16]

    def _dialogues(self, shard: Shard, content: dict[str, Any]) -> Iterator[MonoCut]:
        counts: Counter[str] = Counter()
        texts: set[str] = set()
        voices: set[str] = set()
        left_out: LeftOut = {}
        for index in range(shard.first, shard.first + shard.count):
            cut = self.dialogues.cut(cast(DialogueSet, shard.set_name), index)
            counts.update(_events(cut))
            for name, (reason, detail) in (cut.custom.get("left_out") or {}).items():
                left_out.setdefault(reason, {})[f"dialogue {name}"] = detail
            texts |= {s.custom.get("full_text", s.text) for s in cut.supervisions}
            voices.add(cut.custom["voice"])
            yield cut
        content |= {"counts": dict(counts), "texts": sorted(texts), "voices": sorted(voices), "left_out": left_out}

    def _utterances(self, shard: Shard, content: dict[str, Any]) -> Iterator[MonoCut]:
        num_cuts, seconds = 0, 0.0
        dataset = self.spec.dialogues.dataset
        begins = f"{dataset}-agent" if dataset else "agent"
        left_out: LeftOut = {}
        for index, text in enumerate(self.agent_texts[shard.first : shard.first + shard.count], shard.first):
            try:
                spoken = self._agent_utterance(text)
            except OddRow as odd:
                left_out.setdefault(odd.reason, {})[f"answer {index}"] = odd.detail
                continue
            num_cuts, seconds = num_cuts + 1, seconds + spoken.duration
            yield utterance_cut(f"{begins}-{index:06d}", spoken)
        counts = {"cuts": num_cuts, "seconds": round(seconds, 3)}
        content |= {"counts": counts, "texts": [], "voices": [self.cast.agent.id], "left_out": left_out}


def _mean_of(path: Path, fingerprint: str) -> Seconds | None:
    try:
        kept = json.loads(path.read_text())
        return float(kept["seconds_per_dialogue"]) if kept["fingerprint"] == fingerprint else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


@lru_cache(maxsize=1)
def _maker(spec: CorpusSpec) -> _Maker:
    return _Maker(spec)


def _make_shard(spec: CorpusSpec, out: Path, shard: Shard) -> dict[str, Any]:
    maker = _maker(spec)
    if maker.fingerprint != shard.fingerprint:
        raise InputError(
            f"{socket.gethostname()} has other sources or voices than the machine that planned the corpus: install the same "
            "packages there, and change no file of `source` while a corpus is made."
        )
    return maker.make(shard, out)


def _events(cut: MonoCut) -> dict[str, float]:
    """Counts what happens in a cut."""
    user = [s.custom for s in cut.supervisions if s.speaker == "user"]
    agent = [s.custom for s in cut.supervisions if s.speaker == "agent"]
    interrupts = cut.custom.get("interrupts", [])
    events = Counter(event["kind"] for event in cut.custom.get("events", ()))
    return {
        "cuts": 1,
        "seconds": cut.duration,
        "user_turns": len(user),
        "agent_turns": len(agent),
        "pauses": sum(len(turn.get("pauses", ())) for turn in user),
        "barge_ins": sum(turn.get("barge_in", False) for turn in user),
        "cut_answers": sum("cut" in turn for turn in agent),
        "unfinished_turns": sum(turn.get("unfinished", False) for turn in user + agent),
        "unseen_questions": sum(not turn["seen"] for turn in user),
        "quiet_cuts": not user,
        "onsets_after_the_first": max(len(interrupts) - 1, 0),
        "interruptions": sum(interrupts),
        **{f"event_{kind}": count for kind, count in sorted(events.items())},
    }
