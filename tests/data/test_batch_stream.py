"""A stream of batches entered anywhere gives what it would have given there: with any number of workers, sharded or not."""

import gzip
import random

import numpy as np
import pytest
import torch
from lhotse import CutSet
from lhotse.testing.dummies import dummy_cut, dummy_recording
from nemo.collections.common.data.lhotse.sampling import DurationFilter

from nemo_duplex.data.datamodule import duplex_dataloader
from nemo_duplex.inputs import InputError
from nemo_duplex.training.seeds import mixed_seed


class Names(torch.utils.data.Dataset):
    """Batches that say which cuts they were made of, and what was drawn at random on the way; keeps count."""

    def __init__(self):
        self.made = 0

    def __getitem__(self, cuts):
        self.made += 1
        return [cut.id for cut in cuts], torch.rand(2).tolist(), float(np.random.rand()), random.random()


def some_cuts():
    """40 cuts of different durations."""
    recordings = [dummy_recording(i, duration=9.0) for i in range(40)]
    return CutSet.from_cuts(dummy_cut(i, duration=1.0 + i % 7, recording=r).drop_features() for i, r in enumerate(recordings))


@pytest.fixture(scope="module")
def shar(tmp_path_factory):
    """The cuts in 5 shards, read as they are sampled."""
    folder = tmp_path_factory.mktemp("shar")
    some_cuts().to_shar(folder, fields={}, shard_size=8)
    return folder


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """The cuts in one file, read when they are loaded."""
    path = tmp_path_factory.mktemp("manifest") / "cuts.jsonl"
    some_cuts().to_file(path)
    return path


def loader(source, workers, first=0, dataset=None, rank=0, **keys):
    where = {"shar_path": str(source)} if source.is_dir() else {"cuts_path": str(source)}
    config = {"batch_size": 3, "shuffle": True, "shuffle_buffer_size": 10, "num_workers": workers, "seed": 5, **where, **keys}
    return duplex_dataloader(config, dataset or Names(), rank=rank, world_size=2, first=first)


def take(stream, n):
    return [batch for batch, _ in zip(stream, range(n))]


BUCKETS = {"use_bucketing": True, "num_buckets": 3, "num_cuts_for_bins_estimate": 40, "bucket_buffer_size": 20}
BUCKETS |= {"batch_size": None, "batch_duration": 12.0}


@pytest.mark.parametrize(
    ("source", "workers", "keys"),
    [("shar", 0, {}), ("shar", 2, BUCKETS), ("shar", 3, {}), ("manifest", 0, BUCKETS), ("manifest", 3, {})],
    ids=["shar", "shar, 2 workers, buckets", "shar, 3 workers", "manifest, buckets", "manifest, 3 workers"],
)
def test_entered_anywhere_it_goes_on_the_same(source, workers, keys, request):
    source = request.getfixturevalue(source)
    whole = take(loader(source, workers, **keys), 45)
    assert len({str(batch) for batch in whole}) == 45, "Every batch is another one: data and random numbers."
    for first in (1, 41):
        assert take(loader(source, workers, first, **keys), 4) == whole[first : first + 4]


def test_every_epoch_of_the_data_has_all_cuts_in_another_order(manifest):
    """20 cuts per rank, 3 per batch: the 7th batch ends an epoch."""
    names = [name for batch in take(loader(manifest, 0), 14) for name in batch[0]]
    first, second = names[:20], names[20:40]
    assert len(set(first)) == len(set(second)) == 20
    assert first != second and first != sorted(first)


def test_data_and_random_numbers_follow_their_seeds(shar, manifest):
    """`seed` moves both; `shard_seed`, where it is given, the order of the data alone."""
    for source, workers in ((shar, 0), (shar, 2), (manifest, 0)):
        ours = take(loader(source, workers), 4)
        other = take(loader(source, workers, seed=6), 4)
        assert all(a[0] != b[0] and a[1:] != b[1:] for a, b in zip(ours, other)), source
        moved = take(loader(source, workers, shard_seed=6), 4)
        assert all(a[0] != b[0] and a[1:] == b[1:] for a, b in zip(ours, moved)), source


def test_workers_of_a_shar_shuffle_each_in_its_own_way(shar):
    batches = take(loader(shar, 2), 8)
    assert not {tuple(b[0]) for b in batches[::2]} & {tuple(b[0]) for b in batches[1::2]}


def test_buckets_are_filled_in_an_order_that_no_thread_decides(shar):
    stream = loader(shar, 0, concurrent_bucketing=True, **BUCKETS).dataset
    assert stream.sampler.concurrent is False


