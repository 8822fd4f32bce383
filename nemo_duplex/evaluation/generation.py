"""Plays the conversations of a corpus to an agent and keeps what it says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from lhotse.cut import Cut
from torch import Tensor
from tqdm import tqdm

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.text_channel import TextTokenizer
from nemo_duplex.channels.transcript import ChannelTurn, read_channel
from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.activity import Vad
from nemo_duplex.evaluation.outcome import Outcome, TextEntry, check, questions
from nemo_duplex.frames import FrameRate


class Agent(Protocol):
    """What evaluation asks of a model: the free-running part of DuplexS2SModel, and no more."""

    layout: ChannelLayout
    tokenizer: TextTokenizer

    @property
    def user_sample_rate(self) -> int: ...

    @property
    def agent_sample_rate(self) -> int: ...

    def offline_inference(self, input_signal: Tensor, input_signal_lens: Tensor) -> dict[str, Any]:
        """(B, S) float32 and (B,) samples -> tokens_text (B, T), tokens_len (B,), audio (B, S'), audio_len (B,)."""
        ...


def run_conversations(
    agent: Agent, cuts: Sequence[Cut], vad: Vad, *, batch_size: int = 8, device: str = "cpu", label: str | None = None
) -> list[Outcome]:
    """Plays the user of every cut to the agent; returns what it says, in the order of the cuts.

    Args:
        agent: answers freely; it never sees the reference.
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
    outcomes: dict[int, Outcome] = {}
    with tqdm(total=sum(c.duration for c in cuts), desc=label, disable=label is None, unit="s", unit_scale=True) as progress:
        for batch in batches:
            batch_cuts = [cuts[i] for i in batch]
            for i, outcome in zip(batch, _run_batch(agent, batch_cuts, vad, device), strict=True):
                outcomes[i] = outcome
            progress.update(sum(cut.duration for cut in batch_cuts))
    return [outcomes[i] for i in range(len(cuts))]


def _run_batch(agent: Agent, cuts: Sequence[Cut], vad: Vad, device: str) -> Iterator[Outcome]:
    audios = [torch.from_numpy(cut.load_audio()[0]) for cut in cuts]
    lens = torch.tensor([len(a) for a in audios], device=device)
    signal = torch.nn.utils.rnn.pad_sequence(audios, batch_first=True).to(device)
    for cut, reply in zip(cuts, replies(agent, signal, lens), strict=True):
        samples = round(cut.duration * agent.agent_sample_rate)
        sound = np.pad(reply.sound[:samples], (0, max(0, samples - len(reply.sound))))
        yield Outcome(
            cut=cut,
            questions=questions(cut),
            agent=reply.turns,
            speech=tuple(vad(sound, agent.agent_sample_rate)),
            audio=(np.clip(sound, -1, 1) * 32767).astype(np.int16),
            sample_rate=agent.agent_sample_rate,
            unterminated=reply.unterminated,
            orphan_eos=reply.orphan_eos,
            text_entries=reply.text_entries,
        )


class Reply(NamedTuple):
    """What the agent says to one user channel.

    Args:
        sound: (S',) float32 at the agent's sample rate.
        turns: of its text channel, at the times at which they are heard.
        unterminated: how many of them no EOS ended.
        orphan_eos: EOS that no BOS precedes.
        text_entries: the text channel frame by frame, pads left out.
    """

    sound: np.ndarray
    turns: tuple[Turn, ...]
    unterminated: int
    orphan_eos: int
    text_entries: tuple[TextEntry, ...]


def replies(agent: Agent, signal: Tensor, lens: Tensor) -> Iterator[Reply]:
    """What the agent says to each of B user channels.

    Args:
        signal: (B, S) float32 at the agent's `user_sample_rate`; lens: (B,) samples.
    """
    out = agent.offline_inference(signal, lens)
    for row in range(len(signal)):
        frames, samples = int(out["tokens_len"][row]), int(out["audio_len"][row])
        frame_rate = FrameRate(Fraction(agent.agent_sample_rate * frames, samples))
        tokens = out["tokens_text"][row, :frames].cpu().numpy()
        channel = read_channel(tokens, agent.layout)
        yield Reply(
            sound=out["audio"][row, :samples].float().cpu().numpy(),
            turns=tuple(_heard(turn, frames, agent, frame_rate) for turn in channel.turns),
            unterminated=channel.unterminated,
            orphan_eos=channel.orphan_eos,
            text_entries=_text_entries(tokens, agent.layout, frame_rate),
        )


def _text_entries(tokens: np.ndarray, layout: ChannelLayout, frame_rate: FrameRate) -> tuple[TextEntry, ...]:
    marks: dict[int, Literal["bos", "eos"]] = {layout.text_bos: "bos", layout.text_eos: "eos"}
    entries = ((t, token) for t, token in enumerate(tokens.tolist()) if token != layout.text_pad)
    return tuple(TextEntry(frame_rate.time(t), marks.get(token, "word")) for t, token in entries)


def _heard(turn: ChannelTurn, frames: int, agent: Agent, frame_rate: FrameRate) -> Turn:
    """A turn of the text channel at the time at which it is heard; `unfinished` where the recording ends before it does."""
    text = agent.tokenizer.ids_to_text(list(turn.ids)).strip()
    custom = {"unfinished": True} if turn.end == frames else {}
    return Turn("agent", *turn.span(agent.layout, frame_rate), text, custom=custom)
