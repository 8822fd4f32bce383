"""Both channels of a Lhotse cut, also where NeMo's loader has padded it, cut it, joined it or mixed it with noise.

Lhotse changes `recording`, the user's channel. The agent's, which are custom fields, it cuts and pads only roughly: padded
codes are 0, which sounds, and codes that are cut lose frames or get some twice. So they are read here from the parts of the
cut (`conversation_parts`), each as it is on disk, and placed on the time of the cut:

    user audio     the whole cut, as Lhotse mixes it
    agent audio    silence, and each part's `target_audio` from its start in the cut on
    agent codes    SILENCE, and each part's `target_codes`, where it begins and was cut at frame edges
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lhotse.array import TemporalArray
from lhotse.cut import Cut
from torch import Tensor

from nemo_duplex.conversation import conversation_parts, holds, is_time
from nemo_duplex.data.batch import SILENCE
from nemo_duplex.frames import FrameRate, Seconds
from nemo_duplex.inputs import InputError, one_line

# Codes and audio may be apart by as much; cut times have ten digits, and samples are 0.06 ms.
_EDGE: Seconds = 1e-3


def cut_name(cut: Cut) -> str:
    """The id of a conversation; Lhotse gives a cut that it has padded or mixed with noise a random one."""
    parts = conversation_parts(cut)
    return parts[0][0].id if len(parts) == 1 else cut.id


def check_channels(cut: Any, frame_rate: FrameRate) -> None:
    """Checks that a cut has both channels.

    Raises:
        InputError: naming the cut, if it is no cut of audio, its times are no numbers, it is shorter than a frame, or if a
            channel is missing, has several channels, or another duration than the other one.
    """
    if not isinstance(cut, Cut):
        raise InputError(
            f"The data hold a {type(cut).__name__}, expected Lhotse cuts with two channels. Check `type:` in the "
            "loader's input_cfg."
        )
    name = f"Cut {cut_name(cut)}"
    for part, _ in conversation_parts(cut):
        for field in ("start", "duration"):
            if not is_time(value := getattr(part, field)):
                raise InputError(f"{name} has {field}={value!r:.40}, expected a number of seconds. Write its manifest again.")
    if cut.duration < frame_rate.seconds - _EDGE:
        raise InputError(
            f"{name} lasts {cut.duration:.3f} s, less than a frame of {frame_rate.seconds:g} s. Filter such cuts with the "
            f"loader's min_duration={frame_rate.seconds:g}, and raise truncate_duration "
            "or cut_into_windows_duration if they are shorter."
        )
    for part, _ in conversation_parts(cut):
        if not holds(part, "target_audio") and not holds(part, "target_codes"):
            named = sorted({"target_audio", "target_codes"} & set(part.custom or {}))
            gone = f" Its manifest names {' and '.join(named)}, but the shards are missing: copy them too." if named else ""
            raise InputError(
                f"{name} has no agent channel: expected the custom field 'target_audio'."
                f"{gone or ' Write it with examples/synthesize.py.'}"
            )
        if not holds(part, "recording"):
            raise InputError(
                f"{name} has no user channel: its recording is missing. Copy the recording.*.tar of its shard too."
            )
        if part.num_channels != 1:
            raise InputError(f"{name}: the user channel has {part.num_channels} channels, expected one. Split the recording.")
        user = part.duration if part.custom.get("target_audio_unaligned") else part.recording.duration
        agent = part.target_audio.duration if holds(part, "target_audio") else user
        if abs(agent - user) > frame_rate.seconds + _EDGE:
            raise InputError(
                f"{name}: the user channel lasts {user:.2f} s and the agent channel {agent:.2f} s, expected the same. Pad "
                "or cut one of them."
            )


def user_audio(cut: Cut, sample_rate: int) -> Tensor:
    """The user channel (S,) float32 of a cut."""
    return _loaded(cut, lambda: cut.resample(sample_rate).load_audio(), "user")


def agent_audio(cut: Cut, sample_rate: int) -> Tensor:
    """The agent channel (S',) float32 of a cut all of whose parts have audio, as long as the cut."""
    audio = torch.zeros(round(cut.duration * sample_rate))
    for part, offset in conversation_parts(cut):
        resampled = part.resample(sample_rate, recording_field="target_audio")
        start = round(offset * sample_rate)
        sound = _loaded(cut, resampled.load_target_audio, "agent")[: len(audio) - start]
        audio[start : start + len(sound)] = sound
    return audio


def _loaded(cut: Cut, load: Any, channel: str) -> Tensor:
    try:
        audio = load()
    except Exception as error:  # lhotse, soundfile and tarfile each raise their own
        raise InputError(
            f"Cut {cut_name(cut)}: its {channel} audio cannot be read ({one_line(error)}). Copy or write the corpus again."
        ) from error
    if len(audio) != 1:
        raise InputError(f"Cut {cut_name(cut)}: the {channel} channel has {len(audio)} channels, expected one. Split it.")
    return torch.from_numpy(audio[0])


def agent_codes(
    cuts: Sequence[Cut],
    counts: Sequence[int],
    frame_rate: FrameRate,
    num_codebooks: int | None = None,
    codebook_size: int | None = None,
) -> list[Tensor] | None:
    """The agent channel of every cut as codes (T, K), SILENCE beside its parts; None if audio must be encoded instead.

    Args:
        counts: frames of each cut.
        num_codebooks, codebook_size: of the model's codec; None takes any, but the same number of codebooks in all cuts.

    Raises:
        InputError: naming the cut, if its codes have other frames than its audio, or are not of such a codec; or if codes are
            needed, since there is no audio, and cannot be taken.
    """
    parts = [part for cut in cuts for part, _ in conversation_parts(cut)]
    if not all(_has_codes(part) for part in parts) or not all(_on_grid(cut, frame_rate) for cut in cuts):
        _check_audio(cuts, frame_rate)
        return None
    placed: list[Tensor] = []
    for cut, count in zip(cuts, counts):
        placed.append(_placed_codes(cut, count, frame_rate, num_codebooks, codebook_size))
        num_codebooks = placed[0].shape[1]
    return placed


def _has_codes(part: Any) -> bool:
    """Whether a part has codes of its agent; where NeMo has swapped the speakers, they are of the one that is the user now."""
    return holds(part, "target_codes") and part.custom.get("task") != "s2s_duplex_reverse_role"


def _check_audio(cuts: Sequence[Cut], frame_rate: FrameRate) -> None:
    for cut in cuts:
        if all(holds(part, "target_audio") for part, _ in conversation_parts(cut)):
            continue
        off_grid = next((cut for cut in cuts if not _on_grid(cut, frame_rate)), None)
        if off_grid is not None:
            raise InputError(
                f"Cut {cut_name(off_grid)} is cut or padded within a frame of its codes, and its batch has codes without "
                f"target_audio. Add the audio, or let the loader cut and pad at multiples of {frame_rate.seconds:g} s: windows "
                "of such durations, pad_direction=right, truncate_offset_type=start."
            )
        raise InputError(
            f"Cut {cut_name(cut)} has codes alone, and another cut of its batch audio alone. Add codes to all cuts, or "
            "target_audio to this one."
        )


def _on_grid(cut: Cut, frame_rate: FrameRate) -> bool:
    """Whether the parts of a cut begin at frame edges, of the cut and of their codes."""
    times = [time for part, offset in conversation_parts(cut) for time in (offset, part.start)]
    return all(abs(time - frame_rate.time(frame_rate.nearest(time))) < _EDGE for time in times)


def _placed_codes(cut: Cut, count: int, frame_rate: FrameRate, num_codebooks: int | None, codebook_size: int | None) -> Tensor:
    placed: Tensor | None = None
    for part, offset in conversation_parts(cut):
        codes = _codes(part, cut_name(cut), frame_rate)
        _check_codec(codes, part, cut_name(cut), placed.shape[1] if placed is not None else num_codebooks, codebook_size)
        if placed is None:
            placed = torch.full((count, codes.shape[1]), SILENCE)
        start = frame_rate.nearest(offset)
        kept = codes[: count - start]
        placed[start : start + len(kept)] = kept
    assert placed is not None, "A cut has a part."
    return placed


def _codes(part: Any, name: str, frame_rate: FrameRate) -> Tensor:
    """The codes (T, K) of a part."""
    manifest = part.custom["target_codes"]
    try:
        # Whole: what Lhotse cuts of an array with times is not always as many frames.
        array = manifest.load() if isinstance(manifest, TemporalArray) else part.load_target_codes()
        array = np.asarray(array)
        codes = torch.from_numpy(array.astype(np.int64))
    except Exception as error:  # lhotse, numpy and tarfile each raise their own
        raise InputError(
            f"Cut {name}: its codes cannot be read ({one_line(error)}). Delete its target_codes and make them again."
        ) from error
    if codes.dim() != 2 or not codes.shape[1] or not (array == codes.numpy()).all():
        raise InputError(
            f"Cut {name} has codes of shape {tuple(codes.shape)} and type {array.dtype}, expected whole numbers (frames, "
            "codebooks). Delete its target_codes and make them again."
        )
    frames, first = frame_rate.count(part.duration), 0.0  # where in the recording the codes on disk begin
    if isinstance(manifest, TemporalArray):
        first = manifest.start
    elif len(codes) == frames:  # Lhotse cannot cut an array without times
        first = part.start
    skipped = frame_rate.nearest(part.start - first)
    whole = skipped == 0 and abs(part.end - part.recording.duration) < _EDGE
    if skipped < 0 or (len(codes) != frames if whole else len(codes) < skipped + frames):
        raise InputError(
            f"Cut {name} has {len(codes)} frames of codes for {skipped + frames} frames of audio. Delete its target_codes and "
            "make them again."
        )
    return codes[skipped : skipped + frames]


def _check_codec(codes: Tensor, part: Any, name: str, num_codebooks: int | None, codebook_size: int | None) -> None:
    """Checks that the codes (T, K) of a part can be those of a codec with so many codebooks, of such a size."""
    if num_codebooks is not None and codes.shape[1] != num_codebooks:
        found = f"{codes.shape[1]} codebooks, expected {num_codebooks}"
    elif len(codes) and (codes.min() < 0 or codebook_size is not None and codes.max() >= codebook_size):
        expected = "0 or more" if codebook_size is None else f"0 to {codebook_size - 1}"
        found = f"values of {codes.min()} to {codes.max()}, expected {expected}"
    else:
        return
    audio = ", or move the files target_codes.* away: training then encodes target_audio"
    raise InputError(
        f"Cut {name} has codes of another codec than the model's: {found}. Take the codec that made them "
        f"(model.pretrained_audio_codec){audio if holds(part, 'target_audio') else ''}."
    )
