"""What the agent hears: user audio -> one embedding per frame, for whole recordings and step by step, with equal results.

NeMo's cache-aware FastConformer (paper, section 3.1: 80 ms frames, 80 ms of right context), an adapter, and a projection to the
language model. Right context makes frames come in encoder chunks: with [70,1] the frames 2j and 2j + 1 are computed together.

    ms       0         80        160       240       320
    frame    |--- 0 ---|--- 1 ---|--- 2 ---|--- 3 ---|
    encoder chunk 0  ============|                                    hears half a mel window (12.5 ms) into its last frame,
    encoder chunk 1               ===================|                each later encoder chunk 160 ms more

A stream therefore starts with `lead_samples` of silence that nobody spoke; after them, every `chunk_samples` make an encoder
chunk. After its end, a stream is silence as far as its last encoder chunk reaches.

A cache-aware FastConformer with its log-mel in front: whole recordings -> features of 80 ms frames.

Frame t hears 12.5 ms (half a mel window) into itself, and the frames of its encoder chunk: with an attention context of [70,
1], frames 2j and 2j + 1 attend to each other and to the 70 before them. Counts are exact, ceil(S / samples_per_frame): a
recording goes on as silence until its last encoder chunk is full, which NeMo's own forward does not do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor, ConformerEncoder
from torch import Tensor, arange, nn
from torch.nn import functional as F

from nemo_duplex.frames import FRAME_RATE, FrameRate
from nemo_duplex.inputs import InputError, one_line
from nemo_duplex.perception.asr_checkpoint import read_asr_parts
from nemo_duplex.perception.config import conformer_adapter, perception_config
from nemo_duplex.perception.conformer import ConformerCache, conformer_layers, conformer_step
from nemo_duplex.perception.log_mel import history, log_mel
from nemo_duplex.perception.subsampling import subsample, window_history


class FrameEncoder(nn.Module):
    """Preprocessor and encoder of a NeMo speech recognition model.

    Args:
        preprocessor: `AudioToMelSpectrogramPreprocessor`.
        encoder: `ConformerEncoder`, cache-aware, 80 ms frames (`perception_config.cache_aware` checks it).

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

    def encode(self, audio: Tensor, audio_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Features of whole recordings, for example for a CTC loss.

        Args:
            audio: (B, S) float at `sample_rate`; what stands after a row's end is not heard.
            audio_lens: (B,) samples.

        Returns:
            features (B, T, D), T = ceil(S / samples_per_frame), and the frames of each row (B,), counted likewise. Each row
            equals that row alone; beyond its end it is what silence would give.
        """
        features = self.features(self.mel(audio, audio_lens))
        return features[:, : self.count(audio.shape[1])], self.counts(audio_lens)

    def mel(self, audio: Tensor, audio_lens: Tensor) -> Tensor:
        """(B, mels, M) all mel frames that the encoder chunks of `audio` (B, S) look at."""
        chunks = max(1, -(-audio.shape[1] // self.chunk_samples))
        last_centre = chunks * self.chunk_samples - self.samples_per_frame
        after = last_centre + self.half_window - audio.shape[1]  # negative where nothing looks at the end of the last frame
        audio = F.pad(silent_after(audio, audio_lens), (1 + self.half_window, after))
        return log_mel(self.preprocessor.featurizer, audio)

    def features(self, mel: Tensor) -> Tensor:
        """Mel frames (B, mels, M), as `mel` gives them -> features (B, T', D) of whole encoder chunks."""
        x = subsample(self.encoder.pre_encode, mel.to(self.encoder.pre_encode.out.weight.dtype))
        return conformer_layers(self.encoder, x)

    def count(self, samples: int) -> int:
        """Frames of a recording."""
        return self.frame_rate.count_samples(samples, self.sample_rate)

    def counts(self, audio_lens: Tensor) -> Tensor:
        """Frames (B,) of recordings of `audio_lens` (B,) samples."""
        return -(-audio_lens // self.samples_per_frame)

    @property
    def half_window(self) -> int:
        """Samples that a mel frame looks at on either side of its centre."""
        return self.preprocessor.featurizer.win_length // 2


def silent_after(audio: Tensor, audio_lens: Tensor) -> Tensor:
    """Audio (B, S) with zeros after each row's end."""
    return audio.masked_fill(arange(audio.shape[1], device=audio.device) >= audio_lens[:, None], 0.0)


# Attention over a whole recording takes memory by the square of its length. Recordings longer than this (two minutes) are
# heard in pieces where no gradient is wanted; the result is the same.
_PIECE_FRAMES = 1500


@dataclass
class PerceptionState:
    """All that streams of one age need of their past, a row each. Its size is constant."""

    samples: Tensor  # (B, history) the latest audio, which the next mel frames look back on
    mel: Tensor  # (B, mels, history) the latest mel frames, which the next encoder frames look back on
    frames: Tensor  # (B,) frames made so far
    encoder: ConformerCache
    adapter: ConformerCache | None  # of an adapter that looks back
    heard: Tensor  # (B,) samples given to `step` so far
    waiting: Tensor  # (B, chunk_samples) those of them that do not fill an encoder chunk yet


class Perception(FrameEncoder):
    """Encoder, adapter and projection.

    Args:
        config: plain dict of
            preprocessor: arguments of NeMo's AudioToMelSpectrogramPreprocessor;
            encoder: arguments of NeMo's ConformerEncoder, cache-aware;
            adapter: `kind: mlp` with `hidden`, `kind: conformer` with those arguments that differ from the encoder's, or
                `kind: identity`, which leaves all to the projection;
            output_dim: H of the language model.

    Attributes:
        config: the same, complete: `Perception(perception.config)` has weights of the same names and shapes.
        lead_samples: zeros that stand before a stream's audio, so that its first encoder chunk is as long as the others.

    Raises:
        InputError: for an unknown key, or an encoder that cannot run frame by frame at 80 ms.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        config = perception_config(config)
        encoder, adapter = config["encoder"], config["adapter"]
        super().__init__(
            built(AudioToMelSpectrogramPreprocessor, config["preprocessor"], "preprocessor"),
            built(ConformerEncoder, encoder, "encoder"),
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

    # ------------------------------------------------------------------ whole recordings

    def forward(self, audio: Tensor, audio_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (B, T, H) of whole recordings, and the frames of each row (B,): `encode`, adapted; equal to `step`."""
        frames = self.count(audio.shape[1])
        if frames > _PIECE_FRAMES and not torch.is_grad_enabled():
            return self._in_pieces(silent_after(audio, audio_lens)), self.counts(audio_lens)
        embeddings, _ = self._adapt(self.features(self.mel(audio, audio_lens)))
        return embeddings[:, :frames], self.counts(audio_lens)

    def _in_pieces(self, audio: Tensor) -> Tensor:
        state, pieces = self.init_state(len(audio), audio.device), []
        for piece in audio.split(_PIECE_FRAMES * self.samples_per_frame, dim=1):
            embeddings, state = self.step(piece, state)
            pieces.append(embeddings)
        return torch.cat([*pieces, self.step(audio[:, :0], state, final=True)[0]], dim=1)

    # ------------------------------------------------------------------ streams

    def init_state(self, batch_size: int, device: torch.device | str | None = None) -> PerceptionState:
        """The state of `batch_size` streams that have not begun."""
        device = device or self.proj.weight.device
        featurizer = self.preprocessor.featurizer
        mel_history = window_history(self.encoder.subsampling_factor)
        looks_back = isinstance(self.modality_adapter, ConformerEncoder)
        return PerceptionState(
            samples=torch.zeros(batch_size, history(featurizer), device=device),
            mel=torch.zeros(batch_size, featurizer.nfilt, mel_history, device=device),
            frames=torch.zeros(batch_size, dtype=torch.long, device=device),
            encoder=ConformerCache.empty(self.encoder, batch_size, device),
            adapter=ConformerCache.empty(self.modality_adapter, batch_size, device) if looks_back else None,
            heard=torch.zeros(batch_size, dtype=torch.long, device=device),
            waiting=torch.zeros(batch_size, self.chunk_samples, device=device),
        )

    def step(self, audio: Tensor, state: PerceptionState, final: bool = False) -> tuple[Tensor, PerceptionState]:
        """The next audio of streams that all have the same age, such as one caller's, in chunks of any size.

        Args:
            audio: (B, n) float, n >= 0.
            state: from `init_state` or the step before; not changed.
            final: this is the end; the frames still owed are made. The state that is returned is of no further use.

        Returns:
            embeddings (B, t, H) of the t >= 0 frames that are complete now, and the next state.
        """
        heard, frames = int(state.heard[0]), int(state.frames[0])
        assert bool((state.heard == heard).all()), (
            "step: the rows have heard different amounts; a PerceptionStream takes such rows."
        )
        num_waiting = self.lead_samples + heard - frames * self.samples_per_frame
        stream = torch.cat([state.waiting[:, :num_waiting], audio], dim=1)
        heard += audio.shape[1]
        owed = self.count(heard) - frames
        chunks = -(-owed // self.chunk_frames) if final else stream.shape[1] // self.chunk_samples
        stream = F.pad(stream, (0, max(0, chunks * self.chunk_samples - stream.shape[1])))
        now, later = stream[:, : chunks * self.chunk_samples], stream[:, chunks * self.chunk_samples :]
        embeddings = audio.new_zeros(len(audio), 0, self.output_dim)
        if chunks:
            embeddings, state = self._advance(now, state)
        waiting = F.pad(later, (0, self.chunk_samples - later.shape[1]))
        state = replace(state, heard=state.heard + audio.shape[1], waiting=waiting)
        return embeddings[:, :owed] if final else embeddings, state

    def _advance(self, audio: Tensor, state: PerceptionState) -> tuple[Tensor, PerceptionState]:
        """One encoder chunk or several of every row: (B, n * chunk_samples) -> (B, n * chunk_frames, H)."""
        samples = torch.cat([state.samples, audio], dim=1)
        mel = torch.cat([state.mel, log_mel(self.preprocessor.featurizer, samples)], dim=2)
        x = subsample(self.encoder.pre_encode, mel.to(self.proj.weight.dtype), state.frames)
        x, encoder = conformer_step(self.encoder, x, state.encoder)
        embeddings, adapter = self._adapt(x, state.adapter)
        return embeddings, replace(
            state,
            samples=samples[:, -state.samples.shape[1] :],
            mel=mel[:, :, -state.mel.shape[2] :],
            frames=state.frames + x.shape[1],
            encoder=encoder,
            adapter=adapter,
        )

    # ------------------------------------------------------------------ both

    def _adapt(self, features: Tensor, cache: ConformerCache | None = None) -> tuple[Tensor, ConformerCache | None]:
        """Encoder features (B, T, D) -> embeddings (B, T, H), of a stream where there is a cache."""
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


def built_adapter(adapter: Mapping[str, Any], encoder: Mapping[str, Any], width: int) -> tuple[nn.Module, int]:
    """The adapter behind an encoder of `width` features, and how many it gives to the projection."""
    if adapter["kind"] == "identity":
        return nn.Identity(), width
    if adapter["kind"] == "mlp":
        return nn.Sequential(nn.Linear(width, adapter["hidden"]), nn.SiLU()), adapter["hidden"]
    conformer = built(ConformerEncoder, conformer_adapter(encoder, adapter, width), "adapter")
    return conformer, conformer._feat_out


def built(module: type[nn.Module], arguments: dict[str, Any], what: str) -> Any:
    """A NeMo module, with its complaints about arguments in our words."""
    try:
        return module(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"perception.{what}: NeMo's {module.__name__} refuses the configuration: {error}") from error
