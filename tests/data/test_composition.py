"""What is composed is what synthesize would write: the same audio, turns, labels, batches and codes."""

from __future__ import annotations

import pickle
from importlib.resources import files

import numpy as np
import pytest
import torch
from lhotse import CutSet
from lhotse.shar import SharWriter

from nemo_duplex.codec.precompute import add_codes
from nemo_duplex.data.composition import Composition, texts_folder
from nemo_duplex.data.dataset import DuplexS2SDataset
from nemo_duplex.inputs import InputError
from nemo_duplex.scripts.config import conf_folder, load
from nemo_duplex.synthesis.corpus_spec import RUN_KEYS, corpus_spec
from nemo_duplex.synthesis.cuts import _recording_of
from nemo_duplex.synthesis.opened_corpus import OpenedCorpus
from nemo_duplex.synthesis.pipeline import synthesize
from tests.dummies import Letters, tiny_model, wav_bytes

ESPEAK = {"agent_voice": "espeak", "user_voices": {"train": {"espeak": 1.0}}}  # which is quick
KEYS = {"duration": 8.0, "seed": 3, "quiet": 0.4, "barge_in": 1.0, "pause": 1.0, **ESPEAK}
OF_LHOTSE = ("target_audio", "target_codes", "shard_origin", "shar_epoch")  # what a field holds, and where it was read


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Six cuts that synthesize has written."""
    out = tmp_path_factory.mktemp("corpus")
    typed = [f"{key}={value}" for key, value in KEYS.items()]
    synthesize(corpus_spec(load("synthesize", [f"out={out}", f"hours={6 * 8 / 3600}", *typed])), out, ["train"])
    return out


@pytest.fixture(scope="module")
def written(corpus):
    return list(CutSet.from_shar(in_dir=str(corpus / "train" / "shar")))


@pytest.fixture(scope="module")
def composed():
    composition = Composition.of(KEYS)
    return [composition.cut(number) for number in range(6)]


# ---- the same as on disk


def test_a_composed_cut_is_the_written_one(written, composed):
    assert [cut.id for cut in composed] == [cut.id for cut in written] == [f"train-3-{i:07d}" for i in range(6)]
    for made, read in zip(composed, written):
        assert np.array_equal(made.load_audio(), read.load_audio())
        assert np.array_equal(made.load_target_audio(), read.load_target_audio())
        assert [s.to_dict() for s in made.supervisions] == [s.to_dict() for s in read.supervisions]
        labels = [{key: value for key, value in cut.custom.items() if key not in OF_LHOTSE} for cut in (made, read)]
        assert labels[0] == labels[1] and labels[0]["set"] == "train"
    everything = [s.custom for cut in composed for s in cut.supervisions]
    assert any("cut" in custom for custom in everything) and any("pauses" in custom for custom in everything)
    assert any(not cut.supervisions for cut in composed), "noise alone"


def test_batches_are_the_same(written, composed):
    dataset = DuplexS2SDataset(Letters())
    made, read = (dataset[CutSet.from_cuts(cuts)] for cuts in (composed, written))
    assert made.ids == read.ids and made.agent_texts == read.agent_texts and made.agent_codes is None is read.agent_codes
    for name in (
        "user_audio",
        "user_audio_lens",
        "agent_audio",
        "agent_audio_lens",
        "agent_tokens",
        "user_tokens",
        "num_frames",
    ):
        assert torch.equal(getattr(made, name), getattr(read, name)), name
    assert made.user_audio.shape == (6, 8 * 16000) and made.agent_audio.shape == (6, 8 * 22050)


def test_the_loudest_samples_are_the_same(tmp_path):
    """libsndfile reads 16 bits by a scale of 32768 and writes by 32767, which might move samples of half the range by one."""
    cut = Composition.of(KEYS).cut(0)
    loud = np.concatenate([np.linspace(-1, 0.99, 8 * 22050 - 2), [0.99, -1.0]]).astype(np.float32)
    cut.target_audio = _recording_of("loud", loud, 22050)
    with SharWriter(str(tmp_path), {"recording": "flac", "target_audio": "flac"}, warn_unused_fields=False) as writer:
        writer.write(cut)
    (read,) = CutSet.from_shar(in_dir=str(tmp_path))
    assert np.array_equal(read.load_target_audio(), cut.load_target_audio())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model with the bundled codec."""
    codec = files("nemo_duplex.bundled") / "agent_codec.nemo"
    return tiny_model(tmp_path_factory.mktemp("model"), codec={}, pretrained_audio_codec=str(codec))


def test_codes_of_a_composed_batch_are_those_in_the_corpus(corpus, composed, tiny):
    """Both are encoded from whole channels, so that it does not matter how far the codec's encoder looks ahead."""
    shar = corpus / "train" / "shar"
    add_codes(shar, tiny.audio_codec, batch_size=4)
    read = tiny.dataset()[CutSet.from_shar(in_dir=str(shar))]
    made = tiny.dataset()[CutSet.from_cuts(composed)]
    assert read.agent_codes is not None and made.agent_codes is None and made.agent_audio is not None
    codes = tiny._codes(made)
    assert codes.shape == (6, 4, 100) and len(codes.unique()) > 100
    assert torch.equal(codes, tiny._codes(read))


