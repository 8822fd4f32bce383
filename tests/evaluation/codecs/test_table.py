"""The rows of codecs: bitrate, what scorers and a recogniser say of originals and reconstructions, agents' codecs."""

import json
import math
import re
from threading import Lock

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from nemo_duplex.evaluation.codecs.speech_codec import Decoded
from nemo_duplex.evaluation.codecs.table import CodecScorers, codec_table
from nemo_duplex.evaluation.report.tables import as_text, differences_table, table_4
from nemo_duplex.evaluation.scorer import Scorer
from nemo_duplex.evaluation.speech.full_reference import SISDR, MelDistance
from nemo_duplex.evaluation.speech.normalized_text import character_errors
from nemo_duplex.evaluation.speech.speech_scorers import SpeechScorers
from nemo_duplex.inputs import InputError
from tests.evaluation.agents import cut_of, dialogue, write_set
from tests.evaluation.speech.sounds import Pitch, Seconds, tone


class Ear:
    """Hears "ab" in what is below 250 Hz and "abcd" in the rest."""

    scorer = Scorer("ear", "1", about="a stub")

    def __init__(self):
        self.asked, self._lock = 0, Lock()

    def understands(self, language):
        return language == "en"

    def transcribe(self, audio, sample_rate, language="en"):
        with self._lock:
            self.asked += 1
        pitch = np.count_nonzero(np.diff(np.signbit(audio))) / 2 / (len(audio) / sample_rate)
        return "ab" if pitch < 250 else "abcd"


class Whistle:
    """A codec whose reconstruction is a tone, at its own rate, from `late` seconds on; 100 bits a frame of 0.1 s."""

    def __init__(self, name="small", pitch=300, rate=22050, late=0.0):
        self.name, self.pitch, self.rate, self.late = name, pitch, rate, late
        self.sent = 0

    def send(self, audio, sample_rate):
        self.sent += 1
        seconds = len(audio) / sample_rate
        sound = np.concatenate([np.zeros(round(self.late * self.rate), np.float32), tone(seconds, self.rate, self.pitch)])
        frames = math.ceil(seconds / 0.1)
        return Decoded(sound, self.rate, 100 * frames, 0.1 * frames)

    def about(self):
        return {"pitch": self.pitch}


@pytest.fixture
def wavs(tmp_path):
    """Three utterances: of 2 s, of 3 s with a text, too short to be judged, with a text."""
    folder = tmp_path / "wavs"
    folder.mkdir()
    for name, seconds in (("a", 2.0), ("b", 3.0), ("c", 0.5)):
        soundfile.write(folder / f"{name}.wav", tone(seconds, pitch=200), 16000)
    (folder / "b.txt").write_text("abcd")
    (folder / "c.txt").write_text("abc")
    return folder


def table(codecs, data, ear=None, squim=None, pairs=(), missing=None, **given):
    speech = SpeechScorers({"distillmos": Seconds()}, {"secs": Pitch()}, {"utmos": "give utmos=PATH"})
    scorers = CodecScorers(speech, dict(pairs), ear, squim, missing or {})
    return codec_table(codecs, data, scorers, workers=0, progress=False, **given).report


