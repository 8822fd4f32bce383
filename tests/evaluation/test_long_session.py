"""Many conversations in one session: what is played, and what is noted of it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nemo_duplex.channels.transcript import Transcript
from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.endurance import score_session, soak_report, soak_table
from nemo_duplex.evaluation.generation import run_conversations
from nemo_duplex.evaluation.long_session import Playlist, play
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
    with pytest.raises(InputError, match=r"^compared=1: [^\n]*Choose less than 1\.$"):
        Playlist.of(cuts, minutes=2.0, compared=1.0)


def test_every_conversation_is_judged_as_if_it_were_alone(cuts):
    playlist = Playlist.of(cuts, minutes=2.0, compared=0.5)
    agent = LongOracle(playlist)
    heard = play(agent, playlist, energy_vad)
    assert [p.cut.id for p in heard.played] == [cut.id for cut in playlist]
    for together, cut in zip(score_session(heard), playlist, strict=True):
        alone = score(run_conversations(Oracle(cuts), [cut], energy_vad)[0])
        assert together.turn_taking == alone.turn_taking
        assert [(a.text, a.verdict) for a in together.answers] == [(a.text, a.verdict) for a in alone.answers]
        assert len(alone.turn_taking.successes) == 1 and alone.answers[1].verdict == "right"


def test_an_agent_that_stays_the_same_is_found_to_and_one_that_falls_silent_is_not(cuts):
    playlist = Playlist.of(cuts, minutes=4.0, compared=1.0)
    steady, tired = LongOracle(playlist), LongOracle(playlist, until=120.0)
    same = soak_report(steady, playlist, play(steady, playlist, energy_vad, memory_at=(1, 4)))
    assert {d["within_noise"] for d in same["difference"].values()} == {True}
    assert same["transcript"] == {"turns": 45, "written": 45, "complete": True}
    assert "CHANGED" not in soak_table(same) and "complete" in soak_table(same)
    worse = soak_report(tired, playlist, play(tired, playlist, energy_vad, memory_at=(1, 4)))
    assert worse["difference"]["exact_match"]["value"] == -1 and not worse["difference"]["exact_match"]["within_noise"]
    assert worse["difference"]["response_missing_rate"]["ci95"] == (1.0, 1.0)
    assert worse["difference"]["mean_stop_latency"]["value"] is None, "There was nobody to interrupt."
    assert "CHANGED" in soak_table(worse)


def test_a_transcript_that_lost_a_turn_is_found(cuts):
    playlist = Playlist.of(cuts, minutes=1.0, compared=0.2)
    agent = LongOracle(playlist)
    heard = play(agent, playlist, energy_vad, memory_at=(1,))
    agent._script._turns.pop(0)
    heard.transcript = agent.transcript
    assert soak_report(agent, playlist, heard)["transcript"]["complete"] is False


@pytest.mark.slow
@pytest.mark.parametrize("window", [16, None], ids=["window of 16 frames", "128 positions"])
def test_most_of_a_minute_of_a_real_session_takes_no_memory(cuts, tmp_path, window):
    model = tiny_model(tmp_path, attention_window=window)
    playlist = Playlist.of(cuts, minutes=0.7, compared=0.2)
    heard = play(model, playlist, energy_vad, memory_at=(0.2, 0.4, 0.7))
    assert len(heard.tokens) == pytest.approx(playlist.duration / 0.08, abs=2)
    assert len({mark["tensors_mb"] for mark in heard.memory}) == 1, heard.memory
    found = soak_report(model, playlist, heard)
    assert found["transcript"]["complete"] and found["transcript"]["turns"] > 0
    assert found["cost"][0]["cpu_mean"] > 0
