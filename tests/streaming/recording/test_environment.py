"""What the bits of an answer may depend on."""

from types import SimpleNamespace

import torch

from nemo_duplex.streaming.recording.environment import current_environment, differences


def test_what_is_not_as_it_was_is_named():
    head = torch.nn.Linear(1, 1)
    model = SimpleNamespace(device=torch.device("cpu"), lm=SimpleNamespace(backbone=SimpleNamespace(lm_head=head)))
    then = current_environment(model)
    assert list(differences(then, current_environment(model))) == []
    assert then["machine"]["device"] == "cpu" and then["machine"]["processor"] and then["version"]["torch"] == torch.__version__
    torch.set_num_threads(2)
    head.bfloat16()
    now = current_environment(model)
    torch.set_num_threads(1)
    assert list(differences(then, now)) == ["model dtype bfloat16 (recorded: float32)", "machine threads 2 (recorded: 1)"]


def test_of_a_hash_the_beginning_and_of_what_was_not_recorded_none():
    texts = list(differences({"model": {"hash": "ab" * 32}}, {"model": {"hash": "cd" * 32, "dtype": "float32"}}))
    assert texts == [
        "model hash cdcdcdcdcdcd... (recorded: abababababab...)",
        "model dtype float32 (recorded: None)",
    ]