def test_a_codec_is_measured_beside_the_originals(wavs, tmp_path):
    ear = Ear()
    given = {"pairs": {"si_sdr": SISDR(), "mel_distance": MelDistance()}, "missing": {"stoi": "pystoi is not installed"}}
    found = table([Whistle()], wavs, ear, folder=tmp_path / "out", **given)
    original, small = found["rows"]["original"], found["rows"]["small"]
    assert original["kbps"] is None and small["kbps"] == pytest.approx(1.0)
    for row in (original, small):
        assert row["distillmos"]["each"] == [2.0, pytest.approx(3.0, abs=1e-3), None] and row["distillmos"]["n"] == 2
        assert row["distillmos"]["refused"] == {"less than 1 s of speech": 1}
        assert row["utmos"]["not_run"] == "give utmos=PATH" and "squim=PATH" in row["squim"]["not_run"]
        assert row["stoi"]["not_run"] == "pystoi is not installed"
    # heard of originals: "ab" of "abcd" and "ab" of "abc"; of tones of 300 Hz: "abcd"
    assert (original["cer"]["value"], original["cer"]["n"], original["cer"]["scorer"]) == (3 / 7, 7, "ear")
    assert original["cer"]["each"] == [None, (2, 4), (1, 3)] and small["cer"]["value"] == 1 / 7
    assert original["wer"]["each"] == [None, (1, 1), (1, 1)] and small["wer"]["each"] == [None, (0, 1), (1, 1)]
    assert small["secs"]["each"] == [pytest.approx(0, abs=0.1), pytest.approx(0, abs=0.1), None] and "secs" not in original
    assert small["si_sdr"]["n"] == small["mel_distance"]["n"] == 3 and small["si_sdr"]["value"] < -20
    assert not {"si_sdr", "mel_distance"} & original.keys()
    assert (found["utterances"], found["seconds"], ear.asked) == (3, 5.5, 4)
    assert found["codecs"] == {"small": {"pitch": 300}} and found["ids"] == ["a.wav", "b.wav", "c.wav"]
    assert found["texts"] == [None, "abcd", "abc"] and found["heard"]["small"] == [None, "abcd", "abcd"]
    assert list(found["scorers"]) == ["seconds", "pitch", "si_sdr", "mel_distance", "ear"]
    assert found["paper"]["Mimi"]["kbps"] == 1.1 and found["voices"] == {}
    assert json.loads(json.dumps(found))["rows"]["small"]["secs"]["value"] == small["secs"]["value"]
    again = table([Whistle()], wavs, ear, folder=tmp_path / "out", **given)
    assert ear.asked == 4 and again["rows"] == found["rows"], "Nothing is judged or heard twice."


def test_the_bitrate_is_that_of_all_utterances(wavs):
    class Headed(Whistle):
        def send(self, audio, sample_rate):
            decoded = super().send(audio, sample_rate)
            return decoded._replace(bits=decoded.bits + 100)

    # 22, 32 and 7 frames: of the utterances with 0.15 s of silence behind each
    assert table([Headed()], wavs)["rows"]["small"]["kbps"] == pytest.approx((6100 + 300) / 6.1 / 1000)


def test_utterances_are_those_that_are_asked_for(wavs, tmp_path):
    assert table([Whistle()], wavs, limit=2)["ids"] == ["a.wav", "b.wav"]
    for name in ("dev", "impatient"):
        write_set(tmp_path / "corpus" / name / "shar", [cut_of(dialogue(name))])
    found = table([Whistle()], tmp_path / "corpus", sets=["impatient"])["ids"]
    assert found and all(one.startswith("impatient, cut impatient, ") for one in found)


def test_its_rows_make_the_papers_table(wavs):
    found = table([Whistle(), Whistle("other", 200)], wavs, Ear(), absent={"codec2-700C": "pycodec2 is not installed"})
    lines = as_text(table_4(found["rows"], found["scorers"])).split("\n")
    shown = {line.split("  ")[0]: line for line in lines}
    assert "2.50 (n 2)" in shown["DistillMOS ↑"] and "42.9 % (n 7)" in shown["CER, % ↓"] and "14.3 % (n 7)" in shown["CER, % ↓"]
    assert "100.0 % (n 2)" in shown["WER, % ↓"] and "50.0 % (n 2)" in shown["WER, % ↓"]
    assert "4.16" in shown["Squim MOS ↑"] and "not run" in shown["Squim MOS ↑"]
    assert lines[2].split()[:4] == ["original", "small", "other", "codec2-700C"]
    why = next(line for line in lines if line.endswith(": pycodec2 is not installed"))
    assert why.startswith("not run: Bitrate, kbit/s, ") and {"DistillMOS", "WER, %", "Delay, ms"} <= {
        *re.split(r", (?=[A-Z])|: ", why)
    }
    text = as_text(differences_table(found["differences"]))
    assert "other − small" in text and "small − original" in text and "+28.6 points too few (n 2)" in text


