"""Loaders for training and validation: of the right sets, for the right rank, and entered where a checkpoint left them."""

from types import SimpleNamespace

import pytest
from lhotse import CutSet
from lhotse.testing.dummies import dummy_cut, dummy_recording
from omegaconf import OmegaConf

from nemo_duplex.data.datamodule import DuplexDataModule, shar_folder
from nemo_duplex.inputs import InputError

TRAIN, DEV = ({f"dummy-mono-cut-{i:04d}" for i in numbers} for numbers in (range(12), range(100, 103)))


class Names:
    """Batches that say which cuts they were made of."""

    def __getitem__(self, cuts):
        return [cut.id for cut in cuts]


def write(folder, numbers):
    recordings = [(i, dummy_recording(i, duration=9.0)) for i in numbers]
    cuts = CutSet.from_cuts(dummy_cut(i, duration=1.0, recording=r).drop_features() for i, r in recordings)
    folder.mkdir(parents=True)
    cuts.to_shar(folder, fields={}, shard_size=6)


@pytest.fixture
def corpus(tmp_path):
    """12 cuts to train on, 3 to validate on."""
    write(tmp_path / "corpus" / "train" / "shar", range(12))
    write(tmp_path / "corpus" / "dev" / "shar", range(100, 103))
    return tmp_path / "corpus"


def module(corpus, rank=0, world_size=1, seen=0, train=None, folder=True, **changes):
    config = {
        "train": str(corpus) if folder else None,
        "validation": str(corpus),
        "train_loader": {
            "batch_size": 2,
            "shuffle": True,
            "seed": 3,
            "num_workers": 0,
            "shuffle_buffer_size": 6,
            **(train or {}),
        },
        "validation_loader": {"batch_size": 2, "force_finite": True, "num_workers": 0},
    } | changes
    made = DuplexDataModule(OmegaConf.create(config), Names())
    progress = SimpleNamespace(total=SimpleNamespace(processed=seen))
    made.trainer = SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        lightning_module=SimpleNamespace(device_mesh=None),
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(batch_progress=progress)),
    )
    return made


def take(loader, n):
    return [batch for batch, _ in zip(loader, range(n))]


def names(batches):
    return sorted(name for batch in batches for name in batch)


def test_training_and_validation_are_of_their_sets(corpus):
    made = module(corpus)
    assert set(names(take(made.train_dataloader(), 24))) == TRAIN
    assert names(made.val_dataloader()) == sorted(DEV)


def test_without_validation_there_is_none(corpus):
    assert module(corpus, validation=None).val_dataloader() == []


def test_several_sets_to_validate_on_have_names_and_end_each_on_its_own(corpus):
    keys = {"batch_size": 3, "force_finite": True, "num_workers": 0}
    sets = {name: {"shar_path": str(corpus / name / "shar"), **keys} for name in ("dev", "train")}
    batches = [batch for batch, *_ in module(corpus, validation=None, validation_loaders=sets).val_dataloader()]
    assert len(batches) == 4
    assert names(batch["dev"] or [] for batch in batches) == sorted(DEV)
    assert names(batch["train"] for batch in batches) == sorted(TRAIN)


def test_ranks_train_on_other_batches(corpus):
    first, second = (take(module(corpus, rank, 2).train_dataloader(), 4) for rank in (0, 1))
    assert first != second


# ---- going on


def test_a_training_goes_on_with_the_batch_after_those_it_has_seen(corpus):
    whole = take(module(corpus).train_dataloader(), 12)
    state = module(corpus, seen=7).state_dict()
    assert state["seen"] == 7
    again = module(corpus)
    again.load_state_dict(state)
    assert take(again.train_dataloader(), 4) == whole[7:11]


def test_it_goes_on_when_the_data_were_moved_and_free_keys_changed(corpus, tmp_path):
    state = module(corpus, seen=7).state_dict()
    moved = corpus.rename(tmp_path / "elsewhere")
    again = module(moved, train={"pin_memory": True})
    again.load_state_dict(state)
    assert take(again.train_dataloader(), 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"batch_size": 3}}, "batch_size was 2, is 3"),
        ({"train": {"seed": 4}}, "seed was 3, is 4"),
        ({"train": {"max_duration": 20.0}}, "max_duration was not set, is 20.0"),
        ({"world_size": 2}, "processes was 1, is 2"),
    ],
    ids=["batch size", "seed", "a new key", "world size"],
)
def test_other_batches_are_refused_with_the_key_that_differs(corpus, changes, message):
    state = module(corpus, seen=7).state_dict()
    with pytest.raises(InputError, match=f"cannot resume with other data: {message}. Set it back, or give another out="):
        module(corpus, **changes).load_state_dict(state)


