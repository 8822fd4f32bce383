"""The user's side of a corpus as utterances with their tokens, for training a user encoder (CTC).

The audio is read once and kept in memory as 16-bit samples (115 MB per hour). An utterance is one turn, or all turns of a
conversation, cut out with a random stretch of audio around it: encoder chunks are counted from where the audio starts, so the
start must vary. Where a synthesiser left word times, a batch also tells in which frame each token is spoken.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

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
from nemo_duplex.perception.acoustics import AcousticChain, Augmentation, Augmented
from nemo_duplex.words import words

#: Least and most audio before and after an utterance, if the conversation has it. A word's tokens come some frames after it.
MARGIN_BEFORE: tuple[Seconds, Seconds] = (0.0, 0.6)
MARGIN_AFTER: tuple[Seconds, Seconds] = (0.3, 0.8)

#: In a path, marks frames of which the token is not known: beyond the end, and throughout a turn without word times.
UNKNOWN = -100

#: Of the 16-bit samples.
FULL_SCALE = 32768.0


class Samples(Protocol):
    """What is asked of samples (S,) int16; an array has it."""

    def __len__(self) -> int: ...

    def __getitem__(self, stretch: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class Utterance:
    """A stretch of a user's audio and what is said in it. Sample numbers count from the start of `audio`."""

    id: str
    audio: Samples  # (S,) int16, the whole conversation
    text: str
    first: int  # sample at which speech starts
    last: int  # sample at which it ends
    earliest: int  # between this sample and `latest` nothing else is said
    latest: int
    turns: tuple[Turn, ...] = ()  # what is said and when, in the time of the conversation
    group: str = ""  # of utterances that are measured together, such as those of one engine

    @property
    def duration(self) -> Seconds:
        """Duration of the speech, without the audio around it."""
        return (self.last - self.first) / USER_SAMPLE_RATE

    def whole(self) -> np.ndarray:
        """Samples (S,) float32 with as much audio around the speech as there is, up to the most of a training utterance."""
        start = self.first - round(MARGIN_BEFORE[1] * USER_SAMPLE_RATE)
        stop = self.last + round(MARGIN_AFTER[1] * USER_SAMPLE_RATE)
        return self._samples(max(self.earliest, start), min(self.latest, stop))

    def draw(self, random: np.random.Generator) -> tuple[np.ndarray, int]:
        """Samples (S,) float32 with random audio around the speech, and the number of the first one."""
        before, after = (round(random.uniform(*margin) * USER_SAMPLE_RATE) for margin in (MARGIN_BEFORE, MARGIN_AFTER))
        start = max(self.earliest, self.first - before)
        return self._samples(start, min(self.latest, self.last + after)), start

    def speech(self) -> np.ndarray:
        """Samples (S,) float32 from the start of the speech to its end."""
        return self._samples(self.first, self.last)

    def spans(self, start: int) -> list[tuple[int, int]]:
        """First and last sample of each turn, counted from sample `start` on."""
        return [(round(t.start * USER_SAMPLE_RATE) - start, round(t.end * USER_SAMPLE_RATE) - start) for t in self.turns]

    def _samples(self, start: int, stop: int) -> np.ndarray:
        return self.audio[start:stop].astype(np.float32) / FULL_SCALE


@dataclass(frozen=True)
class UtteranceBatch:
    """B utterances, padded to the longest."""

    audio: Tensor  # (B, S) float32, zeros after the end
    audio_lens: Tensor  # (B,) samples
    tokens: Tensor  # (B, L)
    token_lens: Tensor  # (B,)
    paths: Tensor | None = None  # (B, T) tokens at the frames in which they are spoken, blanks between, or UNKNOWN
    phonemes: Tensor | None = None  # (B, T, 2) phonemes in the halves of each frame, or UNKNOWN
    targets: Tensor | None = None  # (B, T, W) what the ear's features are to tell, NaN where nobody knows

    def to(self, device: torch.device | str, non_blocking: bool = False) -> UtteranceBatch:
        """The same batch on another device (Lightning calls this)."""
        tensors = {name: t for name, t in vars(self).items() if t is not None}
        return replace(self, **{name: t.to(device, non_blocking=non_blocking) for name, t in tensors.items()})


class FramePhonemes(Protocol):
    """Tells which phonemes are spoken when, such as `phonemes.PhonemeTargets`."""

    def of(self, turns: Iterable[Turn], frames: int, since: Seconds, speed: float) -> Tensor:
        """(T, 2) for the frames from the time `since` on."""
        ...


