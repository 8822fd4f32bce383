"""What NeMo's in-tree models write is read: as their `ResultsLogger` writes it (slow test), and where a run did not end."""

import json

import numpy as np
import pytest
import soundfile

from nemo_duplex.evaluation.readers.outputs import open_outputs
from nemo_duplex.inputs import InputError
from tests.evaluation.agents import cut_of, dialogue, write_set
from tests.evaluation.readers.voices import voice

USER, AGENT, SECONDS, RATE = [(0.5, 1.5), (3.5, 4.5)], [(2.0, 3.0), (5.0, 5.8)], 6.0, 22050
LATER = "<|2.0|> Hi there. <2.48> <$3.04$>  <|4.96|> Bye."


def write_wav(folder, name, user=USER, agent=AGENT, seconds=SECONDS):
    path = folder / "pred_wavs" / f"{name}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    sides = [voice(spans, seconds, RATE, seed) for seed, spans in enumerate((user, agent))]
    soundfile.write(path, np.stack(sides, axis=1), RATE)


def write_metadata(folder, name, rows):
    path = folder / "metadatas" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def line(name, text="Hi there. Bye.", **more):
    return {"id": name, "target_text": "Hello. Bye.", "pred_text": text, "pred_audio": "hi there bye", **more}


def heard(path, **options):
    outputs = open_outputs(path, **options)
    found = {(set_name, outcome.id): outcome for set_name, outcome in outputs.listened()}
    return found, {reason: about["count"] for reason, about in outputs.odd.describe().items()}


def about(spans):
    return pytest.approx(np.asarray(spans), abs=0.03)


def test_wavs_and_metadata_of_all_ranks(tmp_path):
    for rank, name in ((0, "a_b"), (1, "x/c")):
        write_wav(tmp_path, f"dev_{name}_rank{rank}")
        write_metadata(tmp_path, f"dev_rank{rank}", [line(name)])
    write_wav(tmp_path, "dev_a_b_rank0_GT", agent=[(1.8, 2.8)])
    write_metadata(tmp_path, "dev", [line("a_b"), line("x/c")])
    found, odd = heard(tmp_path)
    assert set(found) == {("dev", "a_b"), ("dev", "x/c")} and not odd
    outcome = found["dev", "a_b"]
    assert np.asarray(outcome.user) == about(USER) and np.asarray(outcome.speech) == about(AGENT)
    custom = outcome.conversation.custom
    assert (custom["reference_text"], custom["pred_agent_text"], custom["asr_text"]) == (
        "Hello. Bye.",
        "Hi there. Bye.",
        "hi there bye",
    )
    assert not outcome.writes and found["dev", "x/c"].reference_sound is None
    reference = outcome.reference_sound.samples()
    assert np.flatnonzero(reference)[0] == pytest.approx(1.8 * RATE, abs=5)


def test_marks_in_the_text_are_turns(tmp_path):
    write_wav(tmp_path, "dev_a_rank0")
    late = "<$0.4$> " + LATER + " <|7.2|> padding <$7.6$>"
    write_metadata(tmp_path, "dev_rank0", [line("a", late)])
    found, _ = heard(tmp_path)
    outcome = found["dev", "a"]
    assert [(t.start, t.end, t.text) for t in outcome.agent] == [(2.0, 3.04, "Hi there."), (4.96, 6.0, "Bye.")]
    assert [bool(t.custom.get("unfinished")) for t in outcome.agent] == [False, True]
    assert (outcome.unterminated, outcome.orphan_eos, outcome.writes) == (1, 1, True)


def test_of_merged_metadata_alone_the_rank_is_found(tmp_path):
    write_wav(tmp_path, "dev_[a]_rank3")
    write_wav(tmp_path, "dev_[a]_rank3_tf", user=[], agent=[])
    write_metadata(tmp_path, "dev", [line("[a]")])
    (tmp_path / "metadatas" / "other.json").touch()  # emptied when a validation begins
    found, odd = heard(tmp_path)
    assert list(found) == [("dev", "[a]")] and not odd
    assert np.asarray(found["dev", "[a]"].speech) == about(AGENT)


