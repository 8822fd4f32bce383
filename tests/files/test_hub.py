"""Where a model is found: a file, a folder, or the hub, here a folder; and one line for everything that can go wrong."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

from nemo_duplex.files.hub import local_folder, nemo_file, reading
from nemo_duplex.inputs import InputError

ID = "someone/agent"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The hub: its folder, and what it was asked for."""
    hub = SimpleNamespace(folder=tmp_path / "hub" / ID, asked=[])

    def download(**asked):
        hub.asked.append(asked)
        path = hub.folder / asked["filename"]
        if not path.exists():
            raise http_error(errors.RemoteEntryNotFoundError, 404)
        return str(path)

    def names(**asked):
        hub.asked.append(asked)
        return [path.name for path in hub.folder.iterdir()]

    hub.folder.mkdir(parents=True)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: SimpleNamespace(list_repo_files=names))
    return hub


def http_error(kind: type[Exception], status: int) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, f"{status} Client Error.\n\nSome explanation over\nseveral lines.")
    error.response = SimpleNamespace(status_code=status, headers={})
    return error


def test_a_model_of_the_hub(hub):
    (hub.folder / "agent.nemo").touch()
    assert nemo_file(ID, "model", "v2", "secret", refresh=True) == hub.folder / "agent.nemo"
    where = {"repo_id": ID, "revision": "v2", "token": "secret"}
    assert hub.asked == [{**where, "filename": "agent.nemo", "force_download": True}]


def test_a_model_of_the_hub_with_another_name(hub):
    (hub.folder / "README.md").touch()
    (hub.folder / "best.nemo").touch()
    assert nemo_file(ID, "model", "v2", "secret", refresh=True) == hub.folder / "best.nemo"
    where = {"repo_id": ID, "revision": "v2", "token": "secret"}
    assert hub.asked[1:] == [where, {**where, "filename": "best.nemo", "force_download": True}]


def test_a_file_and_a_folder_here(hub, tmp_path, monkeypatch):
    folder = tmp_path / "agent"
    folder.mkdir()
    (folder / "a.nemo").write_text("x")
    assert nemo_file(folder / "a.nemo", "codec") == folder / "a.nemo"
    assert nemo_file(folder, "codec") == folder / "a.nemo"
    (folder / "agent.nemo").touch()
    assert nemo_file(str(folder), "codec") == folder / "agent.nemo", "the one with the folder's name"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert nemo_file("~/agent/a.nemo", "codec") == folder / "a.nemo"
    monkeypatch.chdir(tmp_path)
    assert nemo_file("agent/a.nemo", "codec") == Path("agent/a.nemo")
    assert hub.asked == []


def test_not_one_nemo_file(hub, tmp_path):
    for place, source in ((hub.folder, ID), (tmp_path / "mine", str(tmp_path / "mine"))):
        place.mkdir(exist_ok=True)
        (place / "README.md").touch()
        with pytest.raises(InputError, match=f"^codec: there is no .nemo file in {source}"):
            nemo_file(source, "codec")
        (place / "one.nemo").touch()
        (place / "two.nemo").touch()
        with pytest.raises(InputError, match=rf"^codec: {source} has 2 .nemo files \(one.nemo, two.nemo\)"):
            nemo_file(source, "codec")


@pytest.mark.parametrize("source", ["nowhere.nemo", "org/nowhere.nemo", "./nowhere", "a-name", "a/b/c", "/no/where", "~/x"])
def test_neither_a_file_nor_an_id(hub, source):
    with pytest.raises(InputError, match="^codec .*there is no file .*" + source.strip("./~")):
        nemo_file(source, "codec")
    assert hub.asked == []


FAILURES = {
    "no such repository": (http_error(errors.RepositoryNotFoundError, 404), "there is no such model, or none that this"),
    "no permission": (http_error(errors.HfHubHTTPError, 403), "no permission .*hf auth login"),
    "no account": (http_error(errors.HfHubHTTPError, 401), "no permission"),
    "gated": (http_error(errors.GatedRepoError, 404), "no permission"),
    "no token": (errors.LocalTokenNotFoundError("no token"), "no permission"),
    "no such revision": (http_error(errors.RevisionNotFoundError, 404), "no such revision"),
    "offline": (errors.OfflineModeIsEnabled("Cannot reach\nthe hub"), "cannot be reached, .* Unset HF_HUB_OFFLINE"),
    "not cached": (errors.LocalEntryNotFoundError("An error happened"), "cannot be reached, and there is no copy"),
    "no id": (errors.HFValidationError("Repo id must"), "not an id of a model .Repo id must"),
    "something else": (RuntimeError("odd\nthing"), "RuntimeError: odd thing"),
}


@pytest.mark.parametrize("error, message", FAILURES.values(), ids=FAILURES)
def test_what_goes_wrong_is_one_line(monkeypatch, error, message):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for raised in (error, OSError("transformers says it in its own words,\nand at length")):
        with pytest.raises(InputError, match=f"^pretrained_llm: {ID} on the Hugging Face Hub: .*{message}") as caught:
            with reading(ID, "pretrained_llm"):
                if raised is error:
                    raise error
                if isinstance(error, RuntimeError):
                    raise OSError("RuntimeError: odd thing") from error  # not the hub's: said as it is
                raise raised from error
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [["HF_HUB_OFFLINE"], ["TRANSFORMERS_OFFLINE"], ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]])
def test_every_variable_that_keeps_off_the_hub_is_named(monkeypatch, names):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name in names:
        monkeypatch.setenv(name, "1")
    with pytest.raises(InputError, match=f" Unset {' and '.join(names)}, or give a path"), reading("org/name", "model"):
        raise errors.OfflineModeIsEnabled("offline")


def test_the_network_is_named_where_there_may_be_one(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(InputError, match="cannot be reached, .*Check the network"), reading(ID, "model"):
        raise ConnectionError("refused")


def test_a_model_here_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=f"^model: {tmp_path} cannot be read .KeyError: 'x'.*Save or download it again"):
        with reading(str(tmp_path), "model"):
            raise KeyError("x")


def test_a_full_disk_and_our_own_errors_stay_what_they_are():
    for error in (OSError(errno.ENOSPC, "full"), InputError("mine"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, reading(ID, "model"):
            raise error
        assert caught.value is error


def test_a_folder_here_or_an_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "org" / "name").mkdir(parents=True)
    (tmp_path / "org" / "name" / "config.json").touch()
    assert local_folder("org/name", "llm") == Path("org/name")
    assert local_folder("~/org/name", "llm") == tmp_path / "org" / "name"
    assert local_folder(str(tmp_path / "org"), "llm") == tmp_path / "org"
    assert local_folder("other/name", "llm") is None and local_folder("gpt2", "llm") is None
    for source in ("./other", "a/b/c", "/no/where", "~/x"):
        with pytest.raises(InputError, match="^llm: there is no folder"):
            local_folder(source, "llm")
