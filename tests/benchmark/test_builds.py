"""Two builds in turns: each is measured by its own code, ratios are new to old with their spread, and no error is lost."""

from __future__ import annotations

import io
import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from nemo_duplex.benchmark import builds, fresh_starts, one_build
from nemo_duplex.benchmark.builds import PARTS, BuildsSetting, benchmark_builds, builds_tables
from nemo_duplex.benchmark.turns import COLUMNS, MILLISECONDS, NUMBER, SECONDS, Build, build, compared, in_turns, rate, row
from nemo_duplex.inputs import InputError

ROOT = Path(__file__).parents[2]

# A build of which a tick takes so many milliseconds, by a clock of its own; the first ones are the warm-up. In 8 bits, half.
FAKE = {
    "torch.py": "def set_num_threads(count): print('threads', count)\ndef manual_seed(seed): pass",
    "nemo_duplex/__init__.py": "import time\nclock = [0.0]\ntime.perf_counter = lambda: clock[0]\n",
    "nemo_duplex/version.py": "",
    "nemo_duplex/scripts/cli.py": "def quiet_libraries(): print('a library prints')",
    "nemo_duplex/benchmark/callers.py": """
def user_speech(data, rate): return [0.0] * rate
class Caller:
    def __init__(self, audio, samples, number): pass
    def next_frame(self): return "audio"
""",
    "nemo_duplex/benchmark/sessions.py": """
from types import SimpleNamespace
def Simulation(ticks, options): return SimpleNamespace(ticks=ticks, options=options)
def simulate(agent, audio, callers, simulation):
    assert simulation.ticks == 12
    return SimpleNamespace(in_time=callers <= agent.most * (2 if simulation.options.get("int8") else 1))
""",
    "nemo_duplex/streaming/step_timer.py": """
from contextlib import contextmanager
class StepTimer:
    @contextmanager
    def stage(self, name): yield
    @contextmanager
    def step(self): yield
""",
    "nemo_duplex/models/duplex_s2s.py": "class DuplexS2SModel: pass",
    "nemo_duplex/benchmark/measured_models.py": """
from types import SimpleNamespace
from nemo_duplex import clock
MILLISECONDS, MOST, WARM_UP = {milliseconds}, {most}, 26
class Agent:
    user_sample_rate, most = 16000, MOST
    perception = SimpleNamespace(chunk_frames=2, samples_per_frame=1280)
    def open_engine(self, max_sessions, timer, int8=False):
        ticks = [0]
        def step():
            number = ticks[0] - WARM_UP
            ticks[0] += 1
            cost = MILLISECONDS[number // 2] / 1000 if number >= 0 else 9.0
            with timer.stage("llm"):
                clock[0] += cost / 4 / (2 if int8 else 1)
            clock[0] += cost * 3 / 4 / (2 if int8 else 1)
        return SimpleNamespace(open_session=lambda: SimpleNamespace(push=lambda audio: None), step=step)
    def save_to(self, path): open(path, "w").write(str(MOST))
def random_model(size, device, precision): return Agent()
def MeasuredAgent(path, data, device, precision): return SimpleNamespace(model=Agent())
""",
}

_FAILS_AT_ITS_END = """
import atexit, os, sys
def end():
    print("no such thing", file=sys.stderr, flush=True)
    os._exit(3)
atexit.register(end)
"""


def fake_build(folder: Path, milliseconds: list[float], most: int = 8, files: dict[str, str] | None = None) -> Path:
    """A checkout whose ticks take so long, two in a round, and which has `most` callers in time."""
    for name, text in {**FAKE, **(files or {})}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text.replace("{milliseconds}", repr(milliseconds)).replace("{most}", str(most)))
    (folder / "__init__.py").unlink()
    return folder


@pytest.fixture
def fakes(tmp_path, monkeypatch):
    """An old build of 40 ms a tick, and a new one of 10 ms in the first round and 20 ms in two others."""
    old = fake_build(tmp_path / "old", [40.0] * 3)
    new = fake_build(tmp_path / "new", [10.0, 20.0, 20.0], most=24)
    monkeypatch.setattr(builds, "HERE", new)
    return SimpleNamespace(old=old, new=new)


# --- the whole command ------------------------------------------------------------------------------------------------


