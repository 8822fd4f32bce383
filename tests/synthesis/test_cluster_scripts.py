"""The SLURM array and the indexed job of Kubernetes: every slice once, in keys that the script knows."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from nemo_duplex.scripts.config import ScriptConfig
from nemo_duplex.synthesis.executors import parse_slice

ROOT = Path(__file__).parents[2]
SBATCH = ROOT / "examples" / "slurm" / "synthesize.sbatch"


@pytest.fixture
def submit(tmp_path):
    """Runs the script as SLURM does, with a python that prints what it is given."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    python.chmod(0o755)

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        environment = inherited | {"PYTHON": str(python), "OUT": "/corpora/a b"} | variables
        return subprocess.run(["bash", SBATCH, *arguments], env=environment, capture_output=True, text=True, cwd=ROOT)

    return run


def task(number: int, first: int, count: int) -> dict[str, str]:
    return {
        "SLURM_ARRAY_TASK_ID": str(number),
        "SLURM_ARRAY_TASK_MIN": str(first),
        "SLURM_ARRAY_TASK_COUNT": str(count),
        "SLURM_CPUS_PER_TASK": "8",
    }


@pytest.mark.parametrize("first", [0, 1])
def test_the_jobs_of_an_array_make_every_slice_once(submit, first):
    slices = set()
    for number in range(first, first + 3):
        said = submit("hours=20", "source=[a b.json]", **task(number, first, 3)).stdout.splitlines()
        assert said[0] == "examples/synthesize.py" and said[1] == "--config-name=synthesize"
        cfg = ScriptConfig("synthesize", said[2:])
        keys = {key: value for key, value in cfg.leaves()}
        assert (keys["out"], keys["workers"], keys["hours"]) == ("/corpora/a b", 8, 20.0)
        slices.add(parse_slice(keys["slice"]))
    assert slices == {(0, 3), (1, 3), (2, 3)}


def test_one_job_without_an_array_makes_all(submit):
    assert "slice=0/1" in submit().stdout.splitlines()


def test_without_a_folder_it_says_so(submit):
    lacking = submit(OUT="")
    assert lacking.returncode != 0 and "Set OUT" in lacking.stderr


def test_the_array_is_queued_again_and_keeps_its_logs():
    asked = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(\S+))?$", SBATCH.read_text(), re.MULTILINE))
    assert "requeue" in asked and asked["open-mode"] == "append" and "%a" in asked["output"] and asked["ntasks"] == "1"


def test_the_job_of_kubernetes_makes_every_slice_once():
    (job,) = yaml.safe_load_all((ROOT / "deploy" / "synthesize.yaml").read_text())
    assert (job["kind"], job["spec"]["completionMode"]) == ("Job", "Indexed")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert int(variables["JOBS"]) == job["spec"]["completions"]
    slices = set()
    for index in range(job["spec"]["completions"]):
        arguments = list(container["args"])
        for name, value in (variables | {"JOB_COMPLETION_INDEX": str(index)}).items():
            arguments = [argument.replace(f"$({name})", value) for argument in arguments]
        (slice_,) = (argument for argument in arguments if argument.startswith("slice="))
        slices.add(parse_slice(slice_.removeprefix("slice=")))
    keys = dict(ScriptConfig("synthesize", arguments).leaves())
    assert slices == {(i, 100) for i in range(100)}
    assert keys["workers"] == int(container["resources"]["requests"]["cpu"])
    volumes = {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}
    assert volumes == {mount["name"] for mount in container["volumeMounts"]} == {"corpora", "tmp"}
    assert any(keys["out"].startswith(mount["mountPath"]) for mount in container["volumeMounts"])
