"""A whole evaluation: an agent talks through the sets of a corpus, or another model's output is read; a report comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lhotse import CutSet
from lhotse.cut import Cut

from nemo_duplex.evaluation.activity import voice_activity
from nemo_duplex.evaluation.controls.baseline import lengths_of_answers
from nemo_duplex.evaluation.controls.control import counts
from nemo_duplex.evaluation.controls.control_experiments import control_experiments
from nemo_duplex.evaluation.generation import Agent, check_all, play_into
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.predictions import Predictions, unique_file_name
from nemo_duplex.evaluation.scores import score
from nemo_duplex.evaluation.scoring import report_of
from nemo_duplex.evaluation.setting import EvaluationSetting
from nemo_duplex.inputs import InputError

#: Folder in which what the agent did is kept, a folder for each set.
PREDICTIONS = "predictions"


def evaluate(
    agent: Agent,
    sets: Mapping[str, Sequence[Cut] | CutSet],
    out: str | Path,
    setting: EvaluationSetting | None = None,
    *,
    batch_size: int = 8,
    device: str = "cpu",
    provenance: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Plays every conversation of the sets to an agent, measures what it does, and writes the report.

    Args:
        agent: a DuplexAgent, or anything that generates like one.
        sets: name -> cuts; with a recorded agent (dev) or with `references` alone (impatient).
        out: folder for report.json, report.html, events.csv, timelines/, conversation.wav and predictions/.
        setting: what is measured; None: the defaults.
        batch_size: conversations played at a time.
        device: where the user's audio is put; that of the agent.
        provenance: what is evaluated (model file, checksum, corpus), for the report. With `model_sha256`, a killed evaluation
            goes on where it was.
        overwrite: whether predictions of another model in `out` may be replaced.
        progress: whether to show a progress bar for each set.

    Returns:
        The content of report.json but for its `conversations`: `sets.<name>` as `scores.summary` returns it, with the groups of
        `setting.PARTS`.

    Raises:
        InputError: for a number out of range; naming the set without cuts or the cut that cannot be evaluated.
    """
    if batch_size < 1:
        raise InputError(f"batch_size={batch_size}: expected 1 or more conversations at a time.")
    setting = setting or EvaluationSetting()
    about, vad = dict(provenance or {}), voice_activity(setting.vad)
    listed = {name: list(cuts) for name, cuts in sets.items()}
    for name, cuts in listed.items():
        if not cuts:
            raise InputError(f"set {name!r} has no cuts: there is nothing to evaluate.")
        check_all(cuts, agent.user_sample_rate)
    outcomes: dict[str, list[Outcome]] = {}
    for name, cuts in listed.items():
        predictions = Predictions(Path(out) / PREDICTIONS / unique_file_name(name), name, about.get("model_sha256"), overwrite)
        label = name if progress else None
        outcomes[name] = play_into(predictions, agent, cuts, vad, batch_size=batch_size, device=device, label=label)
    controls = _controls(agent, outcomes, setting, device) if "controls" in setting.parts else None  # None: those of before
    return report_of(outcomes, setting, Path(out), about, controls, progress)


def _controls(
    agent: Agent, outcomes: Mapping[str, Sequence[Outcome]], setting: EvaluationSetting, device: str
) -> dict[str, Any]:
    if not setting.control_turns:
        return {"controls": [], "control_counts": counts([])}
    everything = [score(outcome) for rows in outcomes.values() for outcome in rows]
    lengths = lengths_of_answers(one.outcome.conversation for one in everything)
    vad = voice_activity(setting.vad)
    experiments = control_experiments(agent, everything, lengths, setting.control_turns, device, vad, setting.seed)
    return {"controls": [e.as_dict() for e in experiments], "control_counts": counts(experiments)}
