"""The ways to run a step all say the same; where one cannot be used, one line says so.

A `Tape` stands in for a GPU's CUDA graphs: it notes each operation with the tensors that it takes and gives, and
repeats them without any Python of ours. What Python looked at, or a tensor that does not stay where it is, would show in the
tokens.
"""

import contextlib

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from nemo_duplex.inputs import InputError
from nemo_duplex.kernels.convolution import has_fast_bfloat16
from nemo_duplex.kernels.linear import Bfloat16Linear, Int8Linear
from nemo_duplex.streaming.commands import RowCommands
from nemo_duplex.streaming.rows import AgentRows, ChunkBatch
from nemo_duplex.streaming.stage_runner import GraphedStage, StageRunner, tensors
from tests.codec.codecs import nanocodec_config
from tests.dummies import LLM, PERCEPTION, speech_like, talkative, tiny_model
from tests.streaming.calls import assert_begins, expected

BUILDS = {
    "window": {},
    "sinks, conformer adapter": {"attention_window": None, "perception": PERCEPTION | {"adapter": {"kind": "conformer"}}},
    "nanocodec, left context alone": {
        "codec": nanocodec_config(),
        "perception": PERCEPTION | {"encoder": PERCEPTION["encoder"] | {"att_context_size": [70, 0]}},
    },
}


class Tape(TorchDispatchMode):
    """Each operation that was done, to be done again. Of its results, later operations take the new ones."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        return result

    def play(self):
        new = {}
        for function, args, kwargs, result in self.operations:
            args, kwargs = tree_map_only(torch.Tensor, lambda t: new.get(id(t), t), (args, kwargs))
            for before, now in zip(tree_leaves(result), tree_leaves(function(*args, **kwargs))):
                new[id(before)] = now
        return new


def taped(run):
    """A `Capture` of the CPU: as a GPU's, it runs a few times in earnest, and what is replayed lies where it lay."""
    run()
    with Tape() as tape:
        outputs = run()

    def replay():
        new = tape.play()
        for output in tensors(outputs):
            output.copy_(new.get(id(output), output))

    taped.count += 1
    return replay, outputs


def engine_of_tapes(model, **options):
    """An engine whose stages are captured on tapes, as they would be in graphs on a GPU."""
    engine, runner = model.open_engine(**options), StageRunner(torch.device("cpu"))
    runner._capture, runner.needs_warm_up = taped, True
    taped.count, engine._rows._run = 0, runner
    with torch.inference_mode():
        engine._rows.warm_up(engine._state, engine._views.values())
    return engine


# ---------------------------------------------------------------------- one stage


def test_inputs_are_copied_in_and_outputs_lie_where_they_lay():
    def stage(state, x, y):
        state.add_(x)
        return state * 2, y + 1

    taped.count = 0
    graphed, state = GraphedStage(stage, taped), torch.zeros(2)
    first, _ = graphed(state, torch.tensor([1.0, 2.0]), torch.ones(3))
    assert first.tolist() == [2, 4], "The capture had zeros."
    again, other = graphed(state, torch.tensor([1.0, 0.0]), torch.ones(3))
    assert again is first and first.tolist() == [4, 4] and other.tolist() == [2, 2, 2]
    assert taped.count == 1


def test_each_state_shape_and_choice_is_captured_once():
    taped.count = 0
    graphed = GraphedStage(lambda state, x, choice: x + (1 if choice else 2), taped)
    states, shapes = (torch.zeros(1), torch.zeros(1)), (2, 3)
    for _ in range(3):
        for state in states:
            for shape in shapes:
                for choice in (True, False, None):
                    assert graphed(state, torch.zeros(shape), choice).tolist() == [1 if choice else 2] * shape
    assert taped.count == 2 * 2 * 3


# ---------------------------------------------------------------------- the engine


@pytest.mark.parametrize("build", BUILDS)
def test_captured_stages_carry_whole_conversations(tmp_path, build):
    """Callers who join and leave, in buckets of 1, 2 and 4, past the window: no Python of the stages is run any more."""
    model = talkative(tiny_model(tmp_path, **BUILDS[build]))
    longest = 7.5 if build == "window" else 1.9
    calls = expected(model, [speech_like(seconds, seed) for seed, seconds in enumerate((1.2, longest, 0.5, 0.71))])
    engine = engine_of_tapes(model, max_sessions=4)
    captured, heard, sessions = taped.count, {}, {}
    assert captured == 3 * 5, "Of each bucket: mel, encoder, llm, sampled llm, codec."
    for start, call in zip((0, 2, 4, 6), calls):
        for _ in range(start):
            for session, frames in engine.step().items():
                heard[session] += frames
        session = engine.open_session()
        sessions[session], heard[session] = call, []
        session.push(call.signal)
        session.flush()
    for session, frames in engine.run_until_idle().items():
        heard[session] += frames
    for session, call in sessions.items():
        assert_begins(heard[session], call)
    assert taped.count == captured


