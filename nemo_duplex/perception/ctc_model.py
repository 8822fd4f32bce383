"""A small streaming speech recogniser; an agent takes its encoder as user encoder (paper, section 4.1).

The model is NeMo's own EncDecCTCModelBPE and its `.nemo` a normal NeMo checkpoint. Its forward is the agent's (`FrameEncoder`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from nemo.collections.asr.metrics.wer import word_error_rate
from nemo.collections.asr.models import EncDecCTCModelBPE
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from omegaconf import OmegaConf
from sentencepiece import SentencePieceProcessor
from torch import Tensor

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.files.eight_bits import to_8_bits
from nemo_duplex.files.nemo_file import read_nemo_config
from nemo_duplex.inputs import InputError, one_line
from nemo_duplex.perception.config import perception_config
from nemo_duplex.perception.ctc_data import Utterance, UtteranceBatch, collate
from nemo_duplex.perception.perception import FrameEncoder
from nemo_duplex.perception.whisper_encoder import SCALE_OF_ROWS, StreamingWhisperEncoder
from nemo_duplex.training.evaluation_mode import evaluating
from nemo_duplex.words import words

_WHAT = "speech recognition model"


def ctc_model(preprocessor: Mapping[str, Any], encoder: Mapping[str, Any], tokenizer: str | Path) -> EncDecCTCModelBPE:
    """A NeMo CTC model with random weights.

    Args:
        preprocessor, encoder: as for `Perception`.
        tokenizer: the SentencePiece model, in a file called tokenizer.model.

    Raises:
        InputError: if the encoder is not cache-aware with 80 ms frames.
    """
    checked = perception_config({"preprocessor": preprocessor, "encoder": encoder, "output_dim": 1})
    asr = "nemo.collections.asr.modules"
    _write_pieces(Path(tokenizer))
    arguments = dict(checked["encoder"])
    whisper = arguments.pop("kind", None) == "whisper"
    target = (
        f"{StreamingWhisperEncoder.__module__}.{StreamingWhisperEncoder.__name__}" if whisper else f"{asr}.ConformerEncoder"
    )
    config = {
        "sample_rate": checked["preprocessor"]["sample_rate"],
        "preprocessor": {"_target_": f"{asr}.AudioToMelSpectrogramPreprocessor", **checked["preprocessor"]},
        "encoder": {"_target_": target, **arguments},
        "decoder": {"_target_": f"{asr}.ConvASRDecoder", "feat_in": None, "num_classes": -1, "vocabulary": []},
        "tokenizer": {"dir": str(Path(tokenizer).parent), "type": "bpe"},
        "ctc_reduction": "mean_volume",  # per token: long and short utterances weigh the same
    }
    try:
        return EncDecCTCModelBPE(OmegaConf.create(config))
    except InstantiationException as error:
        raise InputError(f"encoder, preprocessor: NeMo refuses the configuration ({one_line(error, 300)}).") from error


def open_ctc_model(path: str | Path) -> EncDecCTCModelBPE:
    """The CTC recogniser of a `.nemo`, in evaluation on the CPU.

    Raises:
        InputError: if the file is missing or broken, or holds another model.
    """
    target = str(read_nemo_config(Path(path), _WHAT).get("target", "model without a class")).rsplit(".", 1)[-1]
    if target != EncDecCTCModelBPE.__name__:
        raise InputError(
            f"{_WHAT}: {path} holds the class {target}, expected a CTC model with word pieces ({EncDecCTCModelBPE.__name__}), "
            "such as encoder.nemo of examples/train_encoder.py."
        )
    try:
        return EncDecCTCModelBPE.restore_from(str(path), map_location="cpu").eval()
    except Exception as error:  # whatever NeMo raises for parts that do not fit
        raise InputError(f"{_WHAT}: NeMo cannot restore {path} ({one_line(error)}). Write it again.") from error


def replace_tokenizer(asr: EncDecCTCModelBPE, tokenizer: str | Path) -> None:
    """Gives the recogniser other word pieces and an output layer with random weights for them. Its encoder stays as it is.

    Args:
        tokenizer: the SentencePiece model, in a file called tokenizer.model.
    """
    _write_pieces(Path(tokenizer))
    asr.change_vocabulary(str(Path(tokenizer).parent), "bpe")


def _write_pieces(tokenizer: Path) -> None:
    """NeMo wants a list of the pieces beside the model."""
    vocabulary = SentencePieceProcessor(str(tokenizer))
    pieces = (vocabulary.id_to_piece(i) for i in range(vocabulary.vocab_size()))
    (tokenizer.parent / "vocab.txt").write_text("\n".join(pieces) + "\n")


@torch.no_grad()
def centre_input(asr: EncDecCTCModelBPE, batch: UtteranceBatch) -> None:
    """Changes the first convolution so that it starts as if log-mels had mean 0 and deviation 1.

    Streamable features are not normalised (mean -11, deviation 4), while random weights suit features that are. Without this
    change the first minutes of training are spent on learning it.
    """
    mel = FrameEncoder(asr.preprocessor, asr.encoder).mel(batch.audio, batch.audio_lens)
    first = asr.encoder.pre_encode.conv[0]
    first.weight.div_(mel.std())
    first.bias.sub_(first.weight.sum(dim=(1, 2, 3)) * mel.mean())


@torch.inference_mode()
def transcribe(asr: EncDecCTCModelBPE, utterances: Sequence[Utterance], batch_size: int = 16) -> list[str]:
    """Greedy transcripts in the order given, by the forward that the agent uses. Leaves the model in the mode it was in."""
    frame_encoder = FrameEncoder(asr.preprocessor, asr.encoder)
    order = sorted(range(len(utterances)), key=lambda i: utterances[i].duration)
    texts = [""] * len(utterances)
    with evaluating(asr):
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = collate([utterances[i].whole() for i in chosen], [torch.zeros(0)] * len(chosen)).to(asr.device)
            features, frames = frame_encoder.encode(batch.audio, batch.audio_lens)
            log_probs = asr.decoder(encoder_output=features.transpose(1, 2))
            for i, text in zip(chosen, greedy_texts(asr, log_probs, frames.tolist())):
                texts[i] = text
    return texts


def greedy_texts(asr: EncDecCTCModelBPE, log_probs: Tensor, frames: Sequence[int]) -> list[str]:
    """The texts of the most likely paths in log-probabilities (B, T, V + 1), blank last; each row has so many frames."""
    texts = []
    for row, count in zip(log_probs.argmax(-1), frames, strict=True):
        ids = torch.unique_consecutive(row[:count])
        texts.append(asr.tokenizer.ids_to_text(ids[ids != log_probs.shape[-1] - 1].tolist()))
    return texts


def error_rate(transcripts: Sequence[str], utterances: Sequence[Utterance]) -> float:
    """Word error rate over all utterances together; case and punctuation do not count."""
    return word_error_rate([" ".join(words(t)) for t in transcripts], [" ".join(words(u.text)) for u in utterances])


def save_ctc_model(asr: EncDecCTCModelBPE, path: str | Path) -> None:
    """Writes the `.nemo`, whole or not at all, with weights in float16: half the size. Any NeMo restores it in float32.

    An ear that began as Whisper is stored in 8 bits, with a scale for each row of a matrix; NeMo restores it where nemo_duplex
    is installed.
    """
    connector = _QuarterSize() if isinstance(asr.encoder, StreamingWhisperEncoder) else _HalfSize()
    with whole_file(path) as part:
        connector.save_to(asr, str(part))


class _HalfSize(SaveRestoreConnector):
    @staticmethod
    def _save_state_dict_to_disk(state_dict: dict[str, Tensor], filepath: str) -> None:
        def small(name: str, weight: Tensor) -> bool:  # the mel filters are computed, not learnt: they stay exact
            exact = name.startswith("preprocessor.") or name.endswith(SCALE_OF_ROWS)
            return weight.is_floating_point() and not exact

        halved = {name: w.half() if small(name, w) else w for name, w in state_dict.items()}
        SaveRestoreConnector._save_state_dict_to_disk(halved, filepath)


class _QuarterSize(_HalfSize):
    @staticmethod
    def _save_state_dict_to_disk(state_dict: dict[str, Tensor], filepath: str) -> None:
        stored = {}
        for name, weight in state_dict.items():
            if not name.startswith("encoder.") or not name.endswith(".weight") or weight.dim() < 2:
                stored[name] = weight
                continue
            stored[name], stored[f"{name}{SCALE_OF_ROWS}"] = to_8_bits(weight)
        _HalfSize._save_state_dict_to_disk(stored, filepath)
