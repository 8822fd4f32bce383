"""Language models from folders: loaded as they were saved, with more tokens, in agents that need the folder no more."""

import json
import shutil

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
    check_description,
    described_llm,
    llm_config,
    load_llm,
    random_llm,
    resize_vocabulary,
)
from nemo_duplex.models import parts
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from tests.dummies import speech_like, talkative, tiny_config
from tests.every_family import tiny_family
from tests.hf_families import (
    FAMILIES,
    SIZES,
    TIED,
    byte_level,
    family_config,
    lively,
    publish,
    random_family,
    save_tokenizer,
)

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
def test_a_vocabulary_of_three_more_tokens(name):
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


def moshi(**changes):
    """Its embedding has a row more than there are tokens."""
    torch.manual_seed(0)
    return lively(random_llm({**SIZES, "model_type": "moshi", "head_dim": 8, "ffn_dim": 48, **changes}))


@pytest.mark.parametrize("rows", [320, 321, 333])
def test_a_row_that_is_no_token_stays_behind_the_tokens(rows):
    model = moshi()
    before, old = logits(model), model.get_input_embeddings().weight.detach().clone()
    resize_vocabulary(model, rows)
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert (len(old), len(embedding.weight), embedding.num_embeddings) == (321, rows + 1, rows + 1)
    assert len(head.weight) == model.config.vocab_size == rows
    assert torch.equal(embedding.weight[:320], old[:320]) and torch.equal(embedding.weight[-1], old[-1])
    assert torch.allclose(embedding.weight[320:-1], old[:320].mean(0).expand(rows - 320, -1), atol=1e-6)
    assert embedding.weight.requires_grad and torch.allclose(logits(model)[..., :320], before, atol=1e-5)
    config = llm_config(model)
    check_description(model, config, rows)
    again = described_llm(config, rows)
    again.load_state_dict(model.state_dict())
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("rows", [50, 323])
@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_config_describes_can_be_restored(name, rows):
    model = resize_vocabulary(random_family(name), rows)
    check_description(model, llm_config(model), rows)


def test_what_a_config_does_not_describe_is_refused_before_it_is_trained():
    """As of a family whose embedding does not follow its `vocab_size`: what is saved could not be read."""
    model, message = random_family("llama"), "^The language model llama could not be restored from a file: with 40 text tokens "
    config = llm_config(model)
    with pytest.raises(InputError, match=message + r"lm_head.weight is \(320, 32\), and \(321, 32\) in a model"):
        check_description(model, {**config, "vocab_size": 321}, 40)
    with pytest.raises(InputError, match=message + r"model.layers.1.\S+ is \(32\), and \(missing\) in a model"):
        check_description(model, {**config, "num_hidden_layers": 1}, 40)


def test_the_bias_of_an_output_layer_is_resized_too():
    torch.manual_seed(0)
    model = random_llm({**SIZES, "model_type": "phi"})
    torch.nn.init.normal_(model.lm_head.bias)
    resize_vocabulary(model, 330)
    bias = model.lm_head.bias
    assert len(bias) == 330 and torch.allclose(bias[320:], bias[:320].mean().expand(10))
    check_description(model, llm_config(model), 330)


@pytest.mark.parametrize("name", ["llama", "gemma3", "phi3"])
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
    check_description(model, llm_config(model), 321)
    described = described_llm(Gemma3Config(text_config=text, vision_config=sizes).to_dict(), 321)
    assert type(described).__name__ == "Gemma3ForCausalLM" and described.config.vocab_size == 321


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


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_neox"])
def test_an_agent_on_a_folder_trains_streams_and_restores_without_it(name, tmp_path):
    published, audio = publish(name, tmp_path / "published"), speech_like(2.0)
    model = agent_on(published, tmp_path / "parts")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(4):
        loss = model.training_step(turns_of(model), 0)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.97 * losses[0]

    talkative(model.eval())
    before = model.offline_inference(audio[None], torch.tensor([len(audio)]), decode_audio=False)
    session = model.open_session()
    streamed = [frame.token for frame in [*session.push(audio.numpy()), *session.flush()]]
    assert before["tokens_text"][0].tolist() == streamed
    assert before["tokens_audio"].unique().numel() > 3 < before["tokens_text"].unique().numel(), "Else it would prove nothing."

    model.save_to(str(tmp_path / "agent.nemo"))
    shutil.rmtree(published)
    shutil.rmtree(tmp_path / "parts")
    again = DuplexS2SModel.restore_from(str(tmp_path / "agent.nemo"), map_location="cpu")
    after = again.offline_inference(audio[None], torch.tensor([len(audio)]), decode_audio=False)
    assert torch.equal(after["tokens_text"], before["tokens_text"]) and after["text"] == before["text"]
    assert torch.equal(after["tokens_audio"], before["tokens_audio"])