def test_sampling_and_commands_are_the_same_from_a_capture(model):
    hot = {"text": {"temperature": 1.0, "repetition_penalty": 1.2}, "speech": {"temperature": 0.9, "top_p": 0.95}}
    said = []
    for engine in (model.open_engine(max_sessions=2), engine_of_tapes(model, max_sessions=2)):
        sessions = [engine.open_session(sampling=hot, seed=5), engine.open_session()]
        frames = {session: [] for session in sessions}
        for step in range(30):
            for session in sessions:
                session.push(speech_like(0.08, seed=step).numpy())
            if step == 12:
                sessions[0].say("It is red.")
            {5: sessions[1].start, 9: sessions[1].stop}.get(step, list)()
            for session, new in engine.step().items():
                frames[session] += new
        said.append([(f.token, *f.codes.tolist(), f.audio.tobytes()) for session in sessions for f in frames[session]])
    assert said[0] == said[1] and len(said[0]) == 58


def test_a_warm_up_changes_nothing(model):
    engine = model.open_engine(max_sessions=3)
    session = engine.open_session()
    session.push(speech_like(1.0).numpy())
    engine.step()
    before = [tensor.clone() for tensor in tensors(engine._state)]
    with torch.inference_mode():
        engine._rows.warm_up(engine._state, engine._views.values())
    changed = [a.shape for a, b in zip(tensors(engine._state), before) if not torch.equal(a, b)]
    # What idle rows may write to: the encoder's slots of the next encoder chunk, and the language model's scratch.
    rings = engine._state.perception.encoder, engine._state.lm.cache
    allowed = {t.shape for ring in rings for t in tensors(ring) if t.dim() > 2}
    assert set(changed) <= allowed


def test_graphs_are_refused_on_a_cpu(model):
    with pytest.raises(InputError, match="cuda_graphs=True needs a model on a CUDA device, this one is on cpu"):
        model.open_engine(cuda_graphs=True)


# ---------------------------------------------------------------------- as it would be on a GPU


class NothingOfTheCPU(TorchDispatchMode):
    """Refuses tensors of the CPU: in a graph they would be frozen at what they were, or could not be recorded."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, result)):
            if isinstance(tensor, torch.Tensor):
                assert tensor.device.type == "meta", f"{function} has a tensor of the CPU, {tuple(tensor.shape)}."
        return result


@pytest.fixture
def pretended_gpu(monkeypatch):
    """torch's device without numbers stands for a GPU: whoever looks at a number there, or has the CPU join in, fails."""
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: contextlib.nullcontext())  # knows real devices only
    return torch.device("meta")


@pytest.mark.parametrize("build", BUILDS)
def test_stages_look_at_no_number_and_take_nothing_from_the_cpu(tmp_path, pretended_gpu, build):
    model = tiny_model(tmp_path, **BUILDS[build])
    model.lm.init_state(1)  # looks at numbers, once in the life of a model
    model.to(pretended_gpu)
    with torch.inference_mode():
        rows = AgentRows(model)
        state = rows.init_state(4)
        commands = RowCommands.of([None] * 4, model.audio_codec.silence_codes)
        audio = torch.empty(4, rows.chunk_samples, device=pretended_gpu)
        row = torch.arange(4, device=pretended_gpu)
        where = [id(tensor) for tensor in tensors(state)]
        with NothingOfTheCPU():
            for sampled in (False, True):
                rows.hear(state, ChunkBatch(audio, row, row > 1))
                output = rows.think(state, row > 1, commands, sampled)
                rows.speak(state, output.codes, row > 1, commands)
        assert [id(tensor) for tensor in tensors(state)] == where, "All that is remembered stays where it is."


@pytest.mark.parametrize(
    "fault",
    [
        lambda x: int(x[0]),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: x + torch.tensor([1.0, 2.0]),
        lambda x: x + torch.tensor(1.0),
        lambda x: x.to("cpu"),
        lambda x: torch.full_like(x, 1.0, device="cpu"),
        lambda x: x.tolist(),
    ],
    ids=["number", "mask", "nonzero", "cpu", "cpu scalar", "to cpu", "made on cpu", "list"],
)
def test_what_no_graph_can_capture_is_found(pretended_gpu, fault):
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), NothingOfTheCPU():
        fault(torch.empty(2, device=pretended_gpu))


# ---------------------------------------------------------------------- on a GPU


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("build", BUILDS)
def test_on_a_gpu_graphs_say_what_the_stages_say(tmp_path, build):
    model = tiny_model(tmp_path, **BUILDS[build]).to("cuda")
    signals = [speech_like(seconds, seed) for seed, seconds in enumerate((2.4, 7.5, 0.9, 1.31))]
    said = []
    for graphs in (False, None):
        engine = model.open_engine(max_sessions=4, cuda_graphs=graphs)
        sessions = [engine.open_session(seed=1) for _ in signals]
        for session, signal in zip(sessions, signals):
            session.push(signal.numpy())
            session.flush()
        answers = engine.run_until_idle()
        said.append([[(f.token, *f.codes.tolist()) for f in answers[session]] for session in sessions])
    assert said[0] == said[1] and len(said[0][1]) == 94