def test_a_finite_loader_is_one_pass(shar):
    names = [name for batch in loader(shar, 0, force_finite=True, shuffle=False) for name in batch[0]]
    assert len(names) == len(set(names)) == 40


def test_what_was_seen_is_not_made_again(shar):
    dataset = Names()
    take(loader(shar, 0, first=30, dataset=dataset), 2)
    assert 2 <= dataset.made <= 3


@pytest.mark.parametrize("workers", [0, 2])
def test_iterating_again_goes_on(shar, workers):
    whole = take(loader(shar, workers), 9)
    stream = loader(shar, workers)
    assert [next(iter(stream)) for _ in range(9)] == whole, "An epoch of a trainer must not bring the same batches again."


def test_one_worker_gives_what_none_gives(shar):
    assert take(loader(shar, 0), 20) == take(loader(shar, 1), 20)


def test_ranks_and_workers_see_different_batches(shar, manifest):
    for source in (shar, manifest):
        ours, theirs = take(loader(source, 2, rank=0), 12), take(loader(source, 2, rank=1), 12)
        assert len({str(batch[0]) for batch in ours + theirs}) == 24
        assert len({str(batch[1]) for batch in ours + theirs}) == 24, "random numbers too"
    # Of a manifest, two ranks with two workers each share one order: in 12 batches of 3 there is every cut once.
    ours, theirs = take(loader(manifest, 2, rank=0), 6), take(loader(manifest, 2, rank=1), 6)
    assert len({name for batch in ours + theirs for name in batch[0]}) == 36


def test_ranks_without_workers_share_one_order_of_a_manifest(manifest):
    """20 cuts for each in 7 batches, none for both."""
    ours, theirs = ({name for batch in take(loader(manifest, 0, rank=rank), 6) for name in batch[0]} for rank in (0, 1))
    assert len(ours) == len(theirs) == 18 and not ours & theirs


def test_the_training_keeps_its_random_numbers(shar):
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    expected = torch.rand(1).item(), np.random.rand(), random.random()
    for workers in (0, 1):
        torch.manual_seed(1), np.random.seed(1), random.seed(1)
        take(loader(shar, workers), 3)
        assert (torch.rand(1).item(), np.random.rand(), random.random()) == expected


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_wrong_with_a_cut_is_said_as_it_is(shar, workers):
    class Picky(Names):
        def __getitem__(self, cuts):
            raise InputError("Cut 7 has no agent channel.")

    batches = iter(loader(shar, workers, dataset=Picky()))
    with pytest.raises(InputError, match="^Cut 7 has no agent channel.$"):
        next(batches)


@pytest.mark.parametrize("source", ["shar", "manifest"])
@pytest.mark.parametrize(("workers", "first"), [(0, 0), (2, 0), (0, 30)])
def test_data_of_which_nothing_is_left_are_refused(source, workers, first, request):
    """Lhotse repeats a Shar without end, and would look for a cut that passes for ever."""
    source = request.getfixturevalue(source)
    filters = r"\(min_duration=100.0\). Check both: \{'(shar|cuts)_path': "
    with pytest.raises(InputError, match=f"^The training data hold no cut that the loader's filters let pass {filters}"):
        loader(source, workers, first, min_duration=100.0)


NOTHING_LEFT = {
    "max_duration": {"max_duration": 0.5},
    "windows": {"cut_into_windows_duration": 1.0, "min_duration": 2.0},
    "buckets": BUCKETS | {"max_duration": 0.5},
    "fixed buckets": {"bucket_duration_bins": [0.2, 0.5], "bucket_batch_size": [2, 1], "batch_size": None},
    "few streams": {"max_duration": 0.5, "max_open_streams": 1},
    "validation": {"max_duration": 0.5, "force_finite": True},
}


@pytest.mark.parametrize("keys", NOTHING_LEFT.values(), ids=NOTHING_LEFT)
def test_filters_that_leave_nothing_are_seen_whatever_else_is_set(shar, keys):
    which = "validation" if "force_finite" in keys else "training"
    with pytest.raises(InputError, match=f"^The {which} data hold no cut that the loader's filters let pass"):
        loader(shar, 0, **keys)


def test_filters_that_leave_one_cut_are_enough(shar):
    names = [name for batch in take(loader(shar, 0, min_duration=6.5, max_duration=7.0), 3) for name in batch[0]]
    assert set(names) == {f"dummy-mono-cut-{i:04d}" for i in range(40) if i % 7 == 6}


def test_a_shar_without_cuts_is_refused(tmp_path):
    with gzip.open(tmp_path / "cuts.000000.jsonl.gz", "wt"):
        pass
    for keys in ({}, {"force_finite": True}, BUCKETS):
        with pytest.raises(InputError, match="data hold no cut that the loader's filters let pass. Check both: "):
            loader(tmp_path, 0, **keys)


