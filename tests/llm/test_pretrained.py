"""Language models from folders: loaded as they were saved, grown by tokens, in agents that need the folder no more."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
)

from nemo_duplex.data.batch import DuplexBatch
from nemo_duplex.inputs import InputError
from nemo_duplex.llm.pretrained import (
    llm_config,
    load_llm,
    random_llm,
    resize_vocabulary,
)
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from tests.dummies import speech_like, talkative, tiny_config
from tests.hf_families import FAMILIES, TIED, family_config, publish, random_family

ROOT = Path(__file__).parents[2]
TOKENS = torch.arange(20)[None]


@torch.no_grad()
def logits(model):
    return model.eval()(input_ids=TOKENS).logits


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_neox"])
def test_a_folder_gives_what_was_saved(name, tmp_path):
    random_family(name).to(torch.bfloat16).save_pretrained(tmp_path)
    expected = random_family(name)
    for weight in expected.parameters():
        weight.data = weight.data.bfloat16().float()
    loaded = load_llm(str(tmp_path))
    assert all(p.dtype == torch.float32 for p in [*loaded.parameters(), *loaded.buffers()])
    assert torch.equal(logits(loaded), logits(expected))


def test_the_architecture_alone(tmp_path):
    random_family("qwen2").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.manual_seed(3)
    model = load_llm(str(tmp_path), pretrained_weights=False)
    assert type(model).__name__ == "Qwen2ForCausalLM" and next(model.parameters()).dtype == torch.float32
    assert model.config.layer_types == ["full_attention", "sliding_attention"]


@pytest.mark.parametrize("name", FAMILIES)
def test_grown_by_three_tokens(name):
    model = random_family(name)
    before, old = logits(model), model.get_input_embeddings().weight.detach().clone()
    assert (
        resize_vocabulary(model, 320) is model and resize_vocabulary(model, 7).get_input_embeddings().num_embeddings == 320
    ), "It never shrinks."
    resize_vocabulary(model, 323)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert model.config.vocab_size == 323 == embedding.num_embeddings == len(embedding.weight) == len(head.weight)
    assert torch.allclose(logits(model)[..., :320], before, atol=1e-5), "Old tokens mean what they meant."
    assert torch.allclose(embedding.weight[320:], old.mean(0).expand(3, -1), atol=1e-6)
    assert (head.weight is embedding.weight) == (name in TIED)
    assert torch.allclose(head.weight[320:], head.weight[:320].mean(0).expand(3, -1), atol=1e-6)
    again = random_llm(llm_config(model))
    again.load_state_dict(model.state_dict())
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("name", FAMILIES)
def test_its_config_is_plain_data_that_says_nothing_of_where_it_came_from(name, tmp_path):
    random_family(name).save_pretrained(tmp_path)
    config = llm_config(load_llm(str(tmp_path)))
    there_and_back = OmegaConf.to_container(OmegaConf.create(OmegaConf.to_yaml(OmegaConf.create(config))))
    assert there_and_back == config and str(tmp_path) not in json.dumps(config)
    ours, theirs = random_llm(there_and_back), AutoModelForCausalLM.from_pretrained(tmp_path)
    assert type(ours) is type(theirs)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in theirs.state_dict().items()}
    assert ours.config.to_dict() | {"dtype": None} == theirs.config.to_dict() | {"dtype": None, "architectures": None} | {
        key: ours.config.to_dict().get(key) for key in ("architectures", "_name_or_path")
    }


def test_the_language_model_of_one_that_also_sees(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"image_size": 8, "patch_size": 4}
    text = {k: v for k, v in family_config("gemma3", final_logit_softcapping=None).items() if k != "model_type"}
    torch.manual_seed(0)
    seeing = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=sizes, mm_tokens_per_image=4))
    seeing.save_pretrained(tmp_path)
    model = resize_vocabulary(load_llm(str(tmp_path)), 321)
    assert type(model).__name__ == "Gemma3ForCausalLM" and llm_config(model)["model_type"] == "gemma3_text"
    assert torch.allclose(logits(model)[..., :320], logits(seeing), atol=1e-5)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert not any(p.is_meta for p in [*model.parameters(), *model.buffers()])


def no_config(folder):
    (folder / "config.json").unlink()


def cut_weights(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def no_weights(folder):
    (folder / "model.safetensors").unlink()


def change(**keys):
    def write(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    return write


BROKEN = {
    "no config": (no_config, "there is no file .*config.json"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
    "weights cut off": (cut_weights, "cannot be read"),
    "no weights": (no_weights, "cannot be read"),
    "a layer is missing": (change(num_hidden_layers=3), r"lacks \d+ weights of its own architecture, model.layers.2"),
    "another size": (change(intermediate_size=64), r"cannot be read|lacks \d+ weights"),
    "its own code": (change(model_type="own", auto_map={"AutoConfig": "own.Config"}), "cannot be read"),
    "unknown": (change(model_type="unheard_of"), "cannot be read"),
    "quantised": (change(quantization_config={"quant_method": "gptq", "bits": 4}), "is quantised"),
}


@pytest.mark.parametrize(("break_it", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_folder_is_said_in_one_line(break_it, message, tmp_path):
    random_family("llama").save_pretrained(tmp_path)
    break_it(tmp_path)
    with pytest.raises(InputError, match=f"^pretrained_llm: .*({message})") as error:
        load_llm(str(tmp_path))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_what_is_not_there_is_said_in_one_line(tmp_path):
    with pytest.raises(InputError, match="pretrained_llm: there is no folder"):
        load_llm(str(tmp_path / "none"))
    with pytest.raises(InputError, match="pretrained_llm: there is no folder"):
        load_llm("./none")
    with pytest.raises(InputError, match=r"^pretrained_llm: no-one/has-this on the Hugging Face Hub: it cannot be rea[^\n]+$"):
        load_llm("no-one/has-this")


def test_an_encoder_decoder_is_refused(tmp_path):
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    config = BartConfig(
        vocab_size=40, encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=16, **sizes
    )
    BartForConditionalGeneration(config).save_pretrained(tmp_path)
    for weights in (True, False):
        with pytest.raises(InputError, match=r"\(bart\) is an encoder-decoder, expected a decoder-only model"):
            load_llm(str(tmp_path), weights)


# ---------------------------------------------------------------------- from a folder to an agent, and back without it

RESTORE = """
import sys, torch
torch.set_num_threads(1)
from nemo_duplex import DuplexS2SModel
folder, *names = sys.argv[1:]
audio, answers = torch.load(f"{folder}/audio.pt"), {}
for name in names:
    model = DuplexS2SModel.restore_from(f"{folder}/{name}.nemo", map_location="cpu")
    answers[name] = model.offline_inference(audio[None], torch.tensor([len(audio)]), decode_audio=False)
