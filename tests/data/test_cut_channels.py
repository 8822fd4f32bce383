"""Both channels of cuts that NeMo's loader has padded, cut, joined or mixed with noise: user, agent, turns and codes alike."""

import numpy as np
import pytest
import torch
from lhotse import CutSet, MonoCut, MultiCut, Recording
from lhotse.array import TemporalArray

from nemo_duplex.data.batch import SILENCE
from nemo_duplex.data.datamodule import duplex_dataloader
from nemo_duplex.data.dataset import DuplexS2SDataset
from nemo_duplex.inputs import InputError
from tests.data import corpus
from tests.dummies import Letters, wav_bytes

BOS, EOS = Letters.bos, Letters.eos


def dataset(**options):
    return DuplexS2SDataset(Letters(), **options)


def batch_of(*cuts, **options):
    return dataset(**options)[CutSet.from_cuts(cuts)]


def without(cut, *fields):
    for field in fields:
        del cut.custom[field]
    return cut


@pytest.fixture
def shar(tmp_path):
    return corpus.write(tmp_path / "shar", *(corpus.cut(f"c{i}") for i in range(4)))


def loaded(folder, batch_size=1, **keys):
    """The first batch of a loader with these keys."""
    keys = {"shar_path": str(folder), "batch_size": batch_size, "seed": 0, "num_workers": 0, **keys}
    return next(iter(duplex_dataloader(keys, dataset())))


def times(audio, level):
    """Where in the conversation each sample is from (Seconds); the audio tells its time."""
    return (audio - level) * 100


def check_is_one_conversation(batch, start=0.0, offset=0.0, row=0):
    """A batch has the corpus' conversation from `start` on, at `offset`: in both channels, turns and codes."""
    seconds = float(batch.user_audio_lens[row]) / 16000
    held = min(3.2 - start, seconds - offset)
    user = batch.user_audio[row]
    first, last = round(offset * 16000), round((offset + held) * 16000) - 1
    assert times(user[first], corpus.USER) == pytest.approx(start, abs=0.02)
    assert times(user[last], corpus.USER) == pytest.approx(start + held, abs=0.02)
    assert not user[:first].any() and not user[last + 1 :].any()
    expected = [BOS if t == 18 else EOS if t == 30 else None for t in range(40)]
    shift = round((start - offset) / 0.08)
    for t, token in enumerate(batch.agent_tokens[row].tolist()):
        inside = 0 <= t + shift < 40
        assert (token == BOS) == (inside and expected[t + shift] == BOS or (t == 0 and 18 < shift < 30))
        assert (token == EOS) == (inside and expected[t + shift] == EOS)
    if batch.agent_codes is None:
        agent, first = batch.agent_audio[row], round(offset * 22050)
        last = round((offset + held) * 22050) - 2
        assert len(agent) == round(seconds * 22050)
        assert times(agent[first], corpus.AGENT) == pytest.approx(start, abs=0.02)
        assert times(agent[last], corpus.AGENT) == pytest.approx(start + held, abs=0.02)
        assert not agent[:first].any() and not agent[last + 3 :].any()
    else:
        frames = torch.arange(int(batch.num_frames[row])) + shift
        heard = (frames >= round(start / 0.08)) & (frames < round((start + held) / 0.08))
        codes = torch.stack([frames + 1, frames + 101]).where(heard, SILENCE)
        assert torch.equal(batch.agent_codes[row, :, : len(frames)], codes)


# ---- padding


def test_the_padding_of_a_batch_is_silence():
    batch = batch_of(corpus.cut("long", 4.0), corpus.cut("short"))
    assert batch.agent_codes[1, :, 40:].eq(SILENCE).all() and batch.agent_codes[0].ge(0).all()


def test_padding_on_the_right_is_silence_on_both_channels(shar):
    batch = loaded(shar, pad_min_duration=5.0)
    assert batch.num_frames.tolist() == [63] and batch.agent_audio is None
    check_is_one_conversation(batch)
    assert batch.agent_codes[0, :, 40:].eq(SILENCE).all()