# ---- keys


def test_a_file_for_synthesize_is_a_file_to_compose_by(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text(
        "defaults: [synthesize, _self_]\nhours: 20\nout: elsewhere\nduration: 12.8\nagent_voice: espeak\n"
        "user_voices:\n  train: {espeak: 1}\n  dev: {espeak: 2}\n"
    )
    composition = Composition.of(own)
    assert composition.duration == 12.8 and [spec.cast.dev for spec in composition.specs] == [(("espeak", 2),)]
    assert composition.cut(5).id == Composition.of(ESPEAK | {"duration": 12.8}).cut(5).id == "train-0-0000005"


def test_ours_is_one_too():
    assert Composition.of(conf_folder() / "synthesize.yaml").duration is None


def test_keys_have_the_types_that_they_have_there(tmp_path):
    source = tmp_path / "a, b [c].jsonl"
    source.write_text('{"data": ["One?", "Yes."]}\n{"data": ["Two?", "No."]}\n')
    given = {"source": [str(source)], "user_voices": {"train": {"espeak": 3}}, "bank": "a bank", "duration": 8}
    (spec,) = Composition.of(given).specs
    assert spec.source == (str(source),) and spec.cast.train == (("espeak", 3),) and spec.cast.bank == "a bank"
    assert spec.dialogues.duration == 8.0
    (spec,) = Composition.of({"source": str(source), "timing": {"tail": 2}}).specs
    assert spec.source == (str(source),) and spec.dialogues.rhythm.tail == 2.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"durations": 8}, r"^data.compose: unknown key 'durations'. Did you mean 'duration'\?$"),
        (
            {"hours": 3},
            "^data.compose: hours is asked of a corpus that is written. Leave it out: what is composed has no end.$",
        ),
        ({"duration": "long"}, "^data.compose: duration=long: expected a positive number or null"),
        ({"duration": 0.5}, "^data.compose: duration=0.5: expected 4 to 3600 s, a multiple of 0.08 s"),
        ({"barge_in": 2}, "^data.compose: barge_in=2"),
        ("nowhere.yaml", "^data.compose: there is no file nowhere.yaml"),
        ("folder", "^data.compose: .*folder is a folder, expected a file"),
    ],
)
def test_what_is_wrong_is_one_line(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=message):
        Composition.of(given)


def test_an_unknown_key_of_a_file_is_named_with_its_line(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("defaults: [synthesize, _self_]\nbargein: 0.2\n")
    with pytest.raises(InputError, match="own.yaml, line 2: unknown key 'bargein'. Did you mean 'barge_in'"):
        Composition.of(own)


def test_a_source_or_a_voice_that_is_not_there_is_one_line():
    with pytest.raises(InputError, match="source: there is no file nowhere.jsonl"):
        Composition.of({"source": ["nowhere.jsonl"]}).cut(0)
    with pytest.raises(InputError, match="There is no voice engine 'nobody'"):
        Composition.of({"agent_voice": "nobody"}).cut(0)


def test_keys_of_a_run_are_keys():
    assert set(load("synthesize", ["out=x"])) > RUN_KEYS


# ---- mixtures

DATASETS = {"short": {"hours": 3, "seed": 1}, "long": {"hours": 1, "barge_in": 0.0}, "none": {"hours": 0}}


def test_a_mixture_is_composed_by_the_hours_of_its_datasets(tmp_path):
    composition = Composition.of(
        ESPEAK | {"duration": 4.0, "quiet": 1.0, "datasets": DATASETS | {"unseen": {"hours": 9, "sets": ["dev"]}}}
    )
    assert list(composition.specs.values()) == [0.75, 0.25] and composition.duration == 4.0
    cuts = [composition.cut(number) for number in range(60)]
    of = [cut.custom["dataset"] for cut in cuts]
    assert of == [composition.cut(number).custom["dataset"] for number in range(60)]
    assert set(of) == {"short", "long"} and 36 <= of.count("short") <= 54
    assert [cut.custom["index"] for cut in cuts] == list(range(60)), "each once"
    (first,) = [spec for spec in composition.specs if spec.dialogues.dataset == "short"]
    number = of.index("short")
    assert (
        cuts[number].id
        == OpenedCorpus(first).dialogues.cut("train", number).id
        == f"short-train-{first.dialogues.seed}-{number:07d}"
    )


def test_a_checkpoint_of_a_mixture_knows_its_datasets():
    base = Composition.of(ESPEAK | {"datasets": DATASETS}).made_of()
    assert base["compose.short.share"] == "0.75" and base["compose.long.dialogues.rhythm.barge_in"] == "0.0"
    other = Composition.of(ESPEAK | {"datasets": DATASETS | {"long": {"hours": 3, "barge_in": 0.0}}}).made_of()
    assert {key for key in base if base[key] != other.get(key)} == {"compose.short.share", "compose.long.share"}
    twice = {name: keys | {"hours": 2 * keys["hours"]} for name, keys in DATASETS.items()}
    assert Composition.of(ESPEAK | {"datasets": twice}).made_of() == base


def test_datasets_of_different_durations_have_none():
    datasets = {"short": {"hours": 3, "duration": 8.0}, "long": {"hours": 1, "duration": 16.0}}
    assert Composition.of(ESPEAK | {"datasets": datasets}).duration is None


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"a": {"hours": 0}}, "^data.compose: no dataset has hours of train."),
        ({"a": {"barge": 0}}, "^data.compose: datasets.a: unknown key 'barge'. Did you mean 'barge_in'"),
        ({"a": {"barge_in": 3}}, "^data.compose: barge_in=3"),
    ],
)
def test_a_mixture_that_cannot_be_is_one_line(datasets, message):
    with pytest.raises(InputError, match=message):
        Composition.of(ESPEAK | {"datasets": datasets})


