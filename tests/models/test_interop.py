"""NeMo's in-tree DuplexS2SModel and ours: the same weights compute the same, in both directions.

Importing speechlm2 takes 14 s, so this file alone does it, and one random in-tree model serves all of its tests.
"""

import json
import warnings

import lightning.pytorch as pl
import pytest
import torch
from lhotse import CutSet, Recording, SupervisionSegment

from nemo_duplex import DuplexS2SDataset, DuplexS2SModel
from nemo_duplex.codec.fsq_codec import PARTS
from nemo_duplex.inputs import InputError
from nemo_duplex.llm.lora import merged_state_dict
from nemo_duplex.models.interop import _HEAD, _TABLE, from_in_tree, our_state, their_state, to_in_tree
from nemo_duplex.synthesis.cuts import DialogueCuts
from nemo_duplex.synthesis.dialogue_spec import DialogueSpec, Events
from nemo_duplex.synthesis.gaps import PEOPLE, PEOPLE_AS_AGENT
from nemo_duplex.synthesis.mix import Acoustics
from nemo_duplex.synthesis.text.grammar import Grammar
from nemo_duplex.synthesis.timing import Rhythm
from nemo_duplex.synthesis.transmission import Transmission
from tests.dummies import speech_like, tiny_model, wav_bytes
from tests.in_tree import in_tree_model, llm_folder
from tests.synthesis.tones import cast_of

SECONDS, FRAMES = 2.0, 25
pytest.importorskip("peft", reason="NeMo's speechlm2 cannot be imported without peft")


@pytest.fixture(scope="module")
def speechlm2():
    import nemo.collections.speechlm2.data
    import nemo.collections.speechlm2.models

    return nemo.collections.speechlm2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("in_tree")


@pytest.fixture(scope="module")
def theirs(speechlm2, folder):
    """A random in-tree model whose every frame is another one."""
    torch.manual_seed(0)
    model = speechlm2.models.DuplexS2SModel(in_tree_model(folder, duplex_user_channel_weight=2.5)).eval()
    for weight in [*model.llm.parameters(), *model.lm_head.parameters()]:
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.4)
    return model


@pytest.fixture(scope="module")
def saved(theirs, folder):
    """Their own `save_pretrained`."""
    theirs.save_pretrained(folder / "saved")
    return folder / "saved"


@pytest.fixture(scope="module")
def ours(saved):
    return from_in_tree(saved).eval()


@pytest.fixture(scope="module")
def batch(speechlm2, theirs):
    """Two conversations of one length, made by NeMo's own dataset."""
    dataset = speechlm2.data.DuplexS2SDataset(
        theirs.tokenizer, frame_length=0.08, source_sample_rate=16000, target_sample_rate=22050, output_roles=["assistant"]
    )
    return dataset[CutSet.from_cuts([cut(0, "hello okay"), cut(1, "one two three")])]


def cut(number, text):
    user, agent = (
        Recording.from_bytes(wav_bytes(speech_like(SECONDS, seed, rate).numpy(), rate), f"{number}-{seed}")
        for seed, rate in ((2 * number, 16000), (2 * number + 1, 22050))
    )
    made = user.to_cut()
    made.target_audio = agent
    made.supervisions = [
        SupervisionSegment(f"{number}-a", user.id, start=0.2, duration=0.4, text="hi", speaker="user"),
        SupervisionSegment(f"{number}-b", user.id, start=0.8, duration=0.64, text=text, speaker="assistant"),
    ]
    return made


@pytest.fixture
def attentive(ours, theirs):
    """Both models, to which what is heard outweighs what was said: unchanged, they would repeat one token."""
    first, second = ours.perception.proj, theirs.perception.proj
    kept = {name: value.clone() for name, value in second.state_dict().items()}
    with torch.no_grad():
        heard, _ = theirs.perception(speech_like(SECONDS)[None], torch.tensor([32000]))
        scale = 3.0 / heard.std(dim=(0, 1))
        second.weight.mul_(scale[:, None])
        second.bias.copy_((second.bias - heard.mean(dim=(0, 1))) * scale)
    first.load_state_dict(second.state_dict())
    yield ours, theirs
    first.load_state_dict(kept)
    second.load_state_dict(kept)


@torch.no_grad()
def their_logits(model, batch):
    inputs = model.prepare_inputs({key: value.clone() if torch.is_tensor(value) else value for key, value in batch.items()})
    out = model(inputs["input_embeds"])
    return out["text_logits"], out["audio_logits"]


