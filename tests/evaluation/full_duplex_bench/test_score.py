"""The metrics of trees made by hand."""

import json
import subprocess
import sys

import pytest
import soundfile

from nemo_duplex.evaluation.confidence import wilson
from nemo_duplex.evaluation.full_duplex_bench.results_table import results_table
from nemo_duplex.evaluation.full_duplex_bench.score import score_tree
from nemo_duplex.inputs import InputError
from tests.evaluation.full_duplex_bench.trees import buzzes, chunks, put, sound

SILENCE, WORD = chunks(), chunks(("Yes.", 2.0, 2.5))
TURN = chunks(("Yes,", 2.0, 2.5), ("it", 2.6, 2.7), ("is.", 2.8, 3.25))


def values(task):
    return {name: entry["value"] for name, entry in task["metrics"].items()}


def test_pauses(tmp_path):
    for name, output in enumerate((SILENCE, WORD, TURN, TURN)):
        put(tmp_path / "synthetic_pause_handling" / f"{name}", output=output)
    put(tmp_path / "synthetic_pause_handling" / "4")
    put(tmp_path / "synthetic_pause_handling" / "5", output='{"text": "x"}')
    put(tmp_path / "synthetic_pause_handling" / "6", output={"chunks": [{"text": "a", "timestamp": [None, 1.0]}]})
    task = score_tree(tmp_path, "v1")["tasks"]["synthetic_pause_handling"]
    assert task["metrics"] == {
        "takeover_rate": {
            "value": 0.5,
            "n": 4,
            "ci95": pytest.approx(wilson(2, 4)),
            "bootstrap95": (0.0, 1.0),
            "scorer": "full_duplex_bench",
            "better": "lower",
            "unit": "",
        }
    }
    assert (task["samples"], task["scored"]) == (7, 4)
    assert {reason: found["first"][0].partition(":")[0] for reason, found in task["odd"].items()} == {
        "no output.json": "synthetic_pause_handling/4",
        "output.json has no list of chunks": "synthetic_pause_handling/5",
        "output.json has a word without times": "synthetic_pause_handling/6",
    }
    assert task["published"]["Moshi"] == {"takeover_rate": 0.985} and len(task["published"]) == 6


def test_turns(tmp_path):
    for name, (output, end) in enumerate([(TURN, 1.5), (TURN, 2.25), (WORD, 1.0), (TURN, 1.0)]):
        put(tmp_path / "candor_turn_taking" / f"{name}", output=output, turn_taking=[{"timestamp": [end, end + 9]}])
    put(tmp_path / "candor_turn_taking" / "9", output=TURN)
    task = score_tree(tmp_path, "v1")["tasks"]["candor_turn_taking"]
    assert values(task) == {"takeover_rate": 0.75, "latency": pytest.approx((0.5 + 0.0 + 1.0) / 3)}
    assert task["metrics"]["latency"]["n"] == 3 and task["metrics"]["latency"]["better"] == "lower"
    assert task["metrics"]["takeover_rate"]["better"] == "higher"
    assert list(task["odd"]) == ["no turn_taking.json"] and "rating" not in task["metrics"]


def test_nothing_taken_over_has_no_latency(tmp_path):
    put(tmp_path / "turn_taking" / "1", output=SILENCE, turn_taking=[{"timestamp": [1, 2]}])
    task = score_tree(tmp_path, "v1")["tasks"]["turn_taking"]
    assert values(task) == {"takeover_rate": 0.0, "latency": None}


def interruptions(root):
    for name, (output, end) in enumerate([(TURN, 1.5), (TURN, 2.25), (WORD, 1.0)]):
        mark = {"context": "Books?", "interrupt": "No, films.", "timestamp": [0.5, end]}
        put(root / "user_interruption" / f"{name}", output=output, interrupt=[mark])
    return root


def test_interruptions(tmp_path):
    results = score_tree(interruptions(tmp_path), "v1")
    task = results["tasks"]["user_interruption"]
    assert values(task) == {"takeover_rate": pytest.approx(2 / 3), "latency": 0.25, "rating": None}
    assert task["metrics"]["rating"]["not_run"].startswith("needs a judge")
    [note] = task["notes"]
    assert note.startswith("1 samples have words before the end of the interruption, such as user_interruption/1:")
    assert "rating         not run: needs a judge" in results_table(results)


