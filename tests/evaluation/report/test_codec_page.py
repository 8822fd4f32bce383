"""The page of codecs: tables, utterances to hear, texts that are no markup; in Chromium, what its buttons do."""

import base64
import io
import json
import re

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from nemo_duplex.evaluation.report.codec_page import (
    HeardUtterance,
    choose_utterances,
    spectrogram_url,
    write_codecs_page,
)
from tests.browser import PHONE, chromium
from tests.evaluation.speech.sounds import tone

EVIL = "<b>tag</b> & 'quote'"


def entry(*each, value=0.5):
    return {"value": value, "n": 2, "ci95": (0.4, 0.6), "scorer": "scorer", "each": list(each)}


def a_report():
    codec = {"kbps": 0.6, "delay_ms": 1.0, "distillmos": entry(3.25, 4.5), "mel_distance": entry(0.5, 0.25)}
    codec |= {
        "cer": entry((1, 4), (0, 4)),
        "wer": entry((1, 1), (0, 1)),
        "stoi": {"value": None, "n": 0, "ci95": None} | {"not_run": EVIL},
    }
    original = {"kbps": None, "delay_ms": None, "cer": entry(None, (0, 4)), "distillmos": entry(4.0, None)}
    scores = {"distillmos": {"value": -0.5, "ci95": (-0.7, -0.3), "n": 9, "verdict": "worse"}}
    about = {"name": "scorer", "version": "1", "sha256": None, "comparable": False, "about": "a stub"}
    return {
        "data": "data",
        "utterances": 2,
        "seconds": 3.0,
        "left_out": {"silence alone": {"count": 3, "first": [EVIL]}},
        "codecs": {EVIL: {"file": "x.nemo"}},
        "rows": {"original": original, EVIL: codec},
        "differences": [{"first": "original", "second": EVIL, "scores": scores}],
        "voices": {"ann": {"utterances": 1, "rows": {"original": original, EVIL: codec}}},
        "scorers": {"scorer": about},
        "ids": [f"one {EVIL}", "two"],
        "texts": [EVIL, None],
        "heard": {"original": [None, "yes"], EVIL: ["", "no"]},
    }


def heard():
    return [
        HeardUtterance(i, {"original": (tone(1.5, 16000, 300), 16000), EVIL: (tone(1.5, 48000, 600), 48000)}) for i in (0, 1)
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "codecs.html"
    write_codecs_page(path, a_report(), heard())
    return path


def test_it_shows_every_number_reason_and_text_as_text(page):
    text = page.read_text()
    assert EVIL not in text and "&lt;b&gt;tag&lt;/b&gt;" in text
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r"(?s)<(style|script)>.*?</\1>", "", text)))
    assert "2 utterances, 3 s" in plain and "0.60 kbit/s" in plain and "4.54" in plain, "the paper's row"
    assert (
        "DistillMOS 3.25 · mel distance 0.500 · CER 25 %" in plain and "DistillMOS 4.50 · mel distance 0.250 · CER 0 %" in plain
    )
    assert "heard: nothing" in plain and "heard: no" in plain and plain.count("heard: ") == 3
    assert "-0.50 worse" in plain and "Not run: STOI: &lt;b&gt;" in plain and "3 × silence alone" in plain
    assert "ann, 1 utterance " in plain and "scorer 1: a stub" in plain
    sounds = re.findall(r'src="data:audio/flac;base64,([^"]+)"', text)
    read = [soundfile.read(io.BytesIO(base64.b64decode(one))) for one in sounds]
    assert [(len(samples), rate) for samples, rate in read] == [(24000, 16000), (36000, 24000)] * 2
    assert "http" not in re.sub(r"data:[^\"]+", "", text).replace("http://www.w3.org", ""), "it needs no other file"


def test_pictures_have_time_to_the_right_and_pitch_upwards():
    high = np.concatenate([0 * tone(1.0), tone(1.0, pitch=5000)])
    picture = imread(io.BytesIO(base64.b64decode(spectrogram_url(high, 16000, -1.5).split(",")[1])))
    bright = picture[..., :3].sum(2)
    assert picture.shape[:2] == (80, 126)
    rows, columns = np.unravel_index(bright.argmax(), bright.shape)
    assert rows < 25 and columns > 60 and bright[:, :55].max() < bright.max() / 4


def test_utterances_are_chosen_from_the_worst_to_the_best():
    report = {"ids": list("abcde"), "rows": {"original": {}, "x": {"mel_distance": entry(0.1, 0.5, None, 0.3, 0.2)}}}
    assert choose_utterances(report, 3) == [1, 4, 2] and choose_utterances(report, 9) == [1, 3, 4, 0, 2]
    assert choose_utterances(report, 1) == [1]
    report["rows"]["y"] = {"mel_distance": entry(0.9, 0.1, 0.1, 0.1, 0.1)}
    assert choose_utterances(report, 2)[0] == 0
    assert choose_utterances({"ids": ["a", "b"], "rows": {"original": {}}}, 1) == [0]


@pytest.mark.slow
def test_one_sound_plays_at_a_time_and_another_codec_goes_on_at_its_place(page):
    with chromium() as browser:
        browser.screen(1200, 900)
        browser.open(f"file://{page}")
        paused = "JSON.stringify([...document.querySelectorAll('audio')].map(a => a.paused))"
        browser.run(
            "document.querySelectorAll('audio').forEach(a => { a.playbackRate = 0.25; })"
        )  # so that none ends meanwhile
        browser.click(".play")
        browser.wait("document.querySelector('audio').currentTime > 0.3")
        browser.run("document.querySelector('.utterance').focus()")
        browser.run("document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: '2', bubbles: true}))")
        browser.wait("!document.querySelectorAll('audio')[1].paused")
        assert json.loads(browser.run(paused)) == [True, False, True, True]
        places = json.loads(browser.run("JSON.stringify([...document.querySelectorAll('audio')].map(a => a.currentTime))"))
        assert places[1] > places[0] - 0.1, "Chromium's clock may step back a little after a jump"
        assert browser.run("[...document.querySelectorAll('.voice.playing')].length") == 1
        browser.run("document.querySelectorAll('audio')[1].pause()")
        assert browser.troubles == []
        browser.screen(**PHONE)
        browser.open(f"file://{page}")
        assert browser.run("document.documentElement.scrollWidth") == 375, "nothing sticks out of a phone"
        assert {("button", "Play original"), ("button", f"Play {EVIL}")} <= set(browser.names())
        assert browser.troubles == []