@torch.no_grad()
def our_logits(model, batch):
    """Of the frames that have a target, and of the speech rows that in-tree models have."""
    hidden, targets = model(model._as_our_batch(batch))
    speech = model.lm.speech_logits(hidden)[:, :-1, :, : model.layout.codebook_size + 3]
    assert targets.valid[:, :-1].all() and not targets.valid[:, -1].any()
    return model.lm.text_logits(hidden)[:, :-1], speech


def assert_same(ours, theirs):
    for mine, other in zip(ours, theirs):
        assert mine.shape == other.shape and other.std() > 0.1
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-5)


def test_our_dataset_makes_the_batch_that_nemos_makes(ours, batch):
    roles = {"input_roles": ["user"], "output_roles": ["assistant"]}
    same = DuplexS2SDataset(ours.tokenizer, **roles)[CutSet.from_cuts([cut(0, "hello okay"), cut(1, "one two three")])]
    for key, expected in batch.items():
        assert torch.equal(same[key], expected.to(same[key].dtype)) if torch.is_tensor(expected) else same[key] == expected, key


# ---------------------------------------------------------------------- there to here


def test_a_converted_model_computes_the_same(ours, theirs, batch):
    logits = our_logits(ours, batch)
    assert logits[0].shape == (2, FRAMES - 1, len(theirs.tokenizer.tokenizer))
    assert_same(logits, their_logits(theirs, batch))


def test_it_loses_the_same_on_a_batch_of_nemos_dataset(ours, theirs, batch):
    """Without padding and with a pad of its own: where these fail, theirs trains on padding, and takes silence for an end."""
    expected = theirs.training_step({k: v.clone() if torch.is_tensor(v) else v for k, v in batch.items()}, 0)
    found = ours.training_step(batch, 0)
    for name in ("loss", "text_loss", "audio_loss"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=1e-4, msg=name)
    assert expected["loss"] > 1


def test_it_says_the_same(attentive):
    ours, theirs = attentive
    audio, lens = torch.stack([speech_like(SECONDS, 7), speech_like(SECONDS, 8)]), torch.tensor([32000, 32000])
    expected = theirs.offline_inference(audio, lens.clone(), decode_audio=False)
    found = ours.offline_inference(audio, lens, decode_audio=False)
    for name in ("tokens_text", "tokens_audio"):
        said = found[name][:, : FRAMES - 1]
        assert torch.equal(said, expected[name][:, : FRAMES - 1]), name
        assert len(said.flatten().unique()) > 3 and not torch.equal(said[0], said[1])


def test_rows_that_it_does_not_have_are_never_said(ours, theirs):
    size = ours.layout.speech_vocab_size
    head = torch.randn(50, ours.lm.backbone.hidden_size) * 10
    logits = ours.lm.speech_logits(head)
    assert logits.shape[-1] == size == theirs.speech_vocab_size + 2
    assert (logits.softmax(-1)[..., -2:] == 0).all()
    assert (ours.lm.speech_embedding.table.weight.view(-1, size, 24)[:, -2:] == 0).all()


def test_a_lightning_checkpoint_is_read_without_running_code(theirs, ours, folder):
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(theirs)
    trainer.save_checkpoint(folder / "last.ckpt", weights_only=True)
    read = from_in_tree(folder / "last.ckpt").state_dict()
    assert read.keys() == ours.state_dict().keys()
    assert all(torch.equal(read[name], value) for name, value in ours.state_dict().items())


def test_it_is_one_nemo_from_then_on(ours, folder, batch):
    ours.save_to(str(folder / "agent.nemo"))
    again = DuplexS2SModel.restore_from(str(folder / "agent.nemo"), map_location="cpu").eval()
    assert_same(our_logits(again, batch), our_logits(ours, batch))
    assert again.layout == ours.layout and again.layout.turn_marks == "in_place"


# ---------------------------------------------------------------------- here to there


def test_back_again_it_computes_the_same(speechlm2, ours, theirs, batch, folder):
    to_in_tree(ours, folder / "back")
    back = speechlm2.models.DuplexS2SModel.from_pretrained(str(folder / "back")).eval()
    returned, sent = back.state_dict(), theirs.state_dict()
    assert returned.keys() == sent.keys() and [name for name in sent if not torch.equal(returned[name], sent[name])] == []
    assert_same(their_logits(back, batch), their_logits(theirs, batch))  # where weights lie in memory decides on last bits
    assert back.cfg.duplex_user_channel_weight == 2.5 and back.text_pad_id == theirs.text_pad_id
    back.configure_optimizers()


