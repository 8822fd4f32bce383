"""Plays the conversations of a corpus to an agent and keeps what it says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
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
from nemo_duplex.conversation import Conversation, Turn, holds
from nemo_duplex.evaluation.activity import Vad
from nemo_duplex.evaluation.outcome import Outcome, TextEntry, questions
from nemo_duplex.evaluation.predictions import Predictions, input_sha256
from nemo_duplex.evaluation.sound import CutSound, Samples
from nemo_duplex.frames import FRAME_RATE, FrameRate
from nemo_duplex.inputs import InputError


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
    """Plays the user of every cut to the agent; returns what it says, in the order of the cuts. Arguments as of `play`."""
    outcomes = {outcome.id: outcome for outcome in play(agent, cuts, vad, batch_size=batch_size, device=device, label=label)}
    return [outcomes[cut.id] for cut in cuts]


def play(
    agent: Agent, cuts: Sequence[Cut], vad: Vad, *, batch_size: int = 8, device: str = "cpu", label: str | None = None
) -> Iterator[Outcome]:
    """Plays the user of every cut to the agent; gives what it says as soon as a batch is done, the longest cuts first.

    Args:
        agent: answers freely; it never sees the reference.
        vad: finds speech in the agent's audio.
        batch_size: conversations at a time; they are sorted by length, so that little is padding.
        device: where the user's audio is put.
        label: shown beside a progress bar; None shows none.

    Raises:
        InputError: naming the cut that cannot be evaluated, or that has another's id.
    """
    check_all(cuts, agent.user_sample_rate)
    by_length = sorted(cuts, key=lambda cut: -cut.duration)
    batches = [by_length[i : i + batch_size] for i in range(0, len(cuts), batch_size)]
    with tqdm(total=sum(c.duration for c in cuts), desc=label, disable=label is None, unit="s", unit_scale=True) as progress:
        for batch in batches:
            yield from _play_batch(agent, batch, vad, device)
            progress.update(sum(cut.duration for cut in batch))


def play_into(
    predictions: Predictions,
    agent: Agent,
    cuts: Sequence[Cut],
    vad: Vad,
    *,
    batch_size: int = 8,
    device: str = "cpu",
    label: str | None = None,
) -> list[Outcome]:
    """As `run_conversations`; what is on disk is taken from there, and all else written as soon as a batch is done."""
    found = {}
    by_id = {cut.id: cut for cut in cuts}
    for name, outcome in predictions.kept(cuts).items():
        assert outcome.agent_sound is not None, "A prediction has the agent's sound."
        found[name] = replace(
            outcome,
            speech=tuple(vad(outcome.agent_sound.samples(), outcome.agent_sound.sample_rate)),
            user_sound=CutSound(by_id[name], "recording"),
            reference_sound=_reference_sound(by_id[name]),
        )
    missing = [cut for cut in cuts if cut.id not in found]
    for outcome in play(agent, missing, vad, batch_size=batch_size, device=device, label=label):
        predictions.add(outcome, input_sha256(by_id[outcome.id]))
        found[outcome.id] = outcome
    return [found[cut.id] for cut in cuts]


def _reference_sound(cut: Cut) -> CutSound | None:
    return CutSound(cut, "target_audio") if holds(cut, "target_audio") else None


def _play_batch(agent: Agent, cuts: Sequence[Cut], vad: Vad, device: str) -> Iterator[Outcome]:
    audios = [torch.from_numpy(cut.load_audio()[0]) for cut in cuts]
    lens = torch.tensor([len(a) for a in audios], device=device)
    signal = torch.nn.utils.rnn.pad_sequence(audios, batch_first=True).to(device)
    for cut, reply in zip(cuts, replies(agent, signal, lens), strict=True):
        rate = agent.agent_sample_rate
        samples = round(cut.duration * rate)
        sound = Samples.of(np.pad(reply.sound[:samples], (0, max(0, samples - len(reply.sound)))), rate)
        conversation = Conversation.from_cut(cut)
        yield Outcome(
            conversation=conversation,
            questions=questions(conversation),
            agent=reply.turns,
            speech=tuple(vad(sound.samples(), rate)),
            agent_sound=sound,
            user_sound=CutSound(cut, "recording"),
            reference_sound=_reference_sound(cut),
            unterminated=reply.unterminated,
            orphan_eos=reply.orphan_eos,
            text_entries=reply.text_entries,
        )


def check_all(cuts: Iterable[Cut], sample_rate: int) -> None:
    """Checks each cut of a set (`check`), and that no two have one id. Raises InputError, naming the cut."""
    seen: set[str] = set()
    for cut in cuts:
        check(cut, sample_rate)
        if cut.id in seen:
            raise InputError(f"Cut {cut.id} is in the set twice, expected ids of their own. Rename one of the two.")
        seen.add(cut.id)


def check(cut: Cut, sample_rate: int) -> None:
    """Checks that a cut can be evaluated.

    Args:
        sample_rate: of the model's user audio, in Hz.

    Raises:
        InputError: naming the cut, for another sample rate, several channels, no supervisions, references that do not fit, or
            an agent channel of another length than the user's.
    """
    if not holds(cut, "recording"):
        raise InputError(
            f"Cut {cut.id} has no user channel: its recording is missing. Copy the recording.*.tar of its shard too."
        )
    if cut.num_channels != 1:
        raise InputError(f"Cut {cut.id}: the user channel has {cut.num_channels} channels, expected one. Split the recording.")
    if cut.sampling_rate != sample_rate:
        raise InputError(
            f"Cut {cut.id}: the user channel has {cut.sampling_rate} Hz, the model hears {sample_rate} Hz. Resample the corpus."
        )
    conversation = Conversation.from_cut(cut)
    if not conversation.user:
        raise InputError(
            f"Cut {cut.id} has no supervisions of the user within its audio, so it is unknown when the user speaks. Write the "
            "corpus with examples/synthesize.py, or add supervisions with speaker 'user'."
        )
    agent = cut.target_audio.duration if holds(cut, "target_audio") else cut.duration
    if abs(agent - cut.duration) > FRAME_RATE.seconds:
        raise InputError(
            f"Cut {cut.id}: the user channel lasts {cut.duration:.2f} s and the agent channel {agent:.2f} s, "
            "expected the same. Pad or cut one of them."
        )
    questions(conversation)  # refuses references that are not as many as they should be


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
