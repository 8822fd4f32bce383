"""NanoCodec's third discriminator: judges what a speech model such as WavLM hears. It needs the weights of that model."""

from __future__ import annotations

import torch
from nemo.collections.tts.modules.audio_codec_modules import SLMDiscriminator
from torch import nn
from transformers import AutoConfig

from nemo_duplex.codec.discriminators import Judgement
from nemo_duplex.inputs import InputError, existing_file, existing_folder, one_line

# What WavLM hears.
_SAMPLE_RATE = 16000
#: Parameters with this in their names are the speech model's: they never change, and checkpoints go without.
FROZEN = ".slm_model."


class WavLMDiscriminator(nn.Module):
    """NeMo's `SLMDiscriminator` (StyleTTS 2, arXiv:2306.07691) on a model in a local folder; nothing is downloaded.

    Args:
        folder: of a speech model as Hugging Face's transformers write it (WavLM, HuBERT, wav2vec 2.0); it stays as it is.
        sample_rate: of the audio.

    Raises:
        InputError: if the folder holds no such model.
    """

    def __init__(self, folder: str, sample_rate: int) -> None:
        super().__init__()
        existing_file(existing_folder(folder, "adversarial.wavlm") / "config.json", "adversarial.wavlm")
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            self.judge = SLMDiscriminator(
                slm_model_name=str(folder),
                slm_sr=_SAMPLE_RATE,
                input_sr=sample_rate,
                slm_hidden=config.hidden_size,
                slm_layers=config.num_hidden_layers + 1,
            )
        except Exception as error:  # transformers raise different ones
            raise InputError(
                f"adversarial.wavlm: {folder} is no speech model ({one_line(error)}). Give WavLM's folder."
            ) from error

    def forward(self, audio: torch.Tensor) -> Judgement:
        """(B, S) float32 -> a judgement."""
        self.judge.slm_model.eval()  # no dropout
        scores, features = self.judge._forward(audio)
        return scores[:, None], features