def test_ratios_are_new_to_old_of_all_rounds_and_of_each(fakes, script, tmp_path, capsys, monkeypatch):
    """The old build is named by `against`, although PYTHONPATH names the new one first."""
    monkeypatch.setenv("PYTHONPATH", str(fakes.new))
    keys = ["what=builds", f"against={fakes.old}", "parts=[paper8,paper32]", "rounds=3", "ticks=6", "size=tiny", "threads=1"]
    assert script(*keys, f"out={tmp_path / 'page.md'}") == 0
    printed, page = capsys.readouterr().out, (tmp_path / "page.md").read_text()
    result = json.loads((tmp_path / "page.json").read_text())
    rows = [row(figure) for figure in result["paper32"]["figures"]]
    assert rows == [
        ("tick p50", "40 ms", "20 ms", "0.500", "0.250", "0.500"),
        ("tick p95", "40 ms", "20 ms", "0.500", "0.250", "0.500"),
        ("tick p99", "40 ms", "20 ms", "0.500", "0.250", "0.500"),
        ("llm p50", "10 ms", "5 ms", "0.500", "0.250", "0.500"),
        ("llm p95", "10 ms", "5 ms", "0.500", "0.250", "0.500"),
        ("llm p99", "10 ms", "5 ms", "0.500", "0.250", "0.500"),
    ]
    assert result["paper32"]["figures"][0]["ratios"] == pytest.approx([0.25, 0.5, 0.5])
    in_8_bits = result["paper8"]["figures"][0]
    assert (in_8_bits["old"], in_8_bits["new"]) == pytest.approx((0.02, 0.01))
    assert result["builds"] == [f"old: {fakes.old}", f"new: {fakes.new}"]
    eight, thirty_two = builds_tables(result)
    assert eight.about[0] == "random weights, size tiny, int8, 1 caller, threads 1; 3 rounds of 2 ticks of each build"
    assert "float32" in thirty_two.about[0] and eight.columns == COLUMNS
    for table in (eight, thirty_two):
        assert table.text() in printed and table.markdown() in page


def test_callers_in_time_and_ticks_of_some_in_8_bits_beside_the_old_build_in_float32(fakes):
    setting = BuildsSetting(str(fakes.old), ["callers"], rounds=3, ticks=12, callers=5, most=40, threads=1)
    fake_build(fakes.old, [40.0] * 6), fake_build(fakes.new, [10.0] * 6, most=24)
    about, figures = PARTS["callers"][1](setting)
    found = {figure["name"]: row(figure)[1:] for figure in figures}
    assert found["callers in time"] == ("8", "24", "3.000", "3.000", "3.000")
    assert found["callers in time, int8"] == ("8", "40", "5.000", "5.000", "5.000")
    assert found["tick p50"][:3] == ("40 ms", "10 ms", "0.250")
    assert found["tick, int8 p50"][:3] == ("40 ms", "5 ms", "0.125")
    assert "the agent of make demo, 5 callers, threads 1; 3 rounds of 4 ticks of each build" in about[0]
    assert "of 1 to 40, " in about[1] and "the median of 3 searches" in about[1]


def test_numbers_of_callers_are_tried_in_turns_up_to_the_first_that_is_late():
    asked = []

    def side(name, most):
        def ask(simulate, ticks, options):
            asked.append((name, simulate))
            return {"in_time": simulate <= most}

        return SimpleNamespace(ask=ask), {}

    setting = BuildsSetting(least=2, most=16)
    assert builds._in_time(setting, [side("old", 4), side("new", 99), side("none", 1)]) == [4, 16, 0]
    assert asked == [
        *(("old", 2), ("new", 2), ("none", 2), ("old", 4), ("new", 4)),
        *(("old", 8), ("new", 8), ("new", 16)),
    ]


@pytest.fixture
def answered(monkeypatch):
    """Takes the place of processes: notes what each build is given and asked, and answers from a table by its name."""
    said = SimpleNamespace(given=[], asked=[], answers={})

    class Pretended:
        def __init__(self, name, checkout, part, threads, **given):
            said.given.append((name, checkout, part, threads, given))
            self.name, self.first = name, said.answers[name][0]
            self._answers = iter(said.answers[name][1:])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def ask(self, **question):
            said.asked.append((self.name, question))
            return next(self._answers)

    monkeypatch.setattr(builds, "build", Pretended)
    return said


