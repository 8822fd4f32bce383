"""The ways to run a step: all say the same, and where one is not to be had, one line says so."""

import numpy as np
import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.llm.int8_linear import Int8Linear
from nemo_duplex.streaming.stage_runner import StageRunner
from tests.dummies import LLM, PERCEPTION, speech_like, tiny_model
from tests.streaming.calls import assert_begins, expected


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


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


def test_an_engine_in_bfloat16(tmp_path):
    """Every frame is there and sounds; in 16 bits, other frames may be chosen than in 32."""
    model = tiny_model(tmp_path).bfloat16()
    session = model.open_session()
    frames = session.push(speech_like(1.0).numpy()) + session.flush()
    assert len(frames) == 13 and all(np.isfinite(frame.audio).all() for frame in frames)
    assert np.abs(frames[5].audio).max() > 0


@pytest.mark.slow
def test_compiled_stages_say_what_the_model_says(model):
    (call,) = expected(model, [speech_like(3.0)])
    engine = model.open_engine(max_sessions=1, compile=True)
    session = engine.open_session()
    session.push(call.signal)
    session.flush()
    assert_begins(engine.run_until_idle()[session], call)
