"""What a training step sees: both channels of B conversations on one frame grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

#: In `agent_codes`, a frame of silence: the model puts its codec's there. No codec has it as a code.
SILENCE = -1

# What NeMo's in-tree DuplexS2SDataset calls the same things.
_IN_TREE = {
    "source_audio": "user_audio",
    "source_audio_lens": "user_audio_lens",
    "target_audio": "agent_audio",
    "target_audio_lens": "agent_audio_lens",
    "target_tokens": "agent_tokens",
    "target_token_lens": "num_frames",
    "source_tokens": "user_tokens",
    "source_token_lens": "num_frames",
    "target_texts": "agent_texts",
}


@dataclass(frozen=True)
class DuplexBatch:
    """B conversations, padded to the longest.

    Codes are on the time of the corpus; the model lays text and speech out against each other (`channels/layout.py`). By the
    keys of NeMo's in-tree batch (`batch["source_audio"]`) the same tensors are found.

    Attributes:
        ids: names of the conversations.
        user_audio: (B, S) float32 at the user's sample rate, zeros after the end.
        user_audio_lens: (B,) samples.
        agent_tokens: (B, T) text channel, text pad after the end.
        num_frames: (B,) valid frames of each row.
        agent_codes: (B, K, T) codec codes made once, by `synthesize`; SILENCE in padding.
        agent_audio: (B, S') float32 at the agent's sample rate, where there are no codes.
        agent_audio_lens: (B,) samples.
        user_tokens: (B, T) what the user says, laid out as agent_tokens.
        agent_texts: all that the agent says, for references.

    Examples:
        >>> batch = DuplexBatch(
        ...     ids=["one"],
        ...     user_audio=torch.zeros(1, 3200),
        ...     user_audio_lens=torch.tensor([2560]),
        ...     agent_tokens=torch.zeros(1, 3, dtype=torch.long),
        ...     num_frames=torch.tensor([2]),
        ... )
        >>> batch.valid.tolist()
        [[True, True, False]]
        >>> batch["source_audio"] is batch.user_audio                       # keys of NeMo's in-tree batch
        True
    """

    ids: list[str]
    user_audio: Tensor
    user_audio_lens: Tensor
    agent_tokens: Tensor
    num_frames: Tensor
    agent_codes: Tensor | None = None
    agent_audio: Tensor | None = None
    agent_audio_lens: Tensor | None = None
    user_tokens: Tensor | None = None
    agent_texts: list[str] | None = None

    @classmethod
    def from_in_tree(cls, batch: Mapping[str, Any], samples_per_frame: int, text_pad: int) -> DuplexBatch:
        """The batch that NeMo's own DuplexS2SDataset made; its tokens are fitted to the frames of the user's audio."""
        lens = batch["source_audio_lens"]
        frames = -(-lens // samples_per_frame)
        tokens = batch["target_tokens"]
        longest = int(frames.max())
        return cls(
            ids=[str(i) for i in batch.get("ids", range(len(lens)))],
            user_audio=batch["source_audio"],
            user_audio_lens=lens,
            agent_tokens=pad(tokens, (0, max(0, longest - tokens.shape[1])), value=text_pad)[:, :longest],
            num_frames=frames,
            agent_codes=batch.get("target_codes"),
            agent_audio=batch["target_audio"],
            agent_audio_lens=batch["target_audio_lens"],
            agent_texts=batch.get("target_texts"),
        )

    def __getitem__(self, key: str) -> Any:
        return getattr(self, _IN_TREE[key])

    def __contains__(self, key: str) -> bool:
        return key in _IN_TREE and self[key] is not None

    @property
    def valid(self) -> Tensor:
        """(B, T) bool: frames that belong to a conversation and not to padding."""
        frames = torch.arange(self.agent_tokens.shape[1], device=self.num_frames.device)
        return frames < self.num_frames[:, None]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> DuplexBatch:
        """The same batch on another device (Lightning calls this)."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: t.to(device, non_blocking=non_blocking) for name, t in tensors.items()})
