"""A call from a web page by WebRTC, as OpenAI's guide for browsers shows it, in headless Chromium with a fake microphone."""

import numpy as np
import pytest
import soundfile

from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.config import ServerConfig
from tests.browser import chromium
from tests.dummies import voice_like
from tests.serving.answering import ANSWER, make_answering, quiet_model, serving

RATE = 48000
#: The page's side of a call: what the guide shows, and meters.
CALL = """
(async () => {
  const call = window.call = {events: [], levels: [], states: []};
  const pc = call.pc = new RTCPeerConnection();
  pc.onconnectionstatechange = () => call.states.push(pc.connectionState);
  pc.ontrack = ({streams, track}) => {
    const audio = document.createElement('audio');
    audio.autoplay = true;
    audio.srcObject = streams[0] ?? new MediaStream([track]);
    const context = call.context = new AudioContext();
    const meter = context.createAnalyser();
    meter.fftSize = 2048;
    context.createMediaStreamSource(audio.srcObject).connect(meter);
    const samples = new Float32Array(meter.fftSize);
    setInterval(() => {
      meter.getFloatTimeDomainData(samples);
      call.levels.push([performance.now(), Math.max(...samples.map(Math.abs))]);
    }, 20);
  };
  call.microphone = (await navigator.mediaDevices.getUserMedia({audio: true})).getTracks()[0];
  pc.addTrack(call.microphone);
  call.channel = pc.createDataChannel('oai-events');
  call.channel.onmessage = ({data}) => call.events.push({...JSON.parse(data), at: performance.now()});
  call.channel.onclose = () => call.states.push('channel closed');
  const offer = await pc.createOffer();
  await pc.setLocalDescription(offer);
  const answer = await fetch('/v1/realtime/calls?model=mine', {
    method: 'POST', body: offer.sdp, headers: {Authorization: 'Bearer ek_none', 'Content-Type': 'application/sdp'},
  });
  call.status = answer.status;
  call.location = answer.headers.get('Location');
  await pc.setRemoteDescription({type: 'answer', sdp: await answer.text()});
  await new Promise((opened) => { call.channel.onopen = opened; });
})()
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of the answering agent, whose answer takes 3.2 s."""
    app = make_answering(make_app(quiet_model(tmp_path_factory.mktemp("agent")), ServerConfig(callers=2)))
    with serving(app) as address:
        yield address


def speech(seconds):
    """A voice."""
    return voice_like(seconds, sample_rate=RATE).numpy()


@pytest.fixture
def said(tmp_path):
    """Writes what the microphone hears: seconds of speech, of silence, of speech, and so on, after a second of silence."""

    def write(*seconds):
        parts = [np.zeros(RATE, np.float32)]
        parts += [speech(s) if not n % 2 else np.zeros(round(s * RATE), np.float32) for n, s in enumerate(seconds)]
        soundfile.write(tmp_path / "said.wav", np.concatenate([*parts, np.zeros(2 * RATE, np.float32)]), RATE)
        return tmp_path / "said.wav"

    return write


def microphone(wav):
    """Flags of Chromium: a microphone that hears a file once and is allowed, and sound without a click."""
    return (
        *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
        *(f"--use-file-for-fake-audio-capture={wav}%noloop", "--autoplay-policy=no-user-gesture-required"),
    )


def start(browser, server):
    browser.open(f"http://{server}/healthz")
    browser.run(CALL)


def happened(browser, kind):
    return browser.wait(f"call.events.find((event) => event.type === '{kind}')")


@pytest.mark.slow
def test_a_page_asks_and_hears_the_answer(server, said):
    with chromium(*microphone(said(1.2))) as browser:
        start(browser, server)
        created = happened(browser, "session.created")
        stopped = happened(browser, "output_audio_buffer.stopped")
        browser.wait(f"performance.now() > {stopped['at'] + 500}")
        events, levels = browser.run("call.events"), browser.run("call.levels")
        status, location, states = browser.run("call.status"), browser.run("call.location"), browser.run("call.states")
        stats = browser.run("call.pc.getStats().then((all) => [...all.values()].find(({type}) => type === 'inbound-rtp'))")
        hung_up = browser.run("fetch(call.location + '/hangup', {method: 'POST'}).then((response) => response.status)")
        browser.wait("call.states.includes('channel closed') || call.states.includes('closed')")
    assert (status, hung_up) == (201, 200) and location.startswith("/v1/realtime/calls/") and states[-1] == "connected"
    assert created == events[0] and created["session"]["model"] == "mine"
    [done] = [event["response"] for event in events if event["type"] == "response.done"]
    assert done["status"] == "completed" and done["output"][0]["content"][0]["transcript"].strip() == ANSWER
    begun = next(event["at"] for event in events if event["type"] == "output_audio_buffer.started")
    loud = [at for at, level in levels if level > 0.01]
    assert abs((loud[-1] - loud[0]) / 1000 - 3.2) < 0.4 and -100 < loud[0] - begun < 600
    assert len(loud) > 0.9 * (loud[-1] - loud[0]) / 20 * 0.8  # not in pieces
    assert stats["concealedSamples"] - stats["silentConcealedSamples"] < 0.05 * stats["totalSamplesReceived"], stats


@pytest.mark.slow
def test_a_page_that_interrupts_the_agent_hears_it_fall_silent(server, said):
    with chromium(*microphone(said(1.2, 2.0, 1.2))) as browser:
        start(browser, server)
        cleared = happened(browser, "output_audio_buffer.cleared")
        browser.wait(f"performance.now() > {cleared['at'] + 1000}")
        events, levels = browser.run("call.events"), browser.run("call.levels")
    second = [event for event in events if event["type"] == "input_audio_buffer.speech_started"][1]
    truncated = next(event for event in events if event["type"] == "conversation.item.truncated")
    loud = [at for at, level in levels if level > 0.01 and at > cleared["at"] - 5000]
    assert second["at"] <= cleared["at"] < second["at"] + 50
    assert loud[-1] < cleared["at"] + 300  # the browser's own jitter buffer, and its meter
    assert abs(truncated["audio_end_ms"] - (cleared["at"] - loud[0])) < 500


@pytest.mark.slow
@pytest.mark.parametrize("how", ["call.pc.close()", "call.channel.close()", "location.href = 'about:blank'"])
def test_a_page_that_leaves_frees_its_line(server, said, how):
    with chromium(*microphone(said(0.5))) as browser:
        for _ in range(4):  # of two lines
            start(browser, server)
            assert browser.run("call.status") == 201
            happened(browser, "session.created")
            browser.run(how)
            browser.open(f"http://{server}/healthz")
            browser.wait(
                "fetch('/metrics').then((r) => r.text()).then((t) => t.includes('calls{protocol=\"webrtc\"} 0.0'))", 15
            )
