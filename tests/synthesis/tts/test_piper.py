"""Piper voices: what goes into the network, and what a file may be wrong in. The network here is four nodes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.tts.engines import engine_voices
from nemo_duplex.synthesis.tts.piper import PiperEngine, piper_voices
from nemo_duplex.synthesis.tts.utterance import Voice

LETTERS = "_^$ !',.:;?abcdefhijklmnopqrstuvwxyzæðŋɐɑɔəɚɛɜɡɪɹɾʃʊʌʒʔθˈˌː"
IDS = {letter: [number] for number, letter in enumerate(LETTERS)}


def piper_file(folder: Path, speakers: int = 1, **changes) -> Path:
    """A voice whose sound is the row of ids, 200 times over, as loud as the length scale and the noise scales make it."""
    floats = {"dtype": TensorProto.FLOAT}
    nodes = [
        helper.make_node("Cast", ["input"], ["ids"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["scales"], ["scale"], keepdims=0),
        helper.make_node("Mul", ["ids", "scale"], ["scaled"]),
        helper.make_node("Tile", ["scaled", "repeats"], ["long"]),
    ]
    last = "long"
    if speakers > 1:
        nodes += [
            helper.make_node("Cast", ["sid"], ["who"], to=TensorProto.FLOAT),
            helper.make_node("Div", ["long", "who"], ["own"]),
        ]
        last = "own"
    nodes.append(helper.make_node("Mul", [last, "soft"], ["output"]))
    inputs = [
        helper.make_tensor_value_info("input", TensorProto.INT64, ["batch", "phonemes"]),
        helper.make_tensor_value_info("input_lengths", TensorProto.INT64, ["batch"]),
        helper.make_tensor_value_info("scales", TensorProto.FLOAT, [3]),
    ] + ([helper.make_tensor_value_info("sid", TensorProto.INT64, ["batch"])] if speakers > 1 else [])
    constants = [
        helper.make_tensor("repeats", TensorProto.INT64, [2], [1, 200]),
        helper.make_tensor("soft", TensorProto.FLOAT, [1], [1 / 128]),
    ]
    output = helper.make_tensor_value_info("output", floats["dtype"], ["batch", "samples"])
    model = helper.make_model(
        helper.make_graph(nodes, "voice", inputs, [output], constants), opset_imports=[helper.make_opsetid("", 17)]
    )
    model.ir_version = 9
    path = folder / "en_US-test-low.onnx"
    onnx.save(model, path)
    described = {
        "audio": {"sample_rate": 16000}, "espeak": {"voice": "en-us"}, "num_speakers": speakers, "phoneme_id_map": IDS,
        "inference": {"noise_scale": 0.667, "length_scale": 1.0, "noise_w": 0.8}, "speaker_id_map": {},
    }  # fmt: skip
    Path(f"{path}.json").write_text(json.dumps(described | changes))
    return path


def test_phonemes_punctuation_and_blanks_become_ids(tmp_path):
    engine = PiperEngine(piper_file(tmp_path))
    said = "".join(LETTERS[i] for i in engine._phoneme_ids("Hi, you. ")[0])
    assert said == "^_h_ˈ_a_ɪ_,_ _j_u_ː_._$"


def test_the_network_gets_no_noise_and_the_length_of_the_rate(tmp_path):
    engine = PiperEngine(piper_file(tmp_path, inference={"length_scale": 1.5}))
    voice = Voice("v", "", engine=engine.name)
    ids = engine._phoneme_ids("Hi you")[0].astype(np.float32)
    own, slow = (engine.speak("Hi you", replace(voice, rate=rate)).audio for rate in (160, 80))
    assert own.max() == pytest.approx(min(1.0, ids.max() * 1.5 / 128)) and len(own) >= 200 * len(ids) - 1700
    assert slow.max() == pytest.approx(min(1.0, ids.max() * 3.0 / 128)), "Half the rate is twice the length."
    assert np.array_equal(engine.speak("Hi you", voice).audio, own)


def test_every_sentence_is_said_with_a_pause_between(tmp_path):
    engine = PiperEngine(piper_file(tmp_path))
    spoken = engine.speak('Hi you. "Are you?" ...', Voice("v", "", engine=engine.name))
    first, second = (200 * engine._phoneme_ids(part).shape[1] for part in ("Hi you.", '"Are you?"'))
    silence = np.flatnonzero(np.diff(np.flatnonzero(spoken.audio)) > 3000)
    assert len(silence) == 1 and abs(len(spoken.audio) - first - second - 3200) < 1200
    assert (spoken.text, spoken.language, spoken.sample_rate) == ('Hi you. "Are you?" ...', "en", 16000)


def test_speakers_are_voices_and_every_fifth_is_of_dev(tmp_path):
    names = {f"p{number}": number for number in range(1, 8)}
    voices = piper_voices(str(piper_file(tmp_path, speakers=8, speaker_id_map=names)))
    assert voices.num_users == {"train": 6, "dev": 1} and not voices.shared
    assert [voices.user("train", n).name for n in range(6)] == ["p1", "p2", "p3", "p4", "p6", "p7"]
    assert voices.user("dev", 0) == Voice("piper-en_US-test-low-p5", "p5", engine="piper-en_US-test-low")
    loudness = [np.abs(voices.engine.speak("Hi", Voice("v", f"p{n}", engine="x")).audio).max() for n in (1, 2, 4)]
    assert loudness == pytest.approx([loudness[0], loudness[0] / 2, loudness[0] / 4])
    with pytest.raises(InputError, match=r"has no speaker 'q' \(speaker v\): expected one of p1, p2"):
        voices.engine.speak("Hi", Voice("v", "q"))


def test_one_speaker_speaks_in_one_split(tmp_path):
    voices = engine_voices(f"piper:{piper_file(tmp_path)}")
    assert voices.shared and voices.num_users == {"train": 1, "dev": 1} and voices.agent.name == ""
    assert len(voices.engine.speak("Hi, how are you?", voices.agent).words) == 4, "Times are found by alignment."


@pytest.mark.parametrize(
    ("text", "language", "message"),
    [
        ("Привет", None, "does not read 'Привет': write it in the letters of en"), ("?!", None, "makes no sound"),
        ("Guten Tag", "de", "has no language 'de': it speaks en"), ("5 € zʒ", None, "has no phoneme"),
    ],
)  # fmt: skip
def test_what_it_cannot_say_is_refused(tmp_path, text, language, message):
    ids = {letter: number for letter, number in IDS.items() if letter != "ʒ"} if "phoneme" in message else IDS
    engine = PiperEngine(piper_file(tmp_path, phoneme_id_map=ids))
    with pytest.raises(InputError, match=message):
        engine.speak("a vision of azure" if "phoneme" in message else text, Voice("v", "", language=language))


def test_files_that_are_wrong_are_named(tmp_path):
    with pytest.raises(InputError, match="piper: expected a path"):
        piper_voices(None)
    with pytest.raises(InputError, match="piper: there is no file .*none.onnx"):
        piper_voices(str(tmp_path / "none.onnx"))
    path = piper_file(tmp_path)
    described = Path(f"{path}.json")
    whole = described.read_text()
    for text, message in (
        ("{", "is no description of a Piper voice: JSONDecodeError"),
        ("{}", "is no description of a Piper voice: KeyError 'audio'"),
        (
            whole.replace("en-us", "en-us").replace('"num_speakers"', '"phoneme_type": "text", "num_speakers"'),
            "phonemes of the type 'text'",
        ),
    ):
        described.write_text(text)
        with pytest.raises(InputError, match=message):
            PiperEngine(path)
    described.write_text(whole)
    path.write_bytes(b"no model")
    with pytest.raises(InputError, match="is no model that onnxruntime can run"):
        PiperEngine(path)
    described.unlink()
    with pytest.raises(InputError, match="there is no file .*onnx.json"):
        PiperEngine(path)


def test_the_version_is_of_the_content(tmp_path):
    first = PiperEngine(piper_file(tmp_path)).version
    assert PiperEngine(piper_file(tmp_path)).version == first
    assert PiperEngine(piper_file(tmp_path, inference={"length_scale": 2.0})).version != first
