"""The picture says what happened, on a time axis that is true, beside what should have happened."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread

from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.generation import run_conversations
from nemo_duplex.evaluation.picture import conversation_figure, write_png
from nemo_duplex.evaluation.predictions import file_name
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


def drawn(figure):
    """Of every filled area: its colour, and the (x, y) of its outline."""
    areas = figure.axes[0].collections
    return [(to_hex(a.get_facecolor()[0]), p.vertices) for a in areas if len(a.get_facecolor()) for p in a.get_paths()]


def test_each_voice_is_drawn_in_its_lane_where_it_speaks(cuts):
    """User from 1 to 2.5 s, agent from 3.2 to 5.6 s, and the same of the reference."""
    figure = conversation_figure(scored(Oracle(cuts), cuts[0]))
    middle = {label.get_text(): y for label, y in zip(figure.axes[0].get_yticklabels(), figure.axes[0].get_yticks())}
    waves = [(color, outline) for color, outline in drawn(figure) if len(outline) > 1000]
    assert [color for color, _ in waves] == ["#2563c9", "#c2570c", "#7c8594"]
    for (_, outline), name, start, end in zip(waves, ("user", "agent", "reference"), (1.0, 3.2, 3.2), (2.5, 5.6, 5.6)):
        x, y = outline.T
        tall = np.abs(y - middle[name]) > 0.1
        assert (x.min(), x.max()) == pytest.approx((0, 16), abs=0.02), name
        assert x[tall].min() == pytest.approx(start, abs=0.05), name
        assert not ((x > end + 0.1) & (x < end + 0.5) & tall).any(), name
    boxes = [(outline.T[0].min(), outline.T[0].max()) for _, outline in drawn(figure) if 4 <= len(outline) < 12]
    for span in ((1.0, 2.5), (5.0, 6.4), (9.5, 11.0)):
        assert any(box == pytest.approx(span, abs=0.01) for box in boxes), span
    for span in ((3.2, 5.6), (7.04, 8.64), (11.68, 13.6)):  # of the agent, and of the reference
        assert sum(box == pytest.approx(span, abs=0.03) for box in boxes) == 2, span


def test_the_text_channel_is_a_cell_per_token(cuts):
    figure = conversation_figure(scored(Oracle(cuts), cuts[0]))
    cells = [(c, o.T[0].min(), o.T[0].max()) for c, o in drawn(figure) if 4 <= len(o) < 12 and abs(o.T[1].mean() + 1.72) < 0.05]
    assert [(round(a, 2), round(b - a, 3)) for c, a, b in cells if c == "#15803d"] == [(t, 0.064) for t in (3.04, 6.88, 11.52)]
    assert sum(c == "#c2570c" for c, *_ in cells) == 4 + 3 + 2 and sum(c == "#b91c1c" for c, *_ in cells) == 3


def test_a_barge_in_is_drawn_from_the_users_onset_to_the_stop(cuts):
    figure = conversation_figure(scored(Oracle(cuts), cuts[0]))
    bars = [line.get_xdata() for line in figure.axes[0].lines if line.get_linewidth() == 4]
    assert [list(bar) for bar in bars] == [pytest.approx([5.0, 5.6], abs=0.03)]
    assert figure.axes[0].get_title(loc="left") == "d0"


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


@pytest.mark.parametrize(
    ("conversation", "name"),
    [
        ("dev-0-0000007", "dev-0-0000007"),
        ("../../away/d 0", "_.._away_d_0"),
        ("दिन", "दिन"),
        ("दीन", "दीन"),
        ("c:d\x00é_", "c_d_é_"),
    ],
)
def test_an_id_names_a_file_of_its_own(conversation, name):
    assert file_name(conversation) == name