def test_ratings_of_the_official_script_are_read(tmp_path):
    root = interruptions(tmp_path)
    put(root / "user_interruption" / "0", rating={"analysis": "", "rating": 4})
    put(root / "user_interruption" / "1", rating={"analysis": "", "rating": 6})  # beyond its scale
    rating = score_tree(root, "v1")["tasks"]["user_interruption"]["metrics"]["rating"]
    assert (rating["value"], rating["n"], rating["failed"]) == (4.0, 1, 1)
    assert rating["scorer"] == "rating.json of the official script"


def test_a_judge_rates_answers_that_take_the_turn(tmp_path):
    asked = []

    def rate(*texts):
        asked.append(texts)
        return None if len(asked) == 2 else 3.0

    rating = score_tree(interruptions(tmp_path), "v1", rater=rate)["tasks"]["user_interruption"]["metrics"]["rating"]
    assert asked == [("Books?", "No, films.", "Yes, it is.")] * 2
    assert (rating["value"], rating["n"], rating["failed"], rating["scorer"]) == (3.0, 1, 1, "judge")


def test_backchannels(tmp_path):
    people = tmp_path / "people.json"
    people.write_text(json.dumps({"1": [0, 1, 1, 0], "2": [1, 1]}))
    icc = tmp_path / "icc_backchannel"
    put(icc / "1", {"output": sound((1.0, 1.5), seconds=5)}, output=chunks(("mhm", 1.0, 1.4)))
    put(icc / "2", {"output": sound((1.0, 4.2), seconds=5)}, output=TURN)
    put(icc / "3", {"output": sound(seconds=5)}, output=SILENCE)  # not in `people`
    put(icc / "spk", {"output": sound(seconds=5)}, output=SILENCE)
    put(icc / "4", output=SILENCE)
    task = score_tree(icc, "v1", vad=buzzes, people=people)["tasks"]["icc_backchannel"]
    assert values(task)["takeover_rate"] == 0.5 and values(task)["frequency"] == pytest.approx(0.5 * 1 / 5)
    assert task["rows"][1] == {"sample": "2", "takeover": True, "frequency": 0.0, "divergence": 1.0}
    assert 0 < task["rows"][0]["divergence"] < 0.8
    assert sorted(task["odd"]) == ["a name that is no number", "an ID without people's backchannels", "no output.wav"]
    without = score_tree(icc, "v1", vad=buzzes)["tasks"]["icc_backchannel"]
    assert without["scored"] == 3 and "people=" in without["metrics"]["divergence"]["not_run"]
    deaf = score_tree(icc, "v1")["tasks"]["icc_backchannel"]["metrics"]
    assert all("pip install silero-vad" in entry["not_run"] for entry in deaf.values())


def test_times_of_backchannels_are_rounded_as_theirs(tmp_path):
    """3.04 s of speech: 0.96 to 4.00 are 1.0 to 4.0 for their script, which is no turn by length."""
    put(tmp_path / "backchannel" / "1", {"output": sound((0.96, 4.0), seconds=5)}, output=SILENCE)
    [row] = score_tree(tmp_path, "v1", vad=buzzes)["tasks"]["backchannel"]["rows"]
    assert row["frequency"] == pytest.approx(1 / 5)


@pytest.mark.parametrize("content", ["[", "[1]", '{"1": []}', '{"1": [0, 0]}', '{"1": ["x"]}'])
def test_a_file_of_people_that_is_none(tmp_path, content):
    put(tmp_path / "backchannel" / "1", output=SILENCE)
    (tmp_path / "people.json").write_text(content)
    with pytest.raises(InputError, match="people: "):
        score_tree(tmp_path, "v1", vad=buzzes, people=tmp_path / "people.json")


