"""A clean corpus passes; each planted fault is found, and nothing else is."""

from __future__ import annotations

import gzip
import json
from functools import partial

import numpy as np
import pytest
import sentencepiece
import soxr
from lhotse import MonoCut, fastcopy

from nemo_duplex.frames import FRAME_RATE
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.cuts import utterance_cut
from nemo_duplex.synthesis.inspection.check import Checked, check
from nemo_duplex.synthesis.inspection.findings import Findings
from nemo_duplex.synthesis.inspection.text_fit import check_text
from nemo_duplex.synthesis.mix import Acoustics
from nemo_duplex.synthesis.spoken_turns import agent_utterance
from tests.synthesis.inspection.corpora import add_codes, barge_in, corpus, dialogues, heard, turns, write
from tests.synthesis.tones import cast_of

NOISY = Acoustics(noise=1.0, room=0.6, leak=0.6, leak_db=(-30.0, -25.0))


def errors(checked: Checked) -> dict[str, int]:
    return {kind: found["count"] for kind, found in checked.found.describe()["errors"].items()}


def warnings(checked: Checked) -> dict[str, int]:
    return {kind: found["count"] for kind, found in checked.found.describe()["warnings"].items()}


def first(checked: Checked, kind: str) -> str:
    return checked.found.describe()["errors"][kind]["first"][0]


def test_a_clean_corpus_passes(tmp_path):
    checked = check(corpus(tmp_path), progress=False)
    assert (errors(checked), warnings(checked), checked.is_good) == ({}, {}, True)
    assert (checked.cuts, checked.sets) == (8, ("train", "dev"))
    assert list(checked.lines()) == [f"checked 8 cuts, {checked.seconds / 3600:.3f} h of train, dev: 0 errors, 0 warnings"]


def test_noise_rooms_and_leaks_that_are_told_pass(tmp_path):
    cuts = dialogues("dev", 8, NOISY)
    assert sum("leak_db" in cut.custom["surroundings"] for cut in cuts) >= 2
    checked = check(corpus(tmp_path, sets={"dev": cuts}), progress=False)
    assert (errors(checked), warnings(checked)) == ({}, {})


def test_several_processes_find_the_same_in_the_same_order(tmp_path):
    def change(cuts):
        for cut in cuts:
            turns(cut, "agent")[0].text = ""

    folder = corpus(tmp_path, change)
    one, two = (check(folder, workers=n, progress=False) for n in (1, 2))
    assert one.found.describe() == two.found.describe() and errors(one) == {"an agent turn without text": 4}


# --- faults, each in one cut of dev -----------------------------------------------------------------------------------


def overlap(cuts):
    one, two = turns(cuts[0], "agent")[:2]
    two.custom.pop("gap"), one.custom.pop("cut", None), one.custom.pop("full_text", None)
    one.duration = two.start + 0.4 - one.start
    one.custom["whole_duration"] = one.duration
    user = next(s for s in turns(cuts[0], "user") if s.start > one.start)
    user.custom.pop("gap"), user.custom.pop("barge_in", None)


def after_the_end(cuts):
    turns(cuts[1], "agent")[-1].duration += 2


def outside(cuts):
    s = turns(cuts[1], "agent")[-1]
    s.start, s.custom["gap"] = cuts[1].duration + 1, cuts[1].duration + 1 - turns(cuts[1], "user")[-1].end


def backwards(cuts):
    turns(cuts[0], "agent")[-1].duration = -0.5


def not_cut(cuts):
    cut, user, agent = barge_in(cuts)
    agent.duration = agent.custom["whole_duration"] = user.start + 0.88 - agent.start
    del agent.custom["cut"], agent.custom["full_text"]
    user.custom["gap"] = user.start - agent.end
    heard(cut, "agent", lambda x: hum(x, agent.end - 0.3, agent.end, 22050))


def no_barge_in(cuts):
    del barge_in(cuts)[1].custom["barge_in"]


def nobody_to_interrupt(cuts):
    turns(cuts[0], "user")[0].custom["barge_in"] = True


def unmarked_cut(cuts):
    _, _, agent = barge_in(cuts)
    del agent.custom["cut"]


def cut_elsewhere(cuts):
    barge_in(cuts)[2].custom["cut"] += 0.08


