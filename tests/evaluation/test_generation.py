"""What is played to the agent, and what is kept of it: the right rows, their frames and nothing of the padding."""

import pytest
import torch

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.generation import replies, run_conversations
from nemo_duplex.evaluation.outcome import TextEntry
from tests.evaluation.agents import SAMPLES, FakeAgent, cut_of

PAD, BOS, EOS = 0, 1, 2


class Scripted(FakeAgent):
    """Says in every row what it is told, and keeps what was played to it. Behind the end of a row it says more."""

    def __init__(self, *rows, loudness=0.5):
        super().__init__()
        self.rows, self.loudness, self.played = rows, loudness, []
        self.tokenizer.known += ["hello", "there"]

    def offline_inference(self, input_signal, input_signal_lens):
        self.played.append(input_signal_lens.tolist())
        frames = [-(-n // 1280) for n in input_signal_lens.tolist()]
        tokens = torch.full((len(frames), max(frames) + 3), 4)
        for row, count in zip(tokens, frames):
            script = torch.tensor(self.rows[0])[:count]
            row[:count] = PAD
            row[: len(script)] = script
        lens = torch.tensor(frames)
        audio = torch.full((len(frames), tokens.shape[1] * SAMPLES), 9.0)
        for row, count in zip(audio, frames):
            row[: count * SAMPLES] = self.loudness
        return {"tokens_text": tokens, "tokens_len": lens, "audio": audio, "audio_len": lens * SAMPLES}


def cut(name, seconds):
    return cut_of(Conversation(name, seconds, (Turn("user", 0.1, 0.5, "q"),)))


def whole(audio, rate):
    return [(0.0, len(audio) / rate)]


def test_turns_stand_where_they_are_heard_with_their_text():
    """Hello in frames 3 to 7 of 25: heard from 3 to 7 (text leads by two); the second turn has no EOS."""
    row = [PAD, BOS, 3, PAD, 4, EOS, PAD, EOS, PAD, BOS, 3, *[PAD] * 14]
    (reply,) = replies(Scripted(row), torch.zeros(1, 32000), torch.tensor([32000]))
    assert [(t.text, t.start, t.end) for t in reply.turns] == [
        ("hello there", pytest.approx(3 * 0.08), pytest.approx(7 * 0.08)),
        ("hello", pytest.approx(11 * 0.08), pytest.approx(27 * 0.08)),
    ]
    assert [t.custom for t in reply.turns] == [{}, {"unfinished": True}]
    assert (reply.unterminated, reply.orphan_eos) == (1, 1)
    assert reply.text_entries == tuple(
        TextEntry(pytest.approx(frame * 0.08), kind)
        for frame, kind in [(1, "bos"), (2, "word"), (4, "word"), (5, "eos"), (7, "eos"), (9, "bos"), (10, "word")]
    )
    assert reply.sound.shape == (25 * SAMPLES,) and (reply.sound == 0.5).all()


def test_outcomes_come_in_the_order_of_the_cuts_and_batches_by_length():
    cuts = [cut("short", 1.0), cut("long", 3.0), cut("middle", 2.0)]
    agent = Scripted([PAD, BOS, 3, EOS])
    outcomes = run_conversations(agent, cuts, whole, batch_size=2)
    assert [o.id for o in outcomes] == ["short", "long", "middle"]
    assert agent.played == [[48000, 32000], [16000]], "so that little is padding"
    for outcome, seconds in zip(outcomes, (1.0, 3.0, 2.0)):
        assert outcome.agent_sound.samples().shape == (round(seconds * 22050),)
        assert (outcome.agent_sound.values == 16383).all(), "0.5 of 32767"
        assert outcome.speech == ((0.0, seconds),) and outcome.agent_sound.sample_rate == 22050
        assert len(outcome.questions) == 1 and outcome.unterminated == outcome.orphan_eos == 0
        assert len(outcome.agent) == 1 and len(outcome.text_entries) == 3


def test_sound_beyond_full_scale_is_clipped():
    (outcome,) = run_conversations(Scripted([PAD], loudness=1.5), [cut("c", 1.0)], whole)
    assert (outcome.agent_sound.values == 32767).all()
    (outcome,) = run_conversations(Scripted([PAD], loudness=-1.5), [cut("c", 1.0)], whole)
    assert (outcome.agent_sound.values == -32767).all()


def test_broken_grammar_is_counted_in_the_outcome():
    (outcome,) = run_conversations(Scripted([EOS, EOS, PAD, BOS, 3]), [cut("c", 1.0)], whole)
    assert (outcome.unterminated, outcome.orphan_eos) == (1, 2)
    assert outcome.agent[0].custom == {"unfinished": True}


def test_an_agent_whose_last_frame_is_short_gets_silence_to_the_end():
    class Short(Scripted):
        def offline_inference(self, input_signal, input_signal_lens):
            out = super().offline_inference(input_signal, input_signal_lens)
            return out | {"tokens_len": out["tokens_len"] - 5, "audio_len": out["audio_len"] - 5 * SAMPLES}

    (outcome,) = run_conversations(Short([PAD]), [cut("c", 1.0)], whole)
    assert outcome.agent_sound.values.shape == (22050,)
    assert (outcome.agent_sound.values[: 8 * SAMPLES] == 16383).all() and not outcome.agent_sound.values[8 * SAMPLES :].any()
