"""The definitions of `turn_taking.measure` told a second time, on masks of one bool a millisecond: slow and without spans."""

import numpy as np


def mask(spans, end):
    """(end,) bool: when somebody speaks; spans are (start, end) in whole milliseconds."""
    speaks = np.zeros(end, dtype=bool)
    for start, stop in spans:
        speaks[max(0, start) : max(0, stop)] = True
    return speaks


def runs(speaks):
    """Where runs of True begin, and where they are over."""
    steps = np.diff(np.concatenate([[False], speaks, [False]]).astype(np.int8))
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)


def closed(speaks, gap):
    """With silences of up to `gap` between speech filled."""
    filled = speaks.copy()
    for start, stop in zip(*runs(~speaks), strict=True):
        if start > 0 and stop < len(speaks) and stop - start <= gap:
            filled[start:stop] = True
    return filled


def opened(speaks, least):
    """Without runs shorter than `least`, and how many there were."""
    kept, short = speaks.copy(), 0
    for start, stop in zip(*runs(speaks), strict=True):
        if stop - start < least:
            kept[start:stop] = False
            short += 1
    return kept, short


def scan(user, agent, end, rules):
    """All events of a timeline in milliseconds, named as in `TurnTaking`; `rules` are in milliseconds, too."""
    users, n_short = opened(closed(mask(user, end), rules["user_merge_gap"]), rules["min_user_dur"])
    agents, _ = opened(closed(mask(agent, end), rules["agent_merge_gap"]), rules["min_agent_dur"])
    begins = agents & ~np.concatenate([[False], agents[:-1]])  # (end,): the agent's onsets
    spoken = np.concatenate([agents, [False]])  # silent after the recording
    grace, window = rules["fa_grace"], rules["barge_in_window"]
    found = {name: [] for name in ("barge_ins", "false_alarms", "false_alarms_excused", "collisions", "responses")}
    with_alarm = 0
    starts, stops = runs(users)
    for i, (onset, over) in enumerate(zip(starts, stops, strict=True)):
        silent = onset + int(np.argmin(spoken[onset:]))  # the first silent millisecond from the onset on
        if onset > 0 and agents[onset - 1] and agents[onset] and silent - onset > rules["min_overlap"]:
            seen = silent < end
            late = silent - onset > window
            again = bool(begins[silent : max(silent, over - grace)].any())
            status = "failure" if late else "success" if seen else "censored"
            found["barge_ins"].append((onset, status, silent - onset if seen else None, again))
        inside = np.flatnonzero(begins[onset + 1 : over]) + onset + 1
        found["false_alarms"] += list(inside[over - inside > grace])
        found["false_alarms_excused"] += list(inside[over - inside <= grace])
        found["collisions"] += [onset] if begins[onset] else []
        with_alarm += bool((over - inside > grace).any())
        following = starts[i + 1] if i + 1 < len(starts) else end
        answers = np.flatnonzero(begins[onset + 1 : following]) + onset + 1
        if len(answers):
            latency = int(answers[0]) - int(over)
            found["responses"].append(("early" if -latency > grace else "ok", latency, following - over))
        else:
            found["responses"].append(("no_response", None, following - over))
    spans = {"user": list(zip(starts, stops, strict=True)), "agent": list(zip(*runs(agents), strict=True))}
    return {**spans, **found, "n_short_user": n_short, "n_user_turns_with_false_alarm": with_alarm}