def test_one_caller_of_smollm_has_one_core_both_ways_in_the_same_rounds(answered, tmp_path):
    for name, first in (("old", 0.04), ("new", 0.02)):
        ticks = [{"times": {"tick": [first / bits], "llm": [1.0]}} for bits in (1, 2)]
        answered.answers[name] = [{}, {}, {}, *ticks, *ticks]
    setting = BuildsSetting(str(tmp_path), rounds=2, ticks=3, threads=8)
    _, figures = PARTS["smollm"][1](setting)
    assert [(name, part, threads, given) for name, _, part, threads, given in answered.given] == [
        ("old", "ticks", 1, {"model": "smollm"}),
        ("new", "ticks", 1, {"model": "smollm"}),
    ]
    one_round = [(name, {"ticks": 2, "options": options}) for options in ({}, {"int8": True}) for name in ("old", "new")]
    assert answered.asked[4:] == one_round * 2 and [a[1]["open"] for a in answered.asked[:4]] == [1] * 4
    found = {figure["name"]: (figure["old"], figure["new"]) for figure in figures}
    assert found["tick, float32 p50"] == (0.04, 0.02) and found["tick, int8 p50"] == (0.02, 0.01)


def test_a_recording_beside_the_old_build_and_nemo(answered, tmp_path):
    for name, seconds, frames in (("in-tree", 8.0, [1, 2, 3]), ("old", 4.0, [1, 2, 4]), ("new", 2.0, [1, 2, 4])):
        answered.answers[name] = [{"what": name}, {"times": {"recording": [seconds]}, "frames": frames}]
    about, figures = PARTS["file"][1](BuildsSetting(str(tmp_path), rounds=1, histories=[3.0, 60.0], threads=2))
    assert [row(figure)[:4] for figure in figures] == [
        ("60 s in one piece", "4.00 s", "2.00 s", "0.500"),
        ("60 s in one piece, NeMo in-tree", "8.00 s", "2.00 s", "0.250"),
    ]
    assert about[1] == "of 3 frames the new build has 3 as the old one, 2 as NeMo's in-tree model"
    assert [(given["whose"], given["size"], given["seconds"]) for *_, given in answered.given] == [
        ("in_tree", "small", 60.0),
        ("ours", "small", 60.0),
        ("ours", "small", 60.0),
    ]
    assert len({given["folder"] for *_, given in answered.given}) == 1, "Ours convert the checkpoint that the other leaves."


def test_each_build_trains_with_its_own_keys(answered, tmp_path, monkeypatch):
    for name, seconds, operations in (("old", 4.0, 10**9), ("new", 2.0, 2 * 10**9)):
        answered.answers[name] = [{"loss": 5.0, "operations": operations}, {"times": {"step": [seconds]}}]
    monkeypatch.setattr("nemo_duplex.benchmark.builds.matmul_rate", lambda device, dtype: 2e9)
    setting = BuildsSetting(
        str(tmp_path), rounds=1, size="tiny", batch=2, seconds=4.0, old_keys=["trainer.precision=16"], new_keys=["seed=1"]
    )
    about, figures = PARTS["train"][1](setting)
    assert [row(figure)[:4] for figure in figures] == [
        ("a step, LoRA", "4.00 s", "2.00 s", "0.500"),
        ("frames a second, LoRA", "25.0", "50.0", "2.000"),
        ("a step, in full", "4.00 s", "2.00 s", "0.500"),
        ("frames a second, in full", "25.0", "50.0", "2.000"),
    ]
    keys = [given["keys"] for *_, given in answered.given]
    both = ["trainer.precision=32-true", "model.loss.chunk=256", "model.activation_checkpointing=true"]
    assert keys[2:] == [[*both, "trainer.precision=16"], [*both, "seed=1"]]
    assert keys[0][3].startswith("model.lora={r: 16") and len(keys[0]) == len(keys[1]) == 5
    assert "only old: trainer.precision=16; only new: seed=1" in about[1]
    assert about[2] == (
        "LoRA: loss of the first step 5.000000 old, 5.000000 new; products are 2 GFLOP a step, 12% old and 50% new of the "
        "2 GFLOP/s of a large one"
    )


