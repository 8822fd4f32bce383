"""Keys of NeMo's loader that do not fit two channels are refused in one line, and what the line advises works."""

import math

import pytest

from nemo_duplex.data.datamodule import duplex_dataloader
from nemo_duplex.data.dataset import DuplexS2SDataset
from nemo_duplex.data.loader_keys import check_keys
from nemo_duplex.inputs import InputError
from tests.data import corpus
from tests.dummies import Letters

REFUSED = {
    "perturb_speed": ({"perturb_speed": True}, "perturb_speed=true, which changes the speed of the user's channel alone", {}),
    "concatenate_samples": ({"concatenate_samples": True}, "concatenate_samples=true, which joins cuts and makes one turn", {}),
    "compression of the agent": (
        {"compression_enabled": True, "compression_enable_for_custom_fields": True, "compression_codecs": ["gsm"]},
        "compression_enable_for_custom_fields=true, which compresses the agent's voice as well",
        {"compression_enabled": True, "compression_codecs": ["gsm"]},
    ),
    "channel_selector": ({"channel_selector": 0}, "channel_selector=0, which drops the turns of both speakers", {}),
    "metadata_only": ({"metadata_only": True}, "metadata_only=true, which loads no audio", {}),
    "max_tps": ({"max_tps": 20}, "max_tps=20, which has no effect", {"max_duration": 20}),
    "prompt_format": ({"prompt_format": "llama2"}, "prompt_format=llama2, which has no effect", {}),
    "multimodal": ({"use_multimodal_sampling": True}, "use_multimodal_sampling=true, which has no effect", {}),
    "batch_tokens": ({"batch_tokens": 100}, "batch_tokens=100, which has no effect", {"batch_duration": 8.0}),
    "pad_direction": (
        {"pad_min_duration": 5, "pad_direction": "random"},
        "pad_direction=random, expected one of right, left, both",
        {"pad_min_duration": 5, "pad_direction": "both"},
    ),
    "truncate_offset_type": (
        {"truncate_duration": 1.6, "truncate_offset_type": "middle"},
        "truncate_offset_type=middle, expected one of random, start, end",
        {"truncate_duration": 1.6, "truncate_offset_type": "end"},
    ),
    "supervisions": (
        {"truncate_duration": 1.6, "keep_excessive_supervisions": False},
        "keep_excessive_supervisions=false, which drops turns whose audio stays",
        {"truncate_duration": 1.6},
    ),
    "buckets of tokens": (
        {"bucket_duration_bins": [[8, 10], [16, 20]], "bucket_batch_size": [2, 1]},
        r"bucket_duration_bins=\[\[8, 10\], \[16, 20\]\], with a number of text tokens for each",
        {"bucket_duration_bins": [8, 16], "bucket_batch_size": [2, 1], "bucket_buffer_size": 10},
    ),
    "clipping of padding": (
        {"clipping_enabled": True, "clipping_prob": 1.0, "pad_min_duration": 5},
        "clipping_enabled=true and pad_min_duration, but Lhotse cannot clip",
        {"clipping_enabled": True, "clipping_prob": 1.0},
    ),
}


@pytest.mark.parametrize(("keys", "message", "cure"), REFUSED.values(), ids=REFUSED)
def test_keys_that_do_not_fit_are_refused_and_the_advice_works(keys, message, cure, tmp_path):
    where = {
        "shar_path": str(corpus.write(tmp_path, corpus.cut("a"), corpus.cut("b"))),
        "batch_size": 2,
        "shuffle_buffer_size": 2,
    }
    with pytest.raises(InputError, match=f"^The data loader has {message}"):
        duplex_dataloader({**where, **keys}, DuplexS2SDataset(Letters()))
    batch = next(iter(duplex_dataloader({**where, **cure}, DuplexS2SDataset(Letters()))))
    assert len(batch.ids) >= 1


NUMBERS = {
    "a whole number from 1": (
        ["batch_size", "bucket_buffer_size", "shuffle_buffer_size", "num_cuts_for_bins_estimate", "max_open_streams"],
        [0, -1, 1.5, "8", True, math.inf],
        1,
    ),
    "a whole number from 0": (["num_workers", "seed", "shard_seed"], [-1, "abc", 0.5, math.nan], 0),
    "Seconds more than 0": (
        ["batch_duration", "truncate_duration", "cut_into_windows_duration", "cut_into_windows_hop", "pad_min_duration"],
        [0, -0.5, math.nan, math.inf, "4"],
        0.01,
    ),
    "a share, 0 to 1": (["noise_mix_prob", "rir_prob", "compression_prob"], [-0.1, 1.1, math.nan], 1),
}


@pytest.mark.parametrize(("expected", "rule"), NUMBERS.items(), ids=NUMBERS)
def test_numbers_out_of_range_are_refused(expected, rule):
    keys, wrong, right = rule
    for key in keys:
        check_keys({key: right})
        for value in wrong:
            with pytest.raises(
                InputError, match=f"^The data loader has {key}={str(value).lower() if value is True else value}, "
            ):
                check_keys({key: value})
    with pytest.raises(InputError, match=f"expected {expected}"):
        check_keys({keys[0]: wrong[0]})


def test_the_number_of_buckets_counts_where_there_are_buckets():
    """NeMo's own recipe of this model has num_buckets: 1 and no bucketing."""
    check_keys({"num_buckets": 1})
    check_keys({"use_bucketing": False, "num_buckets": 1})
    check_keys({"use_bucketing": True, "num_buckets": 2})
    check_keys({"use_bucketing": True, "num_buckets": 1, "bucket_duration_bins": [8]})
    for wrong in (1, 0, -3, "4"):
        with pytest.raises(
            InputError, match=f"has num_buckets={wrong}, expected a whole number from 2. Or leave use_bucketing"
        ):
            check_keys({"use_bucketing": True, "num_buckets": wrong})


def test_sizes_of_buckets_are_checked():
    check_keys({"bucket_duration_bins": [8, 16], "bucket_batch_size": [2, 1]})
    with pytest.raises(InputError, match="has 1 bucket_batch_size for 2 bucket_duration_bins, expected one for each"):
        check_keys({"bucket_duration_bins": [8, 16], "bucket_batch_size": [2]})
    with pytest.raises(InputError, match=r"bucket_batch_size=\[2, 0\], expected whole numbers from 1"):
        check_keys({"bucket_duration_bins": [8, 16], "bucket_batch_size": [2, 0]})
    with pytest.raises(InputError, match="shuffle=true and shuffle_buffer_size=null. Give the size, such as 10000"):
        check_keys({"shuffle": True, "shuffle_buffer_size": None})
    check_keys({"shuffle": False, "shuffle_buffer_size": None})
    with pytest.raises(InputError, match="num_workers=None, expected a whole number from 0"):
        check_keys({"num_workers": None})


def test_rooms_are_made_by_a_package_or_read_from_files(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="rir_enabled=true without rir_path=.* Install it, or give rir_path="):
        check_keys({"rir_enabled": True})
    monkeypatch.setattr("nemo_duplex.data.loader_keys.find_spec", lambda name: name)
    check_keys({"rir_enabled": True})


def test_nemos_own_defaults_are_no_use_of_a_key():
    check_keys({"min_tps": -1, "max_tps": math.inf, "perturb_speed": False, "channel_selector": None, "pad_direction": "right"})
