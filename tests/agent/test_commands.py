"""What callers do to a trained agent: it is stopped and asked again, begins, says words; and it is told when they speak."""

from types import SimpleNamespace

import numpy as np
import pytest

from nemo_duplex.channels.transcript import read_channel
from nemo_duplex.evaluation.answers import words
from nemo_duplex.user_activity.detector import UserActivity, listen

SIZE = 1764  # samples of a frame at 22.05 kHz


def played(agent, audios, commands):
    """Conversations with an agent, all at once: each user's audio, and {frame: (method, argument)} before that frame."""
    engine = agent.open_engine(max_sessions=len(audios))
    sessions, frames, commands = [engine.open_session() for _ in audios], [[] for _ in audios], [dict(c) for c in commands]
    for session, audio in zip(sessions, audios):
        session.push(audio.astype(np.float32))
    while True:
        for session, done, mine in zip(sessions, frames, commands):
            for command, *value in [mine.pop(len(done))] if len(done) in mine else []:
                getattr(session, command)(*value)
        answers = engine.step()
        if not answers:
            break
        for session, done in zip(sessions, frames):
            done += answers.get(session, [])
    return [
        SimpleNamespace(
            frames=done,
            audio=np.concatenate([f.audio for f in done]),
            turns=read_channel([f.token for f in done], agent.layout).turns,
            text=lambda turn: agent.tokenizer.ids_to_text(list(turn.ids)),
        )
        for done in frames
    ]


@pytest.fixture(scope="module")
def users(sets):
    return [cut.load_audio()[0][: 16000 * 16] for cut in sets["dev"][:8]]


@pytest.fixture(scope="module")
def free(agent, users):
    talks = played(agent, users, [{}] * len(users))
    assert all(talk.turns for talk in talks), "An agent that says nothing would prove nothing."
    return talks


def test_stopped_in_the_middle_of_an_answer_it_is_silent_and_answers_the_next_question(agent, users, free):
    """No sound from 20 ms after the stop to the next question's answer, no click, and that answer is what it would be."""
    at = [(talk.turns[0].start + talk.turns[0].end) // 2 for talk in free]
    stopped = played(agent, users, [{frame: ("stop",)} for frame in at])
    same = asked = 0
    for frame, before, after in zip(at, free, stopped):
        quiet_until = after.turns[1].start + 1 if len(after.turns) > 1 else len(after.frames)
        silence = after.audio[frame * SIZE + 442 : quiet_until * SIZE]
        assert after.frames[frame].token == agent.layout.text_eos
        assert np.abs(silence).max() < 0.002 and np.abs(before.audio[frame * SIZE + 442 : (frame + 2) * SIZE]).max() > 0.02
        steps = np.abs(np.diff(after.audio[: quiet_until * SIZE]))
        assert steps[frame * SIZE - 1] <= steps[: frame * SIZE - 1].max(), "A click where the fade begins."
        assert steps[frame * SIZE + 441 :].max() < 0.002, "A click where it ends."
        for turn, other in zip(before.turns[1:], after.turns[1:]):
            asked, same = asked + 1, same + (words(before.text(turn)) == words(after.text(other)))
        assert len(before.turns) == len(after.turns)
    assert asked >= 6 and same >= 0.8 * asked, f"{same} of {asked} later answers are what they are without a stop."


def test_it_says_what_it_is_told_and_falls_silent(agent):
    """The words are all there and in order; while they stand in the text channel, the agent is heard."""
    texts = ["The color of the sky is blue.", "Six plus one is seven.", "The day after Monday is Tuesday."]
    nobody = np.zeros(16000 * 12)
    for text, talk in zip(texts, played(agent, [nobody] * 3, [{10: ("say", text)} for text in texts])):
        turn = talk.turns[0]
        assert turn.start == 10 and talk.text(turn) == text
        heard = talk.audio[(turn.start + 2) * SIZE : (turn.end + 2) * SIZE]
        assert heard.std() > 0.01 and np.abs(talk.audio[: 11 * SIZE]).max() < 0.002
        assert np.abs(talk.audio[(turn.end + 5) * SIZE :][: 5 * SIZE]).max() < 0.002


def test_a_start_is_heard_at_once(agent):
    (talk,) = played(agent, [np.zeros(16000 * 3)], [{10: ("start",)}])
    assert talk.turns[0].start == 10
    assert np.abs(talk.audio[: 11 * SIZE]).max() < 0.002 and talk.audio[12 * SIZE : 20 * SIZE].std() > 0.01


@pytest.mark.parametrize("gain, noise", [(1.0, 0.0), (0.1, 0.0), (1.0, 0.01)], ids=["as it is", "quiet", "noisy"])
def test_it_is_told_when_the_user_speaks(agent, sets, gain, noise):
    """Against the corpus' own spans, which count the pauses of a turn as speech. Silero VAD agrees with them to 93 %."""
    right = frames = found = turns = 0
    for i, cut in enumerate([*sets["dev"], *sets["impatient"]]):
        audio = gain * cut.load_audio()[0] + noise * np.random.default_rng(i).standard_normal(cut.num_samples)
        user = UserActivity(agent.user_sample_rate)
        user.push(audio.astype(np.float32))
        listen([user])
        active = np.array([user.spoke(end) for end in range(1280, len(audio) + 1, 1280)])
        spans = [s for s in cut.supervisions if s.speaker == "user" and s.end < len(active) * 0.08]
        truth = np.zeros(len(active), bool)
        for span in cut.supervisions:
            if span.speaker == "user":
                truth[int(span.start / 0.08) : int(np.ceil(span.end / 0.08))] = True
        right, frames = right + (active == truth).sum(), frames + len(active)
        for span in spans:
            onset = int(span.start / 0.08)
            turns, found = turns + 1, found + active[onset : onset + 5].any()
    assert right > 0.86 * frames, f"{right / frames:.3f} of all frames"
    assert found > 0.95 * turns, f"{found} of {turns} turns were noticed within 0.4 s"
