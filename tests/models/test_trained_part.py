"""What training added, alone in a file: with its language model the same agent again, with another one refused."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from nemo_duplex.inputs import InputError
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.trained_part import restore_trained_part, save_trained_part
from tests.dummies import PERCEPTION, tiny_config
from tests.llm.tiny_gguf import write_folder
from tests.models.test_duplex_s2s import batch
from tests.perception.tiny import perception_settings

LORA = {"r": 2, "lora_alpha": 4, "target_modules": "all-linear"}
TIED = "lm.backbone.lm_head.weight"  # the text embedding, too


@pytest.fixture
def llm(tmp_path):
    return str(write_folder(tmp_path / "llm"))


def trained(folder, llm, **keys):
    """An agent after a step that changed all that it trains."""
    parts = {"pretrained_llm": llm, "llm": {}, "tokenizer": {}, "perception": {**PERCEPTION, "output_dim": None}}
    torch.manual_seed(0)
    model = DuplexS2SModel(tiny_config(folder, **{**parts, "lora": LORA, "text_rows": "specials", **keys})).train()
    torch.nn.init.normal_(model.lm.speech_head.projection.weight, std=0.1)
    for name, weight in model.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.training_step(batch(model), 0)["loss"].backward()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.grad is not None:
                weight -= 0.1 * weight.grad.sign()
    return model.eval()


def largest_difference(one, other):
    state = other.state_dict()
    return {name: float((weight.float() - state[name].float()).abs().max()) for name, weight in one.state_dict().items()}


@pytest.mark.parametrize("bits, most", [(16, 2e-3), (8, 0.02)])
def test_it_becomes_the_agent_again(tmp_path, llm, bits, most):
    agent = trained(tmp_path, llm)
    save_trained_part(agent, tmp_path / "part.safetensors", llm, bits)
    again = restore_trained_part(tmp_path / "part.safetensors").eval()
    assert list(again.state_dict()) == list(agent.state_dict())
    differences = largest_difference(agent, again)
    assert max(differences.values()) < most and any(differences.values())
    assert not any(value for name, value in differences.items() if name.startswith("lm.backbone.") and ".lora_" not in name)
    table = "lm.speech_embedding.table.weight"
    before, after = (model.state_dict()[table] for model in (agent, again))
    step = before.abs().amax(1) / (127 if bits == 8 else 1024)  # 10 bits and the hidden one, of numbers near the largest
    assert ((before - after).abs().amax(1) <= 0.501 * step).all()
    assert again.layout == agent.layout and again.cfg.lora == agent.cfg.lora
    given = batch(agent)
    with torch.no_grad():
        assert torch.allclose(again.training_step(given, 0)["loss"], agent.training_step(given, 0)["loss"], rtol=0.02)
    stored = load_file(tmp_path / "part.safetensors")
    assert stored[f"{TIED}|rows"].tolist() == sorted({agent.layout.text_pad, agent.layout.text_bos, agent.layout.text_eos})
    of_llm = {name for name in stored if name.startswith("lm.backbone") and ".lora_" not in name}
    assert of_llm == {f"{TIED}|rows", f"{TIED}|some"}


@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_computed_stays_as_it_is(tmp_path, llm, bits):
    """Filters of mel bands, windows, and what an ear that began as Whisper adds for distances."""
    agent = trained(tmp_path, llm, perception={**perception_settings(kind="whisper"), "output_dim": None})
    torch.nn.init.normal_(agent.perception.encoder.distance_bias)
    save_trained_part(agent, tmp_path / "part.safetensors", llm, bits)
    again = restore_trained_part(tmp_path / "part.safetensors")
    differences = largest_difference(agent, again)
    computed = [name for name, _ in agent.named_buffers() if name in differences]
    assert any("distance_bias" in name for name in computed) and any(name.endswith("featurizer.fb") for name in computed)
    assert not any(differences[name] for name in computed)
    assert differences["perception.encoder.layers.0.linear1.weight"] > 0


def test_a_model_trained_in_full_is_stored_where_it_changed(tmp_path, llm):
    agent = trained(tmp_path, llm, lora=None, text_rows="all")
    save_trained_part(agent, tmp_path / "part.safetensors", llm)
    again = restore_trained_part(tmp_path / "part.safetensors")
    assert max(largest_difference(agent, again).values()) < 2e-3
    norm = "lm.backbone.llm.norm.weight"
    assert torch.equal(again.state_dict()[norm], agent.state_dict()[norm])


def test_a_codec_that_everybody_has_is_left_out(tmp_path, llm):
    agent = trained(tmp_path, llm)
    agent.audio_codec.save_to(str(tmp_path / "codec.nemo"))
    path = tmp_path / "part.safetensors"
    save_trained_part(agent, path, llm, codec=str(tmp_path / "codec.nemo"))
    assert not any(name.startswith("audio_codec") for name in load_file(path))
    again = restore_trained_part(path, codec=tmp_path / "codec.nemo")
    assert all(torch.equal(w, again.audio_codec.state_dict()[n]) for n, w in agent.audio_codec.state_dict().items())
    with pytest.raises(
        InputError, match=r"lacks \d+ weights, audio_codec\..+ among them. Give the codec that it was saved with"
    ):
        restore_trained_part(path)
    with torch.no_grad():
        next(agent.audio_codec.parameters()).add_(0.5)
    with pytest.raises(InputError, match=r"^codec: .*codec.nemo is another codec than the agent's \(audio_codec\..+ differs\)"):
        save_trained_part(agent, path, llm, codec=str(tmp_path / "codec.nemo"))


def test_another_language_model_is_refused(tmp_path, llm):
    agent = trained(tmp_path, llm)
    path = tmp_path / "part.safetensors"
    save_trained_part(agent, path, llm)
    other = write_folder(tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] += 0.5
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=rf"^{path} was trained on the language model {llm}, {other} is another one.$"):
        restore_trained_part(path, llm=str(other))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    with pytest.raises(InputError, match="The agent was not made of .*other: its lm.backbone"):
        save_trained_part(agent, path, str(other))


def test_files_that_are_no_such_file(tmp_path, llm):
    path = tmp_path / "part.safetensors"
    with pytest.raises(InputError, match="^bits is 4, expected 8 or 16.$"):
        save_trained_part(trained(tmp_path, llm), path, llm, bits=4)
    with pytest.raises(InputError, match="trained part: there is no"):
        restore_trained_part(path)
    path.write_bytes(b"something else")
    with pytest.raises(InputError, match=r"part.safetensors cannot be read as a safetensors file \(.+\). Download it again"):
        restore_trained_part(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"part.safetensors is no trained part of an agent \(format None"):
        restore_trained_part(path)
    save_trained_part(trained(tmp_path, llm), path, llm)
    with safe_open(str(path), "pt") as file:
        about = file.metadata()
    weights = load_file(path)
    save_file(weights | {"lm.more": torch.zeros(1)}, path, metadata=about)
    with pytest.raises(InputError, match="has a weight lm.more, which the agent that it describes lacks"):
        restore_trained_part(path)
    del weights["lm.speech_embedding.table.weight"]
    save_file(weights, path, metadata=about)
    with pytest.raises(InputError, match="lacks 1 weights, lm.speech_embedding.table.weight among them"):
        restore_trained_part(path)