def no_full_text(cuts):
    del barge_in(cuts)[2].custom["full_text"]


def wrong_gap(cuts):
    turns(cuts[2], "agent")[0].custom["gap"] += 0.08


def wrong_gap_of_user(cuts):
    turns(cuts[2], "user")[1].custom["gap"] -= 0.08


def event_outside(cuts):
    event = {"kind": "cough", "speaker": "user", "start": cuts[0].duration - 0.2, "end": cuts[0].duration + 0.3}
    cuts[0].custom["events"] = [event]


def event_without_times(cuts):
    cuts[0].custom["events"] = [{"kind": "cough", "speaker": "user"}]


def pause_outside(cuts):
    s = turns(cuts[0], "user")[0]
    s.custom["pauses"] = [[s.end - 0.1, s.end + 0.3]]


def hum(samples: np.ndarray, start: float, end: float, rate: int, level: float = 0.2) -> np.ndarray:
    stretch = slice(round(start * rate), round(end * rate))
    samples[stretch] += level * np.sin(2 * np.pi * 330 * np.arange(len(samples[stretch])) / rate).astype(np.float32)
    return samples


def mute(samples: np.ndarray, start: float, end: float, rate: int) -> np.ndarray:
    samples[round((start - 0.1) * rate) : round((end + 0.1) * rate)] = 0
    return samples


def silent_agent(cuts):
    s = turns(cuts[0], "agent")[0]
    heard(cuts[0], "agent", lambda x: mute(x, s.start, s.end, 22050))


def silent_user(cuts):
    s = turns(cuts[0], "user")[0]
    heard(cuts[0], "user", lambda x: mute(x, s.start, s.end, 16000))


def user_under_noise(cuts):
    s, rng = turns(cuts[0], "user")[0], np.random.default_rng(0)
    heard(cuts[0], "user", lambda x: mute(x, s.start, s.end, 16000) + 0.02 * rng.standard_normal(len(x)).astype(np.float32))


def strange_agent_sound(cuts):
    end = max(s.end for s in turns(cuts[0], "user"))
    start = next(s.start for s in turns(cuts[0], "user"))
    heard(cuts[0], "agent", lambda x: hum(x, start, start + 0.4, 22050))
    assert end > start + 0.4


def lost_event(cuts):
    """A backchannel that nobody wrote down, while the agent speaks and the user does not."""
    for cut in cuts:
        for a in turns(cut, "agent"):
            if (
                "cut" not in a.custom
                and a.duration > 1.2
                and not any(s.end > a.start - 0.6 and s.start < a.end for s in turns(cut, "user"))
            ):
                return heard(cut, "user", lambda x, a=a: hum(x, a.start + 0.2, a.start + 0.7, 16000))
    raise AssertionError("no long answer")


def leak(level: float, said: float | None, cuts):
    cut = cuts[0]
    echo = soxr.resample(cut.load_target_audio()[0], 22050, 16000)
    delayed = np.concatenate([np.zeros(1000, np.float32), echo])
    heard(cut, "user", lambda x: x + 10 ** (level / 20) * delayed[: len(x)])
    cut.custom["surroundings"] = dict(cut.custom["surroundings"]) | ({} if said is None else {"leak_db": said})


def clipped(cuts):
    heard(cuts[0], "user", lambda x: np.clip(x * 60, -1, 32767 / 32768))


def clipped_below_full_scale(cuts):
    heard(cuts[0], "agent", lambda x: np.clip(x, -0.25, 0.25))


def not_finite(cuts):
    def change(x):
        x[5000] = np.nan
        return x

    heard(cuts[0], "agent", change)


def shorter(cuts):
    heard(cuts[0], "agent", lambda x: x[: -3 * 1764])


def no_whole_frames(cuts):
    for speaker, samples in (("user", 640), ("agent", 882)):
        heard(cuts[0], speaker, lambda x, n=samples: x[:-n])
    cuts[0].duration -= 0.04


def other_rate(cuts):
    heard(cuts[0], "user", lambda x: x[::2].copy(), rate=8000)


def twice(cuts):
    return [*cuts, *cuts[:1]]


