"""A cache-aware FastConformer with its log-mel in front: whole recordings -> features of 80 ms frames.

Frame t hears 12.5 ms (half a mel window) into itself, and the frames of its burst: with an attention context of [70, 1], frames
2j and 2j + 1 attend to each other and to the 70 before them. Counts are exact, ceil(S / samples_per_frame): a recording goes on
as silence until its last burst is full, which NeMo's own forward does not do.
"""

from __future__ import annotations

from torch import Tensor, arange, nn
from torch.nn import functional as F

from nemo_duplex.frames import FRAME_RATE, FrameRate
from nemo_duplex.models.conformer_cache import conformer_layers
from nemo_duplex.models.log_mel import log_mel
from nemo_duplex.models.subsampling import subsample


class FrameEncoder(nn.Module):
    """Preprocessor and encoder of a NeMo speech recognition model.

    Args:
        preprocessor: `AudioToMelSpectrogramPreprocessor`.
        encoder: `ConformerEncoder`, cache-aware, 80 ms frames (`perception_config.cache_aware` checks it).

    Attributes:
        sample_rate: Hz of the audio.
        burst_frames: frames that are computed together (right context + 1).
        burst_samples: audio of a burst.
    """

    def __init__(self, preprocessor: nn.Module, encoder: nn.Module) -> None:
        super().__init__()
        self.preprocessor = preprocessor
        self.encoder = encoder
        self.sample_rate: int = preprocessor.featurizer.sample_rate
        self.frame_rate: FrameRate = FRAME_RATE
        self.samples_per_frame = FRAME_RATE.samples_per_frame(self.sample_rate)
        self.burst_frames: int = encoder.att_context_size[1] + 1
        self.burst_samples = self.burst_frames * self.samples_per_frame

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
        """(B, mels, M) all mel frames that the bursts of `audio` (B, S) look at."""
        bursts = max(1, -(-audio.shape[1] // self.burst_samples))
        last_centre = bursts * self.burst_samples - self.samples_per_frame
        after = last_centre + self.half_window - audio.shape[1]  # negative where nothing looks at the end of the last frame
        audio = F.pad(silent_after(audio, audio_lens), (1 + self.half_window, after))
        return log_mel(self.preprocessor.featurizer, audio)

    def features(self, mel: Tensor) -> Tensor:
        """Mel frames (B, mels, M), as `mel` gives them -> features (B, T', D) of whole bursts."""
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
