"""DuplexAgent: the parts of an agent and what runs one. `duplex_s2s.py` trains it, `streaming/` holds live sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.text_channel import PieceTokenizer
from nemo_duplex.channels.transcript import decode_text
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.models import parallel
from nemo_duplex.models.duplex_lm import DuplexLM
from nemo_duplex.perception.offline import WholePerception
from nemo_duplex.perception.perception import Perception
from nemo_duplex.training.evaluation_mode import evaluating


class DuplexAgent(nn.Module):
    """What a user of an agent needs to know of it; `DuplexS2SModel` is one, with NeMo's and Lightning's training around it.

    Attributes:
        perception: user audio to one embedding per 80 ms frame.
        lm: embeddings to a text token and K codes per frame.
        audio_codec: codes to agent audio.
        tokenizer: text to text tokens and back.
        layout: ids and delays of both channels.
        cfg: the described `model:` section, from which all parts can be built.

    Examples:
        >>> isinstance(model, DuplexAgent)
        True
        >>> embeddings, frames = model.perception(torch.from_numpy(question)[None], torch.tensor([len(question)]))
        >>> embeddings.shape[1] == int(frames)                              # (B, T, H), a frame is 80 ms
        True
    """

    perception: Perception | WholePerception
    lm: DuplexLM
    audio_codec: FSQCodec
    tokenizer: PieceTokenizer
    layout: ChannelLayout
    cfg: DictConfig

    @property
    def user_sample_rate(self) -> int:
        """Samples per second of the user audio that the agent takes."""
        return self.perception.sample_rate

    @property
    def agent_sample_rate(self) -> int:
        """Samples per second of the agent audio."""
        return self.audio_codec.sample_rate

    @property
    def text_vocab_size(self) -> int:
        """Number of text tokens, special ids included."""
        return self.layout.text_vocab_size

    @property
    def speech_vocab_size(self) -> int:
        """Number of ids of one codebook, special ids included."""
        return self.layout.speech_vocab_size

    @torch.inference_mode()
    def offline_inference(
        self,
        input_signal: Tensor,
        input_signal_lens: Tensor,
        decode_audio: bool = True,
        system_prompt: str | None = None,
    ) -> dict[str, Any]:
        """The agent's side of B whole recordings, frame by frame as in a session.

        Args:
            input_signal: (B, S) float32 at `user_sample_rate`.
            input_signal_lens: (B,) samples.
            decode_audio: False leaves out `audio` and `audio_len`.
            system_prompt: text that the agent reads before the first frame; it does not appear in the answer.

        Returns:
            text list[str], tokens_text (B, T), tokens_audio (B, T, K) with specials, tokens_len (B,), audio (B, S') float32 at
            `agent_sample_rate`, audio_len (B,): keys, axes and meaning of NeMo's in-tree model.
        """
        with evaluating(self):
            with parallel.whole(self):
                tokens, codes, lens = self._generate(input_signal, input_signal_lens, self.prompt_tokens(system_prompt))
            answer = {
                "text": [self.decode_text(row[:n]) for row, n in zip(tokens.tolist(), lens.tolist())],
                "tokens_text": tokens,
                "tokens_audio": codes,
                "tokens_len": lens,
            }
            if decode_audio:
                spoken = self.specials_to_silence(codes.transpose(1, 2))
                answer["audio"], answer["audio_len"] = self.audio_codec.decode(spoken, lens)
        return answer

    def _generate(self, signal: Tensor, signal_lens: Tensor, prompt: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, T), codes (B, T, K) and number of frames (B,); pads after the last frame of each recording."""
        user, lens = self.perception(signal, signal_lens)
        batch_size, num_frames = user.shape[:2]
        state = self.lm.init_state(batch_size, len(prompt), num_frames)
        if prompt:
            self.lm.prompt(torch.tensor(prompt, device=user.device).expand(batch_size, -1), state)
        frames = []
        for t in range(num_frames):
            frame, state = self.lm.step(user[:, t], state)
            frames.append(frame)
        inside = torch.arange(num_frames, device=lens.device) < lens[:, None]
        tokens = torch.stack([f.tokens for f in frames], dim=1).where(inside, self.layout.text_pad)
        codes = torch.stack([f.codes for f in frames], dim=1).where(inside[..., None], self.layout.speech_pad)
        return tokens, codes, lens

    def prompt_tokens(self, system_prompt: str | None) -> list[int]:
        """The text tokens of a system prompt; none without one."""
        return list(self.tokenizer.text_to_ids(system_prompt)) if system_prompt else []

    def specials_to_silence(self, codes: Tensor) -> Tensor:
        """Codes (B, K, T) for the codec: a frame that holds a special id in any codebook becomes the codec's silence."""
        special = (codes >= self.layout.codebook_size).any(dim=1, keepdim=True)
        return torch.where(special, self.audio_codec.silence_codes[None, :, None], codes)

    def decode_text(self, tokens: Sequence[int]) -> str:
        """The text of a stretch of the text channel (one token per frame), without special ids, turns separated by a space."""
        return decode_text(tokens, self.layout, self.tokenizer)
