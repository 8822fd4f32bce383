"""A workflow of commands: what runs again after a change, an interruption, a failure, and what does not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from nemo_duplex.inputs import InputError
from nemo_duplex.scripts import workflow
from nemo_duplex.scripts.workflow import Step, Workflow

# Appends its name to a diary, copies its inputs into its output.
WORK = """
import pathlib, sys
out, name, *inputs = sys.argv[1:]
out = pathlib.Path(out)
with open(out.parent / "diary", "a") as diary: diary.write(name)
made = out / name / "made"
made.parent.mkdir(exist_ok=True)
made.write_text(name + "".join((out / i / "made").read_text() for i in inputs))
"""


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def step(out: Path, name: str, *after: str, program: str = WORK, **changes) -> Step:
    command = (sys.executable, "-c", program, str(out), name, *after)
    return Step(**{**dict(name=name, about=f"makes {name}", command=command, outputs=[f"{name}/made"], after=after), **changes})


def diary(out: Path) -> str:
    """The steps that ran since the last look."""
    path = out.parent / "diary"
    text = path.read_text() if path.exists() else ""
    path.unlink(missing_ok=True)
    return text


def groups(out: Path, source: Path | None = None):
    reads = [source] if source else []
    return [[step(out, "a", reads=reads)], [step(out, "b", "a"), step(out, "c")], [step(out, "d", "b", "c")]]


def test_steps_run_in_order_and_only_once(out, capsys):
    done = Workflow(out, groups(out)).run()
    ran = diary(out)
    assert ran[0] == "a" and ran[-1] == "d" and sorted(ran) == list("abcd")
    assert (out / "d" / "made").read_text() == "dbac"
    assert [d.name for d in done] == list("abcd") and all(d.seconds > 0 and d.now for d in done)
    assert "[4/4] d: makes d" in capsys.readouterr().out

    again = Workflow(out, groups(out)).run()
    assert [d.seconds for d in again] == [d.seconds for d in done], "the seconds of the run that did the work"
    assert not any(d.now for d in again)
    assert diary(out) == ""
    assert capsys.readouterr().out.count("done before") == 4


def test_a_change_redoes_the_step_and_what_builds_on_it(out, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "x.py").write_text("1")
    Workflow(out, groups(out, source)).run()
    diary(out)
    (source / "x.py").write_text("2")
    Workflow(out, groups(out, source)).run()
    assert diary(out) == "abd"
    changed = groups(out, source)
    changed[1][1] = step(out, "c", program=WORK + "\n# another command")
    Workflow(out, changed).run()
    assert diary(out) == "cd"


def test_an_output_that_was_removed_is_made_again(out):
    Workflow(out, groups(out)).run()
    diary(out)
    (out / "c" / "made").unlink()
    Workflow(out, groups(out)).run()
    assert diary(out) == "c"


def test_a_failed_step_is_named_and_the_next_run_goes_on(out):
    fails = "import sys; print('half'); sys.exit(2)"
    broken = groups(out)
    broken[2] = [step(out, "d", "b", "c", program=fails)]
    with pytest.raises(InputError, match="The step d ended with exit code 2. Run the same command again"):
        Workflow(out, broken).run()
    diary(out)
    Workflow(out, groups(out)).run()
    assert diary(out) == "d"


def test_side_by_side_a_failed_step_is_quoted_and_the_other_finishes(out):
    fails = "import sys; print('loading\\r 50 %\\nerror: no voice'); sys.exit(2)"
    broken = groups(out)
    broken[1][0] = step(out, "b", "a", program=fails)
    with pytest.raises(
        InputError, match=r"The step b ended with exit code 2. It said: error: no voice \(all of it in .*b.log\)"
    ):
        Workflow(out, broken).run()
    assert diary(out) == "ac"


def test_a_step_that_writes_nothing_is_not_done(out):
    with pytest.raises(InputError, match="The step a ended without an error, but there is no .*a/made"):
        Workflow(out, [[step(out, "a", program="pass")]]).run()


# Counts up in a file and is slow at it: what a training is, with its checkpoint.
SLOW = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1]) / "t"
folder.mkdir(exist_ok=True)
count = folder / "count"
for i in range(int(count.read_text()) if count.exists() else 0, 10**6):
    part = folder / "part"  # the process may be killed at any time, and the count is read meanwhile
    part.write_text(str(i + 1))
    part.replace(count)
    print(i, flush=True)
    if (folder / "enough").exists():
        break
    time.sleep(0.05)
(folder / "made").write_text("whole")
"""