def test_fresh_processes_are_started_in_turns_and_the_first_of_each_does_not_count(fakes, monkeypatch):
    order = []

    def started(name, checkout, agent):
        assert agent.read_text() == "8", "The old build wrote it."
        order.append((name, checkout.name))
        return 100.0 if len(order) <= 8 else {"old": 3.0, "new": 1.5}[checkout.name]

    monkeypatch.setattr(builds, "started", started)
    _, figures = PARTS["start"][1](BuildsSetting(str(fakes.old), rounds=2))
    assert [row(figure) for figure in figures] == [
        (name, "3.00 s", "1.50 s", "0.500", "0.500", "0.500") for name in fresh_starts.COMMANDS
    ]
    assert order == [(name, side) for name in fresh_starts.COMMANDS for side in ("old", "new")] * 3


def test_a_fresh_process_takes_the_package_of_its_build(fakes, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(fakes.new))
    fresh_starts.check_package(fakes.old)
    with pytest.raises(InputError, match=f"takes nemo_duplex from {fakes.old}/nemo_duplex/__init__.py, expected {ROOT}/no"):
        monkeypatch.setattr(fresh_starts, "_run", lambda *_: f"{fakes.old}/nemo_duplex/__init__.py\n")
        fresh_starts.check_package(ROOT / "no")


def test_a_fresh_process_is_timed_and_its_failure_is_one_line(fakes):
    assert 0 < fresh_starts.started("import nemo_duplex", fakes.old, Path("agent.nemo")) < 60
    with pytest.raises(InputError, match=rf"^train_codec.py --help of the build {fakes.old} ended with code 2: .*No such file"):
        fresh_starts.started("train_codec.py --help", fakes.old, Path("agent.nemo"))


# --- processes --------------------------------------------------------------------------------------------------------


def test_a_process_measures_the_checkout_that_it_is_given(fakes, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(fakes.new), str(ROOT)]))
    for checkout in (fakes.old, fakes.new):
        with build("one", checkout, "ticks", threads=1, model="tiny") as one:
            assert one.first == {"package": str(checkout / "nemo_duplex" / "__init__.py")}


def test_another_package_than_that_of_the_checkout_is_refused(fakes, tmp_path):
    (fakes.old / "nemo_duplex" / "__init__.py").write_text("__file__ = '/elsewhere/nemo_duplex/__init__.py'")
    with pytest.raises(InputError, match="ended with code 1: nemo_duplex is that of /elsewhere/.*, expected that of .*old"):
        with build("old", fakes.old, "ticks", threads=1, model="tiny"):
            pass
    process = SimpleNamespace(stdout=io.StringIO('{"package": "/elsewhere/nemo_duplex/__init__.py"}\n'))
    with pytest.raises(InputError, match="The old build is /elsewhere/nemo_duplex/__init__.py, expected that of"):
        Build("old", fakes.old, process, tmp_path / "stderr")


@pytest.mark.parametrize("place", ["load", "tick", "end"])
def test_an_error_of_a_process_is_one_line(place, tmp_path):
    broken = "raise ValueError('first line\\nno such thing')"
    callers = FAKE["nemo_duplex/benchmark/callers.py"].replace('return "audio"', broken)
    name, text = {
        "load": ("nemo_duplex/scripts/cli.py", broken),
        "tick": ("nemo_duplex/benchmark/callers.py", callers),
        "end": ("nemo_duplex/models/duplex_s2s.py", f"class DuplexS2SModel: pass\n{_FAILS_AT_ITS_END}"),
    }[place]
    checkout = fake_build(tmp_path / "broken", [1.0], files={name: text})
    with pytest.raises(InputError, match=rf"^The old build \({checkout}\) ended with code [13]: no such thing$") as raised:
        with build("old", checkout, "ticks", threads=1, model="tiny") as one:
            assert place != "load"
            one.ask(open=1)
            assert place == "end"
    assert ("code 3" in str(raised.value)) == (place == "end")


