"""What a codec makes of held-out utterances while it is trained: its distance, sounds and spectrograms; and its best weights.

out/validation/step-500/0-recorded.wav, 0-decoded.wav, ...
out/validation/step-500/spectrograms.png    a row for each of them: recorded, decoded
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import soundfile
import torch
from matplotlib.figure import Figure

from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.codec.mel import FLOOR, log_mel, mel_filters
from nemo_duplex.codec.quality import mean_mel_distance, reconstruct
from nemo_duplex.files.atomic import whole_folder

_HEARD = 3


class CodecValidation:
    """Measures a codec on utterances, again and again, and remembers when it was best.

    Args:
        out: folder of the training.
        utterances: held-out ones, each (S,).
        patience: end after so many validations in a row without a smaller distance; None never ends and keeps no weights.

    Attributes:
        distances: {step, mel_distance} of each validation.
        best_step: step of the smallest distance among those that count; None before the first.
        best: weights of the codec at that step, on the CPU.
    """

    def __init__(self, out: Path, utterances: list[torch.Tensor], patience: int | None) -> None:
        self.out = out
        self.utterances = utterances
        self.patience = patience
        self.distances: list[dict[str, float]] = []
        self.best_step: int | None = None
        self.best: dict[str, torch.Tensor] | None = None
        self._least = math.inf
        self._without_gain = 0

    @property
    def is_over(self) -> bool:
        """Whether patience is spent."""
        return self.patience is not None and self._without_gain >= self.patience

    def run(self, codec: FSQCodec, step: int, counts: bool = True) -> None:
        """Measures the codec and writes what it makes of some utterances.

        Args:
            counts: whether this one is compared with others. Those before the discriminators join are not: with them a codec
                sounds better and its mel distance is larger.
        """
        distance = mean_mel_distance(codec, self.utterances)
        self.distances.append({"step": step, "mel_distance": distance})
        self._write(codec, step)
        if not counts:
            return
        if distance < self._least:
            self._least, self._without_gain, self.best_step = distance, 0, step
            if self.patience is not None:
                self.best = {key: value.detach().cpu().clone() for key, value in codec.model.state_dict().items()}
        else:
            self._without_gain += 1

    def state_dict(self) -> dict[str, Any]:
        """All that a training which is resumed needs."""
        return {
            "distances": copy.copy(self.distances),
            "best_step": self.best_step,
            "best": self.best,
            "least": self._least,
            "without_gain": self._without_gain,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where `state_dict` was called."""
        self.distances, self.best_step, self.best = state["distances"], state["best_step"], state["best"]
        self._least, self._without_gain = state["least"], state["without_gain"]

    def _write(self, codec: FSQCodec, step: int) -> None:
        heard = self.utterances[:_HEARD]
        window, filters = torch.hann_window(1024), mel_filters(codec.sample_rate, 1024, 80)
        figure = Figure(figsize=(12, 2.5 * len(heard)), layout="constrained")
        axes = figure.subplots(len(heard), 2, squeeze=False, sharex="row")
        with whole_folder(self.out / "validation" / f"step-{step}", replace=True) as folder:
            for number, audio in enumerate(heard):
                sounds = {"recorded": audio, "decoded": reconstruct(codec, audio)[0]}
                for place, (name, sound) in zip(axes[number], sounds.items()):
                    soundfile.write(folder / f"{number}-{name}.wav", sound.clamp(-1, 1).numpy(), codec.sample_rate)
                    mel = log_mel(sound[None], window, 256, filters)[0].numpy()
                    place.imshow(
                        mel,
                        origin="lower",
                        aspect="auto",
                        extent=(0, len(audio) / codec.sample_rate, 0, 80),
                        vmin=math.log(FLOOR),
                        vmax=-1,
                    )
                    place.set(title=f"{number} {name}", xlabel="seconds", ylabel="mel bin")
            figure.savefig(folder / "spectrograms.png", dpi=80)
