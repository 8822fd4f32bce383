"""A call from the page, in Chromium, with an agent whose turns are known: it answers, is interrupted, what is kept is true."""

import re
import zipfile

import numpy as np
import pytest
import soundfile

from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.config import RecordingRules, ServerConfig
from tests.browser import PHONE, chromium, microphone
from tests.serving.answering import ANSWER, make_answering, serving
from tests.serving.conftest import UNHURRIED
from tests.serving.web.conftest import RATE, silence, voice

pytestmark = pytest.mark.slow


def downloaded(browser, folder, button, name):
    """Clicks a download button and gives the file."""
    browser.do("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.click(button)
    browser.until(lambda: (folder / name).exists() and not list(folder.glob("*.crdownload")))
    return folder / name


def seconds_of(text):
    minutes, seconds = text.split(":")
    return 60 * int(minutes) + int(seconds)


def loud(channel, rate):
    """(n,) bool: 20 ms blocks that sound."""
    size = rate // 50
    blocks = channel[: len(channel) // size * size].reshape(-1, size)
    return np.sqrt((blocks**2).mean(axis=1)) > 0.01


@pytest.fixture
def answered(server, spoken):
    """A page whose microphone asks once, after its call was started and answered."""
    wav = spoken(silence(1), voice(1.2), silence(8))
    with chromium(*microphone(wav)) as browser:
        browser.open(f"http://{server}/")
        browser.wait("document.querySelector('#status-text').innerText === 'Ready'")
        browser.click("#start")
        browser.wait(f"document.querySelector('#turns').innerText.includes('{ANSWER}')")
        yield browser


def test_the_agent_answers_in_text_and_sound_without_a_single_complaint(answered, tmp_path):
    browser = answered
    assert browser.text("#status-text") == "Connected" and browser.text("#start") == "Stop"
    browser.wait(f"document.querySelector('#announcer').innerText.includes('Agent: {ANSWER}')")
    assert re.fullmatch(r"0\.\d\d s|1\.\d\d s", browser.text("[data-gauge=answer] .value"))
    for gauge in ("step", "lateness", "buffer", "roundTrip"):
        assert re.fullmatch(r"\d+ ms", browser.text(f"[data-gauge={gauge}] .value")), gauge
    browser.click("#start")
    browser.wait("document.querySelector('#status-text').innerText === 'Stopped'")
    assert browser.text("#start") == "Start again"
    sound, rate = soundfile.read(downloaded(browser, tmp_path, "#save-audio", "conversation.wav"), dtype="float32")
    assert rate == 24000 and sound.shape[1] == 2
    user, agent = loud(sound[:, 0], rate), loud(sound[:, 1], rate)
    assert user.sum() > 30
    text = downloaded(browser, tmp_path, "#save-text", "conversation.txt").read_text()
    assert re.fullmatch(rf"0:0\d  You: \(speaking\)\n0:0\d  Agent: {re.escape(ANSWER)}\n", text)
    vtt = downloaded(browser, tmp_path, "#save-vtt", "conversation.vtt").read_text()
    assert vtt.startswith("WEBVTT\n\n00:00:0") and f"<v Agent>{ANSWER}\n" in vtt
    asked, stopped, answered, end = (float(seconds) for seconds in re.findall(r"00:00:([\d.]+)", vtt))
    spoken = np.flatnonzero(user) / 50
    assert abs(asked - spoken.min()) < 0.4 and abs(stopped - spoken.max()) < 0.6  # the times are those of the sound
    assert stopped < answered + 0.1 and agent[round(50 * answered) + 10 : round(50 * end) - 10].all()
    assert browser.troubles == []


def test_a_barge_in_silences_the_agent_within_200_milliseconds(server, spoken, tmp_path):
    wav = spoken(silence(1), voice(1.2), silence(2), voice(1.5), silence(8))
    with chromium(*microphone(wav)) as browser:
        browser.open(f"http://{server}/")
        browser.click("#start")
        browser.wait("document.querySelector('#turns').innerText.includes('(interrupted)')")
        value = browser.wait("document.querySelector('[data-gauge=bargeIn] .value').innerText.match(/^(\\d+) ms$/)?.[1]")
        assert 0 < int(value) < 200
        browser.click("#start")
        sound, rate = soundfile.read(downloaded(browser, tmp_path, "#save-audio", "conversation.wav"), dtype="float32")
        vtt = downloaded(browser, tmp_path, "#save-vtt", "conversation.vtt").read_text()
        begin, end = re.search(rf"00:00:([\d.]+) --> 00:00:([\d.]+)\n<v Agent>{ANSWER[:5]}.* … \(interrupted\)", vtt).groups()
        agent = loud(sound[:, 1], rate)
        assert agent[round(50 * float(begin)) : round(50 * float(end)) - 5].mean() > 0.5  # it was speaking
        assert not agent[round(50 * float(end)) + 1 : round(50 * float(end)) + 50].any()  # and is silent from then on
        assert browser.troubles == []


def test_a_file_is_a_caller_in_real_time_and_kept_on_the_left_as_it_is(server, tmp_path):
    file = tmp_path / "question.wav"
    said = np.concatenate([silence(0.5), voice(1.2), silence(1)])
    soundfile.write(file, said, RATE)
    with chromium() as browser:  # it has no microphone, and none is asked for
        browser.open(f"http://{server}/")
        browser.click("input[value=file]")
        browser.choose("#file", file)
        browser.click("#hear-file")
        browser.click("#start")
        browser.wait(f"document.querySelector('#turns').innerText.includes('{ANSWER}')")
        browser.wait("document.querySelector('#note').innerText === 'The file is over. The agent hears silence.'")
        browser.click("#start")
        sound, rate = soundfile.read(downloaded(browser, tmp_path, "#save-audio", "conversation.wav"), dtype="float32")
        assert browser.troubles == []
    expected = np.interp(np.arange(rate * 17 // 10), np.arange(len(said)) * rate / RATE, said)
    begin = np.correlate(sound[:, 0], expected, "valid").argmax()
    heard = sound[begin : begin + len(expected), 0]
    assert np.corrcoef(heard, expected)[0, 1] > 0.99
    assert 0.9 < np.abs(heard).max() / np.abs(expected).max() < 1.1


def test_the_agent_can_be_stopped_and_the_caller_muted(agent, spoken):
    """Its answer would take thirteen minutes; the second voice comes five seconds later, when the microphone is muted."""
    app = make_answering(make_app(agent, ServerConfig(callers=1, audio=UNHURRIED)), frames=10_000)
    microphones = microphone(spoken(silence(0.3), voice(1.2), silence(5), voice(8)))
    with serving(app) as server, chromium(*microphones) as browser:
        browser.open(f"http://{server}/")
        browser.click("#start")
        browser.wait(f"document.querySelector('#turns').innerText.includes('{ANSWER[:4]}')")
        browser.click("#mute")
        assert browser.run("document.querySelector('#mute').getAttribute('aria-pressed')") == "true"
        browser.click("#hush")
        browser.wait(f"document.querySelector('#announcer').innerText.includes('Agent: {ANSWER[:4]}')")
        turns = browser.run("document.querySelectorAll('#turns li').length")
        browser.wait("document.querySelector('#clock-text').innerText >= '0:08'")
        assert browser.run("document.querySelectorAll('#turns li').length") == turns == 2  # nothing was heard since


def test_by_keyboard_alone(server, spoken):
    with chromium(*microphone(spoken(silence(1), voice(1.2), silence(8)))) as browser:
        browser.open(f"http://{server}/")
        browser.wait("document.querySelector('#status-text').innerText === 'Ready'")
        focused = []

        def tab():
            browser.press("Tab")
            focused.append(browser.run("document.activeElement.id || document.activeElement.value"))

        tab()
        tab()
        assert focused == [None, "start"]  # after the link that skips to it
        browser.press("Enter")
        browser.wait("document.querySelector('#status-text').innerText === 'Connected'")
        assert browser.run("document.activeElement.id") == "start" and browser.text("#start") == "Stop"
        outline = browser.run("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        for _ in range(7):
            tab()
        assert focused[2:] == ["mute", "hush", "device", "scroll", "save-audio", "save-text", "save-vtt"]
        browser.run("document.getElementById('start').focus()")
        browser.press(" ")
        browser.wait("document.querySelector('#status-text').innerText === 'Stopped'")
        browser.run("document.querySelector('[name=source]').focus()")
        browser.press("ArrowRight")
        assert browser.run("document.activeElement.value") == "file"
        assert browser.run("document.querySelector('#file').checkVisibility()")


def test_everything_has_a_name_and_room_for_a_finger_on_a_phone(answered):
    browser = answered
    controls = {"button", "link", "radio", "checkbox", "textbox", "combobox", "meter", "image", "log", "region", "radiogroup"}
    nameless = [role for role, name in browser.names() if role in controls and not name.strip()]
    assert nameless == []
    assert {"button", "radio", "combobox", "meter", "log", "status", "image"} <= {role for role, _ in browser.names()}
    browser.screen(**PHONE)
    browser.click("#start")
    browser.wait("document.querySelector('#status-text').innerText === 'Stopped'")
    for source in ("file", "microphone"):
        browser.click(f"input[value={source}]")
        assert browser.run("document.documentElement.scrollWidth") == 375
        small = browser.run(
            "[...document.querySelectorAll('button, select, input[type=file], .check, .choice label, a.button')]"
            ".filter((e) => e.checkVisibility() && e.getBoundingClientRect().height < 44).map((e) => e.outerHTML)"
        )
        assert small == []
    browser.screen(320, 600, 2, True)
    assert browser.run("document.documentElement.scrollWidth") == 320


def test_the_picture_moves_with_the_screen_and_rarely_where_motion_is_to_be_reduced(answered):
    count = """new Promise((done) => {
      const paint = CanvasRenderingContext2D.prototype, clear = paint.clearRect;
      let pictures = 0;
      paint.clearRect = function (...given) { pictures++; return clear.apply(this, given); };
      setTimeout(() => { paint.clearRect = clear; done(pictures); }, 2000);
    })"""
    smooth = answered.run(count)
    answered.media(prefers_reduced_motion="reduce")
    assert answered.run(count) <= 5 < 20 < smooth


def test_it_is_drawn_as_fine_as_the_screen_is(answered):
    answered.screen(**PHONE)
    answered.wait("document.querySelector('#picture').width === 2 * document.querySelector('#picture').clientWidth")


def test_another_microphone_can_be_chosen_during_the_call(answered):
    devices = answered.run("[...document.querySelectorAll('#device option')].map((option) => option.value)")
    assert len(devices) > 1 and devices[0] == ""
    answered.run(
        "const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
        "navigator.mediaDevices.getUserMedia = (given) => { window.asked = given; return ask(given); };"
        f"document.querySelector('#device').value = {devices[1]!r};"
        "document.querySelector('#device').dispatchEvent(new Event('change', {bubbles: true}))"
    )
    answered.wait("window.asked")
    assert answered.run("window.asked.audio") == {
        "echoCancellation": True,
        "noiseSuppression": True,
        "autoGainControl": True,
        "channelCount": 1,
        "deviceId": {"exact": devices[1]},
    }
    assert answered.text("#status-text") == "Connected" and answered.troubles == []


def test_two_calls_in_a_row_begin_anew(server, agent, spoken, tmp_path):
    with chromium(*microphone(spoken(silence(1), voice(1.2), silence(2)))) as browser:
        browser.open(f"http://{server}/")
        for _ in range(2):
            browser.click("#start")
            browser.wait("document.querySelector('#status-text').innerText === 'Connected'")
            browser.wait("document.querySelector('#clock-text').innerText === '0:01'")
            browser.click("#start")
            browser.wait("document.querySelector('#status-text').innerText === 'Stopped'")
        assert browser.troubles == []


def test_a_call_is_recorded_on_the_server_if_it_is_asked_for(agent, spoken, tmp_path):
    rules = RecordingRules(tmp_path / "kept")
    app = make_answering(make_app(agent, ServerConfig(callers=1, recordings=rules, api_keys=("key-of-a-caller",))))
    with serving(app) as address, chromium(*microphone(spoken(silence(1)))) as browser:
        browser.open(f"http://{address}/")
        browser.wait("document.querySelector('#key-form').checkVisibility()")
        assert not browser.run("document.querySelector('#record').checkVisibility()")  # not known before the key is
        browser.type("key-of-a-caller")
        browser.press("Enter")
        browser.wait("document.querySelector('#record').checkVisibility()")
        assert browser.text("#record-hint") == "The server keeps nothing unless you ask it to."
        browser.click("#record")
        browser.click("#start")
        browser.wait("document.querySelector('#note').innerText === 'The server records this call.'")
        browser.wait("document.querySelector('#clock-text').innerText === '0:01'")
        browser.click("#start")
        browser.do("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        browser.click("#save-recording")
        browser.until(lambda: [*tmp_path.glob("call-*.zip")])
        (path,) = tmp_path.glob("call-*.zip")
        (call,) = (folder.name for folder in rules.folder.iterdir())
        assert path.name == f"call-{call}.zip"
        assert zipfile.ZipFile(path).testzip() is None and f"{call}/user.wav" in zipfile.ZipFile(path).namelist()
        browser.click("#record")
        browser.click("#start")
        browser.wait("document.querySelector('#status-text').innerText === 'Connected'")
        assert browser.text("#note") == "" and not browser.run("document.querySelector('#save-recording').checkVisibility()")


def test_the_server_is_told_when_the_page_goes_away(agent, spoken):
    app = make_answering(make_app(agent, ServerConfig(callers=1)))
    calls = app.state.server.calls
    with serving(app) as address, chromium(*microphone(spoken(silence(1)))) as browser:
        browser.open(f"http://{address}/")
        browser.click("#start")
        browser.wait("document.querySelector('#status-text').innerText === 'Connected'")
        assert len(calls) == 1
        browser.open("about:blank")
        browser.until(lambda: not calls)
