import re
from xml.etree import ElementTree

import numpy as np
import pytest

from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.generation import run_conversations
from nemo_duplex.evaluation.scores import score
from nemo_duplex.evaluation.timeline import annotations_of, envelope, timeline_svg, wrapped
from tests.evaluation.agents import Oracle, Talker


@pytest.fixture(scope="module")
def scored(cuts):
    return score(run_conversations(Oracle(cuts), cuts[:1], energy_vad)[0])


def test_events_are_marked_in_order(scored, cuts):
    kinds = [(m.kind, m.label) for m in annotations_of(scored)]
    assert [k for k, _ in kinds] == ["response", "success", "response", "response"]
    assert re.fullmatch(r"stops 0\.(59|60|61) s", kinds[1][1])
    failed = score(run_conversations(Talker(), cuts[:1], energy_vad)[0])
    assert [(m.kind, m.label) for m in annotations_of(failed)] == [("failure", "goes on")] * 3


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


def test_text_is_wrapped_and_shortened():
    assert wrapped("one two three four", 9, 3) == ["one two", "three", "four"]
    assert wrapped("one two three four five", 9, 2) == ["one two", "three…"]
    assert wrapped("", 9, 2) == []
    assert wrapped("incomprehensibilities", 9, 1) == ["incomprehensibilities"]


def test_an_envelope_keeps_the_peaks_where_they_are():
    audio = np.zeros(1000, np.int16)
    audio[501] = -8000
    levels = envelope(audio, 10)
    assert levels.argmax() == 5 and levels[5] == 1 and levels.sum() == 1
    assert envelope(np.zeros(0), 4).tolist() == [0, 0, 0, 0]
