"""A conversation that a trained agent had in a busy engine is had again, alone, to the bit."""

import numpy as np
import pytest
import torch

from nemo_duplex.streaming.recording.replay import AROUND, replay
from nemo_duplex.streaming.recording.replay_drawing import drawing, verdict


@pytest.fixture(scope="module")
def recorded(agent, sets, tmp_path_factory):
    """Eight callers of the corpus, of different age, one of whom chooses by chance; they join and leave one by one."""
    folder, engine = tmp_path_factory.mktemp("recorded"), agent.open_engine(max_sessions=8)
    calls = [cut.load_audio()[0][: 16000 * 8] for cut in (sets["dev"] + sets["impatient"])[:8]]
    sessions, at = [], [0] * 8
    for step in range(8 * 5 + 100):
        if step % 5 == 0 and len(sessions) < 8:
            options = {"sampling": {"text": {"temperature": 0.6}, "speech": {"temperature": 0.6}}} if len(sessions) == 3 else {}
            sessions.append(engine.open_session(record=folder / str(len(sessions)), **options))
        for i, session in enumerate(sessions):
            if at[i] < len(calls[i]):
                session.push(calls[i][at[i] : at[i] + 1280])
                at[i] += 1280
                if at[i] >= len(calls[i]):
                    session.flush()
        engine.step()
    engine.run_until_idle()
    for session in sessions:
        session.close()
        assert session.recorder.wait(60)
    return folder


@pytest.mark.parametrize("caller", [3, 7])
def test_a_caller_of_a_busy_engine_is_replayed_alone(agent, recorded, caller):
    result = replay(recorded / str(caller), agent)
    assert result.identical and result.environment == [], "\n".join([*verdict(result), *drawing(result, agent)])
    assert max(result.recording.steps["rows"]) == 8
    codes = result.recording.codes
    assert (codes < agent.layout.codebook_size).all(1).sum() > 10, "An agent that says nothing would prove nothing."


def test_one_weight_that_changed_is_found(agent, recorded):
    """The agent forgets what BOS means: up to its first turn nothing changes."""
    embeddings = agent.lm.backbone.embed_tokens.weight
    before = embeddings.detach().clone()
    try:
        with torch.no_grad():
            embeddings[agent.layout.text_bos] = 0
        result = replay(recorded / "0", agent)
    finally:
        with torch.no_grad():
            embeddings.copy_(before)
    assert not result.identical
    assert result.frame > result.recording.tokens.tolist().index(agent.layout.text_bos)
    old, new = next(pair for pair in result.around if pair.recorded.index == result.frame)
    assert old.token != new.token or not np.array_equal(old.codes, new.codes)
    said = [*verdict(result), "", *drawing(result, agent)]
    print("\n".join(said))
    (marked,) = [line for line in said if line.startswith(">")]
    assert int(marked.split()[1]) == result.frame
    sooner = said[said.index("") + 2 : said.index(marked)]
    assert len(sooner) == min(AROUND, result.frame) and all(line.split()[-3:] == ["=", "=", "="] for line in sooner)
    assert any(line.startswith("not as recorded: model hash ") for line in said)
