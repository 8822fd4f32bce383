"""Checks a corpus: what is wrong with its shards, turns, events, sound, texts, codes, and with what its sets share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from lhotse.cut import Cut
from tqdm import tqdm

from nemo_duplex.conversation import Speaker, holds
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.frames import Seconds
from nemo_duplex.synthesis.executors import run_locally
from nemo_duplex.synthesis.inspection.channel_checks import check_channels, check_codes
from nemo_duplex.synthesis.inspection.findings import Findings
from nemo_duplex.synthesis.inspection.sets import CorpusSet, SetShard, corpus_sets, speakers_of, summary_of
from nemo_duplex.synthesis.inspection.split_checks import Met, check_rates, check_splits, hashed, repeated
from nemo_duplex.synthesis.inspection.text_fit import check_text, token_count
from nemo_duplex.synthesis.inspection.turn_checks import check_turns, turns_of


@dataclass(frozen=True)
class Rules:
    """What shards are checked by.

    Args:
        speakers: which of the two each speaker of the supervisions is.
        stop_delay: how long an agent goes on after a barge-in; None: the corpus does not say.
        tokenizer: path of the tokenizer under which texts must fit; None: that is not checked.
    """

    speakers: Mapping[str, Speaker]
    stop_delay: Seconds | None = None
    tokenizer: str | None = None


@dataclass
class Checked:
    """What a check found, over how much."""

    found: Findings = field(default_factory=Findings)
    cuts: int = 0
    seconds: float = 0.0
    sets: tuple[str, ...] = ()

    @property
    def is_good(self) -> bool:
        """Whether there are no errors."""
        return not self.found.errors

    def lines(self) -> Iterator[str]:
        """What to print: a line for each kind of finding, and one that sums up."""
        yield from self.found.lines()
        errors, warnings = len(self.found.errors), len(self.found.warnings)
        yield (
            f"checked {self.cuts} cuts, {self.seconds / 3600:.3f} h of {', '.join(self.sets)}: "
            f"{errors} error{'' if errors == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}"
        )


def check(
    folder: str | Path,
    speakers: Mapping[str, str] | None = None,
    tokenizer: str | None = None,
    workers: int = 1,
    progress: bool = True,
) -> Checked:
    """Checks every cut of a corpus, or of one of its sets. Nothing is written.

    Args:
        folder: a corpus of `synthesize`, or any folder with two-channel Lhotse Shar.
        speakers: {name: user or agent}; None: they are called so.
        tokenizer: under which the agent's texts must fit their frames; None: that is not checked.
        workers: processes.
        progress: whether to show a progress bar.

    Raises:
        InputError: for a folder without Shar, speakers that are not a user and an agent, a file that is no tokenizer.

    Examples:
        >>> checked = check(corpus, progress=False)
        >>> print(*checked.lines(), sep="\\n")                             # doctest: +ELLIPSIS
        checked ... 0 errors, 0 warnings
    """
    sets = corpus_sets(folder, "check")
    if tokenizer is not None:
        token_count(tokenizer)
    roles = speakers_of(speakers)
    rules = {one.name: Rules(roles, _stop_delay(one.folder), tokenizer) for one in sets}
    checked = Checked(sets=tuple(s.name for s in sets))
    for one in sets:
        _check_files(one, checked.found)
    shards = [shard for one in sets for shard in one.shards]
    met = {one.name: Met() for one in sets}
    with tqdm(total=len(shards), desc="check", unit=" shards", disable=not progress, delay=2) as bar:
        with closing(run_locally(partial(_check_shard, rules), shards, workers)) as results:
            parts = {shard: (part, seen) for shard, part, seen in _counted(results, bar)}
    for shard in shards:  # in the order of the corpus, whoever was first
        part, seen = parts[shard.name]
        checked.found.update(part.found)
        checked.cuts += part.cuts
        checked.seconds += part.seconds
        met[shard.set_name].update(seen)
    _check_together(sets, met, checked.found)
    return checked


def _counted(results: Iterator[tuple[str, Checked, Met]], bar: tqdm) -> Iterator[tuple[str, Checked, Met]]:
    for result in results:
        bar.update()
        yield result


def _stop_delay(folder: Path) -> Seconds | None:
    """How long the agent goes on in a set, as corpus.json above its folder says."""
    for place in (folder, *folder.resolve().parents[:2]):
        spec: Any = summary_of(place).get("spec")
        if isinstance(spec, dict):
            delay = spec.get("dialogues", {}).get("rhythm", {}).get("stop_delay")
            return delay if isinstance(delay, (int, float)) else None
    return None


def _check_files(one: CorpusSet, found: Findings) -> None:
    for name in one.missing_files():
        found.error("a file that is missing in a shard", name)
    for name in one.strangers:
        found.error("a file in a Shar folder that belongs to no shard: Lhotse cannot open the folder", f"{one.name}: {name}")


@lru_cache(maxsize=1)
def _token_count(tokenizer: str):
    return token_count(tokenizer)


def _check_shard(rules: Mapping[str, Rules], shard: SetShard) -> tuple[str, Checked, Met]:
    checked, met = Checked(), Met()
    try:
        for cut in shard.cuts():
            checked.cuts += 1
            checked.seconds += cut.duration
            _check_cut(cut, rules[shard.set_name], checked.found, met)
    except OddRow as odd:
        checked.found.error(odd.reason, odd.detail)
    return shard.name, checked, met


def _check_cut(cut: Cut, rules: Rules, found: Findings, met: Met) -> None:
    turns = turns_of(cut, rules.speakers, found)
    strangers = cut.supervisions and not turns["user"] and not turns["agent"]
    if strangers or is_utterance(cut, turns):  # whose speakers are not known; of the agent, for its codec
        met.add(cut, turns, None)
        return
    check_turns(cut, turns, found, rules.stop_delay)
    if rules.tokenizer is not None:
        check_text(cut, turns["agent"], _token_count(rules.tokenizer), found)
    channels = check_channels(cut, turns, found)
    check_codes(cut, found)
    user = channels.get("user")
    met.add(cut, turns, None if user is None else user.samples)
    for speaker, read in channels.items():
        met.add_rate(cut, speaker, read.sample_rate)


def is_utterance(cut: Cut, turns: Mapping[Speaker, Sequence[Any]]) -> bool:
    """Whether a cut is one utterance of the agent, with one channel, and no dialogue."""
    fields = {"target_audio", "target_codes"} & set(cut.custom or {})
    return not turns["user"] and len(turns["agent"]) == 1 and not fields and holds(cut, "recording")


def _check_together(sets: Sequence[CorpusSet], met: Mapping[str, Met], found: Findings) -> None:
    for one in sets:
        if not met[one.name].ids:
            found.error("a set without cuts", one.name)
    if twice := repeated(met):
        for one in sets:
            for shard in one.shards:
                _name_repeated(shard, twice, found)
    check_rates(met, found)
    train = {s.name: met[s.name] for s in sets if s.is_train}
    check_splits(train, {name: m for name, m in met.items() if name not in train}, found)


def _name_repeated(shard: SetShard, twice: set[int], found: Findings) -> None:
    try:
        for cut in shard.manifest():
            if hashed(cut.id) in twice:
                found.error("an id that several cuts have", f"{shard.name}: {cut.id}")
    except OddRow:
        return  # found when the shard was checked