torch.save(answers, f"{folder}/answers.pt")
"""


def agent_on(published, folder):
    """An agent with the pretrained language model of a folder; everything else of it is tiny and random."""
    folder.mkdir()
    config = tiny_config(folder, pretrained_llm=str(published), llm={}, tokenizer={}, attention_window=8, user_weight=3.0)
    config.perception.output_dim = None
    return DuplexS2SModel(config)


def turns_of(model, frames=20):
    """Two conversations in which the agent says something from frame 4 to 12."""
    tokens = torch.full((2, frames), model.layout.text_pad)
    tokens[:, 4], tokens[:, 12] = model.layout.text_bos, model.layout.text_eos
    tokens[:, 5:8] = torch.tensor(model.tokenizer.text_to_ids("What is red?")[:3])
    return DuplexBatch(
        ids=["a", "b"],
        user_audio=torch.stack([speech_like(frames * 0.08, seed) for seed in range(2)]),
        user_audio_lens=torch.tensor([frames, frames]) * 1280,
        agent_tokens=tokens,
        num_frames=torch.tensor([frames, frames]),
        agent_codes=torch.randint(0, model.layout.codebook_size, (2, model.layout.num_codebooks, frames)),
    )


@pytest.fixture(scope="module")
def agents(tmp_path_factory):
    """Agents on every family, trained a little and saved; what they answered then, and what a fresh process makes of them."""
    folder, audio, before = tmp_path_factory.mktemp("agents"), speech_like(4.0), {}
    torch.save(audio, folder / "audio.pt")
    losses = {}
    for name in FAMILIES:
        published = publish(name, folder / f"published-{name}")
        model = agent_on(published, folder / f"parts-{name}")
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
        losses[name] = []
        for _ in range(5):
            loss = model.training_step(turns_of(model), 0)["loss"]
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[name].append(loss.item())
        talkative(model.eval())
        before[name] = model.offline_inference(audio[None], torch.tensor([len(audio)]), decode_audio=False)
        session = model.open_session()
        before[name]["streamed"] = [frame.token for frame in [*session.push(audio.numpy()), *session.flush()]]
        model.save_to(str(folder / f"{name}.nemo"))
        shutil.rmtree(published)
        shutil.rmtree(folder / f"parts-{name}")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "empty"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", RESTORE, str(folder), *FAMILIES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return losses, before, torch.load(folder / "answers.pt")


@pytest.mark.parametrize("name", FAMILIES)
def test_an_agent_on_a_folder_trains_streams_and_restores_without_it(name, agents):
    losses, before, after = (part[name] for part in agents)
    assert losses[-1] < 0.95 * losses[0]
    assert before["tokens_text"][0].tolist() == before["streamed"]
    assert torch.equal(after["tokens_text"], before["tokens_text"]) and after["text"] == before["text"]
    assert torch.equal(after["tokens_audio"], before["tokens_audio"])
    assert before["tokens_audio"].unique().numel() > 3 < before["tokens_text"].unique().numel(), "Else it would prove nothing."
