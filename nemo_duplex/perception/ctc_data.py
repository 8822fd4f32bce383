"""The user's side of a corpus as utterances with their tokens, for training a user encoder (CTC).

The audio is read once and kept in memory as 16-bit samples (115 MB per hour). An utterance is one turn, or all turns of a
conversation, cut out with a random stretch of audio around it: encoder chunks are counted from where the audio starts, so the
start must vary. Where a synthesiser left word times, a batch also tells in which frame each token is spoken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lhotse.cut import Cut
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from nemo_duplex.channels.text_channel import PieceTokenizer, token_offsets
from nemo_duplex.conversation import Conversation, Turn, holds
from nemo_duplex.data.datamodule import shar_cuts
from nemo_duplex.frames import FRAME_RATE, USER_SAMPLE_RATE, FrameRate, Seconds
from nemo_duplex.inputs import InputError, existing_folder, one_line

#: Least and most audio before and after an utterance, if the conversation has it. A word's tokens come some frames after it.
MARGIN_BEFORE: tuple[Seconds, Seconds] = (0.0, 0.6)
MARGIN_AFTER: tuple[Seconds, Seconds] = (0.3, 0.8)
#: Change of level relative to the corpus.
GAIN_DB = (-10.0, 6.0)

#: In a path, marks frames of which the token is not known: beyond the end, and throughout a turn without word times.
UNKNOWN = -100

_FULL_SCALE = 32768.0


@dataclass(frozen=True)
class Utterance:
    """A stretch of a user's audio and what is said in it. Sample numbers count from the start of `audio`."""

    id: str
    audio: np.ndarray  # (S,) int16, the whole conversation
    text: str
    first: int  # sample at which speech starts
    last: int  # sample at which it ends
    earliest: int  # between this sample and `latest` nothing else is said
    latest: int
    turns: tuple[Turn, ...] = ()  # what is said and when, in the time of the conversation

    @property
    def duration(self) -> Seconds:
        """Duration of the speech, without the audio around it."""
        return (self.last - self.first) / USER_SAMPLE_RATE

    def whole(self) -> Tensor:
        """Samples (S,) float32 with as much audio around the speech as there is, up to the most of a training utterance."""
        start = self.first - round(MARGIN_BEFORE[1] * USER_SAMPLE_RATE)
        stop = self.last + round(MARGIN_AFTER[1] * USER_SAMPLE_RATE)
        return self._samples(max(self.earliest, start), min(self.latest, stop))

    def draw(self, random: np.random.Generator) -> tuple[Tensor, int]:
        """Samples (S,) float32 with random audio around the speech, at a random level, and the number of the first one."""
        before, after = (round(random.uniform(*margin) * USER_SAMPLE_RATE) for margin in (MARGIN_BEFORE, MARGIN_AFTER))
        gain = 10 ** (random.uniform(*GAIN_DB) / 20)
        start = max(self.earliest, self.first - before)
        return self._samples(start, min(self.latest, self.last + after)) * gain, start

    def _samples(self, start: int, stop: int) -> Tensor:
        return torch.from_numpy(self.audio[start:stop].astype(np.float32) / _FULL_SCALE)


@dataclass(frozen=True)
class UtteranceBatch:
    """B utterances, padded to the longest."""

    audio: Tensor  # (B, S) float32, zeros after the end
    audio_lens: Tensor  # (B,) samples
    tokens: Tensor  # (B, L)
    token_lens: Tensor  # (B,)
    paths: Tensor | None = None  # (B, T) tokens at the frames in which they are spoken, blanks between, or UNKNOWN

    def to(self, device: torch.device | str, non_blocking: bool = False) -> UtteranceBatch:
        """The same batch on another device (Lightning calls this)."""
        tensors = {name: t for name, t in vars(self).items() if t is not None}
        return replace(self, **{name: t.to(device, non_blocking=non_blocking) for name, t in tensors.items()})


