"""A recorded session is computed again to the bit, alone, however busy its engine was; what differs is found."""

import inspect
import random

import numpy as np
import pytest
import torch

from nemo_duplex.frames import FrameRate
from nemo_duplex.inputs import InputError
from nemo_duplex.kernels import linear
from nemo_duplex.kernels.convolution import has_fast_bfloat16
from nemo_duplex.streaming.engine import DuplexEngine
from nemo_duplex.streaming.recording import replay as module
from nemo_duplex.streaming.recording.reader import SessionRecording
from nemo_duplex.streaming.recording.replay import AROUND, replay
from nemo_duplex.streaming.rows import AgentRows, ChunkBatch
from tests.dummies import LLM, PERCEPTION, speech_like, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"), **WIDE)


# Wide enough for a BLAS to take another kernel for another number of rows, so that bits do depend on the batch.
WIDE = {
    "llm": LLM | {"hidden_size": 192, "intermediate_size": 320, "num_attention_heads": 4, "num_key_value_heads": 4},
    "perception": PERCEPTION | {"output_dim": 192},
}


@pytest.fixture(scope="module")
def talk(model, tmp_path_factory):
    """A recording of three seconds, in an engine of its own."""
    folder = tmp_path_factory.mktemp("talk") / "talk"
    session = model.open_session(record=folder)
    session.push(speech_like(3.0).numpy())
    session.flush()
    session.close()
    return folder


@pytest.fixture
def changed(model):
    """Adds to a weight, for the time of a test."""
    undo = []

    def change(weight, by):
        undo.append((weight, weight.detach().clone()))
        with torch.no_grad():
            weight += by

    yield change
    with torch.no_grad():
        for weight, before in undo:
            weight.copy_(before)


def party(model, folder, seed):
    """Eight sessions of all kinds that join, leave, command and fall silent at random; returns the recorded ones."""
    rng = random.Random(seed)
    engine = model.open_engine(max_sessions=8, prompt_tokens=4)
    options = [
        {},
        {"sample_rate": 48000},
        {"sampling": {"text": {"temperature": 0.9, "repetition_penalty": 1.2}, "speech": {"temperature": 1.0, "top_k": 9}}},
        {"system_prompt": "six"},
        {"sample_rate": 8000, "sampling": {"text": {"temperature": 0.5}}, "system_prompt": "red"},
    ]
    sessions, recorded, moved = [], [], 0
    for step in range(60):
        while len(engine) < 8 and rng.random() < (0.8 if step < 20 else 0.1):
            number = len(sessions)
            chosen = options[number % len(options)]
            session = engine.open_session(record=folder / str(number), seed=number, **chosen)
            sessions.append(session)
            recorded.append(folder / str(number))
        for number, session in enumerate(sessions):
            if session._ended or rng.random() < 0.2:
                continue
            session.push(
                0.5 * speech_like(rng.choice([0.02, 0.08, 0.1, 0.3]), number * 100 + step, session.sample_rate).numpy()
            )
            command = rng.random()
            if command < 0.03:
                session.stop()
            elif command < 0.06:
                session.say("six one")
            elif command < 0.09:
                session.start()
            elif command < 0.12:
                session.mute(rng.random() < 0.5)
            elif command < 0.15:
                session.close()
            elif command < 0.18:
                session.flush()
        if step in (25, 45):  # those who sit in the last rows are moved
            for _, session in list(engine._slots)[:-2]:
                session.close()
        before = {id(session): row for row, session in engine._slots}
        engine.step()
        moved += sum(before.get(id(session), row) != row for row, session in engine._slots)
    for session in sessions:
        session.close()
        assert session.recorder.wait(30)
    assert moved > 0, "Nobody was moved."
    return [path for path in recorded if path.is_dir()]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_eight_sessions_of_a_busy_engine_are_replayed_alone(model, tmp_path, seed):
    folders = party(model, tmp_path, seed)
    seats = set()
    for folder in folders:
        result = replay(folder, model)
        assert result.identical, f"{folder.name}: {result.first}, {result.distance}"
        assert result.frames == len(result.recording) > 0
        assert result.environment == [] and result.around == [] and result.frame is None
        seats |= {tuple(seat) for seat in result.recording.steps[["row", "rows", "entry", "entries"]].tolist()}
    assert len(folders) > 8 and len(seats) > 20
    assert any(len(set(SessionRecording.read(f).steps["rows"].tolist())) > 2 for f in folders)


