"""Programs as engines: a stand-in says what it was given, as a WAV file."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import stat
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.synthesis.tts.cast import Cast
from nemo_duplex.synthesis.tts.command import CommandEngine, FliteEngine, command_voices, flite_voices
from nemo_duplex.synthesis.tts.engines import CastSpec, engine_voices, open_cast
from nemo_duplex.synthesis.tts.utterance import Voice
from tests.synthesis.tones import cast_of

# Writes its arguments and stdin to a log, and 0.1 s of sound for each letter: at 11.025 kHz, two channels of 24 bits.
PROGRAM = """#!{python} -S
import json, subprocess, sys, time, wave
given = "" if "-t" in sys.argv else sys.stdin.read()
with open({log!r}, "a") as log:
    log.write(json.dumps([sys.argv[1:], given]) + chr(10))
text = sys.argv[sys.argv.index("-t") + 1] if "-t" in sys.argv else given
if "fail" in text:
    sys.exit(print("first line" + chr(10) + "no such tune:   fail", file=sys.stderr) or 3)
if "sleep" in text:
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    with open({log!r} + ".pid", "w") as file:
        file.write(str(child.pid))
    child.wait()
if "nothing" in text:
    sys.exit(0)
frames = (bytes([0, 0, 64, 0, 0, 0]) * 20 + bytes([0, 0, 192, 0, 0, 0]) * 20) * (1103 * len(text) // 40)
with wave.open(sys.argv[sys.argv.index("-o") + 1] if "-o" in sys.argv else sys.stdout.buffer, "wb") as file:
    file.setparams((2, 3, 11025, len(frames) // 6, "NONE", ""))
    file.writeframesraw(frames)
"""


@pytest.fixture
def program(tmp_path) -> Path:
    path = tmp_path / "say it"  # with a blank
    path.write_text(PROGRAM.format(python=sys.executable, log=str(tmp_path / "log")))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def given(program: Path) -> list:
    """[arguments, stdin] of what was said after the two texts of the self-test."""
    return [json.loads(line) for line in (program.parent / "log").read_text().splitlines()][2:]


def engine_of(program: Path, arguments: str, **more) -> CommandEngine:
    return CommandEngine(f"{shlex.quote(str(program))} {arguments}", **more)


def test_the_text_is_one_argument_whatever_stands_in_it(program, tmp_path):
    engine = engine_of(program, "-t {text} -o {wav}")
    evil = f"a; touch {tmp_path}/x $(touch {tmp_path}/y) `id` \"q\" 'r' {{wav}} & | > z \n {{voice}} \\n é 日本"
    spoken = engine.speak(evil, Voice("v", "", engine=engine.name))
    ((arguments, stdin),) = given(program)
    assert arguments[:3] == ["-t", evil, "-o"] and len(arguments) == 4 and stdin == ""
    assert not (tmp_path / "x").exists() and not (tmp_path / "y").exists()
    assert spoken.sample_rate == engine.sample_rate == 11025 and spoken.words == ()
    assert spoken.duration == pytest.approx(0.1 * len(evil), abs=0.01)
    assert np.abs(spoken.audio).max() == pytest.approx(0.25, abs=0.01), "The mean of both channels."


def test_a_text_is_no_option(program):
    engine = engine_of(program, "-o {wav} -t {text}")
    engine.speak("--help me", Voice("v", "", engine=engine.name))
    assert given(program)[0][0][-1] == " --help me"


def test_text_by_stdin_and_audio_by_stdout(program):
    engine = engine_of(program, "--loud")
    spoken = engine.speak("good day", Voice("v", "", engine=engine.name))
    assert given(program) == [[["--loud"], "good day"]] and spoken.duration == pytest.approx(0.8, abs=0.01)


def test_voice_and_pace(program):
    engine = engine_of(program, "-v {voice:anna,bo|cy} -r {rate} -s {speed} -d {stretch} -t {text} -o {wav}")
    engine.speak("hello", Voice("x", "cy", rate=200, engine=engine.name))
    assert given(program)[0][0][:8] == ["-v", "cy", "-r", "200", "-s", "1.2500", "-d", "0.8000"]
    with pytest.raises(InputError, match=r"no voice 'dora' \(speaker x\): expected \['anna', 'bo', 'cy'\]"):
        engine.speak("hello", Voice("x", "dora", engine=engine.name))


def test_train_and_dev_have_the_voices_that_the_command_says(program):
    voices = command_voices(f"{shlex.quote(str(program))} -v {{voice:anna,bo|cy}} -t {{text}} -o {{wav}}")
    assert voices.num_users == {"train": 2, "dev": 1} and not voices.shared
    assert [voices.user("train", n).name for n in (0, 1)] == ["anna", "bo"] and voices.user("dev", 0).name == "cy"
    assert voices.user("dev", 0).id == f"{voices.engine.name}-cy" and voices.agent.name == "anna"
    cast = Cast(voices, {"train": {voices: 1.0}, "dev": {voices: 1.0}})
    assert cast.speak("hello", cast.user("dev", np.random.default_rng(0))).duration == pytest.approx(0.5, abs=0.01)


def test_voices_that_are_the_same_in_both_splits_speak_in_one(program):
    voices = command_voices(f"{shlex.quote(str(program))} -v {{voice:anna,bo}} -t {{text}} -o {{wav}}")
    assert voices.shared and voices.num_users == {"train": 2, "dev": 2}
    (tones,) = cast_of()._users["dev"]
    assert Cast(voices, {"train": {voices: 1.0}, "dev": {tones: 1.0}}).num_users["train"] == 2
    with pytest.raises(InputError, match="has the same voices in train and dev: let it speak in one of them"):
        Cast(voices, {"train": {voices: 1.0}, "dev": {voices: 1.0}})


def test_the_version_changes_with_the_command(program):
    first, other = engine_of(program, "-t {text} -o {wav}"), engine_of(program, "--loud -t {text} -o {wav}")
    assert first.version != other.version and first.name != other.name and len(first.version) == 8
    assert first.name == f"command-say it-{first.version}"
    assert engine_of(program, "-t {text} -o {wav}").version == first.version


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fail now", "ended with exit code 3 at 'fail now': no such tune:   fail"),
        ("nothing", "wrote no audio file of 'nothing': it does not say why"),
        ("?!", "makes no sound of the text '\\?!'"),
        ("long " * 100_000, r"cannot run with 'long .*' \(500000 characters\): Argument list too long"),
    ],
)
def test_what_goes_wrong_is_one_line(program, text, message):
    engine = engine_of(program, "-t {text} -o {wav}")
    with pytest.raises(InputError, match=message) as refused:
        engine.speak(text, Voice("v", "", engine=engine.name))
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


def test_a_program_that_hangs_is_ended_with_what_it_started(program):
    engine = engine_of(program, "-t {text} -o {wav}", time_limit=2.5)
    with pytest.raises(InputError, match="took more than 2.5 s for 'sleep'"):
        engine.speak("sleep", Voice("v", "", engine=engine.name))
    child = int((program.parent / "log.pid").read_text())
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "expected a command line, such as command:flite"),
        ("sh 'x", "it cannot be split into arguments: No closing quotation"),
        ("sh {speech}", r"\{speech\} is none of \{text\}, \{wav\}, \{voice\}"),
        ("sh {voice}", r"expected \{voice:a,b\} with the names of voices"),
        ("sh {voice: a, b}", "write placeholders without blanks"),
        ("sh -c 'exit 4'", "ended with exit code 4 at 'Hello, how are you\\?': it does not say why"),
        ("sh -c 'kill -9 $$'", "ended with signal 9"),
        ("echo no audio", "gave no audio file by stdout of 'Hello, how are you\\?': no audio"),
    ],
)
def test_a_command_that_cannot_work_is_refused_when_it_is_opened(command, message):
    with pytest.raises(InputError, match=message):
        CommandEngine(command)


def test_a_program_that_is_not_there_is_named_and_others_speak():
    name = "command:no-such-program {text}"
    with pytest.raises(NotInstalled, match="no program 'no-such-program': install it, or give its path"):
        engine_voices(name)
    cast, missing = open_cast(CastSpec(dev=((name, 1.0),)))
    assert missing == [f"{name} does not speak: There is no program 'no-such-program': install it, or give its path."]
    assert cast.num_users["dev"] == 80


def test_a_program_that_never_says_the_same_is_warned_about(tmp_path, caplog):
    path = tmp_path / "moody"
    path.write_text(
        f"#!{sys.executable}\nimport sys, os, numpy, soundfile\n"
        "noise = numpy.random.default_rng(int.from_bytes(os.urandom(4), 'big')).uniform(-0.5, 0.5, 8000)\n"
        "soundfile.write(sys.argv[1], noise, 8000)\n"
    )
    path.chmod(0o755)
    CommandEngine(f"{path} {{wav}}")
    assert "does not say a text twice in the same samples" in caplog.text


needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="apt install flite")


@needs_flite
def test_flite_is_for_evaluation_alone():
    voices = engine_voices("flite")
    assert voices.num_users == {"train": 0, "dev": 4}
    assert [voices.user("dev", n).name for n in range(4)] == ["slt", "rms", "awb", "kal16"]
    with pytest.raises(InputError, match="agent_voice: flite has no voice for an agent. Take hibari or espeak."):
        open_cast(CastSpec("flite", (("espeak", 1.0),), (("espeak", 1.0),)))
    cast, missing = open_cast(CastSpec(train=(("espeak", 1.0),), dev=(("flite", 1.0),), perturb=(("flite", 10),)))
    assert not missing and cast.num_users == {"train": 480, "dev": 40}
    with pytest.raises(InputError, match="user_voices.train: flite has no users of train. Take another one, such as espeak."):
        open_cast(CastSpec(train=(("espeak", 0.5), ("flite", 0.5))))


@needs_flite
def test_flite_speaks_in_different_voices_the_same_samples_every_time():
    engine, said = FliteEngine(), {}
    for name in ("slt", "rms", "awb", "kal16"):
        voice = Voice("v", name, engine="flite")
        said[name] = engine.speak("The capital of France is Paris.", voice)
        assert np.array_equal(engine.speak("The capital of France is Paris.", voice).audio, said[name].audio)
        assert 1 < said[name].duration < 4 and said[name].sample_rate == 16000
    assert len({spoken.duration for spoken in said.values()}) == 4
    slow = engine.speak("The capital of France is Paris.", Voice("v", "slt", rate=128, engine="flite"))
    assert slow.duration == pytest.approx(1.25 * said["slt"].duration, rel=0.05)


@needs_flite
def test_flite_reads_ascii():
    engine, voice = FliteEngine(), Voice("v", "slt", engine="flite")
    for text, plain in (("It’s a “naïve” café—yes…", 'It\'s a "naive" cafe, yes,'), ("ﬁne", "fine")):
        assert np.array_equal(engine.speak(text, voice).audio, engine.speak(plain, voice).audio)
    assert (
        engine.cannot_say("日本 and 5 €", voice) == "flite does not read '日', '本', '€': write it in words, or other letters."
    )
    assert engine.cannot_say("Guten Tag", replace(voice, language="de")) == "flite has no language 'de': it speaks en."
    assert engine.cannot_say("Good day", replace(voice, language="en-GB")) is None


def test_flite_that_is_not_there_is_named_with_its_package(monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(NotInstalled, match="flite is not installed: apt install flite"):
        flite_voices()
