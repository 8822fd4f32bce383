"""What a recogniser hears of recordings, whole or chunk by chunk: clean, amid people, in noise, in a room, on a telephone.

    heard_in("babble", audio, ...)                 a recording amid other people
    Listener("encoder.nemo").streamed([audio])     its words, by the frames that an agent with this encoder hears

Each condition is one setting of what training draws from (`acoustics.py`), so that a number has a meaning of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from nemo_duplex.frames import USER_SAMPLE_RATE, Seconds
from nemo_duplex.inputs import InputError, did_you_mean
from nemo_duplex.perception.acoustics import AcousticChain, Augmentation, Others
from nemo_duplex.perception.ctc_model import greedy_texts, open_ctc_model
from nemo_duplex.perception.perception import Perception
from nemo_duplex.perception.stream import PerceptionStream
from nemo_duplex.synthesis.transmission import by_telephone

#: Silence that is added around a recording. The last word's tokens come some frames after it.
BEFORE: Seconds = 0.3
AFTER: Seconds = 1.0

#: (recording with silence around it, stretches of speech, other people, generator) -> what is heard of it.
Condition = Callable[[np.ndarray, Sequence[tuple[int, int]], Others, np.random.Generator], np.ndarray]


def _through(augmentation: Augmentation) -> Condition:
    return lambda audio, speech, others, rng: AcousticChain(augmentation, others).apply(audio, speech, rng).audio


def _by_telephone(audio: np.ndarray, speech: Sequence[tuple[int, int]], others: Others, rng: np.random.Generator) -> np.ndarray:
    return by_telephone(audio, USER_SAMPLE_RATE, "mu-law").astype(np.float32)


#: By name. Levels are of the speech against the rest.
CONDITIONS: Mapping[str, Condition] = {
    "clean": _through(Augmentation()),
    "babble": _through(Augmentation(babble=1.0, babble_voices=(6, 6), babble_snr_db=(10.0, 10.0))),
    "noise": _through(Augmentation(noise=1.0, noise_snr_db=(10.0, 10.0))),
    "room": _through(Augmentation(room=1.0, room_decay=(0.5, 0.5), room_direct_db=(0.0, 0.0))),
    "telephone": _by_telephone,
}


def check_conditions(names: Sequence[str]) -> None:
    """Refuses, with an InputError, names that are not in `CONDITIONS`, and none at all."""
    for name in names or ["none"]:
        if name not in CONDITIONS:
            raise InputError(f"conditions: {name}: expected some of {', '.join(CONDITIONS)}.{did_you_mean(name, CONDITIONS)}")


def heard_in(condition: str, audio: np.ndarray, others: Others, rng: np.random.Generator) -> np.ndarray:
    """A recording (S,) float32 at 16 kHz with silence around it, in one of `CONDITIONS`."""
    before, after = (round(seconds * USER_SAMPLE_RATE) for seconds in (BEFORE, AFTER))
    return CONDITIONS[condition](np.pad(audio, (before, after)), [(before, before + len(audio))], others, rng)


@dataclass(frozen=True)
class Listened:
    """What was heard of a recording."""

    text: str
    features: Tensor  # (T, D)


class Listener:
    """A cache-aware CTC recogniser, by the code that an agent's encoder runs in.

    Args:
        path: `.nemo` of `examples/train_encoder.py`, or of NeMo, with 80 ms frames.
        device: that it runs on.

    Raises:
        InputError: for a file that is missing or broken, no CTC model with word pieces, or an encoder that cannot be streamed.

    Examples:
        >>> Listener("encoder.nemo").streamed([np.zeros(16000, np.float32)])[0].text     # doctest: +SKIP
        ''
    """

    def __init__(self, path: str | Path, device: torch.device | str = "cpu") -> None:
        self._asr = open_ctc_model(path).to(device)
        perception = Perception.from_asr(str(path), {"adapter": {"kind": "identity"}, "output_dim": 1})
        width = perception.proj.in_features
        perception.proj = nn.Linear(width, width, bias=False)  # leaves the encoder's features as they are
        nn.init.eye_(perception.proj.weight)
        self._perception = perception.to(device).eval()
        self._device = device

    def whole(self, recordings: Sequence[np.ndarray], batch_size: int = 16) -> list[Listened]:
        """What is heard of recordings (S,) float32 at 16 kHz, each of them whole."""
        return self._listened(recordings, batch_size, self._whole_features)

    def streamed(self, recordings: Sequence[np.ndarray], batch_size: int = 16) -> list[Listened]:
        """What is heard of them chunk by chunk, as sessions of an agent hear them; many at a time."""
        return self._listened(recordings, batch_size, self._streamed_features)

    @torch.inference_mode()
    def _listened(
        self, recordings: Sequence[np.ndarray], batch_size: int, features: Callable[[list[Tensor]], Tensor]
    ) -> list[Listened]:
        found: dict[int, Listened] = {}
        for chosen in _batches(recordings, batch_size):
            audio = [torch.from_numpy(np.ascontiguousarray(recordings[i])).to(self._device) for i in chosen]
            encoded = features(audio)
            counts = [self._perception.count(len(one)) for one in audio]
            log_probs = self._asr.decoder(encoder_output=encoded.transpose(1, 2))
            texts = greedy_texts(self._asr, log_probs, counts)
            for row, (i, count, text) in enumerate(zip(chosen, counts, texts)):
                found[i] = Listened(text, encoded[row, :count].cpu())
        return [found[i] for i in range(len(recordings))]

    def _whole_features(self, audio: list[Tensor]) -> Tensor:
        lens = torch.tensor([len(one) for one in audio], device=self._device)
        return self._perception(nn.utils.rnn.pad_sequence(audio, batch_first=True), lens)[0]

    def _streamed_features(self, audio: list[Tensor]) -> Tensor:
        """(B, T, D), each encoder chunk from the one before and the state; a row that is over goes on with silence."""
        perception, size = self._perception, self._perception.chunk_samples
        chunks = -(-max(perception.count(len(one)) for one in audio) // perception.chunk_frames)
        samples = torch.zeros(len(audio), chunks * size, device=self._device)
        for row, one in zip(samples, audio):
            own = row[perception.lead_samples :]  # what is left over at the end, no frame depends on
            own[: len(one)] = one[: len(own)]
        stream = PerceptionStream(perception)
        state, rows, encoded = stream.init_state(len(audio)), torch.arange(len(audio), device=self._device), []
        live = torch.ones(len(audio), dtype=torch.bool, device=self._device)
        for chunk in samples.split(size, dim=1):
            encoded.append(stream.encoder(stream.mel(chunk, state, rows, live), state, rows, live))
        return torch.cat(encoded, dim=1)


def _batches(recordings: Sequence[np.ndarray], size: int) -> Iterator[list[int]]:
    """Numbers of recordings of similar length."""
    order = sorted(range(len(recordings)), key=lambda i: len(recordings[i]))
    for start in range(0, len(order), size):
        yield order[start : start + size]
