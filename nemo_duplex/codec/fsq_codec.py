"""The agent's voice as integers: audio (B, S) <-> codes (B, K, T), by NeMo's AudioCodecModel with finite scalar quantisation.

NanoCodec (the paper's codec, `nvidia/nemo-nano-codec-22khz-0.6kbps-12.5fps`), its siblings and this project's own small codec
are all of this class; rates and codebooks come from their configs. What a codec was trained with (discriminators, WavLM, a
speaker encoder: NeMo downloads some of them) is left out.
"""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from nemo.collections.tts.models.audio_codec import AudioCodecModel
from nemo.collections.tts.modules.audio_codec_modules import (
    CausalHiFiGANDecoder,
    FiniteScalarQuantizer,
    GroupFiniteScalarQuantizer,
    default_precision,
)
from omegaconf import OmegaConf
from torch import nn

from nemo_duplex.codec.hifigan_stepper import HiFiGANStepper
from nemo_duplex.codec.streaming_decoder import FrameDecoder, StreamingDecoder
from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.hub import nemo_file
from nemo_duplex.files.nemo_file import (
    config_values,
    is_part,
    read_nemo_file,
)
from nemo_duplex.frames import FrameRate
from nemo_duplex.inputs import InputError, one_line, plain

PARTS = ("audio_encoder", "vector_quantizer", "audio_decoder")
_LOSSES = "nemo.collections.tts.losses.audio_codec_loss"
# NeMo's constructor requires these, although nothing here uses them.
_TRAINED_ELSEWHERE = {
    "loss_resolutions": [[1024, 256, 1024]],
    "mel_loss_dims": [80],
    "commit_loss_scale": 0.0,
    "generator_loss": {"_target_": f"{_LOSSES}.GeneratorSquaredLoss"},
    "discriminator_loss": {"_target_": f"{_LOSSES}.DiscriminatorSquaredLoss"},
}
_SILENCE_FRAMES = 25
# Audio is decoded in blocks of this many frames: memory stays bounded, and so do the lengths, which NeMo computes in float32
# (exact below 2^24 samples, 12.7 minutes).
_BLOCK_FRAMES = 250


