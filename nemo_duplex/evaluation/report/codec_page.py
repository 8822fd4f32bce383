"""codecs.html: Table 4 of any codecs, and utterances to hear side by side, in one file that needs no other."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from matplotlib.image import imsave

from nemo_duplex.evaluation.report.number import digits_of, percent
from nemo_duplex.evaluation.report.tables import Table, differences_table, table_4
from nemo_duplex.pages.parts import ENVIRONMENT, beside, sound_url, style

_MOST_RATE = 24000  # Hz, of sound on the page
_PICTURE_RATE, _WINDOW, _HOP, _BINS = 16000, 1024, 256, 80
#: What stands beside each sound, where it was measured: number -> title.
_SHOWN = {"distillmos": "DistillMOS", "secs": "SECS", "pesq": "PESQ", "stoi": "STOI", "mel_distance": "mel distance"}


@dataclass(frozen=True)
class HeardUtterance:
    """An utterance to hear.

    Args:
        number: its place in the lists of the report.
        sounds: (S,) float32 and its rate, by row: the original first.
    """

    number: int
    sounds: Mapping[str, tuple[np.ndarray, int]]


def write_codecs_page(path: Path, report: Mapping[str, Any], heard: Sequence[HeardUtterance]) -> None:
    """Writes the page.

    Args:
        report: of a codec table.
        heard: utterances with sound and pictures; each takes some 40 kB per second and row.
    """
    tables = [table_4(report["rows"], report["scorers"]), differences_table(report["differences"])]
    page = ENVIRONMENT.from_string(beside("nemo_duplex.evaluation.report", "codecs.html")).render(
        report=report,
        tables=tables,
        reasons=[_reasons(table) for table in tables],
        voices={voice: _of_voice(one, report) for voice, one in report["voices"].items()},
        examples=[_shown(one, report) for one in heard],
        style=style() + beside("nemo_duplex.evaluation.report", "report.css"),
        script=beside("nemo_duplex.evaluation.report", "codecs.js"),
    )
    path.write_text(page, encoding="utf-8", errors="replace")  # a text may hold what is no character


def choose_utterances(report: Mapping[str, Any], most: int) -> list[int]:
    """Numbers of at most so many utterances, from the worst to the best: evenly spread by their mean mel distance."""
    distances = [row["mel_distance"]["each"] for row in report["rows"].values() if "each" in row.get("mel_distance", {})]
    means = [[one for one in each if one is not None] for each in zip(*distances)] or [[] for _ in report["ids"]]
    order = sorted(range(len(means)), key=lambda i: -float(np.mean(means[i])) if means[i] else 0.0)
    if len(order) <= most:
        return order
    return [order[round(i * (len(order) - 1) / max(1, most - 1))] for i in range(most)]


def spectrogram_url(audio: np.ndarray, sample_rate: int, loudest: float) -> str:
    """A picture of (S,) audio inside a page: mel bands upwards, time to the right.

    Args:
        loudest: natural log magnitude that has the brightest colour, the same for all that are compared.
    """
    from nemo_duplex.codec.mel import FLOOR

    file = io.BytesIO()
    imsave(file, _log_mel(audio, sample_rate)[::-1], vmin=math.log(FLOOR), vmax=loudest, cmap="magma", format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _log_mel(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    """(bins, frames) natural log-mel magnitudes at 16 kHz."""
    import torch

    from nemo_duplex.codec.mel import log_mel, mel_filters

    sound = torch.from_numpy(np.ascontiguousarray(soxr.resample(audio, sample_rate, _PICTURE_RATE), np.float32))
    return log_mel(sound[None], torch.hann_window(_WINDOW), _HOP, mel_filters(_PICTURE_RATE, _WINDOW, _BINS))[0].numpy()


def _shown(one: HeardUtterance, report: Mapping[str, Any]) -> dict[str, Any]:
    original, rate = next(iter(one.sounds.values()))
    loudest = float(_log_mel(original, rate).max())
    rows = []
    for name, (audio, rate) in one.sounds.items():
        played = audio if rate <= _MOST_RATE else soxr.resample(audio, rate, _MOST_RATE)
        rows.append(
            {
                "name": name,
                "kbps": report["rows"][name]["kbps"],
                "scores": _scores(report["rows"][name], one.number),
                "heard": report["heard"][name][one.number],
                "audio": sound_url(played, min(rate, _MOST_RATE)),
                "picture": spectrogram_url(audio, rate, loudest),
            }
        )
    seconds = len(original) / next(iter(one.sounds.values()))[1]
    return {"id": report["ids"][one.number], "text": report["texts"][one.number], "seconds": seconds, "rows": rows}


def _scores(row: Mapping[str, Any], number: int) -> list[str]:
    """What an utterance scored, in words."""
    found = []
    for key, title in _SHOWN.items():
        value = row[key]["each"][number] if "each" in row.get(key, {}) else None
        found += [] if value is None else [f"{title} {value:.{digits_of(key)}f}"]
    errors = row["cer"]["each"][number] if "each" in row["cer"] else None
    return found + ([f"CER {percent(errors[0] / errors[1], 0)}"] if errors and errors[1] else [])


def _reasons(table: Table) -> dict[str, list[str]]:
    """Why numbers were not run: reason -> columns."""
    found: dict[str, list[str]] = {}
    for row in table.rows:
        for title, cell in zip((one.rstrip(" ↑↓") for one in table.columns), row.cells, strict=True):
            if cell.why_not and title not in found.setdefault(cell.why_not, []):
                found[cell.why_not].append(title)
    return found


def _of_voice(one: Mapping[str, Any], report: Mapping[str, Any]) -> dict[str, Any]:
    table = table_4(one["rows"], report["scorers"])
    return {"utterances": one["utterances"], "table": table, "rows": [row for row in table.rows if not row.reported]}