@pytest.mark.parametrize(("direction", "offset"), [("left", 1.6), ("both", 0.8)])
def test_padding_by_whole_frames_moves_codes_and_turns(shar, direction, offset):
    batch = loaded(shar, pad_min_duration=4.8, pad_direction=direction)
    assert batch.agent_codes is not None
    check_is_one_conversation(batch, offset=offset)


def test_padding_by_parts_of_frames_takes_the_audio(shar):
    """Codes cannot be moved by half a frame."""
    batch = loaded(shar, pad_min_duration=4.84, pad_direction="left")
    assert batch.agent_codes is None and batch.agent_audio_lens.tolist() == [round(4.84 * 22050)]
    assert times(batch.agent_audio[0, round(1.64 * 22050)], corpus.AGENT) == pytest.approx(0, abs=0.02)
    assert not batch.agent_audio[0, : round(1.64 * 22050) - 1].any()
    assert batch.agent_tokens[0].tolist().index(BOS) == 39, "3.08 s, 38.5 frames"


def test_padding_by_parts_of_frames_without_audio_is_refused_with_a_cure(tmp_path):
    made = without(corpus.cut("c"), "target_audio")
    with pytest.raises(
        InputError, match="^Cut c is cut or padded within a frame of its codes, and its batch has codes without target_audio"
    ) as error:
        batch_of(made.pad(4.84, direction="left", preserve_id=True))
    assert "pad_direction=right" in str(error.value)
    assert batch_of(made.pad(4.84, preserve_id=True)).agent_codes[0, 0, :40].tolist() == list(range(1, 41))


# ---- parts of conversations


@pytest.mark.parametrize("offset", ["start", "end"])
@pytest.mark.parametrize("seconds", [1.6, 2.4])
def test_truncation_cuts_codes_at_frames(shar, offset, seconds):
    batch = loaded(shar, truncate_duration=seconds, truncate_offset_type=offset)
    assert batch.agent_codes is not None and batch.num_frames.tolist() == [round(seconds / 0.08)]
    check_is_one_conversation(batch, start=3.2 - seconds if offset == "end" else 0.0)


def test_truncation_within_a_frame_takes_the_audio(shar):
    batch = loaded(shar, truncate_duration=1.5, truncate_offset_type="end")
    assert batch.agent_codes is None and batch.num_frames.tolist() == [19]
    assert times(batch.agent_audio[0, 0], corpus.AGENT) == pytest.approx(1.7, abs=0.02)
    assert times(batch.user_audio[0, 0], corpus.USER) == pytest.approx(1.7, abs=0.02)


def test_windows_lose_no_frame_and_have_none_twice(shar):
    """Lhotse's own cutting of arrays gives ten windows of 1 s of 125 frames 129 frames."""
    windows = CutSet.from_cuts([corpus.cut("c", 9.6)]).cut_into_windows(1.6)
    codes = [batch_of(window).agent_codes[0, 0] for window in windows]
    assert torch.cat(codes).tolist() == list(range(1, 121))
    batch = loaded(shar, batch_size=2, cut_into_windows_duration=1.6)
    for row, start in enumerate((0.0, 1.6)):
        check_is_one_conversation(batch, start=start, row=row)


def test_windows_that_are_padded_have_silence_after_them(shar):
    batch = loaded(shar, cut_into_windows_duration=1.6, pad_min_duration=2.4)
    assert batch.agent_codes[0, 0].tolist() == [*range(1, 21), *[SILENCE] * 10]
    tokens = batch.agent_tokens[0].tolist()
    assert (tokens.index(BOS), tokens.index(EOS)) == (18, 20), "the turn ends where its audio was cut"


def test_a_part_without_audio_is_cut_at_frames_alone():
    made = without(corpus.cut("c"), "target_audio")
    assert batch_of(made.truncate(offset=0.8, preserve_id=True)).agent_codes[0, 0].tolist() == list(range(11, 41))
    with pytest.raises(
        InputError, match="^Cut c is cut or padded within a frame of its codes, and its batch has codes without target_audio"
    ):
        batch_of(made.truncate(offset=0.81, preserve_id=True))


