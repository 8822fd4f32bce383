"""The Impatient form of any set, by one key."""

import pytest

from nemo_duplex.conversation import Conversation
from nemo_duplex.evaluation.sets import impatient_sets
from nemo_duplex.inputs import InputError
from tests.evaluation.agents import write_set


def test_any_set_has_an_impatient_form(cuts, tmp_path):
    """Silence between user turns is halved, and what the agent should say is kept as references."""
    write_set(tmp_path / "corpus" / "dev" / "shar", cuts)
    found = impatient_sets(tmp_path / "corpus", ["dev"], tmp_path / "impatient", limit=2)
    assert list(found) == ["dev-impatient"] and len(found["dev-impatient"]) == 2
    before, after = Conversation.from_cut(cuts[0]).user, Conversation.from_cut(found["dev-impatient"][0]).user
    for one, other in ((0, 1), (1, 2)):
        silence = before[other].start - before[one].end
        assert after[other].start - after[one].end == pytest.approx(silence / 2, abs=0.01)
    references = found["dev-impatient"][0].custom["references"]
    assert [texts if isinstance(texts, str) else texts[0] for texts in references] == [
        *("the capital of France is Paris", "it is Madrid", "a word")
    ]
    again = impatient_sets(tmp_path / "corpus", ["dev"], tmp_path / "impatient")
    assert len(again["dev-impatient"]) == 3, "a set that is there is read"


def test_a_set_of_another_corpus_is_written_again_where_it_may_be(cuts, tmp_path):
    for name, of in (("before", cuts), ("after", cuts[:1])):
        write_set(tmp_path / name / "dev" / "shar", of)
    impatient_sets(tmp_path / "before", ["dev"], tmp_path / "impatient")
    with pytest.raises(InputError, match="or make it again with overwrite=true"):
        impatient_sets(tmp_path / "after", ["dev"], tmp_path / "impatient")
    again = impatient_sets(tmp_path / "after", ["dev"], tmp_path / "impatient", overwrite=True)
    assert [cut.id for cut in again["dev-impatient"]] == ["d0-impatient"]


def test_a_set_that_is_not_there_is_named(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "notes.txt").touch()
    with pytest.raises(InputError, match="set 'dev': there is no folder"):
        impatient_sets(tmp_path / "corpus", ["dev"], tmp_path / "impatient")
