"""User audio -> one embedding per frame: a cache-aware FastConformer, an adapter, and a projection to the language model.

The paper (section 3.1) takes frames of 80 ms and 80 ms of right context. Right context makes frames come in encoder chunks:
with an attention context of [70, 1], frames 2j and 2j + 1 are computed together. They attend to each other and to the 70 before
them.

    ms       0         80        160       240       320
    frame    |--- 0 ---|--- 1 ---|--- 2 ---|--- 3 ---|
    encoder chunk 0  ============|                       depends on half a mel window (12.5 ms) of its last frame,
    encoder chunk 1               ===================|   each later encoder chunk on 160 ms more

A stream therefore starts with `lead_samples` of silence; after them, every `chunk_samples` make an encoder chunk. Counts of
frames are exact, ceil(S / samples_per_frame): audio continues as silence until its last encoder chunk is full, which NeMo's own
forward does not do. `stream.py` computes the same frames step by step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor, ConformerEncoder
from torch import Tensor, arange, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nemo_duplex.frames import FRAME_RATE, FrameRate
from nemo_duplex.inputs import InputError, one_line
from nemo_duplex.perception.asr_checkpoint import read_asr_parts
from nemo_duplex.perception.config import conformer_adapter, perception_config
from nemo_duplex.perception.front_end import FOLDED_CHANNELS, WARM_UP, history, log_mel, subsample, window_history
from nemo_duplex.perception.whisper_encoder import MEL_BEFORE, MEL_HISTORY, Past, StreamingWhisperEncoder


@dataclass
class ConformerCache:
    """The past that L layers still look at, per row. Its size does not depend on how long a stream is."""

    channel: Tensor  # (L, B, left context, D) what self-attention looks back on
    time: Tensor  # (L, B, D, kernel - 1) what the convolution looks back on
    filled: Tensor  # (B,) frames of `channel` that there have been; the others are not attended to

    @classmethod
    def empty(cls, encoder: nn.Module, batch_size: int, device: torch.device | str | None = None) -> ConformerCache:
        """The cache of `batch_size` streams that have not begun. `encoder` is a `ConformerEncoder`."""
        dtype = next(encoder.parameters()).dtype
        return cls(*encoder.get_initial_cache_state(batch_size=batch_size, dtype=dtype, device=device))


def conformer_layers(encoder: nn.Module, x: Tensor) -> Tensor:
    """The layers of `encoder` over whole recordings: (B, T, D) after its subsampling -> (B, T, D').

    Rows may be padded to whole chunks and beyond: no frame sees a later chunk, so what comes after a row's end changes nothing.
    """
    batch, frames, _ = x.shape
    if frames > encoder.max_audio_length:
        encoder.set_max_audio_length(frames)
    lens = torch.full((batch,), frames, dtype=torch.long, device=x.device)
    encoded, _ = encoder.forward_internal(x, lens, bypass_pre_encode=True)
    return encoded.transpose(1, 2)


def conformer_step(encoder: nn.Module, x: Tensor, cache: ConformerCache) -> tuple[Tensor, ConformerCache]:
    """The layers of `encoder` over the next chunk or chunks of each row's stream: (B, T, D) -> (B, T, D')."""
    batch, frames, _ = x.shape
    needed = frames + cache.channel.shape[2]
    if needed > encoder.max_audio_length:
        encoder.set_max_audio_length(needed)
    lens = torch.full((batch,), frames, dtype=torch.long, device=x.device)
    encoded, _, *caches = encoder.streaming_post_process(
        encoder.forward_internal(x, lens, cache.channel, cache.time, cache.filled, bypass_pre_encode=True)
    )
    return encoded.transpose(1, 2), ConformerCache(*caches)


class FrameEncoder(nn.Module):
    """Preprocessor and encoder of a NeMo speech recognition model: audio -> features of 80 ms frames.

    Args:
        preprocessor: `AudioToMelSpectrogramPreprocessor`.
        encoder: `ConformerEncoder`, cache-aware, 80 ms frames (`config.cache_aware` checks it), or a `StreamingWhisperEncoder`.

    Attributes:
        sample_rate: Hz of the audio.
        chunk_frames: frames that are computed together (right context + 1).
        chunk_samples: audio of an encoder chunk.
    """

    def __init__(self, preprocessor: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        self.preprocessor = preprocessor
        self.encoder = encoder
        self.sample_rate: int = preprocessor.featurizer.sample_rate
        self.frame_rate: FrameRate = FRAME_RATE
        self.samples_per_frame = FRAME_RATE.samples_per_frame(self.sample_rate)
        self.chunk_frames: int = encoder.att_context_size[1] + 1
        self.chunk_samples = self.chunk_frames * self.samples_per_frame
        #: Whether a training on a CPU runs the convolutions again in the backward pass.
        self.recompute = False

    def encode(self, audio: Tensor, audio_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Features of whole recordings, for example for a CTC loss.

        Args:
            audio: (B, S) float at `sample_rate`; samples after a row's end are ignored.
            audio_lens: (B,) samples.

        Returns:
            features (B, T, D), T = ceil(S / samples_per_frame), and the frames of each row (B,), counted likewise. Each row
            equals that row alone; beyond its end it is what silence would give.
        """
        features = self.features(self.mel(audio, audio_lens))
        return features[:, : self.count(audio.shape[1])], self.counts(audio_lens)

    def mel(self, audio: Tensor, audio_lens: Tensor) -> Tensor:
        """All mel frames (B, mels, M) that the encoder chunks of `audio` (B, S) depend on."""
        return log_mel(self.preprocessor.featurizer, self.padded(audio, audio_lens))

    def padded(self, audio: Tensor, audio_lens: Tensor) -> Tensor:
        """All samples that the encoder chunks of `audio` (B, S) depend on, silent before and after each row's own."""
        chunks = max(1, -(-audio.shape[1] // self.chunk_samples))
        last_centre = chunks * self.chunk_samples - self.samples_per_frame
        after = last_centre + self.half_window - audio.shape[1]  # negative where nothing depends on the end of the last frame
        return F.pad(silent_after(audio, audio_lens), (self._before_first + 1 + self.half_window, after))

    def features(self, mel: Tensor) -> Tensor:
        """Mel frames (B, mels, M) of `mel` -> features (B, T', D) of whole encoder chunks.

        In a training on a CPU, wide convolutions hear one recording after the other: that stays in its caches.
        """
        if isinstance(self.encoder, StreamingWhisperEncoder):
            return self.encoder.frames(mel)
        pre_encode = self.encoder.pre_encode
        mel = mel.to(pre_encode.out.weight.dtype)
        alone = self.recompute or pre_encode.conv[0].out_channels > FOLDED_CHANNELS
        if not (alone and torch.is_grad_enabled() and mel.device.type == "cpu"):
            return conformer_layers(self.encoder, subsample(pre_encode, mel))
        hear = partial(subsample, pre_encode)
        if self.recompute:
            hear = partial(checkpoint, hear, use_reentrant=False, preserve_rng_state=False)
        return conformer_layers(self.encoder, torch.cat([hear(row) for row in mel.split(1)]))

    def count(self, samples: int) -> int:
        """Frames of a recording."""
        return self.frame_rate.count_samples(samples, self.sample_rate)

    def counts(self, audio_lens: Tensor) -> Tensor:
        """Frames (B,) of recordings of `audio_lens` (B,) samples."""
        return -(-audio_lens // self.samples_per_frame)

    @property
    def _before_first(self) -> int:
        """Samples between the first mel frame that the first frame depends on and the start of the recording."""
        return MEL_BEFORE * self.preprocessor.featurizer.hop_length if isinstance(self.encoder, StreamingWhisperEncoder) else 0

    @property
    def half_window(self) -> int:
        """Samples on either side of its centre that a mel frame depends on."""
        return self.preprocessor.featurizer.win_length // 2


def silent_after(audio: Tensor, audio_lens: Tensor) -> Tensor:
    """Audio (B, S) with zeros after each row's end."""
    return audio.masked_fill(arange(audio.shape[1], device=audio.device) >= audio_lens[:, None], 0.0)


# Attention over a whole recording takes memory by the square of its length. Where no gradient is needed, recordings longer than
# this (two minutes) are computed in pieces, with the same result.
_PIECE_FRAMES = 1500


class Perception(FrameEncoder):
    """Encoder, adapter and projection: audio -> embeddings for the language model.

    Args:
        config: plain dict of
            preprocessor: arguments of NeMo's AudioToMelSpectrogramPreprocessor;
            encoder: arguments of NeMo's ConformerEncoder, cache-aware; with `kind: whisper`, of StreamingWhisperEncoder;
            adapter: `kind: mlp` with `hidden`, `kind: conformer` with those arguments that differ from the encoder's, or
                `kind: identity`, which leaves everything to the projection;
            output_dim: H of the language model.

    Attributes:
        config: the same, complete: `Perception(perception.config)` has weights of the same names and shapes.
        lead_samples: zeros before a stream's audio, so that its first encoder chunk is as long as the others.

    Raises:
        InputError: for an unknown key, or an encoder that cannot run frame by frame at 80 ms.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        config = perception_config(config)
        encoder, adapter = config["encoder"], config["adapter"]
        super().__init__(
            built(AudioToMelSpectrogramPreprocessor, config["preprocessor"], "preprocessor"),
            built_encoder(encoder),
        )
        self.config = config
        self.modality_adapter, width = built_adapter(adapter, encoder, self.encoder._feat_out)
        self.output_dim: int = config["output_dim"]
        self.proj = nn.Linear(width, self.output_dim)
        self.lead_samples = self.samples_per_frame - self.half_window

    @classmethod
    def from_asr(cls, path_or_name: str, config: Mapping[str, Any], weights: bool = True) -> Perception:
        """Preprocessor and encoder of a NeMo ASR model (CTC, RNNT or hybrid), with a new adapter and projection.

        Args:
            path_or_name: a `.nemo` file, or a model's name on NGC or Hugging Face.
            config: `adapter` and `output_dim`; `att_context_size` chooses among those that the model was trained for; what
                `encoder` says replaces the checkpoint's arguments (its dropout, for example).
            weights: False takes the architecture alone, with random weights.

        Raises:
            InputError: if the file is no whole ASR `.nemo`, or its encoder cannot run frame by frame.
        """
        parts = read_asr_parts(path_or_name)
        own = {key: value for key, value in config.items() if key != "att_context_size"}
        changes = {key: value for key, value in (own.get("encoder") or {}).items() if value is not None}
        try:
            context = config.get("att_context_size") or changes.pop("att_context_size", None)
            encoder = {**parts.encoder_for(context), **changes}
            perception = cls({**own, "preprocessor": parts.preprocessor, "encoder": encoder})
            if weights:
                perception.encoder.load_state_dict(parts.weights_of("encoder"))
                perception.preprocessor.load_state_dict(parts.weights_of("preprocessor"))
        except InputError as error:
            raise InputError(f"{path_or_name}: {error}") from error
        except RuntimeError as error:  # torch's report of weights that are missing, unknown or of another shape
            raise InputError(f"{path_or_name}: weights and configuration do not fit: {one_line(error)}") from error
        return perception

    def forward(self, audio: Tensor, audio_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, T, H) of whole recordings and the frames of each row (B,); arguments and counts as `encode`."""
        frames = self.count(audio.shape[1])
        if frames > _PIECE_FRAMES and not torch.is_grad_enabled():
            embeddings = self._in_pieces(self.padded(audio, audio_lens))
        else:
            embeddings, _ = self._adapt(self.features(self.mel(audio, audio_lens)))
        return embeddings[:, :frames], self.counts(audio_lens)

    def _in_pieces(self, samples: Tensor) -> Tensor:
        """Embeddings (B, T', H) of whole encoder chunks of `padded` samples; caches carry the past into each piece."""
        featurizer, adapter, frame, batch = (
            self.preprocessor.featurizer,
            self.modality_adapter,
            self.samples_per_frame,
            len(samples),
        )
        kind = _WhisperPieces if isinstance(self.encoder, StreamingWhisperEncoder) else _ConformerPieces
        encode = kind(self.encoder, batch, samples.device)
        looks_back = isinstance(adapter, ConformerEncoder)
        adapter_cache = ConformerCache.empty(adapter, batch, samples.device) if looks_back else None
        num_frames = (samples.shape[1] - self._before_first - featurizer.win_length - 1) // frame + 1
        samples = F.pad(samples, (encode.frames_before * frame, 0))
        piece, pieces = _PIECE_FRAMES // self.chunk_frames * self.chunk_frames, []
        for first in range(0, num_frames, piece):
            window = encode.history + self.encoder.subsampling_factor * min(piece, num_frames - first)  # mel frames
            start, length = first * frame, history(featurizer) + featurizer.hop_length * window
            mel = log_mel(featurizer, samples[:, start : start + length])
            embeddings, adapter_cache = self._adapt(encode(mel.to(self.proj.weight.dtype), first), adapter_cache)
            pieces.append(embeddings)
        return torch.cat(pieces, dim=1)

    def _adapt(self, features: Tensor, cache: ConformerCache | None = None) -> tuple[Tensor, ConformerCache | None]:
        """Encoder features (B, T, D) -> embeddings (B, T, H); with a cache, of the frames after those in it."""
        adapter = self.modality_adapter
        if isinstance(adapter, ConformerEncoder):
            features = adapter.pre_encode(features)
            if cache is None:
                features = conformer_layers(adapter, features)
            else:
                features, cache = conformer_step(adapter, features, cache)
        else:
            features = adapter(features)
        return self.proj(features), cache


class _ConformerPieces:
    """A Conformer's frames of B recordings, piece by piece, with NeMo's caches."""

    frames_before = WARM_UP

    def __init__(self, encoder: nn.Module, batch: int, device: torch.device) -> None:
        self._encoder, self.history = encoder, window_history(encoder.subsampling_factor)
        self._cache = ConformerCache.empty(encoder, batch, device)

    def __call__(self, mel: Tensor, first: int) -> Tensor:
        """The window (B, mels, M) of the frames from number `first` on -> (B, T, D)."""
        age = torch.full((len(mel),), first, device=mel.device)
        x, self._cache = conformer_step(self._encoder, subsample(self._encoder.pre_encode, mel, age), self._cache)
        return x


class _WhisperPieces:
    """The same of a `StreamingWhisperEncoder`."""

    frames_before, history = 0, MEL_HISTORY

    def __init__(self, encoder: StreamingWhisperEncoder, batch: int, device: torch.device) -> None:
        self._encoder = encoder
        self._past: Past | None = None

    def __call__(self, mel: Tensor, first: int) -> Tensor:
        x, self._past = self._encoder.piece(mel, self._past)
        return x


def built_encoder(config: Mapping[str, Any]) -> nn.Module:
    """The encoder of a complete configuration of `Perception`."""
    arguments = {key: value for key, value in config.items() if key != "kind"}
    return built(StreamingWhisperEncoder if config.get("kind") == "whisper" else ConformerEncoder, arguments, "encoder")


def built_adapter(adapter: Mapping[str, Any], encoder: Mapping[str, Any], width: int) -> tuple[nn.Module, int]:
    """The adapter behind an encoder of `width` features, and how many it gives to the projection."""
    if adapter["kind"] == "identity":
        return nn.Identity(), width
    if adapter["kind"] == "mlp":
        return nn.Sequential(nn.Linear(width, adapter["hidden"]), nn.SiLU()), adapter["hidden"]
    conformer = built(ConformerEncoder, conformer_adapter(encoder, adapter, width), "adapter")
    return conformer, conformer._feat_out


def built(module: type[nn.Module], arguments: dict[str, Any], what: str) -> Any:
    """A module of NeMo or of ours.

    Raises:
        InputError: for arguments that the module does not accept; `what` names the section in the message.
    """
    try:
        return module(**arguments)
    except Exception as error:  # also AssertionError, for heads that do not divide the width
        whose = "NeMo's " if module.__module__.startswith("nemo.") else ""
        raise InputError(f"perception.{what}: {whose}{module.__name__} refuses the configuration: {one_line(error)}") from error
