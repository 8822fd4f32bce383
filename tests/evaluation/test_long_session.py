"""Many conversations in one session: what is played, and what is noted of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nemo_duplex.channels.transcript import Transcript
from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.endurance import COMPARED, _cost_by_minute, score_session, soak_report, soak_table
from nemo_duplex.evaluation.generation import run_conversations
from nemo_duplex.evaluation.long_session import Playlist, SessionLog, _AgentListener, play
from nemo_duplex.evaluation.scores import score
from nemo_duplex.frames import FRAME_RATE
from nemo_duplex.inputs import InputError
from tests.dummies import tiny_model
from tests.evaluation.agents import SAMPLES, Oracle, cut_of, dialogue


@pytest.fixture(scope="module")
def cuts():
    return [cut_of(dialogue(name, shift=0.08 * i)) for i, name in enumerate(("one", "two", "three"))]


class LongOracle(Oracle):
    """An agent that knows every conversation of a playlist, as a model and as its one session; at some time it falls silent."""

    perception = SimpleNamespace(frame_rate=FRAME_RATE)

    def __init__(self, playlist, until=np.inf):
        super().__init__(list(playlist))
        self._script, self._heard, self._said = Transcript(self.layout, self.tokenizer), 0, 0
        said = [self._answer(cut) for cut in playlist]
        self._tokens, self._audio = (np.concatenate(parts) for parts in zip(*said))
        quiet = int(min(until / FRAME_RATE.seconds, len(self._tokens)))
        self._tokens[quiet:], self._audio[quiet * SAMPLES :] = self.layout.text_pad, 0.0

    def _answer(self, cut):
        user = torch.from_numpy(cut.load_audio()[0])
        out = self.offline_inference(user[None], torch.tensor([len(user)]))
        return out["tokens_text"][0].numpy(), out["audio"][0].numpy()

    def open_session(self):
        return self

    def push(self, audio):
        self._heard += len(audio)
        return self._frames(self._heard // 1280 - 1)  # like a model that waits for an encoder chunk

    def flush(self):
        return self._frames(len(self._tokens))

    def _frames(self, count):
        new = range(self._said, max(self._said, count))
        self._said = max(self._said, count)
        for t in new:
            self._script.add(t, int(self._tokens[t]))
        return [SimpleNamespace(token=int(self._tokens[t]), audio=self._audio[t * SAMPLES : (t + 1) * SAMPLES]) for t in new]

    @property
    def transcript(self):
        return self._script.conversation(self._said)


def test_a_playlist_ends_as_it_began_and_plays_all_before_one_comes_again(cuts):
    playlist = Playlist.of(cuts, minutes=2.0, compared=0.5, seed=1)  # of 16 s each
    assert [len(playlist.edge), len(playlist.middle)] == [2, 4]
    ids = [cut.id for cut in playlist]
    assert ids[:2] == ids[-2:] and len(ids) == 8
    assert sorted(ids[:3]) == sorted(ids[3:6]) == sorted(cut.id for cut in cuts)
    assert playlist.duration == pytest.approx(128, abs=1)
    assert ids == [cut.id for cut in Playlist.of(cuts, minutes=2.0, compared=0.5, seed=1)]
    orders = {tuple(cut.id for cut in Playlist.of(cuts, minutes=2.0, compared=0.5, seed=seed)) for seed in range(6)}
    assert len(orders) > 3, "the order follows the seed"
    with pytest.raises(InputError, match=r"^compared=1: [^\n]*Choose less than 1\.$"):
        Playlist.of(cuts, minutes=2.0, compared=1.0)
    with pytest.raises(InputError, match="^compared=0: "):
        Playlist.of(cuts, minutes=2.0, compared=0)


def test_every_conversation_is_judged_as_if_it_were_alone(cuts):
    playlist = Playlist.of(cuts, minutes=2.0, compared=0.5)
    agent = LongOracle(playlist)
    heard = play(agent, playlist, energy_vad)
    assert [p.cut.id for p in heard.played] == [cut.id for cut in playlist]
    for together, cut in zip(score_session(heard), playlist, strict=True):
        alone = score(run_conversations(Oracle(cuts), [cut], energy_vad)[0])
        assert together.turn_taking == alone.turn_taking
        assert [turn.text for turn in together.outcome.agent] == [turn.text for turn in alone.outcome.agent]
        assert [(a.text, a.verdict) for a in together.answers] == [(a.text, a.verdict) for a in alone.answers]
        assert len(alone.turn_taking.successes) == 1 and alone.answers[1].verdict == "right"


def test_an_agent_that_falls_silent_is_found_and_one_that_stays_the_same_is_not(cuts):
    """Of 7 conversations of 16 s, the first and the last two are compared."""
    playlist = Playlist.of(cuts, minutes=1.6, compared=0.5)
    steady, tired = LongOracle(playlist), LongOracle(playlist, until=60.0)
    same = soak_report(steady, playlist, play(steady, playlist, energy_vad, memory_at=(1, 0.5)))
    assert {d["within_noise"] for d in same["difference"].values()} == {True}
    assert same["transcript"] == {"turns": 18, "written": 18, "complete": True}
    assert (same["minutes"], same["compared"]) == (pytest.approx(playlist.duration / 60), pytest.approx(0.54, abs=0.01))
    assert same["conversations"] == {"compared": 2, "all": 6}
    assert [mark["minute"] for mark in same["memory"]] == [0.5, 1]
    assert "CHANGED" not in soak_table(same) and "complete" in soak_table(same)
    worse = soak_report(tired, playlist, play(tired, playlist, energy_vad, memory_at=(1,)))
    assert worse["difference"]["exact_match"]["value"] == -1 and not worse["difference"]["exact_match"]["within_noise"]
    assert worse["difference"]["response_missing_rate"]["ci95"] == (1.0, 1.0)
    assert worse["difference"]["mean_stop_latency"]["value"] is None, "There was nobody to interrupt."
    assert worse["difference"]["mean_stop_latency"]["within_noise"] is None
    assert worse["first"]["answers"]["all"]["value"] == 1 and worse["last"]["answers"]["all"]["value"] == 0
    assert "CHANGED" in soak_table(worse)


def test_memory_is_measured_after_so_many_minutes(cuts, monkeypatch):
    playlist = Playlist.of(cuts, minutes=1.0, compared=0.2)
    agent = LongOracle(playlist)
    monkeypatch.setattr("nemo_duplex.evaluation.long_session.memory", lambda: {"seconds": agent._heard / 16000})
    log = play(agent, playlist, energy_vad, memory_at=(0.75, 0.25))
    assert log.memory == [
        {"minute": 0.25, "seconds": pytest.approx(15, abs=0.08)},
        {"minute": 0.75, "seconds": pytest.approx(45, abs=0.08)},
    ]


def test_an_answer_that_is_cut_off_is_compared_apart(cuts):
    """The oracle gets all right: two whole answers and one cut off in each conversation."""
    outcome = run_conversations(Oracle(cuts), cuts[:1], energy_vad)[0]
    assert COMPARED["exact_match"](score(outcome)) == (2, 2) and COMPARED["exact_match_cut_off"](score(outcome)) == (1, 1)
    assert COMPARED["false_alarm_rate"](score(outcome)) == (0, 3)


def test_costs_are_milliseconds_per_frame_minute_by_minute():
    """A push of two frames in 40 ms of the clock and 20 ms of CPU, and one frame in 10 ms in the next minute."""
    log = SessionLog()
    listener = _AgentListener(log, energy_vad, 22050)
    frames = [SimpleNamespace(token=0, audio=np.zeros(SAMPLES, np.float32))] * 2
    listener.take(frames, 0.040, 0.020, at=59.9)
    listener.take([], 1.0, 1.0, at=59.95)
    listener.take(frames[:1], 0.010, 0.006, at=60.0)
    listener.take(frames[:1], 0.030, 0.008, at=61.0)
    assert _cost_by_minute(log) == [
        {"minute": 1, "cpu_mean": 10, "p50": 20, "p99": 20, "max": 20},
        {"minute": 2, "cpu_mean": 7, "p50": 20, "p99": pytest.approx(29.8), "max": 30},
    ]
    assert log.tokens == [0] * 4


def test_a_transcript_that_lost_a_turn_is_found(cuts):
    playlist = Playlist.of(cuts, minutes=1.0, compared=0.2)
    agent = LongOracle(playlist)
    heard = play(agent, playlist, energy_vad, memory_at=(1,))
    agent._script._turns.pop(0)
    heard.transcript = agent.transcript
    assert soak_report(agent, playlist, heard)["transcript"]["complete"] is False


@pytest.mark.slow
@pytest.mark.parametrize("window", [16, None], ids=["window of 16 frames", "128 positions"])
def test_half_a_minute_of_a_real_session_takes_no_memory(cuts, tmp_path, window):
    model = tiny_model(tmp_path, attention_window=window)
    turns = (Turn("user", 1.0, 2.5, "What is the day?"), Turn("agent", 3.2, 5.6, "It is two."))
    short = [cut_of(Conversation(cut.id, 8.0, turns)) for cut in cuts]
    playlist = Playlist.of(short, minutes=0.35, compared=0.1)
    heard = play(model, playlist, energy_vad, memory_at=(0.12, 0.25, 0.38))
    assert len(heard.tokens) == pytest.approx(playlist.duration / 0.08, abs=2)
    assert len({mark["tensors_mb"] for mark in heard.memory}) == 1, heard.memory
    found = soak_report(model, playlist, heard)
    assert found["transcript"]["complete"] and found["transcript"]["turns"] > 0
    assert found["cost"][0]["cpu_mean"] > 0
