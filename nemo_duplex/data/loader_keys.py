"""Which keys of NeMo's Lhotse loader fit two-channel conversations, and what is said of those that do not.

Most do. Noise, rooms, band limits, compression and clipping change the user's channel alone, as they should; padding, windows
and truncation change both channels, their turns and codes alike (`cut_channels.py`). The keys here would change one channel
and not the other, or have no effect.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from nemo_duplex.inputs import InputError

# Keys that change more or less than a conversation, by what they do and what to do instead.
_UNFIT = {
    "perturb_speed": "changes the speed of the user's channel alone, so that the agent's answers come too early or too late. "
    "Leave it out: examples/synthesize.py makes users who speak fast and slowly",
    "concatenate_samples": "joins cuts and makes one turn of all turns of both speakers. Leave it out, and put turns together "
    "when the corpus is made",
    "compression_enable_for_custom_fields": "compresses the agent's voice as well. Leave it out: compression_enabled=true "
    "changes the user alone",
    "channel_selector": "drops the turns of both speakers that are on other channels. Leave it out, and write cuts of the "
    "user's channel alone, with all turns",
    "metadata_only": "loads no audio. Leave it out",
}
# Keys that count text tokens, which this loader does not do before it makes a batch.
_UNUSED = (
    "min_tps max_tps min_tokens max_tokens min_tpt max_tpt prompt_format use_multimodal_sampling batch_tokens quadratic_factor "
    "token_equivalent_duration audio_locator_tag cut_text_into_windows_tokens"
).split()
#: Keys that leave conversations out, as an error names them.
FILTERS = ("min_duration", "max_duration", "keep", "max_cer", "min_context_speaker_similarity", "bucket_duration_bins")

# Numbers with a least value, which NeMo and Lhotse take as they are: others end in an assertion or in a wait without end.
_WHOLE_FROM = {
    "seed": 0,
    "num_workers": 0,
    "batch_size": 1,
    "bucket_buffer_size": 1,
    "shuffle_buffer_size": 1,
    "num_cuts_for_bins_estimate": 1,
    "max_open_streams": 1,
    "slice_length": 1,
    "sample_rate": 1,
}
_POSITIVE = (
    "batch_duration quadratic_duration truncate_duration cut_into_windows_duration cut_into_windows_hop pad_min_duration"
).split()
_SHARES = "noise_mix_prob rir_prob lowpass_prob compression_prob clipping_prob clipping_prob_hard".split()
_NEVER_NULL = ("seed", "num_workers")
_SEED_WORDS = ("randomized", "trng")

_NAMES_DATA = ("input_cfg", "shar_path", "cuts_path", "manifest_filepath", "multi_config")
# Keys of a loader of what is composed, and those that choose what is read where it is read, as our configurations have them.
_OF_COMPOSED = "batch_size batch_duration num_workers pin_memory".split()
_OF_STORED = (
    "use_lhotse shar_path input_cfg shuffle shuffle_buffer_size seed shard_seed use_bucketing num_buckets bucket_buffer_size "
    "bucket_duration_bins concurrent_bucketing cuda_expandable_segments drop_last"
).split()

_DIRECTIONS = ("right", "left", "both")
_OFFSETS = ("random", "start", "end")


def require_data(data: Mapping[str, Any]) -> None:
    """Checks that a section `data` (plain data) names what to train on, once.

    Raises:
        InputError: if it does not, or names a folder and a composition.
    """
    loader = data["train_loader"]
    if data.get("compose") is not None and data.get("train"):
        raise InputError("data.train and data.compose are both given: dialogues are read or composed. Leave one out.")
    if data.get("compose") is None and not data.get("train") and not any(loader.get(key) for key in _NAMES_DATA):
        raise InputError(
            "There is no data to train on. Add data.train=, the folder of a corpus of examples/synthesize.py, or "
            "data.compose='{duration: 12.8}' for dialogues that are made while the training runs."
        )


def check_keys(config: Mapping[str, Any]) -> None:
    """Checks the keys of a loader (plain data), and of the loaders in it with `multi_config`.

    Raises:
        InputError: for a key that does not fit two channels, has no effect, or a value that it does not take.
    """
    for section in loader_sections(config):
        for key, reason in _UNFIT.items():
            if section.get(key) is not None and section[key] is not False:  # 0 is a channel
                raise InputError(f"The data loader has {key}={_short(section[key])}, which {reason}.")
        for key in _UNUSED:
            if section.get(key) not in (None, False, -1, float("inf")):
                raise InputError(
                    f"The data loader has {key}={_short(section[key])}, which has no effect: it counts no text tokens. Leave "
                    "it out: min_duration, max_duration and batch_duration count seconds."
                )
        _check_numbers(section)
        _check_values(section)


def check_composed_keys(config: Mapping[str, Any]) -> None:
    """Checks the keys of a loader (plain data) whose conversations are composed (`data.compose`), not read.

    Raises:
        InputError: for a key that has no effect on these, a wrong number, or without a size of the batches.
    """
    for key, value in config.items():
        if key not in _OF_COMPOSED and key not in _OF_STORED and value not in (None, False):
            raise InputError(
                f"The data loader has {key}={_short(value)}, which has no effect on what data.compose makes. Leave it out; "
                "conf/synthesize.yaml has the keys for noise, rooms and lengths."
            )
    _check_numbers(config)
    if config.get("batch_size") is None and config.get("batch_duration") is None:
        raise InputError("The data loader has neither batch_size nor batch_duration. Give one: conversations, or seconds.")


def loader_sections(config: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The keys of each loader in a configuration: itself, and with `multi_config` those of its sections."""
    yield config
    if config.get("multi_config"):
        yield from (part for name, part in config.items() if isinstance(part, Mapping) and name != "sampler_weights")


