"""What `examples/evaluate.py` does for each `what`: from the keys of `conf/evaluate.yaml` to files and a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from nemo_duplex.evaluation.controls.selftest import selftest, selftest_table
from nemo_duplex.evaluation.judge.setting import JudgeSetting
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.readers.conversation_files import is_conversations, row_files
from nemo_duplex.evaluation.readers.listening import CHANNELS
from nemo_duplex.evaluation.readers.outputs import open_outputs
from nemo_duplex.evaluation.report.codec_page import HeardUtterance, choose_utterances, write_codecs_page
from nemo_duplex.evaluation.report.compare import compare, comparison_table, read_report
from nemo_duplex.evaluation.report.compare_page import write_comparison
from nemo_duplex.evaluation.report.limits import check_limits, known_limits
from nemo_duplex.evaluation.report.number import numbers
from nemo_duplex.evaluation.report.tables import as_markdown, as_text, differences_table, table, table_4
from nemo_duplex.evaluation.report.write import FILES, FOLDERS
from nemo_duplex.evaluation.scores import score
from nemo_duplex.evaluation.scoring import GROUPS, measured, report_of
from nemo_duplex.evaluation.setting import WHAT, EvaluationSetting
from nemo_duplex.evaluation.speech.recogniser_key import check_recogniser
from nemo_duplex.files.atomic import require_space, require_writable, sha256, whole_file
from nemo_duplex.inputs import InputError, NotInstalled, did_you_mean, existing_file

Keys = Mapping[str, Any]
_UTTERANCES = 228  # of what=codec (the paper's), and of each engine of what=encoder, where limit says nothing
_SPACE = 100_000_000  # bytes that a report takes at most, without predictions


def evaluate_command(keys: Keys) -> list[str]:
    """Runs what is asked for.

    Returns:
        What does not keep its limit, or fails its test; one line each.

    Raises:
        InputError: for a key that is missing or out of range.
    """
    what = keys["what"]
    if what in COMMANDS:
        return COMMANDS[what](keys)
    if what not in WHAT:
        words = [*WHAT, *COMMANDS]
        raise InputError(f"what={what}: expected one of {', '.join(words)}.{did_you_mean(what, words)}")
    if (keys["model"] is None) == (keys["outputs"] is None):
        raise InputError(
            f"what={what} measures an agent (model= and data=) or another model's output (outputs=). Give one of them."
        )
    out = _folder(keys, *FILES, folders=[*FOLDERS, "predictions"])
    _check_scorers_first(keys)
    if keys["model"] is not None:
        _check_limits_first(keys)
        report = _play(keys, out)
    else:
        report = _read(keys, out)
    print(table(report))
    print(f"\n{out / 'report.html'}: open it in a browser to see and hear the conversations")
    return check_limits(report, keys["fail_under"], keys["fail_over"])


def setting_of(keys: Keys) -> EvaluationSetting:
    """The setting that the keys of `conf/evaluate.yaml` ask for."""
    names = {field.name for field in fields(EvaluationSetting)} - {"judge"}
    own = {name: keys[name] for name in names}
    return EvaluationSetting(**own, judge=JudgeSetting(**keys["judge"], seed=keys["seed"]))


def _check_scorers_first(keys: Keys) -> None:
    """Refuses files of scorers that are not there, before the work."""
    for name in ("utmos", "dnsmos", "ecapa2", "voice"):
        if keys[name] is not None:
            existing_file(keys[name], name)
    check_recogniser(keys["recogniser"])


def _check_limits_first(keys: Keys) -> None:
    """Refuses limits of numbers that no report has, before the work."""
    sets = [*keys["sets"], *(f"{name}-impatient" for name in keys["impatient"])]
    known = [*numbers(measured([])), *(f"{group}.*" for group in (*GROUPS, "token_channel", "answers.families"))]
    for name in ("fail_under", "fail_over"):
        known_limits(keys[name], name, sets, known)


def _play(keys: Keys, out: Path) -> dict[str, Any]:
    """An agent talks through the sets of a corpus."""
    model = existing_file(keys["model"], "model")
    if keys["data"] is None:
        raise InputError("model= is played the conversations of a corpus: give data=FOLDER.")
    from nemo_duplex.evaluation.run import evaluate
    from nemo_duplex.evaluation.sets import impatient_sets, read_sets
    from nemo_duplex.models.duplex_s2s import DuplexS2SModel
    from nemo_duplex.scripts.hardware import require_device, use_threads

    use_threads(keys["threads"])
    device = require_device(keys["device"])
    sets = read_sets(keys["data"], keys["sets"], keys["limit"])
    sets |= impatient_sets(
        keys["data"], keys["impatient"], out / "impatient", keys["limit"], keys["workers"], keys["overwrite"]
    )
    return evaluate(
        DuplexS2SModel.restore_from(str(model), map_location=device).eval(),
        sets,
        out,
        setting_of(keys),
        batch_size=keys["batch_size"],
        device=device,
        provenance={"model": str(model), "model_sha256": sha256(model), "data": str(keys["data"])},
        overwrite=keys["overwrite"],
    )


def _read(keys: Keys, out: Path) -> dict[str, Any]:
    """What another model did is read from files."""
    setting = setting_of(keys)
    outputs = open_outputs(
        keys["outputs"],
        keys["format"],
        corpus=keys["data"],
        pad=keys["pad"],
        swap=keys["swap"],
        max_odd_rows=keys["max_odd_rows"],
        limit=keys["limit"],
    )
    _check_out_is_not_read(Path(keys["outputs"]), outputs.format, out)
    outcomes: dict[str, list[Outcome]] = {}
    for name, outcome in outputs.listened(keys["vad"], keys["workers"]):
        outcomes.setdefault(name, []).append(outcome)
    left_out, warnings = outputs.odd.describe(), _warnings(outcomes)
    about = {"outputs": str(keys["outputs"]), "format": outputs.format, "left_out": left_out, "warnings": warnings}
    if warnings:
        print(f"warnings: {len(warnings)}, in report.json; the first: {warnings[0]}")
    for reason, found in left_out.items():
        print(f"left out: {found['count']} x {reason}: {found['first'][0]}")
    return report_of(outcomes, setting, out, about)


def _check_out_is_not_read(path: Path, format: str, out: Path) -> None:
    """Refuses a folder whose files the next evaluation would take for those of the model."""
    reads_all = format == "sounds" or format == "rows" and path.is_dir() and not any(map(is_conversations, row_files(path)))
    if reads_all and out.resolve().is_relative_to(path.resolve()):
        raise InputError(
            f"out: {out} lies in outputs={path}, of which every sound and JSONL is read: the next time, the report's, too. "
            "Choose a folder outside of it."
        )


def _warnings(outcomes: Mapping[str, Sequence[Outcome]]) -> list[str]:
    """What may spoil numbers of a conversation: the user in the agent's channel, a channel that is silent or clipped."""
    rows = [(name, outcome) for name, listed in outcomes.items() for outcome in listed]
    return [
        f"{name}, {outcome.id}: {warning}"
        for name, outcome in rows
        for warning in outcome.conversation.custom.get(CHANNELS, {}).get("warnings", ())
    ]


