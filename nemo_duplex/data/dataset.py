"""Lhotse cuts -> DuplexBatch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from lhotse import CutSet
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nemo_duplex.channels.text_channel import PieceTokenizer, TextAlignment, pad_of, text_channel
from nemo_duplex.conversation import Conversation, Speaker, Turn
from nemo_duplex.data.batch import SILENCE, DuplexBatch
from nemo_duplex.data.cut_channels import agent_audio, agent_codes, check_channels, cut_name, user_audio
from nemo_duplex.frames import AGENT_SAMPLE_RATE, FRAME_RATE, USER_SAMPLE_RATE, FrameRate, Seconds
from nemo_duplex.inputs import InputError


class DuplexS2SDataset(torch.utils.data.Dataset):
    """Makes a `DuplexBatch` of two-channel cuts. Arguments are named as in NeMo's in-tree dataset of this name.

    Args:
        tokenizer: text -> ids and back, with the ids `bos`, `eos` and `pad` of the text channel.
        frame_length: Seconds of a frame of the model.
        source_sample_rate, target_sample_rate: user and agent audio are resampled to these.
        input_roles, output_roles: speakers of the supervisions that are the user, and the agent.
        text_alignment: `turn`, or `word` where the cuts know word times (paper, section 3.1).
        num_codebooks, codebook_size: of the model's codec, by which stored codes are checked; None takes any.

    A cut has a `recording` (user, (S,)), `target_audio` (agent, (S',), same duration), supervisions of both, and, once
    `synthesize` has made them, `target_codes` (T, K), so that the codec need not run at every step. `dataset[cuts]` gives, for
    B cuts of T frames at most: user audio (B, S), tokens of both speakers (B, T), and the agent's codes (B, K, T), or its audio
    (B, S') where a cut has no codes, or was cut or padded within a frame of them (`cut_channels.py`).

    Raises:
        InputError: with the cut's id, for a cut of which a channel is missing or has another duration than the other one, with
            several channels, with another speaker, with codes of another length or codec, or without word times where they are
            needed.

    Examples:
        >>> from lhotse import CutSet
        >>> cuts = CutSet.from_shar(in_dir=f"{corpus}/dev/shar")
        >>> dataset = DuplexS2SDataset(model.tokenizer)                     # or model.dataset()
        >>> batch = dataset[CutSet.from_cuts(list(cuts)[:2])]
        >>> batch.agent_tokens.shape[1] == batch.num_frames.max()
        tensor(True)
    """

    def __init__(
        self,
        tokenizer: PieceTokenizer,
        frame_length: Seconds = FRAME_RATE.seconds,
        source_sample_rate: int = USER_SAMPLE_RATE,
        target_sample_rate: int = AGENT_SAMPLE_RATE,
        input_roles: Sequence[str] = ("user",),
        output_roles: Sequence[str] = ("agent",),
        text_alignment: TextAlignment = "turn",
        num_codebooks: int | None = None,
        codebook_size: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.specials = {"bos": tokenizer.bos, "eos": tokenizer.eos, "pad": pad_of(tokenizer)}
        self.frame_rate = FrameRate(1 / frame_length)
        self.user_sample_rate = source_sample_rate
        self.agent_sample_rate = target_sample_rate
        self.speakers: dict[str, Speaker] = {**dict.fromkeys(input_roles, "user"), **dict.fromkeys(output_roles, "agent")}
        if text_alignment not in get_args(TextAlignment):
            raise InputError(f"text_alignment is {text_alignment!r}, expected one of {', '.join(get_args(TextAlignment))}.")
        self.text_alignment = text_alignment
        self.num_codebooks, self.codebook_size = num_codebooks, codebook_size

    def __getitem__(self, cuts: CutSet) -> DuplexBatch:
        cuts = list(cuts)
        for cut in cuts:
            check_channels(cut, self.frame_rate)
        users = [user_audio(cut, self.user_sample_rate) for cut in cuts]
        # Frames are counted on the audio that the user encoder gets, so that both always agree.
        counts = [self.frame_rate.count_samples(len(user), self.user_sample_rate) for user in users]
        conversations = [Conversation.from_cut(cut, self.speakers, self.frame_rate) for cut in cuts]
        batch = {
            "ids": [cut_name(cut) for cut in cuts],
            "user_audio": pad_sequence(users, batch_first=True),
            "user_audio_lens": torch.tensor([len(user) for user in users]),
            "agent_tokens": self._tokens([c.agent for c in conversations], counts, self.text_alignment),
            "user_tokens": self._tokens([c.user for c in conversations], counts, "turn"),
            "agent_texts": [" ".join(turn.text for turn in c.agent) for c in conversations],
            "num_frames": torch.tensor(counts),
        }
        codes = agent_codes(cuts, counts, self.frame_rate, self.num_codebooks, self.codebook_size)
        if codes is not None:
            batch["agent_codes"] = pad_sequence(codes, batch_first=True, padding_value=SILENCE).transpose(1, 2)
        else:
            agents = [agent_audio(cut, self.agent_sample_rate) for cut in cuts]
            batch["agent_audio"] = pad_sequence(agents, batch_first=True)
            batch["agent_audio_lens"] = torch.tensor([len(agent) for agent in agents])
        return DuplexBatch(**batch)

    def _tokens(self, turns: list[tuple[Turn, ...]], counts: list[int], alignment: TextAlignment) -> Tensor:
        """(B, T) text channels of one speaker."""
        rows = [
            text_channel(t, n, self.tokenizer, frame_rate=self.frame_rate, alignment=alignment, **self.specials)
            for t, n in zip(turns, counts)
        ]
        return pad_sequence(rows, batch_first=True, padding_value=self.specials["pad"])
