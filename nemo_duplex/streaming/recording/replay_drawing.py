"""The result of a replay as lines of text: the verdict, and both channels around the first frame that differs.

frame 37 of 250 (2.96 s) is the first that differs: token, codes and audio

   frame     time   user        agent, recorded                    agent, replayed
      36    2.88 s  ██████▏     .      pad                         =      =
>     37    2.96 s  ██████      <bos>  pad                         .      =
      38    3.04 s  ███▏        The    bos                         .      pad
      39    3.12 s              sky    1 703 2210 88   ████        .      pad            by 4e-01
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nemo_duplex.frames import FrameRate
from nemo_duplex.models.agent import DuplexAgent
from nemo_duplex.streaming.recording.replay import FramePair, Replay
from nemo_duplex.streaming.session import AgentFrame

# Characters of a level; the most characters of a text token, and of the codes of a frame.
_LEVEL, _TEXT, _CODES = 8, 12, 30
# The levels of an empty and of a full bar, in dB of full scale.
_SILENT, _FULL = -60.0, 0.0
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def verdict(replay: Replay) -> Iterator[str]:
    """Whether it is identical, or what differs and since when; and what differs in the environment."""
    if replay.identical:
        yield f"identical: {replay.frames} frames"
    else:
        yield from _differences(replay)
    if replay.environment:
        yield f"not as recorded: {', '.join(replay.environment)}"


def drawing(replay: Replay, model: DuplexAgent) -> Iterator[str]:
    """The frames around `replay.frame`, which is marked; in the replayed columns `=` means the same as recorded."""
    rows = [(pair, *_cells(pair.recorded, model), *_replayed(pair, model)) for pair in replay.around]
    widths = [max((len(row[1 + column]) for row in rows), default=0) for column in range(6)]
    agent = "  ".join(f"{{:{width}}}" for width in widths)
    recorded = sum(widths[:3]) + 4
    yield f"   frame     time   {'user':{_LEVEL}}    {'agent, recorded':{recorded}}  agent, replayed"
    for pair, *cells in rows:
        frame, time = pair.recorded.index, replay.recording.frame_rate.time(pair.recorded.index)
        mark = ">" if frame == replay.frame else " "
        user = level(replay.recording.user_audio(frame))
        yield f"{mark}{frame:7}{time:8.2f} s  {user}    {agent.format(*cells)}".rstrip()


def level(audio: np.ndarray) -> str:
    """The loudness of (S,) audio as a bar of constant width, in dB."""
    power = float(np.mean(np.square(audio, dtype=np.float64))) if len(audio) else 0.0
    share = (10 * np.log10(power + 1e-12) - _SILENT) / (_FULL - _SILENT)
    eighths = int(np.clip(round(8 * _LEVEL * share), 0, 8 * _LEVEL)) if np.isfinite(share) else 0
    return (_EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8]).ljust(_LEVEL)[:_LEVEL]


def _differences(replay: Replay) -> Iterator[str]:
    frame, total, rate = replay.frame, len(replay.recording), replay.recording.frame_rate
    assert frame is not None, "Something differs."
    if "end" in replay.first:
        yield f"the replay ends after {replay.first['end']} of {total} frames"
    chosen = [name for name in ("token", "codes") if name in replay.first]
    if chosen:
        since = _listed([name for name in (*chosen, "audio") if replay.first.get(name) == frame])
        sooner = replay.first.get("audio", frame) < frame
        differs = "in which something else was chosen" if sooner else "that differs"
        yield f"frame {frame} of {total} ({rate.time(frame):.2f} s) is the first {differs}: {since}"
        for name in ("token", "codes", "audio"):
            if replay.first.get(name, frame) != frame:
                yield f"{name} differs first in {_at(replay.first[name], rate)}"
    elif "audio" in replay.first:
        yield (
            f"frame {frame} of {total} ({rate.time(frame):.2f} s) is the first that differs: audio alone, by "
            f"{replay.distance:.1e} at most in the whole recording; tokens and codes are identical in all frames"
        )


def _at(frame: int, rate: FrameRate) -> str:
    return f"frame {frame} ({rate.time(frame):.2f} s)"


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _replayed(pair: FramePair, model: DuplexAgent) -> tuple[str, str, str]:
    if pair.replayed is None:
        return "(ended)", "", ""
    old, new = _cells(pair.recorded, model), _cells(pair.replayed, model)
    text, codes = (shown if name in pair.differing else "=" for name, shown in (("token", new[0]), ("codes", new[1])))
    if "audio" not in pair.differing:
        return text, codes, "="
    return text, codes, new[2] if new[2] != old[2] else f"by {pair.distance:.0e}"


def _cells(frame: AgentFrame, model: DuplexAgent) -> tuple[str, str, str]:
    """Text token, codes and loudness, each as long as its column at most."""
    layout = model.layout
    marks = {layout.text_pad: ".", layout.text_bos: "<bos>", layout.text_eos: "<eos>"}
    text = marks.get(frame.token) or repr(model.tokenizer.ids_to_text([frame.token]))[1:-1] or f"#{frame.token}"
    specials = {layout.speech_pad: "pad", layout.speech_bos: "bos", layout.speech_eos: "eos", layout.speech_start: "start"}
    named = [specials.get(code, str(code)) for code in frame.codes.tolist()]
    codes = named[0] if len(set(named)) == 1 and named[0].isalpha() else " ".join(named)
    return _short(text, _TEXT), _short(codes, _CODES), level(frame.audio)


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
