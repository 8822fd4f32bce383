"""The parts of an evaluation: what is measured, what is kept of before, and what is said of the rest."""

import hashlib
import json
import subprocess
import sys
from dataclasses import replace

import pytest

import nemo_duplex.evaluation.scoring as scoring_module
from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.commands import _warnings, evaluate_command, setting_of
from nemo_duplex.evaluation.confidence import estimate_ratio
from nemo_duplex.evaluation.controls.control import NOT_PLAYED, counts
from nemo_duplex.evaluation.judge.setting import JudgeSetting
from nemo_duplex.evaluation.outcome import Reference
from nemo_duplex.evaluation.scorer import Scorer, made_by
from nemo_duplex.evaluation.scoring import report_of
from nemo_duplex.evaluation.setting import EvaluationSetting
from nemo_duplex.inputs import InputError, NotInstalled, plain
from nemo_duplex.scripts.config import ScriptConfig
from tests.evaluation.outcomes import FIRST, SECOND
from tests.evaluation.settings import quick

EAR = Scorer("ear", "1")


@pytest.fixture
def stages(monkeypatch):
    """Judges that count how often they are asked."""
    asked = []

    def stage(group):
        def judge(scored, setting, out, progress):
            asked.append(group)
            return {name: {"score": made_by(EAR, estimate_ratio([(len(asked), 1)], False))} for name in scored}, [EAR]

        return judge

    monkeypatch.setattr(scoring_module, "_STAGES", {group: stage(group) for group in scoring_module.GROUPS})
    return asked


def report(out, what, outcomes=(FIRST, SECOND)):
    return report_of({"dev": list(outcomes)}, EvaluationSetting(what=what, examples=0), out, progress=False)


def test_what_is_measured_goes_by_what(stages, tmp_path):
    found = report(tmp_path, "all")["sets"]["dev"]
    assert stages == ["speech"], "nobody is named who costs money"
    assert found["judge"]["not_run"].startswith("no judge is named: give judge.url")
    assert found["gt_llm"]["not_run"].startswith("no language model is named")
    assert report(tmp_path / "other", "turn_taking")["sets"]["dev"]["speech"]["not_run"] == (
        "what=turn_taking leaves it out: give what=speech"
    )
    with pytest.raises(InputError, match="what=speach: expected one of .*Did you mean 'speech'"):
        EvaluationSetting(what="speach")


def test_what_was_measured_before_is_kept_for_the_same_conversations(stages, tmp_path):
    first = report(tmp_path, "speech")
    second = report(tmp_path, "judge")
    assert stages == ["speech", "judge"]
    assert second["sets"]["dev"]["speech"] == first["sets"]["dev"]["speech"]
    assert second["sets"]["dev"]["judge"]["score"]["value"] == 2 and {"ear"} < set(second["scorers"])
    others = report(tmp_path, "judge", [FIRST])
    assert "not_run" in others["sets"]["dev"]["speech"], "other conversations"


def test_conversations_are_the_same_in_any_order_but_not_with_other_right_answers(stages, tmp_path):
    report(tmp_path, "speech")
    question, *rest = FIRST.questions
    other = replace(FIRST, questions=(replace(question, reference=Reference(("right",))), *rest))
    assert "not_run" not in report(tmp_path, "judge", [SECOND, FIRST])["sets"]["dev"]["speech"]
    assert "not_run" in report(tmp_path, "judge", [other, SECOND])["sets"]["dev"]["speech"]


def test_controls_and_the_model_are_kept_when_its_output_is_judged(stages, tmp_path):
    controls = {"controls": [{"name": "silence", "passed": True, "detail": ""}], "control_counts": {"passed": 1}}
    about, setting = {"model": "a.nemo", "model_sha256": "5a"}, EvaluationSetting(examples=0)
    report_of({"dev": [FIRST]}, setting, tmp_path, about, controls | {"control_counts": counts([])}, progress=False)
    found = report_of({"dev": [FIRST]}, replace(setting, what="judge"), tmp_path, {"outputs": "here"}, progress=False)
    assert found["controls"] == controls["controls"] and about.items() < found["provenance"].items()
    others = report(tmp_path, "judge")
    assert others["controls"] == [NOT_PLAYED.as_dict()] and "model" not in others["provenance"]


def test_a_model_that_nobody_heard_said_not_nothing(tmp_path, monkeypatch):
    def no_ears(*arguments):
        raise NotInstalled("faster-whisper is not installed: pip install it")

    monkeypatch.setattr("nemo_duplex.evaluation.speech.recogniser_key.open_recogniser", no_ears)
    setting = EvaluationSetting(what="judge", examples=0, judge=JudgeSetting(url="http://localhost:9/v1", model="m"))
    found = report_of({"dev": [replace(FIRST, agent=(), writes=False)]}, setting, tmp_path, progress=False)
    assert found["sets"]["dev"]["judge"]["not_run"].startswith("faster-whisper is not installed")


