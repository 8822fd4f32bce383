"""The picture in the report, to scale: what is drawn, where, in which lane."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from pytest import approx

from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.generation import run_conversations
from nemo_duplex.evaluation.report.timeline import annotations_of, timeline_svg
from nemo_duplex.evaluation.scores import score
from nemo_duplex.evaluation.sound import Samples
from nemo_duplex.evaluation.turn_taking import Rules, measure
from tests.evaluation.agents import Oracle, Talker
from tests.evaluation.outcomes import FIRST, outcome


@pytest.fixture(scope="module")
def scored(cuts):
    return score(run_conversations(Oracle(cuts), cuts[:1], energy_vad)[0])


def test_events_are_marked_in_order(scored, cuts):
    kinds = [(m.kind, m.label) for m in annotations_of(scored)]
    assert [k for k, _ in kinds] == ["response", "success", "response", "response"]
    assert re.fullmatch(r"stops 0\.(59|60|61) s", kinds[1][1])
    failed = score(run_conversations(Talker(), cuts[:1], energy_vad)[0])
    # Interrupted by all three questions, and 1.5 s are drawn of what goes on; the last one has 11 to 16 s of it.
    assert [(m.kind, m.label, m.end - m.start) for m in annotations_of(failed)] == [("failure", "goes on", approx(1.5))] * 3


def test_every_kind_of_event_stands_at_its_time():
    """Answered after 0.6 s; stops 0.5 s after the interruption; false alarm; an excused onset has no gap; cut off."""
    taken = measure([(1, 3), (6, 10), (12, 14), (17.5, 18)], [(3.6, 6.5), (8, 9), (13.95, 15), (16, 18)], 18, Rules())
    notes = annotations_of(replace(score(FIRST), turn_taking=taken))
    assert [(m.kind, m.start, m.end, m.label) for m in notes] == [
        ("response", 3, approx(3.6), "0.60 s"),
        ("success", 6, approx(6.5), "stops 0.50 s"),
        ("alarm", 8, 8, "false alarm"),
        ("censored", 17.5, approx(18.0), "cut off"),
    ]


def test_each_voice_is_drawn_in_its_lane_where_it_speaks(scored):
    """The user speaks from 1 to 2.5 s, the agent from 3.2 to 5.6 s: there the waveforms are tall."""
    picture = ElementTree.fromstring(timeline_svg(scored))
    scale, left = float(picture.get("data-scale")), float(picture.get("data-left"))
    for name, start, end in (("user", 1.1, 2.4), ("agent", 3.3, 4.9)):
        wave = next(p for p in picture.iter("polygon") if p.get("class") == f"wave {name}")
        points = [tuple(map(float, pair.split(","))) for pair in wave.get("points").split()]
        inside = [y for x, y in points if left + scale * start < x < left + scale * end]
        other = [y for x, y in points if x < left + scale * 0.9]
        assert max(inside) - min(inside) > 30 and max(other) - min(other) < 2, name
        spans = [r for r in picture.iter("rect") if r.get("class") == f"span {name}"]
        expected = {"user": (1.0, 1.5), "agent": (3.2, 2.4)}[name]
        assert (float(spans[0].get("x")) - left) / scale == approx(expected[0], abs=0.03)
        assert float(spans[0].get("width")) / scale == approx(expected[1], abs=0.05)
    assert [t.text for t in picture.iter("text") if t.get("class") == "tick"] == [f"{second} s" for second in range(17)]


def test_the_picture_is_well_formed_and_says_what_was_said(scored):
    picture = ElementTree.fromstring(timeline_svg(scored))
    spoken = [t.findtext("title") for t in picture.iter("text") if t.get("class", "").startswith("said")]
    assert "What is the capital of France?" in spoken and "it is Madrid" in spoken
    verdicts = [t.text for t in picture.iter("text") if t.get("class") == "verdict"]
    assert len(verdicts) == 1
    scale, left = float(picture.get("data-scale")), float(picture.get("data-left"))
    spans = [float(r.get("x")) for r in picture.iter("rect") if r.get("class") == "span user"]
    assert spans == pytest.approx([left + scale * t for t in (1.0, 5.0, 9.5)], abs=0.1)


def test_text_from_a_corpus_cannot_break_the_page(cuts):
    from dataclasses import replace

    outcome = run_conversations(Oracle(cuts), cuts[:1], energy_vad)[0]
    evil = replace(outcome, agent=tuple(replace(t, text='</svg><script>alert("1")</script>') for t in outcome.agent))
    picture = timeline_svg(score(evil))
    assert "<script>" not in picture and ElementTree.fromstring(picture) is not None


def test_pauses_and_sounds_are_lines_over_the_user_with_their_verdict():
    from tests.evaluation.report.test_events import labelled

    one = labelled([(1.6, 3.5), (4.6, 8.0)], [("cough", 6.0, 6.5)], [(1.5, 2.25)], duration=10.0)
    picture = ElementTree.fromstring(timeline_svg(one))
    scale, left = float(picture.get("data-scale")), float(picture.get("data-left"))
    lines = [r for r in picture.iter("rect") if r.get("class", "").startswith("sound")]
    assert [(r.get("class"), r.findtext("title")) for r in lines] == [
        ("sound bad", "pause: took over"),
        ("sound good", "cough: went on"),
    ]
    assert [(float(r.get("x")) - left) / scale for r in lines] == approx([1.5, 6.0], abs=0.01)
    assert [float(r.get("width")) / scale for r in lines] == approx([0.75, 0.5], abs=0.01)
    assert ("alarm", 1.5, "took over in a pause") in [(m.kind, m.start, m.label) for m in annotations_of(one)]


def test_a_long_conversation_is_drawn_as_far_as_asked(scored):
    picture = ElementTree.fromstring(timeline_svg(scored, 4.0))
    scale, left = float(picture.get("data-scale")), float(picture.get("data-left"))
    assert [t.text for t in picture.iter("text") if t.get("class") == "tick"] == [f"{second} s" for second in range(5)]
    spans = [r for r in picture.iter("rect") if r.get("class", "").startswith(("span", "tokens"))]
    ends = [(float(r.get("x")) + float(r.get("width")) - left) / scale for r in spans]
    assert len(ends) == 3 and max(ends) == approx(4.0, abs=0.01), "the agent speaks until 5.6 s"
    assert not [t for t in picture.iter("text") if t.get("class") == "verdict"], "the barge-in comes at 5 s"
    whole = ElementTree.fromstring(timeline_svg(scored)).find("polygon[@class='wave user']").get("points").split()
    cut = picture.find("polygon[@class='wave user']").get("points").split()
    assert [p.split(",")[0] for p in cut[:100]] == [p.split(",")[0] for p in whole[:100]] and len(cut) < len(whole) / 3


def test_a_sound_that_ends_early_is_silent_then_and_not_stretched():
    talk = outcome("short", 10.0, [(1, 2, None)], [(3, 4)], user_sound=Samples.of(np.full(4 * 1000, 0.5), 1000))
    picture = ElementTree.fromstring(timeline_svg(score(talk)))
    scale, left = float(picture.get("data-scale")), float(picture.get("data-left"))
    points = picture.find("polygon[@class='wave user']").get("points").split()
    upper = [tuple(map(float, point.split(","))) for point in points[: len(points) // 2]]
    middle = max(y for _, y in upper)
    loud = [(x - left) / scale for x, y in upper if middle - y > 5]
    assert (min(loud), max(loud)) == (approx(0, abs=0.05), approx(4.0, abs=0.05))