def test_a_cut_shorter_than_a_frame_is_refused_with_a_cure(shar):
    with pytest.raises(InputError, match="lasts 0.020 s, less than a frame of 0.08 s. Filter .* min_duration=0.08"):
        loaded(shar, batch_size=2, cut_into_windows_duration=3.18)
    assert loaded(shar, batch_size=2, cut_into_windows_duration=3.18, min_duration=0.08).num_frames.tolist() == [40, 40]
    with pytest.raises(InputError, match="less than a frame of 0.08 s. .* raise truncate_duration"):
        loaded(shar, truncate_duration=0.06)
    assert loaded(shar, truncate_duration=0.08).num_frames.tolist() == [1]


def test_joined_conversations_have_their_codes_and_turns_in_order():
    joined = corpus.cut("a").append(corpus.cut("b"))
    batch = batch_of(joined)
    assert batch.agent_codes[0, 0].tolist() == [*range(1, 41), *range(1, 41)]
    assert [t for t, token in enumerate(batch.agent_tokens[0].tolist()) if token == BOS] == [18, 58]
    assert batch.agent_texts == ["the answer the answer"]


def test_joined_conversations_of_different_rates_keep_their_pitch():
    """Lhotse 1.33 plays the second at the rate of the first."""
    other = corpus.cut("b")
    other.target_audio = Recording.from_bytes(wav_bytes(corpus.ramp(3.2, 44100, corpus.AGENT), 44100), "b-agent")
    joined = without(corpus.cut("a"), "target_codes").append(without(other, "target_codes"))
    audio = batch_of(joined).agent_audio[0]
    assert len(audio) == round(6.4 * 22050)
    for second in (0.5, 2.5, 3.7, 5.7):
        assert times(audio[round(second * 22050)], corpus.AGENT) == pytest.approx(second % 3.2, abs=0.02)


# ---- what changes the user alone


@pytest.mark.parametrize("codes", [True, False])
def test_noise_rooms_and_compression_change_the_user_alone(tmp_path, codes):
    made = [corpus.cut(f"c{i}") if codes else without(corpus.cut(f"c{i}"), "target_codes") for i in range(2)]
    shar = corpus.write(tmp_path / "shar", *made) if codes else tmp_path / "shar"
    if not codes:
        shar.mkdir()
        CutSet.from_cuts(made).to_shar(shar, fields={"recording": "wav", "target_audio": "wav"}, shard_size=2)
    plain = loaded(shar)
    noise = {"noise_path": str(corpus.write_noise(tmp_path)), "noise_mix_prob": 1.0}
    room = {"rir_enabled": True, "rir_prob": 1.0, "rir_path": str(corpus.write_room(tmp_path))}
    others = {
        "noise": noise,
        "room": room,
        "noise and room": noise | room,
        "compression": {"compression_enabled": True, "compression_prob": 1.0, "compression_codecs": ["gsm"]},
        "clipping": {"clipping_enabled": True, "clipping_prob": 1.0},
        "rate": {"sample_rate": 8000},
    }
    for name, keys in others.items():
        changed = loaded(shar, **keys)
        assert changed.user_audio.shape == plain.user_audio.shape, name
        assert not torch.allclose(changed.user_audio, plain.user_audio, atol=1e-3), name
        assert torch.equal(changed.agent_tokens, plain.agent_tokens) and changed.agent_texts == plain.agent_texts, name
        agent = (changed.agent_codes, plain.agent_codes) if codes else (changed.agent_audio, plain.agent_audio)
        assert torch.equal(*agent), name
    padded = loaded(shar, **noise, pad_min_duration=5.0)
    assert padded.num_frames.tolist() == [63] and padded.agent_texts == plain.agent_texts
    if codes:
        assert padded.agent_codes[0, 0].tolist() == [*range(1, 41), *[SILENCE] * 23]


def test_supervisions_of_noise_are_no_turns():
    """A noise corpus may be speech, with speakers of its own."""
    noise = corpus.cut("n")
    for supervision in noise.supervisions:
        supervision.speaker = "somebody"
    made = corpus.cut("c").mix(without(noise, "target_audio", "target_codes"), snr=10)
    batch = batch_of(made)
    assert batch.agent_texts == ["the answer"] and batch.agent_codes[0, 0].tolist() == list(range(1, 41))


# ---- fields