def test_version_15(tmp_path):
    about = {"context_text": "", "current_turn_text": "", "timestamps": [1.0, 1.5]}
    root = tmp_path / "user_interruption"
    wavs = {"input": sound((0.5, 1.0), (2.0, 3.0)), "output": sound((1.25, 2.5), (3.25, 3.75))}
    put(root / "1", wavs, metadata=about, content_tag={"behaviour": ["C_RESPOND"]})
    put(root / "2", wavs | {"output": sound((1.5, 2.125))}, metadata=about, content_tag={"behaviour": ["C_RESUME"]})
    put(root / "3", {"input": sound()}, metadata=about)
    task = score_tree(root, "v1.5", vad=buzzes)["tasks"]["user_interruption"]
    assert task["rows"][0] == {
        "sample": "1",
        "latency_stop_list": [[2.0, 2.5]],
        "latency_resp_list": [[1.0, pytest.approx(1.25, abs=2e-3)], [3.0, pytest.approx(3.25, abs=2e-3)]],
    }
    found = values(task)
    assert found["stop_latency"] == found["median_stop_latency"] == pytest.approx((0.5 + 0.125) / 2, abs=2e-3)
    assert found["response_latency"] == pytest.approx((0.25 + 0.25 + 0.5) / 3, abs=2e-3)
    assert found["median_response_latency"] == pytest.approx(0.25, abs=2e-3)
    assert (found["respond"], found["resume"], found["unknown"]) == (0.5, 0.5, 0.0)
    assert task["metrics"]["respond"]["scorer"] == "content_tag.json of the official script"
    assert task["metrics"]["stop_latency"]["better"] == "lower" and list(task["odd"]) == ["no output.wav"]


def test_going_on_through_a_backchannel_is_no_slow_stop(tmp_path):
    about = {"context_text": "", "current_turn_text": "", "timestamps": [1.0, 1.5]}
    put(tmp_path / "user_backchannel" / "1", {"input": sound((0.5, 1)), "output": sound((0.6, 2))}, metadata=about)
    metrics = score_tree(tmp_path, "v1.5", vad=buzzes)["tasks"]["user_backchannel"]["metrics"]
    assert metrics["stop_latency"]["better"] is None and "content_tag.json" in metrics["respond"]["not_run"]


def test_v1_and_v15_outputs_in_one_folder_are_noted(tmp_path):
    put(tmp_path / "pause_handling" / "1", output=SILENCE, clean_output=SILENCE)
    [note] = score_tree(tmp_path, "v1")["tasks"]["pause_handling"]["notes"]
    assert "keep v1 and v1.5 in separate folders" in note


def v3_tree(root):
    search = {"function": "search_flights", "args": {"destination": "Rome"}}
    hard = {"function": "book_flight", "args": {"name": "Ann"}}
    word = [{"text": "Sure.", "timestamp": [6.0, 6.5]}]
    scenarios = [
        (
            "a",
            [search],
            {"actual_tool_calls": [search | {"timestamp_start": 5.5}], "asr_chunks": word, "transcript": "Sure."},
            6.0,
        ),
        ("b", [search, hard], {"actual_tool_calls": [search], "asr_chunks": word, "transcript": "Sure."}, 4.5),
        ("c", [search], {"actual_tool_calls": [], "asr_chunks": [], "transcript": ""}, None),
    ]
    for name, expected, result, start in scenarios:
        about = {
            "id": name,
            "domain": "travel",
            "difficulty": "hard" if name == "b" else "easy",
            "expected_tool_calls": expected,
        }
        about |= {"disfluency_features": ["FILLER", "PAUSE"] if name == "a" else ["FILLER"], "state_rollback_test": name == "b"}
        result |= {"user_speech_end_rel": 5.0} | ({} if start is None else {"audio_agent_speech_start": start})
        put(root / f"{name}_0123456789abcdef01234567", metadata=about, result_salm=result)
    return root