def test_an_empty_part_of_weighted_inputs_is_left_out(shar, tmp_path):
    """Lhotse goes on with the others. Nothing is left only where no part has a cut."""
    with gzip.open(tmp_path / "cuts.000000.jsonl.gz", "wt"):
        pass
    parts = [{"type": "lhotse_shar", "shar_path": str(path), "weight": 0.5} for path in (shar, tmp_path)]
    keys = {"batch_size": 3, "seed": 0, "shuffle": False, "num_workers": 0}
    names = [name for batch in take(duplex_dataloader({**keys, "input_cfg": parts}, Names()), 20) for name in batch[0]]
    assert len(set(names)) == 40
    with pytest.raises(InputError, match="^The training data hold no cut"):
        duplex_dataloader({**keys, "input_cfg": parts[1:] * 2}, Names())


def test_each_of_several_loaders_needs_a_cut(shar):
    one = {"shar_path": str(shar), "batch_size": 2}
    keys = {"multi_config": True, "seed": 0, "shard_seed": 0, "shuffle": False, "num_workers": 0}
    batches = take(duplex_dataloader({**keys, "a": one, "b": {**one, "min_duration": 6.5}}, Names()), 4)
    assert len(batches) == 4
    with pytest.raises(InputError, match=r"^The training data hold no cut .* \(min_duration=100\)"):
        duplex_dataloader({**keys, "a": one, "b": {**one, "min_duration": 100}}, Names())
    with pytest.raises(InputError, match="^The data loader has perturb_speed=true"):
        duplex_dataloader({**keys, "a": one, "b": {**one, "perturb_speed": True}}, Names())


def test_a_cut_longer_than_a_batch_is_a_batch(shar):
    assert [len(batch[0]) for batch in take(loader(shar, 0, batch_size=None, batch_duration=0.5), 5)] == [1] * 5


def test_data_that_are_fewer_than_a_batch_are_said_to_be(manifest):
    few = r"^The training data hold no batch for this process: .* or a smaller batch_size or batch_duration.$"
    with pytest.raises(InputError, match=few):
        take(loader(manifest, 0, batch_size=100, drop_last=True), 1)


def test_the_first_cut_is_found_without_reading_all(shar, monkeypatch):
    read = []
    filtered = DurationFilter.__call__
    monkeypatch.setattr(DurationFilter, "__call__", lambda self, cut: read.append(cut.id) or filtered(self, cut))
    loader(shar, 0, min_duration=6.5)
    assert 1 <= len(read) <= 7, "in any order of the shards, one of 7 in a row passes"


@pytest.mark.parametrize("source", ["shar", "manifest"])
@pytest.mark.parametrize("keys", [{}, {"shuffle": False, "shard_seed": "randomized"}, BUCKETS], ids=["", "in order", "buckets"])
def test_one_pass_gives_every_conversation_once_with_any_number_of_workers(source, keys, request):
    keys = {"force_finite": True, "batch_size": 3, **keys}
    passes = [list(loader(request.getfixturevalue(source), workers, **keys)) for workers in (0, 2, 3)]
    names = [name for batch in passes[0] for name in batch[0]]
    assert len(names) == len(set(names)) == (40 if source == "shar" else len(names))
    assert passes[0] == passes[1] == passes[2], "the same batches in the same order, with the same random numbers"


def test_workers_that_take_turns_agree_on_the_buckets(manifest):
    """Lhotse chooses buckets by the number of the worker: conversations came twice, and others never."""
    assert take(loader(manifest, 3, **BUCKETS), 12) == take(loader(manifest, 0, **BUCKETS), 12)


def test_one_pass_again_is_the_same(shar):
    finite = loader(shar, 2, force_finite=True)
    assert list(finite) == list(finite)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_breaks_off_is_one_line_in_a_validation_too(tmp_path, workers):
    some_cuts().to_shar(tmp_path, fields={}, shard_size=8)
    last = tmp_path / "cuts.000004.jsonl.gz"
    last.write_bytes(last.read_bytes()[:100])
    with pytest.raises(
        InputError, match=r"^The validation data cannot be read \(.*\). Check the files and the loader's keys.$"
    ):
        list(loader(tmp_path, workers, force_finite=True))


