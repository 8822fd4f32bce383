"""Many callers, one batch: each gets what it would get alone, whoever joins, leaves, or breaks."""

import gc
import random
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.engine import Slots
from tests.dummies import PERCEPTION, speech_like, tiny_model
from tests.streaming.calls import alone, assert_begins, expected

# ---------------------------------------------------------------------- one thing at a time


@pytest.mark.parametrize("context", [[70, 0], [70, 1], [70, 6], [70, 13]], ids=str)
def test_callers_of_every_length_end_with_all_their_frames(tmp_path, context):
    """Encoder chunks of 1, 2, 7, 14 frames, and tails of every length against them."""
    perception = PERCEPTION | {"encoder": PERCEPTION["encoder"] | {"att_context_size": context}}
    model = tiny_model(tmp_path, perception=perception)
    chunk = context[1] + 1
    lengths = [1280 * frames + beyond for frames in range(chunk + 3) for beyond in (1, 200, 1280)]
    calls = expected(model, [speech_like(n / 16000, seed) for seed, n in enumerate(lengths)])
    engine = model.open_engine(max_sessions=len(calls))
    sessions = [engine.open_session() for _ in calls]
    for session, call in zip(sessions, calls):
        session.push(call.signal)
        session.flush()
    answers = engine.run_until_idle()
    for session, call in zip(sessions, calls):
        assert_begins(answers[session], call)
    assert len({tuple(call.tokens[-3:]) for call in calls}) > 3, "A model that says one thing would prove nothing."


def test_one_frame_per_session_and_step_and_chunks_when_they_are_whole(model):
    engine = model.open_engine(max_sessions=2)
    session = engine.open_session()
    session.push(np.zeros(1479, np.float32))  # the first encoder chunk ends half a window into the second frame, at 1480
    assert engine.step() == {}
    session.push(np.zeros(1, np.float32))
    assert [f.index for f in engine.step()[session]] == [0]
    assert [f.index for f in engine.step()[session]] == [1]
    assert engine.step() == {}


def test_one_caller_ends_while_others_go_on(model, calls):
    engine = model.open_engine(max_sessions=4)
    short, long = calls[6], calls[11]
    a, b = engine.open_session(), engine.open_session()
    heard = {a: [], b: []}
    a.push(short.signal)
    a.flush()
    for start in range(0, len(long.signal), 700):
        b.push(long.signal[start : start + 700])
        for session, frames in engine.step().items():
            heard[session] += frames
    assert_begins(heard[a], short)
    assert a.over and not b.over and len(engine) == 1
    b.flush()
    assert_begins(heard[b] + engine.run_until_idle()[b], long)
    assert len(engine) == 0 and engine.step() == {}


def test_a_caller_that_breaks_ends_alone(model, calls):
    engine, call = model.open_engine(max_sessions=2), calls[10]
    broken, other = engine.open_session(), engine.open_session()
    for session in (broken, other):
        session.push(call.signal)
    broken._transcript = SimpleNamespace(add=lambda index, token: 1 / 0)
    other.flush()
    answers = engine.run_until_idle()
    assert answers[broken] == [] and isinstance(broken.error, ZeroDivisionError) and broken.over
    assert_begins(answers[other], call)
    with pytest.raises(InputError, match="ended by an error: division by zero"):
        broken.push(call.signal)


def test_moving_to_fewer_rows_changes_nothing(model, calls):
    """Those that stay sat in the last rows, and are moved down while they speak, once in the middle of an encoder chunk."""
    engine, rows = model.open_engine(max_sessions=8), []
    sessions = [engine.open_session() for _ in range(6)]
    heard = {session: [] for session in sessions}
    for frame in range(19):
        for session, call in zip(sessions, calls[-6:]):
            if not session.over:
                session.push(call.signal[frame * 1280 : frame * 1280 + 1280])
        for leaving in {4: sessions[:3], 7: sessions[3:5]}.get(frame, []):
            leaving.close()
        for session, frames in engine.step().items():
            heard[session] += frames
        rows.append(engine._slots.rows)
    sessions[5].flush()
    heard[sessions[5]] += engine.run_until_idle()[sessions[5]]
    assert sorted(set(rows)) == [1, 4, 8]
    for session, call in zip(sessions, calls[-6:]):
        assert_begins(heard[session], call, whole=session is sessions[5])


def test_a_command_reaches_its_own_session(model, calls):
    """Though the first row has nothing to say, and the others follow in the batch."""
    engine = model.open_engine(max_sessions=4)
    _, muted, other = sessions = [engine.open_session() for _ in range(3)]
    for session, call in zip(sessions[1:], (calls[8], calls[9])):
        session.push(call.signal)
    muted.mute(True)
    for session in (muted, other):
        session.flush()
    answers = engine.run_until_idle()
    assert [f.token for f in answers[muted]] == calls[8].tokens
    assert np.abs(calls[8].audio[1764:]).max() > 0.01 and not any(f.audio.any() for f in answers[muted][1:])
    assert_begins(answers[other], calls[9])