def test_a_process_that_was_killed_is_an_error_at_the_next_question(fakes):
    with pytest.raises(InputError, match="The old build .* ended with code -9: threads 1"):
        with build("old", fakes.old, "ticks", threads=1, model="tiny") as one:
            one._process.kill()
            one._process.wait()
            one.ask(open=1)


def test_the_process_ends_with_the_block_also_by_an_error(fakes):
    with pytest.raises(ZeroDivisionError):
        with build("old", fakes.old, "ticks", threads=1, model="tiny") as one:
            raise ZeroDivisionError
    assert one._process.returncode is not None


# --- ratios -----------------------------------------------------------------------------------------------------------


def test_sides_answer_one_after_the_other_in_every_round():
    order = []

    def side(name, **own):
        def ask(**question):
            order.append((name, question))
            return {"from": name, "number": len(order)}

        return SimpleNamespace(ask=ask), own

    old, new = in_turns([side("old"), side("new", options={"int8": True})], rounds=2, ticks=3)
    assert order == [("old", {"ticks": 3}), ("new", {"ticks": 3, "options": {"int8": True}})] * 2
    assert [answer["number"] for answer in old] == [1, 3] and [answer["from"] for answer in new] == ["new", "new"]


def test_percentiles_are_of_all_rounds_and_ratios_also_of_each():
    old, new = [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]], [[0.5, 0.5, 0.5], [3.0, 3.0, 3.0]]
    middle, _, last = compared("tick", old, new, MILLISECONDS)
    assert (middle["old"], middle["new"], middle["ratio"]) == pytest.approx((1.5, 1.75, 1.75 / 1.5))
    assert last["new"] == pytest.approx(3.0) and last["ratios"] == pytest.approx([0.5, 1.5])
    assert row(middle) == ("tick p50", "1,500 ms", "1,750 ms", "1.167", "0.500", "1.500")
    (seconds,) = compared("a minute", [[4.0], [8.0]], [[2.0], [2.0]], SECONDS)
    assert row(seconds) == ("a minute", "6.00 s", "2.00 s", "0.333", "0.250", "0.500")


def test_a_rate_is_larger_where_less_time_is_taken():
    (figure,) = compared("frames a second", [[4.0], [4.0]], [[2.0], [1.0]], rate(100))
    assert row(figure) == ("frames a second", "25.0", "66.7", "2.667", "2.000", "4.000")


def test_no_callers_in_time_have_no_ratio():
    (figure,) = compared("callers in time", [[0]], [[4]], NUMBER)
    assert row(figure) == ("callers in time", "0", "4", "nan", "nan", "nan")


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong, line",
    [
        ({"against": None}, "against is not given: the folder of an older checkout"),
        ({"against": "nowhere"}, "against=nowhere: expected a checkout of nemo_duplex, a folder with nemo_duplex/__init__.py"),
        ({"parts": ["paper"]}, r"parts=\[paper\]: expected some of paper8, paper32, smollm, callers, file, train, start"),
        ({"parts": []}, r"parts=\[\]: expected some of"),
        ({"device": "cuda"}, "device=cuda: builds are compared on a CPU"),
        ({"precision": "16"}, "precision=16: expected 32 or bf16"),
        ({"size": "big"}, "size is 'big', expected one of tiny, small, paper"),
        ({"histories": [0.5]}, r"histories=\[0.5\]: expected numbers of 1 or more"),
        ({"model": "nowhere.nemo"}, "model: .*nowhere.nemo"),
    ],
)
def test_wrong_settings_are_one_line(wrong, line):
    with pytest.raises(InputError, match=line):
        benchmark_builds(BuildsSetting(**{"against": str(ROOT), **wrong}))


def test_all_parts_are_measured_where_none_is_named(monkeypatch):
    monkeypatch.setattr(
        builds, "PARTS", {name: (title, lambda _, name=name: ([name], [])) for name, (title, _) in PARTS.items()}
    )
    result = benchmark_builds(BuildsSetting(str(ROOT)))
    assert [*result][4:] == ["paper8", "paper32", "smollm", "callers", "file", "train", "start"]
    assert [table.about[0] for table in builds_tables(result)] == [*result][4:]