def _compare(keys: Keys) -> list[str]:
    """Two evaluations of the same conversations."""
    if keys["a"] is None or keys["b"] is None:
        raise InputError("what=compare compares two evaluations: give a=FOLDER and b=FOLDER.")
    out = _folder(keys, "compare.html")
    first, second = read_report(keys["a"], "a"), read_report(keys["b"], "b")
    pairs, found = compare(first, second, keys["seed"])
    print(comparison_table(pairs, found))
    with whole_file(out / "compare.html") as path:
        write_comparison(path, (keys["a"], keys["b"]), (first, second), pairs, found)
    print(f"\n{out / 'compare.html'}: the differences, drawn")
    return []


def _codec(keys: Keys) -> list[str]:
    """Codecs on the same utterances (paper, Table 4)."""
    if not keys["codecs"] or keys["data"] is None:
        raise InputError(
            "what=codec sends utterances through codecs: give codecs=[FILE] and data=, a corpus, a NeMo manifest, Lhotse "
            "cuts or a folder of recordings."
        )
    out = _folder(keys, "codecs.json", "codecs.md", "codecs.html")
    from nemo_duplex.evaluation.codecs.conventional import open_conventional
    from nemo_duplex.evaluation.codecs.neural import open_codecs
    from nemo_duplex.evaluation.codecs.table import CodecScorers, codec_table
    from nemo_duplex.evaluation.speech.full_reference import open_full_reference
    from nemo_duplex.evaluation.speech.recogniser_key import open_recogniser
    from nemo_duplex.evaluation.speech.speech_scorers import open_scorers
    from nemo_duplex.scripts.hardware import require_device, use_threads

    use_threads(keys["threads"])
    conventional, absent = open_conventional(keys["conventional_codecs"])
    codecs = [*open_codecs(keys["codecs"], require_device(keys["device"])), *conventional]
    speech = open_scorers(keys["utmos"], keys["dnsmos"], keys["ecapa2"], keys["voice"])
    pairs, missing = open_full_reference()
    try:
        recogniser = open_recogniser(keys["recogniser"], keys["workers"])
    except NotInstalled as why:
        recogniser, missing = None, {**missing, "cer": str(why), "wer": str(why)}
    made = codec_table(
        codecs,
        keys["data"],
        CodecScorers(speech, pairs, recogniser, keys["squim"], missing),
        absent=absent,
        sets=keys["sets"],
        limit=keys["limit"] or _UTTERANCES,
        folder=out,
        workers=keys["workers"],
        seed=keys["seed"],
    )
    found = made.report
    shown = [table_4(found["rows"], found["scorers"]), differences_table(found["differences"])]
    print("\n\n".join(map(as_text, shown)))
    print(f"\n{found['utterances']} utterances, {found['seconds']:.0f} s, of {found['data']}")
    for reason, odd in found["left_out"].items():
        print(f"left out: {odd['count']} x {reason}: {odd['first'][0]}")
    with whole_file(out / "codecs.json") as path:
        path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8", errors="replace")
    with whole_file(out / "codecs.md") as path:
        path.write_text(as_markdown(shown), encoding="utf-8", errors="replace")
    chosen = choose_utterances(found, keys["examples"]) if keys["examples"] else []
    with whole_file(out / "codecs.html") as path:
        write_codecs_page(path, found, [HeardUtterance(i, made.trial.sounds(made.trial.utterances[i])) for i in chosen])
    print(f"{out / 'codecs.html'}: the tables, and {len(chosen)} utterances to hear side by side")
    return []


