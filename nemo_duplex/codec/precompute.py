"""Writes the codes of a corpus beside its audio, once, so that no training step has to encode.

    <set>/shar/target_codes.000000.tar      per cut a (T, K) array: `cut.load_target_codes()`
    <set>/state/target_codes.json           which codec made them
    <set>/state/target_codes/               finished shards of a run that was interrupted

Lhotse reads a Shar folder only if every field has all its shards, so they are moved there together when the last one is done.
The whole agent channel of a cut is encoded as it sounds, with answers cut by barge-ins: audio is cut, codes never are.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from lhotse import CutSet
from lhotse.array import Array, TemporalArray
from lhotse.shar import ArrayTarWriter
from tqdm import tqdm

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.conversation import holds
from nemo_duplex.files.atomic import whole_file
from nemo_duplex.inputs import InputError, existing_folder, one_line

FIELD = "target_codes"
_NO_CODES = "Leave these codes out: training resamples and encodes as it goes."


def add_codes(shar_dir: str | Path, codec: FSQCodec, *, batch_size: int = 8, replace: bool = False) -> int:
    """Adds the field `target_codes` to a Shar folder, whose cuts have the agent's channel as `target_audio`.

    Called again after an interruption, it continues with the next shard; if all is done, it does nothing.

    Args:
        shar_dir: `<corpus>/<set>/shar`. Beside it, `state/` is written.
        codec: encodes on its device.
        batch_size: cuts encoded at a time.
        replace: whether codes of another codec, or of other audio, may be replaced.

    Returns:
        Number of cuts encoded by this call.

    Raises:
        InputError: if there are no cuts; if a cut has no agent channel, or one of another rate, channel count or duration; if
            another codec made the codes that are there and `replace` is False.
    """
    shar = existing_folder(shar_dir, "corpus")
    shards = sorted(path.name.split(".")[1] for path in shar.glob("cuts.*.jsonl*"))
    if not shards:
        raise InputError(f"corpus: {shar} holds no cuts.000000.jsonl.gz. Give the shar/ folder of a set.")
    for shard in shards:
        if not _audio_file(shar, shard).is_file():
            raise InputError(
                f"corpus: {shar} holds no {_audio_file(shar, shard).name}, the agent's channel. "
                "Copy it too, or write the corpus again."
            )
    state = shar.parent / "state"
    made_of = {"codec": codec.fingerprint, "audio_bytes": {s: _audio_file(shar, s).stat().st_size for s in shards}}
    note = state / f"{FIELD}.json"
    finished = state / FIELD / hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    if _is_done(note, made_of, [_codes_file(shar, shard) for shard in shards], replace):
        return 0

    count = 0
    for shard in tqdm(shards, desc=f"Encoding {shar.parent.name}", unit="shard", leave=False, delay=5):
        if not _codes_file(finished, shard).is_file():
            with whole_file(_codes_file(finished, shard)) as part:
                count += _encode_shard(shar, shard, codec, batch_size, part)
    note.unlink(missing_ok=True)  # if the process ends from here on, a mixture of old and new codes does not count as done
    for shard in shards:
        os.replace(_codes_file(finished, shard), _codes_file(shar, shard))
    with whole_file(note) as part:
        part.write_text(json.dumps(made_of, indent=1) + "\n")
    shutil.rmtree(state / FIELD)
    return count


def _audio_file(folder: Path, shard: str) -> Path:
    return folder / f"target_audio.{shard}.tar"


def _codes_file(folder: Path, shard: str) -> Path:
    return folder / f"{FIELD}.{shard}.tar"


def _is_done(note: Path, made_of: dict, files: list[Path], replace: bool) -> bool:
    if not note.is_file() or not all(file.is_file() for file in files):
        return False
    before = json.loads(note.read_text())
    if before == made_of:
        return True
    if not replace:
        what = "another codec" if before["codec"] != made_of["codec"] else "other audio"
        raise InputError(
            f"corpus: {files[0].parent} holds codes of {what}. Use the codec that made them, or replace them by "
            "add_codes(shar, codec, replace=True); overwrite=true makes the whole corpus again."
        )
    return False


def _encode_shard(shar: Path, shard: str, codec: FSQCodec, batch_size: int, path: Path) -> int:
    """Writes the codes of one shard to `path`; returns its number of cuts."""
    channels, count = _agent_channels(shar, shard, codec), 0
    with ArrayTarWriter(str(path), shard_size=None, compression="numpy") as writer:
        while batch := list(itertools.islice(channels, batch_size)):
            for (cut_id, _), codes in zip(batch, _encode([audio for _, audio in batch], codec)):
                storage = Array(storage_type="shar", storage_path="", storage_key="", shape=list(codes.shape))
                manifest = TemporalArray(storage, temporal_dim=0, frame_shift=codec.frame_rate.seconds, start=0)
                writer.write(cut_id, codes, manifest)
            count += len(batch)
    return count


def _encode(audios: list[torch.Tensor], codec: FSQCodec) -> list[np.ndarray]:
    """Codes (T, K) of each whole agent channel (S,), in the smallest integers that hold them."""
    lengths = torch.tensor([len(audio) for audio in audios])
    padded = torch.nn.utils.rnn.pad_sequence(audios, batch_first=True)
    codes, frames = codec.encode(padded.to(codec.silence_codes.device), lengths)
    dtype = np.int16 if codec.codebook_size <= np.iinfo(np.int16).max else np.int32
    return [row[:, :count].T.cpu().numpy().astype(dtype) for row, count in zip(codes, frames.tolist())]


def _agent_channels(shar: Path, shard: str, codec: FSQCodec) -> Iterator[tuple[str, torch.Tensor]]:
    """Id and agent channel (S,) of each cut of a shard, checked."""
    files = {"cuts": next(shar.glob(f"cuts.{shard}.jsonl*")), "target_audio": _audio_file(shar, shard)}
    where, count = f"corpus: shard {shard} of {shar}", 0
    try:
        for cut in CutSet.from_shar(fields={field: [str(file)] for field, file in files.items()}):
            where = f"Cut {cut.id}"
            count += 1
            if not holds(cut, "target_audio"):
                raise InputError(f"{where} has no agent channel (custom field target_audio). Copy or write the corpus again.")
            recording, frame_rate = cut.target_audio, codec.frame_rate
            rate = recording.sampling_rate
            if rate != codec.sample_rate:
                raise InputError(f"{where}: the agent's channel has {rate} Hz, the codec {codec.sample_rate} Hz. {_NO_CODES}")
            frames, expected = frame_rate.count_samples(recording.num_samples, rate), frame_rate.count(cut.duration)
            if frames != expected:
                raise InputError(f"{where}: the agent's channel lasts {frames} frames, the user's {expected}. Pad or cut it.")
            audio = cut.load_target_audio()
            if len(audio) != 1:
                raise InputError(f"{where}: the agent's channel has {len(audio)} channels, expected one. Keep the agent's.")
            yield cut.id, torch.from_numpy(audio[0])
        if count != (cuts := len(CutSet.from_file(files["cuts"]))):  # Lhotse ends a shard with its shortest file
            where = f"corpus: shard {shard} of {shar}"
            raise InputError(f"{where} has {cuts} cuts and the agent's channel of {count}. Copy or write the corpus again.")
    except InputError:
        raise
    except Exception as error:  # lhotse, tarfile, zlib and json raise different ones for a broken shard
        raise InputError(f"{where} cannot be read ({one_line(error)}). Copy or write the corpus again.") from error