def read_utterances(shar: str | Path, sample_rate: int = USER_SAMPLE_RATE) -> tuple[list[Utterance], list[Utterance]]:
    """All user turns of a corpus one by one, and all its conversations as a whole, without those that have no user turn.

    Args:
        shar: a Lhotse Shar folder in the form that `synthesize` writes.

    Raises:
        InputError: if there are no shards, no user turns, a turn without text, or audio of another rate or channel count.
    """
    if not list(existing_folder(shar, "data").glob("cuts.*.jsonl.gz")):
        raise InputError(f"data: {shar} holds no Lhotse Shar (cuts.*.jsonl.gz). Write it with examples/synthesize.py.")
    turns, conversations = [], []
    for cut in tqdm(shar_cuts(shar), desc=f"Reading {shar}", unit=" conversations", delay=2, leave=False):
        users = [turn for turn in Conversation.from_cut(cut).user if turn.text.strip() or not _in_part(turn)]
        if not users:
            continue
        audio = _user_audio(cut, sample_rate)
        edges = [0, *(round((a.end + b.start) / 2 * sample_rate) for a, b in zip(users, users[1:])), len(audio)]
        turns += [_utterance(cut, audio, [turn], *edges[i : i + 2]) for i, turn in enumerate(users)]
        conversations.append(_utterance(cut, audio, users, 0, len(audio)))
    if not turns:
        raise InputError(f"data: the conversations in {shar} hold no turns of a speaker 'user'. Add them.")
    return turns, conversations


def _in_part(turn: Turn) -> bool:
    """Whether the audio begins or ends within the turn; it may then hold no whole word."""
    return bool(turn.custom.get("unfinished") or turn.custom.get("begun_before"))


def _utterance(cut: Cut, audio: np.ndarray, turns: Sequence[Turn], earliest: int, latest: int) -> Utterance:
    if not all(turn.text.strip() for turn in turns):
        raise InputError(f"Cut {cut.id}: a turn of the user has no text, expected what is said. Add it.")
    first, last = (round(time * USER_SAMPLE_RATE) for time in (turns[0].start, max(turn.end for turn in turns)))
    last = min(last, len(audio))
    text = " ".join(turn.text for turn in turns)
    # Turns that overlap have no silence between them.
    return Utterance(cut.id, audio, text, first, last, min(earliest, first), max(latest, last), tuple(turns))


def _user_audio(cut: Cut, sample_rate: int) -> np.ndarray:
    """The user channel (S,) int16 of a cut."""
    if cut.sampling_rate != sample_rate or cut.num_channels != 1:
        raise InputError(
            f"Cut {cut.id}: the user channel has {cut.sampling_rate} Hz and {cut.num_channels} channels, expected "
            f"{sample_rate} Hz and one. Convert the corpus."
        )
    if not holds(cut, "recording"):
        raise InputError(
            f"Cut {cut.id} has no user channel: its recording is missing. Copy the recording.*.tar of its shard too."
        )
    try:
        audio = cut.load_audio()[0]
    except Exception as error:  # lhotse, soundfile and tarfile each raise their own
        raise InputError(
            f"Cut {cut.id}: its audio cannot be read ({one_line(error)}). Copy or write the corpus again."
        ) from error
    return (audio * (_FULL_SCALE - 1)).round().clip(-_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)