def codes(frames_more: int, dtype, cuts):
    for i, cut in enumerate(cuts):
        count = FRAME_RATE.count(cut.duration)
        more, own = (frames_more, dtype) if i == 0 else (0, np.int16)
        add_codes(cut, np.zeros((count + more, 4), own))


FAULTS = {
    "agent turns that overlap": overlap,
    "a turn that begins before or ends after the audio": after_the_end,
    "a turn outside of the audio": outside,
    "a turn whose times are not numbers or run backwards": backwards,
    "a barge-in after which the agent goes on": not_cut,
    "a cut without a barge-in": no_barge_in,
    "a barge-in while the agent does not speak": nobody_to_interrupt,
    "an agent turn that ends early and is not marked as cut": unmarked_cut,
    "a cut that is not where its turn ends": cut_elsewhere,
    "a turn that was cut, without its full text": no_full_text,
    "a gap that its times do not have": wrong_gap,
    "a gap that its times do not have ": wrong_gap_of_user,
    "an event outside of the audio": event_outside,
    "an event without kind, start or end": event_without_times,
    "a pause outside of its turn": pause_outside,
    "a turn without sound in the agent channel": silent_agent,
    "a turn without sound in the user channel": silent_user,
    "a turn that is not heard in the user channel": user_under_noise,
    "sound in the agent channel where no turn or event is": strange_agent_sound,
    "sound in the user channel where no turn or event is": lost_event,
    "the agent's voice in the user channel, louder than the cut says": partial(leak, -30.0, None),
    "the agent's voice in the user channel, louder than the cut says ": partial(leak, -20.0, -30.0),
    "clipping": clipped,
    "clipping ": clipped_below_full_scale,
    "samples that are not finite": not_finite,
    "channels of different length": shorter,
    "a channel that is not a whole number of frames": no_whole_frames,
    "user channels of different sample rates": other_rate,
    "an id that several cuts have": twice,
    "codes of another length than their cut": partial(codes, 1, np.int16),
    "codes of another length than their cut ": partial(codes, -1, np.int16),
    "codes that are not (T, K) integers from 0": partial(codes, 0, np.float32),
}
#: What is found beside a fault, because it cannot be otherwise.
BESIDE = {
    "a turn outside of the audio": {"sound in the agent channel where no turn or event is"},
    "a turn whose times are not numbers or run backwards": {"sound in the agent channel where no turn or event is"},
    "a turn that begins before or ends after the audio": set(),
    "channels of different length": {"a channel of another length than its cut"},
}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_is_found_and_nothing_else(tmp_path, kind):
    checked = check(corpus(tmp_path, FAULTS[kind]), progress=False)
    beside = BESIDE.get(kind, set())
    assert kind.strip() in errors(checked), errors(checked)
    assert set(errors(checked)) - beside == {kind.strip()}, list(checked.lines())
    assert not checked.is_good and "dev" in first(checked, kind.strip())


# --- what concerns several cuts, sets and files -----------------------------------------------------------------------


def test_what_train_and_evaluation_must_not_share(tmp_path):
    """A voice, a question that is marked as unseen, an engine that is for evaluation alone, a recording."""

    def own(cuts, name, engine):
        return [_made_by(cut, f"{name}{i}", engine) for i, cut in enumerate(cuts)]

    train, dev = own(dialogues("train"), "a", "espeak-ng 1"), own(dialogues("dev"), "b", "espeak-ng 1")
    for s in (s for cut in (*train, *dev) for s in turns(cut, "user")):
        s.custom["seen"] = True
    good = check(corpus(tmp_path / "good", sets={"train": train, "dev": dev}), progress=False)
    assert errors(good) == {}

    _made_by(dev[1], "a2", "espeak-ng 1")
    said = turns(train[0], "user")[0].text
    turns(dev[2], "user")[0].text = f"  {said.upper()}"
    turns(dev[2], "user")[0].custom["seen"] = False
    _made_by(train[3], "flite-7", "flite 2.2")
    heard(dev[0], "user", lambda _: train[1].load_audio()[0])
    dev[0].duration = train[1].duration
    bad = check(corpus(tmp_path / "bad", sets={"train": train, "dev": dev}), progress=False)
    found = bad.found.describe()["errors"]
    assert found["a user's voice in train and in evaluation"] == {
        "count": 1,
        "first": [f"train and dev: a2 espeak-ng 1 ({train[2].id} and {dev[1].id})"],
    }
    assert found["a question that is marked as unseen and is in train"]["count"] == 1
    assert dev[2].id in first(bad, "a question that is marked as unseen and is in train")
    assert found["an engine in train that is for evaluation alone"]["first"] == [f"{train[3].id}: flite 2.2"]
    assert found["a recording in train and in evaluation"]["count"] == 1
    assert dev[0].id in first(bad, "a recording in train and in evaluation")


