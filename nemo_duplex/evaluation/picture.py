"""The picture of one conversation with matplotlib: for validation folders, TensorBoard and the README.

user         ~~~~~~~~~~~~~        ~~~~~~~~              the manifest's turns, and what they say
                         |-0.66 s-|stops 0.58 s         gaps before answers, barge-ins, false alarms
agent                         ~~~~~~~~      ~~~~~~~     the agent's speech
text channel                > ||||||   <  > ||| <       its text channel, frame by frame: BOS, words, EOS
reference                     ~~~~~~~~      ~~~~~~~     the corpus' own agent
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nemo_duplex.conversation import Turn
from nemo_duplex.evaluation.outcome import Outcome, TextEntry
from nemo_duplex.evaluation.report.timeline import Annotation, Kind, annotations_of
from nemo_duplex.evaluation.scores import Scored
from nemo_duplex.evaluation.sound import Sound
from nemo_duplex.frames import Seconds, Span
from nemo_duplex.pages.lanes import envelope, wrapped

_USER, _AGENT, _REFERENCE = "#2563c9", "#c2570c", "#7c8594"
_INK, _FAINT = "#1f2937", "#6b7280"
_VERDICTS: dict[Kind, str] = {
    "response": _FAINT,
    "success": "#15803d",
    "failure": "#b91c1c",
    "censored": _FAINT,
    "alarm": "#b91c1c",
}
_ENTRIES = {"bos": ("#15803d", "BOS"), "word": (_AGENT, "word"), "eos": ("#b91c1c", "EOS")}
_INCHES = 0.62  # of a unit of y
_WIDTH = (9.0, 26.0)  # inches, narrowest and widest
_LETTERS = 14.5  # of the 8-point font in an inch


@dataclass(frozen=True)
class _Lane:
    """One voice: its waveform around `y`, and its text from `text_y` on, upwards or downwards."""

    name: str
    color: str
    turns: Sequence[Turn]
    spans: Sequence[Span]
    audio: np.ndarray | None
    y: float
    text_y: float
    upwards: bool = False


def conversation_figure(scored: Scored, title: str | None = None, reference: bool = True) -> Figure:
    """The conversation, drawn to scale.

    Args:
        title: default: the conversation's id.
        reference: whether to draw the corpus' own agent below, where the corpus has one.
    """
    outcome = scored.outcome
    taken, user = scored.turn_taking, [q.turn for q in outcome.questions]
    lanes = [
        _Lane("user", _USER, user, taken.user, _samples(outcome.user_sound), 1.15, 1.83, True),
        _Lane("agent", _AGENT, outcome.agent, taken.agent, _samples(outcome.agent_sound), -1.0, -2.02),
    ]
    if reference and (lane := _reference(outcome)) is not None:
        lanes.append(lane)
    top, bottom = 2.55, lanes[-1].text_y - 0.8
    width = max(_WIDTH[0], min(_WIDTH[1], outcome.duration * 0.95))
    figure = Figure(figsize=(width, (top - bottom) * _INCHES + 0.7), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.vlines(range(int(outcome.duration) + 1), bottom, top, color="#eceef1", linewidth=0.7, zorder=0)
    for lane in lanes:
        _draw_lane(axes, lane, outcome.duration, letters=_LETTERS * width / outcome.duration)
    _draw_text_channel(axes, outcome.text_entries, y=-1.72, frame=_frame(outcome))
    for note in annotations_of(scored):
        _draw_annotation(axes, note)
    _draw_frame(axes, lanes, outcome, title or outcome.id, (bottom, top))
    return figure


def write_png(path: Path, scored: Scored, title: str | None = None) -> None:
    """Draws the conversation to a PNG file."""
    conversation_figure(scored, title).savefig(path, format="png")


def _reference(outcome: Outcome) -> _Lane | None:
    """The agent of the corpus; None where it has none (the Impatient form)."""
    if outcome.reference_sound is None:
        return None
    turns, audio = outcome.conversation.agent, outcome.reference_sound.samples()
    return _Lane("reference", _REFERENCE, turns, [(t.start, t.end) for t in turns], audio, -3.55, -4.2)


def _samples(sound: Sound | None) -> np.ndarray | None:
    return None if sound is None else sound.samples()


def _frame(outcome: Outcome) -> Seconds:
    """How long one entry of the text channel is drawn (Seconds): the smallest distance of two."""
    times = [entry.time for entry in outcome.text_entries]
    return min((b - a for a, b in zip(times, times[1:])), default=0.08)


def _draw_lane(axes: Axes, lane: _Lane, duration: Seconds, letters: float) -> None:
    if lane.audio is not None:
        levels = 0.02 + 0.48 * envelope(lane.audio, 1200)
        times = np.linspace(0, duration, len(levels))
        axes.fill_between(times, lane.y - levels, lane.y + levels, color=lane.color, linewidth=0)
    for start, end in lane.spans:
        axes.fill_between([start, end], lane.y - 0.56, lane.y + 0.56, color=lane.color, alpha=0.14, linewidth=0)
    for i, turn in enumerate(lane.turns):
        end = max(turn.end, lane.turns[i + 1].start if i + 1 < len(lane.turns) else duration)
        rows = wrapped(turn.text, max(6, int((min(end, duration) - turn.start) * letters) - 1), 3)
        anchor = "bottom" if lane.upwards else "top"
        text = _drawable("\n".join(rows))
        axes.text(turn.start, lane.text_y, text, fontsize=8, va=anchor, color=_INK, clip_on=True, parse_math=False)


def _draw_text_channel(axes: Axes, entries: Sequence[TextEntry], y: float, frame: Seconds) -> None:
    """A cell for every frame with a token, taller for BOS and EOS."""
    for kind, (color, _) in _ENTRIES.items():
        cells = [(entry.time, frame * 0.8) for entry in entries if entry.kind == kind]
        tall = 0.13 if kind == "word" else 0.2
        axes.broken_barh(cells, (y - tall, 2 * tall), color=color, alpha=0.55 if kind == "word" else 1.0, linewidth=0)


def _draw_annotation(axes: Axes, note: Annotation) -> None:
    color = _VERDICTS[note.kind]
    if note.kind == "response":
        ends = {"arrowstyle": "|-|,widthA=0.2,widthB=0.2", "color": color, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", (note.end, 0.1), (note.start, 0.1), arrowprops=ends)
        axes.text((note.start + note.end) / 2, 0.2, note.label, ha="center", fontsize=7, color=color)
        return
    reach = (-1.56, 0.1) if note.kind == "alarm" else (-0.4, 1.71)
    axes.plot([note.start, note.start], reach, color=color, linewidth=1, linestyle=":")
    axes.plot([note.start, note.end], [0.1, 0.1], color=color, linewidth=4, solid_capstyle="butt")
    axes.text(note.start + 0.04, 0.0, note.label, fontsize=7, va="top", color=color)


def _drawable(text: str) -> str:
    """The text without halves of characters, which matplotlib refuses; and it takes what is between dollars for formulas."""
    return text.encode("utf-8", "replace").decode()


def _draw_frame(axes: Axes, lanes: Sequence[_Lane], outcome: Outcome, title: str, limits: tuple[float, float]) -> None:
    """Axes, names of the lanes, title and legend."""
    names = [(lane.y, lane.name, lane.color) for lane in lanes] + [(-1.72, "its text", _FAINT)]
    axes.set(xlim=(0, outcome.duration), ylim=limits, xlabel="seconds")
    axes.set_yticks([y for y, *_ in names], [name for _, name, _ in names])
    for label, (_, _, color) in zip(axes.get_yticklabels(), names):
        label.set_color(color)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.set_title(_drawable(title), fontsize=9, loc="left", color=_FAINT, parse_math=False)
    keys = [Line2D([], [], marker="s", linestyle="", markersize=5, color=c, label=name) for c, name in _ENTRIES.values()]
    axes.legend(handles=keys, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=7, frameon=False, handletextpad=0.1)
