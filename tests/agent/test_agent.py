"""What must hold of an agent that `make demo` has trained, whatever it has learnt to say."""

import numpy as np
import pytest
import torch

from nemo_duplex.evaluation.activity import voice_activity
from nemo_duplex.evaluation.controls.baseline import lengths_of_answers
from nemo_duplex.evaluation.controls.control_experiments import control_experiments
from nemo_duplex.evaluation.endurance import soak_report, soak_table
from nemo_duplex.evaluation.generation import run_conversations
from nemo_duplex.evaluation.long_session import Playlist, play
from nemo_duplex.evaluation.scores import score


@pytest.mark.parametrize("chunks", [[1280], [1, 7, 1279, 333, 2048, 20000]], ids=["80 ms", "odd chunks"])
def test_a_session_equals_offline_inference(agent, sets, chunks):
    for cut in (sets["dev"][0], sets["impatient"][1]):
        user = torch.from_numpy(cut.load_audio()[0])[: 16000 * 15 + 77]
        whole = agent.offline_inference(user[None], torch.tensor([len(user)]))
        session, frames, start, i = agent.open_session(), [], 0, 0
        while start < len(user):
            size = chunks[i % len(chunks)]
            frames += session.push(user[start : start + size].numpy())
            start, i = start + size, i + 1
        frames += session.flush()
        assert [f.token for f in frames] == whole["tokens_text"][0].tolist()
        assert np.array_equal(np.stack([f.codes for f in frames]), whole["tokens_audio"][0].numpy())
        assert np.abs(np.concatenate([f.audio for f in frames]) - whole["audio"][0].numpy()).max() < 1e-4
        assert np.abs(whole["audio"].numpy()).max() > 0.05, "An agent that says nothing would prove nothing."


def test_it_is_the_users_voice_that_starts_and_stops_it(agent, sets):
    """Noise alone and a minute of silence: not a word. The interrupter muted: the answer is finished."""
    cuts = [*sets["impatient"], *sets["dev"]]  # how long an answer takes is known from dev
    rows = [score(outcome) for outcome in run_conversations(agent, cuts, voice_activity("energy"))]
    found = control_experiments(agent, rows, lengths_of_answers(r.outcome.conversation for r in rows), most=5)
    assert [c.name for c in found[:2]] == ["noise alone", "silence"]
    muted = found[2:]
    assert len(muted) >= 3, "Too few of these conversations have a barge-in that cuts an answer off."
    assert not [c.detail for c in found if not c.passed]


@pytest.mark.slow
def test_a_quarter_of_an_hour_changes_nothing(agent, sets):
    """`make soak` takes the whole hour. The same conversations at both ends; two of three minutes lie between them."""
    playlist = Playlist.of([*sets["dev"], *sets["impatient"]], minutes=15.0, compared=2.5)
    heard = play(agent, playlist, voice_activity("energy"), memory_at=(2.5, 7.5, 15.0))
    found = soak_report(agent, playlist, heard)
    for metric in ("success_rate", "first_response_latency", "exact_match"):
        assert found["difference"][metric]["within_noise"], soak_table(found)
    assert found["first"]["answers"]["all"]["value"] > 0.3, "An agent that knows nothing cannot forget anything."
    assert found["transcript"]["complete"] and found["transcript"]["turns"] > 60
    assert len({mark["tensors_mb"] for mark in found["memory"]}) == 1
    early, late = (np.median([row["cpu_mean"] for row in rows]) for rows in (found["cost"][:5], found["cost"][-6:-1]))
    assert late < 1.25 * early, "Other processes move this by a tenth; what grows with the session would by more."
