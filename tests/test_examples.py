"""Every script of examples/: what cannot be written, or is not there, is known before the work."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

#: Keys that make a script complete; the files are there, and hold nothing that could be used.
GIVEN = {
    "agent": ["ear=given", "codec=given"],
    "benchmark": ["what=stream", "model=given", "data=folder"],
    "demo": ["voices=espeak", "encoder=given", "codec=given"],
    "evaluate": ["model=given", "data=folder"],
    "full_duplex_bench": ["model=given", "bench=folder"],
    "gpu_check": ["device=cpu", "size=tiny", "minutes=0.001"],
    "import_text": ["source=[given]"],
    "infer_duplex": ["model=given", "user=given"],
    "make_bank": ["source=[given]"],
    "serve": ["model=given"],
    "simulate_fleet": ["span=1", "warm_up=0", "callers=1"],
    "soak": ["model=given", "data=folder"],
    "swap_codec": ["agent=given", "codec=given"],
    "synthesize": ["codec=given", "source=[given]"],
    "train_codec": ["data=folder", "init=given"],
    "train_duplex": ["data.train=folder", "model.pretrained_asr=given", "model.pretrained_audio_codec=given"],
    "train_encoder": ["data=folder"],
    "train_user_activity": ["scenes=19"],
    "write_dialogues": ["what=ultrachat", "source=[given]", "llm=http://localhost:9/v1", "llm_model=given"],
}
NOT_WRITTEN = {
    "in the way": "way is a file, expected a folder to write. Choose another name.",
    "/proc/nothing": "out: /proc/nothing cannot be written (No such file or directory). Choose another folder.",
    "~nobody-here": "/page.json: there is no user 'nobody-here'",
}


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """Runs a script in a folder with files that are no models; gives its error."""
    (tmp_path / "given").write_text("no model")
    (tmp_path / "in the way").write_text("a file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "something").touch()
    monkeypatch.chdir(tmp_path)

    def run(name: str, *keys: str) -> str:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with pytest.raises(SystemExit) as ended:
            module.main([*GIVEN[name], *keys])
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.count("\n") == 1, error
        return error

    return run


def test_all_scripts_are_here():
    assert sorted(GIVEN) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("out", NOT_WRITTEN)
@pytest.mark.parametrize("name", sorted(GIVEN.keys() - {"serve"}))  # which writes nothing
def test_what_cannot_be_written_is_known_first(said, tmp_path, name, out):
    """Before anything that was given is read, which fails here."""
    pages = dict.fromkeys(("benchmark", "gpu_check", "simulate_fleet"), "/page.json") | {"swap_codec": "/agent.nemo"}
    page = pages.get(name, "")
    assert NOT_WRITTEN[out].replace("/page.json", page) in said(name, f"out={out}{page}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "given", "in the way"]


MISSING = {
    "agent": ["ear", "codec"],
    "benchmark": ["model", "data"],
    "demo": ["encoder", "codec"],
    "evaluate": ["model", "data"],
    "full_duplex_bench": ["model", "bench"],
    "infer_duplex": ["model", "user"],
    "soak": ["model", "data"],
    "train_codec": ["data"],
    "train_encoder": ["data"],
}


@pytest.mark.parametrize("name, key", [(name, key) for name, keys in MISSING.items() for key in keys])
def test_what_is_not_there_is_known_first(said, tmp_path, name, key):
    """By the name of its key and as it was typed, before anything else that was given is read."""
    out = "out=out/page.json" if name == "benchmark" else "out=out"
    missing = said(name, out, f"{key}=20261128")
    assert missing.startswith(f"error: {key}: there is no f") and "20261128. Check the path" in missing
    assert not (tmp_path / "out").exists()
