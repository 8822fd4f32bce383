"""A corpus from the keys of a configuration."""

from __future__ import annotations

import pytest

from nemo_duplex.inputs import InputError, plain
from nemo_duplex.scripts.config import ScriptConfig, load
from nemo_duplex.synthesis.corpus_spec import RUN_KEYS, CorpusSpec, corpus_spec
from nemo_duplex.synthesis.gaps import PEOPLE, GapDistribution
from nemo_duplex.synthesis.tts.engines import CastSpec


def test_the_keys_as_they_are_give_the_spec_as_it_is():
    assert corpus_spec(load("synthesize", ["out=corpus"])) == CorpusSpec()


def test_every_key_is_of_the_run_or_of_the_corpus():
    class Read(dict):
        found: set[str] = set()

        def __getitem__(self, key):
            self.found.add(key)
            return super().__getitem__(key)

    keys = Read(plain(load("synthesize", ["out=x"])))
    corpus_spec(keys)
    assert keys.found | RUN_KEYS | {"datasets"} == set(keys)
    assert keys.found & RUN_KEYS == {"hours", "dev", "agent_utterances"}


def test_plain_keys_will_do():
    voices = {"train": {"espeak": 0.75, "hibari": 0.25}, "dev": {"espeak": 1.0}}
    keys = plain(load("synthesize", ["out=corpus"])) | {"user_voices": voices, "bank": "bank", "source": ["a.jsonl"]}
    spec = corpus_spec(keys)
    assert spec.cast == CastSpec(train=(("espeak", 0.75), ("hibari", 0.25)), dev=(("espeak", 1.0),), bank="bank")
    assert spec.source == ("a.jsonl",)
    assert hash(spec) == hash(corpus_spec(keys))  # a worker keeps what it has opened for a spec


@pytest.mark.parametrize("language", ["null", "en", "en-GB", "English"])
def test_who_speaks_english_where_nobody_is_named(language):
    cast = corpus_spec(load("synthesize", ["out=corpus", "source=[a.jsonl]", f"language={language}"])).cast
    assert cast == CastSpec("hibari", *[(("kokoro", 0.5), ("pico", 0.45), ("espeak", 0.05))] * 2)


def test_another_language_is_spoken_by_espeak_unless_others_are_named():
    keys = ["out=corpus", "source=[a.jsonl]", "language=de"]
    espeak = (("espeak", 1.0),)
    assert corpus_spec(load("synthesize", keys)).cast == CastSpec("espeak", espeak, espeak)
    named = corpus_spec(load("synthesize", [*keys, "agent_voice=hibari", "user_voices.train={pico: 1}"])).cast
    assert named == CastSpec("hibari", (("pico", 1),), espeak)


@pytest.mark.parametrize("share", ["x", 0, -1, "true"])
def test_a_share_of_the_users_is_a_number(share):
    with pytest.raises(InputError, match=f"user_voices.dev: kokoro: .*{str(share)[1:]}.*: expected a share of more than 0"):
        corpus_spec(load("synthesize", ["out=corpus", f"user_voices.dev={{kokoro: {share}}}"]))


def test_a_value_out_of_its_range_is_refused():
    with pytest.raises(InputError, match="pause=2.0: expected a share from 0 to 1."):
        corpus_spec(load("synthesize", ["out=corpus", "pause=2"]))


def test_sections_become_the_parts_of_the_spec():
    keys = ["timing.gaps=people", "timing.barge_in_at=[0.1,0.2]", "events.cough=0.25", "acoustics.level_db=[-20,-10]"]
    keys += ["timing.response_gaps={mean: 0.1, deviation: 0.2, tail: 0.3, low: 0.2}", "timing.pauses=3", "concatenate=2"]
    dialogues = corpus_spec(load("synthesize", ["out=corpus", *keys])).dialogues
    assert dialogues.rhythm.gaps == PEOPLE and dialogues.rhythm.barge_in_at == (0.1, 0.2)
    assert dialogues.rhythm.response_gaps == GapDistribution(0.1, 0.2, 0.3, low=0.2, high=2.0)
    assert (dialogues.events.cough, dialogues.acoustics.level_db) == (0.25, (-20, -10))
    assert (dialogues.pauses, dialogues.concatenate) == (3, 2)


