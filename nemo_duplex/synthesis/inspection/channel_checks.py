"""Whether the sound of a cut is what its manifest says: lengths, rates, silence, sound that nobody makes, leaks, clipping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import soxr
from lhotse import SupervisionSegment
from lhotse.cut import Cut
from scipy.fft import irfft, next_fast_len, rfft

from nemo_duplex.conversation import Speaker, holds, is_time
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.frames import AGENT_SAMPLE_RATE, FRAME_RATE, USER_SAMPLE_RATE, Seconds, Span
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.inspection.channel_audio import STEP, Channel, channel
from nemo_duplex.synthesis.inspection.findings import Findings
from nemo_duplex.synthesis.inspection.sets import AGENT_CODES
from nemo_duplex.synthesis.inspection.turn_checks import events_of, is_event, place

#: Where a cut tells how loud the agent's own voice is in the user's channel, in dB against its own.
LEAK = "leak_db"
_STEADY = {("noise", color) for color in ("white", "pink", "brown")}  # of the whole cut: it is no event that hides speech
_RATES: dict[Speaker, int] = {"user": USER_SAMPLE_RATE, "agent": AGENT_SAMPLE_RATE}
_SILENT_DB = -65.0  # a turn whose loudest step is below is not heard
_ABOVE_NOISE_DB = 3.0  # a turn is heard if its loud steps are as much above what is around it
_UNEXPECTED_DB = -50.0  # sound outside of turns is found if it is louder, as loud as speech, and not steady
_BELOW_SPEECH_DB, _NOT_STEADY_DB = 10.0, 15.0
_UNEXPECTED_STEPS = 3  # in a row
_MARGIN, _TAIL = 0.16, 0.5  # of turns and events: what they sound beyond their times, a room's echo included
_FULL_SCALE, _FLAT = 0.99, 3  # clipped: so many equal samples in a row, at full scale or again and again at the loudest
_FLAT_OFTEN = 4
_LEAK_RATE = 8000  # Hz, in which the agent's voice is looked for in the user's channel
_LEAK_DELAY: Seconds = 0.5
_LEAK_HEARD_DB, _LEAK_LOUDER_DB = -45.0, 4.0  # against the agent's own level; against what the cut says
_LEAK_ABOVE_CHANCE = 1.5  # how far a leak stands out of the correlation at delays that no loudspeaker has


def check_channels(cut: Cut, turns: Mapping[Speaker, Sequence[SupervisionSegment]], found: Findings) -> dict[Speaker, Channel]:
    """Finds what is wrong with the sound of a two-channel cut; returns its channels, those that can be read."""
    channels: dict[Speaker, Channel] = {}
    for speaker in _RATES:
        try:
            read = channel(cut, speaker)
        except OddRow as odd:
            found.error(odd.reason, odd.detail)
            continue
        if read is None:
            if speaker == "user" or not holds_codes(cut):
                field = "recording" if speaker == "user" else "target_audio"
                found.error(f"a cut without {speaker} channel", f"{cut.id}: nothing in its field {field}")
            continue
        channels[speaker] = read
    for speaker, read in channels.items():
        _check_format(cut, speaker, read, found)
        _check_samples(cut, speaker, read, found)
        if len(read.levels):
            _check_heard(cut, speaker, read, turns[speaker], found)
            _check_unexpected(cut, speaker, read, turns, found)
    _check_lengths(cut, channels, found)
    if len(channels) == 2:
        _check_leak(cut, channels["user"], channels["agent"], turns["user"], found)
    return channels


def holds_codes(cut: Cut) -> bool:
    """Whether a cut has the agent's codes."""
    return AGENT_CODES in (cut.custom or {}) and holds(cut, AGENT_CODES)


def check_codes(cut: Cut, found: Findings) -> None:
    """Finds codes that are no (T, K) integers, or have other frames than their cut."""
    if not holds_codes(cut):
        return
    try:
        codes = getattr(cut, AGENT_CODES).load()  # all of it: Lhotse would cut what is longer than the cut
    except Exception as error:  # lhotse and numpy raise different ones
        found.error("codes that cannot be read", f"{cut.id}: {' '.join(str(error).split())[:80]}")
        return
    if codes.ndim != 2 or not np.issubdtype(codes.dtype, np.integer) or (codes < 0).any():
        found.error("codes that are not (T, K) integers from 0", f"{cut.id}: {codes.shape} {codes.dtype}")
    elif len(codes) != (frames := FRAME_RATE.count(cut.duration)):
        found.error("codes of another length than their cut", f"{cut.id}: {len(codes)} frames of codes, {frames} of the cut")


