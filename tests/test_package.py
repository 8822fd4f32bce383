"""The wheel alone, in an environment without the checkout: what it carries, and that an agent runs from it."""

from __future__ import annotations

import json
import re
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from tests.dummies import speech_like, tiny_model

ROOT = Path(__file__).parent.parent
NOT_SOURCE = shutil.ignore_patterns(".*", "demo", "build", "dist", "*.egg-info", "__pycache__", "nemo_experiments", "outputs")

pytestmark = pytest.mark.slow


def run(*command: object, folder: Path) -> str:
    done = subprocess.run([str(c) for c in command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built as for the index: the source archive from the checkout, the wheel from the source archive."""
    folder = tmp_path_factory.mktemp("build")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_SOURCE)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", folder / "source", folder=folder)
    assert len(list((folder / "dist").glob("nemo_duplex-*.tar.gz"))) == 1
    (wheel,) = (folder / "dist").glob("nemo_duplex-*.whl")
    return wheel


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """An environment that has the wheel, and what it depends on from here: no network, no checkout."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv", folder=folder)
    python = folder / "venv" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, folder=folder)
    # A path line in a .pth adds a folder, but does not run the .pth files in it, and so not the editable install of here.
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    return python


def test_it_carries_every_file_of_the_package(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    here = {p.relative_to(ROOT).as_posix() for p in (ROOT / "nemo_duplex").rglob("*") if p.is_file() and p.suffix != ".pyc"}
    conf = {f"nemo_duplex/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert {n for n in names if not re.match(r"nemo_duplex-[^/]+\.dist-info/", n)} == here | conf
    assert [n for n in names if n.endswith(".dist-info/licenses/LICENSE")]


def test_its_configurations_are_found(python, tmp_path):
    program = (
        "from nemo_duplex.scripts.config import conf_folder; print(conf_folder(), len(list(conf_folder().glob('*.yaml'))))"
    )
    folder, number = run(python, "-c", program, folder=tmp_path).split()
    assert Path(folder).is_relative_to(python.parent.parent) and Path(folder).name == "conf"
    assert int(number) == len(list((ROOT / "conf").glob("*.yaml")))


def test_an_agent_restores_and_answers_a_caller(python, tmp_path):
    model = tiny_model(tmp_path)
    model.save_to(str(tmp_path / "agent.nemo"))
    user = speech_like(1.6, 3)
    torch.save(user, tmp_path / "user.pt")
    expected = model.offline_inference(user[None], torch.tensor([len(user)]))

    program = """
import json, torch
torch.set_num_threads(1)
import nemo_duplex
model = nemo_duplex.DuplexS2SModel.restore_from("agent.nemo", map_location="cpu")
session = model.open_session()
user = torch.load("user.pt")
frames = [frame for chunk in user.split(1000) for frame in session.push(chunk.numpy())] + list(session.flush())
print(json.dumps({"file": nemo_duplex.__file__, "tokens": [frame.token for frame in frames]}))
"""
    said = json.loads(run(python, "-c", program, folder=tmp_path).splitlines()[-1])
    assert Path(said["file"]).is_relative_to(python.parent.parent), "that was not the wheel"
    assert said["tokens"] == expected["tokens_text"][0].tolist()