@pytest.mark.parametrize(
    "stop, code, beside", [(signal.SIGINT, 130, False), (signal.SIGTERM, 143, True)], ids=["alone", "side by side"]
)
def test_an_interrupted_step_resumes(out, tmp_path, stop, code, beside):
    program = tmp_path / "program.py"
    second = ", Step('u', 'slow too', [sys.executable, '-c', 'import time; time.sleep(60)'], ['u'])" if beside else ""
    program.write_text(f"""
import signal, sys
from nemo_duplex.scripts import workflow
from nemo_duplex.scripts.workflow import Workflow, Step
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
try:
    Workflow({str(out)!r}, [[Step('t', 'slow', [sys.executable, '-c', {SLOW!r}, {str(out)!r}], ['t']){second}]]).run()
except KeyboardInterrupt:
    sys.exit(130)
""")
    process = subprocess.Popen([sys.executable, str(program)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    count = out / "t" / "count"
    deadline = time.monotonic() + 120
    while not (count.exists() and count.read_text() not in ("", "1", "2")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(stop)
    assert process.wait(timeout=120) == code
    reached = int(count.read_text())
    time.sleep(0.2)
    assert int(count.read_text()) == reached, "the step outlived its workflow"

    note = out / ".chain" / "t.json"
    before = json.loads(note.read_text())
    assert before["seconds"] > 0.1, "two counts were whole"
    note.write_text(json.dumps(before | {"seconds": before["seconds"] + 1000}))
    (out / "t" / "enough").touch()
    (done,) = Workflow(out, [[Step("t", "slow", [sys.executable, "-c", SLOW, str(out)], ["t"])]]).run()
    assert (out / "t" / "made").read_text() == "whole" and int(count.read_text()) == reached + 1
    assert done.seconds > before["seconds"] + 1000, "the seconds before the interruption count"
    assert not os.path.exists(out / "u")


def test_a_step_begun_with_another_command_loses_what_it_left(out):
    counts = SLOW.replace("10**6", "20").replace("0.05", "0")
    Workflow(out, [[Step("t", "counts", [sys.executable, "-c", counts, str(out)], ["t"])]]).run()
    Workflow(out, [[Step("t", "counts", [sys.executable, "-c", counts + "\nassert i == 19", str(out)], ["t"])]]).run()
    note = out / ".chain" / "t.json"
    note.write_text(json.dumps(json.loads(note.read_text()) | {"seconds": 1000.0}))
    (done,) = Workflow(out, [[Step("t", "counts", [sys.executable, "-c", "pass", str(out)], [])]]).run()
    assert done.seconds < 1000, "the seconds of another command do not count"


def test_a_workflow_that_is_killed_goes_on_where_it_was(out):
    """The step was noted when it was begun, so what it left is its own."""
    kills = "import os, pathlib, signal, sys; out = pathlib.Path(sys.argv[1]); half = out / 'half'; "
    kills += "there = half.exists(); half.touch(); (out / 'made').touch(); there or os.kill(os.getppid(), signal.SIGKILL); "
    kills += "(out / 'whole').write_text(str(there))"
    command = [sys.executable, "-c", kills, str(out)]
    program = f"""
from nemo_duplex.scripts import workflow
from nemo_duplex.scripts.workflow import Workflow, Step
Workflow({str(out)!r}, [[Step("k", "kills", {command!r}, ["half", "made"])]]).run()
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    deadline = time.monotonic() + 120
    while not (out / "whole").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (out / "whole").read_text() == "False"
    Workflow(out, [[Step("k", "kills", command, ["half", "made"])]]).run()
    assert (out / "whole").read_text() == "True", "begun and never ended is not done, whatever it has written"


def test_a_step_that_fails_after_it_has_written_is_not_done(out):
    fails = WORK + "\nif not (out / 'again').exists(): (out / 'again').touch(); sys.exit(3)"
    with pytest.raises(InputError, match="The step a ended with exit code 3"):
        Workflow(out, [[step(out, "a", program=fails)]]).run()
    Workflow(out, [[step(out, "a", program=fails)]]).run()
    assert diary(out) == "aa"


def test_what_side_by_side_steps_print_is_kept_over_runs(out):
    says = [[step(out, "a", program="print('first')" + WORK), step(out, "b")]]
    Workflow(out, says).run()
    (out / "a" / "made").unlink()
    (out / "b" / "made").unlink()
    Workflow(out, says).run()
    assert (out / ".chain" / "a.log").read_text() == "first\n" * 2


def test_headers_say_the_minutes_that_are_left(out, capsys, monkeypatch):
    now = iter(range(0, 10**6, 30))  # every look at the clock takes half a minute
    monkeypatch.setattr(workflow, "time", SimpleNamespace(monotonic=lambda: float(next(now)), sleep=time.sleep))
    plan = [[step(out, "a", minutes=1.0)], [step(out, "b", "a", minutes=2.0), step(out, "c", minutes=3.0)]]
    Workflow(out, plan).run()
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "[1/3] a: makes a (1.0 min; 0.5 of about 4.0 min are over)"
    assert re.fullmatch(r"\[2/3\] b: makes b \(2.0 min; 2.[05] of about 4.0 min are over\)", second), second
    (out / "b" / "made").unlink()
    Workflow(out, plan).run()
    said = capsys.readouterr().out.splitlines()
    assert "of about 2.0 min" in said[1] and said[2] == "[3/3] c: makes c (done before)"


def test_caches_and_the_order_of_files_are_no_change(out, tmp_path, monkeypatch):
    source = tmp_path / "source"
    (source / "__pycache__").mkdir(parents=True)
    for name in ("a.py", "b.py", "__pycache__/a.pyc"):
        (source / name).write_text(name)
    Workflow(out, [[step(out, "a", reads=[source])]]).run()
    (source / "__pycache__" / "a.pyc").write_text("other")
    rglob = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: reversed(list(rglob(path, pattern))))
    Workflow(out, [[step(out, "a", reads=[source])]]).run()
    assert diary(out) == "a"


def test_a_file_deep_in_a_folder_that_a_step_reads_is_a_change(out, tmp_path):
    (tmp_path / "source" / "deep").mkdir(parents=True)
    deep = tmp_path / "source" / "deep" / "a.py"
    for text in ("one", "two", "two"):
        deep.write_text(text)
        Workflow(out, [[step(out, "a", reads=[tmp_path / "source"])]]).run()
    assert diary(out) == "aa"


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "thesis").touch()
    with pytest.raises(InputError, match="holds something that this command did not write"):
        Workflow(tmp_path, [])


def test_a_missing_source_is_named(out, tmp_path):
    with pytest.raises(InputError, match="There is no .*gone.nemo"):
        Workflow(out, [[step(out, "a", reads=[tmp_path / "gone.nemo"])]]).run()
    assert not out.exists(), "nothing is left behind"
