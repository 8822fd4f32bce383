"""The timeline's promises, over many drawn conversations."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import numpy as np
import pytest

from nemo_duplex.conversation import Conversation, Turn, Word
from nemo_duplex.frames import FRAME_RATE
from nemo_duplex.synthesis.gaps import PEOPLE, PEOPLE_AS_AGENT, GapDistribution
from nemo_duplex.synthesis.timing import Rhythm, impatient, schedule

FRAME = FRAME_RATE.seconds


def turn(speaker: str, duration: float, pauses: list | None = None) -> Turn:
    words = tuple(Word(f"w{i}", 3 * i, i * duration / 5, (i + 1) * duration / 5) for i in range(5))
    return Turn(speaker, 0.0, duration, "w0 w1 w2 w3 w4.", words=words, custom={"pauses": pauses} if pauses else {})


def exchanges(rng: np.random.Generator, count: int) -> list[tuple[Turn, Turn]]:
    return [(turn("user", rng.uniform(0.4, 3), [[0.1, 0.35]]), turn("agent", rng.uniform(0.5, 5))) for _ in range(count)]


def drawn(seed: int, rhythm: Rhythm, duration: float | None = None) -> Conversation:
    rng = np.random.default_rng(seed)
    content = exchanges(rng, 6)
    return schedule(f"c{seed}", iter(content) if duration is None else cycle(content), rhythm, rng, duration)


@pytest.mark.parametrize("duration", [None, 12.8])
def test_agent_answers_on_the_grid_nearest_to_its_gap(duration):
    for seed in range(100):
        conversation = drawn(seed, Rhythm(), duration)
        users = {t.custom["exchange"]: t for t in conversation.user}
        for answer in conversation.agent:
            gap = answer.start - users[answer.custom["exchange"]].end
            assert 0.64 - FRAME / 2 - 1e-3 <= gap <= 0.64 + FRAME / 2 + 1e-3
            assert answer.start / FRAME == pytest.approx(round(answer.start / FRAME), abs=1e-6)
            assert answer.custom["gap"] == pytest.approx(gap, abs=1e-3)


def test_agent_stops_on_the_frame_edge_before_the_stop_delay():
    cuts = wholes = 0
    for seed in range(100):
        conversation = drawn(seed, Rhythm(barge_in=0.7))
        users = {t.custom["exchange"]: t for t in conversation.user}
        for answer in conversation.agent:
            following = users.get(answer.custom["exchange"] + 1)
            barged = following is not None and following.custom.get("barge_in", False)
            if not answer.was_cut:
                wholes += 1
                assert "cut" not in answer.custom
                assert not barged or answer.end <= following.start + 0.64 + 1e-6
                continue
            cuts += 1
            assert following is not None and barged
            assert following.custom["gap"] < 0
            assert 0.64 - FRAME < answer.end - following.start <= 0.64 + 1e-3
            assert answer.end / FRAME == pytest.approx(round(answer.end / FRAME), abs=1e-6)
            assert answer.custom["cut"] == answer.end
            assert answer.full_text is not None and answer.full_text.startswith(answer.text)
    assert cuts > 100 and wholes > 100


def test_users_go_on_soon_at_once_or_after_long_silence_as_often_as_asked_for():
    gaps = [t.custom["gap"] for seed in range(120) for t in drawn(seed, Rhythm(barge_in=0.0)).user[1:]]
    at_once, soon, long = ([g for g in gaps if low <= g <= high] for low, high in ((0.0, 0.2), (0.3, 1.5), (2.0, 6.0)))
    assert len(at_once) + len(soon) + len(long) == len(gaps) == 600
    assert (len(at_once) / 600, len(long) / 600) == pytest.approx((0.1, 0.03), abs=0.02)
    assert max(long) > 5 and max(soon) > 1.4
    onsets = [drawn(seed, Rhythm()).user[0].start for seed in range(60)]
    assert 0.3 <= min(onsets) < 0.4 and 1.4 < max(onsets) <= 1.5


@pytest.mark.parametrize("gap, begun", [(0.79, True), (0.81, False)])
def test_a_turn_with_less_than_half_a_frame_left_is_not_begun(gap, begun):
    """The user's second turn would start 0.05 or 0.03 s before the end."""
    rhythm = Rhythm(barge_in=0.0, prompt=0.0, long_silence=0.0, first_onset=(0.5, 0.5), gap=(gap, gap))
    source = cycle([(turn("user", 1.0), turn("agent", 1.0))])
    conversation = schedule("c", source, rhythm, np.random.default_rng(0), duration=4.0)
    assert [(t.speaker, round(t.start, 2), round(t.end, 2)) for t in conversation.turns] == [
        ("user", 0.5, 1.5),
        ("agent", 2.16, 3.16),
        *([("user", 3.95, 4.0)] if begun else []),
    ]