def _made_by(cut: MonoCut, voice: str, engine: str) -> MonoCut:
    cut.custom |= {"voice": voice, "engine": engine}
    for s in turns(cut, "user"):
        s.custom["voice"] = voice
    return cut


def test_a_named_recording_in_train_and_dev(tmp_path):
    train, dev = ([_with_recording(cut, f"{name}{i}") for i, cut in enumerate(dialogues(name))] for name in ("train", "dev"))
    assert check(corpus(tmp_path / "a", sets={"train": train, "dev": dev}), progress=False).is_good
    turns(dev[1], "user")[0].custom["recording"] = "train2"
    bad = check(corpus(tmp_path / "b", sets={"train": train, "dev": dev}), progress=False)
    assert errors(bad) == {"a recording in train and in evaluation": 1}


def _with_recording(cut: MonoCut, name: str) -> MonoCut:

    turns(cut, "user")[0].custom["recording"] = name
    return cut


def test_ids_are_of_one_cut_in_all_sets(tmp_path):
    cuts = dialogues("train")
    checked = check(corpus(tmp_path, sets={"train": cuts, "other": cuts[1:2]}), progress=False)
    assert errors(checked)["an id that several cuts have"] == 2 and cuts[1].id in first(checked, "an id that several cuts have")


def test_texts_must_fit_their_frames(tmp_path):
    texts = tmp_path / "texts"
    texts.write_text("".join(f"{s.text}\n" for cut in dialogues("dev") for s in cut.supervisions) * 3)
    for kind in ("word", "char"):
        sentencepiece.SentencePieceTrainer.train(
            input=str(texts), model_prefix=str(tmp_path / kind), model_type=kind, vocab_size=200, hard_vocab_limit=False
        )
    folder = corpus(tmp_path / "corpus")
    assert check(folder, tokenizer=str(tmp_path / "word.model"), progress=False).is_good
    spelt = check(folder, tokenizer=str(tmp_path / "char.model"), progress=False)
    assert set(errors(spelt)) == {"text that does not fit its frames"}
    with pytest.raises(InputError, match="texts is neither a tokenizer.json nor a SentencePiece model"):
        check(folder, tokenizer=str(texts), progress=False)


@pytest.mark.parametrize(("words", "fits"), [(6, True), (7, False)])
def test_a_text_fits_to_the_frame(words, fits):
    """A turn of 8 frames: BOS in the first, EOS in the one after its last, 7 between."""

    cut = dialogues("dev")[0]
    s = turns(cut, "agent")[0]
    found = Findings()

    turn = fastcopy(s, start=1.6, duration=0.64, text="a " * (words + 1))
    check_text(cut, [turn], lambda text: len(text.split()), found)
    assert bool(found.errors) is not fits
    following = fastcopy(s, start=2.16, duration=0.64, text="a")
    check_text(cut, [fastcopy(turn, text="a " * 6), following], lambda text: len(text.split()), found := Findings())
    assert not found.errors, "6 tokens fit before the BOS of the next turn, 7 frames later"
    check_text(cut, [fastcopy(turn, text="a " * 7), following], lambda text: len(text.split()), found)
    assert len(found.errors) == 1


def test_a_folder_that_is_no_shar_is_one_line(tmp_path):
    with pytest.raises(InputError, match="check: there is no folder"):
        check(tmp_path / "nothing")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("a")
    with pytest.raises(InputError, match="check: .*texts holds no Lhotse Shar"):
        check(tmp_path / "texts")
    with pytest.raises(InputError, match="speakers={Caller: user}: expected who is the user and who the agent"):
        check(corpus(tmp_path / "c"), speakers={"Caller": "user"})