def test_no_slot_is_refused_and_freed_ones_are_taken_again(model):
    engine = model.open_engine(max_sessions=2)
    first, second = engine.open_session(), engine.open_session()
    with pytest.raises(InputError, match="all 2 sessions"):
        engine.open_session()
    first.close()
    assert len(engine) == 1
    engine.open_session()
    second.flush()  # it heard nothing, so no frame remains
    engine.open_session()
    with pytest.raises(InputError, match="max_sessions of 1 or more, got 0"):
        model.open_engine(max_sessions=0)


def test_nothing_of_a_former_caller_is_left(model, calls):
    """Bit for bit, even where the former one drove the numbers to infinity."""
    engine = model.open_engine(max_sessions=2)
    neighbour, loud = engine.open_session(), engine.open_session()
    with pytest.raises(InputError, match=r"in -1..1, got one of 3e\+38"):
        loud.push(np.full(1, 3e38, np.float32))
    loud._queue.push(np.full(16000, 3e38, np.float32) * np.sign(np.sin(np.arange(16000))).astype(np.float32))
    neighbour.push(calls[8].signal)
    neighbour.flush()
    frames = engine.run_until_idle()
    assert not torch.isfinite(engine._state.pending).all(), "The loud caller was not loud enough to prove anything."
    assert_begins(frames[neighbour], calls[8])
    loud.close()

    fresh = model.open_engine(max_sessions=2)
    later = []
    for other in (engine, fresh):
        session = other.open_session()
        session.push(calls[9].signal)
        session.flush()
        later.append(other.run_until_idle()[session])
    assert_begins(later[0], calls[9])
    assert all(np.array_equal(a.audio, b.audio) and a.token == b.token for a, b in zip(*later))


def test_push_from_other_threads(model, calls):
    engine = model.open_engine(max_sessions=4)

    def speak(session, call):
        for start in range(0, len(call.signal), 160):
            session.push(call.signal[start : start + 160])
        session.flush()

    chosen = calls[-4:]
    sessions = [engine.open_session() for _ in chosen]
    threads = [threading.Thread(target=speak, args=pair) for pair in zip(sessions, chosen)]
    heard = {session: [] for session in sessions}
    for thread in threads:
        thread.start()
    while any(not session.over for session in sessions):
        for session, frames in engine.step().items():
            heard[session] += frames
    for thread in threads:
        thread.join()
    for session, call in zip(sessions, chosen):
        assert_begins(heard[session], call)


def test_memory_is_constant(model):
    """100 frames (8 s) leave as many tensors and bytes behind as 30, of which the window is 16."""
    engine = model.open_engine(max_sessions=2)
    session, chunk = engine.open_session(), speech_like(0.08).numpy()
    gc.collect()
    gc.freeze()  # what is there already is not looked at again, which would take seconds

    def memory():
        gc.collect()
        found = [o for o in gc.get_objects() if type(o) is torch.Tensor]
        return len(found), sum(t.numel() * t.element_size() for t in found), len(session._queue._chunks)

    sizes = []
    for frame in range(101):
        session.push(chunk)
        engine.step()
        if frame in (30, 100):
            sizes.append(memory())
    gc.unfreeze()
    assert len(set(sizes)) == 1, sizes


# ---------------------------------------------------------------------- chance

HOT = {"text": {"temperature": 1.0, "top_k": 20, "repetition_penalty": 1.2}, "speech": {"temperature": 0.9, "top_p": 0.95}}


@pytest.mark.parametrize("place", range(7))
def test_a_seed_says_the_same_in_any_company(model, calls, place):
    """Alone, and as one of 1 to 7 callers: in another row and bucket, in other chunks, joining later than the others did."""
    call, rng = calls[10], random.Random(place)
    expected = alone(model, call.signal, {}, sampling=HOT, seed=5)
    engine = model.open_engine(max_sessions=7)
    others = [engine.open_session(sampling=rng.choice([None, HOT]), seed=i) for i in range(place)]
    for other in others:
        other.push(calls[11].signal)
    for _ in range(place):
        engine.step()
    session, frames = engine.open_session(sampling=HOT, seed=5), []
    for start in range(0, len(call.signal), size := rng.choice([160, 1280, 3333])):
        session.push(call.signal[start : start + size])
        frames += engine.step().get(session, [])
    session.flush()
    assert_begins(frames + engine.run_until_idle()[session], expected)


