"""Dialogues that are composed while a training runs, in place of a corpus on disk: the same cuts, without end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import MonoCut

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError, existing_file, plain, refuse_unknown
from nemo_duplex.scripts.config import ScriptConfig, conf_folder
from nemo_duplex.synthesis.corpus_spec import RUN_KEYS, CorpusSpec, corpus_spec
from nemo_duplex.synthesis.mixture import parts_of
from nemo_duplex.synthesis.opened_corpus import OpenedCorpus

_TEXTS_FROM = 5000  # dialogues: what a tokenizer of a few thousand pieces is trained on
_DRAWS_DATASET = 7  # second number of the seed that draws the dataset of a dialogue


@dataclass(frozen=True)
class Composition:
    """The train set of a corpus that is not written: cut `number` is the one that `synthesize` would write.

    It holds settings alone. Each process opens voices and source for itself, when it makes its first cut. In a mixture, the
    hours of a dataset are its share of the dialogues, and the one that a dialogue is of is drawn by its number.

    Args:
        keys: of `conf/synthesize.yaml`, each with a value.

    Examples:
        >>> composition = Composition.of({"duration": 12.8})
        >>> composition.cut(3).id, composition.cut(3).duration
        ('train-0-0000003', 12.8)
    """

    keys: Mapping[str, Any]

    @classmethod
    def of(cls, given: str | Path | Mapping[str, Any]) -> Composition:
        """The composition that `data.compose` asks for.

        Args:
            given: a file that `synthesize.py` takes as its configuration, or some of the keys of `conf/synthesize.yaml`; the
                others have their defaults. What a file asks of a run, such as hours, is not read.

        Raises:
            InputError: for a file that is missing, a key that is unknown or has no effect, a value that it does not take.
        """
        config = _of_keys(plain(given)) if isinstance(given, Mapping) else _of_file(given)
        composition = cls(plain(config.checked()))
        assert composition.specs
        return composition

    @cached_property
    def specs(self) -> dict[CorpusSpec, float]:
        """The corpora of which these are the dialogues: one, or the datasets of a mixture; and the share of each.

        Raises:
            InputError: for a value out of its range, or a mixture without hours.
        """
        of_mixture = bool(self.keys["datasets"])
        try:
            parts = [part for part in parts_of(self.keys) if not of_mixture or "train" in part.keys["sets"]]
            hours = {corpus_spec(part.keys): part.keys["hours"] if of_mixture else 1.0 for part in parts}
        except InputError as error:
            raise InputError(f"data.compose: {error}") from None
        total = sum(hours.values())
        if not total:
            raise InputError("data.compose: no dataset has hours of train. Give hours to those that are trained on.")
        return {spec: share / total for spec, share in hours.items() if share}

    @property
    def seed(self) -> int:
        """Of everything that is drawn."""
        return self.keys["seed"]

    @property
    def duration(self) -> Seconds | None:
        """Of every cut; None if it differs."""
        durations = {spec.dialogues.duration for spec in self.specs}
        return durations.pop() if len(durations) == 1 else None

    def cut(self, number: int) -> MonoCut:
        """Dialogue `number` of train, as a two-channel cut with its audio in memory.

        Raises:
            InputError: if voices or source cannot be opened, or none of many dialogues drawn for it can be used.
        """
        return _opened(self._spec_of(number)).dialogues.cut("train", number)

    def _spec_of(self, number: int) -> CorpusSpec:
        spec, *others = self.specs
        if not others:
            return spec
        drawn = np.random.default_rng([self.seed, _DRAWS_DATASET, number]).choice(len(self.specs), p=list(self.specs.values()))
        return list(self.specs)[int(drawn)]

    def summary(self) -> list[str]:
        """What of the sources and the voices is used and what is left out, as lines to print."""
        return list(dict.fromkeys(line for spec in self.specs for line in _opened(spec).summary()))

    def made_of(self) -> dict[str, str]:
        """Everything that decides what a cut is, by key: settings, and sources and voices by their content."""
        found: dict[str, str] = {}
        for spec, share in self.specs.items():
            made_of = _opened(spec).made_of
            settings = {key: value for key, value in made_of["spec"].items() if key not in RUN_KEYS}
            cast = made_of["cast"]
            source = hashlib.sha256(json.dumps(made_of["source"]).encode()).hexdigest()[:12]
            voices = {"agent": cast["agent"], "users": cast["users"]["train"]}
            parts = {
                "format": made_of["format"],
                "share": share,
                **settings,
                "source": source,
                "noise": made_of["noise"],
                "voices": voices,
            }
            found |= _flat(parts, ".".join(filter(None, ("compose", spec.dialogues.dataset))))
        return found

    def write_texts(self, path: str | Path) -> None:
        """Writes what both speakers say in the first dialogues, a line each, for a tokenizer."""
        texts = sorted({" ".join(text.split()) for text in self._texts()})
        with whole_file(path) as part:
            part.write_text("".join(f"{text}\n" for text in texts if text), encoding="utf-8")

    def _texts(self) -> Iterator[str]:
        for number in range(_TEXTS_FROM):
            source = _opened(self._spec_of(number)).source
            for exchange in source.dialogue("train", number, np.random.default_rng([self.seed, number])).exchanges:
                yield from (exchange.user, exchange.agent)


def texts_folder(data: Mapping[str, Any], out: str | Path) -> str | Path | None:
    """The folder with the texts (`texts.txt`) of the dialogues that a section `data` names: its corpus, or `out`, into which
    those of a composition are written. None if there is neither.

    Raises:
        InputError: if the composition cannot be opened.
    """
    if data.get("compose") is None:
        return data.get("train")
    Composition.of(data["compose"]).write_texts(Path(out) / "texts.txt")
    return out


@lru_cache(maxsize=32)  # datasets of a mixture
def _opened(spec: CorpusSpec) -> OpenedCorpus:
    return OpenedCorpus(spec)


def _of_file(given: str | Path) -> ScriptConfig:
    path = existing_file(given, "data.compose").resolve()
    ours = conf_folder().resolve()
    name, folder = (path.relative_to(ours), None) if ours in path.parents else (Path(path.name), path.parent)
    return ScriptConfig(name.with_suffix("").as_posix(), _NO_RUN, folder)


def _of_keys(given: Mapping[str, Any]) -> ScriptConfig:
    refuse_unknown(given, [key for key in ScriptConfig("synthesize").keys if "." not in key], "data.compose")
    for key in RUN_KEYS & given.keys():
        raise InputError(
            f"data.compose: {key} is asked of a corpus that is written. Leave it out: what is composed has no end."
        )
    try:
        return ScriptConfig("synthesize", [*_NO_RUN, *(f"{key}={_as_typed(value)}" for key, value in given.items())])
    except InputError as error:
        raise InputError(f"data.compose: {error}") from None


_NO_RUN = ["out=."]  # the only key that must be given, and nothing is written


def _flat(value: Any, key: str) -> dict[str, str]:
    """The values of a tree by dotted key."""
    if not isinstance(value, Mapping) or not value:
        return {key: str(value)}
    return {name: text for part, item in value.items() for name, text in _flat(item, f"{key}.{part}").items()}


def _as_typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