def test_an_agent_with_more_tokens_than_moshi_is_restored(tmp_path):
    published, audio = (
        save_tokenizer(tmp_path, byte_level(), eos_token="<|endoftext|>", pad_token="<|endoftext|>"),
        speech_like(1.5),
    )
    moshi(vocab_size=270).save_pretrained(published)
    model = talkative(agent_on(published, tmp_path / "parts").eval())
    assert model.layout.text_vocab_size > 271
    arguments = {"input_signal": audio[None], "input_signal_lens": torch.tensor([len(audio)]), "decode_audio": False}
    before = model.offline_inference(**arguments)
    model.save_to(str(tmp_path / "agent.nemo"))
    after = DuplexS2SModel.restore_from(str(tmp_path / "agent.nemo"), map_location="cpu").offline_inference(**arguments)
    assert torch.equal(after["tokens_text"], before["tokens_text"]) and before["tokens_text"].unique().numel() > 3


def test_a_file_that_could_not_be_read_back_is_not_made(tmp_path, monkeypatch):
    """Whatever family it is: the check is made with the tokens and the config that the file will have."""
    published = publish("llama", tmp_path / "published")
    monkeypatch.setattr(parts, "llm_config", lambda model: {**llm_config(model), "intermediate_size": 40})
    with pytest.raises(InputError, match=r"could not be restored from a file: with \d+ text tokens model\.layers\.0\.mlp"):
        agent_on(published, tmp_path / "parts")


def test_an_agent_is_not_built_on_a_model_that_does_not_stream(tmp_path):
    bloom = {"model_type": "bloom", "hidden_size": 32, "n_layer": 1, "n_head": 2, "max_position_embeddings": 64}
    with pytest.raises(InputError, match="The language model bloom takes no position_ids"):
        DuplexS2SModel(tiny_config(tmp_path, llm=bloom))


def test_a_base_model_without_its_output_layer_is_saved_again_as_a_whole(tmp_path):
    model = random_family("llama")
    model.base_model.save_pretrained(tmp_path)
    message = "lacks 1 weights .* lm_head.weight among them. Save it again as a whole LlamaForCausalLM, or take another one.$"
    with pytest.raises(InputError, match=message):
        load_llm(str(tmp_path))
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(load_llm(str(tmp_path))), logits(model))


def test_a_family_that_cannot_be_described_is_refused_with_a_cure_that_works():
    with pytest.raises(InputError, match="names no model_type .for example llama.. Add model.llm.model_type.$"):
        random_llm({"hidden_size": 32})
    with pytest.raises(InputError, match="model_type 'vit' .* Correct its config, or take a causal family, such as llama.$"):
        random_llm({**SIZES, "model_type": "vit"})
    assert type(random_llm({**SIZES, "model_type": "llama"})).__name__ == "LlamaForCausalLM"


def test_a_recurrent_model_is_refused_before_its_vocabulary_is_resized(tmp_path):
    """xLSTM cannot be resized in transformers: its head has no attribute `embeddings`."""
    random_llm(tiny_family("xlstm")).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="xlstm .*remembers by a recurrent state instead of keys and values"):
        resize_vocabulary(load_llm(str(tmp_path)), 400)