def test_the_longest_turn_is_that_of_the_import_and_of_what_is_spoken():
    spec = corpus_spec(load("synthesize", ["out=corpus", "text.longest_turn=10"]))
    assert spec.dialogues.longest_turn == spec.text.longest_turn == 10


REFUSED = {
    "timing.gaps=fast": "timing.gaps=fast: expected paper, people, or keys such as",
    "timing.gaps={mean: 0.1}": "timing.gaps: deviation, tail not given, such as",
    "timing.gaps={mean: 9, deviation: 0.1, tail: 0.1}": "expected seconds, deviation and tail above 0, and most gaps between",
    "timing.gaps={mean: 0.1, deviation: 0, tail: 0.1}": "deviation=0, tail=0.1",
    "timing.gaps={mean: 0.1, deviation: x, tail: 0.1}": "deviation=x, tail=0.1",
    "timing.gap=[2,1]": r"timing.gap=\[2.0, 1.0\]: expected two numbers from 0, the lower one first.",
    "timing.gap=0.5": r"timing.gap=\[0.5\]: expected two numbers from 0",
    "timing.barge_in_at=[0.5,1.5]": "expected two numbers from 0 to 1, the lower",
    "acoustics.packets_lost=[1,1]": "packets_lost=.*: expected two numbers from 0 to 0.99, the lower",
    "acoustics.packets_lost=[0.1,0.999]": "expected two numbers from 0 to 0.99, the lower",
    "acoustics.leak_db=[a,b]": "acoustics.leak_db",
    "timing.pause_places=here": "timing.pause_places=here: expected marked or any.",
    "events.noise=0.5": "give recordings in events.noise_folder=FOLDER",
    "events.cough=2": "expected a share, 0 to 1",
    "concatenate=0": "expected a positive whole number",
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_no_range_and_no_distribution_is_refused(key):
    with pytest.raises(InputError, match=REFUSED[key]):
        corpus_spec(load("synthesize", ["out=corpus", key]))


# --- no key is ignored -----------------------------------------------------------------------------------------------------

OTHERS = {
    "source": ["a.jsonl"], "language": "de", "text.form": "messages", "text.max_words": 30, "text.max_turns": 4,
    "text.leave_out": ["code"], "text.recordings": ["m.json"], "text.store": "store", "agent_voice": "espeak",
    "user_voices.train": {"pico": 1.0}, "user_voices.dev": {"pico": 1.0}, "perturb": {"pico": 3}, "takes": 2, "bank": "bank",
    "duration": 12.8, "timing.gaps": "people", "timing.response_gaps": "people", "timing.pause_places": "any",
    "events.noise_folder": "noises", "dataset": "shop", "acoustics.leak_drive": [0.0, 1.0], "acoustics.leak_decay": [0.0, 0.1],
    "acoustics.packets_lost": [0.01, 0.05], "timing.prompt_gap": [0.0, 0.1], "timing.barge_in_at": [0.1, 0.5],
}  # fmt: skip
NEEDS = {"language": {"source": ["a.jsonl"]}, "events.noise": {"events.noise_folder": "noises"}}


def other(key: str, value: object) -> object:
    if key in OTHERS:
        return OTHERS[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return [value[0], value[1] + 1]
    assert isinstance(value, int | float), f"{key}: give another value of it in OTHERS"
    return value + 1 if isinstance(value, int) else value / 2 + 0.1


def with_values(keys: dict, values: dict) -> dict:
    for name, value in values.items():
        *sections, last = name.split(".")
        inner = keys = {**keys}
        for section in sections:
            inner[section] = inner = {**inner[section]}
        inner[last] = value
    return keys


LEAVES = [
    (key, value) for key, value in ScriptConfig("synthesize", ["out=corpus"]).leaves()
    if key.split(".")[0] not in {*RUN_KEYS, "datasets"} - {"hours", "dev", "agent_utterances"}
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), LEAVES, ids=[key for key, _ in LEAVES])
def test_every_key_changes_the_corpus(key, value):
    keys = with_values(plain(load("synthesize", ["out=corpus"])), NEEDS.get(key, {}))
    assert corpus_spec(with_values(keys, {key: other(key, value)})) != corpus_spec(keys)