def _check_format(cut: Cut, speaker: Speaker, read: Channel, found: Findings) -> None:
    recording = cut.recording if speaker == "user" else cut.target_audio
    rate, field = read.sample_rate, f"{cut.id}: the {speaker} channel"
    if read.num_tracks != 1:
        found.error("a channel that is not mono", f"{field} has {read.num_tracks} tracks")
    if rate != recording.sampling_rate:
        found.error("a sample rate that is not the manifest's", f"{field} has {rate} Hz, it says {recording.sampling_rate}")
    elif len(read.samples) != recording.num_samples:
        what = f"{field} has {len(read.samples)} samples, it says {recording.num_samples}"
        found.error("a number of samples that is not the manifest's", what)
    if rate != _RATES[speaker]:
        found.warning(f"a {speaker} channel that is not of {_RATES[speaker]} Hz", f"{cut.id}: {rate} Hz")


def _check_lengths(cut: Cut, channels: Mapping[Speaker, Channel], found: Findings) -> None:
    frames = {}
    for speaker, read in channels.items():
        try:
            per_frame = FRAME_RATE.samples_per_frame(read.sample_rate)
        except InputError:
            found.error("a sample rate without whole frames", f"{cut.id}: the {speaker} channel has {read.sample_rate} Hz")
            continue
        frames[speaker] = len(read.samples) / per_frame
    said = {speaker: f"{speaker} {count:.2f}" for speaker, count in frames.items()}
    if len(frames) == 2 and abs(frames["user"] - frames["agent"]) > 1e-2:
        found.error("channels of different length", f"{cut.id}: {', '.join(said.values())} frames")
    for speaker, count in frames.items():
        if abs(count - round(count)) > 1e-2:
            found.error("a channel that is not a whole number of frames", f"{cut.id}: {said[speaker]} frames")
        elif abs(count - cut.duration * FRAME_RATE.hz) > 1.01:
            lasts = f"{cut.id}: {said[speaker]} frames, the cut lasts {cut.duration:.2f} s"
            found.error("a channel of another length than its cut", lasts)


def _check_samples(cut: Cut, speaker: Speaker, read: Channel, found: Findings) -> None:
    if not np.isfinite(read.samples).all():
        found.error("samples that are not finite", f"{cut.id}: the {speaker} channel")
        return
    loudness = np.abs(read.samples)
    peak = float(loudness.max(initial=0.0))
    if peak < 0.1 or (speaker == "user" and told(cut, "clipping_db") is not None):
        return
    at_peak = loudness >= peak - 1.5 / 32768
    flat = at_peak.copy()
    for shift in range(1, _FLAT):  # steps that begin a run of equal ones
        flat[:-shift] &= at_peak[shift:] & (np.sign(read.samples[shift:]) == np.sign(read.samples[:-shift]))
        flat[-shift:] = False
    runs = int((flat & ~np.concatenate([[False], flat[:-1]])).sum())
    if runs >= (1 if peak >= _FULL_SCALE + 1e-4 else _FLAT_OFTEN):
        found.error("clipping", f"{cut.id}: the {speaker} channel, {runs} flat tops at {peak:.3f}")


def _check_heard(cut: Cut, speaker: Speaker, read: Channel, own: Sequence[SupervisionSegment], found: Findings) -> None:
    """A turn must be louder than silence and than what is around it."""
    spans = [(s.start, s.end) for s in own] + _event_spans(cut, speaker)
    around = read.levels[read.outside(spans, _MARGIN, _TAIL)]
    noise = float(np.median(around)) if len(around) * STEP >= 0.5 else -np.inf
    for s in own:
        levels = read.within(max(0.0, s.start), s.end)
        if not len(levels):
            continue
        if levels.max() < _SILENT_DB:
            found.error(f"a turn without sound in the {speaker} channel", f"{place(cut, s)}: at most {levels.max():.0f} dB")
        elif s.duration > 4 * STEP and np.percentile(levels, 90) < noise + _ABOVE_NOISE_DB:
            detail = f"{place(cut, s)}: {np.percentile(levels, 90):.0f} dB, around it {noise:.0f} dB"
            found.error(f"a turn that is not heard in the {speaker} channel", detail)