def test_another_place_may_give_other_bits_so_it_matters(model, tmp_path):
    """Why rows and entries are written down: with one row instead of eight, sums are added in another order."""
    engine = model.open_engine(max_sessions=8)
    sessions = [engine.open_session(record=tmp_path / str(i)) for i in range(8)]
    for i, session in enumerate(sessions):
        session.push(speech_like(1.0, i).numpy())
        session.flush()
    engine.run_until_idle()
    distances = []
    for i in (0, 5, 7):
        assert sessions[i].recorder.wait(30)
        steps = np.load(tmp_path / str(i) / "agent_steps.npy", mmap_mode="r+")
        places = set(steps[["row", "rows", "entry", "entries"]].tolist())
        assert places == {(i, 8, i, 8)}
        assert replay(tmp_path / str(i), model).identical
        steps["row"], steps["rows"], steps["entry"], steps["entries"] = 0, 1, 0, 1
        steps.flush()
        distances.append(replay(tmp_path / str(i), model).distance)
    assert max(distances) < 1e-4
    if max(distances) == 0:
        pytest.skip("This machine's BLAS adds in the same order for any number of rows.")


def test_what_sits_in_the_other_rows_does_not_matter(model, tmp_path, monkeypatch):
    engine = model.open_engine(max_sessions=4)
    sessions = [engine.open_session(record=tmp_path / str(i)) for i in range(3)]
    for i, session in enumerate(sessions):
        session.push(speech_like(1.5, i).numpy())
        session.flush()
    engine.run_until_idle()
    assert sessions[2].recorder.wait(30)

    init_state = AgentRows.init_state

    def noisy(self, num_rows, *args):
        """Other rows have heard and said something, as those of other sessions have."""
        state = init_state(self, num_rows, *args)
        if num_rows > 1:
            audio = np.random.default_rng(0).normal(size=(num_rows, self.chunk_samples)).astype(np.float32)
            others = torch.arange(num_rows) > 0
            self.hear(state, ChunkBatch.of(audio, {row: row for row in range(1, num_rows)}, num_rows, torch.device("cpu")))
            tokens, codes = self.think(state, others, None, False)
            self.speak(state, codes, others, None)
        return state

    monkeypatch.setattr(AgentRows, "init_state", noisy)
    for i in range(3):
        assert replay(tmp_path / str(i), model).identical


@pytest.mark.parametrize("context", [[70, 0], [70, 13]], ids=str)
def test_encoder_chunks_of_any_length(tmp_path, context):
    model = tiny_model(tmp_path, perception=PERCEPTION | {"encoder": PERCEPTION["encoder"] | {"att_context_size": context}})
    for name, seconds, flushed in (("whole", 2.31, True), ("hung up", 3.0, False)):
        session = model.open_session(record=tmp_path / name)
        session.push(speech_like(seconds).numpy())
        if flushed:
            session.flush()
        session.close()
        result = replay(tmp_path / name, model)
        assert result.identical and result.frames == (29 if flushed else {0: 38, 13: 28}[context[1]])


def test_a_session_that_outlives_the_positions_of_a_model_without_a_window(tmp_path):
    model = tiny_model(tmp_path, attention_window=None, llm=LLM | {"max_position_embeddings": 32})
    engine = model.open_engine(max_sessions=4)
    sessions = [engine.open_session(record=tmp_path / str(i)) for i in range(3)]
    for i, session in enumerate(sessions):
        session.push(speech_like(6.0 - i, i).numpy())
        session.flush()
    engine.run_until_idle()
    for i, session in enumerate(sessions):
        assert session.recorder.wait(30)
        result = replay(tmp_path / str(i), model)
        assert result.identical and result.frames == round((6 - i) * 12.5 + 0.4)


def test_the_first_frame_that_differs(model, talk, changed):
    recording = SessionRecording.read(talk)
    heads = recording.codes[:, 0].tolist()
    code = min((c for c in set(heads) if c < model.layout.codebook_size and 14 < heads.index(c) < 20), key=heads.index)
    changed(model.lm.speech_embedding.table.weight[code], 3.0)  # what follows the first use of this code is different
    result = replay(recording, model)
    assert not result.identical and result.frame > heads.index(code)
    differing = [pair.recorded.index for pair in result.around if pair.differing]
    assert differing[0] == result.frame == min(result.first.values())
    assert [pair.recorded.index for pair in result.around] == list(
        range(result.frame - AROUND, min(result.frame + AROUND + 1, len(recording)))
    )
    assert result.frames == len(recording), "It goes on, to say what else differs."
    assert result.distance >= max(pair.distance for pair in result.around) > 0
    (said,) = result.environment
    assert said.startswith("model hash ") and "recorded: " in said


def test_sound_alone_is_looked_at_last(model, talk, changed):
    """Rounding moves the sound of the first frame; what is wanted is where the agent chooses something else."""
    decoder = [p for p in model.audio_codec.model.audio_decoder.parameters()]
    changed(decoder[-1], 1e-4)
    result = replay(talk, model)
    assert result.first == {"audio": 0} and result.frame == 0 and 0 < result.distance < 1e-2
    assert len(result.around) == AROUND + 1
    changed(model.lm.backbone.lm_head.weight[model.layout.text_pad], 0.05)
    changed(model.lm.backbone.lm_head.weight[5], 2.0)
    result = replay(talk, model)
    assert result.first["audio"] == 0 < result.frame == result.first["token"]
    around = range(max(0, result.frame - AROUND), min(result.frame + AROUND + 1, result.frames))
    assert [pair.recorded.index for pair in result.around] == list(around) != list(range(AROUND + 1))