def test_replaced_and_missing_sounds_are_odd(tmp_path):
    write_wav(tmp_path, "dev_same_rank0")
    write_metadata(tmp_path, "dev_rank0", [line("same", "first"), line("same", "last"), line("gone"), ["no row"]])
    found, odd = heard(tmp_path, max_odd_rows=0.9)
    assert found["dev", "same"].conversation.custom["pred_agent_text"] == "last"
    assert odd == {
        "a sound that a later one has replaced": 1,
        "no wav of the conversation": 1,
        "a value of the wrong kind": 1,
    }


def test_a_model_without_a_voice_is_told(tmp_path):
    (tmp_path / "pred_wavs").mkdir()
    write_metadata(tmp_path, "dev_rank0", [line("a"), line("b")])
    with pytest.raises(InputError, match="Score a model that speaks: DuplexSTTModel writes no pred_wavs"):
        heard(tmp_path)


def test_a_corpus_tells_where_the_padding_of_a_batch_begins(tmp_path):
    """What the model says in the padding is left out, whatever came first: two cuts of one batch, one shorter."""
    long_id = "d" * 160
    write_set(tmp_path / "corpus" / "dev" / "shar", [cut_of(dialogue("d0")), cut_of(dialogue(long_id, shift=0.8))])
    for name in ("d0", long_id[:150]):
        write_wav(tmp_path / "out", f"dev_{name}_rank0", agent=[(3.2, 5.0), (17.0, 18.5)], seconds=20.0)
    write_metadata(tmp_path / "out", "dev_rank0", [line("d0"), line(long_id[:150])])
    found, odd = heard(tmp_path / "out", corpus=tmp_path / "corpus")
    assert not odd and [round(o.duration, 2) for o in found.values()] == [16.0, 16.8]
    for outcome in found.values():
        assert np.asarray(outcome.speech) == about([(3.2, 5.0)])
        assert len(outcome.user) == 3 and "user_turns_from" not in outcome.conversation.custom


@pytest.mark.slow
def test_what_the_real_logger_writes_is_read(tmp_path):
    import torch
    from nemo.collections.speechlm2.parts.metrics.results_logger import ResultsLogger

    logger = ResultsLogger(str(tmp_path)).reset()
    users = torch.from_numpy(np.stack([voice(USER, SECONDS, 16000, 0), voice([], SECONDS, 16000, 0)]))
    agents = torch.from_numpy(np.stack([voice(AGENT, SECONDS, RATE, 1), voice([(1.0, 2.0)], SECONDS, RATE, 2)]))
    logger.update(
        name="web_dev",
        refs=["Hello.", ""],
        hyps=[LATER, "Hm."],
        samples_id=["a_1", "b/2"],
        asr_hyps=["hi there bye", ""],
        pred_audio=agents,
        pred_audio_sr=RATE,
        user_audio=users,
        user_audio_sr=16000,
        target_audio=agents,
    )
    logger.update(name="alone", refs=["Hello."], hyps=["Hi."], samples_id=["c"], pred_audio=agents[:1], pred_audio_sr=RATE)
    logger.compute_and_save()
    found, odd = heard(tmp_path, max_odd_rows=0.4)
    assert set(found) == {("web_dev", "a_1"), ("web_dev", "b/2")}
    assert odd == {"neither user turns nor the user's sound": 1}, "without the user's sound, the agent is alone in its wav"
    outcome = found["web_dev", "a_1"]
    assert np.asarray(outcome.user) == about(USER) and np.asarray(outcome.speech) == about(AGENT)
    assert [t.text for t in outcome.agent] == ["Hi there.", "Bye."]
    assert outcome.reference_sound is not None and outcome.conversation.custom["asr_text"] == "hi there bye"
    assert found["web_dev", "b/2"].user == [] and "reference_text" not in found["web_dev", "b/2"].conversation.custom