def test_damage_is_found_and_the_other_shards_are_checked(tmp_path):
    folder = corpus(tmp_path)
    shar = folder / "dev" / "shar"
    tar = shar / "recording.000000.tar"
    tar.write_bytes(tar.read_bytes()[:2000])
    (shar / "target_audio.000001.tar").unlink()
    (shar / "notes.txt").write_text("mine")
    checked = check(folder, progress=False)
    assert checked.cuts == 5 and errors(checked)["a file that is missing in a shard"] == 1
    assert first(checked, "a file that is missing in a shard") == "dev: target_audio.000001"
    assert first(checked, "a shard that cannot be read").startswith("dev, shard 000000, from its start: ")
    stranger = "a file in a Shar folder that belongs to no shard: Lhotse cannot open the folder"
    assert first(checked, stranger) == "dev: notes.txt"
    assert errors(checked)["a cut without agent channel"] == 1


def test_a_shard_with_fewer_entries_than_cuts(tmp_path):
    folder = corpus(tmp_path)
    manifest = folder / "dev" / "shar" / "cuts.000000.jsonl.gz"
    lines = gzip.open(manifest, "rt").read().splitlines()
    more = json.loads(lines[-1]) | {"id": "one-more"}
    with gzip.open(manifest, "wt") as file:
        file.write("\n".join([*lines, json.dumps(more)]) + "\n")
    checked = check(folder, progress=False)
    assert errors(checked) == {"a shard with fewer entries than cuts": 1}
    assert first(checked, "a shard with fewer entries than cuts").endswith("its manifest has 4 cuts, its shortest file 3")


def test_somebody_elses_corpus(tmp_path):
    """Other speakers, other custom, a Shar folder that is given itself."""

    cuts = dialogues("dev")
    for cut in cuts:
        cut.custom = {"target_audio": cut.custom["target_audio"]}
        for s in cut.supervisions:
            s.speaker, s.custom, s.alignment = {"user": "Caller", "agent": "Bot"}[s.speaker], None, None
    write(tmp_path / "shar_of_theirs", cuts)
    unknown = check(tmp_path / "shar_of_theirs", progress=False)
    assert set(errors(unknown)) == {"a speaker who is neither user nor agent (give speakers)"}
    named = check(tmp_path / "shar_of_theirs", speakers={"Caller": "user", "Bot": "agent"}, progress=False)
    assert (errors(named), named.sets) == ({}, ("shar_of_theirs",))
    assert warnings(named) == {"a user turn over the agent that is not marked as one": sum(map(_barge_ins, dialogues("dev")))}


def _barge_ins(cut: MonoCut) -> int:
    return sum(bool(s.custom.get("barge_in")) for s in turns(cut, "user"))


def test_single_utterances_of_the_agent_are_no_dialogues(tmp_path):

    cuts = [utterance_cut(f"agent-{i}", agent_utterance("One two three.", cast_of())) for i in range(2)]
    checked = check(corpus(tmp_path, sets={"agent": cuts}), progress=False)
    assert (errors(checked), checked.cuts) == ({}, 2)


def test_a_leak_that_is_told_passes(tmp_path):
    checked = check(corpus(tmp_path, partial(leak, -30.0, -30.0)), progress=False)
    assert (errors(checked), warnings(checked)) == ({}, {})


def test_each_dataset_of_a_mixture_is_checked_by_its_own_stop_delay(tmp_path):
    """A barge-in after which the agent goes on for longer than this corpus says, and for less than where none says it."""
    for name, delay in (("quick", 0.08), ("usual", 0.64)):
        corpus(tmp_path / name, sets={"dev": dialogues("dev")})
        summary = {"spec": {"dialogues": {"rhythm": {"stop_delay": delay}}}}
        (tmp_path / name / "corpus.json").write_text(json.dumps(summary))
    checked = check(tmp_path, progress=False)
    places = checked.found.describe()["errors"]["a barge-in after which the agent goes on"]["count"]
    assert (
        places
        == check(tmp_path / "quick", progress=False).found.describe()["errors"]["a barge-in after which the agent goes on"][
            "count"
        ]
        > 0
    )
    assert check(tmp_path / "usual" / "dev", progress=False).is_good