def test_a_replay_that_ends_before_its_recording_is_not_identical(model, tmp_path):
    session = model.open_session(record=tmp_path / "talk")
    assert len(session.push(speech_like(1.0).numpy()[: 10 * 1280 + 100])) == 10 and len(session.flush()) == 1
    session.close()
    recording = SessionRecording.read(tmp_path / "talk")
    recording.session["wishes"].clear()  # the user's audio is not ended, so its last frame is not made
    result = replay(recording, model)
    assert not result.identical and result.frames == 11 and result.frame == 10
    assert result.first == {"end": 10} and result.around[-1].replayed is None


def test_threads_are_those_of_the_recording(model, tmp_path, monkeypatch):
    torch.set_num_threads(2)
    session = model.open_session(record=tmp_path / "talk")
    session.push(speech_like(0.3).numpy())
    session.close()
    torch.set_num_threads(1)
    threads, pairs = set(), module._pairs

    def watched(*arguments):
        for pair in pairs(*arguments):
            threads.add(torch.get_num_threads())
            yield pair

    monkeypatch.setattr(module, "_pairs", watched)
    result = replay(tmp_path / "talk", model)
    assert result.environment == [] and result.identical
    assert threads == {2} and torch.get_num_threads() == 1


def test_threads_are_set_back_after_an_error(model, talk, monkeypatch):
    recording = SessionRecording.read(talk)
    recording.session["machine"]["threads"] = 2

    def broken(*arguments):
        raise ZeroDivisionError

    monkeypatch.setattr(AgentRows, "think", broken)
    with pytest.raises(ZeroDivisionError):
        replay(recording, model)
    assert torch.get_num_threads() == 1


def test_another_environment_are_named_and_do_not_stop_it(model, talk, monkeypatch):
    monkeypatch.setattr(
        module, "current_environment", lambda model: {"model": {"dtype": "bfloat16"}, "version": {"torch": "9.9"}}
    )
    result = replay(talk, model)
    assert result.identical
    assert result.environment == [
        "model dtype bfloat16 (recorded: float32)",
        f"version torch 9.9 (recorded: {torch.__version__})",
    ]


def test_a_model_of_other_channels_is_refused(model, talk, monkeypatch):
    monkeypatch.setattr(model.perception, "frame_rate", FrameRate(25))
    with pytest.raises(InputError, match="2 codebooks at 22050 Hz, 12.5 frames a second, and this model has"):
        replay(talk, model)


def test_an_engine_in_8_bits_is_opened_as_one(model, tmp_path, monkeypatch):
    monkeypatch.setattr(linear, "_SMALLEST", 1)
    engine = model.open_engine(max_sessions=3, int8=True)
    sessions = [engine.open_session(record=tmp_path / str(i)) for i in range(3)]
    for i, session in enumerate(sessions):
        session.push(speech_like(4.0, i).numpy())
        session.flush()
    engine.run_until_idle()
    assert sessions[1].recorder.wait(30)
    assert replay(tmp_path / "1", model).identical
    recording = SessionRecording.read(tmp_path / "1")
    recording.session["engine"]["int8"] = False
    assert not replay(recording, model).identical


@pytest.mark.skipif(not has_fast_bfloat16(), reason="this CPU does not multiply bfloat16")
def test_an_engine_for_many_is_opened_as_one(model, tmp_path, monkeypatch):
    """It computes in bfloat16 where one for few computes in 8 bits, also if a single caller came."""
    for smallest in ("_SMALLEST", "_SMALLEST_OF_MANY"):
        monkeypatch.setattr(linear, smallest, 1)
    engine = model.open_engine(max_sessions=16, int8=True)
    session = engine.open_session(record=tmp_path / "one")
    session.push(speech_like(4.0, 1).numpy())
    session.flush()
    engine.run_until_idle()
    assert session.recorder.wait(30)
    recording = SessionRecording.read(tmp_path / "one")
    assert recording.session["engine"]["max_sessions"] == 16 and replay(recording, model).identical
    recording.session["engine"]["max_sessions"] = 15
    assert not replay(recording, model).identical


def test_an_engine_with_an_unknown_option_is_refused(model, talk):
    recording = SessionRecording.read(talk)
    recording.session["engine"]["turbo"] = True
    with pytest.raises(InputError, match="turbo"):
        replay(recording, model)


def test_every_option_of_an_engine_is_recorded_or_has_no_say(model):
    """Whoever gives the engine another option decides whether a replay needs it."""
    options = set(inspect.signature(DuplexEngine).parameters) - {"model", "timer", "cuda_graphs"}
    assert options == model.open_engine(max_sessions=1).options.keys() == module._OPTIONS
