"""Perceptions for whole recordings only: encoders in which every frame depends on the whole recording.

NeMo's in-tree configurations may describe such encoders (unlimited attention, features normalised over the recording). A model
with one trains and answers recordings, but opens no sessions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nemo.collections.asr.modules import AudioToMelSpectrogramPreprocessor, ConformerEncoder
from torch import Tensor, nn
from torch.nn import functional as F

from nemo_duplex.frames import FRAME_RATE, FrameRate
from nemo_duplex.inputs import InputError
from nemo_duplex.perception.config import whole_perception_config
from nemo_duplex.perception.perception import built, built_adapter, silent_after


class WholePerception(nn.Module):
    """Encoder, adapter and projection for whole recordings.

    Args:
        config: as of `Perception`, for any ConformerEncoder of 80 ms frames.

    Attributes:
        config: the same, complete, with `whole_recordings: true`.
        sample_rate: Hz of the audio.

    Raises:
        InputError: for an unknown key, or frames that are not 80 ms long.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config = whole_perception_config(config)
        encoder = config["encoder"]
        self.preprocessor = built(AudioToMelSpectrogramPreprocessor, config["preprocessor"], "preprocessor")
        self.encoder = built(ConformerEncoder, encoder, "encoder")
        self.modality_adapter, width = built_adapter(config["adapter"], encoder, self.encoder._feat_out)
        self.output_dim: int = config["output_dim"]
        self.proj = nn.Linear(width, self.output_dim)
        self.sample_rate: int = self.preprocessor.featurizer.sample_rate
        self.frame_rate: FrameRate = FRAME_RATE
        self.samples_per_frame = FRAME_RATE.samples_per_frame(self.sample_rate)

    def forward(self, audio: Tensor, audio_lens: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings of whole recordings.

        Args:
            audio: (B, S) float at `sample_rate`; samples after a row's end are ignored.
            audio_lens: (B,) samples.

        Returns:
            embeddings (B, T, H), T = ceil(S / samples_per_frame), and the frames of each row (B,), counted likewise.
        """
        frames = self.frame_rate.count_samples(audio.shape[1], self.sample_rate)
        counts = -(-audio_lens // self.samples_per_frame)
        if not frames:
            return audio.new_zeros(len(audio), 0, self.output_dim), counts
        audio = F.pad(silent_after(audio, audio_lens), (0, frames * self.samples_per_frame - audio.shape[1]))
        mel, mel_lens = self.preprocessor(input_signal=audio, length=audio_lens)
        x, lens = _conformed(self.encoder, mel.to(self.proj.weight.dtype), mel_lens)
        if isinstance(self.modality_adapter, ConformerEncoder):
            x, _ = _conformed(self.modality_adapter, x, lens)
            x = x.transpose(1, 2)
        else:
            x = self.modality_adapter(x.transpose(1, 2))
        return self.proj(x)[:, :frames], counts

    @property
    def chunk_frames(self) -> int:
        """Refuses: whole recordings have no encoder chunks. Opening a session reads this property first.

        Raises:
            InputError: always.
        """
        raise InputError(
            "This model's user encoder needs whole recordings (offline_inference): a session needs a cache-aware one, such as "
            "stt_en_fastconformer_hybrid_large_streaming_80ms. Train with model.pretrained_asr set to it."
        )


def _conformed(conformer: nn.Module, x: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
    """Features (B, D, T) and lengths (B,) through a whole ConformerEncoder, whose own forward takes spectrograms only."""
    if x.shape[2] > conformer.max_audio_length:
        conformer.set_max_audio_length(x.shape[2])
    return conformer.forward_internal(x, lens)