# ---------------------------------------------------------------------- as they are, in 8 and 16 bits, compiled


def test_a_stage_is_run_as_it_is_and_prepared_once():
    seen = []
    run = StageRunner(torch.device("cpu"))
    for x in (1, 2):
        assert run("mel", lambda state, x: seen.append((state, x)) or x, "state", x) == x
    assert seen == [("state", 1), ("state", 2)] and not run.needs_warm_up


def test_without_a_compiler_compile_is_refused_in_one_line(model, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: _raise(RuntimeError("No working C++ compiler found\nmore")))
    with pytest.raises(
        InputError, match=r"compile=True needs a C\+\+ compiler such as g\+\+ \(No working .* found\). Install it"
    ):
        model.open_engine(max_sessions=1, compile=True)


def test_eight_bits_are_not_compiled(model, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda stage, dynamic: stage)
    with pytest.raises(InputError, match="compile=True and int8=True were given, expected one of them.*Leave compile out"):
        model.open_engine(max_sessions=1, compile=True, int8=True)


def _raise(error):
    raise error


def test_an_engine_in_8_bits_leaves_the_model_as_it_is_and_callers_do_not_notice_each_other(tmp_path):
    """Layers large enough to be worth it: the encoder's, and the language model's."""
    wide = {"encoder": PERCEPTION["encoder"] | {"d_model": 384}, "output_dim": 512}
    llm = LLM | {"hidden_size": 512, "intermediate_size": 1024}
    model = tiny_model(tmp_path, perception=PERCEPTION | wide, llm=llm)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    caller, *others = [speech_like(2.0, seed).numpy() for seed in range(5)]
    said = []
    for company in (others[:2], others[2:]):  # of as many rows
        engine = model.open_engine(max_sessions=3, int8=True)
        sessions = [engine.open_session() for _ in range(3)]
        for session, signal in zip(sessions, (caller, *company)):
            session.push(signal)
            session.flush()
        said.append(engine.run_until_idle()[sessions[0]])
    assert any(isinstance(m, Int8Linear) for m in engine._rows._lm.modules())
    assert any(isinstance(m, Int8Linear) for m in engine._rows._perception._perception.modules())
    assert [f.token for f in said[0]] == [f.token for f in said[1]] and len(said[0]) == 25
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


@pytest.mark.skipif(not has_fast_bfloat16(), reason="this CPU does not multiply bfloat16")
@pytest.mark.parametrize(("sessions", "kind"), [(15, Int8Linear), (16, Bfloat16Linear)])
def test_eight_bits_are_bfloat16_for_many_sessions(model, monkeypatch, sessions, kind):
    monkeypatch.setattr("nemo_duplex.kernels.linear._SMALLEST", 1)
    monkeypatch.setattr("nemo_duplex.kernels.linear._SMALLEST_OF_MANY", 1)
    monkeypatch.setattr("nemo_duplex.streaming.rows._SMALLEST_OF_EAR", 1)
    asked = []
    real = model.audio_codec.streaming_decoder
    monkeypatch.setattr(model.audio_codec, "streaming_decoder", lambda **given: asked.append(given) or real(**given))
    rows = model.open_engine(max_sessions=sessions, int8=True)._rows
    for part in (rows._lm, rows._perception._perception):
        assert {type(m) for m in part.modules()} & {Int8Linear, Bfloat16Linear} == {kind}
    model.open_engine(max_sessions=sessions)
    assert [given["bfloat16"] for given in asked] == [True, False]


def test_an_engine_in_bfloat16(tmp_path):
    """Every frame is there and sounds; in 16 bits, other frames may be chosen than in 32."""
    model = tiny_model(tmp_path).bfloat16()
    session = model.open_session()
    frames = session.push(speech_like(1.0).numpy()) + session.flush()
    assert len(frames) == 13 and all(np.isfinite(frame.audio).all() for frame in frames)
    assert np.abs(frames[5].audio).max() > 0


@pytest.mark.slow
def test_compiled_stages_say_what_the_model_says(tmp_path, monkeypatch):
    """Traced and made functional as for Inductor, which turns the graphs into C++; that takes a minute, and is torch's own."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda stage, dynamic: compiled(stage, dynamic=dynamic, backend="aot_eager"))
    one_layer = PERCEPTION | {"encoder": PERCEPTION["encoder"] | {"n_layers": 1}}
    model = tiny_model(tmp_path, perception=one_layer, llm=LLM | {"num_hidden_layers": 1})
    (call,) = expected(model, [speech_like(2.0)])
    engine = model.open_engine(max_sessions=1, compile=True)
    session = engine.open_session()
    session.push(call.signal)
    session.flush()
    assert_begins(engine.run_until_idle()[session], call)
