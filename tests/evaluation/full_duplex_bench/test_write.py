"""What an agent's answers become on disk."""

import json

import numpy as np
import pytest
import soundfile

from nemo_duplex.evaluation.full_duplex_bench.heard_words import HeardWords
from nemo_duplex.evaluation.full_duplex_bench.write import Writer, check_setting
from nemo_duplex.inputs import InputError
from tests.evaluation.agents import Echo, Silent
from tests.evaluation.full_duplex_bench.trees import Answers, Ears, buzzes, chunks, put, sound


def writer(agent, version="v1", words="text_channel", model="mine", **options):
    return Writer(agent, model, version, words=words, vad=buzzes, heard=HeardWords(Ears(), buzzes), **options)


def read(path):
    return json.loads(path.read_text())


def words(path):
    return [(c["text"], *c["timestamp"]) for c in read(path)["chunks"]]


@pytest.mark.parametrize(("rate", "channels", "subtype"), [(16000, 1, "PCM_16"), (8000, 1, "PCM_16"), (48000, 2, "FLOAT")])
def test_outputs_are_as_long_as_the_input_and_at_its_times(tmp_path, rate, channels, subtype):
    folder = put(tmp_path / "bench" / "pause_handling" / "3", pause=[], transcription={"text": "hm"})
    given = np.tile(sound((0.2, 0.8), seconds=4.1237, rate=rate)[:, None], channels)
    soundfile.write(folder / "input.wav", given, rate, subtype=subtype)
    done = writer(Answers()).write(tmp_path / "bench", tmp_path / "out")
    assert (done.written, done.kept, len(done.odd)) == (["pause_handling/3"], [], 0)
    sample = tmp_path / "out" / "pause_handling" / "3"
    written = soundfile.info(sample / "output.wav")
    assert (written.samplerate, written.channels, written.subtype) == (16000, 1, "PCM_16")
    assert written.frames == round(len(given) * 16000 / rate)
    speech = buzzes(*soundfile.read(sample / "output.wav"))
    assert np.asarray(speech) == pytest.approx(np.asarray([(1.04, 2.0), (2.96, 3.52)]), abs=0.003)
    assert read(sample / "output.json")["text"] == "one two three four five sixes"
    assert sorted(p.name for p in sample.iterdir()) == sorted(
        ["input.wav", "pause.json", "transcription.json", "output.wav", "output.json", "nemo_duplex.json"]
    )


def test_words_have_their_times_and_those_after_an_interruption_stay(tmp_path):
    mark = {"context": "a", "interrupt": "b", "timestamp": [0.5, 1.5]}
    for name, task, annotation in (("1", "user_interruption", "interrupt"), ("1", "turn_taking", "turn_taking")):
        put(tmp_path / "b" / task / name, {"input": sound((0.2, 0.8))}, **{annotation: [mark]})
    writer(Answers()).write(tmp_path / "b", tmp_path / "out")
    whole = words(tmp_path / "out" / "turn_taking" / "1" / "output.json")
    assert [text for text, _, _ in whole] == ["one", "two", "three", "four", "five", "sixes"]
    assert whole[0][1] == pytest.approx(1.04, abs=0.003) and whole[3][2] == pytest.approx(2.0, abs=0.003)
    assert whole[1][1:] == pytest.approx([1.04 + 0.96 * 3 / 15, 1.04 + 0.96 * 6 / 15], abs=0.003)
    after = words(tmp_path / "out" / "user_interruption" / "1" / "output.json")
    assert after == whole[3:], "'three' begins at 1.42 s"
    writer(Answers(), words="recogniser", model="other").write(tmp_path / "b", tmp_path / "by_ear")
    heard = words(tmp_path / "by_ear" / "user_interruption" / "1" / "output.json")
    assert heard[:2] == [("well", 1.5, 2.0), ("yes.", 2.0, pytest.approx(2.0, abs=0.003))]
    assert read(tmp_path / "by_ear" / "turn_taking" / "1" / "nemo_duplex.json")["words"] == "ears"


def test_a_silent_agent_has_words_too_none(tmp_path):
    put(tmp_path / "b" / "backchannel" / "1", {"input": sound((0.2, 0.8))})
    writer(Silent()).write(tmp_path / "b", tmp_path / "b")
    assert read(tmp_path / "b" / "backchannel" / "1" / "output.json") == {"text": "", "chunks": []}
    assert not soundfile.read(tmp_path / "b" / "backchannel" / "1" / "output.wav")[0].any()


