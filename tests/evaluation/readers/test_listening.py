"""What files hold is heard: spans, lengths, turns of the user; in one process or several."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.readers.conversation_rows import outcome_of
from nemo_duplex.evaluation.readers.listening import listen_all, listened
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import InputError
from tests.evaluation.readers.voices import later, voice

USER, AGENT = [(1.0, 3.0), (7.0, 9.0)], [(3.5, 6.0), (9.6, 11.0)]
TURNS = [{"start": start, "end": end, "text": "Hello?"} for start, end in USER]


@pytest.fixture
def row(tmp_path):
    soundfile.write(tmp_path / "user.flac", voice(USER, 12.0, 16000, 1), 16000)
    soundfile.write(tmp_path / "agent.wav", voice(AGENT, 12.0, 22050, 2), 22050)
    return {"id": "a", "user_audio": "user.flac", "agent_audio": "agent.wav", "user_turns": TURNS}


def hear(row, folder, pad=False):
    return listened(outcome_of(row, folder), energy_vad, pad)


def about(spans):
    return pytest.approx(np.asarray(spans), abs=0.03)


def test_speech_of_the_agent_is_found_and_the_users_turns_are_the_manifests(row, tmp_path):
    outcome = hear(row, tmp_path)
    assert np.asarray(outcome.speech) == about(AGENT)
    assert outcome.user == USER
    assert outcome.conversation.custom["channels"] == {"user_leak_db": None, "leak_delay": None, "warnings": []}
    assert "user_turns_from" not in outcome.conversation.custom


def test_user_turns_are_found_where_nobody_wrote_them_down(row, tmp_path):
    """Pauses of half a second do not end a turn."""
    del row["user_turns"]
    paused = [(1.0, 2.0), (2.4, 3.0), (7.0, 8.0), (8.7, 9.0)]
    soundfile.write(tmp_path / "user.flac", voice(paused, 12.0, 16000, 1), 16000)
    outcome = hear(row, tmp_path)
    assert np.asarray(outcome.user) == about([(1.0, 3.0), (7.0, 8.0), (8.7, 9.0)])
    assert outcome.conversation.custom["user_turns_from"] == "vad"
    assert [q.next_start for q in outcome.questions] == [*(start for start, _ in outcome.user[1:]), 12.0]


def test_two_channels_of_a_file_are_read_apart(row, tmp_path):
    both = np.stack([voice(USER, 12.0, 24000, 1), voice(AGENT, 12.0, 24000, 2)], axis=1)
    soundfile.write(tmp_path / "both.wav", both, 24000)
    outcome = hear({"id": "a", "audio": "both.wav"}, tmp_path)
    assert np.asarray(outcome.speech) == about(AGENT) and np.asarray(outcome.user) == about(USER)


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3"])
def test_what_a_lossy_format_adds_to_loud_sound_is_no_mistake_of_the_file(name, tmp_path):
    loud = 0.99 * np.sign(voice([(1.0, 3.0)], 6.0, 24000, 1)) * (np.arange(144000) % 60 < 50)
    quiet = voice([(3.5, 5.0)], 6.0, 24000, 2)
    soundfile.write(tmp_path / name, np.stack([quiet, loud], axis=1), 24000)
    assert np.abs(soundfile.read(tmp_path / name)[0]).max() > 1.05
    outcome = hear({"id": "a", "audio": name}, tmp_path)
    assert np.asarray(outcome.speech) == pytest.approx(np.asarray([(1.0, 3.0)]), abs=0.06)
    assert outcome.conversation.custom["channels"]["warnings"][0].startswith("The agent's channel is clipped")


def test_a_shorter_channel_is_padded_only_if_that_is_wanted(row, tmp_path):
    soundfile.write(tmp_path / "agent.wav", voice([*AGENT, (12.5, 14.0)], 15.0, 22050, 2), 22050)
    with pytest.raises(OddRow, match="channels of different lengths"):
        hear(row, tmp_path)
    outcome = hear(row, tmp_path, pad=True)
    assert outcome.duration == 15.0
    assert np.asarray(outcome.speech) == about([*AGENT, (12.5, 14.0)]), "nothing is cut off"
    assert outcome.questions[-1].next_start == 15.0
    soundfile.write(tmp_path / "agent.wav", voice(AGENT[:1], 7.0, 22050, 2), 22050)
    assert hear(row, tmp_path, pad=True).duration == 12.0


def test_the_user_in_the_agents_channel_is_said(row, tmp_path):
    agent = voice(AGENT, 12.0, 16000, 2) + later(voice(USER, 12.0, 16000, 1), 0.1, 16000, -20)
    soundfile.write(tmp_path / "agent.wav", agent, 16000)
    facts = hear(row, tmp_path).conversation.custom["channels"]
    assert facts["user_leak_db"] == pytest.approx(-20, abs=1)
    assert facts["warnings"] == ["The user is heard in the agent's channel, at -20 dB and 100 ms later."]


def test_swapped_channels_are_refused_by_either_ones_turns(row, tmp_path):
    swapped = row | {"user_audio": "agent.wav", "agent_audio": "user.flac"}
    with pytest.raises(OddRow, match="swapped channels"):
        hear(swapped, tmp_path)
    del swapped["user_turns"]
    hear(swapped, tmp_path)  # nobody says who is who
    with pytest.raises(OddRow, match="swapped channels"):
        hear(swapped | {"agent_turns": [{"start": start, "end": end} for start, end in AGENT]}, tmp_path)


def test_what_cannot_be_scored_is_refused(row, tmp_path):
    with pytest.raises(OddRow, match="no sound of the agent"):
        hear({key: value for key, value in row.items() if key != "agent_audio"}, tmp_path)
    without = {"id": "a", "agent_audio": "agent.wav"}
    with pytest.raises(OddRow, match="neither user turns nor the user's sound"):
        hear(without, tmp_path)
    assert np.asarray(hear(without | {"user_turns": TURNS}, tmp_path).speech) == about(AGENT)
    outcome = outcome_of(row, tmp_path)
    (tmp_path / "agent.wav").write_bytes((tmp_path / "agent.wav").read_bytes()[:30])
    with pytest.raises(OddRow, match=r"audio that cannot be read .*agent\.wav"):
        listened(outcome, energy_vad)


@pytest.mark.parametrize("workers", [1, 2])
def test_all_are_heard_in_their_order_and_odd_ones_are_returned(workers, row, tmp_path):
    soundfile.write(tmp_path / "short.wav", voice([], 3.0, 16000, 1), 16000)
    rows = [row | {"id": str(i), "agent_audio": "short.wav" if i == 3 else "agent.wav"} for i in range(9)]
    answers = list(listen_all((outcome_of(r, tmp_path) for r in rows), "energy", workers))
    assert [i for i, answer in enumerate(answers) if isinstance(answer, OddRow)] == [3]
    assert answers[3].reason == "channels of different lengths" and "pad=true" in answers[3].cure
    heard = [answer for answer in answers if not isinstance(answer, OddRow)]
    assert [outcome.id for outcome in heard] == [str(i) for i in range(9) if i != 3]
    assert all(outcome.speech == heard[0].speech for outcome in heard)
    padded = list(listen_all([outcome_of(rows[3], tmp_path)], "energy", workers, pad=True))
    assert padded[0].duration == 12.0 and padded[0].speech == ()


def test_a_detector_that_does_not_exist_is_one_line():
    with pytest.raises(InputError, match="vad=loud: there is no such"):
        list(listen_all([], "loud", 2))


def test_neither_torch_nor_lhotse_is_imported_to_score_files(row, tmp_path):
    (tmp_path / "conversations.jsonl").write_text(json.dumps(row))
    code = f"""
import sys
from nemo_duplex.evaluation.readers.outputs import open_outputs
from nemo_duplex.evaluation.scores import score, summary
opened = open_outputs({str(tmp_path)!r})
scored = [score(outcome) for vad in ("energy", "silero") for _, outcome in opened.listened(vad)]
assert len(scored) == 2
summary(scored)
print(sorted({{"torch", "lhotse", "nemo", "transformers"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