@pytest.mark.parametrize("fields", [("recording",), ()])
def test_an_agent_channel_whose_shards_are_missing_is_none(tmp_path, fields):
    """Lhotse opens such a corpus, says that the field is there, and fails when it is loaded."""
    shar = corpus.write(tmp_path / "shar", corpus.cut("c0"), fields=fields)
    with pytest.raises(
        InputError, match="^Cut c0 has no agent channel: expected the custom field 'target_audio'. Its"
    ) as error:
        loaded(shar)
    assert "manifest names target_audio and target_codes, but the shards are missing" in str(error.value)


def test_codes_whose_shards_are_missing_are_made_of_the_audio(tmp_path):
    batch = loaded(corpus.write(tmp_path / "a", corpus.cut("c0"), fields=("recording", "target_audio")))
    assert batch.agent_codes is None
    check_is_one_conversation(batch)


def test_audio_whose_shards_are_missing_is_not_needed_beside_codes(tmp_path):
    batch = loaded(corpus.write(tmp_path / "a", corpus.cut("c0"), fields=("recording", "target_codes")))
    check_is_one_conversation(batch)


def test_a_user_channel_whose_shards_are_missing_is_refused(tmp_path):
    shar = corpus.write(tmp_path / "shar", corpus.cut("c0"), fields=("target_audio", "target_codes"))
    with pytest.raises(InputError, match=r"^Cut c0 has no user channel: its recording is missing. Copy the recording"):
        loaded(shar)


@pytest.mark.parametrize("field", ["recording", "target_audio", "target_codes"])
def test_a_shard_that_is_missing_is_copied_or_its_field_is_moved_away_where_another_is_enough(tmp_path, field):
    shar = corpus.write(tmp_path / "shar", *[corpus.cut(f"c{i}") for i in range(4)])
    kept = (shar / f"{field}.000001.tar").rename(tmp_path / "kept.tar")
    with pytest.raises(InputError, match="Copy the missing shards too. Of target_audio and target_codes one is enough"):
        loaded(shar)
    if field != "recording":
        moved = (shar / f"{field}.000000.tar").rename(tmp_path / "moved.tar")
        assert (loaded(shar).agent_codes is None) == (field == "target_codes")
        moved.rename(shar / f"{field}.000000.tar")
    kept.rename(shar / f"{field}.000001.tar")
    assert loaded(shar).agent_codes is not None


def test_some_shards_of_a_field_are_refused_before_anything_is_read(tmp_path):
    shar = corpus.write(tmp_path / "shar", *(corpus.cut(f"c{i}") for i in range(4)))
    (shar / "target_codes.000001.tar").unlink()
    with pytest.raises(InputError, match="Expected 2 shards available for field 'target_codes' but found 1.* Copy the missing"):
        loaded(shar)
    (shar / "target_codes.000000.tar").unlink()
    assert loaded(shar).agent_codes is None, "the cure"


def test_codes_of_some_cuts_and_audio_of_others_make_no_batch():
    codes, audio = without(corpus.cut("codes"), "target_audio"), without(corpus.cut("audio"), "target_codes")
    with pytest.raises(InputError, match="^Cut codes has codes alone, and another cut of its batch audio alone. Add codes"):
        batch_of(codes, audio)
    assert batch_of(corpus.cut("both"), audio).agent_audio.shape == (2, 70560)
    assert batch_of(corpus.cut("both"), codes).agent_codes.shape == (2, 2, 40)


def test_codes_of_swapped_speakers_are_those_of_the_user():
    """NeMo's type s2s_duplex_reverse_role swaps audio and speakers, and leaves the codes."""
    made = corpus.cut("c")
    made.recording, made.target_audio = made.target_audio, made.recording
    made.task = "s2s_duplex_reverse_role"
    assert batch_of(made).agent_codes is None


@pytest.mark.parametrize("seconds", [3.0, 3.4])
def test_channels_of_different_duration_are_refused(seconds):
    made = corpus.cut("c")
    made.target_audio = corpus.cut("d", seconds).target_audio
    with pytest.raises(InputError, match=f"^Cut c: the user channel lasts 3.20 s and the agent channel {seconds:.2f} s"):
        batch_of(made)


