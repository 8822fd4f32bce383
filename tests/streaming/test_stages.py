"""The ways to run a step: all say the same, and where one is not to be had, one line says so."""

import pytest
import torch

from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.stages import StageRunner
from tests.dummies import speech_like, tiny_model
from tests.streaming.calls import assert_begins, expected


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


def test_a_stage_is_run_as_it_is_and_prepared_once():
    seen = []
    run = StageRunner(torch.device("cpu"))
    for x in (1, 2):
        assert run("mel", lambda state, x: seen.append((state, x)) or x, "state", x) == x
    assert seen == [("state", 1), ("state", 2)] and not run.rehearses


def test_without_a_compiler_compile_is_refused_in_one_line(model, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: _raise(RuntimeError("No working C++ compiler found\nmore")))
    with pytest.raises(
        InputError, match=r"compile=True needs a C\+\+ compiler such as g\+\+ \(No working .* found\). Install it"
    ):
        model.open_engine(max_sessions=1, compile=True)


def _raise(error):
    raise error


@pytest.mark.slow
def test_compiled_stages_say_what_the_model_says(model):
    (call,) = expected(model, [speech_like(3.0)])
    engine = model.open_engine(max_sessions=1, compile=True)
    session = engine.open_session()
    session.push(call.signal)
    session.flush()
    assert_begins(engine.run_until_idle()[session], call)
