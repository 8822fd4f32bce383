"""What a model did is kept conversation by conversation: a killed evaluation goes on, and anyone can score the folder again."""

import json

import numpy as np
import pytest
import soundfile

from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.generation import play_into, run_conversations
from nemo_duplex.evaluation.predictions import Predictions, file_name, unique_file_name
from nemo_duplex.evaluation.scores import score
from nemo_duplex.inputs import InputError
from tests.evaluation.agents import Oracle, Silent, cut_of, dialogue


class Counting(Oracle):
    """An oracle that remembers how many conversations it was asked for, and may be killed."""

    def __init__(self, cuts, dies_after=None):
        super().__init__(cuts)
        self.played, self.dies_after = 0, dies_after

    def does(self, user):
        if self.played == self.dies_after:
            raise KeyboardInterrupt
        self.played += 1
        return super().does(user)


def played(folder, agent, cuts, model="m1", **options):
    return play_into(Predictions(folder, "dev", model, **options), agent, cuts, energy_vad, batch_size=1)


def numbers(outcomes):
    return [score(outcome).as_dict() for outcome in outcomes]


def test_what_is_on_disk_scores_as_what_was_played(cuts, tmp_path):
    agent = Counting(cuts)
    first = played(tmp_path / "dev", agent, cuts)
    again = played(tmp_path / "dev", agent, cuts)
    assert agent.played == len(cuts) and numbers(again) == numbers(first) == numbers(run_conversations(agent, cuts, energy_vad))
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one.agent_sound.samples(), other.agent_sound.samples())
        assert np.array_equal(one.user_sound.samples(), other.user_sound.samples())
        assert np.array_equal(one.reference_sound.samples(), other.reference_sound.samples())


def test_a_killed_evaluation_goes_on_where_it_was(cuts, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        played(tmp_path / "dev", Counting(cuts, dies_after=2), cuts)
    for name in ("conversations.jsonl", "played.jsonl"):  # as a kill in the middle of a write leaves it
        with (tmp_path / "dev" / name).open("a") as file:
            file.write('{"id": "d2", "se')
    agent = Counting(cuts)
    outcomes = played(tmp_path / "dev", agent, cuts)
    assert agent.played == len(cuts) - 2 and [o.id for o in outcomes] == [c.id for c in cuts]
    rows = [json.loads(line) for line in (tmp_path / "dev" / "conversations.jsonl").read_text().splitlines()]
    assert sorted(row["id"] for row in rows) == sorted(cut.id for cut in cuts)


def test_another_model_is_refused_unless_it_may_replace(cuts, tmp_path):
    played(tmp_path / "dev", Silent(), cuts)
    with pytest.raises(InputError, match="out: .*dev holds predictions of another model .*give overwrite=true"):
        played(tmp_path / "dev", Oracle(cuts), cuts, model="m2")
    replaced = played(tmp_path / "dev", Oracle(cuts), cuts, model="m2", overwrite=True)
    assert all(outcome.speech for outcome in replaced)


def test_a_conversation_that_has_changed_is_played_again(cuts, tmp_path):
    played(tmp_path / "dev", Counting(cuts), cuts)
    changed = [cut_of(dialogue("d0", shift=0.8)), *cuts[1:]]
    agent = Counting(changed)
    outcomes = played(tmp_path / "dev", agent, changed)
    assert agent.played == 1 and outcomes[0].user[0][0] == pytest.approx(1.8)


def test_a_model_without_a_name_is_never_taken_up_again(cuts, tmp_path):
    played(tmp_path / "dev", Silent(), cuts, model=None)
    agent = Counting(cuts)
    played(tmp_path / "dev", agent, cuts, model=None)
    assert agent.played == len(cuts)


def test_a_sound_that_is_gone_is_made_again(cuts, tmp_path):
    played(tmp_path / "dev", Counting(cuts), cuts)
    (tmp_path / "dev" / "audio" / "d1-agent.flac").unlink()
    agent = Counting(cuts)
    played(tmp_path / "dev", agent, cuts)
    assert agent.played == 1 and (tmp_path / "dev" / "audio" / "d1-agent.flac").exists()


def test_ids_that_are_no_file_names_do_not_share_a_file(tmp_path):
    odd = [cut_of(dialogue("a/b")), cut_of(dialogue("a b", shift=0.8))]
    agent = Oracle(odd)
    first = played(tmp_path / "dev", agent, odd)
    again = played(tmp_path / "dev", agent, odd)
    assert numbers(first) == numbers(again) and len(list((tmp_path / "dev" / "audio").glob("*-agent.flac"))) == 2
    assert file_name("a/b") == file_name("a b")


def test_fewer_conversations_lose_nothing(cuts, tmp_path):
    played(tmp_path / "dev", Counting(cuts), cuts)
    agent = Counting(cuts)
    assert [o.id for o in played(tmp_path / "dev", agent, cuts[1:2])] == ["d1"]
    assert [o.id for o in played(tmp_path / "dev", agent, cuts)] == ["d0", "d1", "d2"] and agent.played == 0


def test_names_of_files_are_short_and_unique():
    assert file_name("語" * 200) == "語" * 50 and unique_file_name("dev") == "dev"
    assert len({unique_file_name(name) for name in ("語" * 200, "語" * 201, ".", "..", "a/b", "a b", "a_b")}) == 7
    assert unique_file_name("."), "a set of this name has a folder of its own"


@pytest.mark.parametrize("damage", ["sound", "row", "played"])
def test_what_is_damaged_is_played_again(cuts, tmp_path, damage):
    played(tmp_path, Counting(cuts), cuts)
    sound, rows, names = (tmp_path / "audio" / "d1-agent.flac", tmp_path / "conversations.jsonl", tmp_path / "played.jsonl")
    if damage == "sound":
        soundfile.write(sound, soundfile.read(sound)[0][:8000], 24000)
    elif damage == "row":
        rows.write_text(rows.read_text().replace(', "agent_audio": "audio/d1-agent.flac"', ""))
    else:
        names.write_text("".join(line for line in names.open() if '"d1"' not in line) + '{"id": "d1"}\n{"id": [1]}\n')
    agent = Counting(cuts)
    outcomes = played(tmp_path, agent, cuts)
    assert agent.played == 1 and numbers(outcomes) == numbers(run_conversations(agent, cuts, energy_vad))