def test_a_difference_of_less_than_a_frame_is_none():
    for seconds in (3.15, 3.25):
        made = without(corpus.cut("c"), "target_codes")
        made.target_audio = corpus.cut("d", seconds).target_audio
        batch = batch_of(made)
        assert batch.agent_audio.shape == (1, 70560) and batch.agent_audio_lens.tolist() == [70560]


@pytest.mark.parametrize("missing", [1, -1])
def test_codes_of_another_length_than_the_audio_are_refused_however_they_are_cut(missing):
    made = corpus.cut("c")
    codes = np.zeros((40 - missing, 2), np.int16)
    made = made.attach_tensor("target_codes", codes, frame_shift=0.08, temporal_dim=0)
    with pytest.raises(InputError, match=f"^Cut c has {40 - missing} frames of codes for 40 frames of audio"):
        batch_of(made)
    if missing > 0:
        with pytest.raises(InputError, match="^Cut c has 39 frames of codes for 40 frames of audio"):
            batch_of(made.truncate(offset=1.6, preserve_id=True))


def test_codes_of_a_part_of_a_long_recording():
    """Codes that begin where their cut does, as an array with times and as one without, which Lhotse does not cut."""
    whole = corpus.cut("c", 8.0)
    made = without(whole, "target_codes").truncate(offset=3.2, duration=3.2, preserve_id=True)
    codes = np.stack([np.arange(40)] * 2, axis=1).astype(np.int16)
    timed = made.attach_tensor("target_codes", codes, frame_shift=0.08, temporal_dim=0)
    assert isinstance(timed.target_codes, TemporalArray) and timed.target_codes.start == 3.2
    for one in (timed, made.attach_tensor("target_codes", codes)):
        assert batch_of(one).agent_codes[0, 0].tolist() == list(range(40))
    assert batch_of(timed.truncate(offset=0.8, preserve_id=True)).agent_codes[0, 0].tolist() == list(range(10, 40))


def test_audio_that_cannot_be_read_is_named():
    made = corpus.cut("c")
    made.recording = Recording.from_bytes(wav_bytes(corpus.ramp(3.2, 16000, 0.1), 16000)[:20000], "r")
    made.recording.num_samples, made.recording.duration = 51200, 3.2
    with pytest.raises(InputError, match=r"^Cut c: its user audio cannot be read \(.*\). Copy or write the corpus again.$"):
        batch_of(made)


def test_what_is_no_cut_is_named():
    with pytest.raises(InputError, match="^The data hold a dict, expected Lhotse cuts with two channels. Check `type:`"):
        dataset()[[{"text": "a"}]]


def test_one_channel_of_a_stereo_recording_is_a_user_channel():
    """The cure for channel_selector."""
    stereo = np.stack([corpus.ramp(3.2, 16000, level) for level in (0.3, corpus.USER)], axis=1)
    recording = Recording.from_bytes(wav_bytes(stereo, 16000), "stereo")
    made = corpus.cut("c")
    one = MonoCut("c", 0, 3.2, 1, recording=recording, supervisions=made.supervisions, custom=made.custom)
    check_is_one_conversation(batch_of(one))
    both = MultiCut("c", 0, 3.2, [0, 1], recording=recording, supervisions=made.supervisions, custom=made.custom)
    with pytest.raises(InputError, match="^Cut c: the user channel has 2 channels, expected one"):
        batch_of(both)


# --- codes of another codec -------------------------------------------------------------------------------------------


def coded(codes, name="c0"):
    made = corpus.cut(name)
    return made.attach_tensor("target_codes", np.asarray(codes), frame_shift=0.08, temporal_dim=0)


def of_40_frames(*codebooks):
    """(40, K) codes: in each codebook the value up to frame 38, the other one in the last frame."""
    return np.array([[first for first, _ in codebooks]] * 39 + [[last for _, last in codebooks]])


