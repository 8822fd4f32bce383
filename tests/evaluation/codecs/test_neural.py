"""Codecs of files: what they give back, their bits, and those inside of agents."""

import math

import numpy as np
import pytest
import soxr
import torch

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.evaluation.codecs.neural import open_codecs
from nemo_duplex.inputs import InputError
from tests.codec.codecs import nanocodec_config
from tests.dummies import tiny_model
from tests.evaluation.speech.sounds import tone


def test_what_comes_back_is_encoded_and_decoded_at_the_codecs_rate(tmp_path):
    torch.manual_seed(0)
    FSQCodec(nanocodec_config()).save_to(tmp_path / "small.nemo")
    [small] = open_codecs([tmp_path / "small.nemo"])
    sound = tone(1.03)
    decoded = small.send(sound, 16000)
    given = torch.from_numpy(soxr.resample(sound, 16000, 22050))
    codes, frames = small.codec.encode(given[None], torch.tensor([len(given)]))
    assert frames.tolist() == [13] and len(decoded.samples) == 13 * 1764 and decoded.sample_rate == 22050
    assert decoded.samples.dtype == np.float32
    assert np.array_equal(decoded.samples, small.codec.decode(codes, frames)[0][0].detach().numpy())
    assert decoded.seconds == pytest.approx(13 * 0.08) and decoded.bits == pytest.approx(13 * 4 * math.log2(4032))
    about = small.about()
    assert small.name == "small" and about["codebook_size"] == 4032 and len(about["sha256"]) == 64
    assert about["kbps"] == pytest.approx(0.5989, abs=1e-4)


@pytest.mark.slow
def test_the_codec_of_an_agent_is_taken_from_its_file(tmp_path):
    agent = tiny_model(tmp_path)
    agent.save_to(str(tmp_path / "agent.nemo"))
    [opened] = open_codecs([tmp_path / "agent.nemo"])
    assert opened.name == "agent" and opened.codec.fingerprint == agent.audio_codec.fingerprint


def test_what_is_no_codec_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"codecs=\[\]: expected at least one .nemo"):
        open_codecs([])
    (tmp_path / "x.nemo").write_text("no codec")
    with pytest.raises(InputError, match="codecs: .*x.nemo"):
        open_codecs([tmp_path / "x.nemo"])
