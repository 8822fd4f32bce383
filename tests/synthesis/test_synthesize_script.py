"""The script as people run it: what is wrong is one line, and Ctrl-C leaves whole shards or nothing."""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lhotse import CutSet

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.synthesis import run as run_module
from nemo_duplex.synthesis.corpus_spec import CorpusSpec
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec
from nemo_duplex.synthesis.pipeline import SETS
from nemo_duplex.synthesis.ray_executor import RayCluster
from nemo_duplex.synthesis.text.text_spec import TextSpec
from nemo_duplex.synthesis.timing import Rhythm
from tests.dummies import CODEC

ESPEAK = ["agent_voice=espeak", "user_voices.train={espeak: 1}"]  # which speaks fast
SCRIPT = Path(__file__).parents[2] / "examples" / "synthesize.py"


def run(capsys, *arguments: str) -> tuple[int, str]:
    """Exit code and what is printed, of the script run in this process."""
    main = runpy.run_path(str(SCRIPT))["main"]
    try:
        main(list(arguments))
        code = 0
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_help_explains_every_key(capsys):
    code, text = run(capsys, "--help")
    assert code == 0
    for key in ("out=", "hours=", "source=", "barge_in=", "duration=", "workers=", "slice="):
        assert key in text


def test_a_small_corpus(capsys, tmp_path):
    arguments = (f"out={tmp_path}", "hours=0.005", "duration=6.4", "dev=1", "sets=[train,dev]", "workers=1", "barge_in=0")
    code, text = run(capsys, *arguments)
    assert code == 0
    assert "train: hours 0.005, cuts 3" in text and "barge ins" not in text and "dev: hours" in text
    assert (tmp_path / "train" / "shar" / "target_audio.000000.tar").is_file()


def asked(monkeypatch, capsys, *arguments):
    """What the script asks `synthesize` for."""
    calls = []
    monkeypatch.setattr(run_module, "synthesize", lambda *given: calls.append(given))
    code, text = run(capsys, *arguments)
    assert code == 0, text
    return calls[0]


def test_every_key_reaches_the_corpus(monkeypatch, capsys, tmp_path):
    spec, out, sets, *rest = asked(monkeypatch, capsys, f"out={tmp_path / 'a'}")
    assert (spec, out, list(sets), rest) == (
        CorpusSpec(),
        tmp_path / "a",
        list(SETS),
        [None, (0, 1), False, None, True],
    )
    *_, cluster, _ = asked(monkeypatch, capsys, f"out={tmp_path / 'a'}", "executor=ray")
    assert cluster == RayCluster()
    source = tmp_path / "own.jsonl"
    source.write_text("".join(f'{{"data": ["Number {i}?", "Yes."]}}\n' for i in range(2)))
    keys = "hours=2 dev=3 seed=4 barge_in=0.1 pause=0.2 quiet=0.3 long_silence=0.4 response_gap=0.8 duration=6.4".split()
    keys += "executor=ray ray.address=head:6379 ray.cpus=2 ray.memory=1.5 check_hashes=false".split()
    more = f"agent_utterances=5 workers=6 slice=1/2 overwrite=true sets=[dev] source=[{source}] max_odd_rows=0.25".split()
    spec, _, sets, workers, part, overwrite, cluster, hashes = asked(monkeypatch, capsys, f"out={tmp_path / 'a'}", *keys, *more)
    rhythm = Rhythm(response_gap=0.8, barge_in=0.1, long_silence=0.4)
    dialogues = DialogueSpec(seed=4, pause=0.2, quiet=0.3, duration=6.4, rhythm=rhythm)
    assert spec == CorpusSpec(2, 3, 5, (str(source),), dialogues, TextSpec(max_odd_rows=0.25))
    assert (list(sets), workers, part, overwrite) == (["dev"], 6, (1, 2), True)
    assert cluster == RayCluster("head:6379", 2.0, 1.5) and hashes is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("hors=1",), "Unknown key 'hors'. Did you mean 'hours'?"),
        (("hours=-3",), "hours=-3"),
        (("duration=1",), "duration=1: expected 4 to 3600 s"),
        (("slice=2/2",), "slice=2/2: expected i/n"),
        (("executor=moon",), "executor=moon: expected local or ray."),
        (("source=[nowhere.jsonl]",), "there is no file nowhere.jsonl"),
        (("sets=[tests]",), "'tests' is none of train, dev"),
    ],
)
def test_what_is_wrong_is_one_line(capsys, tmp_path, arguments, message):
    code, text = run(capsys, f"out={tmp_path / 'out'}", "workers=1", *arguments)
    assert code == 2 and message in text and text.count("\n") == 1 and text.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_one_line(capsys, tmp_path):
    (tmp_path / "out").write_text("mine")
    code, text = run(capsys, f"out={tmp_path / 'out'}", "hours=0.01", "workers=1", "sets=dev", "dev=1")
    assert code == 2 and text.count("\n") == 1 and str(tmp_path / "out") in text
    assert (tmp_path / "out").read_text() == "mine"


def test_a_codec_adds_its_codes_and_a_wrong_one_is_refused_first(capsys, tmp_path):
    codec = FSQCodec(CODEC)
    codec.save_to(str(tmp_path / "codec.nemo"))
    out = tmp_path / "corpus"
    arguments = (f"out={out}", "hours=0.005", "duration=6.4", "sets=[train]", "workers=1", "agent_utterances=0")
    (tmp_path / "broken.nemo").write_text("no tar")
    code, text = run(capsys, *arguments, f"codec={tmp_path / 'broken.nemo'}")
    assert code == 2 and "broken.nemo" in text and not out.exists()

    assert run(capsys, *arguments)[0] == 0
    audio = (out / "train" / "shar" / "target_audio.000000.tar").stat().st_mtime_ns
    assert run(capsys, *arguments, f"codec={tmp_path / 'codec.nemo'}")[0] == 0
    assert (out / "train" / "shar" / "target_audio.000000.tar").stat().st_mtime_ns == audio, "what is there stays"
    cut = next(iter(CutSet.from_shar(in_dir=str(out / "train" / "shar"))))
    assert cut.load_target_codes().shape == (80, codec.num_codebooks)


@pytest.mark.slow
def test_ctrl_c_leaves_whole_shards_and_nothing_else(tmp_path):
    command = [sys.executable, str(SCRIPT), f"out={tmp_path}", "hours=1", "duration=4", "sets=train", "workers=2", *ESPEAK]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 600
    while not list(tmp_path.glob("train/state/*.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    made = len(list(tmp_path.glob("train/state/*.json")))
    _, text = process.communicate(timeout=600)
    assert process.returncode == 130
    assert text.splitlines()[-1] == "interrupted: nothing half-written" and "Traceback" not in text
    assert sorted(os.listdir(tmp_path)) == ["train"] and sorted(os.listdir(tmp_path / "train")) == ["shar", "state"]
    done = {path.stem for path in (tmp_path / "train" / "state").iterdir()}
    assert len(done) <= made + 2, "two were in progress, and no other begins"
    assert {path.name.split(".")[1] for path in (tmp_path / "train" / "shar").iterdir()} == done