@pytest.mark.parametrize(
    ("codes", "found"),
    [
        (of_40_frames((0, 0)), "1 codebooks, expected 2"),
        (of_40_frames(*[(0, 0)] * 4), "4 codebooks, expected 2"),
        (of_40_frames((0, 0), (0, 36)), "values of 0 to 36, expected 0 to 35"),
        (of_40_frames((7, 5000), (35, 2)), "values of 2 to 5000, expected 0 to 35"),
        (of_40_frames((0, 0), (0, -1)), "values of -1 to 0, expected 0 to 35"),
        (of_40_frames((-3, 0), (0, 0)), "values of -3 to 0, expected 0 to 35"),
    ],
)
def test_codes_of_another_codec_are_refused(codes, found):
    said = (
        f"Cut c0 has codes of another codec than the model's: {found}. Take the codec that made them "
        "(model.pretrained_audio_codec)"
    )
    away = ", or move the files target_codes.* away: training then encodes target_audio"
    for cut, advice in ((coded(codes), away), (without(coded(codes), "target_audio"), "")):
        with pytest.raises(InputError) as caught:
            batch_of(cut, num_codebooks=2, codebook_size=36)
        assert str(caught.value) == f"{said}{advice}."


def test_codes_of_the_codec_are_taken_up_to_its_last_one():
    codes = of_40_frames((0, 35), (35, 0))
    batch = batch_of(coded(codes.astype(np.float32)), num_codebooks=2, codebook_size=36)
    assert torch.equal(batch.agent_codes[0], torch.from_numpy(codes.T))
    assert batch_of(coded(of_40_frames((0, 5000)))).agent_codes.max() == 5000, "a dataset need not know the codec"


def test_without_the_codec_codes_are_alike_in_a_batch_and_not_negative():
    one, two = coded(of_40_frames((0, 0)), "one"), coded(of_40_frames((0, 0), (0, 0)), "two")
    with pytest.raises(InputError, match="^Cut two has codes of another codec than the model's: 2 codebooks, expected 1"):
        batch_of(one, two)
    with pytest.raises(InputError, match="has codes of another codec than the model's: 2 codebooks, expected 1"):
        batch_of(one.append(two))
    with pytest.raises(InputError, match="^Cut c0 .*: values of -1 to 0, expected 0 or more"):
        batch_of(coded(of_40_frames((0, -1))))


@pytest.mark.parametrize(
    ("codes", "shape"),
    [
        (np.zeros(40), r"\(40,\) and type float64"),
        (np.full((40, 2), 0.5), r"\(40, 2\) and type float64"),
        (np.zeros((40, 2, 1), np.int16), r"\(40, 2, 1\) and type int16"),
    ],
)
def test_codes_are_whole_numbers_of_frames_and_codebooks(codes, shape):
    with pytest.raises(InputError, match=f"^Cut c0 has codes of shape {shape}, expected whole numbers .frames, codebooks"):
        batch_of(coded(codes))


def test_the_cure_for_codes_of_another_codec_helps(shar):
    """Lhotse opens the corpus once the shards are away, and the audio is taken."""
    for shard in shar.glob("target_codes.*"):
        shard.unlink()
    keys = {"shar_path": str(shar), "batch_size": 1, "seed": 0, "num_workers": 0}
    batch = next(iter(duplex_dataloader(keys, dataset(num_codebooks=2, codebook_size=36))))
    assert batch.agent_codes is None and batch.agent_audio is not None


def test_a_window_within_a_frame_of_the_codes_is_named_not_the_first(tmp_path):
    """Windows of 1 s begin at 0, 1, 2, 3 s: at a frame edge the first alone. Of 0.96 s all do."""
    folder = corpus.write(tmp_path, corpus.cut("a"), fields=("recording", "target_codes"))
    keys = {"shar_path": str(folder), "batch_size": 4, "force_finite": True, "min_duration": 0.08}
    with pytest.raises(InputError, match=r"is cut or padded within a frame of its codes.*multiples of 0.08 s: windows of such"):
        list(duplex_dataloader({**keys, "cut_into_windows_duration": 1.0}, DuplexS2SDataset(Letters())))
    (batch,) = duplex_dataloader({**keys, "cut_into_windows_duration": 0.96}, DuplexS2SDataset(Letters()))
    assert batch.num_frames.tolist() == [12, 12, 12, 4]


@pytest.mark.parametrize("field", ["start", "duration"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), "3.2", None])
def test_a_cut_without_times_is_refused(field, value):
    made = corpus.cut("c0")
    setattr(made, field, value)
    with pytest.raises(InputError) as caught:
        batch_of(made)
    assert str(caught.value) == f"Cut c0 has {field}={value!r}, expected a number of seconds. Write its manifest again."