def test_complete_samples_are_not_answered_again(tmp_path):
    for name in ("1", "2", "3"):
        put(tmp_path / "b" / "pause_handling" / name, {"input": sound((0.2, 0.8), seconds=3 + int(name))})
    agent = Answers()
    assert writer(agent).write(tmp_path / "b", tmp_path / "out", batch_size=2).written == [
        f"pause_handling/{name}" for name in "321"
    ]
    out = tmp_path / "out" / "pause_handling"
    before = (out / "1" / "output.wav").stat().st_mtime_ns
    put(tmp_path / "b" / "pause_handling" / "2", {"input": sound((0.1, 0.8), seconds=5)})  # another input
    (out / "3" / "output.json").unlink()  # an output that is lost
    agent.asked.clear()
    again = writer(agent).write(tmp_path / "b", tmp_path / "out")
    assert again.kept == ["pause_handling/1"] and sorted(again.written) == ["pause_handling/2", "pause_handling/3"]
    assert sorted(agent.asked) == [80000, 96000]
    assert (out / "1" / "output.wav").stat().st_mtime_ns == before
    assert (
        soundfile.read(out / "2" / "input.wav")[0].tolist()
        == soundfile.read(tmp_path / "b/pause_handling/2/input.wav")[0].tolist()
    )
    by_ear = writer(agent, words="recogniser").write(tmp_path / "b", tmp_path / "out")
    assert len(by_ear.written) == 3, "words of another source are other outputs"


def test_outputs_of_another_model_are_kept(tmp_path):
    folder = put(tmp_path / "b" / "pause_handling" / "1", {"input": sound((0.2, 0.8)), "output": sound((0.5, 1.0))})
    theirs = (folder / "output.wav").read_bytes()
    put(tmp_path / "b" / "pause_handling" / "2", {"input": sound((0.2, 0.8))})
    done = writer(Answers()).write(tmp_path / "b", tmp_path / "b")
    assert done.written == ["pause_handling/2"] and (folder / "output.wav").read_bytes() == theirs
    assert done.lines() == [
        "1 samples answered, 0 were complete",
        "left out: 1 with outputs of another model, such as pause_handling/1: output.wav",
    ]
    assert not (folder / "nemo_duplex.json").exists()
    with pytest.raises(InputError, match="All of them: outputs of another model, .*Give overwrite=true, or another out."):
        writer(Answers(), model="other").write(tmp_path / "b", tmp_path / "b")


def test_outputs_of_another_model_are_replaced_if_asked(tmp_path):
    folder = put(tmp_path / "b" / "pause_handling" / "1", {"input": sound((0.2, 0.8)), "output": sound((0.5, 1.0))})
    done = writer(Answers()).write(tmp_path / "b", tmp_path / "b", overwrite=True)
    assert done.written == ["pause_handling/1"]
    assert buzzes(*soundfile.read(folder / "output.wav"))[0][0] == pytest.approx(1.04, abs=0.003)


def test_odd_samples_are_named_and_the_others_go_on(tmp_path):
    tasks = tmp_path / "b"
    put(tasks / "pause_handling" / "1", {"input": sound((0.2, 0.8))})
    put(tasks / "pause_handling" / "2")
    (put(tasks / "pause_handling" / "3") / "input.wav").write_bytes(b"RIFF no wav")
    put(tasks / "pause_handling" / "4", {"input": np.zeros(1000)})
    soundfile.write(
        put(tasks / "pause_handling" / "5") / "input.wav", np.full(9000, np.nan, np.float32), 16000, subtype="FLOAT"
    )
    put(tasks / "turn_taking" / "1", {"input": sound((0.2, 0.8))}, turn_taking="[")
    put(tasks / "backchannel" / "speaker", {"input": sound((0.2, 0.8))})
    done = writer(Answers()).write(tasks, tmp_path / "out", batch_size=2)
    assert done.written == ["pause_handling/1"]
    assert {reason: found["first"][0].partition(":")[0] for reason, found in done.odd.describe().items()} == {
        "no input.wav": "pause_handling/2",
        "input.wav cannot be read as audio": "pause_handling/3",
        "input.wav is shorter than 0.1 s": "pause_handling/4",
        "input.wav holds samples that are not finite": "pause_handling/5",
        "turn_taking.json is no JSON": "turn_taking/1",
        "a name that is no number": "backchannel/speaker",
    }
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["pause_handling"], "odd samples leave nothing"


def test_nothing_usable_is_one_line(tmp_path):
    put(tmp_path / "b" / "pause_handling" / "1")
    with pytest.raises(InputError, match="none of 1 samples can be used. 1 of them: no input.wav, such as pause_handling/1"):
        writer(Answers()).write(tmp_path / "b", tmp_path / "out")


class Stops(Answers):
    """Ends its process, so to speak, at the second batch."""

    def offline_inference(self, input_signal, input_signal_lens):
        if self.asked:
            raise KeyboardInterrupt
        return super().offline_inference(input_signal, input_signal_lens)


def test_a_run_that_ends_early_goes_on(tmp_path):
    for name in ("1", "2"):
        put(tmp_path / "b" / "pause_handling" / name, {"input": sound((0.2, 0.8))})
    with pytest.raises(KeyboardInterrupt):
        writer(Stops()).write(tmp_path / "b", tmp_path / "b", batch_size=1)
    done = writer(Answers()).write(tmp_path / "b", tmp_path / "b")
    assert (done.kept, done.written) == (["pause_handling/1"], ["pause_handling/2"])


