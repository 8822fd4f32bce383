"""Lhotse cuts -> DuplexBatch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset.collation import collate_audio
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nemo_duplex.channels.text_channel import PieceTokenizer, TextAlignment, pad_of, text_channel
from nemo_duplex.conversation import Conversation, Speaker, Turn
from nemo_duplex.data.batch import DuplexBatch
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

    A cut has a `recording` (user, (S,)), `target_audio` (agent, (S',), same duration), supervisions of both, and, once
    `synthesize` has made them, `target_codes` (T, K), so that the codec need not run at every step. `dataset[cuts]` gives, for
    B cuts of T frames at most: user audio (B, S), tokens of both speakers (B, T), and the agent's codes (B, K, T), or its audio
    (B, S') where a cut has no codes.

    Raises:
        InputError: with the cut's id, for a cut without agent channel, with several channels, with another speaker, with codes
            of another length, or without word times where they are needed.

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

    def __getitem__(self, cuts: CutSet) -> DuplexBatch:
        cuts = CutSet.from_cuts(self._checked(cut) for cut in cuts)
        user_audio, user_lens = collate_audio(cuts.resample(self.user_sample_rate))
        # Frames are counted on the audio that the user encoder gets, so that both always agree.
        counts = [self.frame_rate.count_samples(int(n), self.user_sample_rate) for n in user_lens]
        conversations = [Conversation.from_cut(cut, self.speakers, self.frame_rate) for cut in cuts]
        batch = {
            "ids": [cut.id for cut in cuts],
            "user_audio": user_audio,
            "user_audio_lens": user_lens.long(),
            "agent_tokens": self._tokens([c.agent for c in conversations], counts, self.text_alignment),
            "user_tokens": self._tokens([c.user for c in conversations], counts, "turn"),
            "agent_texts": [" ".join(turn.text for turn in c.agent) for c in conversations],
            "num_frames": torch.tensor(counts),
        }
        if all(cut.has_custom("target_codes") for cut in cuts):
            codes = [self._codes(cut, t) for cut, t in zip(cuts, counts)]
            batch["agent_codes"] = pad_sequence(codes, batch_first=True).transpose(1, 2)
        else:
            agent = cuts.resample(self.agent_sample_rate, recording_field="target_audio")
            audio, lens = collate_audio(agent, recording_field="target_audio")
            batch |= {"agent_audio": audio, "agent_audio_lens": lens.long()}
        return DuplexBatch(**batch)

    def _checked(self, cut: Cut) -> Cut:
        if not cut.has_custom("target_audio") and not cut.has_custom("target_codes"):
            raise InputError(
                f"Cut {cut.id} has no agent channel: expected the custom field 'target_audio'. "
                "Write it with examples/synthesize.py."
            )
        if cut.num_channels != 1:
            raise InputError(
                f"Cut {cut.id}: the user channel has {cut.num_channels} channels, expected one. Split the recording."
            )
        return cut

    def _tokens(self, turns: list[tuple[Turn, ...]], counts: list[int], alignment: TextAlignment) -> Tensor:
        """(B, T) text channels of one speaker."""
        rows = [
            text_channel(t, n, self.tokenizer, frame_rate=self.frame_rate, alignment=alignment, **self.specials)
            for t, n in zip(turns, counts)
        ]
        return pad_sequence(rows, batch_first=True, padding_value=self.specials["pad"])

    def _codes(self, cut: Cut, num_frames: int) -> Tensor:
        codes = torch.from_numpy(np.asarray(cut.load_target_codes())).long()  # (T, K)
        if codes.shape[0] != num_frames:
            raise InputError(
                f"Cut {cut.id} has {codes.shape[0]} frames of codes for {num_frames} frames of audio. "
                "Delete its target_codes and make them again."
            )
        return codes