def _check_numbers(section: Mapping[str, Any]) -> None:
    for key, least in _WHOLE_FROM.items():
        if not _is_number(section, key, least, math.inf, whole=True):
            raise InputError(f"The data loader has {key}={_short(section[key])}, expected a whole number from {least}.")
    for key in _POSITIVE:
        if not _is_number(section, key, math.ulp(0.0), math.inf):
            raise InputError(f"The data loader has {key}={_short(section[key])}, expected Seconds more than 0.")
    for key in _SHARES:
        if not _is_number(section, key, 0, 1):
            raise InputError(f"The data loader has {key}={_short(section[key])}, expected a share, 0 to 1.")
    seed = section.get("shard_seed", 0)
    if seed not in _SEED_WORDS and not _is_number({"shard_seed": seed}, "shard_seed", 0, math.inf, whole=True):
        raise InputError(
            f"The data loader has shard_seed={_short(seed)}, expected a whole number from 0, or {' or '.join(_SEED_WORDS)}."
        )


def _is_number(section: Mapping[str, Any], key: str, least: float, most: float, whole: bool = False) -> bool:
    """Whether a key is left out, or a finite number of this range."""
    value = section.get(key, least)
    if value is None:
        return key not in _NEVER_NULL
    return type(value) in ((int,) if whole else (int, float)) and math.isfinite(value) and least <= value <= most


def _check_values(section: Mapping[str, Any]) -> None:
    for key, known in (("pad_direction", _DIRECTIONS), ("truncate_offset_type", _OFFSETS)):
        if section.get(key, known[0]) not in known:
            raise InputError(f"The data loader has {key}={_short(section[key])}, expected one of {', '.join(known)}.")
    if section.get("keep_excessive_supervisions") is False:
        raise InputError(
            "The data loader has keep_excessive_supervisions=false, which drops turns whose audio stays. Leave it out: of a "
            "turn that is cut, the words that are heard are trained."
        )
    bins = section.get("bucket_duration_bins")
    if section.get("use_bucketing") and bins is None and not _is_number(section, "num_buckets", 2, math.inf, whole=True):
        raise InputError(
            f"The data loader has num_buckets={_short(section['num_buckets'])}, expected a whole number from 2. Or leave "
            "use_bucketing out: NeMo's configurations without it have num_buckets=1."
        )
    if isinstance(bins, list) and any(isinstance(edge, list) for edge in bins):
        raise InputError(
            f"The data loader has bucket_duration_bins={_short(bins)}, with a number of text tokens for each. Give durations "
            "alone, such as [8, 16]."
        )
    sizes = section.get("bucket_batch_size")
    if sizes is not None and not (isinstance(sizes, list) and all(type(size) is int and size > 0 for size in sizes)):
        raise InputError(
            f"The data loader has bucket_batch_size={_short(sizes)}, expected whole numbers from 1, one for each of "
            "bucket_duration_bins."
        )
    if isinstance(bins, list) and sizes is not None and len(sizes) != len(bins):
        raise InputError(
            f"The data loader has {len(sizes)} bucket_batch_size for {len(bins)} bucket_duration_bins, expected one for each."
        )
    if section.get("shuffle") and section.get("shuffle_buffer_size", 1) is None and not section.get("use_bucketing"):
        raise InputError("The data loader has shuffle=true and shuffle_buffer_size=null. Give the size, such as 10000.")
    if section.get("clipping_enabled") and section.get("pad_min_duration"):
        raise InputError(
            "The data loader has clipping_enabled=true and pad_min_duration, but Lhotse cannot clip what it has padded. Leave "
            "one of them out."
        )
    if section.get("rir_enabled") and not section.get("rir_path") and find_spec("torchaudio") is None:
        raise InputError(
            "The data loader has rir_enabled=true without rir_path=, and rooms are made by the package torchaudio, which is "
            "not installed. Install it, or give rir_path= a Lhotse manifest of recorded impulse responses."
        )


def _short(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)[:60]
