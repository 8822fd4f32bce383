"""From codes to embeddings, and from hidden states to the logits of K codebooks at once.

FSQ codebooks are independent (paper, section 3.2), so all K codes of a frame are predicted in parallel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nemo_duplex.channels.layout import ChannelLayout


class SpeechEmbedding(nn.Module):
    """Sum of the embeddings of a frame's K codes, in one lookup: codebook k has the rows from k * V on.

    Zero at the start (paper, section 3), so that a pretrained language model first hears what it always heard.
    """

    def __init__(self, layout: ChannelLayout, hidden_size: int) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(layout.num_codebooks * layout.speech_vocab_size, hidden_size, mode="sum")
        nn.init.zeros_(self.table.weight)
        self.register_buffer("first_row", torch.arange(layout.num_codebooks) * layout.speech_vocab_size, persistent=False)

    def forward(self, codes: Tensor) -> Tensor:
        """Codes (B, K, T), specials included -> (B, T, H)."""
        batch, codebooks, frames = codes.shape
        rows = codes.transpose(1, 2) + self.first_row
        return self.table(rows.reshape(batch * frames, codebooks)).view(batch, frames, -1)


class SpeechHead(nn.Module):
    """Logits of all K codebooks from one hidden state."""

    def __init__(self, layout: ChannelLayout, hidden_size: int) -> None:
        super().__init__()
        self.shape = (layout.num_codebooks, layout.speech_vocab_size)
        self.projection = nn.Linear(hidden_size, layout.num_codebooks * layout.speech_vocab_size)
        nn.init.zeros_(self.projection.weight)
        nn.init.zeros_(self.projection.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(..., H) -> (..., K, V)."""
        return self.projection(hidden).unflatten(-1, self.shape)
