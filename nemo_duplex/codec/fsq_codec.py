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
import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from nemo.collections.tts.modules.audio_codec_modules import CausalHiFiGANDecoder, default_precision
from nemo.core.classes.common import PretrainedModelInfo
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from omegaconf import DictConfig, OmegaConf
from torch import nn

from nemo_duplex.codec.codec_file import (
    available_codecs,
    codec_path,
    fitting_weights,
    halve,
    read_codec_file,
    refuse_unsupported,
)
from nemo_duplex.codec.codec_input import check_range, checked_audio, checked_codes, checked_lengths, resampled
from nemo_duplex.codec.codec_network import PARTS, build_network, code_vectors, essential_config
from nemo_duplex.codec.hifigan_stepper import HiFiGANStepper
from nemo_duplex.codec.istft_decoder import IstftDecoder
from nemo_duplex.codec.streaming_decoder import FrameDecoder, StreamingDecoder
from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.nemo_file import overriding_config
from nemo_duplex.frames import FrameRate
from nemo_duplex.inputs import InputError, one_line
from nemo_duplex.kernels.convolution import can_pack, has_fast_bfloat16

_SILENCE_FRAMES = 25
# Audio is decoded in blocks of this many frames of all rows together: memory stays bounded, and so do the lengths, which NeMo
# computes in float32 (exact below 2^24 samples, 12.7 minutes). NanoCodec decodes 250 frames in 5.8 s by 100, in 10.4 s at once
# (two CPU cores), since what a layer makes then stays in the caches.
_BLOCK_FRAMES = 100


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
        self._config = essential_config(cfg)
        self.model = build_network(self._config)
        self.sample_rate: int = self._config["sample_rate"]
        self.samples_per_frame: int = self._config["samples_per_frame"]
        self.frame_rate = FrameRate(Fraction(self.sample_rate, self.samples_per_frame))
        self.num_codebooks: int = self.model.num_codebooks
        self.codebook_size: int = self.model.codebook_size
        self.register_buffer("_codebooks", code_vectors(self.model.vector_quantizer), persistent=False)
        self.register_buffer("silence_codes", torch.zeros(self.num_codebooks, dtype=torch.long))
        self.fewest_frames = self._find_fewest_frames()
        self.measure_silence()

    @property
    def config(self) -> dict[str, Any]:
        """What `FSQCodec(config)` builds this codec from, without its weights."""
        return copy.deepcopy(self._config)

    @property
    def cfg(self) -> DictConfig:
        """`config` under NeMo's name for it, as a DictConfig; a copy."""
        return OmegaConf.create(self._config)

    @property
    def device(self) -> torch.device:
        """Where the codec is."""
        return self.silence_codes.device

    @property
    def kbps(self) -> float:
        """Kilobits that a second of codes takes: codebooks x log2(codes of one) x frames per second / 1000."""
        return self.num_codebooks * math.log2(self.codebook_size) * float(self.frame_rate.hz) / 1000

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
    def list_available_models(cls) -> list[PretrainedModelInfo]:
        """Published codecs that `from_pretrained` can download."""
        return available_codecs()

    @classmethod
    def restore_from(
        cls,
        restore_path: str | Path,
        override_config_path: str | Path | DictConfig | None = None,
        map_location: torch.device | str | None = None,
        strict: bool = True,
        return_config: bool = False,
        save_restore_connector: SaveRestoreConnector | None = None,
        trainer: None = None,
        validate_access_integrity: bool = True,
    ) -> FSQCodec:
        """Reads the codec of a `.nemo`, or the one inside of an agent's; arguments as NeMo's `ModelPT.restore_from`.

        Args:
            restore_path: file, folder with one, or Hugging Face id (`org/name`), which is downloaded once.
            override_config_path: YAML file or config of the codec in place of the file's own.
            map_location: the device that the codec is moved to; None: a GPU where there is one, else the CPU.
            strict: whether the file must hold every weight of the codec, and no other one. Without, missing ones are random.
            return_config: whether to return the file's config alone, a DictConfig.
            save_restore_connector, trainer: None; NeMo's plain connector changes nothing.
            validate_access_integrity: changes nothing: what a file holds is always checked, and no code in it is run.

        Raises:
            InputError: if there is no such file, it is truncated, holds another class of model, its weights do not fit, or for
                an argument that cannot be honoured.
        """
        refuse_unsupported(save_restore_connector, trainer)
        path = codec_path(restore_path)
        config, weights = read_codec_file(path)
        if override_config_path is not None:
            config = overriding_config(override_config_path, "codec")
        if return_config:
            found: Any = OmegaConf.create(config)
            return found
        try:
            codec = cls(config)
        except InputError as error:
            raise InputError(f"codec: {path}: {error}") from error
        codec.load_weights(weights, path, strict)
        return codec.to(map_location or ("cuda" if torch.cuda.is_available() else "cpu"))

    @classmethod
    def from_pretrained(
        cls,
        model_name: str | Path,
        refresh_cache: bool = False,
        override_config_path: str | Path | DictConfig | None = None,
        map_location: torch.device | str | None = None,
        strict: bool = True,
        return_config: bool = False,
        trainer: None = None,
        save_restore_connector: SaveRestoreConnector | None = None,
        return_model_file: bool = False,
        *,
        revision: str | None = None,
        token: str | None = None,
    ) -> Any:
        """Reads a codec of the Hugging Face Hub (`org/name`) or of NGC (`list_available_models`); else as `restore_from`.

        Args:
            refresh_cache: whether to download it again.
            return_model_file: whether to return the path of the downloaded file alone.
            revision: branch, tag or commit on the hub; None takes the main branch.
            token: of an account that may read it; None takes the one of `hf auth login`.

        Raises:
            InputError: if there is no such codec, it cannot be downloaded, or as `restore_from`.
        """
        refuse_unsupported(save_restore_connector, trainer)
        path = codec_path(model_name, refresh_cache, revision, token)
        if return_model_file:
            return str(path)
        return cls.restore_from(path, override_config_path, map_location, strict, return_config)

    def save_to(self, save_path: str | Path, half: bool = False, keep_codes: bool = False) -> None:
        """Writes a `.nemo` file, completely or not at all; NeMo's own `AudioCodecModel.restore_from` reads it too.

        Args:
            half: whether to store the weights in 16 bits, compressed; they are read back into 32.
            keep_codes: whether `half` spares the encoder, so that the codec which is read back gives the same codes.
        """
        if Path(save_path).suffix != ".nemo":
            raise InputError(f"A codec is written to a .nemo file, got {save_path}.")
        model = self.model
        if half:
            model = build_network(self._config)
            model.load_state_dict(self.model.state_dict())
            halve(model.audio_decoder if keep_codes else model)
        with whole_file(save_path) as part:
            model.save_to(str(part))
            if half:
                part.write_bytes(gzip.compress(part.read_bytes(), mtime=0))

    def load_weights(self, weights: Mapping[str, torch.Tensor], path: str | Path, strict: bool = True) -> None:
        """Loads weights named as in NeMo's AudioCodecModel; `path` names their file in errors, which `fitting_weights` has."""
        self.model.load_state_dict(fitting_weights(weights, self.model.state_dict(), path, strict))
        self.measure_silence()

    # --- audio <-> codes ---------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode(
        self, audio: torch.Tensor, audio_len: torch.Tensor, sample_rate: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio to codes. A row's codes depend on its own samples only, not on the batch that it is in.

        Cut audio before it is encoded, never the codes: an encoder may look ahead (NanoCodec's by 1.09 s).

        Args:
            audio: (B, S) floats of full scale 1, mono. Samples beyond 1 are encoded as they are.
            audio_len: (B,) integers, samples of each row; the last frame is filled up with zeros. Beyond a row's length
                anything may stand.
            sample_rate: of the audio; None: the codec's. Audio of another rate is resampled.

        Returns:
            Codes (B, K, T) and the frames (B,) of each row, ceil(samples / samples_per_frame), on the codec's device. Silence
            codes fill up each row. No rows or no samples give no rows or no frames.

        Raises:
            InputError: if audio is no such tensor, has several channels, holds NaN, infinity or samples of another scale, or
                a length is negative or more than the tensor holds.
        """
        audio, audio_len = checked_audio(audio, audio_len)
        if sample_rate is not None and sample_rate != self.sample_rate:
            audio, audio_len = resampled(audio, audio_len, sample_rate, self.sample_rate)
        audio, audio_len = audio.to(self.device), audio_len.to(self.device)
        frames = (audio_len + self.samples_per_frame - 1) // self.samples_per_frame
        codes = self.silence_codes[:, None].repeat(len(audio), 1, max(frames.tolist(), default=0))
        # Rows of one length at a time: NeMo's encoders look ahead, so what pads a shorter row would change its last frames.
        for length in audio_len.unique().tolist():
            rows = (audio_len == length).nonzero()[:, 0]
            count = -(-length // self.samples_per_frame)
            if count:
                whole = nn.functional.pad(audio[rows, :length], (0, count * self.samples_per_frame - length))
                codes[rows, :, :count] = self._encode_whole(whole)
        return codes, frames

    @torch.no_grad()
    def decode(self, tokens: torch.Tensor, tokens_len: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Codes to audio. The names of the arguments are NeMo's.

        Args:
            tokens: codes (B, K, T), integers, each from 0 to V - 1; beyond a row's length anything.
            tokens_len: (B,) integers, frames of each row.

        Returns:
            Audio (B, T * samples_per_frame), zero beyond the samples (B,) of each row, on the codec's device. No rows or no
            frames give no rows or no samples.

        Raises:
            InputError: if codes are no such tensor or of another geometry, a code is out of range, which finite scalar
                quantisation would silently decode as another one, or a length is negative or more than the tensor holds.
        """
        codes = checked_codes(tokens, self.num_codebooks).to(self.device)
        lens = checked_lengths(tokens_len, "tokens_len", len(codes), codes.shape[-1], "frames", self.device)
        inside = torch.arange(codes.shape[-1], device=codes.device) < lens[:, None]
        codes = torch.where(inside[:, None], codes, self.silence_codes[:, None])
        if not codes.shape[0] * codes.shape[-1]:
            return self._codebooks.new_zeros(
                len(codes), codes.shape[-1] * self.samples_per_frame
            ), lens * self.samples_per_frame
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
            InputError: if they are of another geometry, or a code is out of range.
        """
        codes = checked_codes(codes, self.num_codebooks)
        check_range(codes, self.codebook_size)
        return self._dequantized(codes)

    def _dequantized(self, codes: torch.Tensor) -> torch.Tensor:
        books = torch.arange(self.num_codebooks, device=codes.device)[:, None, None]
        vectors = self._codebooks[books, codes.transpose(0, 1)]  # (K, B, T, D / K)
        return vectors.permute(1, 0, 3, 2).flatten(1, 2)

    def streaming_decoder(self, fold: bool = True, check: bool = True, bfloat16: bool = False) -> StreamingDecoder:
        """Decodes frame by frame, exactly as `decode` (see `StreamingDecoder`).

        Args:
            fold: whether weight norm, where the decoder has it, is computed only once. Faster, but later changes of the weights
                are not followed.
            check: whether codes are checked, which waits for the GPU; otherwise the caller guarantees that they are in range.
            bfloat16: whether to multiply in bfloat16 where this CPU is faster with it: near to what `decode` gives, not equal.
                Needs fold.

        Raises:
            InputError: if this codec's decoder looks ahead.
        """
        decoder = self._frame_decoder(fold, bfloat16 and has_fast_bfloat16())
        if decoder is None:
            name = type(self.model.audio_decoder).__name__
            raise InputError(f"This codec cannot be streamed: its decoder {name} is not causal.")
        return StreamingDecoder(self.dequantize if check else self._dequantized, decoder, self.samples_per_frame)

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

    def _frame_decoder(self, fold: bool = False, bfloat16: bool = False) -> FrameDecoder | None:
        decoder = self.model.audio_decoder
        if isinstance(decoder, CausalHiFiGANDecoder):
            return HiFiGANStepper(decoder, fold, bfloat16)
        if isinstance(decoder, IstftDecoder) and fold and bfloat16 and can_pack(decoder.head.weight):
            return decoder.in_bfloat16()
        return decoder if hasattr(decoder, "initial_buffers") else None

    def _decode_in_blocks(self, codes: torch.Tensor) -> torch.Tensor:
        decoder = self.streaming_decoder(fold=False)
        state = decoder.init_state(len(codes))
        pieces = [self._codebooks.new_zeros(len(codes), 0)]
        for block in codes.split(max(1, _BLOCK_FRAMES // len(codes)), dim=-1) if codes.shape[-1] else ():
            audio, state = decoder.step(block, state)
            pieces.append(audio)
        return torch.cat(pieces, dim=1)