@pytest.mark.parametrize("finite", [False, True])
def test_fewer_conversations_than_buckets_are_said_to_be(tmp_path, finite):
    CutSet.from_cuts(list(some_cuts())[:4]).to_shar(tmp_path, fields={}, shard_size=8)
    keys = {"use_bucketing": True, "bucket_buffer_size": 4, "shuffle_buffer_size": 4, "force_finite": finite}
    message = r"num_buckets=30, but the data hold 4 conversations. Give num_buckets=4, or leave use_bucketing out.$"
    with pytest.raises(InputError, match=message):
        loader(tmp_path, 0, **keys)
    for cure in ({"num_buckets": 4}, {"use_bucketing": False}, {"max_duration": 9.0}, {"bucket_duration_bins": [2.0]}):
        names = [name for batch in take(loader(tmp_path, 0, **keys | cure), 2) for name in batch[0]]
        assert len(names) >= 2
    with pytest.raises(InputError, match=r"hold 1 conversations. Leave use_bucketing out.$"):
        loader(tmp_path, 0, min_duration=3.5, **keys)


def test_buckets_are_estimated_from_one_pass(tmp_path, caplog):
    """4 cuts of 1, 2, 3, 4 s: Lhotse begins a bucket where the sum before is more than 10 s / 2. A cut more never is read."""
    CutSet.from_cuts(list(some_cuts())[:4]).to_shar(tmp_path, fields={}, shard_size=8)
    keys = {"use_bucketing": True, "num_buckets": 2}
    buffers = {"bucket_buffer_size": 4, "shuffle_buffer_size": 4}
    with caplog.at_level("WARNING", "nemo_duplex"):
        stream = loader(tmp_path, 0, **keys, **buffers).dataset
    assert stream.sampler.duration_bins == [4.0]
    assert "Bucketing takes 8 conversations into memory before the first batch" in caplog.text
    assert "the data hold 4. Smaller sizes start sooner" in caplog.text
    caplog.clear()
    loader(tmp_path, 0, **keys, bucket_buffer_size=2, shuffle_buffer_size=2)
    assert "into memory" not in caplog.text


def test_cuts_of_one_duration_are_one_bucket(tmp_path):
    CutSet.from_cuts(c.truncate(duration=1.0, preserve_id=True) for c in list(some_cuts())[:4]).to_shar(tmp_path, fields={})
    keys = {"num_buckets": 4, "bucket_buffer_size": 4, "shuffle_buffer_size": 4, "force_finite": True}
    names = [name for batch in loader(tmp_path, 0, use_bucketing=True, **keys) for name in batch[0]]
    assert sorted(names) == [f"dummy-mono-cut-{i:04d}" for i in range(4)]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_wrong_in_a_finite_loader_is_one_line_too(shar, workers):
    class Picky(Names):
        def __getitem__(self, cuts):
            raise InputError("Cut 7 has no agent channel.")

    with pytest.raises(InputError, match="^Cut 7 has no agent channel.$"):
        next(iter(loader(shar, workers, dataset=Picky(), force_finite=True)))


def test_a_shard_that_breaks_off_is_one_line(tmp_path):
    some_cuts().to_shar(tmp_path, fields={}, shard_size=8)
    last = tmp_path / "cuts.000004.jsonl.gz"
    last.write_bytes(last.read_bytes()[:100])
    with pytest.raises(InputError, match=r"^The training data cannot be read \(.*\). Check the files and the loader's keys.$"):
        take(loader(tmp_path, 0), 40)
    for shard in tmp_path.glob("cuts.*"):
        shard.write_bytes(last.read_bytes())
    with pytest.raises(
        InputError, match=r"^data: \{'shar_path': .*\} cannot be read \(.*\). Check the files and the loader's keys"
    ):
        loader(tmp_path, 0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"batch_size": None}, r"cannot be opened \(Batch size is not configured.*\). Check the keys of the loader.$"),
        ({"use_bucketing": "many"}, r"cannot be opened \(Value 'many' .*\). Check the keys of the loader.$"),
        ({"noise_path": "/nowhere.jsonl"}, r"'noise_path': '/nowhere.jsonl'\} cannot be opened .* Check the paths.$"),
    ],
)
def test_keys_that_nemo_cannot_take_are_one_line(shar, keys, message):
    with pytest.raises(InputError, match=message):
        loader(shar, 0, **keys)


def test_data_that_cannot_be_opened_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"cannot be opened \(no cuts.\*.jsonl.gz in \S+empty\). Check the paths.$"):
        loader(tmp_path / "empty", 0)


def test_a_seed_that_is_no_number_is_refused(shar):
    with pytest.raises(InputError, match="seed=trng"):
        loader(shar, 0, seed="trng")


def test_nemos_words_for_seeds_are_reproducible(shar):
    expected = take(loader(shar, 2, shard_seed=5), 10)
    for word in ("randomized", "trng"):
        assert take(loader(shar, 2, shard_seed=word), 10) == expected


def test_mixed_seeds_differ():
    assert len({mixed_seed(s, r, i) for s in range(3) for r in range(3) for i in range(100)}) == 900