def test_barge_ins_come_as_often_and_where_they_were_asked_for():
    never, always = drawn(0, Rhythm(barge_in=0.0)), drawn(0, Rhythm(barge_in=1.0))
    assert not any(t.custom.get("barge_in") for t in never.user)
    assert [t.custom.get("barge_in", False) for t in always.user] == [False] + [True] * 5
    places = []
    for seed in range(60):
        for answer, following in zip((c := drawn(seed, Rhythm(barge_in=1.0))).agent, c.user[1:]):
            whole = answer.words[0].start + 5 * (answer.words[1].start - answer.words[0].start) - answer.start
            places.append((following.start - answer.start) / whole)
    assert 0.20 <= min(places) < 0.25 and 0.80 < max(places) <= 0.85


def test_turns_of_one_speaker_never_overlap_however_short_they_are():
    """A word is said in less than the agent takes to stop; the next answer used to start on top of the old one."""
    rng = np.random.default_rng(0)
    short = [(turn("user", 0.1), turn("agent", 4.0)) for _ in range(6)]
    conversation = schedule("short", iter(short), Rhythm(barge_in=1.0, response_gap=0.16), rng)
    for turns in (conversation.user, conversation.agent):
        assert all(before.end <= after.start + 1e-6 for before, after in zip(turns, turns[1:]))


def test_a_whole_conversation_ends_on_the_grid_with_its_tail():
    for seed in range(30):
        conversation = drawn(seed, Rhythm())
        last = max(t.end for t in conversation.turns)
        assert 1.0 - 1e-6 <= conversation.duration - last < 1.0 + FRAME
        assert conversation.duration / FRAME == pytest.approx(round(conversation.duration / FRAME), abs=1e-6)
        assert [t.custom["exchange"] for t in conversation.agent] == list(range(6))


def test_a_conversation_of_given_length_is_full_and_marks_what_runs_over():
    unfinished = 0
    for seed in range(60):
        conversation = drawn(seed, Rhythm(), 12.8)
        assert conversation.duration == 12.8
        assert max(t.end for t in conversation.turns) > 12.8 - 7.0
        for t in conversation.turns:
            assert t.end <= 12.8 + 1e-9
            assert t.custom.get("unfinished", False) == (t.was_cut and "cut" not in t.custom or t.end == 12.8 and t.was_cut)
            assert all(t.start <= start and end <= t.end for start, end in t.custom.get("pauses", []))
            unfinished += t.custom.get("unfinished", False)
    assert unfinished > 20


def test_pauses_and_words_move_with_their_turn():
    for t in drawn(3, Rhythm()).user:
        assert t.custom["pauses"] == [[pytest.approx(t.start + 0.1, abs=1e-3), pytest.approx(t.start + 0.35, abs=1e-3)]]
        assert t.words[0].start == pytest.approx(t.start)


def test_without_barge_ins_nothing_else_changes():
    """Impatient and dev are the same dialogue: up to the first barge-in, to the sample."""
    hasty, patient = drawn(1, Rhythm(barge_in=0.5)), drawn(1, Rhythm(barge_in=0.0))
    first = next(i for i, t in enumerate(hasty.user) if t.custom.get("barge_in"))
    assert first >= 1
    assert [t.start for t in hasty.user[:first]] == [t.start for t in patient.user[:first]]
    gaps = [(h.custom["gap"], p.custom["gap"]) for h, p in zip(hasty.user, patient.user) if not h.custom.get("barge_in")]
    assert gaps and all(h == p for h, p in gaps)


def test_impatient_halves_every_silence_and_keeps_the_rest():
    for seed in range(40):
        source = drawn(seed, Rhythm(barge_in=0.0))
        made = impatient(source, Rhythm())
        assert made.agent == ()
        assert made.user[0].start == source.user[0].start
        for i in range(1, 6):
            silence = made.user[i].start - made.user[i - 1].end
            source_silence = source.user[i].start - source.user[i - 1].end
            assert silence == pytest.approx(source_silence / 2)
            assert made.user[i].custom["silence"] == pytest.approx(silence, abs=1e-3)
            assert made.user[i].custom["source_silence"] == pytest.approx(source_silence, abs=1e-3)
        assert [t.text for t in made.user] == [t.text for t in source.user]
        assert [t.duration for t in made.user] == pytest.approx([t.duration for t in source.user])
        assert made.custom["references"] == [[t.text] for t in source.agent]
        assert made.custom["factor"] == 0.5 and made.custom["source"] == source.id
        assert made.duration >= made.user[-1].end + 6.0
        assert made.duration < source.duration or made.duration < made.user[-1].end + 7.0


