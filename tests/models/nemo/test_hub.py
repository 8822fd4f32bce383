"""A model on the Hugging Face Hub and back: the same weights by every way, and one line for everything that can go wrong."""

from __future__ import annotations

import errno
import inspect
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
import yaml
from huggingface_hub import errors
from nemo.core.classes import ModelPT

from nemo_duplex.files.hub import nemo_file
from nemo_duplex.inputs import InputError
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.nemo.hub import write_repository
from nemo_duplex.models.nemo.model_card import model_card
from tests.dummies import speech_like, tiny_model

ID = "someone/agent"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("parts"))


@pytest.fixture(scope="module")
def repository(model, tmp_path_factory):
    return write_repository(model, tmp_path_factory.mktemp("hub") / "agent", ID)


def same(one: DuplexS2SModel, other: DuplexS2SModel) -> bool:
    there = other.state_dict()
    return all(torch.equal(value, there[name]) for name, value in one.state_dict().items())


class Hub:
    """The hub as a folder: a folder per repository; `error` is what every call raises."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.error, self.calls, self.branches = folder, None, [], None

    def __call__(self, token=None):
        self.calls.append(("token", token))
        return self

    def _called(self, name, *details):
        self.calls.append((name, *details))
        if self.error is not None:
            raise self.error

    def create_repo(self, repo_id, private=False, exist_ok=False):
        self._called("create_repo", private)
        (self.folder / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def create_branch(self, repo_id, branch, exist_ok=False):
        self._called("create_branch", branch)

    def file_exists(self, repo_id, filename, revision=None):
        if self.branches is not None and revision not in self.branches:
            return False
        return (self.folder / repo_id / filename).exists()

    def upload_folder(self, repo_id, folder_path, revision, commit_message):
        self._called("upload_folder", revision, commit_message)
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)
        return SimpleNamespace(commit_url=f"https://huggingface.co/{repo_id}/commit/{COMMIT}")

    def list_repo_files(self, repo_id, revision=None, token=None):
        return [path.name for path in (self.folder / repo_id).iterdir()]

    def hf_hub_download(self, repo_id, filename, revision=None, token=None, force_download=False):
        self._called("download", filename, revision, token, force_download)
        if not (self.folder / repo_id / filename).exists():
            raise http_error(errors.RemoteEntryNotFoundError, 404)
        return str(self.folder / repo_id / filename)


@pytest.mark.parametrize("name", [name for name in vars(Hub) if not name.startswith("_")])
def test_the_stand_in_takes_what_the_hub_takes(name):
    theirs = huggingface_hub.hf_hub_download if name == "hf_hub_download" else getattr(huggingface_hub.HfApi, name)
    ours = inspect.signature(getattr(Hub, name)).parameters
    assert ours.keys() - {"self"} <= inspect.signature(theirs).parameters.keys()


def http_error(kind: type[Exception], status: int) -> Exception:
    error = kind.__new__(kind)
    Exception.__init__(error, f"{status} Client Error.\n\nSome explanation over\nseveral lines.")
    error.response = SimpleNamespace(status_code=status, headers={})
    return error


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.hf_hub_download)
    return hub


def test_pushed_and_pulled(model, hub):
    address = model.push_to_hub(ID, private=True, token="secret", revision="v2", commit_message="better")
    assert address == f"https://huggingface.co/{ID}/commit/{COMMIT}"
    assert hub.calls == [("token", "secret"), ("create_repo", True), ("create_branch", "v2"), ("upload_folder", "v2", "better")]
    assert sorted(p.name for p in (hub.folder / ID).iterdir()) == ["README.md", "agent.nemo", "config.yaml"]
    pulled = DuplexS2SModel.from_pretrained(ID, map_location="cpu", revision="v2", token="secret", refresh_cache=True)
    assert hub.calls[-1] == ("download", "agent.nemo", "v2", "secret", True)
    assert same(model, pulled)
    assert DuplexS2SModel.from_pretrained(ID, return_config=True).llm.hidden_size == 24
    assert DuplexS2SModel.from_pretrained(ID, return_model_file=True) == str(hub.folder / ID / "agent.nemo")


def test_a_card_that_somebody_has_written_stays(model, hub):
    (hub.folder / ID).mkdir(parents=True)
    (hub.folder / ID / "README.md").write_text("license: apache-2.0")
    model.push_to_hub(ID)
    assert (hub.folder / ID / "README.md").read_text() == "license: apache-2.0"
    assert (hub.folder / ID / "agent.nemo").exists()
    hub.branches = ["v2"]  # where the card is
    model.push_to_hub(ID, revision="v2")
    assert (hub.folder / ID / "README.md").read_text() == "license: apache-2.0"


def test_from_a_folder_and_from_a_file(model, repository, tmp_path):
    assert same(model, DuplexS2SModel.from_pretrained(str(repository), map_location="cpu"))
    assert same(model, DuplexS2SModel.from_pretrained(repository / "agent.nemo", map_location="cpu"))
    (tmp_path / "renamed").mkdir()
    shutil.copyfile(repository / "agent.nemo", tmp_path / "renamed" / "best.nemo")
    assert nemo_file(tmp_path / "renamed", "model").name == "best.nemo"


@pytest.mark.parametrize("cls", [ModelPT, DuplexS2SModel], ids=lambda cls: cls.__name__)
def test_from_the_hubs_own_cache_without_network(model, repository, tmp_path, monkeypatch, cls):
    """What has been downloaded once is found by huggingface_hub itself, offline; NeMo looks for the same name."""
    cached = tmp_path / "models--someone--agent"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(COMMIT)
    shutil.copytree(repository, cached / "snapshots" / COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert same(model, cls.from_pretrained(ID, map_location="cpu"))


def test_a_repository_is_whole_or_not_there(model, tmp_path, monkeypatch):
    def full(path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patched, pytest.raises(OSError):
        patched.setattr(model, "save_to", full)
        write_repository(model, tmp_path / "agent", ID)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis").touch()
    with pytest.raises(InputError, match="holds something already"):
        write_repository(model, tmp_path / "mine", ID)


def test_what_a_person_reads(model, repository):
    card = (repository / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "unknown" and front["library_name"] == "nemo"
    for fact in (
        'DuplexS2SModel.from_pretrained("someone/agent"',
        "llama, 60 text tokens, attends to the last 16 frames",
        "2 codebooks of 36 codes, gives 22050 Hz",
        "FastConformer, 2 layers, takes 16000 Hz",
        "12.5 frames per second",
        "The number of steps is not known",
        "**Licence**: not stated yet",
    ):
        assert fact in card, fact
    assert yaml.safe_load((repository / "config.yaml").read_text())["codec"]["sample_rate"] == 22050
    sizes = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (model.perception, model.lm, model.audio_codec)]
    assert [line.split("|")[3].strip() for line in card.splitlines() if line.startswith("| ")][2:] == [
        f"{s:.2f}" for s in sizes
    ]
    trainer = SimpleNamespace(global_step=700, callback_metrics={"loss": torch.tensor(2.5), "val_loss": 3.25, "other": 1})
    trained = SimpleNamespace(**{n: getattr(model, n) for n in ("layout", "cfg", "perception", "lm", "audio_codec")})
    trained.user_sample_rate, trained.agent_sample_rate, trained._trainer = 16000, 22050, trainer
    trained.layout = replace(model.layout, speech_delay=2)
    card = model_card(trained, ID)
    assert "700 steps, loss 2.5, val_loss 3.25." in card and "2 frame(s) behind the text" in card


def test_the_code_of_the_card_leaves_time_for_an_answer(model, repository, monkeypatch):
    card = (repository / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    monkeypatch.setattr(DuplexS2SModel, "from_pretrained", lambda name, map_location: {ID: model}[name])
    names = {"samples": speech_like(1.0).numpy()}
    exec(compile(code, "README.md", "exec"), names)
    assert len(names["frames"]) == math.ceil(5.0 / 0.08)  # 1 s of the user, 4 s for the answer
    assert len(names["audio"]) == 1764 * len(names["frames"]) and "22050 Hz" in code


FAILURES = {
    "no such repository": (http_error(errors.RepositoryNotFoundError, 404), "there is no such model, or none that"),
    "no permission": (http_error(errors.HfHubHTTPError, 403), "no permission .*hf auth login"),
    "gated": (http_error(errors.GatedRepoError, 403), "no permission"),
    "no account": (errors.LocalTokenNotFoundError("no token"), "no permission"),
    "no such revision": (http_error(errors.RevisionNotFoundError, 404), "no such revision"),
    "offline": (errors.OfflineModeIsEnabled("Cannot reach\nthe hub"), "cannot be reached, and there is no copy"),
    "not cached": (errors.LocalEntryNotFoundError("An error happened"), "cannot be reached"),
    "no id": (errors.HFValidationError("Repo id must"), "not an id of a model"),
    "something else": (RuntimeError("odd\nthing"), "RuntimeError: odd thing"),
}


@pytest.mark.parametrize("error, message", FAILURES.values(), ids=FAILURES)
def test_what_goes_wrong_is_one_line(model, hub, error, message):
    hub.error = error
    for act in (lambda: DuplexS2SModel.from_pretrained(ID), lambda: model.push_to_hub(ID)):
        with pytest.raises(InputError, match=f"{ID} on the Hugging Face Hub: .*{message}") as caught:
            act()
        assert "\n" not in str(caught.value)


def test_a_repository_without_one_nemo(hub, tmp_path):
    for place in (hub.folder / ID, tmp_path / "folder"):
        place.mkdir(parents=True)
        source = ID if hub.folder in place.parents else place
        (place / "README.md").touch()
        with pytest.raises(InputError, match=f"there is no .nemo file in {source}"):
            nemo_file(source, "model")
        (place / "one.nemo").touch()
        assert nemo_file(source, "model") == place / "one.nemo"
        (place / "two.nemo").touch()
        with pytest.raises(InputError, match=rf"{source} has 2 .nemo files \(one.nemo, two.nemo\)"):
            nemo_file(source, "model")


@pytest.mark.parametrize("source", ["nowhere.nemo", "./no/where", "a-name", "a/b/c", "/no/where"])
def test_what_is_neither_file_nor_id(source):
    with pytest.raises(InputError, match=f"there is no file {source.removeprefix('./')}"):
        DuplexS2SModel.from_pretrained(source)


def test_an_id_to_push_to_is_an_id(model, hub):
    with pytest.raises(InputError, match="'agent' is not the id of a Hugging Face model, expected org/name"):
        model.push_to_hub("agent")
    assert hub.calls == []
