"""The agent talks: conversations of a corpus are played to it, and what it does is put on record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, Literal, Protocol

import numpy as np
import torch
from lhotse.cut import Cut
from torch import Tensor
from tqdm import tqdm

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.transcript import ChannelTurn, read_channel
from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.activity import Vad
from nemo_duplex.evaluation.record import Record, Written, check, questions
from nemo_duplex.frames import FrameRate


class Writer(Protocol):
    """Turns text ids back into text."""

    def ids_to_text(self, ids: list[int]) -> str: ...


class Agent(Protocol):
    """What evaluation asks of a model: the free-running part of DuplexS2SModel, and no more."""

    layout: ChannelLayout
    tokenizer: Writer

    @property
    def user_sample_rate(self) -> int: ...

    @property
    def agent_sample_rate(self) -> int: ...

    def offline_inference(self, input_signal: Tensor, input_signal_lens: Tensor) -> dict[str, Any]:
        """(B, S) float32 and (B,) samples -> tokens_text (B, T), tokens_len (B,), audio (B, S'), audio_len (B,)."""
        ...


def run_conversations(
    agent: Agent, cuts: Sequence[Cut], vad: Vad, *, batch_size: int = 8, device: str = "cpu", label: str | None = None
) -> list[Record]:
    """Plays every cut's user to the agent and records what it says, in the order of the cuts.

    Args:
        agent: speaks freely: it never sees the reference.
        vad: finds speech in the agent's audio.
        batch_size: conversations at a time; they are sorted by length, so that little is padding.
        device: where the user's audio is put.
        label: shown beside a progress bar; None shows none.

    Raises:
        InputError: naming the cut that cannot be evaluated.
    """
    for cut in cuts:
        check(cut, agent.user_sample_rate)
    by_length = sorted(range(len(cuts)), key=lambda i: -cuts[i].duration)
    batches = [by_length[i : i + batch_size] for i in range(0, len(cuts), batch_size)]
    records: dict[int, Record] = {}
    with tqdm(total=sum(c.duration for c in cuts), desc=label, disable=label is None, unit="s", unit_scale=True) as progress:
        for batch in batches:
            batch_cuts = [cuts[i] for i in batch]
            for i, record in zip(batch, _perform_batch(agent, batch_cuts, vad, device), strict=True):
                records[i] = record
            progress.update(sum(cut.duration for cut in batch_cuts))
    return [records[i] for i in range(len(cuts))]


def _perform_batch(agent: Agent, cuts: Sequence[Cut], vad: Vad, device: str) -> Iterator[Record]:
    audios = [torch.from_numpy(cut.load_audio()[0]) for cut in cuts]
    lens = torch.tensor([len(a) for a in audios], device=device)
    signal = torch.nn.utils.rnn.pad_sequence(audios, batch_first=True).to(device)
    for cut, (sound, turns, unterminated, orphans, written) in zip(cuts, replies(agent, signal, lens), strict=True):
        samples = round(cut.duration * agent.agent_sample_rate)
        sound = np.pad(sound[:samples], (0, max(0, samples - len(sound))))
        yield Record(
            cut=cut,
            questions=questions(cut),
            agent=tuple(turns),
            speech=tuple(vad(sound, agent.agent_sample_rate)),
            audio=(np.clip(sound, -1, 1) * 32767).astype(np.int16),
            sample_rate=agent.agent_sample_rate,
            unterminated=unterminated,
            orphan_eos=orphans,
            written=written,
        )


def replies(
    agent: Agent, signal: Tensor, lens: Tensor
) -> Iterator[tuple[np.ndarray, list[Turn], int, int, tuple[Written, ...]]]:
    """What the agent says to each of B user channels.

    Args:
        signal: (B, S) float32 at the agent's `user_sample_rate`; lens: (B,) samples.

    Yields:
        its sound (S',) float32, the turns of its text channel, how many of them had no EOS, EOS outside any turn, and the
        entries of the text channel.
    """
    out = agent.offline_inference(signal, lens)
    for row in range(len(signal)):
        frames, samples = int(out["tokens_len"][row]), int(out["audio_len"][row])
        frame_rate = FrameRate(Fraction(agent.agent_sample_rate * frames, samples))
        tokens = out["tokens_text"][row, :frames].cpu().numpy()
        channel = read_channel(tokens, agent.layout)
        turns = [_heard(turn, frames, agent, frame_rate) for turn in channel.turns]
        written = _written(tokens, agent.layout, frame_rate)
        yield out["audio"][row, :samples].float().cpu().numpy(), turns, channel.unterminated, channel.orphan_eos, written


def _written(tokens: np.ndarray, layout: ChannelLayout, frame_rate: FrameRate) -> tuple[Written, ...]:
    marks: dict[int, Literal["bos", "eos"]] = {layout.text_bos: "bos", layout.text_eos: "eos"}
    entries = ((t, token) for t, token in enumerate(tokens.tolist()) if token != layout.text_pad)
    return tuple(Written(frame_rate.time(t), marks.get(token, "word")) for t, token in entries)


def _heard(turn: ChannelTurn, frames: int, agent: Agent, frame_rate: FrameRate) -> Turn:
    """A turn of the text channel at the time at which it is heard; `unfinished` where the recording ends before it does."""
    text = agent.tokenizer.ids_to_text(list(turn.ids)).strip()
    custom = {"unfinished": True} if turn.end == frames else {}
    return Turn("agent", *turn.span(agent.layout, frame_rate), text, custom=custom)
