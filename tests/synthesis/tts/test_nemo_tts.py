"""NeMo's text-to-speech models: small ones of NeMo's own classes, with random weights, so that all of NeMo's code runs."""

from __future__ import annotations

import inspect
import io
import random
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pytest
import torch
import yaml
from nemo.collections.common.tokenizers.text_to_speech.tts_tokenizers import IPATokenizer
from nemo.collections.tts.g2p.models.i18n_ipa import IpaG2p

from nemo_duplex.inputs import InputError, NotInstalled
from nemo_duplex.synthesis.tts import nemo_tts
from nemo_duplex.synthesis.tts.engines import CastSpec, engine_voices, open_cast
from nemo_duplex.synthesis.tts.nemo_tts import NemoEngine, nemo_voices
from nemo_duplex.synthesis.tts.utterance import Voice
from tests.synthesis.tts.nemo_models import codec, fastpitch, hifigan, magpie

TEXT = "good day to you"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """With a FastPitch of twelve speakers, one of a single speaker, their HiFi-GAN, a MagpieTTS of five and its codec."""
    folder = tmp_path_factory.mktemp("nemo")
    fastpitch(folder / "many.nemo", speakers=12)
    fastpitch(folder / "one.nemo")
    hifigan(folder / "hifigan.nemo")
    magpie(folder / "magpie.nemo", codec(folder / "codec.nemo"))
    return folder


@pytest.fixture(scope="module")
def many(folder):
    return nemo_voices(f"{folder}/many.nemo,{folder}/hifigan.nemo")


@pytest.fixture(scope="module")
def spoken_by_magpie(folder):
    return nemo_voices(f"{folder}/magpie.nemo,{folder}/codec.nemo")


def test_fastpitch_says_each_letter_for_twelve_frames(many):
    spoken = many.engine.speak(TEXT, many.agent)
    assert (spoken.sample_rate, spoken.language, spoken.words) == (16000, "en", ())
    assert len(spoken.audio) == len(TEXT) * 12 * 64
    quick = many.engine.speak(TEXT, replace(many.agent, rate=320))
    assert len(quick.audio) == len(TEXT) * 6 * 64, "Twice the rate is half the length."


def test_speakers_of_fastpitch_are_users_and_every_fifth_is_of_dev(many):
    assert many.num_users == {"train": 10, "dev": 2} and not many.shared and not many.quick
    assert [many.user("train", n).name for n in range(10)] == ["0", "1", "2", "3", "5", "6", "7", "8", "10", "11"]
    name = many.engine.name
    assert [many.user("dev", n) for n in range(2)] == [Voice(f"{name}-{n}", n, engine=name) for n in ("4", "9")]
    assert many.agent == Voice("agent", "0", engine=name)
    sounds = {n: many.engine.speak(TEXT, many.user("train", n)).audio.tobytes() for n in range(10)}
    assert len(set(sounds.values())) == 10, "Each speaker has a voice."
    assert sounds[0] == many.engine.speak(TEXT, many.agent).audio.tobytes()


def test_some_of_many_speakers_are_chosen(folder):
    voices = nemo_voices(f"{folder}/hifigan.nemo, {folder}/many.nemo,speakers=7+3+11+0+8")
    assert [voices.user("train", n).name for n in range(4)] == ["7", "3", "11", "0"] and voices.user("dev", 0).name == "8"
    assert voices.agent.name == "7"
    with pytest.raises(InputError, match=r"speakers=3\+12: there is no speaker '12', expected 0 to 11"):
        nemo_voices(f"{folder}/many.nemo,{folder}/hifigan.nemo,speakers=3+12")


def test_a_single_speaker_is_an_agent_and_no_user(folder):
    name = f"nemo:{folder}/one.nemo,{folder}/hifigan.nemo"
    voices = engine_voices(name)
    assert voices.num_users == {"train": 0, "dev": 0} and voices.agent.name == "0"
    assert len(voices.engine.speak("Good day to you.", voices.agent).words) == 4, "Times are found by alignment."
    with pytest.raises(InputError, match=r"user_voices.train: nemo-one-\w{6} has no users of train"):
        open_cast(CastSpec(agent=name, train=((name, 1.0),)))
    speakers, missing = open_cast(CastSpec(agent=name))
    assert speakers.agent.engine == voices.engine.name and missing == []


