"""A mixture: several corpora, each with keys of its own, in one folder (paper, Table 1).

<out>/<dataset>/         a corpus, as it would be alone; its name begins the ids of its cuts and is in their custom
<out>/mixture.json       the datasets with their hours, words, voices and engines, and where their texts come from
<out>/texts.txt          the texts of train of all of them, for a tokenizer
"""

from __future__ import annotations

import json
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from nemo_duplex.files.atomic import remove_abandoned, whole_file
from nemo_duplex.inputs import InputError, refuse_unknown
from nemo_duplex.scripts.config import Key, ScriptConfig
from nemo_duplex.scripts.values import Unquoted, as_typed
from nemo_duplex.synthesis.corpus_spec import OF_THE_RUN
from nemo_duplex.synthesis.corpus_summary import SortedTexts
from nemo_duplex.words import words

#: The file that makes a folder a mixture.
SUMMARY = "mixture.json"
_SEEDS = 1_000_000


@dataclass(frozen=True)
class Part:
    """One corpus of a run.

    Args:
        keys: of `conf/synthesize.yaml`, complete.
        out: its folder.
        obtained: how its texts are obtained, in words; "" where they are built in.
    """

    keys: dict[str, Any]
    out: Path
    obtained: str = ""

    @property
    def name(self) -> str | None:
        """Of the dataset; None for a corpus that is not of a mixture."""
        return self.keys["dataset"]


def parts_of(keys: Mapping[str, Any]) -> list[Part]:
    """The corpora that the keys of `conf/synthesize.yaml` ask for: the datasets of a mixture, or one.

    A dataset has the run's keys, and its own instead where it names them. Its seed is made of the run's and its name, so that
    two datasets do not draw the same.

    Raises:
        InputError: for a key of a dataset that is not known, or is the run's; for a value of another type; if a file of its
            texts is missing, with how it is obtained.
    """
    out = Path(keys["out"])
    if not keys["datasets"]:
        return [Part(dict(keys), out)]
    parts = []
    for name, given in keys["datasets"].items():
        if not isinstance(given, Mapping | None):
            raise InputError(f"datasets.{name}={given}: expected keys of conf/synthesize.yaml below it, such as hours: 1.0.")
        own = dict(given or {})
        obtained = str(own.pop("obtained", ""))
        refuse_unknown(list(own), {*keys} - OF_THE_RUN - {"dataset", "datasets"}, f"datasets.{name}")
        own = {key: _typed(value, key, f"datasets.{name}") for key, value in own.items()}
        merged = {**keys, **own, "dataset": name, "datasets": {}}
        for key, value in own.items():  # a section keeps the keys that the dataset does not name
            if isinstance(value, Mapping) and isinstance(keys[key], Mapping):
                merged[key] = {**keys[key], **value}
        merged["hours"] = merged["hours"] * keys["scale"]
        merged["seed"] = (merged["seed"] + zlib.crc32(name.encode())) % _SEEDS
        for path in merged["source"]:
            if obtained and not any(Path().glob(path) if not Path(path).is_absolute() else [Path(path)] * Path(path).exists()):
                raise InputError(f"datasets.{name}: there is no file {path}. It is obtained so: {obtained}")
        parts.append(Part(merged, out / name, obtained))
    return parts


def _typed(value: Any, key: str, section: str) -> Any:
    """A value of a key of `conf/synthesize.yaml`, as the script itself would take it; `section` is where it is given."""
    known = _known_keys()
    below = [name.removeprefix(f"{key}.") for name in known if name.startswith(f"{key}.")]
    if below and isinstance(value, Mapping):
        refuse_unknown(list(value), [name for name in below if "." not in name], f"{section}.{key}")
        return {name: _typed(item, f"{key}.{name}", section) for name, item in value.items()}
    plain = isinstance(value, bool | int | float)
    return known[key].type.convert(f"{section}.{key}", Unquoted(as_typed(value), value) if plain else value)


@lru_cache(maxsize=1)
def _known_keys() -> dict[str, Key]:
    return ScriptConfig("synthesize").keys


def summarize_mixture(out: Path, parts: list[Part], summaries: list[dict[str, Any]]) -> dict[str, Any]:
    """Writes `mixture.json` and `texts.txt`.

    Args:
        out: folder of the mixture.
        parts: its datasets, all of them made.
        summaries: what `corpus.json` says about each.

    Returns:
        What `mixture.json` says.
    """
    remove_abandoned(out)
    datasets: dict[str, Any] = {}
    totals: Counter[str] = Counter()
    every_word: set[str] = set()
    with tempfile.TemporaryDirectory() as folder, SortedTexts(Path(folder)) as texts:
        for part, summary in zip(parts, summaries):
            train = summary["sets"].get("train", {})
            own_words: set[str] = set()
            if train:
                with open(part.out / "texts.txt", encoding="utf-8") as lines:
                    texts.add(_gathering(own_words, lines))
            every_word |= own_words
            facts = {
                "hours": train.get("hours", 0.0),
                **{key: train.get(key, 0) for key in ("cuts", "user_turns", "agent_turns", "barge_ins")},
                "words": len(own_words),
                "speakers": train.get("speakers", 0),
            }
            totals.update({key: facts[key] for key in ("hours", "cuts", "user_turns", "agent_turns", "barge_ins")})
            about = {"cast": summary["cast"], "source": summary["source"], "obtained": part.obtained}
            datasets[str(part.name)] = facts | about
        with whole_file(out / "texts.txt") as path, open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{text}\n" for text in texts)
    total = {**totals, "hours": round(totals["hours"], 3), "words": len(every_word)}
    whole = {"datasets": datasets, "total": total}
    with whole_file(out / SUMMARY) as path:
        path.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    return whole


def _gathering(found: set[str], texts: Iterable[str]) -> Iterator[str]:
    """The texts, whose words are gathered in `found` as they go by."""
    for text in texts:
        found.update(words(text))
        yield text