class FSQCodec(nn.Module):
    """A codec with K independent codebooks of V codes each.

    Args:
        cfg: a config of NeMo's AudioCodecModel, of which `sample_rate`, `samples_per_frame`, `audio_encoder`,
            `vector_quantizer` and `audio_decoder` are used. The weights are random; `restore_from` reads trained ones.

    Attributes:
        sample_rate: samples per second of audio.
        samples_per_frame: samples in one frame.
        frame_rate: frames per second.
        num_codebooks: K.
        codebook_size: V.
        fewest_frames: frames that the networks need at least; shorter audio is filled up for them, and its result cut.
        silence_codes: (K,) codes that sound as silence, measured by encoding zeros.

    Raises:
        InputError: if the config lacks a part, or describes a codec of another kind.

    Examples:
        >>> from nemo_duplex.scripts.demo import BUNDLED_CODEC              # the file of the demo's codec
        >>> codec = FSQCodec.restore_from(BUNDLED_CODEC)
        >>> codes, frames = codec.encode(torch.zeros(1, 22050), torch.tensor([22050]))
        >>> tuple(codes.shape), frames.tolist()                             # (B, K, T)
        ((1, 4, 13), [13])
        >>> audio, samples = codec.decode(codes, frames)
        >>> samples.tolist()
        [22932]
        >>> codec.save_to("codec.nemo")
        >>> FSQCodec.restore_from("codec.nemo").fingerprint == codec.fingerprint
        True
    """

    silence_codes: torch.Tensor
    _codebooks: torch.Tensor

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self._config = _essential(cfg)
        self.model = _build(self._config)
        self.sample_rate: int = self._config["sample_rate"]
        self.samples_per_frame: int = self._config["samples_per_frame"]
        self.frame_rate = FrameRate(Fraction(self.sample_rate, self.samples_per_frame))
        self.num_codebooks: int = self.model.num_codebooks
        self.codebook_size: int = self.model.codebook_size
        self.register_buffer("_codebooks", _codebooks(self.model.vector_quantizer), persistent=False)
        self.register_buffer("silence_codes", torch.zeros(self.num_codebooks, dtype=torch.long))
        self.fewest_frames = self._find_fewest_frames()
        self.measure_silence()

    @property
    def config(self) -> dict[str, Any]:
        """What `FSQCodec(config)` builds this codec from, without its weights."""
        return copy.deepcopy(self._config)

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits of encoder and quantizer, which decide the codes: same fingerprint, same codes."""
        digest = hashlib.sha256(json.dumps([self._config[part] for part in PARTS[:2]], sort_keys=True).encode())
        for key, value in sorted(self.model.state_dict().items()):
            if key.startswith(PARTS[:2]):
                digest.update(key.encode() + value.detach().cpu().float().numpy().tobytes())
        return digest.hexdigest()

    # --- files -------------------------------------------------------------------------------------------------------

    @classmethod
    def restore_from(cls, restore_path: str | Path, map_location: torch.device | str = "cpu") -> FSQCodec:
        """Reads the codec of a `.nemo` file, or of a folder with one; a Hugging Face id (`org/name`) is downloaded once.

        Args:
            restore_path: file, folder or id.
            map_location: the device that the codec is moved to.

        Raises:
            InputError: if there is no such file, it is truncated, holds another class of model, or its weights do not fit.
        """
        path = nemo_file(restore_path, "codec")
        config, weights = read_nemo_file(path, "codec", AudioCodecModel.__name__)
        try:
            codec = cls(config)
        except InputError as error:
            raise InputError(f"codec: {path}: {error}") from error
        codec._load(weights, path)
        return codec.to(map_location)

    @classmethod
    def from_pretrained(cls, model_name: str, map_location: torch.device | str = "cpu") -> FSQCodec:
        """Reads a codec of the Hugging Face Hub (`org/name`); arguments and errors as `restore_from`."""
        return cls.restore_from(model_name, map_location)

    def save_to(self, path: str | Path, half: bool = False, keep_codes: bool = False) -> None:
        """Writes a `.nemo` file, completely or not at all; NeMo's own `AudioCodecModel.restore_from` reads it too.

        Args:
            half: whether to store the weights in 16 bits, compressed; they are read back into 32.
            keep_codes: whether `half` spares the encoder, so that the codec which is read back gives the same codes.
        """
        if Path(path).suffix != ".nemo":
            raise InputError(f"A codec is written to a .nemo file, got {path}.")
        model = self.model
        if half:
            model = _build(self._config)
            model.load_state_dict(self.model.state_dict())
            _halve(model.audio_decoder if keep_codes else model)
        with whole_file(path) as part:
            model.save_to(str(part))
            if half:
                part.write_bytes(gzip.compress(part.read_bytes(), mtime=0))

    def _load(self, weights: Mapping[str, torch.Tensor], path: Path) -> None:
        """Loads weights strictly: all that the codec has, each in its shape, and no others."""
        own = {_todays_name(key): value for key, value in weights.items() if key.partition(".")[0] in PARTS}
        expected = {key: value for key, value in self.model.state_dict().items() if key.partition(".")[0] in PARTS}
        problems = {
            "lacks": expected.keys() - own.keys(),
            "has no place for": own.keys() - expected.keys(),
            "has another shape of": {k for k in expected.keys() & own.keys() if expected[k].shape != own[k].shape},
        }
        for problem, keys in problems.items():
            if keys:
                raise InputError(
                    f"codec: {path}: the checkpoint {problem} {len(keys)} of {len(expected)} weights, such as {min(keys)}. "
                    "Its config and its weights do not belong together."
                )
        self.model.load_state_dict(own)
        self.measure_silence()

    # --- audio <-> codes ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, audio: torch.Tensor, audio_lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio to codes. A row's codes depend on its own samples only, not on the batch that it is in.

        Cut audio before it is encoded, never the codes: an encoder may look ahead (NanoCodec's by 1.09 s).

        Args:
            audio: (B, S) at `sample_rate`, full scale 1.
            audio_lens: (B,) samples of each row; the last frame is filled up with zeros.

        Returns:
            Codes (B, K, T) and the frames (B,) of each row, ceil(samples / samples_per_frame). Silence codes fill up each row.

        Raises:
            InputError: if audio holds NaN or infinity.
        """
        if not torch.isfinite(audio).all():
            raise InputError("Audio to encode holds NaN or infinity; expected samples of full scale 1.")
        audio_lens = audio_lens.to(audio.device)
        frames = (audio_lens + self.samples_per_frame - 1) // self.samples_per_frame
        codes = self.silence_codes[:, None].repeat(len(audio), 1, int(frames.max()))
        # Rows of one length at a time: NeMo's encoders look ahead, so what pads a shorter row would change its last frames.
        for length in audio_lens.unique().tolist():
            rows = (audio_lens == length).nonzero()[:, 0]
            count = -(-length // self.samples_per_frame)
            if count:
                whole = nn.functional.pad(audio[rows, :length].float(), (0, count * self.samples_per_frame - length))
                codes[rows, :, :count] = self._encode_whole(whole)
        return codes, frames

    @torch.no_grad()
    def decode(self, codes: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes to audio.

        Args:
            codes: (B, K, T), each from 0 to V - 1; beyond a row's length anything.
            lens: (B,) frames of each row.

        Returns:
            Audio (B, T * samples_per_frame), zero beyond the samples (B,) of each row.

        Raises:
            InputError: if a code is out of range, which finite scalar quantisation would silently decode as another one.
        """
        codes, lens = codes.to(self.silence_codes.device), lens.to(self.silence_codes.device)
        inside = torch.arange(codes.shape[-1], device=codes.device) < lens[:, None]
        codes = torch.where(inside[:, None], codes, self.silence_codes[:, None])
        if self._frame_decoder() is None:
            inputs = self.dequantize(codes) * inside[:, None]
            missing = max(0, self.fewest_frames - codes.shape[-1])
            audio, _ = self.model.audio_decoder(inputs=nn.functional.pad(inputs, (0, missing)), input_len=lens)
            audio = audio[:, : codes.shape[-1] * self.samples_per_frame]
        else:
            audio = self._decode_in_blocks(codes)
        return audio * inside.repeat_interleave(self.samples_per_frame, dim=1), lens * self.samples_per_frame

    def dequantize(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes (B, K, T) to the input (B, D, T) of the decoder network.

        Raises:
            InputError: if a code is out of range.
        """
        assert codes.shape[1:2] == (self.num_codebooks,), f"codes are {tuple(codes.shape)}, not (B, {self.num_codebooks}, T)"
        wrong = (codes < 0) | (codes >= self.codebook_size)
        if wrong.any():
            row, codebook, frame = wrong.nonzero()[0].tolist()
            raise InputError(
                f"Code {codes[row, codebook, frame]} of codebook {codebook}, frame {frame}, row {row} is not one of "
                f"0 to {self.codebook_size - 1}. Replace special ids by `silence_codes` before decoding."
            )
        return self._dequantized(codes)

    def _dequantized(self, codes: torch.Tensor) -> torch.Tensor:
        books = torch.arange(self.num_codebooks, device=codes.device)[:, None, None]
        vectors = self._codebooks[books, codes.transpose(0, 1)]  # (K, B, T, D / K)
        return vectors.permute(1, 0, 3, 2).flatten(1, 2)

    def streaming_decoder(self, fold: bool = True, check: bool = True) -> StreamingDecoder:
        """Decodes frame by frame, exactly as `decode` (see `StreamingDecoder`).

        Args:
            fold: whether weight norm, where the decoder has it, is computed only once. Faster, but later changes of the weights
                are not followed.
            check: whether codes are checked, which waits for the GPU; otherwise the caller guarantees that they are in range.

        Raises:
            InputError: if this codec's decoder looks ahead.
        """
        decoder = self._frame_decoder(fold)
        if decoder is None:
            name = type(self.model.audio_decoder).__name__
            raise InputError(f"This codec cannot be streamed: its decoder {name} is not causal.")
        return StreamingDecoder(self.dequantize if check else self._dequantized, decoder)

    @torch.no_grad()
    def measure_silence(self) -> None:
        """Sets `silence_codes` to the codes of the middle one of 25 frames of zeros."""
        zeros = self._codebooks.new_zeros(1, _SILENCE_FRAMES * self.samples_per_frame)
        self.silence_codes.copy_(self._encode_whole(zeros)[0, :, _SILENCE_FRAMES // 2])

    def _encode_whole(self, audio: torch.Tensor) -> torch.Tensor:
        """(B, S) of whole frames -> (B, K, T). In float32 under any autocast, so that the same audio gives the same codes."""
        count = audio.shape[1] // self.samples_per_frame
        audio = nn.functional.pad(audio, (0, max(0, self.fewest_frames - count) * self.samples_per_frame))
        lengths = torch.full((len(audio),), audio.shape[1], device=audio.device)
        with default_precision(torch.float32), torch.autocast(audio.device.type, enabled=False):
            encoded, frames = self.model.audio_encoder(audio=audio, audio_len=lengths)
            codes = self.model.vector_quantizer.encode(inputs=encoded, input_len=frames)
        return codes.transpose(0, 1).long()[..., :count]

    @torch.no_grad()
    def _find_fewest_frames(self) -> int:
        """The least number of frames that go through all networks: `reflect`, NeMo's default padding, needs some.

        Raises:
            InputError: if no number does: the networks do not belong together.
        """
        problem = ""
        for count in range(1, _SILENCE_FRAMES + 1):
            frames, samples = torch.tensor([count]), count * self.samples_per_frame
            try:
                with default_precision(torch.float32):
                    encoded, _ = self.model.audio_encoder(audio=torch.zeros(1, samples), audio_len=torch.tensor([samples]))
                    codes = self.model.vector_quantizer.encode(inputs=encoded, input_len=frames).transpose(0, 1).long()
                    audio, _ = self.model.audio_decoder(inputs=self.dequantize(codes), input_len=frames)
            except Exception as error:  # torch and NeMo raise different ones
                problem = one_line(error)
                continue
            if (codes.shape[-1], audio.shape[-1]) == (count, samples):
                return count
            problem = f"{samples} samples become {codes.shape[-1]} frames, and those {audio.shape[-1]} samples"
        raise InputError(f"This codec config does not build: its networks fail on {_SILENCE_FRAMES} frames: {problem}.")

    def _frame_decoder(self, fold: bool = False) -> FrameDecoder | None:
        decoder = self.model.audio_decoder
        if isinstance(decoder, CausalHiFiGANDecoder):
            return HiFiGANStepper(decoder, fold)
        return decoder if hasattr(decoder, "initial_buffers") else None

    def _decode_in_blocks(self, codes: torch.Tensor) -> torch.Tensor:
        decoder = self.streaming_decoder(fold=False)
        state = decoder.init_state(len(codes))
        pieces = [self._codebooks.new_zeros(len(codes), 0)]
        for block in codes.split(_BLOCK_FRAMES, dim=-1) if codes.shape[-1] else ():
            audio, state = decoder.step(block, state)
            pieces.append(audio)
        return torch.cat(pieces, dim=1)


def _essential(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a NeMo codec config that define the codec, as plain data."""
    given = plain(cfg)
    keys = ("sample_rate", "samples_per_frame", *PARTS)
    if missing := [key for key in keys if not given.get(key)]:
        raise InputError(f"A codec config needs {', '.join(keys)}; this one lacks {', '.join(missing)}.")
    if given.get("semantic_codec") or given.get("semantic_codec_path"):
        raise InputError("This codec has a second, semantic one inside, which is not supported: give one without.")
    if given.get("output_sample_rate", given["sample_rate"]) != given["sample_rate"]:
        rates = f"encodes {given['sample_rate']} Hz and decodes to {given['output_sample_rate']} Hz"
        raise InputError(f"This codec {rates}; expected one rate.")
    essential = copy.deepcopy({key: given[key] for key in keys})
    for place, key, value in config_values(essential):
        if key in ("_target_", "cls") and not is_part(value):  # `cls` is hydra's former word for it
            raise InputError(f"This codec config names {str(value)[:100]!r} at {place}, which is no part of a codec.")
    return essential


def _todays_name(key: str) -> str:
    """The name of a weight-normalised weight since torch 2.0; checkpoints of older NeMo have the former names."""
    for former, todays in (
        (".weight_g", ".parametrizations.weight.original0"),
        (".weight_v", ".parametrizations.weight.original1"),
    ):
        if key.endswith(former):
            return key.removesuffix(former) + todays
    return key


def _build(config: Mapping[str, Any]) -> AudioCodecModel:
    try:
        model = AudioCodecModel(OmegaConf.create({**config, **_TRAINED_ELSEWHERE})).eval()
    except Exception as error:  # NeMo, hydra and the parts raise different ones for a wrong class or argument
        raise InputError(f"This codec config does not build: {one_line(error)}") from error
    for name in ("mel_loss_fn", "stft_loss_fn"):  # their filters would travel in every checkpoint
        setattr(model, name, None)
    return model


def _codebooks(quantizer: nn.Module) -> torch.Tensor:
    """The vector of each code, (K, V, D / K): the codebooks of the quantizer as a table."""
    if not isinstance(quantizer, (FiniteScalarQuantizer, GroupFiniteScalarQuantizer)):
        name = type(quantizer).__name__
        raise InputError(f"This codec quantizes by {name}; expected finite scalar quantisation (independent codebooks).")
    count, size = quantizer.num_codebooks, quantizer.codebook_size
    codes = torch.arange(size, dtype=torch.int32).repeat(count, 1, 1)
    with default_precision(torch.float32):
        vectors = quantizer.decode(indices=codes, input_len=torch.tensor([size]))  # (1, D, V)
    return vectors.view(count, -1, size).transpose(1, 2).contiguous()


def _halve(module: nn.Module) -> None:
    """Rounds weights to 16 bits, in place, except tensors that hold a number beyond 65504, their largest one."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point() and (half := tensor.detach().half()).isfinite().all():
            tensor.data = half