def test_magpie_draws_the_same_in_any_order_and_leaves_the_random_states(folder, spoken_by_magpie):
    engine, (first, second) = spoken_by_magpie.engine, (spoken_by_magpie.user("train", n) for n in range(2))
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    torch.set_num_threads(3)
    expected = (torch.rand(1).item(), random.random(), np.random.rand())
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    said = [engine.speak(text, voice).audio for text, voice in ((TEXT, first), (TEXT, second), ("good night", first))]
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected, "The process's states are as they were."
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    assert len({audio.tobytes() for audio in said}) == 3
    torch.manual_seed(6), random.seed(6), np.random.seed(6)
    other = NemoEngine([folder / "codec.nemo", folder / "magpie.nemo"])
    again = [other.speak(text, voice).audio for text, voice in (("good night", first), (TEXT, second), (TEXT, first))]
    assert all(np.array_equal(a, b) for a, b in zip(said, again[::-1]))


def test_magpie_has_speakers_a_rate_and_languages(folder, spoken_by_magpie):
    voices = spoken_by_magpie
    assert voices.num_users == {"train": 4, "dev": 1} and voices.user("dev", 0).name == "4" and voices.agent.name == "0"
    spoken = voices.engine.speak(TEXT, voices.agent)
    assert (spoken.sample_rate, spoken.language) == (16000, "en")
    tongues = magpie(folder / "tongues.nemo", folder / "codec.nemo", tokenizers=("german_phoneme", "french_chartokenizer"))
    engine = NemoEngine([tongues])  # the codec is where the file says
    assert engine.cannot_say(TEXT, replace(voices.agent, language="fr-FR")) is None
    assert "has no language 'en': it speaks de, fr." in engine.cannot_say(TEXT, replace(voices.agent, language="en"))
    assert engine.speak("bon", replace(voices.agent, language="fr")).language == "fr"
    assert engine.speak("gut", voices.agent).language == "de", "The first language of the model."


def test_what_magpie_is_asked_for(spoken_by_magpie, monkeypatch):
    model, asked = spoken_by_magpie.engine._model._model, []

    def do_tts(transcript, language="en", apply_TN=False, use_cfg=True, speaker_index=None):
        asked.append((transcript, language, apply_TN, use_cfg, speaker_index))
        return torch.full((1, 9000), 0.5) * (-1.0) ** torch.arange(9000), torch.tensor([8000])

    assert str(inspect.signature(do_tts)).split(",")[0] == "(transcript"
    theirs = inspect.signature(type(model).do_tts).parameters
    assert list(inspect.signature(do_tts).parameters) == list(theirs)[1:], "NeMo's signature is another one now."
    monkeypatch.setattr(model, "do_tts", do_tts)
    spoken = spoken_by_magpie.engine.speak("good ﬁne day", spoken_by_magpie.user("train", 3))
    assert asked == [("good fine day", "en", False, True, 3)] and len(spoken.audio) == 8000 and spoken.text == "good ﬁne day"


def test_a_text_whose_end_magpie_does_not_find_is_refused(folder):
    path = magpie(folder / "short.nemo", folder / "codec.nemo", steps=3)
    engine = NemoEngine([path, folder / "codec.nemo"])
    with pytest.raises(InputError, match="MagpieTTS did not come to the end of a text in 3 frames"):
        engine.speak(TEXT, Voice("v", "0"))


@pytest.mark.parametrize(
    ("text", "language", "message"),
    [
        ("room 33", None, "does not read '3': write it in words"), ("日本 is far", None, "does not read '日', '本'"),
        ("ten €", None, "does not read '€'"), ("?!", None, "makes no sound"), ("guten Tag", "de", "has no language 'de'"),
    ],
)  # fmt: skip
def test_what_nemo_would_leave_out_is_refused(many, spoken_by_magpie, text, language, message):
    for voices in (many, spoken_by_magpie):
        with pytest.raises(InputError, match=message):
            voices.engine.speak(text, replace(voices.agent, language=language))
        assert voices.engine.cannot_say("Café, naïve: don't!", replace(voices.agent, language="eng")) is None
    with pytest.raises(InputError, match=r"has no speaker '12' \(speaker v\): expected 0 to 11"):
        many.engine.speak(TEXT, Voice("v", "12"))


def test_words_are_said_in_phonemes_alone(folder):
    """NeMo 3.0.0: `do_tts` of MagpieTTS leaves its tokenizer as in training, which writes some words in letters, drawn anew."""
    (folder / "words.dict").write_text("GOOD\tɡˈʊd\nDAY\tdˈeɪ\n")
    g2p = IpaG2p(str(folder / "words.dict"), phoneme_probability=0.5, locale="en-US")
    tokenizer = IPATokenizer(g2p, locale="en-US", punct=True, apostrophe=True, pad_with_space=True)
    assert len({tuple(tokenizer.encode("good day good day")) for _ in range(20)}) > 1
    nemo_tts._say_phonemes_alone(tokenizer)
    assert len({tuple(tokenizer.encode("good day good day")) for _ in range(20)}) == 1