# ---- what a checkpoint keeps


def test_what_decides_changes_what_a_checkpoint_keeps(tmp_path):
    base = Composition.of({"duration": 8.0} | ESPEAK).made_of()
    for key, value, name in [
        ("seed", 1, "dialogues.seed"),
        ("barge_in", 0.25, "dialogues.rhythm.barge_in"),
        ("duration", 8.08, "dialogues.duration"),
        ("events", {"cough": 0.5}, "dialogues.events.cough"),
        ("acoustics", {"leak_db": [-20, -10]}, "dialogues.surroundings.leak_db"),
        ("pause", 0.25, "dialogues.pause"),
        ("user_voices", {"train": {"espeak": 0.5}}, "voices.users.espeak-ng 1.52.0"),
    ]:
        other = Composition.of({"duration": 8.0} | ESPEAK | {key: value}).made_of()
        assert {k for k in base if base[k] != other.get(k)} == {f"compose.{name}"}, key
    same = {
        "text": {"store": str(tmp_path)},
        "bank": str(tmp_path),
        "max_odd_rows": 0.1,
        "user_voices": {"train": {"espeak": 1.0}, "dev": {"espeak": 0.5}},
    }
    assert Composition.of({"duration": 8.0} | ESPEAK | same).made_of() == base


def test_a_source_is_known_by_what_it_says(tmp_path):
    def made_of(folder, answer):
        (tmp_path / folder).mkdir()
        (path := tmp_path / folder / "own.jsonl").write_text(f'{{"data": ["One?", "{answer}"]}}\n{{"data": ["Two?", "No."]}}\n')
        return Composition.of(ESPEAK | {"source": [str(path)]}).made_of()

    first = made_of("a", "Yes.")
    assert made_of("b", "Yes.") == first
    other = made_of("c", "Maybe.")
    assert {key for key in first if first[key] != other[key]} == {"compose.source"}


def test_recorded_noise_is_known_by_what_it_sounds_like(tmp_path):
    def made_of(folder, level):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "hum.wav").write_bytes(wav_bytes(np.full(16000, level, np.float32), 16000))
        return Composition.of(ESPEAK | {"events": {"noise": 0.5, "noise_folder": str(tmp_path / folder)}}).made_of()

    first = made_of("a", 0.1)
    assert made_of("b", 0.1) == first
    other = made_of("c", 0.2)
    assert {key for key in first if first[key] != other[key]} == {"compose.noise"}


def test_a_worker_is_given_settings_alone():
    composition = Composition.of(KEYS)
    composition.cut(0)
    assert len(pickle.dumps(composition)) < 10_000
    assert pickle.loads(pickle.dumps(composition)).cut(1).id == "train-3-0000001"


# ---- texts


def test_texts_for_a_tokenizer_are_what_is_said(tmp_path):
    source = tmp_path / "own.jsonl"
    source.write_text(
        "".join(f'{{"data": ["Number {word}?", "Yes, \\n{word}."]}}\n' for word in ("one", "two", "three", "four"))
    )
    data = {"compose": {"source": [str(source)]}, "train": None}
    assert texts_folder(data, tmp_path) == tmp_path
    lines = (tmp_path / "texts.txt").read_text().splitlines()
    (spec,) = Composition.of(data["compose"]).specs
    train = {OpenedCorpus(spec).source.dialogue("train", i, np.random.default_rng(0)).exchanges[0] for i in range(3)}
    assert lines == sorted(text for exchange in train for text in (exchange.user, " ".join(exchange.agent.split())))
    assert len(lines) == 6, "dev is not in it"
    assert texts_folder({"train": "corpus"}, tmp_path) == "corpus" and texts_folder({"train": None}, tmp_path) is None
