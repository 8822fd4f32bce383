"""Agents whose behaviour is known must bracket every metric, from their audio to report.json."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import soundfile

import nemo_duplex.evaluation.run as run_module
import nemo_duplex.evaluation.scoring as scoring_module
from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.generation import run_conversations
from nemo_duplex.evaluation.predictions import unique_file_name
from nemo_duplex.evaluation.readers.outputs import open_outputs
from nemo_duplex.evaluation.report.write import choose_examples
from nemo_duplex.evaluation.run import evaluate
from nemo_duplex.evaluation.scores import PLACES, score
from nemo_duplex.evaluation.scoring import report_of
from nemo_duplex.evaluation.sets import read_sets
from nemo_duplex.frames import AGENT_SAMPLE_RATE, FRAME_RATE
from nemo_duplex.inputs import InputError
from tests.evaluation.agents import Echo, Oracle, Silent, Talker, cut_of, dialogue, voice, write_set
from tests.evaluation.settings import quick


def run(agent, cuts, folder, **options):
    own = {"batch_size": options.pop("batch_size", 8), "progress": False}
    return evaluate(agent, {"dev": cuts}, folder, quick(**options), **own)["sets"]["dev"]


def values(found, *names):
    return tuple(found[group][place]["value"] for group, place in map(PLACES.__getitem__, names))


def test_the_oracle_does_everything_right(cuts, tmp_path):
    found = run(Oracle(cuts), cuts, tmp_path)
    assert values(found, "success_rate", "false_alarm_rate", "no_response_rate", "early_rate") == (1, 0, 0, 0)
    assert found["counts"]["n_barge_in"] == 3
    assert found["barge_in"]["mean_stop_latency"]["value"] == pytest.approx(0.6, abs=0.02)
    assert found["response"]["first_latency"]["value"] == pytest.approx(0.7, abs=0.02)
    for kind in ("seen", "unseen", "cut_off"):
        assert (found["answers"][kind]["value"], found["answers"][kind]["n"]) == (1, 3), kind
    assert (found["barge_in"]["yield_rate"]["value"], found["barge_in"]["yield_rate"]["n"]) == (1, 3)
    assert found["token_channel"]["barge_in"]["success_rate"]["value"] == 1
    assert found["token_channel"]["onset_difference"] < 0.02 and found["token_channel"]["offset_difference"] < 0.05


@pytest.mark.parametrize("delay", [0.08, 0.4])
def test_a_delayed_oracle_is_later_by_exactly_that(delay, cuts, tmp_path):
    on_time, late = (run(Oracle(cuts, delay=d), cuts, tmp_path) for d in (0, delay))
    for name in ("mean_stop_latency", "first_response_latency", "response_latency"):
        assert values(late, name)[0] - values(on_time, name)[0] == pytest.approx(delay, abs=0.003), name


def test_an_agent_deaf_to_barge_ins_fails_them_and_answers_still(cuts, tmp_path):
    found = run(Oracle(cuts, stops=False), cuts, tmp_path)
    assert values(found, "success_rate", "mean_stop_latency", "no_response_rate") == (0, None, 0)
    assert (found["barge_in"]["yield_rate"]["value"], found["barge_in"]["yield_rate"]["n"]) == (0, 3)
    assert found["barge_in"]["never_listens"]["success_rate"]["value"] == 0  # 2.2 s of the answer are left at the barge-in
    assert found["answers"]["all"]["value"] == 1


def test_the_baseline_knows_which_answers_end_in_time_by_themselves(tmp_path):
    def short(turn):
        return replace(turn, custom=dict(turn.custom) | {"whole_duration": 2.6}) if turn.was_cut else turn

    conversation = dialogue("short")
    cuts = [cut_of(replace(conversation, turns=tuple(map(short, conversation.turns))))]
    found = run(Oracle(cuts, stops=False), cuts, tmp_path)  # ends 0.8 s after the onset although it never listens
    assert found["barge_in"]["success_rate"]["value"] == found["barge_in"]["never_listens"]["success_rate"]["value"] == 1
    assert found["barge_in"]["yield_rate"]["n"] == 0, "stopping and ending look alike"
    assert found["barge_in"]["never_listens"]["mean_stop_latency"]["value"] == pytest.approx(
        found["barge_in"]["mean_stop_latency"]["value"], abs=0.03
    )


def test_silence_answers_nothing(cuts, tmp_path):
    found = run(Silent(), cuts, tmp_path)
    assert values(found, "no_response_rate", "success_rate", "mean_stop_latency", "first_response_latency") == (
        1,
        None,
        None,
        None,
    )
    assert values(found, "false_alarm_rate") == (0,)
    assert (found["answers"]["all"]["value"], found["answers"]["all"]["n"]) == (0, 9)


def test_talking_on_fails_every_barge_in(cuts, tmp_path):
    found = run(Talker(), cuts, tmp_path)
    assert values(found, "success_rate", "mean_stop_latency", "no_response_rate") == (0, None, 1)
    assert found["counts"]["n_barge_in"] == 9
    assert found["barge_in"]["restricted_mean_stop_latency"]["value"] == 1.5


def test_an_echo_only_collides(cuts, tmp_path):
    found = run(Echo(), cuts, tmp_path)
    assert found["counts"]["n_collisions"] + found["counts"]["n_false_alarms"] + found["counts"]["n_barge_in"] > 0
    assert found["answers"]["all"]["value"] == 0
    assert found["token_channel"]["heard_but_not_written"] > 0


def test_batches_and_order_change_nothing(cuts, tmp_path):
    one = run(Oracle(cuts), cuts, tmp_path, batch_size=1)
    three = run(Oracle(cuts), cuts[::-1], tmp_path, batch_size=3)
    assert one["counts"] == three["counts"] and one["barge_in"] == three["barge_in"]


def test_what_was_played_is_read_as_the_same_conversations(cuts, tmp_path):
    played = evaluate(Oracle(cuts), {"dev": cuts}, tmp_path, quick(), provenance={"model_sha256": "5a"}, progress=False)
    outcomes = [outcome for _, outcome in open_outputs(tmp_path).listened()]
    assert [outcome.id for outcome in outcomes] == ["d2", "d1", "d0"], "the longest is played first"
    read = report_of({"dev": outcomes}, quick(), tmp_path, progress=False)
    same = ("conversations_sha256", "model_sha256")
    assert [read["provenance"][key] for key in same] == [played["provenance"][key] for key in same]
    assert read["sets"]["dev"]["barge_in"] == played["sets"]["dev"]["barge_in"]


def test_files_are_written_and_hold_the_same(cuts, tmp_path):
    report = evaluate(Oracle(cuts), {"dev": cuts}, tmp_path, quick(control_turns=1, examples=2), progress=False)
    written = json.loads((tmp_path / "report.json").read_text())
    assert (
        written["sets"]["dev"]["barge_in"]["success_rate"]["value"]
        == report["sets"]["dev"]["barge_in"]["success_rate"]["value"]
    )
    assert [c["id"] for c in written["conversations"]["dev"]] == ["d0", "d1", "d2"]
    assert written["sets"]["dev"]["speech"]["not_run"].startswith("what=turn_taking leaves it out")
    assert written["provenance"]["versions"]["lhotse"] and written["schema_version"] == 2
    rows = list(csv.DictReader((tmp_path / "events.csv").open()))
    assert [r["verdict"] for r in rows if r["event"] == "barge_in"] == ["success"] * 3
    assert len([r for r in rows if r["event"] == "answer"]) == 9
    audio, rate = soundfile.read(tmp_path / "conversation.wav")
    assert rate == 22050 and audio.shape[1] == 2 and len(audio) / rate == pytest.approx(16, abs=0.2)
    assert len(list((tmp_path / "timelines").glob("*.png"))) == 2
    assert [c["name"] for c in written["controls"][:2]] == ["noise alone", "silence"]


def test_the_worst_are_shown_and_a_third_of_good_ones():
    """By mistakes, most first; of faultless ones those with most barge-ins."""

    def of(name, mistakes, barge_ins):
        return SimpleNamespace(name=name, mistakes=mistakes, turn_taking=SimpleNamespace(barge_ins=[None] * barge_ins))

    rows = {"a": [of("slip", 1, 0), of("good", 0, 1), of("bad", 9, 0)], "b": [of("best", 0, 3), of("poor", 4, 1)]}

    def shown(most):
        return [e.scored.name for e in choose_examples(rows, most)]

    assert shown(5) == ["bad", "poor", "slip", "best", "good"]
    assert shown(3) == ["bad", "poor", "best"]
    assert shown(4) == ["bad", "poor", "best", "good"]
    assert shown(1) == ["best"]
    assert [e.set_name for e in choose_examples(rows, 3)] == ["a", "b", "b"]


def test_options_reach_their_parts(cuts, tmp_path, monkeypatch):
    """Batch size, detector and seed."""
    batches, seeds, found = [], [], {}

    class Asked(Oracle):
        def offline_inference(self, signal, lens):
            batches.append(len(lens))
            return super().offline_inference(signal, lens)

    for module, name in (
        (scoring_module, "summary"),
        (scoring_module, "never_listens"),
        (scoring_module, "yields"),
        (run_module, "control_experiments"),
    ):
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *args, real=real: seeds.append(args[-1]) or real(*args))
    heard = []

    def vad(sound, rate):
        heard.append(rate)
        return energy_vad(sound, rate)

    monkeypatch.setattr(run_module, "voice_activity", lambda name: found.setdefault(name, vad))
    run(Asked(cuts), cuts, tmp_path, batch_size=2, seed=5, vad="silero", control_turns=1)
    assert batches[:2] == [2, 1] and seeds == [5] * 4 and list(found) == ["silero"]
    assert len(heard) > len(cuts) + 9 + 1, "conversations, noise, silence, and some with the interrupter muted"


def test_an_id_that_is_a_path_names_a_picture(cuts, tmp_path):
    run(Silent(), [cuts[0].with_id("session/1")], tmp_path, examples=1)
    assert [p.name for p in (tmp_path / "timelines").iterdir()] == [f"{unique_file_name('dev-session/1')}.png"]


def test_the_conversation_to_listen_to_is_the_best_that_is_shown(cuts, tmp_path):
    class Mixed(Oracle):
        """Silent in the first conversation."""

        def does(self, user):
            return Silent().does(user) if self.score[self._key(user)].id == "d0" else super().does(user)

    run(Mixed(cuts), cuts, tmp_path, examples=2)
    audio, rate = soundfile.read(tmp_path / "conversation.wav")
    assert len(audio) == round((16.0 + 0.08) * rate) and abs(audio[:, 1]).max() > 0.1, "d1, in which the agent speaks"
    assert {p.name for p in (tmp_path / "timelines").iterdir()} == {"dev-d0.png", "dev-d1.png"}


def test_worst_first_and_then_some_good_ones(cuts, tmp_path):
    bad = [score(r) for r in run_conversations(Talker(), cuts, energy_vad)]
    good = [score(r) for r in run_conversations(Oracle(cuts), cuts, energy_vad)]
    shown = choose_examples({"a": good, "b": bad}, 3)
    assert [e.set_name for e in shown] == ["b", "b", "a"]
    assert len(choose_examples({"a": good}, 2)) == 2 and choose_examples({"b": bad}, 0) == []


def impatient(conversation):
    users = tuple(conversation.user)
    custom = {"references": [["the capital of France is Paris"], ["it is Madrid"], ["a word"]]}
    return replace(conversation, turns=users, custom=custom)


class Answering(Oracle):
    """Says the listed references 0.8 s after each question."""

    def does(self, user):
        cut = self.score[self._key(user)]
        turns = []
        for turn, texts in zip(Conversation.from_cut(cut).user, cut.custom["references"], strict=True):
            start = FRAME_RATE.time(FRAME_RATE.nearest(turn.end + 0.8))
            turns.append(Turn("agent", start, start + 0.8, texts[0]))
        return voice(turns, cut.duration, AGENT_SAMPLE_RATE), turns


def test_references_without_an_agent_voice(tmp_path):
    cuts = [cut_of(impatient(dialogue("i0")))]
    found = run(Answering(cuts), cuts, tmp_path)
    assert (found["answers"]["all"]["value"], found["answers"]["all"]["n"]) == (1, 3)
    assert (found["answers"]["seen"]["n"], found["answers"]["unseen"]["n"]) == (2, 1)


# ---- what is refused


def refused(match, *cuts):
    with pytest.raises(InputError, match=match):
        evaluate(Silent(), {"dev": cuts}, "nowhere", progress=False)


def test_bad_cuts_are_named(cuts):
    refused("set 'dev' has no cuts")
    refused("Cut slow.*8000 Hz.*16000 Hz", cut_of(dialogue("slow"), user_rate=8000))
    refused("Cut uneven.*16.00 s.*12.00 s", cut_of(dialogue("uneven"), agent_seconds=12))
    refused("Cut mute has no supervisions", cut_of(replace(dialogue("mute"), turns=())))
    torn = cut_of(replace(impatient(dialogue("torn")), custom={"references": [["one"]]}))
    refused("Conversation torn has 3 user turns and 1 references", torn)
    with pytest.raises(InputError, match="vad=ears"):
        evaluate(Silent(), {"dev": cuts}, "nowhere", quick(vad="ears"))


def test_nothing_is_written_for_bad_cuts(tmp_path):
    with pytest.raises(InputError):
        run(Silent(), [cut_of(replace(dialogue("mute"), turns=()))], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_sets_are_read_from_a_corpus(cuts, tmp_path):
    write_set(tmp_path / "corpus" / "dev" / "shar", cuts)
    write_set(tmp_path / "corpus" / "test" / "shar", cuts[::-1])
    assert [c.id for c in read_sets(tmp_path / "corpus", ["dev"])["dev"]] == ["d0", "d1", "d2"]
    assert [c.id for c in read_sets(tmp_path / "corpus", ["dev"], limit=1)["dev"]] == ["d0"]
    (tmp_path / "corpus" / "dev" / "shar" / "recording.000009.tar").write_bytes(b"")
    with pytest.raises(InputError, match="^set 'dev': a shard in .*Expected 1 shards available for field .*Copy the missing"):
        read_sets(tmp_path / "corpus", ["dev"])
    (tmp_path / "corpus" / "dev" / "shar" / "recording.000009.tar").unlink()
    both = read_sets(tmp_path / "corpus", ["test", "dev"])
    assert {name: [c.id for c in found] for name, found in both.items()} == {
        "test": ["d2", "d1", "d0"],
        "dev": ["d0", "d1", "d2"],
    }
    for data, names, message in (
        (tmp_path / "corpus", ["impatient"], "set 'impatient': there is no folder"),
        (tmp_path / "nothing", ["dev"], "data: there is no folder"),
        (tmp_path, ["corpus"], "set 'corpus': there is no folder"),
    ):
        with pytest.raises(InputError, match=message):
            read_sets(data, names)
    with pytest.raises(InputError, match="limit=0"):
        read_sets(tmp_path / "corpus", ["dev"], limit=0)
    (tmp_path / "odd" / "dev" / "shar").mkdir(parents=True)
    (tmp_path / "odd" / "dev" / "shar" / "notes.txt").write_text("?")
    with pytest.raises(InputError, match="holds no .*Shar"):
        read_sets(tmp_path / "odd", ["dev"])