def test_files_that_do_not_speak_are_named(folder, tmp_path):
    one, vocoder, coded = (folder / name for name in ("one.nemo", "hifigan.nemo", "codec.nemo"))

    def changed(name: str, **changes) -> Path:
        path = tmp_path / str(len(list(tmp_path.iterdir()))) / name
        path.parent.mkdir()
        return _with_config(folder / name, path, lambda config: config | changes)

    for needs, message in (
        (None, "nemo: expected paths of .nemo files: nemo:magpie.nemo,codec.nemo or nemo:fastpitch.nemo,hifigan.nemo"),
        (f"{tmp_path}/none.nemo", "nemo: there is no file .*none.nemo"),
        (f"{one}", r"one.nemo \(FastPitchModel\) do not speak alone, expected nemo:magpie.nemo"),
        (f"{one},{coded}", r"one.nemo \(FastPitchModel\) and .*codec.nemo \(AudioCodecModel\) do not speak alone"),
        (f"{one},{folder}/many.nemo,{vocoder}", "one.nemo and .*many.nemo are both of class FastPitchModel"),
        (f"{hifigan(tmp_path / 'v.nemo', sample_rate=8000)},{one}", "has the sample_rate 16000, .*v.nemo 8000: expected the"),
        (f"{magpie(tmp_path / 'm.nemo', coded, speakers=0)}", "m.nemo has no speakers of its own"),
        (changed("magpie.nemo", codecmodel_path="nvidia/a-codec"),
         "magpie.nemo needs the codec nvidia/a-codec: give its file too, nemo:.*magpie.nemo,/path"),
        (changed("one.nemo", target="nemo.collections.tts.models.SSLDisentangler"),
         "is a model of class nemo.*SSLDisentangler, expected nemo:magpie"),
        (f"{changed('one.nemo', symbols_embedding_dim=17)},{vocoder}", "one.nemo cannot be restored: "),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            nemo_voices(needs and str(needs))


def test_a_missing_package_is_said_with_its_cure(folder, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "nltk", None)  # which NeMo needs for English phonemes
    monkeypatch.delitem(sys.modules, "nemo.collections.tts.g2p.models.en_us_arpabet", raising=False)
    g2p = {"_target_": "nemo.collections.tts.g2p.models.en_us_arpabet.EnglishG2p"}
    name = "nemo.collections.common.tokenizers.text_to_speech.tts_tokenizers.EnglishPhonemesTokenizer"
    path = _with_config(
        folder / "one.nemo", folder / "needing.nemo", lambda config: config | {"text_tokenizer": {"_target_": name, "g2p": g2p}}
    )
    capfd.readouterr()
    needs = f"{path},{folder}/hifigan.nemo"
    with pytest.raises(NotInstalled, match=r"needing.nemo needs nltk, which is not installed: pip install 'nemo_toolkit\[tts"):
        nemo_voices(needs)
    assert capfd.readouterr() == ("", ""), "NeMo and hydra say nothing beside it."
    speakers, missing = open_cast(CastSpec(agent=f"nemo:{needs}"))
    assert speakers.agent.engine == "espeak-ng" and len(missing) == 1 and "pip install" in missing[0]


def test_a_share_that_is_no_number_is_named():
    for share in (None, 0, True, {"b": 1}, "1", float("inf")):
        with pytest.raises(
            InputError, match="user_voices: nemo:/a: .*: expected a share, a number above 0; a name with a comma"
        ):
            CastSpec(train=(("nemo:/a", share),))  # type: ignore[arg-type]


def test_name_and_version_are_of_the_files(folder, tmp_path, many):
    digests = [sha256((folder / name).read_bytes()).hexdigest() for name in ("many.nemo", "hifigan.nemo")]
    engine = many.engine
    assert engine.name == f"nemo-many-{digests[0][:6]}"
    release = torch.__version__.split("+")[0]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert engine.version == f"FastPitchModel {digests[0][:12]} HifiGanModel {digests[1][:12]} torch {release} {device}"


def _with_config(source: Path, path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Path:
    """A copy of a file with another configuration."""
    with tarfile.open(source) as theirs, tarfile.open(path, "w") as ours:
        for member in (m for m in theirs if m.isfile()):
            content = cast(IO[bytes], theirs.extractfile(member)).read()
            if member.name.endswith("model_config.yaml"):
                content = yaml.safe_dump(change(yaml.safe_load(content))).encode()
            member.size = len(content)
            ours.addfile(member, io.BytesIO(content))
    return path