def test_a_late_codec_is_put_in_time(wavs):
    """Its last sound is not lost, and what is judged is as long as the original."""
    ticking = tone(2.0, 16000, 200) * (np.arange(32000) % 8000 < 3000)
    soundfile.write(wavs / "a.wav", ticking, 16000)

    class Late(Whistle):
        def send(self, audio, sample_rate):
            late = np.zeros(round(self.late * sample_rate), np.float32)
            return Decoded(np.concatenate([late, audio])[: len(audio)], sample_rate, 1, 1)  # no longer than what went in

    found = table([Late("late", late=0.04), Late("in time")], wavs, pairs={"si_sdr": SISDR()})
    late, on_time = found["rows"]["late"], found["rows"]["in time"]
    assert (late["delay_ms"], on_time["delay_ms"]) == (40.0, 0.0)
    assert late["si_sdr"]["each"] == on_time["si_sdr"]["each"] == [pytest.approx(100, abs=40)] * 3


def test_without_texts_or_a_recogniser_there_is_no_cer(wavs):
    assert table([Whistle()], wavs)["rows"]["small"]["cer"]["not_run"] == "no recogniser was asked for"
    why = {"wer": "faster-whisper is not installed"}
    assert table([Whistle()], wavs, missing=why)["rows"]["small"]["wer"]["not_run"] == "faster-whisper is not installed"
    for name in "bc":
        (wavs / f"{name}.txt").unlink()
    ear = Ear()
    assert "no utterance has a text" in table([Whistle()], wavs, ear)["rows"]["small"]["wer"]["not_run"] and not ear.asked
    rows = [{"audio_filepath": str(wavs / "a.wav"), "duration": 2.0, "text": "ja", "language": "de"}]
    (wavs / "m.jsonl").write_text(json.dumps(rows[0]))
    assert "does not know the language" in table([Whistle()], wavs / "m.jsonl", ear)["rows"]["small"]["cer"]["not_run"]


def test_several_voices_have_rows_of_their_own(wavs):
    rows = [{"audio_filepath": str(wavs / f"{name}.wav"), "text": text, "voice": voice} for name, text, voice in VOICES]
    (wavs / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = table([Whistle()], wavs / "m.jsonl", Ear())
    assert {voice: one["utterances"] for voice, one in found["voices"].items()} == {"ann": 2, "bob": 1}
    assert found["voices"]["bob"]["rows"]["original"]["cer"]["value"] == 0.5
    assert found["voices"]["ann"]["rows"]["small"]["distillmos"]["value"] == 2.0
    assert found["voices"]["ann"]["rows"]["small"]["distillmos"]["n"] == 1
    assert "each" not in found["voices"]["ann"]["rows"]["small"]["distillmos"]


VOICES = [("a", "abcd", "ann"), ("b", "abcd", "bob"), ("c", "abc", "ann")]


class Beside(nn.Module):
    """The seconds of a sound, and a hundredth of those of the clean speech."""

    def forward(self, wave: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        return torch.ones(1) * (wave.shape[1] + clean.shape[1] / 100) / 16000


def test_squim_hears_the_longest_original_beside_each_sound(wavs, tmp_path):
    torch.jit.script(Beside()).save(str(tmp_path / "squim.pt"))
    row = table([Whistle()], wavs, squim=tmp_path / "squim.pt")["rows"]["small"]
    assert row["squim"]["each"] == [pytest.approx(2.03, abs=1e-3), pytest.approx(3.03, abs=1e-3), None]
    assert row["squim"]["scorer"] == "squim"


def test_names_of_rows_are_told_apart(wavs):
    for codecs, absent in (([Whistle("original")], {}), ([Whistle("x"), Whistle("x")], {}), ([Whistle("x")], {"x": "no"})):
        with pytest.raises(InputError, match="names two rows of the table. Rename a file."):
            table(codecs, wavs, absent=absent)


def test_errors_of_characters():
    assert character_errors("It's five.", "it is five") == (0, 7), "It is 5."
    assert character_errors("Paris", "Parts") == (1, 5) and character_errors("to go", "") == (5, 5)