def test_states_there_and_back_are_the_same(theirs):
    state = theirs.state_dict()
    again = their_state(our_state(state), theirs._codebook_size)
    foreign = {name for name in state if name.startswith("audio_codec.") and name.split(".")[1] not in PARTS}
    assert again.keys() == state.keys() - foreign
    for name, value in again.items():
        assert torch.equal(value, state[name]), name


def test_a_model_of_another_layout_does_not_go_there(tmp_path):
    with pytest.raises(InputError, match="turn_marks 'beside' .*turn_marks=in_place"):
        to_in_tree(tiny_model(tmp_path), tmp_path / "there")
    with pytest.raises(InputError, match="only conformer and identity"):
        to_in_tree(tiny_model(tmp_path, turn_marks="in_place"), tmp_path / "there")
    assert not (tmp_path / "there").exists()


# ---------------------------------------------------------------------- states alone


def test_speech_rows_of_a_state():
    """Twelve codebooks of three codes, so that the tenth comes after the second; each row holds its own number."""
    rows, width = 3 + 3, 2
    tables = torch.arange(12.0 * rows).view(12, rows, 1).expand(12, rows, width)
    theirs = {f"embed_audio_tokens.{k}.weight": tables[k] for k in reversed(range(12))}
    theirs |= {
        "audio_head.weight": -tables.flatten(0, 1),
        "audio_head.bias": tables[..., 0].flatten(),
        "lm_head.weight": tables[0],
    }
    theirs |= {"audio_codec.discriminator.x": tables[0], "_control_codes": torch.arange(3, 6)}
    ours = our_state(theirs)
    assert ours.keys() == {f"{_TABLE}", f"{_HEAD}.weight", f"{_HEAD}.bias", "lm.backbone.lm_head.weight"}
    table = ours[_TABLE].view(12, 8, width)
    assert torch.equal(table[:, :6], tables) and not table[:, 6:].any()
    assert torch.equal(ours[f"{_HEAD}.weight"].view(12, 8, width)[:, :6], -tables)
    assert torch.equal(ours[f"{_HEAD}.bias"].view(12, 8)[:, :6], tables[..., 0])
    assert (ours[f"{_HEAD}.bias"].view(12, 8)[:, 6:] == -3e4).all()
    back = their_state(ours | {"audio_codec.silence_codes": torch.zeros(12)}, codebook_size=3)
    assert back.keys() == theirs.keys() - {"audio_codec.discriminator.x"}
    assert all(torch.equal(back[name], theirs[name]) for name in back)


def test_adapters_are_merged_on_the_way_there(ours, tmp_path):
    model = DuplexS2SModel({**ours.cfg, "lora": {"r": 2, "target_modules": ["q_proj"]}})
    for name, p in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(p)
    to_in_tree(model, tmp_path / "merged")
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["pretrained_weights"] is False and config["pretrained_llm"] == str(tmp_path / "merged" / "llm_backbone")
    again = from_in_tree(tmp_path / "merged")
    expected = merged_state_dict(model)
    state = again.state_dict()
    assert state.keys() == expected.keys() and not any("lora_" in name for name in state)
    for name in state:
        if name.startswith("lm.backbone."):
            assert torch.equal(state[name], expected[name]), name


# ---------------------------------------------------------------------- what is no checkpoint


