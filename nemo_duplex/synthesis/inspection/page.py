"""inspect.html: what a corpus holds, in figures, and dialogues of it to see and hear, in one file that needs no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import soxr
from lhotse import SupervisionSegment
from lhotse.cut import Cut

from nemo_duplex.conversation import Speaker, Turn, is_time
from nemo_duplex.frames import Seconds
from nemo_duplex.pages.lanes import BOTTOM, PER_SECOND, TOP, WAVE, Lane, lanes_svg, x
from nemo_duplex.pages.parts import ENVIRONMENT, beside, player, sound_url, style
from nemo_duplex.synthesis.inspection.channel_audio import Channel
from nemo_duplex.synthesis.inspection.histogram import Histogram
from nemo_duplex.synthesis.inspection.set_facts import SetFacts, answer_gaps
from nemo_duplex.synthesis.inspection.turn_checks import events_of, is_event

_AUDIO_RATE = 16000
_LONGEST: Seconds = 60.0  # of a dialogue on the page
_BARS = 80  # of a histogram, some
_THROUGHOUT = 0.9  # of the dialogue: an event that lasts longer is named and not drawn


@dataclass(frozen=True)
class Dialogue:
    """A cut with its turns and channels."""

    set_name: str
    cut: Cut
    turns: Mapping[Speaker, Sequence[SupervisionSegment]]
    channels: Mapping[Speaker, Channel]

    @property
    def duration(self) -> Seconds:
        """What of it is shown."""
        return min(self.cut.duration, _LONGEST)

    def audio(self, speaker: Speaker, sample_rate: int) -> np.ndarray:
        """(S,) of what is shown, at a sample rate; silence where the channel is missing."""
        length = round(self.duration * sample_rate)
        read = self.channels.get(speaker)
        if read is None:
            return np.zeros(length, np.float32)
        kept = np.nan_to_num(read.samples[: round(self.duration * read.sample_rate)])
        resampled = soxr.resample(kept, read.sample_rate, sample_rate)[:length]
        return np.pad(resampled, (0, length - len(resampled)))

    def shown_turns(self, speaker: Speaker) -> list[Turn]:
        """The turns that are shown, as far as they are."""
        turns = [(max(0.0, s.start), min(s.end, self.duration), s.text or "") for s in self.turns[speaker]]
        return [Turn(speaker, start, end, text) for start, end, text in turns if start < end]


def write_page(path: Path, result: Mapping[str, Any], facts: Mapping[str, SetFacts], dialogues: Sequence[Dialogue]) -> None:
    """Writes the page.

    Args:
        result: what inspect.json says.
        facts: of each set.
        dialogues: to see and hear; each takes about 30 kB per second.
    """
    environment = ENVIRONMENT.overlay()
    environment.filters = ENVIRONMENT.filters | {"count": lambda number: f"{number:,}".replace(",", "\u202f")}
    template = environment.from_string(beside("nemo_duplex.synthesis.inspection", "inspect.html"))
    page = template.render(
        result=result,
        sets=result["sets"],
        folder=Path(result["folder"]).name,
        cards=_cards(facts.values()),
        charts={name: _charts(f) for name, f in facts.items() if f.turns["user"]},
        tables=[
            _table("Engines, hours", "Engine", result["sets"], "hours_of_engines", lambda hours: f"{hours:.2f}"),
            _table("Datasets, hours", "Dataset", result["sets"], "hours_of_datasets", lambda hours: f"{hours:.2f}"),
            _table("Events", "Kind", result["sets"], "events", lambda found: f"{found['count']:,}"),
        ],
        examples=[_shown(dialogue) for dialogue in dialogues],
        style=style() + beside("nemo_duplex.synthesis.inspection", "inspect.css"),
        script=player(),
    )
    path.write_text(page, encoding="utf-8")


def _cards(facts: Any) -> list[dict[str, str]]:
    """The headline: totals over all sets."""
    every = list(facts)
    answers = answer_gaps()
    for f in every:
        answers.update(f.answer_gaps)
    barge_ins, chances = sum(f.barge_ins for f in every), sum(f.may_be_interrupted for f in every)
    events = sum(sum(f.events.values()) for f in every)
    return [
        {"title": "Audio", "value": f"{sum(f.seconds for f in every) / 3600:.1f} h", "note": "in all sets"},
        {
            "title": "Dialogues",
            "value": f"{sum(f.dialogues for f in every):,}",
            "note": f"{sum(f.turns.total() for f in every):,} turns",
        },
        {
            "title": "Barge-ins",
            "value": f"{100 * barge_ins / chances:.0f} %" if chances else "–",
            "note": f"{barge_ins:,}, of answers that another turn follows",
        },
        {
            "title": "Response gap",
            "value": f"{answers.quantile(0.5):.2f} s" if answers.count else "–",
            "note": "median, user's end to agent's start",
        },
        {"title": "Events", "value": f"{events:,}", "note": "coughs, backchannels, background and others, beside turns"},
    ]


def _table(title: str, of: str, sets: Mapping[str, Any], key: str, shown: Callable[[Any], str]) -> dict[str, Any]:
    """What is counted by name in several sets, a column each; no rows where there is nothing."""
    there = [name for name, facts in sets.items() if facts[key]]
    names = dict.fromkeys(name for set_name in there for name in sets[set_name][key])
    rows = [
        [name.replace("_", " "), *(shown(sets[s][key][name]) if name in sets[s][key] else "–" for s in there)] for name in names
    ]
    return {"title": title, "of": of, "sets": there, "rows": rows}


def _charts(facts: SetFacts) -> list[dict[str, str]]:
    charts = [
        ("Agent after user", "negative: the agent starts before the user ends", "agent", facts.answer_gaps, (-1.0, 3.0)),
        ("User after agent", "negative: the user speaks over the agent", "user", facts.user_gaps, (-3.0, 5.0)),
        ("Length of user turns", "seconds", "user", facts.lengths["user"], (0.0, 6.0)),
        ("Length of agent turns", "seconds", "agent", facts.lengths["agent"], (0.0, 6.0)),
    ]
    return [
        {"title": title, "note": note, "svg": _histogram_svg(title, who, values, *within)}
        for title, note, who, values, within in charts
        if values.count
    ]


def _histogram_svg(title: str, who: str, values: Histogram, low: float, high: float) -> str:
    """Bars from `low` to `high`, wider where the numbers are; the scale below, the median as a line."""
    edges = [edge for edge, _ in values.bins()]
    low, high = min([low, *edges]), max([high, edges[-1] + values.width])
    times = max(1, round((high - low) / values.width / _BARS))
    bins, wide = values.coarser(times), values.width * times
    most = max(count for _, count in bins)

    def at(number: float) -> float:
        return round(16 + (number - low) / (high - low) * 568, 1)

    width = max(1.5, at(low + wide) - at(low) - 0.8)
    step = next(step for step in (0.5, 1, 2, 5, 10, 20) if (high - low) / step <= 9)
    ticks = [k * step for k in range(int(np.ceil(low / step)), int(high / step + 1e-9) + 1)]
    median = values.quantile(0.5) or 0.0
    label = f"{title}: median {median:.2f} s of {values.count}"
    parts = [f'<svg class="histogram {who}" viewBox="0 0 600 128" role="img" aria-label="{label}">']
    parts += [f'<line class="grid" x1="{at(t)}" x2="{at(t)}" y1="8" y2="104"/>' for t in ticks]
    parts += [
        f'<rect x="{at(edge)}" y="{104 - 92 * count / most:.1f}" width="{width:.1f}" height="{max(92 * count / most, 1):.1f}">'
        f"<title>{edge:.2f} to {edge + wide:.2f} s: {count}</title></rect>"
        for edge, count in bins
    ]
    parts.append(f'<line class="median" x1="{at(median)}" x2="{at(median)}" y1="4" y2="104"/>')
    parts += [f'<text class="tick" x="{at(t)}" y="122" text-anchor="middle">{t:g} s</text>' for t in ticks]
    return "".join(parts) + "</svg>"


def _shown(dialogue: Dialogue) -> dict[str, Any]:
    cut, custom = dialogue.cut, dialogue.cut.custom or {}
    events = [e for e in events_of(cut) if is_event(e)]
    barge_ins = sum(bool((s.custom or {}).get("barge_in")) for s in dialogue.turns["user"])
    chips = [str(custom[key]) for key in ("dataset", "engine", "voice") if custom.get(key)]
    surroundings = custom.get("surroundings") or {}
    chips += [
        f"{name} {value:g} {unit}" for key, (name, unit) in _SURROUNDINGS.items() if is_time(value := surroundings.get(key))
    ]
    chips += sorted({e["kind"].replace("_", " ") for e in events if e["end"] - e["start"] > _THROUGHOUT * dialogue.duration})
    stereo = np.stack([dialogue.audio("user", _AUDIO_RATE), dialogue.audio("agent", _AUDIO_RATE)], axis=1)
    said = sorted(chain(dialogue.turns["user"], dialogue.turns["agent"]), key=lambda s: s.start)
    users = {id(s) for s in dialogue.turns["user"]}
    return {
        "id": cut.id,
        "set": dialogue.set_name,
        "duration": cut.duration,
        "shortened": cut.duration > dialogue.duration,
        "barge_ins": barge_ins,
        "events": len(events),
        "chips": chips,
        "svg": _dialogue_svg(dialogue, events),
        "audio": sound_url(np.clip(stereo, -1, 1), _AUDIO_RATE),
        "turns": [_row(s, "user" if id(s) in users else "agent") for s in said],
    }


_SURROUNDINGS = {"noise_snr_db": ("noise at", "dB SNR"), "room_decay": ("room", "s"), "leak_db": ("loudspeaker at", "dB")}


def _row(s: SupervisionSegment, speaker: str) -> dict[str, Any]:
    custom = s.custom or {}
    marks = [
        name for key, name in (("barge_in", "barge-in"), ("cut", "cut off"), ("unfinished", "unfinished")) if key in custom
    ]
    marks += ["pause"] * len(custom.get("pauses") or ())
    return {
        "speaker": speaker,
        "start": s.start,
        "end": s.end,
        "text": s.text or "",
        "unsaid": _unsaid(s.text or "", custom.get("full_text")),
        "marks": marks,
    }


def _unsaid(text: str, full_text: Any) -> str:
    """What a turn that was cut would have gone on with."""
    return full_text[len(text) :] if isinstance(full_text, str) and full_text.startswith(text) else ""


def _dialogue_svg(dialogue: Dialogue, events: Sequence[Mapping[str, Any]]) -> str:
    lanes = []
    for speaker in ("user", "agent"):
        turns = dialogue.shown_turns(speaker)  # type: ignore[arg-type]
        spans = [(turn.start, turn.end) for turn in turns]
        lanes.append(Lane(speaker, turns, spans, dialogue.audio(speaker, 4000)))  # type: ignore[arg-type]
    marks = chain(_words(dialogue), _gaps(dialogue), _barge_ins(dialogue), _events(events, dialogue.duration))
    return lanes_svg(dialogue.cut.id, dialogue.duration, lanes, marks)


def _words(dialogue: Dialogue) -> Iterator[str]:
    """A tick where a word begins, at the edge of its lane that is next to the texts."""
    for speaker, y in (("user", TOP - WAVE), ("agent", BOTTOM + WAVE)):
        for s in dialogue.turns[speaker]:  # type: ignore[index]
            for word in (s.alignment or {}).get("word", ()):
                if 0 <= word.start < dialogue.duration:
                    title = f"<title>{escape(str(word.symbol))}, {word.start:.2f} s</title>"
                    place = f'x1="{x(word.start)}" x2="{x(word.start)}" y1="{y - 3}" y2="{y + 3}"'
                    yield f'<line class="word {speaker}" {place}>{title}</line>'


def _gaps(dialogue: Dialogue) -> Iterator[str]:
    middle = (TOP + BOTTOM) / 2
    for s in dialogue.turns["agent"]:
        ends = [u.end for u in dialogue.turns["user"] if u.start < s.start]
        if ends and 0 < s.start - ends[-1] < 3 and s.start < dialogue.duration:
            yield f'<line class="mark response" x1="{x(ends[-1])}" x2="{x(s.start)}" y1="{middle}" y2="{middle}"/>'
            label = f"{s.start - ends[-1]:.2f} s"
            yield f'<text class="label response" x="{x((ends[-1] + s.start) / 2)}" y="{middle - 4}">{label}</text>'


def _barge_ins(dialogue: Dialogue) -> Iterator[str]:
    """From the user's onset to where the agent stops."""
    middle = (TOP + BOTTOM) / 2
    for s in dialogue.turns["user"]:
        if not (s.custom or {}).get("barge_in") or s.start >= dialogue.duration:
            continue
        talking = [a for a in dialogue.turns["agent"] if a.start < s.start < a.end]
        end = min(talking[-1].end, dialogue.duration) if talking else s.start
        label = "barge-in" + (f", cut after {end - s.start:.2f} s" if talking and "cut" in (talking[-1].custom or {}) else "")
        width = max((end - s.start) * PER_SECOND, len(label) * 6.2 + 12)
        yield f'<line class="mark barge" x1="{x(s.start)}" x2="{x(s.start)}" y1="{TOP - WAVE}" y2="{middle}"/>'
        if talking:
            yield f'<line class="mark barge" x1="{x(end)}" x2="{x(end)}" y1="{middle}" y2="{BOTTOM + WAVE}"/>'
        yield f'<rect class="pill barge" x="{x(s.start)}" y="{middle - 9}" width="{width:.1f}" height="18" rx="4"/>'
        yield f'<text class="verdict" x="{x(s.start) + 6}" y="{middle + 4}">{label}</text>'


def _events(events: Sequence[Mapping[str, Any]], duration: Seconds) -> Iterator[str]:
    """A box in the lane in which it sounds, with its kind at the lane's inner edge."""
    for event in events:
        start, end = max(0.0, event["start"]), min(event["end"], duration)
        if start >= end or end - start > _THROUGHOUT * duration:  # a chip of the dialogue
            continue
        agent = event.get("speaker") == "agent" and event["kind"] != "leak"  # which is heard by the user's microphone
        y = BOTTOM if agent else TOP - WAVE
        label_y = y + (12 if agent or event["kind"] == "leak" else WAVE - 4)  # a leak is long: others are within it
        kind = escape(event["kind"].replace("_", " "))
        said = f": {escape(str(event['text']))}" if event.get("text") else ""
        title = f"<title>{kind}{said}, {event['start']:.2f} to {event['end']:.2f} s</title>"
        width = max((end - start) * PER_SECOND, 3)
        yield f'<rect class="event" x="{x(start)}" y="{y}" width="{width:.1f}" height="{WAVE}" rx="6">{title}</rect>'
        yield f'<text class="event" x="{x(start) + 4}" y="{label_y}">{kind}</text>'
