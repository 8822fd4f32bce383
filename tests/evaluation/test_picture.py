"""The picture says what happened, on a time axis that is true, beside what should have happened."""

import numpy as np
import pytest
from matplotlib.image import imread

from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.generation import run_conversations
from nemo_duplex.evaluation.picture import conversation_figure, write_png
from nemo_duplex.evaluation.scores import score
from tests.evaluation.agents import Oracle, Silent, Talker, cut_of, dialogue


def scored(agent, cut):
    return score(run_conversations(agent, [cut], energy_vad)[0])


def texts(figure):
    return [t.get_text() for t in figure.axes[0].texts]


def lanes(figure):
    return [label.get_text() for label in figure.axes[0].get_yticklabels()]


def test_it_shows_both_channels_the_verdicts_and_the_reference(cuts):
    figure = conversation_figure(scored(Oracle(cuts), cuts[0]), "step 7")
    assert lanes(figure) == ["user", "agent", "reference", "its text"]
    assert figure.axes[0].get_title(loc="left") == "step 7" and figure.axes[0].get_xlim() == (0, cuts[0].duration)
    said = texts(figure)
    assert "No, of Spain?" in said and any(t.startswith("stops 0.") for t in said)
    assert said.count("it is Madrid") == 2, "by the agent and by the corpus' own"


def test_entries_of_the_text_channel_stand_where_they_were_written(cuts):
    """The text leads: BOS stands two frames before the answer is heard."""
    written = scored(Oracle(cuts), cuts[0]).outcome.text_entries
    assert [round(w.time, 2) for w in written if w.kind == "bos"] == pytest.approx([3.2 - 0.16, 7.04 - 0.16, 11.68 - 0.16])
    # "the capital of France", "it is Madrid", "a word"
    assert [w.kind for w in written] == [
        *("bos", *["word"] * 4, "eos"),
        *("bos", *["word"] * 3, "eos"),
        "bos",
        "word",
        "word",
        "eos",
    ]
    assert written[1].time - written[0].time == pytest.approx(0.08)


def test_a_corpus_without_an_agent_has_no_reference():
    cut = cut_of(dialogue("impatient"), agent=False)
    cut.custom["references"] = ["one", "two", "three"]
    assert lanes(conversation_figure(scored(Silent(), cut))) == ["user", "agent", "its text"]


@pytest.mark.parametrize("agent", [Silent(), Talker()], ids=["silent", "talker"])
def test_agents_that_do_nothing_right_are_drawn_too(agent, cuts, tmp_path):
    write_png(tmp_path / "picture.png", scored(agent, cuts[0]))
    picture = imread(tmp_path / "picture.png")
    assert picture.shape[1] > 900 and len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 20
