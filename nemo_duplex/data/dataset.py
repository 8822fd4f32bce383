"""Lhotse cuts -> DuplexBatch."""

from __future__ import annotations

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from lhotse.dataset.collation import collate_audio
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from nemo_duplex.conversation import Conversation
from nemo_duplex.data.batch import DuplexBatch
from nemo_duplex.data.text_channel import TextTokenizer, text_channel
from nemo_duplex.frames import AGENT_SAMPLE_RATE, FRAME_RATE, USER_SAMPLE_RATE, FrameRate
from nemo_duplex.inputs import InputError


class DuplexS2SDataset(torch.utils.data.Dataset):
    """Turns two-channel cuts into batches.

    Args:
        tokenizer: text -> ids and back.
        text_bos, text_eos, text_pad: special ids of the text channel (`ChannelLayout`).
        frame_rate: of the model.
        user_sample_rate, agent_sample_rate: audio is resampled to these.

    A cut brings `recording` (user, mono), `target_audio` (agent, mono, same duration), supervisions by `user` and `agent`, and,
    once `synthesize` has made them, `target_codes` (T, K), which spare the codec at every step.

    Raises:
        InputError: with the cut's id, for a cut without agent channel, with several channels, or with codes of another length.
    """

    def __init__(
        self,
        tokenizer: TextTokenizer,
        *,
        text_bos: int,
        text_eos: int,
        text_pad: int,
        frame_rate: FrameRate = FRAME_RATE,
        user_sample_rate: int = USER_SAMPLE_RATE,
        agent_sample_rate: int = AGENT_SAMPLE_RATE,
    ) -> None:
        self.tokenizer = tokenizer
        self.specials = {"bos": text_bos, "eos": text_eos, "pad": text_pad}
        self.frame_rate = frame_rate
        self.user_sample_rate = user_sample_rate
        self.agent_sample_rate = agent_sample_rate

    def __getitem__(self, cuts: CutSet) -> DuplexBatch:
        cuts = CutSet.from_cuts(self._checked(cut) for cut in cuts)
        user_audio, user_lens = collate_audio(cuts.resample(self.user_sample_rate))
        # Frames are counted on the audio that the user encoder will hear, so that both always agree.
        counts = [self.frame_rate.count_samples(int(n), self.user_sample_rate) for n in user_lens]
        tokens = [self._tokens(cut, t) for cut, t in zip(cuts, counts)]
        batch = {
            "ids": [cut.id for cut in cuts],
            "user_audio": user_audio,
            "user_audio_lens": user_lens.long(),
            "agent_tokens": pad_sequence(tokens, batch_first=True, padding_value=self.specials["pad"]),
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

    def _tokens(self, cut: Cut, num_frames: int) -> Tensor:
        turns = Conversation.from_cut(cut).agent
        return text_channel(turns, num_frames, self.tokenizer, frame_rate=self.frame_rate, **self.specials)

    def _codes(self, cut: Cut, num_frames: int) -> Tensor:
        codes = torch.from_numpy(np.asarray(cut.load_target_codes())).long()  # (T, K)
        if codes.shape[0] != num_frames:
            raise InputError(
                f"Cut {cut.id} has {codes.shape[0]} frames of codes for {num_frames} frames of audio. "
                "Delete its target_codes and make them again."
            )
        return codes