def test_a_text_that_is_no_text_stops_no_report(tmp_path):
    report_of({"\udce9": [replace(FIRST, agent=(Turn("agent", 3.5, 7.2, "\ud83d $x^{$"),))]}, quick(examples=1), tmp_path)
    assert "? $x^{$" in (tmp_path / "events.csv").read_text() and (tmp_path / "tables.md").stat().st_size > 0


def test_a_judge_that_cannot_be_asked_ends_the_run_after_the_report(stages, tmp_path, monkeypatch):
    def refuses(*arguments):
        raise InputError("judge.url: 401. Check OPENAI_API_KEY.")

    monkeypatch.setitem(scoring_module._STAGES, "judge", refuses)
    report(tmp_path, "speech")
    with pytest.raises(InputError, match="judge.url: 401"):
        report(tmp_path, "judge")
    written = json.loads((tmp_path / "report.json").read_text())["sets"]["dev"]
    assert written["judge"]["not_run"] == "judge.url: 401. Check OPENAI_API_KEY." and written["speech"]["score"]["value"] == 1
    assert written["barge_in"]["success_rate"]["value"] == 1


def plain_keys(given):
    return plain(ScriptConfig("evaluate", list(given)).checked())


def test_every_key_reaches_the_setting():
    given = {
        "what": "speech",
        "vad": "silero",
        "asr_turns": "7",
        "recogniser": "ear",
        "utmos": "u",
        "dnsmos": "d",
        "ecapa2": "e",
        "voice": "v",
        "control_turns": "3",
        "examples": "2",
        "workers": "4",
        "seed": "9",
        "judge.url": "http://localhost/v1",
        "judge.samples": "2",
    }
    setting = setting_of(plain_keys([f"{key}={value}" for key, value in given.items()]))
    assert {key: str(getattr(setting, key)) for key in given if "." not in key} == {
        k: v for k, v in given.items() if "." not in k
    }
    assert (setting.judge.url, setting.judge.samples, setting.judge.seed) == ("http://localhost/v1", 2, 9)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["out=o"], "what=all measures an agent .* or another model's output"),
        (["model=m", "outputs=p", "out=o"], "Give one of them"),
        (["outputs=p"], "what=all writes files: give out=FOLDER"),
        (["what=compare", "a=x", "out=o"], "give a=FOLDER and b=FOLDER"),
        (["what=codec", "out=o"], "give codecs=.FILE. and data=, a corpus, a NeMo manifest"),
        (["what=encoder", "out=o", "encoders=[e]"], "give encoders=.FILE. and manifests=.FILE."),
        (["what=encoder", "encoders=[e]", "manifests=[m]"], "what=encoder writes files: give out=FOLDER"),
        (["what=encoder", "encoders=[e]", "manifests=[m]", "out=o", "conditions=[bable]"], "Did you mean 'babble'"),
        (["what=encoder", "encoders=[e]", "manifests=[m]", "out=o"], "encoders: there is no file e"),
        (["model=m", "out=o", "utmos=nowhere"], "utmos: there is no file nowhere"),
        (["model=m", "out=o", "recogniser=whisper-tiny"], "recogniser=whisper-tiny: there is no such file .* Did you mean"),
        (
            ["model=m", "out=o", "fail_under={token_channel.barge_in.success_rate: 0.5, answers.families.x.seen: 0}"],
            "no file m",
        ),
        (["model=m", "out=o", "fail_under={answers.al: 0.5}"], "no number is called 'answers.al'. Did you mean 'answers.all'"),
        (["what=cod"], "what=cod: expected one of .*Did you mean 'codec'"),
    ],
)
def test_what_is_missing_is_said_in_one_line(given, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=said):
        evaluate_command(plain_keys(given))


@pytest.mark.parametrize(("outputs", "out"), [("wavs", "wavs"), ("wavs", "wavs/report"), ("rows", "rows")])
def test_a_report_is_not_written_among_what_is_read(outputs, out, tmp_path):
    (tmp_path / "wavs").mkdir()
    (tmp_path / "wavs" / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "mine.jsonl").write_text("{}")
    with pytest.raises(InputError, match="lies in outputs=.*Choose a folder outside of it"):
        evaluate_command(plain_keys([f"outputs={tmp_path / outputs}", f"out={tmp_path / out}"]))


