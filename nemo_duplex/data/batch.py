"""What a training step sees: both channels of B conversations on one frame grid."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class DuplexBatch:
    """B conversations, padded to the longest.

    Codes are on the time of the corpus; the model lays text and speech out against each other (`channels.py`).
    """

    ids: list[str]
    user_audio: Tensor  # (B, S) float32 at the user's sample rate, zeros after the end
    user_audio_lens: Tensor  # (B,) samples
    agent_tokens: Tensor  # (B, T) text channel, text pad after the end
    num_frames: Tensor  # (B,) valid frames of each row
    agent_codes: Tensor | None = None  # (B, K, T) codec codes made once, by `synthesize`
    agent_audio: Tensor | None = None  # (B, S') float32 at the agent's sample rate, where there are no codes
    agent_audio_lens: Tensor | None = None  # (B,) samples

    @property
    def valid(self) -> Tensor:
        """(B, T) bool: frames that belong to a conversation and not to padding."""
        frames = torch.arange(self.agent_tokens.shape[1], device=self.num_frames.device)
        return frames < self.num_frames[:, None]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> DuplexBatch:
        """The same batch on another device (Lightning calls this)."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: t.to(device, non_blocking=non_blocking) for name, t in tensors.items()})