def test_a_build_is_named_by_its_folder_and_its_commit(tmp_path):
    assert builds._in_words(tmp_path) == str(tmp_path)
    (tmp_path / "file").write_text("1")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init"], ["add", "file"], [*who, "commit", "-m", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True)
    assert (said := builds._in_words(tmp_path)).startswith(f"{tmp_path}, commit ") and "changes" not in said
    (tmp_path / "file").write_text("2")
    assert builds._in_words(tmp_path) == f"{said} with changes"


# --- real models ------------------------------------------------------------------------------------------------------


def answers_of(part, *questions, **given):
    """What a part answers, here: the first answer, and one to each question."""
    asked, answers = io.StringIO("".join(json.dumps(question) + "\n" for question in questions)), io.StringIO()
    part(one_build.Questions(asked, answers), **given)
    return [json.loads(line) for line in answers.getvalue().splitlines()]


def test_ticks_of_a_real_engine_are_whole_chunks_with_their_stages(monkeypatch):
    monkeypatch.setattr(one_build, "_WARM_UP", 2)
    questions = [{"open": 3}, {"ticks": 3}, {"open": 1, "options": {"int8": True}}, {"ticks": 2, "options": {"int8": True}}]
    first, _, three, _, one = answers_of(one_build.ticks, *questions, model="smollm_tiny")
    assert Path(first["package"]).is_relative_to(ROOT)
    assert {name: len(times) for name, times in three["times"].items()} == {
        **{"tick": 4, "llm": 4, "codec": 4},
        **{"mel": 4, "encoder": 4},
    }
    assert {name: len(times) for name, times in one["times"].items()} == {
        "tick": 2,
        "llm": 2,
        "codec": 2,
        "mel": 1,
        "encoder": 1,
    }
    assert all(sum(three["times"][stage]) < sum(three["times"]["tick"]) for stage in ("mel", "encoder", "llm", "codec"))


def test_the_agent_of_make_demo_is_saved_and_tried(tmp_path, monkeypatch):
    monkeypatch.setattr("nemo_duplex.benchmark.sessions._WARM_UP_CHUNKS", 1)
    path = tmp_path / "agent.nemo"
    *_, saved, tried = answers_of(one_build.ticks, {"save": str(path)}, {"simulate": 1, "ticks": 2}, model="demo")
    assert path.exists() and saved == {} and tried["in_time"] in (True, False)


@pytest.mark.parametrize("keys", [[], [builds._LORA]], ids=["in full", "LoRA"])
def test_training_answers_with_as_many_steps_as_it_is_asked_for(keys):
    given = {"keys": ["trainer.precision=32-true", *keys], "batch": 2, "seconds": 4.0, "warmup": 1}
    first, two, one = answers_of(one_build.training, {"steps": 2}, {"steps": 1}, model="smollm_tiny", **given)
    assert [len(answer["times"]["step"]) for answer in (two, one)] == [2, 1] and first["loss"] > 0
    again, _ = answers_of(one_build.training, {"steps": 1}, model="smollm_tiny", **given)
    assert again["loss"] == first["loss"]
    half, _ = answers_of(one_build.training, {"steps": 1}, model="smollm_tiny", **{**given, "batch": 1, "warmup": 2})
    assert first["operations"] == pytest.approx(2 * half["operations"], rel=0.05) and half["operations"] > 1e6, "of one step"


@pytest.mark.slow
def test_a_recording_makes_the_same_frames_as_nemos_model(tmp_path):
    given = {"folder": str(tmp_path), "size": "tiny", "seconds": 2.0}
    (first, theirs), (_, ours) = (answers_of(one_build.recording, {}, whose=w, **given) for w in ("in_tree", "ours"))
    assert len(ours["frames"]) == 25 and "FastConformer 2 x 16" in first["what"]
    assert theirs["frames"][:25] == ours["frames"], "NeMo's model may add a frame behind the end of the recording"


@pytest.mark.slow
def test_this_build_beside_itself(script, capsys):
    assert script("what=builds", f"against={ROOT}", "parts=[paper8]", "size=tiny", "rounds=2", "ticks=4", "threads=1") == 0
    printed = capsys.readouterr().out
    assert f"new: {ROOT}" in printed and "2 rounds of 2 ticks of each build" in printed
    assert [line.split()[0] for line in printed.splitlines() if " p50 " in line] == ["tick", "mel", "encoder", "llm", "codec"]