def copied(saved, folder, **changes):
    folder.mkdir()
    for file in saved.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((saved / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return folder


def test_tied_weights_have_one_name_in_the_file(speechlm2, folder, tmp_path):
    config = in_tree_model(tmp_path)
    config["pretrained_llm"] = str(llm_folder(tmp_path / "tied", tie_word_embeddings=True))
    torch.manual_seed(0)
    model = speechlm2.models.DuplexS2SModel(config)
    model.save_pretrained(tmp_path / "saved")
    lm = from_in_tree(tmp_path / "saved").lm.backbone
    assert lm.lm_head.weight is lm.embed_tokens.weight and torch.equal(lm.lm_head.weight, model.lm_head.weight)


def test_a_tokenizer_with_shared_marks_is_refused(saved, tmp_path):
    shared = llm_folder(tmp_path / "chat", pad="</s>")
    with pytest.raises(InputError, match="'</s>', '<s>', '</s>'.* three different tokens"):
        from_in_tree(copied(saved, tmp_path / "saved", pretrained_llm=str(shared)))


def test_what_is_no_whole_checkpoint_is_refused(saved, tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        from_in_tree(tmp_path / "missing")
    cut_off = copied(saved, tmp_path / "cut_off")
    (cut_off / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(InputError, match="cut_off is truncated"):
        from_in_tree(cut_off)
    with pytest.raises(InputError, match="unknown key 'salm_prompt'"):
        from_in_tree(copied(saved, tmp_path / "other", salm_prompt="x"))
    with pytest.raises(InputError, match="no embed_audio_tokens"):
        our_state({"lm_head.weight": torch.zeros(1)})
    perception = json.loads((saved / "config.json").read_text())["perception"]
    perception["encoder"]["n_layers"] = 3
    with pytest.raises(InputError, match="weights and configuration do not fit: .*Missing key"):
        from_in_tree(copied(saved, tmp_path / "misfit", perception=perception))


class Evil:
    def __reduce__(self):
        return (print, ("run!",))


def test_code_in_a_checkpoint_is_not_run(tmp_path, capsys):
    torch.save({"state_dict": {}, "hyper_parameters": {"cfg": {}}, "x": Evil()}, tmp_path / "evil.ckpt")
    message = (
        "evil.ckpt cannot be read without running code. Load it in NeMo, write a folder with save_pretrained, and give that"
    )
    with pytest.raises(InputError, match=message):
        from_in_tree(tmp_path / "evil.ckpt")
    whole = (tmp_path / "evil.ckpt").read_bytes()
    (tmp_path / "cut_off.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cut_off.ckpt is truncated .*. Copy it again.$"):
        from_in_tree(tmp_path / "cut_off.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": {}}, tmp_path / "other.ckpt")
    with pytest.raises(InputError, match="it is of another model"):
        from_in_tree(tmp_path / "other.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": {"cfg": {"pretrained_llm": "x"}}}, tmp_path / "salm.ckpt")
    with pytest.raises(InputError, match=r"salm.ckpt: This is not a checkpoint of NeMo's in-tree DuplexS2SModel"):
        from_in_tree(tmp_path / "salm.ckpt")
    assert "run!" not in capsys.readouterr().out


# --- our corpora in their dataset ------------------------------------------------------------------------------------------


def test_their_dataset_reads_cuts_with_every_event_without_a_warning(speechlm2, theirs, caplog):
    """Each turn of the agent has a start and an end; nothing beside the turns becomes text."""
    often = {"backchannel": 1.0, "backchannel_every": (0.3, 0.6)}
    events = Events(hesitation=1.0, **often, cough=1.0, side_talk=1.0, background_voice=1.0, babble=1.0)
    acoustics = Acoustics(leak=1.0, transmission=Transmission(tilt=1.0, clipping=1.0, telephone=1.0, packet_loss=1.0))
    rhythm = Rhythm(gaps=PEOPLE, response_gaps=PEOPLE_AS_AGENT)
    spec = DialogueSpec(quiet=0.0, events=events, acoustics=acoustics, rhythm=rhythm, concatenate=2, pauses=3)
    cuts = [DialogueCuts(spec, Grammar(), cast_of()).cut("train", index) for index in range(2)]
    kinds = {event["kind"] for made in cuts for event in made.custom["events"]}
    assert {"hesitation", "backchannel", "cough", "side_talk", "background_voice", "babble", "leak", "packet_loss"} <= kinds
    dataset = speechlm2.data.DuplexS2SDataset(
        theirs.tokenizer, frame_length=0.08, source_sample_rate=16000, target_sample_rate=22050, output_roles=["agent"]
    )
    caplog.clear()
    with warnings.catch_warnings(), caplog.at_level("WARNING"):
        warnings.simplefilter("error")
        batch = dataset[CutSet.from_cuts(cuts)]
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    for row, made in enumerate(cuts):
        tokens = batch["target_tokens"][row]
        turns = sum(s.speaker == "agent" for s in made.supervisions)
        assert int((tokens == theirs.tokenizer.bos).sum()) == turns == int((tokens == theirs.tokenizer.eos).sum())
        assert (
            batch["source_audio_lens"][row] / 1280 == batch["target_audio_lens"][row] / 1764 == batch["target_token_lens"][row]
        )