def test_a_run_that_ends_between_two_files_of_a_sample_goes_on(tmp_path):
    put(tmp_path / "b" / "pause_handling" / "1", {"input": sound((0.2, 0.8))})

    def ends(audio, sample_rate):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Writer(Answers(), "mine", "v1", words="text_channel", vad=ends).write(tmp_path / "b", tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "b" / "pause_handling" / "1").iterdir()) == [
        *("input.wav", "nemo_duplex.json", "output.wav")
    ]
    assert writer(Answers()).write(tmp_path / "b", tmp_path / "b").written == ["pause_handling/1"], "it is known as ours"


def test_channels_are_averaged(tmp_path):
    folder = put(tmp_path / "b" / "pause_handling" / "1")
    user = sound((0.2, 0.8))
    soundfile.write(folder / "input.wav", np.stack([user, np.zeros_like(user)], axis=1), 16000, subtype="FLOAT")
    writer(Echo()).write(tmp_path / "b", tmp_path / "b")
    heard, _ = soundfile.read(folder / "output.wav")
    assert np.sqrt(np.mean(heard**2)) == pytest.approx(np.sqrt(np.mean((user / 2) ** 2)), rel=0.05)


def test_v15_has_a_clean_pair_and_the_words_of_the_user(tmp_path):
    about = {"context_text": "", "current_turn_text": "", "timestamps": [1.0, 1.5]}
    inputs = {"input": sound((0.2, 1.2)), "clean_input": sound((0.2, 0.6), seconds=5.0)}
    put(tmp_path / "b" / "talking_to_other" / "1", inputs, metadata=about)
    writer(Answers(), "v1.5").write(tmp_path / "b", tmp_path / "out")
    sample = tmp_path / "out" / "talking_to_other" / "1"
    lengths = {path.name: soundfile.info(path).frames for path in sample.glob("*.wav")}
    assert lengths == {"input.wav": 64000, "output.wav": 64000, "clean_input.wav": 80000, "clean_output.wav": 80000}
    assert words(sample / "input.json") == [("well", 0.2, 0.5), ("yes.", 0.5, 1.2)]
    assert words(sample / "clean_input.json") == [("well", 0.2, 0.5), ("yes.", 0.5, 0.6)]
    assert read(sample / "output.json") == read(sample / "clean_output.json") != read(sample / "input.json")
    assert set(read(sample / "nemo_duplex.json")["outputs"]) == {
        *("output.wav", "clean_output.wav", "output.json", "clean_output.json", "input.json", "clean_input.json")
    }


def test_v2_has_both_sides(tmp_path):
    put(tmp_path / "b" / "Daily" / "Daily.ordering.001", {"A": sound((0.2, 0.8))})
    put(tmp_path / "b" / "Daily" / "Daily.ordering.002", {"input": sound((0.2, 0.8))})
    writer(Answers(), "v2").write(tmp_path / "b", tmp_path / "out")
    for number in "12":
        sample = tmp_path / "out" / "Daily" / f"Daily.ordering.00{number}"
        both, rate = soundfile.read(sample / "combined.wav")
        assert (both.shape, rate) == ((64000, 2), 16000)
        assert both[:, 0].tolist() == soundfile.read(sample / "A.wav")[0].tolist()
        assert both[:, 1].tolist() == soundfile.read(sample / "B.wav")[0].tolist()
        assert words(sample / "A.json") == [("well", 0.2, 0.5), ("yes.", 0.5, 0.8)]
        assert read(sample / "B.json")["text"].startswith("one two")


def test_v3_has_the_result_of_its_scripts(tmp_path):
    name = "travel_01_65e8cf8f4c7424fa062e54a3"
    about = {"id": "travel_01", "domain": "travel_identity", "title": "Fly", "expected_tool_calls": []}
    put(tmp_path / "b" / name, {"input": sound((0.2, 0.8))}, metadata=about)
    writer(Answers(), "v3", provider="salm").write(tmp_path / "b", tmp_path / "out")
    result = read(tmp_path / "out" / name / "result_salm.json")
    assert (result["pid"], result["example_id"], result["category"]) == (
        "65e8cf8f4c7424fa062e54a3",
        "travel_01",
        "travel_identity",
    )
    assert result["user_speech_end_rel"] == 0.8 and result["audio_agent_speech_start"] == pytest.approx(1.04, abs=0.003)
    assert result["perceived_total_latency"] == pytest.approx(0.24, abs=0.003)
    assert result["asr_chunks"] == chunks(*words_of(result["asr_chunks"]))["chunks"] and result["actual_tool_calls"] == []
    assert soundfile.info(tmp_path / "out" / name / "output_salm.wav").frames == 64000


def words_of(listed):
    return [(c["text"], *c["timestamp"]) for c in listed]


def test_a_provider_is_part_of_a_name():
    check_setting("text_channel", "salm-1.b_2")
    with pytest.raises(InputError, match="provider=a/b: expected letters"):
        check_setting("text_channel", "a/b")