def test_another_seed_is_another_session_and_none_is_a_new_one(model, calls):
    said = [alone(model, calls[9].signal, {}, sampling=HOT, seed=seed).tokens for seed in (1, 2, 1 << 62, None, None)]
    assert len(set(map(tuple, said))) == 5 and calls[9].tokens not in said


def test_a_repetition_penalty_remembers_what_the_session_wrote(model, calls):
    """A greedy agent repeats itself; with the largest penalty no word comes twice, beside a caller who writes the same ones."""
    layout, said = model.layout, []
    for penalty in (1.0, 100.0):
        engine = model.open_engine(max_sessions=2)
        sessions = [engine.open_session(sampling={"text": {"repetition_penalty": penalty}}) for _ in range(2)]
        for session in sessions:
            session.push(calls[11].signal)
        frames = engine.run_until_idle()
        words = [[f.token for f in frames[session]] for session in sessions]
        assert words[0] == words[1]
        said.append([token for token in words[0] if token not in (layout.text_pad, layout.text_bos, layout.text_eos)])
    assert len(set(said[0])) < len(said[0]) and len(set(said[1])) == len(said[1]) > 5


def test_each_channel_has_chance_of_its_own(model, calls):
    """Only what is drawn first differs: hot speech leaves the first frame's text what it is, and the other way round."""
    (free,) = expected(model, [torch.from_numpy(calls[8].signal)])
    speech = [alone(model, calls[8].signal, {}, sampling={"speech": {"temperature": 3.0}}, seed=s) for s in range(4)]
    text = [alone(model, calls[8].signal, {}, sampling={"text": {"temperature": 3.0}}, seed=s) for s in range(4)]
    assert {call.tokens[0] for call in speech} == {free.tokens[0]} and len({call.tokens[0] for call in text}) > 1
    assert all(np.array_equal(call.codes[0], free.codes[0]) for call in text)
    assert len({tuple(call.codes[0]) for call in speech}) > 1


def test_greedy_callers_do_not_notice_those_who_draw(model, calls):
    """Bit for bit: beside a caller who draws, another operation chooses for everybody."""
    heard = []
    for sampling in (None, HOT):
        engine = model.open_engine(max_sessions=2)
        neighbour, greedy = engine.open_session(sampling=sampling, seed=1), engine.open_session()
        for session in (neighbour, greedy):
            session.push(calls[10].signal)
        heard.append(engine.run_until_idle())
        neighbour, greedy = (heard[-1][session] for session in (neighbour, greedy))
        heard[-1] = greedy
    assert_begins(heard[1], calls[10], whole=False)
    assert [f.token for f in neighbour] != [f.token for f in greedy]
    for a, b in zip(*heard, strict=True):
        assert a.token == b.token and np.array_equal(a.codes, b.codes) and np.array_equal(a.audio, b.audio)


# ---------------------------------------------------------------------- slots


def test_few_counts_are_ever_computed():
    assert Slots(1).buckets == (1,)
    assert Slots(2).buckets == (1, 2)
    assert Slots(8).buckets == (1, 2, 4, 8)
    assert Slots(6).buckets == (1, 2, 4, 6)
    assert [Slots(8).bucket(n) for n in (1, 2, 3, 5, 8)] == [1, 2, 4, 8, 8]


def test_no_slot_is_one_line():
    slots = Slots(2)
    slots.join("a"), slots.join("b")
    with pytest.raises(InputError, match="all 2 sessions of this engine are open"):
        slots.join("c")
    slots.leave(0)
    assert slots.join("c") == 0


def test_callers_move_down_only_when_that_saves_rows():
    slots = Slots(8)
    for name in "abcde":
        slots.join(name)
    assert slots.rows == 8 and slots.gather() == []
    slots.leave(1)  # four are left, one of them in row 4
    assert slots.gather() == [(4, 1)] and slots.rows == 4
    slots.leave(0)  # three still need four rows
    assert slots.gather() == [] and list(slots) == [(1, "e"), (2, "c"), (3, "d")]


def test_nobody_is_lost_or_doubled():
    rng = random.Random(0)
    slots, inside, rows = Slots(6), set(), {}
    for i in range(500):
        if rng.random() < 0.5 and len(inside) < 6:
            rows[i] = slots.join(i)
            inside.add(i)
        elif inside:
            leaving = rng.choice(sorted(inside))
            slots.leave(rows.pop(leaving))
            inside.remove(leaving)
        for source, target in slots.gather():
            (moved,) = [caller for caller, row in rows.items() if row == source]
            rows[moved] = target
        assert dict(slots) == {row: caller for caller, row in rows.items()} and len(slots) == len(inside)
        assert slots.rows == (slots.bucket(len(inside)) if inside else 0)
