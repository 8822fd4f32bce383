"""The network of SALM-Duplex behind the user encoder: channel fusion, language model, parallel heads.

Training and streaming run the same code: `forward` and `step` both build their input with `embed_frames`. FSQ codebooks are
independent (paper, section 3.2), so all K codes of a frame are predicted in parallel, from one hidden state.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.llm.cache import RowCache
from nemo_duplex.llm.experts import Routing


class SpeechEmbedding(nn.Module):
    """Sum of the embeddings of a frame's K codes, in one lookup: codebook k has the rows from k * V on.

    Zero at the start (paper, section 3), so that a pretrained language model first gets the input that it knows.
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


class FrameOutput(NamedTuple):
    """What the agent does in one frame."""

    tokens: Tensor  # (B,)
    codes: Tensor  # (B, K), specials included


#: Logits of text (B, V text) and speech (B, K, V speech) -> the token and the codes of the frame.
Choice = Callable[[Tensor, Tensor], FrameOutput]


def most_likely(text: Tensor, speech: Tensor) -> FrameOutput:
    """The greedy choice: the id of the largest logit."""
    return FrameOutput(text.argmax(-1), speech.argmax(-1))


@dataclass
class DuplexState:
    """Everything that the language model keeps of B callers; each row can be reset alone."""

    cache: RowCache
    tokens: Tensor  # (B,) text token of the previous frame
    codes: Tensor  # (B, K) codes of the previous frame
    layout: ChannelLayout

    def reset(self, rows: Tensor) -> None:
        """Starts a new conversation in `rows` (B,) bool; the other rows stay bit for bit."""
        self.cache.reset(rows)
        self.tokens = torch.where(rows, self.layout.text_pad, self.tokens)
        self.codes = torch.where(rows[:, None], self.layout.speech_start, self.codes)


class DuplexLM(nn.Module):
    """User embeddings and the agent's last frame in, the agent's next frame out.

    Args:
        layout: vocabularies and special ids of the agent's channels.
        backbone: the language model.
        user_weight: what user embeddings are multiplied by before they are added to the agent's.
    """

    def __init__(self, layout: ChannelLayout, backbone: Backbone, user_weight: float = 1.0) -> None:
        super().__init__()
        self.user_weight = user_weight
        rows = backbone.embed_tokens.num_embeddings
        assert rows >= layout.text_vocab_size, f"The embedding has {rows} rows for {layout.text_vocab_size} text tokens."
        self.layout = layout
        self.backbone = backbone
        self.speech_embedding = SpeechEmbedding(layout, backbone.hidden_size)
        self.speech_head = SpeechHead(layout, backbone.hidden_size)

    def embed_frames(self, user: Tensor, tokens: Tensor, codes: Tensor) -> Tensor:
        """Channel fusion (paper, section 3): the sum of the user's frame and the agent's text and codes one frame before.

        Args:
            user: (B, T, H) embeddings of the user's frames.
            tokens: (B, T) text tokens of the frames before.
            codes: (B, K, T) codes of the frames before.
        """
        agent = self.backbone.embed_tokens(tokens) + self.speech_embedding(codes)
        return (user if self.user_weight == 1 else user * self.user_weight) + agent

    def forward(self, user: Tensor, tokens: Tensor, codes: Tensor, routing: Routing | None = None) -> Tensor:
        """Hidden states (B, T, H) that predict each frame of `tokens` (B, T) and `codes` (B, K, T) from those before it.

        Args:
            routing: takes what the routers of a mixture of experts said; None where that is not needed.
        """
        start_tokens, start_codes = self._start(len(tokens), tokens.device)
        before_tokens = torch.cat([start_tokens[:, None], tokens[:, :-1]], dim=1)
        before_codes = torch.cat([start_codes[:, :, None], codes[:, :, :-1]], dim=2)
        return self.backbone(self.embed_frames(user, before_tokens, before_codes), routing)

    def text_logits(self, hidden: Tensor) -> Tensor:
        """(..., H) -> (..., V text)."""
        return self.backbone.text_logits(hidden)

    def speech_logits(self, hidden: Tensor) -> Tensor:
        """(..., H) -> (..., K, V speech)."""
        return self.speech_head(hidden)

    def init_state(self, batch_size: int, prompt_tokens: int = 0, frames: int | None = None) -> DuplexState:
        """The state of new callers.

        Args:
            prompt_tokens: number of tokens of the longest system prompt.
            frames: number of frames after which all conversations end; None if unknown.

        Raises:
            InputError: if the language model cannot keep that many tokens.
        """
        tokens, codes = self._start(batch_size, self.speech_head.projection.weight.device)
        return DuplexState(self.backbone.empty_cache(batch_size, prompt_tokens, frames), tokens, codes, self.layout)

    def prompt(self, tokens: Tensor, state: DuplexState) -> None:
        """Runs a system prompt through the language model, one token per position; it is never forgotten.

        Args:
            tokens: (B, n).
            state: of new callers, made for prompts of n tokens or more; changed in place.
        """
        self.backbone.prompt(self.backbone.embed_tokens(tokens), state.cache)

    def step(
        self, user: Tensor, state: DuplexState, live: Tensor | None = None, choose: Choice | None = None
    ) -> tuple[FrameOutput, DuplexState]:
        """One frame of B callers.

        Args:
            user: (B, H) embedding of the user's frame.
            state: of the frame before; it is changed in place and returned.
            live: (B,) bool, rows that have a frame now; None means all. Other rows keep their state and return pad.
            choose: picks token and codes from the logits; None takes the most likely ones.

        Returns:
            text token (B,) and codes (B, K), and the state.
        """
        live = torch.ones(len(user), dtype=torch.bool, device=user.device) if live is None else live
        frame = self.embed_frames(user[:, None], state.tokens[:, None], state.codes[:, :, None])
        hidden = self.backbone.step(frame, state.cache, live)[:, 0]
        text = self.text_logits(hidden)[..., : self.layout.text_vocab_size]
        tokens, codes = (choose or most_likely)(text, self.speech_logits(hidden))
        state.tokens = torch.where(live, tokens, state.tokens)
        state.codes = torch.where(live[:, None], codes, state.codes)
        output = FrameOutput(
            torch.where(live, tokens, self.layout.text_pad), torch.where(live[:, None], codes, self.layout.speech_pad)
        )
        return output, state

    def _start(self, batch_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """What precedes the first frame: text pad (B,) and speech start (B, K)."""
        tokens = torch.full((batch_size,), self.layout.text_pad, device=device)
        codes = torch.full((batch_size, self.layout.num_codebooks), self.layout.speech_start, device=device)
        return tokens, codes