def test_a_key_that_is_gone_is_named(corpus):
    state = module(corpus, train={"max_duration": 20.0}).state_dict()
    with pytest.raises(InputError, match="max_duration was 20.0, is not set"):
        module(corpus).load_state_dict(state)


def test_a_shard_of_another_size_is_other_data(corpus):
    state = module(corpus, seen=7).state_dict()
    shard = next((corpus / "train" / "shar").glob("cuts.*"))
    shard.write_bytes(shard.read_bytes() + b"\n")
    with pytest.raises(InputError, match=r"shar_path was \d files with fingerprint \w{12}, is"):
        module(corpus).load_state_dict(state)


def test_keys_of_several_inputs_are_compared_each(corpus):
    def of(weight):
        inputs = [{"type": "lhotse_shar", "shar_path": str(corpus / n / "shar"), "weight": weight} for n in ("train", "dev")]
        return module(corpus, train={"input_cfg": inputs} | {}, validation=None)

    state = of(1.0).state_dict()
    of(1.0).load_state_dict(state)
    with pytest.raises(InputError, match=r"input_cfg.0.weight was 1.0, is 0.5; input_cfg.1.weight was 1.0, is 0.5"):
        of(0.5).load_state_dict(state)


# ---- dialogues that are composed

COMPOSED = {"duration": 4.0, "seed": 3, "agent_voice": "espeak", "user_voices": {"train": {"espeak": 1}}}


def composed(corpus, rank=0, world_size=1, seen=0, train=None, compose=COMPOSED):
    return module(corpus, rank, world_size, seen, train, folder=False, compose=compose)


def test_composed_dialogues_are_trained_on_by_all_ranks(corpus):
    assert take(composed(corpus).train_dataloader(), 2) == [
        ["train-3-0000000", "train-3-0000001"],
        ["train-3-0000002", "train-3-0000003"],
    ]
    assert take(composed(corpus, rank=1, world_size=2).train_dataloader(), 1) == [["train-3-0000002", "train-3-0000003"]]
    assert names(composed(corpus).val_dataloader()) == sorted(DEV), "what is validated on is read"


def test_composed_dialogues_go_on_after_those_that_were_seen(corpus):
    state = composed(corpus, seen=3).state_dict()
    again = composed(corpus, train={"num_workers": 0, "shuffle": False, "pin_memory": False})
    again.load_state_dict(state)
    assert take(again.train_dataloader(), 1) == [["train-3-0000006", "train-3-0000007"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"compose": COMPOSED | {"seed": 4}}, "compose.dialogues.seed was 3, is 4"),
        ({"compose": COMPOSED | {"barge_in": 0.1}}, "compose.dialogues.rhythm.barge_in was 0.5, is 0.1"),
        ({"train": {"batch_size": 3}}, "batch_size was 2, is 3"),
        ({"train": {"batch_duration": 8.0}}, "batch_duration was None, is 8.0"),
        ({"world_size": 2}, "processes was 1, is 2"),
    ],
)
def test_other_dialogues_are_refused_with_the_key_that_differs(corpus, changes, message):
    state = composed(corpus, seen=3).state_dict()
    with pytest.raises(InputError, match=f"cannot resume with other data: {message}. Set it back, or give another out="):
        composed(corpus, **changes).load_state_dict(state)


def test_dialogues_that_were_read_are_not_composed_after_that(corpus):
    with pytest.raises(InputError, match="cannot resume with other data: train was not set, is composed. Set it back"):
        composed(corpus).load_state_dict(module(corpus, seen=3).state_dict())
    with pytest.raises(InputError, match="cannot resume with other data: train was composed, is not set. Set it back"):
        module(corpus).load_state_dict(composed(corpus, seen=3).state_dict())


def test_dialogues_are_read_or_composed(corpus):
    with pytest.raises(InputError, match="data.train and data.compose are both given"):
        module(corpus, compose={})
    with pytest.raises(InputError, match="^There is no data to train on. Add data.train=, the folder of a corpus"):
        module(corpus, folder=False)


# ---- what is refused


def test_training_data_that_would_end_are_refused(corpus):
    with pytest.raises(InputError, match="force_finite=true ends the training data"):
        module(corpus, train={"force_finite": True})


def test_shards_are_found_in_a_folder_or_in_a_set_of_a_corpus(corpus, tmp_path):
    assert shar_folder(corpus, "dev") == corpus / "dev" / "shar"
    assert shar_folder(corpus / "train", "dev") == corpus / "train" / "shar"
    assert shar_folder(corpus / "train" / "shar", "dev") == corpus / "train" / "shar"
    with pytest.raises(InputError, match=r"holds no Lhotse Shar \(cuts.\*.jsonl.gz\), nor does test/shar in it"):
        shar_folder(corpus, "test")
    with pytest.raises(InputError, match="data: there is no folder"):
        shar_folder(tmp_path / "nowhere", "dev")
