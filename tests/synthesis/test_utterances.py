from __future__ import annotations

import numpy as np

from nemo_duplex.synthesis.utterances import agent_utterances, utterance_cut


def test_the_agent_says_a_text_the_same_way_every_time():
    (text, audio), (_, again), (_, other) = agent_utterances(["One plus two is three.", "One plus two is three.", "Goodbye."])
    assert text == "One plus two is three." and audio.dtype == np.float32
    assert np.array_equal(audio, again) and len(other) != len(audio)
    assert 1.0 < len(audio) / 22050 < 2.0


def test_a_cut_of_an_utterance():
    cut = utterance_cut("agent-0", "Goodbye.", np.full(22050, 0.25, np.float32))
    assert (cut.id, cut.duration, cut.recording.sampling_rate) == ("agent-0", 1.0, 22050)
    assert (cut.supervisions[0].text, cut.supervisions[0].speaker) == ("Goodbye.", "agent")
    assert np.abs(cut.load_audio() - 0.25).max() < 1e-3