def test_another_models_output_is_scored_without_torch(tmp_path):
    """From rows and no sound to all files, in a process of its own."""
    turns, files = [{"start": 1, "end": 3, "text": "hi"}], {"user_audio": "u.wav", "agent_audio": "a.wav"}
    rows = [{"id": f"c{i}", "duration": 10.0, "user_turns": turns, **files} for i in range(2)]
    code = f"""
import json, sys
import numpy as np, soundfile
buzz = 0.3 * np.sign(np.sin(np.arange(160000) / 20)).astype("float32")
user, agent = np.zeros(160000, "float32"), np.zeros(160000, "float32")
user[16000:48000], agent[60000:90000] = buzz[16000:48000], buzz[60000:90000]
soundfile.write("u.wav", user, 16000); soundfile.write("a.wav", agent, 16000)
open("conversations.jsonl", "w").write("".join(json.dumps(row) + "\\n" for row in {rows!r}))
from nemo_duplex.evaluation.commands import evaluate_command
from nemo_duplex.inputs import plain
from nemo_duplex.scripts.config import ScriptConfig
keys = ["what=turn_taking", "outputs=conversations.jsonl", "out=scored", "workers=1", "fail_over={{response.latency: 0.5}}"]
failures = evaluate_command(plain(ScriptConfig("evaluate", keys).checked()))
print(failures)
assert not {{"torch", "lhotse", "nemo"}} & set(sys.modules), "scoring needs neither"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "response.latency is 0.75 s (n 2), over 0.50 s" in done.stdout
    found = json.loads((tmp_path / "scored" / "report.json").read_text())
    (name,) = found["sets"]
    assert found["sets"][name]["response"]["latency"]["value"] == pytest.approx(0.75, abs=0.02)
    assert (tmp_path / "scored" / "report.html").exists() and found["provenance"]["format"] == "rows"


def test_what_may_spoil_numbers_is_said():
    spoilt = replace(FIRST.conversation, custom={"channels": {"warnings": ["The agent's channel is silent."]}})
    outcomes = {"dev": [replace(FIRST, conversation=spoilt), SECOND]}
    assert _warnings(outcomes) == ["dev, one: The agent's channel is silent."]


def test_every_key_of_outputs_reaches_the_reader(tmp_path, monkeypatch):
    asked = {}

    def opened(path, format, **keys):
        asked.update(path=path, format=format, **keys)
        raise InputError("that is all")

    monkeypatch.setattr("nemo_duplex.evaluation.commands.open_outputs", opened)
    given = {"outputs": "o", "format": "nemo", "data": "c", "pad": "true", "swap": "true", "max_odd_rows": "0.3", "limit": "7"}
    with pytest.raises(InputError, match="that is all"):
        evaluate_command(plain_keys([f"out={tmp_path}", *(f"{key}={value}" for key, value in given.items())]))
    assert (asked["path"], asked["format"], asked["corpus"], asked["limit"]) == ("o", "nemo", "c", 7)
    assert (asked["pad"], asked["swap"], asked["max_odd_rows"]) == (True, True, 0.3)


def test_every_key_of_an_agent_reaches_what_plays_it(tmp_path, monkeypatch):
    """The model, the corpus, which sets of it in which form, and how they are played."""
    asked = {}

    class Model:
        def eval(self):
            return "agent"

    def sets(data, names, limit):
        asked["sets"] = (data, names, limit)
        return {name: [name] for name in names}

    def impatient(data, names, folder, limit, workers, overwrite):
        asked["impatient"] = (data, names, folder.name, limit, workers, overwrite)
        return {f"{name}-impatient": [name] for name in names}

    def evaluate(agent, sets, out, setting, **keys):
        asked.update(keys, agent=agent, evaluated=list(sets), vad=setting.vad)
        raise InputError("that is all")

    monkeypatch.setattr("nemo_duplex.models.duplex_s2s.DuplexS2SModel.restore_from", lambda path, map_location: Model())
    monkeypatch.setattr("nemo_duplex.evaluation.sets.read_sets", sets)
    monkeypatch.setattr("nemo_duplex.evaluation.sets.impatient_sets", impatient)
    monkeypatch.setattr("nemo_duplex.evaluation.run.evaluate", evaluate)
    (tmp_path / "agent.nemo").write_text("weights")
    given = {"model": tmp_path / "agent.nemo", "data": "corpus", "out": tmp_path / "out", "sets": "[a,b]", "impatient": "[a]"}
    given |= {"limit": 7, "overwrite": "true", "batch_size": 3, "vad": "silero", "workers": 4}
    with pytest.raises(InputError, match="that is all"):
        evaluate_command(plain_keys([f"{key}={value}" for key, value in given.items()]))
    assert asked["sets"] == ("corpus", ["a", "b"], 7) and asked["impatient"] == ("corpus", ["a"], "impatient", 7, 4, True)
    assert (asked["agent"], asked["evaluated"], asked["vad"]) == ("agent", ["a", "b", "a-impatient"], "silero")
    assert (asked["batch_size"], asked["device"], asked["overwrite"]) == (3, "cpu", True)
    provenance = asked["provenance"]
    assert (provenance["model"], provenance["data"]) == (str(given["model"]), "corpus")
    assert provenance["model_sha256"] == hashlib.sha256(b"weights").hexdigest()
