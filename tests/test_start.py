"""What a program loads before it works: `--help` no heavy library, the model nothing heavy beyond what NeMo loads."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py"))
# What `--help` reads a configuration with, and what the environment itself loads in every process.
FOR_HELP = {"antlr4", "attr", "attrs", "hydra", "nemo_duplex", "omegaconf", "packaging", "yaml"}

RUN = """
import runpy, sys
before = set(sys.modules)
sys.argv = {arguments!r}
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as end:
    print("ended with", end.code)
print(sorted({{name.partition(".")[0] for name in set(sys.modules) - before}}))
"""
MODEL = """
import sys
import nemo.collections.asr.modules, nemo.collections.common.tokenizers
import nemo.collections.tts.models.audio_codec, nemo.core.classes
before = set(sys.modules)
import nemo_duplex.models.duplex_s2s
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before}))
"""


def said(program: str) -> list[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def loaded(program: str) -> set[str]:
    """Packages of others, and ours, that the program loads."""
    return {name for name in ast.literal_eval(said(program)[-1]) if name not in sys.stdlib_module_names and name[0] != "_"}


@pytest.mark.parametrize("example", EXAMPLES)
def test_help_loads_no_heavy_library(example):
    """Of 0.2 s, half is hydra; numpy, torch or scipy would each add as much again, or ten times that."""
    names = loaded(RUN.format(arguments=[str(ROOT / "examples" / f"{example}.py"), "--help"]))
    assert "nemo_duplex" in names
    assert names - FOR_HELP <= {"cython_runtime"}, "--help loads it: import it where it is used"


@pytest.mark.slow
def test_the_model_loads_nothing_heavy_beyond_what_nemo_loads():
    """NeMo's own packages take 98 % of the time: they load all their models, lhotse, librosa, transformers and more."""
    assert loaded(MODEL) == {"nemo_duplex"}