def test_impatient_knows_which_turns_interrupt():
    """Answer of 4 s after a gap of 0.64 s, next turn 1 s later: halved, the turn starts 2.82 s after the question."""
    source = schedule(
        "c", iter([(turn("user", 1.0), turn("agent", 4.0)) for _ in range(3)]),
        Rhythm(barge_in=0.0, prompt=0.0, long_silence=0.0, gap=(1.0, 1.0)), np.random.default_rng(0),
    )  # fmt: skip
    assert impatient(source, Rhythm()).custom["interrupts"] == [False, True, True]
    assert impatient(source, Rhythm(impatient=1.0)).custom["interrupts"] == [False, False, False]
    assert impatient(source, Rhythm(impatient=0.1)).custom["interrupts"] == [False, False, False]  # before the agent starts


def test_impatient_refuses_a_conversation_that_was_cut():
    hasty = drawn(0, Rhythm(barge_in=1.0))
    with pytest.raises(ValueError, match="Conversation c0: Impatient needs one whole answer"):
        impatient(hasty, Rhythm())
    with pytest.raises(ValueError, match="c0"):
        impatient(replace(hasty, turns=hasty.user), Rhythm())


def test_an_agent_that_speaks_unasked_begins_on_a_frame_edge_and_the_user_does_not_interrupt_for_nothing():
    rng = np.random.default_rng(3)
    pairs = [(None, turn("agent", 1.03)), (turn("user", 1.0), turn("agent", 4.0)), (None, turn("agent", 2.0))]
    rhythm = Rhythm(barge_in=1.0, first_onset=(0.5, 0.5), gap=(0.3, 0.3), prompt=0.0, long_silence=0.0)
    conversation = schedule("c", iter(pairs), rhythm, rng)
    first, second, third = conversation.agent
    (user,) = conversation.user
    assert (first.start, first.custom["gap"], first.custom["exchange"]) == (pytest.approx(0.56), pytest.approx(0.56), 0)
    assert user.custom["barge_in"] and user.custom["exchange"] == second.custom["exchange"] == 1
    assert first.was_cut == (first.custom.get("cut") is not None)
    assert not second.was_cut, "Nobody speaks to interrupt it."
    assert third.start - second.end == pytest.approx(0.3, abs=FRAME) and third.start >= second.end + 0.3
    assert third.custom["gap"] == pytest.approx(third.start - second.end, abs=1e-4)
    for answer in conversation.agent:
        assert answer.start / FRAME == pytest.approx(round(answer.start / FRAME), abs=1e-6)


# --- gaps from a distribution --------------------------------------------------------------------------------------------

QUICK = GapDistribution(mean=-0.4, deviation=0.1, tail=0.1, low=-2.0, high=0.0)  # overlaps alone


def people(seed: int, rhythm: Rhythm, answer: float | None = None) -> Conversation:
    rng = np.random.default_rng(seed)
    content = exchanges(rng, 6) if answer is None else [(turn("user", 1.0), turn("agent", answer)) for _ in range(6)]
    return schedule(f"p{seed}", iter(content), rhythm, rng, gaps_rng=np.random.default_rng(seed + 1000))


def test_users_take_the_turn_as_people_do_and_an_overlap_is_no_barge_in():
    gaps = []
    for seed in range(150):
        conversation = people(seed, Rhythm(barge_in=0.0, long_silence=0.0, gaps=PEOPLE), answer=3.0)
        assert not any(t.was_cut or "cut" in t.custom for t in conversation.agent), "Its last words are said."
        assert not any("barge_in" in t.custom for t in conversation.user)
        for answer, following in zip(conversation.agent, conversation.user[1:]):
            gaps.append(following.start - answer.end)
            assert following.custom["gap"] == pytest.approx(gaps[-1], abs=1e-3)
    assert -0.64 <= min(gaps) < -0.5 and np.mean(np.array(gaps) < 0) == pytest.approx(0.36, abs=0.05)
    assert np.mean(gaps) == pytest.approx(0.31, abs=0.06)


def test_an_overlap_is_never_longer_than_half_of_the_answer_or_than_the_agent_takes_to_stop():
    for answer, stop_delay, longest in ((0.5, 0.64, 0.25), (3.0, 0.64, 0.64), (3.0, 0.24, 0.24)):
        rhythm = Rhythm(barge_in=0.0, long_silence=0.0, stop_delay=stop_delay, gaps=replace(QUICK, mean=-1.0))
        for seed in range(10):
            conversation = people(seed, rhythm, answer)
            gaps = [user.start - agent.end for agent, user in zip(conversation.agent, conversation.user[1:])]
            assert min(gaps) == pytest.approx(-longest, abs=1e-6) and max(gaps) < 0
            for turns in (conversation.user, conversation.agent):
                assert all(before.end <= after.start + 1e-6 for before, after in zip(turns, turns[1:]))


