"""Trains the network of the detector, from voices and noises that are made here.

    voices (eSpeak, other speakers) ── scenes ──> features, truth ── cross-entropy ──> user_activity.safetensors

Everything is drawn from one seed, and the work is counted in steps: the same call makes the same weights on the same machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from tqdm import tqdm

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.frames import Seconds
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.mix import resample
from nemo_duplex.synthesis.text.grammar import Grammar
from nemo_duplex.synthesis.text.sources import Split
from nemo_duplex.synthesis.tts.espeak import EspeakEngine
from nemo_duplex.synthesis.tts.utterance import Voice
from nemo_duplex.synthesis.tts.voices import NUM_SPEAKERS, user_voice, voice_data
from nemo_duplex.user_activity.features import FEATURES, REMEMBERED, describe, levels, window
from nemo_duplex.user_activity.scenes import SAMPLE_RATE, SceneMaker

#: Languages that eSpeak's speakers have beside English, for sounds that English lacks.
LANGUAGES = ("de", "fr", "es", "it", "pt", "nl", "sv", "pl", "ru", "tr", "fi", "hi", "cs", "hu", "el", "vi", "sw", "id")
#: What people say in one word.
INTERJECTIONS = (
    "Yes.", "No.", "Stop.", "Wait.", "Okay.", "Hello?", "Sure.", "Thanks.", "Please.", "What?", "Right.", "Sorry?", "Hey!",
    "Fine.", "How?", "Fifty six.", "Hold on.", "She.", "Hmm, no.", "Five.",
)  # fmt: skip


@dataclass(frozen=True)
class ActivityTraining:
    """What the network is trained on, and how. Keys of `conf/train_user_activity.yaml`.

    Args:
        speakers: of eSpeak.
        scenes, seconds: how many scenes of which length there are.
        steps, batch: of the optimizer; scenes in a batch.
        width: of the network.
        rate: peak learning rate.
        seed: of everything.
    """

    speakers: int = 320
    scenes: int = 5000
    seconds: Seconds = 8.0
    steps: int = 2400
    batch: int = 64
    width: int = 64
    rate: float = 3e-3
    seed: int = 0


class ActivityModel(nn.Module):
    """What `detector.ActivityNetwork` computes, for training.

    Examples:
        >>> ActivityModel(width=8)(torch.zeros(2, 100, FEATURES)).shape
        torch.Size([2, 100])
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = nn.Linear(FEATURES, width)
        self.recurrent = nn.GRU(width, width, batch_first=True)
        self.output = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, N, FEATURES) of N hops from the beginning of a stream; returns the log-odds (B, N) of speech."""
        hidden, _ = self.recurrent(torch.relu(self.input(features)))
        return self.output(hidden)[:, :, 0]


def espeak_voices(split: Split, speakers: int, rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """Utterances (S,) at 16 kHz of speakers of a split of `synthesis/tts/voices.py`: questions and single words.

    Two in five speakers of `train` have the sounds of another language than English.
    """
    engine, questions = EspeakEngine(voice_data()), [exchange.user for exchange in Grammar().exchanges]
    voices: dict[str, list[np.ndarray]] = {}
    for number in range(min(speakers, NUM_SPEAKERS[split])):
        voice = replace(user_voice(split, number), rate=int(rng.integers(120, 230)))
        if split == "train" and rng.random() < 0.4:
            language = LANGUAGES[rng.integers(len(LANGUAGES))]
            voice = replace(voice, name=f"{language}+{voice.name.partition('+')[2]}")
        texts = [str(text) for text in (*rng.choice(questions, 6, replace=False), *rng.choice(INTERJECTIONS, 3, replace=False))]
        sayable = [text for text in texts if engine.cannot_say(text, voice) is None]
        if sayable:
            voices[voice.id] = [_said(engine, text, voice) for text in sayable]
    return voices


def _said(engine: EspeakEngine, text: str, voice: Voice) -> np.ndarray:
    utterance = engine.speak(text, voice)
    return resample(utterance.audio, utterance.sample_rate, SAMPLE_RATE)


def train_user_activity(training: ActivityTraining, out: Path) -> float:
    """Trains, and writes `user_activity.safetensors`, the weights, and `user_activity.json`, the settings and the result.

    Returns:
        the share of hops of unseen scenes (of the same voices) that are right.

    Raises:
        InputError: for settings that leave nothing to train on.
    """
    if training.scenes < 20:
        raise InputError(f"scenes={training.scenes}: expected 20 or more; one in twenty is kept to try the network on.")
    voices = espeak_voices("train", training.speakers, np.random.default_rng([training.seed, 0]))
    features, truth = _drawn(SceneMaker(voices, np.random.default_rng([training.seed, 1])), training)
    kept = training.scenes // 20
    torch.manual_seed(training.seed)
    model = ActivityModel(training.width)
    optimizer = torch.optim.AdamW(model.parameters(), training.rate, weight_decay=1e-3)
    progress = tqdm(range(training.steps), "Training", unit="step", delay=5)
    for step, batch in zip(progress, _batches(kept, training)):
        optimizer.param_groups[0]["lr"] = training.rate * min(1.0, step / 50, 1.02 - step / training.steps)
        loss = _loss(model(torch.from_numpy(features[batch].astype(np.float32))), torch.from_numpy(truth[batch]).float())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
    with torch.inference_mode():
        found = model(torch.from_numpy(features[:kept].astype(np.float32))) > 0
    right = float((found.numpy() == truth[:kept]).mean())
    with whole_file(out / "user_activity.safetensors") as path:
        path.write_bytes(save(model.state_dict()))
    with whole_file(out / "user_activity.json") as path:
        path.write_text(json.dumps({"right": round(right, 4), "training": asdict(training)}, indent=2) + "\n")
    return right


def _drawn(maker: SceneMaker, training: ActivityTraining) -> tuple[np.ndarray, np.ndarray]:
    """Features (M, N, FEATURES) float16 of all scenes and whether the caller speaks (M, N): 80 kB a scene of 12 s."""
    hop = window(SAMPLE_RATE).hop
    hops = int(training.seconds * SAMPLE_RATE) // hop
    features = np.zeros((training.scenes, hops, FEATURES), np.float16)
    truth = np.zeros((training.scenes, hops), bool)
    for start in tqdm(range(0, training.scenes, 50), "Scenes", unit="x 50", delay=5):
        scenes = [maker.scene(training.seconds) for _ in range(min(50, training.scenes - start))]
        bands = np.stack([levels(hop_windows(scene.audio), SAMPLE_RATE)[:hops] for scene in scenes])
        memory = np.zeros((len(scenes), REMEMBERED), np.float32)
        for at in range(hops):
            features[start : start + len(scenes), at] = describe(bands[:, at], memory)
        truth[start : start + len(scenes)] = [scene.truth(hop)[:hops] for scene in scenes]
    return features, truth


def hop_windows(audio: np.ndarray) -> np.ndarray:
    """The windows (N, 2 * hop) of audio (S,) at 16 kHz, as a stream has them: silence stands before its first hop."""
    hop = window(SAMPLE_RATE).hop
    return np.lib.stride_tricks.sliding_window_view(np.concatenate([np.zeros(hop, np.float32), audio]), 2 * hop)[::hop]


def _batches(kept: int, training: ActivityTraining) -> Iterator[np.ndarray]:
    rng = np.random.default_rng([training.seed, 2])
    while True:
        yield rng.integers(kept, training.scenes, training.batch)


def _loss(log_odds: Tensor, truth: Tensor) -> Tensor:
    """Cross-entropy; the first eighth of a second of speech counts three times, silence one and a half."""
    begins = truth * (1 - nn.functional.pad(truth, (1, 0))[:, :-1])
    early = nn.functional.max_pool1d(nn.functional.pad(begins, (7, 0))[:, None], 8, 1)[:, 0] * truth
    return nn.functional.binary_cross_entropy_with_logits(log_odds, truth, weight=1 + 2 * early + 0.5 * (1 - truth))