def test_version_3(tmp_path):
    task = score_tree(v3_tree(tmp_path), "v3")["tasks"][tmp_path.name]
    assert values(task) == {
        "pass_at_1": pytest.approx(1 / 3),
        "tool_selection": pytest.approx((1 + 2 / 3) / 2),
        "arguments": 0.75,
        "tool_selection_all": pytest.approx((1 + 2 / 3 + 0) / 3),
        "arguments_all": 0.5,
        "turn_take_rate": pytest.approx(2 / 3),
        "first_response_latency": 1.0,
        "interruption_rate": 0.5,
        "tool_call_latency": 0.5,
        "response_quality": None,
        "task_latency": None,
        "filler_rate": None,
    }
    assert task["pass_at_1_by"]["difficulty"]["easy"]["value"] == 0.5
    assert (
        task["pass_at_1_by"]["disfluency"]["PAUSE"]["value"] == 1.0 and task["pass_at_1_by"]["disfluency"]["FILLER"]["n"] == 3
    )
    assert task["pass_at_1_by"]["self_correction"]["True"]["value"] == 0.0
    assert "gpt-4o" in task["metrics"]["response_quality"]["not_run"]
    assert task["published"]["GPT-Realtime"]["pass_at_1"] == 0.6


def test_version_3_needs_one_provider(tmp_path):
    root = v3_tree(tmp_path)
    put(root / "a_0123456789abcdef01234567", result_other={}, metadata='{"id": "a"}')
    with pytest.raises(InputError, match="provider: not given; there are results of other, salm. Choose one"):
        score_tree(root, "v3")
    with pytest.raises(InputError, match="provider=mine: there are no results of it; there are results of other, salm"):
        score_tree(root, "v3", provider="mine")
    task = score_tree(root, "v3", provider="salm")["tasks"][root.name]
    assert (task["scored"], list(task["odd"])) == (2, ["metadata.json has no list of expected_tool_calls"])


def test_version_2_is_a_judges(tmp_path):
    with pytest.raises(InputError, match="version=v2"):
        score_tree(tmp_path, "v2")


def test_published_figures_are_grey_and_apart(tmp_path):
    results = score_tree(interruptions(tmp_path), "v1")
    lines = results_table(results, colour=True).splitlines()
    assert lines[2] == "user_interruption: 3 of 3 samples"
    assert lines[3].startswith("  takeover_rate  0.667 (0.208 to 0.939), n 3, higher is better")
    assert "\033[90m  published, Moshi: takeover_rate 1, latency 0.257, rating 0.765\033[0m" in lines
    assert "\033" not in results_table(results)


def test_scoring_imports_neither_torch_nor_lhotse(tmp_path):
    put(tmp_path / "backchannel" / "1", {"output": sound((1.0, 1.5))}, output=SILENCE)
    code = (
        "import sys; from nemo_duplex.evaluation.activity import SileroVad;"
        "from nemo_duplex.evaluation.full_duplex_bench.score import SILERO, score_tree;"
        f"print(score_tree({str(tmp_path)!r}, 'v1', vad=SileroVad(*SILERO))['tasks']['backchannel']['scored']);"
        "print(sorted({'torch', 'lhotse', 'nemo'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "1\n[]\n", done.stderr


def test_a_tree_without_outputs_is_one_line(tmp_path):
    put(tmp_path / "pause_handling" / "1", {"input": sound((0.5, 1.0))})
    put(tmp_path / "turn_taking" / "1", turn_taking=[{"timestamp": [1, 2]}])
    with pytest.raises(InputError, match="bench: none of 2 samples can be used. All of them: no output.json, such as pause_h"):
        score_tree(tmp_path, "v1")


def test_sound_of_another_rate_or_length_is_noted(tmp_path):
    """Read as if it had 16 kHz, as the official script does, 2.4 s at 24 kHz would be 3.6 s, and a turn."""
    folder = put(tmp_path / "backchannel" / "1", {"input": sound(seconds=4)}, output=SILENCE)
    soundfile.write(folder / "output.wav", sound((0.5, 2.9), seconds=5, rate=24000), 24000)
    task = score_tree(tmp_path, "v1", vad=buzzes)["tasks"]["backchannel"]
    assert task["rows"][0]["frequency"] == pytest.approx(1 / 5)
    rate, length = task["notes"]
    assert rate.startswith("1 samples have an output.wav of another rate than 16000 Hz, such as 1:")
    assert length.startswith("1 samples have an output.wav of another length than input.wav, such as 1:")
