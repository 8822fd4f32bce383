"""How soon and how surely it is noticed that a caller speaks, beside Silero VAD as it is published, and what it costs.

An onset is noticed in time if the detector becomes active within 150 ms: from the first loud 5 ms of a turn to the end of
the first active stretch of 80 ms of the caller's audio, which is when a server that gets 80 ms at a time can know. A detector
that was active before has not noticed the turn. An activation is false if nobody speaks when it begins, nor did in the 0.35 s
before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import soundfile

from nemo_duplex.benchmark.machine import cpu_threads, describe_machine
from nemo_duplex.benchmark.noisy_callers import CONDITIONS, noisy_caller
from nemo_duplex.benchmark.table import Table, milliseconds
from nemo_duplex.evaluation.confidence import wilson
from nemo_duplex.frames import Seconds, Span
from nemo_duplex.inputs import InputError, existing_folder
from nemo_duplex.streaming.resampler import StreamResampler
from nemo_duplex.user_activity.detector import UserActivity, listen
from nemo_duplex.user_activity.scenes import SAMPLE_RATE, Scene
from nemo_duplex.user_activity.training import espeak_voices

#: What a server gets at a time.
_FRAME: Seconds = 0.08
#: In time; nobody's words end so much later; turns are this far apart; how much earlier than the truth an onset may be noticed.
_IN_TIME, _AFTER, _APART, _EARLY = 0.15, 0.35, 0.6, 0.02
_SILERO_RATE, _SILERO_WINDOW = 16000, 512
DETECTORS = ("ours", "silero")

Detector = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ActivitySetting:
    """What is measured; the keys of `conf/benchmark.yaml` that say "user_activity" or nothing.

    Args:
        voices: folder of callers, a folder of WAV files for each; None: the speakers of eSpeak's dev split.
        detectors: of `DETECTORS`.
        per_condition: minutes of audio in each condition.
        threads: of the CPU.
    """

    voices: str | None = None
    detectors: Sequence[str] = DETECTORS
    per_condition: float = 30.0
    threads: int = 1


@dataclass(frozen=True)
class Heard:
    """What a detector did in a scene, or in many.

    Attributes:
        delays: of the turns, in Seconds; infinite where a turn was not noticed.
        false: activations while nobody spoke.
        right, frames: stretches of 80 ms.
    """

    delays: tuple[Seconds, ...] = ()
    false: int = 0
    right: int = 0
    frames: int = 0

    def __add__(self, other: Heard) -> Heard:
        return Heard(self.delays + other.delays, self.false + other.false, self.right + other.right, self.frames + other.frames)

    @property
    def in_time(self) -> int:
        """Turns that were noticed within 150 ms."""
        return sum(delay <= _IN_TIME + 1e-9 for delay in self.delays)


def judge(active: np.ndarray, spans: Sequence[Span]) -> Heard:
    """Compares activity (T,) in stretches of 80 ms with the spans in which somebody speaks."""
    begins = (np.flatnonzero(np.diff(np.concatenate([[0], active.astype(np.int8)])) == 1) + 1) * _FRAME  # known at its end
    turns: list[Span] = []
    for start, end in spans:
        if turns and start - turns[-1][1] < _APART:
            turns[-1] = (turns[-1][0], end)
        else:
            turns.append((start, end))
    noticed = [[t for t in begins.tolist() if start - _EARLY <= t <= end + _AFTER] for start, end in turns]
    truth = np.zeros(len(active), bool)
    for start, end in spans:
        truth[int(start / _FRAME) : int(np.ceil(end / _FRAME))] = True
    delays = tuple(times[0] - start if times else np.inf for times, (start, _) in zip(noticed, turns))
    return Heard(delays, len(begins) - sum(map(len, noticed)), int((truth == active).sum()), len(active))


def ours(audio: np.ndarray) -> np.ndarray:
    """The detector of the package."""
    user, size, active = UserActivity(SAMPLE_RATE), round(_FRAME * SAMPLE_RATE), []
    for start in range(0, len(audio) - size + 1, size):
        user.push(audio[start : start + size])
        listen([user])
        active.append(user.spoke(start + size))
    return np.array(active, bool)


def silero() -> Detector:
    """Silero VAD with the thresholds of its `VADIterator`: 0.5, ends after 0.1 s below 0.35.

    Raises:
        InputError: if the wheel is not installed.
    """
    try:
        from silero_vad import load_silero_vad
    except ImportError as error:
        raise InputError(
            f"detectors=[silero] needs the package silero-vad ({error}): pip install silero-vad, or detectors=[ours]."
        ) from error
    import torch

    model = load_silero_vad()

    def detect(audio: np.ndarray) -> np.ndarray:
        model.reset_states()
        active, speaks, low = np.zeros(round(len(audio) / SAMPLE_RATE / _FRAME), bool), False, 0
        with torch.inference_mode():
            for end in range(_SILERO_WINDOW, len(audio) + 1, _SILERO_WINDOW):
                probability = model(torch.from_numpy(audio[end - _SILERO_WINDOW : end]), _SILERO_RATE).item()
                low = 0 if probability >= 0.35 else low + _SILERO_WINDOW
                speaks = low < 0.1 * SAMPLE_RATE if speaks else probability >= 0.5
                stretch = int((end - 1) / SAMPLE_RATE / _FRAME)
                if stretch < len(active):
                    active[stretch] |= speaks
        return active

    return detect


def benchmark_user_activity(setting: ActivitySetting) -> dict[str, Any]:
    """Measures the detectors in all conditions, and what ours costs.

    Returns:
        `machine`, `date`, `setting`, `voices`, `conditions`: by condition and detector `turns`, `in_time` of them, `p95` of the
        delay, `false` activations, `minutes`, `right` of all frames; `cost`: seconds per frame of 80 ms by callers.

    Raises:
        InputError: for a setting that is not possible.
    """
    if not setting.detectors or not set(setting.detectors) <= set(DETECTORS):
        raise InputError(f"detectors=[{','.join(map(str, setting.detectors))}]: expected some of {', '.join(DETECTORS)}.")
    detectors = {name: silero() if name == "silero" else ours for name in setting.detectors}
    with cpu_threads(setting.threads):
        voices = wav_voices(setting.voices) if setting.voices else espeak_voices("dev", 40, np.random.default_rng(0))
        found: dict[str, Any] = {}
        for number, (name, condition) in enumerate(CONDITIONS.items()):
            rng = np.random.default_rng([number, 20])
            scenes = [noisy_caller(voices, condition, 60.0, rng) for _ in range(max(1, round(setting.per_condition)))]
            found[name] = {detector: _figures(detect, scenes) for detector, detect in detectors.items()}
        return {
            "machine": describe_machine("cpu"),
            "date": time.strftime("%Y-%m-%d"),
            "setting": asdict(setting),
            "voices": len(voices),
            "conditions": found,
            "cost": {callers: _cost(callers) for callers in (1, 16)},
        }


def _figures(detect: Detector, scenes: Sequence[Scene]) -> dict[str, Any]:
    heard = sum((judge(detect(scene.audio), scene.spans) for scene in scenes), Heard())
    return {
        "turns": len(heard.delays),
        "in_time": heard.in_time,
        "p95": float(np.quantile(heard.delays, 0.95, method="higher")) if heard.delays else None,
        "false": heard.false,
        "minutes": sum(len(scene.audio) for scene in scenes) / SAMPLE_RATE / 60,
        "right": heard.right / heard.frames,
    }


def _cost(callers: int, frames: int = 200) -> Seconds:
    """The median time to listen to 80 ms of so many callers."""
    users, rng = [UserActivity(SAMPLE_RATE) for _ in range(callers)], np.random.default_rng(0)
    times = []
    for _ in range(frames):
        for user in users:
            user.push((0.05 * rng.standard_normal(round(_FRAME * SAMPLE_RATE))).astype(np.float32))
        started = time.perf_counter()
        listen(users)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def wav_voices(folder: str) -> dict[str, list[np.ndarray]]:
    """Utterances (S,) at 16 kHz of each voice, from a folder of WAV files for each.

    Raises:
        InputError: if there are fewer than two voices, or a file that cannot be read.
    """
    voices: dict[str, list[np.ndarray]] = {}
    for path in sorted(existing_folder(folder, "voices").glob("*/*.wav")):
        try:
            audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise InputError(f"voices: {path} is not a WAV file ({error.error_string}). Remove it.") from error
        if rate != SAMPLE_RATE:
            line = StreamResampler(rate, SAMPLE_RATE)
            audio = np.concatenate([line.push(audio[:, 0]), line.flush()])[:, None]
        voices.setdefault(path.parent.name, []).append(audio[:, 0])
    if len(voices) < 2:
        raise InputError(
            f"voices: {folder} has {len(voices)} folders with WAV files, expected 2 voices or more, a folder each."
        )
    return voices


def user_activity_tables(result: Mapping[str, Any]) -> list[Table]:
    """A table of each detector."""
    about = [f"{result['date']}, {result['machine']}", f"{result['voices']} voices; onsets within 150 ms, 95 % interval"]
    tables = []
    for detector in result["setting"]["detectors"]:
        rows = []
        for name, figures in result["conditions"].items():
            one = figures[detector]
            rows.append([name, *_onsets(one), f"{one['false'] / one['minutes']:.2f}", f"{100 * one['right']:.1f} %"])
        columns = ["condition", "turns", "in time", "interval", "p95 of the delay", "false a minute", "frames right"]
        tables.append(Table(f"User activity: {detector}", about, columns, rows))
    costs = [[f"{callers} callers", milliseconds(seconds)] for callers, seconds in result["cost"].items()]
    return [*tables, Table("User activity: time for a frame of 80 ms", about[:1], ["ours", "median"], costs)]


def _onsets(figures: Mapping[str, Any]) -> list[str]:
    interval = wilson(figures["in_time"], figures["turns"])
    if interval is None:
        return ["0", "", "", ""]
    low, high = interval
    share, p95 = figures["in_time"] / figures["turns"], figures["p95"]
    delay = milliseconds(p95) if np.isfinite(p95) else "missed"
    return [str(figures["turns"]), f"{100 * share:.1f} %", f"{100 * low:.0f} to {100 * high:.0f}", delay]