def test_barge_ins_and_long_silences_stay_with_gaps_of_people():
    some = [people(seed, Rhythm(barge_in=0.5, long_silence=0.2, gaps=PEOPLE)) for seed in range(40)]
    barged = sum(t.custom.get("barge_in", False) for c in some for t in c.user) / (40 * 5)
    assert barged == pytest.approx(0.5, abs=0.1)
    assert np.mean([t.custom["gap"] >= 2.0 for c in some for t in c.user[1:]]) == pytest.approx(0.1, abs=0.05)
    assert any(t.was_cut for c in some for t in c.agent)


def test_the_agent_answers_after_gaps_of_its_own_on_the_grid():
    gaps = []
    for seed in range(60):
        conversation = people(seed, Rhythm(barge_in=0.0, response_gaps=PEOPLE_AS_AGENT))
        for user, answer in zip(conversation.user, conversation.agent):
            gaps.append(answer.start - user.end)
            assert answer.start / FRAME == pytest.approx(round(answer.start / FRAME), abs=1e-6)
    assert min(gaps) >= 0.08 - FRAME / 2 - 1e-3 and max(gaps) > 1.0 and np.median(gaps) == pytest.approx(0.5, abs=0.1)


def test_an_agent_that_overlaps_the_user_leaves_turns_of_one_speaker_apart():
    rhythm = Rhythm(barge_in=0.0, gaps=QUICK, response_gaps=replace(QUICK, mean=-1.0))
    for seed in range(20):
        conversation = people(seed, rhythm)
        overlaps = sum(a.start < u.end for u, a in zip(conversation.user, conversation.agent))
        assert overlaps >= 3, "All but those that wait for an answer before."
        for turns in (conversation.user, conversation.agent):
            assert all(before.end <= after.start + 1e-6 for before, after in zip(turns, turns[1:]))


def test_gaps_of_people_change_nothing_else():
    plain, with_gaps = people(2, Rhythm(barge_in=1.0)), people(2, Rhythm(barge_in=1.0, gaps=PEOPLE))
    assert [(t.start, t.end, t.text) for t in plain.turns] == [(t.start, t.end, t.text) for t in with_gaps.turns]


def test_an_aside_delays_the_next_turn_and_the_end():
    asked = []

    def aside(number: int, end: float) -> float | None:
        asked.append((number, end))
        return end + 2.0 if number in (1, 5) else None

    def made(aside=None) -> Conversation:
        content = [(turn("user", 1.0), turn("agent", 3.0)) for _ in range(6)]
        rhythm = Rhythm(barge_in=0.0, prompt=0.0, long_silence=0.0, gap=(0.5, 0.5))
        return schedule("c", iter(content), rhythm, np.random.default_rng(0), aside=aside)

    plain, delayed = made(), made(aside)
    assert [number for number, _ in asked] == list(range(6)) and asked[1][1] == delayed.agent[1].end
    gaps = [u.start - a.end for a, u in zip(delayed.agent, delayed.user[1:])]
    assert gaps == pytest.approx([0.5, 2.5, 0.5, 0.5, 0.5])
    assert [t.start for t in delayed.user[:2]] == [t.start for t in plain.user[:2]]
    assert delayed.duration - delayed.agent[-1].end == pytest.approx(3.0, abs=FRAME)


def test_nobody_talks_to_others_after_an_answer_that_is_interrupted():
    asked = []
    content = iter([(turn("user", 1.0), turn("agent", 3.0)) for _ in range(3)])
    schedule("c", content, Rhythm(barge_in=1.0), np.random.default_rng(0), aside=lambda number, end: asked.append(number))
    assert asked == [2], "The last answer is never interrupted."


def test_a_pause_that_passes_the_end_is_there_up_to_the_end():
    spoken = turn("user", 3.0, [[0.2, 0.4], [1.0, 2.0], [2.3, 2.6]])
    conversation = schedule(
        "c", iter([(spoken, turn("agent", 1.0))]), Rhythm(first_onset=(1.0, 1.0)), np.random.default_rng(0), 2.4
    )
    (user,) = conversation.turns
    assert user.custom["unfinished"] and user.custom["pauses"] == [[1.2, 1.4], [2.0, 2.4]]