class UtteranceBatches:
    """Batches of utterances of similar length, in an order that the seed decides. An epoch holds every utterance about once.

    Args:
        utterances: at least one.
        tokenizer: text -> ids.
        seconds: about how much audio a batch holds; it holds at least one utterance.
        seed: decides order, cuts and levels.
    """

    def __init__(self, utterances: Sequence[Utterance], tokenizer: PieceTokenizer, seconds: Seconds, seed: int) -> None:
        self.utterances = utterances
        self.seconds = seconds
        self.seed = seed
        self.tokenizer = tokenizer
        self._tokens = [torch.tensor(tokenizer.text_to_ids(u.text), dtype=torch.long) for u in utterances]
        self._durations = np.array([u.duration + MARGIN_BEFORE[1] + MARGIN_AFTER[1] for u in utterances])
        self._epoch: tuple[int, list[np.ndarray]] = (0, self._order(0))
        self._epoch_batches = len(self._epoch[1])  # later epochs have one more or less, but an index must keep its epoch

    def batch(self, index: int) -> UtteranceBatch:
        """The batch of this index, 0 to infinity. The same index always gives the same batch."""
        epoch, position = divmod(index, self._epoch_batches)
        if epoch != self._epoch[0]:
            self._epoch = (epoch, self._order(epoch))
        chosen = self._epoch[1][position % len(self._epoch[1])]
        random = np.random.default_rng((self.seed, index))
        audio, starts = zip(*(self.utterances[i].draw(random) for i in chosen))
        paths = [self._path(self.utterances[i], start, len(a)) for i, start, a in zip(chosen, starts, audio)]
        return collate(audio, [self._tokens[i] for i in chosen], paths)

    def _path(self, utterance: Utterance, start: int, samples: int) -> Tensor:
        """Tokens (T,) in the frames of `samples` samples from `start` on; between them CTC's blank, the id after the last."""
        frames = FRAME_RATE.count_samples(samples, USER_SAMPLE_RATE)
        if not all(turn.words for turn in utterance.turns):
            return torch.full((frames,), UNKNOWN)
        return token_path(utterance.turns, frames, self.tokenizer, self.tokenizer.vocab_size, since=start / USER_SAMPLE_RATE)

    def _order(self, epoch: int) -> list[np.ndarray]:
        random = np.random.default_rng((self.seed, 1 << 32, epoch))
        about = self._durations * random.uniform(
            0.9, 1.1, len(self._durations)
        )  # so that batches mix differently in each epoch
        batches: list[np.ndarray] = []
        current: list[int] = []
        for i in np.argsort(about):
            if current and (len(current) + 1) * self._durations[i] > self.seconds:
                batches.append(np.array(current))
                current = []
            current.append(i)
        batches.append(np.array(current))
        random.shuffle(batches)
        return batches


def collate(audio: Iterable[Tensor], tokens: Sequence[Tensor], paths: Sequence[Tensor] | None = None) -> UtteranceBatch:
    """Utterances' samples (S,), tokens (L,) and paths (T,) as one batch."""
    audio = list(audio)
    return UtteranceBatch(
        audio=pad_sequence(audio, batch_first=True),
        audio_lens=torch.tensor([len(a) for a in audio]),
        tokens=pad_sequence(tokens, batch_first=True),
        token_lens=torch.tensor([len(t) for t in tokens]),
        paths=None if paths is None else pad_sequence(paths, batch_first=True, padding_value=UNKNOWN),
    )


def token_times(turn: Turn, tokenizer: PieceTokenizer) -> list[tuple[int, Seconds]]:
    """Each token of the turn's text with the time at which its last character has been spoken; none without word times.

    Characters of a word are assumed to last equally long. Characters between words belong to the word before.
    """
    if not turn.words:
        return []
    return [(token, _spoken(turn, end)) for token, end in token_offsets(turn.text, tokenizer)]


def token_path(
    turns: Iterable[Turn],
    num_frames: int,
    tokenizer: PieceTokenizer,
    blank: int,
    since: Seconds = 0.0,
    rate: FrameRate = FRAME_RATE,
) -> Tensor:
    """Tokens (T,) at the frames in which they are spoken, `blank` elsewhere: the correct one of the paths that CTC sums over.

    Frame 0 starts at the time `since`; no turn starts before it. A token whose frame is taken goes into the next free one.
    Tokens without a free frame left are dropped.
    """
    path = torch.full((num_frames,), blank, dtype=torch.long)
    free = 0
    for turn in turns:
        for token, time in token_times(turn, tokenizer):
            frame = max(free, rate.frame_at(time - since))
            if frame < num_frames:
                path[frame] = token
            free = frame + 1
    return path


def _spoken(turn: Turn, position: int) -> Seconds:
    """The time at which the first `position` characters of the turn's text have been spoken."""
    time = turn.start
    for word in turn.words:
        if position <= word.offset:
            break
        share = min(1.0, (position - word.offset) / len(word.text))
        time = word.start + share * (word.end - word.start)
    return time
