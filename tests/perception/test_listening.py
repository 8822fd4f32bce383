"""What recognisers hear, whole and chunk by chunk, and that conditions are what they are called."""

import numpy as np
import pytest
import torch

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.data.text_tokenizer import train_tokenizer
from nemo_duplex.inputs import InputError
from nemo_duplex.perception.ctc_data import Utterance
from nemo_duplex.perception.ctc_model import ctc_model, greedy_texts, save_ctc_model, transcribe
from nemo_duplex.perception.listening import CONDITIONS, Listener, check_conditions, heard_in
from nemo_duplex.synthesis.transmission import by_telephone
from tests.dummies import CODEC, PERCEPTION, speech_like

BEFORE, AFTER = 4800, 16000


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ctc")
    (folder / "texts.txt").write_text("\n".join(f"What is {a} plus {b}?" for a in ("one", "two") for b in ("six", "four")))
    train_tokenizer(folder / "texts.txt", folder / "tokenizer.model", 40)
    torch.manual_seed(0)
    asr = ctc_model(PERCEPTION["preprocessor"], PERCEPTION["encoder"], folder / "tokenizer.model")
    with torch.no_grad():
        asr.decoder.decoder_layers[0].weight.mul_(30)  # so that random weights say something else in each frame
    save_ctc_model(asr, folder / "encoder.nemo")
    return folder / "encoder.nemo"


@pytest.fixture(scope="module")
def listener(checkpoint):
    return Listener(checkpoint)


def recordings():
    """Of several lengths: whole chunks, a sample more and less, one sample."""
    return [speech_like(seconds, seed).numpy() for seed, seconds in enumerate((1.6, 0.7, 2.33))] + [
        speech_like(1.0, 7).numpy()[:n] for n in (1, 2559, 2560, 2561)
    ]


def test_a_stream_hears_what_is_heard_of_the_whole(listener):
    whole, streamed = listener.whole(recordings(), 4), listener.streamed(recordings(), 3)
    for audio, one, other in zip(recordings(), whole, streamed, strict=True):
        assert one.features.shape == other.features.shape == (-(-len(audio) // 1280), PERCEPTION["encoder"]["d_model"])
        torch.testing.assert_close(other.features, one.features, atol=1e-5, rtol=1e-4)
        assert one.text == other.text
    assert len({one.text for one in whole}) > 1


def test_its_words_are_those_of_the_recogniser(listener):
    given = recordings()[:3]
    kept = [(audio * 32768).clip(-32768, 32767).astype(np.int16) for audio in given]
    utterances = [Utterance("u", audio, "one", 0, len(audio), 0, len(audio)) for audio in kept]
    expected = transcribe(listener._asr, utterances)
    assert [one.text for one in listener.whole([audio.astype(np.float32) / 32768 for audio in kept])] == expected


def test_texts_are_of_the_best_path_within_each_rows_frames(listener):
    asr, blank = listener._asr, listener._asr.decoder.num_classes_with_blank - 1
    path = torch.tensor([[5, 5, blank, 5, 6, 6, 7], [5, 6, 7, 7, 7, 7, 7]])
    log_probs = torch.nn.functional.one_hot(path, blank + 1).float()
    said = asr.tokenizer.ids_to_text
    assert greedy_texts(asr, log_probs, [7, 2]) == [said([5, 5, 6, 7]), said([5, 6])]


def test_files_that_cannot_listen(tmp_path):
    FSQCodec(CODEC).save_to(tmp_path / "codec.nemo")
    with pytest.raises(
        InputError, match=r"codec.nemo holds the class \w+, expected a CTC model with word pieces .* encoder.nemo of"
    ):
        Listener(tmp_path / "codec.nemo")
    (tmp_path / "text.nemo").write_text("no model")
    with pytest.raises(InputError, match="text.nemo"):
        Listener(tmp_path / "text.nemo")
    with pytest.raises(InputError, match="nothing.nemo"):
        Listener(tmp_path / "nothing.nemo")


# --- conditions -------------------------------------------------------------------------------------------------------


def heard(condition, audio, others=None, seed=0):
    return heard_in(condition, audio, others or (lambda rng: speech_like(1.0, 3).numpy()), np.random.default_rng(seed))


def power(audio):
    return np.mean(np.square(audio.astype(np.float64)))


def test_a_clean_recording_has_silence_around_it():
    audio = 0.1 * speech_like(1.0, 0).numpy()
    assert np.array_equal(heard("clean", audio), np.pad(audio, (BEFORE, AFTER)))


@pytest.mark.parametrize("condition", ["babble", "noise"])
def test_babble_and_noise_are_ten_db_softer_than_the_recording(condition):
    audio = 0.05 * speech_like(2.0, 0).numpy()
    for seed in range(3):
        added = heard(condition, audio, seed=seed) - np.pad(audio, (BEFORE, AFTER))
        during = max(power(added[BEFORE:-AFTER]), power(added) / 10)
        assert 10 * np.log10(power(audio) / during) == pytest.approx(10.0, abs=0.1)
        assert added[:BEFORE].any() and added[-AFTER:].any()


def test_babble_is_of_six_people():
    asked = []

    def others(rng):
        asked.append(1)
        return speech_like(0.5, 3).numpy()

    heard("babble", speech_like(1.0, 0).numpy(), others)
    assert len(asked) == 12  # two utterances of each


def test_a_telephone_is_mu_law():
    audio = 0.1 * speech_like(1.0, 0).numpy()
    for seed in range(3):
        expected = by_telephone(np.pad(audio, (BEFORE, AFTER)), 16000, "mu-law")
        assert np.allclose(heard("telephone", audio, seed=seed), expected, atol=1e-6)


def test_a_room_is_heard_after_the_voice():
    click = np.zeros(1000, np.float32)
    click[0] = 0.1
    echoes = heard("room", click)
    assert echoes[BEFORE] == pytest.approx(0.1, rel=1e-3) and abs(echoes[:BEFORE]).max() < 1e-6
    assert power(echoes[BEFORE + 1 :]) * (len(echoes) - BEFORE - 1) == pytest.approx(0.01, rel=0.05)  # as loud as the voice
    assert not echoes[BEFORE + 8001 :].round(6).any()  # half a second


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_is_the_same_for_the_same_generator(condition):
    audio = speech_like(1.0, 0).numpy()
    assert np.array_equal(heard(condition, audio, seed=4), heard(condition, audio, seed=4))
    assert heard(condition, audio).dtype == np.float32 and len(heard(condition, audio)) == BEFORE + 16000 + AFTER


def test_conditions_that_are_not_known():
    check_conditions(["clean", "room"])
    with pytest.raises(InputError, match="conditions: bable: expected some of clean, babble.*Did you mean 'babble'"):
        check_conditions(["clean", "bable"])
    with pytest.raises(InputError, match="conditions: none: expected some of clean"):
        check_conditions([])