class FrameTargets(Protocol):
    """Gives what an ear's features are to tell, such as `teacher.TeacherFeatures`."""

    def targets(self, utterance: Utterance, start: int, heard: Augmented, /) -> Tensor:
        """(T, W) for the frames of what is heard from sample `start` of the utterance's audio on."""
        ...


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
    turns = [as_heard(turn) for turn in turns]
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
    return (audio * (FULL_SCALE - 1)).round().clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def as_heard(turn: Turn) -> Turn:
    """The turn with its text as an ear writes it: words in small letters (`nemo_duplex.words`), nothing else.

    Word times that do not tell when each of these words is said are left out.

    Examples:
        >>> from nemo_duplex.conversation import Word
        >>> as_heard(Turn("user", 0.0, 1.0, "Good day!", words=(Word("Good", 0, 0.0, 0.4), Word("day", 5, 0.4, 1.0)))).words[1]
        Word(text='day', offset=5, start=0.4, end=1.0)
    """
    text, offset, timed = " ".join(words(turn.text)), 0, []
    for word in turn.words:
        if heard := " ".join(words(word.text)):
            timed.append(replace(word, text=heard, offset=offset))
            offset += len(heard) + 1
    complete = " ".join(word.text for word in timed) == text
    return replace(turn, text=text, words=tuple(timed) if complete else ())


class UtteranceBatches:
    """Batches of utterances of similar length, in an order that the seed decides. An epoch holds every utterance about once.

    Args:
        utterances: at least one.
        tokenizer: text -> ids.
        seconds: about how much audio a batch holds; it holds at least one utterance.
        seed: decides order, cuts and what happens to the utterances.
        augmentation: what may happen to them; None: nothing.
        teacher: gives the targets of their frames; None: there are none.
        phonemes: gives those that are spoken; None: there are none.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance],
        tokenizer: PieceTokenizer,
        seconds: Seconds,
        seed: int,
        augmentation: Augmentation | None = None,
        teacher: FrameTargets | None = None,
        phonemes: FramePhonemes | None = None,
    ) -> None:
        self.utterances = utterances
        self._phonemes = phonemes
        self._teacher = teacher
        self.seconds = seconds
        self.seed = seed
        self._chain = AcousticChain(augmentation or Augmentation(), self._somebody, seed)
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
        audio, paths, targets, phonemes = [], [], [], []
        for utterance in (self.utterances[i] for i in chosen):
            clean, start = utterance.draw(random)
            heard = self._chain.apply(clean, utterance.spans(start), random)
            audio.append(heard.audio)
            paths.append(self._path(utterance, start, heard))
            if self._phonemes is not None:
                frames, since = len(paths[-1]), start / USER_SAMPLE_RATE
                phonemes.append(self._phonemes.of(utterance.turns, frames, since, heard.speed))
            if self._teacher is not None:
                targets.append(self._teacher.targets(utterance, start, heard))
        return collate(audio, [self._tokens[i] for i in chosen], paths, targets, phonemes)

    def _somebody(self, random: np.random.Generator) -> np.ndarray:
        """What somebody else says, as part of a babble."""
        return self.utterances[int(random.integers(len(self.utterances)))].speech()

    def _path(self, utterance: Utterance, start: int, heard: Augmented) -> Tensor:
        """Tokens (T,) in the frames of what is heard from sample `start` on; between them the blank, the id after the last."""
        frames = FRAME_RATE.count_samples(len(heard.audio), USER_SAMPLE_RATE)
        if not all(turn.words for turn in utterance.turns):
            return torch.full((frames,), UNKNOWN)
        since, blank = start / USER_SAMPLE_RATE, self.tokenizer.vocab_size
        return token_path(utterance.turns, frames, self.tokenizer, blank, since, heard.speed)

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


def collate(
    audio: Iterable[np.ndarray],
    tokens: Sequence[Tensor],
    paths: Sequence[Tensor] | None = None,
    targets: Sequence[Tensor] = (),
    phonemes: Sequence[Tensor] = (),
) -> UtteranceBatch:
    """Utterances' samples (S,), tokens (L,), paths (T,), targets (T, W) and phonemes (T, 2) as one batch."""
    audio = [torch.from_numpy(samples) for samples in audio]
    return UtteranceBatch(
        audio=pad_sequence(audio, batch_first=True),
        audio_lens=torch.tensor([len(a) for a in audio]),
        tokens=pad_sequence(tokens, batch_first=True),
        token_lens=torch.tensor([len(t) for t in tokens]),
        paths=None if paths is None else pad_sequence(paths, batch_first=True, padding_value=UNKNOWN),
        phonemes=pad_sequence(phonemes, batch_first=True, padding_value=UNKNOWN) if phonemes else None,
        targets=pad_sequence(targets, batch_first=True, padding_value=math.nan) if targets else None,
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
    speed: float = 1.0,
    rate: FrameRate = FRAME_RATE,
) -> Tensor:
    """Tokens (T,) at the frames in which they are spoken, `blank` elsewhere: the correct one of the paths that CTC sums over.

    Frame 0 starts at the time `since`; no turn starts before it. What is heard at `speed` 2 comes in half the time. A token
    whose frame is taken goes into the next free one. Tokens without a free frame left are dropped.
    """
    path = torch.full((num_frames,), blank, dtype=torch.long)
    free = 0
    for turn in turns:
        for token, time in token_times(turn, tokenizer):
            frame = max(free, rate.frame_at((time - since) / speed))
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