def _encoder(keys: Keys) -> list[str]:
    """User encoders on the same recordings."""
    if not keys["encoders"] or not keys["manifests"]:
        raise InputError("what=encoder lets user encoders hear recordings: give encoders=[FILE] and manifests=[FILE].")
    out = _folder(keys, "encoders.json", "encoders.md", "transcripts.jsonl")
    from nemo_duplex.evaluation.encoder_table import encoder_table, open_encoders, read_spoken, table_of_encoders
    from nemo_duplex.evaluation.speech.recogniser_key import open_recogniser
    from nemo_duplex.perception.listening import check_conditions
    from nemo_duplex.scripts.hardware import require_device, use_threads

    check_conditions(keys["conditions"])
    use_threads(keys["threads"])
    encoders = open_encoders(keys["encoders"], require_device(keys["device"]))
    try:
        recogniser = None if keys["asr_turns"] == 0 else open_recogniser(keys["recogniser"])
    except NotInstalled as missing:
        print(f"{keys['recogniser']} not run: {missing}")
        recogniser = None
    spoken, odd = read_spoken(keys["manifests"], keys["limit"] or _UTTERANCES, keys["max_odd_rows"])
    found, heard = encoder_table(encoders, spoken, keys["conditions"], recogniser, seed=keys["seed"])
    shown = table_of_encoders(found)
    print("\n".join([as_text(shown), "", *shown.notes]))
    for reason, rows in odd.describe().items():
        print(f"left out: {rows['count']} x {reason}: {rows['first'][0]}")
    about = {Path(path).stem: {"file": str(path), "sha256": sha256(Path(path))} for path in keys["encoders"]}
    whole = {"manifests": list(map(str, keys["manifests"])), "left_out": odd.describe(), "encoders": about, **found}
    whole["scorers"] = {recogniser.scorer.name: recogniser.scorer.as_dict()} if recogniser else {}
    with whole_file(out / "encoders.json") as path:
        path.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    with whole_file(out / "encoders.md") as path:
        path.write_text(as_markdown([shown]), encoding="utf-8")
    with whole_file(out / "transcripts.jsonl") as path:
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in heard), encoding="utf-8")
    return []


def _selftest(keys: Keys) -> list[str]:
    """Agents whose behaviour is known, scored by what scores all others."""
    found = selftest(lambda outcomes: measured([score(outcome) for outcome in outcomes], keys["seed"]))
    print(selftest_table(found))
    return [f"{one.agent}: {one.number} is {one.measured}, expected {one.expected}" for one in found if not one.holds]


def _folder(keys: Keys, *files: str, folders: list[str] | None = None) -> Path:
    """`out`, if it can be written."""
    if keys["out"] is None:
        raise InputError(f"what={keys['what']} writes files: give out=FOLDER.")
    out = Path(keys["out"])
    require_writable(out, "out", files, folders=folders or [])
    require_space(out, _SPACE)
    return out


#: Beside the words of `WHAT`.
COMMANDS: Mapping[str, Callable[[Keys], list[str]]] = {
    "compare": _compare,
    "codec": _codec,
    "encoder": _encoder,
    "selftest": _selftest,
}
