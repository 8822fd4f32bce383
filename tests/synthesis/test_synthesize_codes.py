"""examples/synthesize.py with a codec: the codes of a corpus, made once, beside what is there."""

from __future__ import annotations

from lhotse import CutSet

from nemo_duplex.codec.fsq_codec import FSQCodec
from tests.dummies import CODEC
from tests.synthesis.test_synthesize_script import run


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