def _check_unexpected(
    cut: Cut, speaker: Speaker, read: Channel, turns: Mapping[Speaker, Sequence[SupervisionSegment]], found: Findings
) -> None:
    """Sound as loud as speech, that comes and goes, where there is neither turn nor event."""
    spans = [(s.start, s.end) for s in turns[speaker]] + _event_spans(cut, speaker)
    if speaker == "user" and told(cut, LEAK) is not None:
        spans += [(s.start, s.end) for s in turns["agent"]]
    free = read.outside(spans, _MARGIN, _TAIL)
    if not free.any():
        return
    floor = float(np.percentile(read.levels[free], 10))
    spoken = [read.within(max(0.0, s.start), s.end) for s in turns[speaker]]
    speech = float(np.median(np.concatenate(spoken))) if spoken and len(np.concatenate(spoken)) else _UNEXPECTED_DB
    loud = free & (read.levels > max(_UNEXPECTED_DB, floor + _NOT_STEADY_DB, speech - _BELOW_SPEECH_DB))
    row = np.convolve(loud, np.ones(_UNEXPECTED_STEPS), "valid") == _UNEXPECTED_STEPS
    if row.any():
        at = int(np.argmax(row))
        detail = f"{cut.id}: at {at * STEP:.2f} s, {read.levels[at]:.0f} dB, {loud.sum() * STEP:.2f} s in all"
        found.error(f"sound in the {speaker} channel where no turn or event is", detail)


def _event_spans(cut: Cut, speaker: Speaker) -> list[Span]:
    """The stretches of events that may sound like speech in a channel.

    What is not the agent's own is on the user's microphone, also the agent's voice that leaks into it. Steady noise and lost
    packets are not mistaken for speech.
    """
    events = [event for event in events_of(cut) if is_event(event)]
    sounding = [e for e in events if e["kind"] != "packet_loss" and (e["kind"], e.get("text")) not in _STEADY]
    of_agent = [e.get("speaker") == "agent" and e["kind"] != "leak" for e in sounding]
    return [(e["start"], e["end"]) for e, agents in zip(sounding, of_agent) if agents == (speaker == "agent")]


def told(cut: Cut, key: str) -> float | None:
    """What the cut says of how its user channel was made, as a number; None if it says nothing."""
    surroundings = (cut.custom or {}).get("surroundings")
    level = surroundings.get(key) if isinstance(surroundings, Mapping) else None
    return float(level) if isinstance(level, (int, float)) and is_time(level) else None


def _check_leak(cut: Cut, user: Channel, agent: Channel, own: Sequence[SupervisionSegment], found: Findings) -> None:
    measured = measured_leak(user, agent, [(s.start, s.end) for s in own] + _event_spans(cut, "user"))
    if measured is None:
        return
    said = told(cut, LEAK)
    if measured > (_LEAK_HEARD_DB if said is None else said + _LEAK_LOUDER_DB):
        but = "and it names no leak" if said is None else f"and it says {said:.1f} dB"
        detail = f"{cut.id}: {measured:.0f} dB against the agent's own, {but}"
        found.error("the agent's voice in the user channel, louder than the cut says", detail)


def measured_leak(user: Channel, agent: Channel, speaking: Sequence[Span]) -> float | None:
    """How loud the agent's voice is in the user's channel where the user does not speak, in dB against its own.

    The gain that makes the agent's channel, delayed by up to half a second, most like the user's: the peak of their
    cross-correlation over the agent's energy. None if it does not stand out of chance.
    """
    heard = soxr.resample(np.nan_to_num(user.samples), user.sample_rate, _LEAK_RATE, "LQ")
    said = soxr.resample(np.nan_to_num(agent.samples), agent.sample_rate, _LEAK_RATE, "LQ")
    length = min(len(heard), len(said))
    heard, said = heard[:length].copy(), said[:length].copy()
    for start, end in speaking:
        first, last = max(0, round((start - _MARGIN) * _LEAK_RATE)), max(0, round((end + _TAIL) * _LEAK_RATE))
        heard[first:last] = 0.0
        said[max(0, first - round(_LEAK_DELAY * _LEAK_RATE)) : last] = 0.0
    energy = float(np.square(said, dtype=np.float64).sum())
    if energy < 1e-3 * _LEAK_RATE * 1e-2 or not heard.any():
        return None
    size = next_fast_len(length + round(_LEAK_DELAY * _LEAK_RATE), real=True)
    correlation = irfft(rfft(heard, size) * np.conj(rfft(said, size)), size)
    lags = np.abs(correlation[: round(_LEAK_DELAY * _LEAK_RATE)])
    by_chance = np.abs(correlation[2 * len(lags) : size - 2 * len(lags)]).max(initial=0.0)
    if lags.max() < _LEAK_ABOVE_CHANCE * by_chance:
        return None
    return float(20 * np.log10(lags.max() / energy))
