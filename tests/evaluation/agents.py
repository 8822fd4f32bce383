"""Agents whose behaviour is known, and conversations to play to them: bounds for every metric.

They generate as DuplexS2SModel does, from the user's audio alone. An oracle knows the reference: it recognises a
conversation by its first samples.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import soxr
import torch
from lhotse import CutSet, MonoCut, Recording
from lhotse.audio import AudioSource
from lhotse.shar import SharWriter

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.frames import AGENT_SAMPLE_RATE, FRAME_RATE, USER_SAMPLE_RATE
from tests.dummies import wav_bytes

SAMPLES = FRAME_RATE.samples_per_frame(AGENT_SAMPLE_RATE)


class Words:
    """A tokenizer of one id per word, assigned in the order of their first use."""

    def __init__(self):
        self.known = ["<pad>", "<bos>", "<eos>"]

    def text_to_ids(self, text):
        self.known += [w for w in text.split() if w not in self.known]
        return [self.known.index(w) for w in text.split()]

    def ids_to_text(self, ids):
        return " ".join(self.known[i] for i in ids)


class FakeAgent:
    """Subclasses say what the agent does on one user channel: sound (S',) and turns at the times at which they are heard."""

    user_sample_rate, agent_sample_rate = USER_SAMPLE_RATE, AGENT_SAMPLE_RATE

    def __init__(self):
        self.tokenizer = Words()
        self.layout = ChannelLayout(10_000, text_pad=0, text_bos=1, text_eos=2, num_codebooks=4, codebook_size=1000)

    def does(self, user):
        raise NotImplementedError

    def offline_inference(self, input_signal, input_signal_lens):
        rows = [self.does(row[:n].cpu().numpy()) for row, n in zip(input_signal, input_signal_lens, strict=True)]
        frames = [FRAME_RATE.count_samples(int(n), USER_SAMPLE_RATE) for n in input_signal_lens]
        tokens = torch.zeros(len(rows), max(frames), dtype=torch.long)
        audio = torch.zeros(len(rows), max(frames) * SAMPLES)
        for i, (sound, turns) in enumerate(rows):
            sound = torch.from_numpy(np.asarray(sound, np.float32))[: frames[i] * SAMPLES]
            audio[i, : len(sound)] = sound
            self._write(tokens[i, : frames[i]], turns)
        lens = torch.tensor(frames)
        return {"tokens_text": tokens, "tokens_len": lens, "audio": audio, "audio_len": lens * SAMPLES}

    def _write(self, row, turns):
        for turn in turns:
            start = FRAME_RATE.nearest(turn.start) - self.layout.text_lead
            end = FRAME_RATE.nearest(turn.end) - self.layout.text_tail
            assert start >= 0, "a turn this early has no frame for its BOS"
            text = torch.tensor([self.layout.text_bos, *self.tokenizer.text_to_ids(turn.text)])[: end - start]
            text = text[: max(0, len(row) - start)]
            row[start : start + len(text)] = text
            if end < len(row):
                row[end] = self.layout.text_eos


class Silent(FakeAgent):
    def does(self, user):
        return np.zeros(0), []


class Talker(FakeAgent):
    """Never stops."""

    def does(self, user):
        seconds = len(user) / USER_SAMPLE_RATE
        return syllables(seconds, AGENT_SAMPLE_RATE), [Turn("agent", 0.16, seconds + 1, "on and on")]


class Echo(FakeAgent):
    """Says what it hears, when it hears it."""

    def does(self, user):
        return soxr.resample(user, USER_SAMPLE_RATE, AGENT_SAMPLE_RATE), []


class Oracle(FakeAgent):
    """The reference agent, `delay` seconds late (a multiple of the frame), or with `stops=False` deaf to barge-ins.

    It does listen: it answers a question, and stops for an interrupter, only if there is sound where they should speak.
    """

    def __init__(self, cuts, delay=0.0, stops=True):
        super().__init__()
        self.delay, self.stops = delay, stops
        self.score = {self._key(cut.load_audio()[0]): cut for cut in cuts}

    @staticmethod
    def _key(user):
        return hashlib.sha256(np.asarray(user[: 3 * USER_SAMPLE_RATE], np.float32).tobytes()).hexdigest()

    def does(self, user):
        cut = self.score.get(self._key(user))
        if cut is None:
            return np.zeros(0), []
        recorded = Conversation.from_cut(cut)
        turns = self.turns(
            recorded, lambda turn: np.abs(user[round(turn.start * 16000) : round(turn.end * 16000)]).mean() > 0.003
        )
        late = [t.shifted(self.delay) for t in turns]
        if turns == list(recorded.agent):
            return np.concatenate([np.zeros(round(self.delay * AGENT_SAMPLE_RATE)), cut.load_target_audio()[0]]), late
        return voice(late, len(user) / USER_SAMPLE_RATE, AGENT_SAMPLE_RATE), late

    def turns(self, recorded, hears):
        """What it says to those user turns that it hears."""
        said = []
        for question, turn in zip(recorded.user, recorded.agent, strict=True):
            stopped = self.stops and any(turn.start < u.start < turn.end and hears(u) for u in recorded.user)
            if turn.was_cut and not stopped:
                whole = turn.start + turn.custom["whole_duration"]
                turn = replace(turn, end=whole, text=turn.full_text, full_text=None)
            said += [turn] if hears(question) else []
        return said


def _during(turn, user):
    return user[round(turn.start * USER_SAMPLE_RATE) : round(turn.end * USER_SAMPLE_RATE)]


def syllables(seconds, rate):
    """Speech in outline: a buzz with the rhythm of syllables."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sign(np.sin(2 * np.pi * 130 * t)) * (0.25 + 0.75 * np.abs(np.sin(2 * np.pi * 2 * t)))).astype(np.float32)


def voice(turns, duration, rate):
    channel = np.zeros(round(duration * rate), np.float32)
    for turn in turns:
        sound = syllables(turn.duration, rate)
        start = round(turn.start * rate)
        channel[start : start + len(sound)] = sound[: len(channel) - start]
    return channel


def cut_of(conversation, agent=True, user_rate=USER_SAMPLE_RATE, agent_seconds=None):
    """A two-channel cut as `synthesize` writes it, with buzzing for speech."""

    def recording(name, audio, rate):
        source = AudioSource("memory", [0], wav_bytes(audio, rate))
        return Recording(name, [source], rate, len(audio), len(audio) / rate)

    user = recording(conversation.id, voice(conversation.user, conversation.duration, user_rate), user_rate)
    cut = MonoCut(conversation.id, 0.0, user.duration, 0, recording=user, supervisions=conversation.to_supervisions())
    cut.custom = dict(conversation.custom)
    if agent:
        sound = voice(conversation.agent, agent_seconds or conversation.duration, AGENT_SAMPLE_RATE)
        cut.custom["target_audio"] = recording(f"{conversation.id}-agent", sound, AGENT_SAMPLE_RATE)
    return cut


def dialogue(name, shift=0.0):
    """Three questions in 16 s; the second one interrupts the first answer, which stops 0.64 s later.

        user    1.0 - 2.5          5.0 - 6.4           9.5 - 11
        agent         3.2 - 5.6 (of 7.2)   7.04 - 8.64     11.68 - 13.6

    `shift` moves everything, in whole frames, so that conversations differ.
    """

    def user(start, end, text, **custom):
        return Turn("user", start + shift, end + shift, text, custom={"family": "capital", "seen": True, **custom})

    def agent(start, end, text, whole, **custom):
        about = {"family": "capital", "answer": text.split()[-1], "seen": True, "whole_duration": whole, **custom}
        return Turn("agent", start + shift, end + shift, text, custom=about)

    interrupted = replace(agent(3.2, 5.6, "the capital of France", 4.0), full_text="the capital of France is Paris")
    turns = (
        user(1.0, 2.5, "What is the capital of France?"),
        interrupted,
        user(5.0003, 6.4, "No, of Spain?"),
        agent(7.04, 8.64, "it is Madrid", 1.6),
        user(9.5, 11.0, "Say a word.", family="echo", seen=False),
        agent(11.68, 13.6, "a word", 1.92, family="echo", seen=False),
    )
    return Conversation(name, 16.0 + shift, turns)


def write_set(folder, cuts):
    """Cuts of both channels as the Lhotse Shar that `synthesize` writes."""
    folder.mkdir(parents=True)
    with SharWriter(
        str(folder), fields={"recording": "flac", "target_audio": "flac"}, shard_size=None, shard_suffix=".000000"
    ) as out:
        for cut in CutSet.from_cuts(cuts):
            out.write(cut)
