"""The training shell: losses of a step and of a validation, what is frozen, data in NeMo's way, files."""

from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch
from nemo.core.classes import ModelPT
from omegaconf import OmegaConf

from nemo_duplex.data.batch import SILENCE, DuplexBatch
from nemo_duplex.inputs import InputError
from nemo_duplex.llm.pretrained import random_llm
from nemo_duplex.models import parallel
from nemo_duplex.models.duplex_s2s import DuplexS2SModel
from nemo_duplex.models.metrics import StepSums
from tests.dummies import EXPERTS, speech_like, tiny_config, tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def nemo(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "agent.nemo"
    model.save_to(str(path))
    return path


def batch(model, lengths=(20, 15), codes=True):
    torch.manual_seed(1)
    frames = max(lengths)
    tokens = torch.full((len(lengths), frames), model.layout.text_pad)
    tokens[:, 4], tokens[:, 5:8], tokens[:, 12] = model.layout.text_bos, 7, model.layout.text_eos
    return DuplexBatch(
        ids=[f"c{i}" for i in range(len(lengths))],
        user_audio=torch.stack([speech_like(frames * 0.08, seed) for seed in range(len(lengths))]),
        user_audio_lens=torch.tensor(lengths) * 1280,
        agent_tokens=tokens,
        num_frames=torch.tensor(lengths),
        agent_codes=torch.randint(0, model.layout.codebook_size, (len(lengths), model.layout.num_codebooks, frames))
        if codes
        else None,
        agent_audio=None if codes else torch.stack([speech_like(frames * 0.08, s, 22050) for s in range(len(lengths))]),
        agent_audio_lens=None if codes else torch.tensor(lengths) * 1764,
    )


# ---------------------------------------------------------------------- a training step


@pytest.mark.parametrize("codes", [True, False], ids=["codes of the data", "codes made now"])
def test_the_loss_falls(tmp_path, codes):
    model = DuplexS2SModel(tiny_config(tmp_path))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss = model.training_step(batch(model, codes=codes), 0)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert all(p.grad is None for p in model.audio_codec.parameters()), "The codec is frozen while the agent trains."


def test_a_step_is_the_weighted_sum_of_both_means(model):
    with torch.no_grad():
        text, speech, *_ = model._losses(batch(model))
        step = model.training_step(batch(model), 0)
    assert step["text_loss"].item() == pytest.approx(text.mean.item(), rel=1e-6)
    assert step["audio_loss"].item() == pytest.approx(speech.mean.item(), rel=1e-6)
    assert step["loss"].item() == pytest.approx(3 * text.mean.item() + speech.mean.item(), rel=1e-6)


def test_a_quiet_batch_has_no_text_loss_where_pads_have_no_weight(tmp_path):
    model = DuplexS2SModel(tiny_config(tmp_path, loss={"text_pad": 0.0, "silence": 1e-9}))
    quiet = batch(model)
    quiet.agent_tokens.fill_(model.layout.text_pad)
    step = model.training_step(quiet, 0)
    assert [step[name].item() for name in ("loss", "text_loss", "audio_loss")] == [0.0, 0.0, 0.0]
    assert "loss" not in step["sums"].logged(model.loss_weights)
    step["loss"].backward()
    gradients = [p.grad for name, p in model.named_parameters() if p.requires_grad]
    assert all(g is not None and not g.any() for g in gradients), "every rank reduces the same gradients"


def test_a_quiet_batch_trains_speech_alone(tmp_path):
    model = DuplexS2SModel(tiny_config(tmp_path, loss={"text_pad": 0.0}))
    quiet = batch(model)
    quiet.agent_tokens.fill_(model.layout.text_pad)
    step = model.training_step(quiet, 0)
    assert step["text_loss"] == 0 and step["loss"].item() == pytest.approx(step["audio_loss"].item()) and step["loss"] > 1


def test_a_quiet_batch_leaves_the_mean_over_ranks_as_it_is(tmp_path, monkeypatch):
    model = DuplexS2SModel(tiny_config(tmp_path, loss={"text_pad": 0.0, "speech": 0.0})).eval()
    spoken, quiet = batch(model), batch(model)
    quiet.agent_tokens.fill_(model.layout.text_pad)
    with torch.no_grad():
        (text, _, sums, _), (_, _, none, _) = model._losses(spoken), model._losses(quiet)
        together = StepSums(sums.names, sums.sums + none.sums, sums.counts + none.counts, 2)
        monkeypatch.setattr(parallel, "summed_over_ranks", lambda own, mesh: together)
        losses = [model.training_step(one, 0)["loss"].item() for one in (spoken, quiet)]
    assert losses[1] == 0 and sum(losses) / 2 == pytest.approx(3 * text.mean.item(), rel=1e-5)


def quiet_batch(model):
    quiet = batch(model)
    quiet.agent_tokens.fill_(model.layout.text_pad)
    return quiet


def weights_and_moments(model):
    state = model.trainer.optimizers[0].state_dict()["state"]
    moments = {f"{i} {name}": torch.as_tensor(value) for i, one in state.items() for name, value in one.items()}
    return {name: value.detach().clone() for name, value in {**model.state_dict(), **moments}.items()}


@pytest.mark.parametrize(
    ("turns", "accumulated", "changes"),
    [("TQT", 1, [True, False, True]), ("QQT", 1, [False, False, True]), ("TTTQQQQTQQ", 2, [True, True, False, True, False])],
)
def test_a_step_without_a_frame_that_has_weight_changes_no_weight_and_no_moment(tmp_path, turns, accumulated, changes):
    model = DuplexS2SModel(tiny_config(tmp_path, loss={"text_pad": 0.0, "speech": 0.0}))
    states = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, *args):
            states.append(weights_and_moments(model))

    batches = [batch(model) if turn == "T" else quiet_batch(model) for turn in turns]
    trainer = pl.Trainer(
        max_steps=len(changes),
        max_epochs=-1,
        accelerator="cpu",
        accumulate_grad_batches=accumulated,
        gradient_clip_val=1.0,
        callbacks=[Watch()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    model.set_trainer(trainer)
    model.setup_optimization({"name": "adamw", "lr": 1e-2, "weight_decay": 0.1})
    states.append({name: value.detach().clone() for name, value in model.state_dict().items()})
    trainer.fit(model, torch.utils.data.DataLoader(batches, batch_size=None))
    ends = states[::accumulated]
    changed = []
    for before, after in zip(ends, ends[1:]):
        assert before.keys() <= after.keys()
        changed.append(before.keys() != after.keys() or any(not torch.equal(before[name], after[name]) for name in before))
    assert changed == changes
    assert trainer.global_step == len(changes), "the step counts, or a training on such data would have no end"


def test_a_step_is_taken_where_another_rank_or_channel_or_the_experts_have_weight(tmp_path, monkeypatch):
    def is_taken(model, batch):
        loss = model.training_step(batch, 0)["loss"]
        optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
        loss.backward()
        model.on_before_optimizer_step(optimizer)
        return all(p.grad is not None for group in optimizer.param_groups for p in group["params"])

    model = DuplexS2SModel(tiny_config(tmp_path, loss={"text_pad": 0.0, "speech": 0.0}))
    quiet = quiet_batch(model)
    assert is_taken(model, batch(model)) and not is_taken(model, quiet)
    with torch.no_grad():
        sums = model._losses(batch(model))[2] + model._losses(quiet)[2]
    with monkeypatch.context() as patched:
        patched.setattr(parallel, "summed_over_ranks", lambda own, mesh: StepSums(sums.names, sums.sums, sums.counts, 2))
        assert is_taken(model, quiet)
    assert not is_taken(model, quiet)
    assert is_taken(DuplexS2SModel(tiny_config(tmp_path, loss={"text_pad": 0.0})), quiet)
    balanced = {"text_pad": 0.0, "speech": 0.0, "experts": 0.5}
    assert is_taken(tiny_model(tmp_path, llm=EXPERTS, loss=balanced), quiet)
    assert not is_taken(tiny_model(tmp_path, llm=EXPERTS, loss=balanced | {"experts": 0.0}), quiet)


def test_codes_of_another_number_of_codebooks_are_refused(model):
    one = batch(model)
    with pytest.raises(InputError, match="^The batch of c0, c1 has codes of 1 codebooks, the model's codec has 2. Make"):
        model.training_step(replace(one, agent_codes=one.agent_codes[:, :1]), 0)


def test_its_dataset_knows_the_codec(model):
    dataset = model.dataset()
    assert (dataset.num_codebooks, dataset.codebook_size) == (2, 36)


def test_a_frame_counts_the_same_on_every_rank(model, monkeypatch):
    """Gradients are averaged over ranks, so the average of what two ranks minimise is the loss of both their batches."""
    batches = [batch(model, (20, 15)), batch(model, (13,))]
    with torch.no_grad():
        texts, speeches, sums, _ = zip(*(model._losses(one) for one in batches))
        together = StepSums(sums[0].names, sums[0].sums + sums[1].sums, sums[0].counts + sums[1].counts, 2)
        monkeypatch.setattr(parallel, "summed_over_ranks", lambda own, mesh: together)
        steps = [model.training_step(one, 0) for one in batches]
    text, speech = (sum(c.total for c in cs) / sum(c.weight for c in cs) for cs in (texts, speeches))
    assert sum(step["loss"] for step in steps).item() / 2 == pytest.approx((3 * text + speech).item(), rel=1e-5)
    for step in steps:
        assert step["text_loss"].item() == pytest.approx(text.item(), rel=1e-5), "every rank logs the global batch"
        assert step["audio_loss"].item() == pytest.approx(speech.item(), rel=1e-5)
        assert step["sums"] is together


def test_padding_changes_no_loss(model):
    padded = batch(model, lengths=(20, 15))
    with torch.no_grad():
        before = model.training_step(padded, 0)
        padded.user_audio[1, 15 * 1280 :] = 0.9
        padded.agent_tokens[1, 15:] = 9
        padded.agent_codes[1, :, 15:] = 3
        after = model.training_step(padded, 0)
    for loss in ("loss", "text_loss", "audio_loss"):
        assert before[loss].item() == pytest.approx(after[loss].item(), rel=1e-6), loss


@pytest.mark.parametrize("frames", [18, 20, 23])
def test_codes_made_now_are_cut_or_padded_to_the_frames_and_made_in_float32(model, monkeypatch, frames):
    made = torch.randint(1, 9, (2, 2, frames))

    def encode(audio, lens):
        assert audio.dtype == torch.float32 and not torch.is_autocast_enabled("cpu") and not torch.is_grad_enabled()
        assert lens.tolist() == [20 * 1764, 15 * 1764]
        return made, None

    monkeypatch.setattr(model.audio_codec, "encode", encode)
    with torch.autocast("cpu", torch.bfloat16):
        codes = model._codes(batch(model, codes=False))
    assert codes.shape == (2, 2, 20) and torch.equal(codes[:, :, :18], made[:, :, :18])
    silence = model.audio_codec.silence_codes[:, None].expand(2, 2, 2)
    assert silence.any() and torch.equal(codes[:, :, 18:], made[:, :, 18:20] if frames > 18 else silence)


def test_silence_in_the_data_is_that_of_the_codec(model):
    """Padding has no codes of its own: 0 is a code that sounds."""
    padded = batch(model)
    given = padded.agent_codes.clone()
    padded.agent_codes[:, :, 15:] = SILENCE
    codes = model._codes(padded)
    assert torch.equal(codes[:, :, :15], given[:, :, :15])
    assert torch.equal(codes[:, :, 15:], model.audio_codec.silence_codes[:, None].expand(2, 2, 5))
    assert model.training_step(padded, 0)["loss"].isfinite()


def test_gradients_are_clipped_over_the_whole_mesh_where_there_is_one(tmp_path):
    model = DuplexS2SModel(tiny_config(tmp_path))
    model._device_mesh = object()  # of a model-parallel strategy
    weight = next(p for p in model.parameters() if p.requires_grad)
    weight.grad = torch.ones_like(weight)
    model.configure_gradient_clipping(None, 0.5)
    assert weight.grad.norm().item() == pytest.approx(0.5, rel=1e-5)


# ---------------------------------------------------------------------- experts


@pytest.fixture(scope="module")
def experts(tmp_path_factory):
    return tiny_model(
        tmp_path_factory.mktemp("experts"), llm=EXPERTS, attention_window=32
    )  # of 20 frames: transformers has none


def balance(model, one):
    """What transformers' own forward gives for the frames that the language model gets."""
    lm, padding = model.lm, torch.arange(one.agent_tokens.shape[1]) < one.num_frames[:, None]
    targets, given = model(one)[1], []
    hook = lm.backbone.llm.register_forward_pre_hook(lambda *call: given.append(call[2]["inputs_embeds"]), with_kwargs=True)
    model(one)
    hook.remove()
    assert torch.equal(targets.valid, padding)
    whole = random_llm(OmegaConf.to_container(model.cfg.llm)).eval()
    whole.model.load_state_dict(lm.backbone.llm.state_dict(), strict=False)
    whole.lm_head.load_state_dict(lm.backbone.lm_head.state_dict())
    return whole(
        inputs_embeds=given[0], attention_mask=padding.long(), labels=targets.tokens, output_router_logits=True, use_cache=False
    ).aux_loss


@torch.no_grad()
def test_the_loss_of_the_experts_is_added_with_the_weight_of_the_language_model(experts):
    one = batch(experts)
    text, speech, *_ = experts._losses(one)
    step, expected = experts.training_step(one, 0), balance(experts, one).item()
    assert step["sums"].mean("experts_loss").item() == pytest.approx(expected, rel=1e-6)
    assert step["loss"].item() == pytest.approx((3 * text.mean + speech.mean).item() + 0.02 * expected, rel=1e-6)
    logged = step["sums"].logged(experts.loss_weights)
    assert logged["loss"] == pytest.approx(step["loss"].item(), rel=1e-6)
    assert logged["experts_loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_weight_of_the_experts_is_a_key_and_0_asks_no_router(tmp_path, monkeypatch, weight):
    model, asked = tiny_model(tmp_path, llm=EXPERTS, loss={"experts": weight}), []
    hook = model.lm.backbone.llm.register_forward_pre_hook(lambda *call: asked.append(call[2]), with_kwargs=True)
    step = model.training_step(batch(model), 0)
    hook.remove()
    assert [kwargs.get("output_router_logits", False) for kwargs in asked] == [weight > 0]
    sums = step["sums"].logged(model.loss_weights)
    assert ("experts_loss" in sums) is (weight > 0)
    expected = 3 * sums["text_loss"] + sums["speech_loss"] + weight * sums.get("experts_loss", 0.0)
    assert step["loss"].item() == pytest.approx(expected, rel=1e-6)
    assert model.cfg.loss.experts == weight


@torch.no_grad()
def test_the_loss_of_the_experts_is_a_mean_over_ranks_that_have_frames(experts, monkeypatch):
    batches = [batch(experts, (20, 15)), batch(experts, (13,)), batch(experts, (20, 15))]
    batches[2].num_frames.zero_()
    losses = [experts._losses(one) for one in batches]
    sums = [one[2] for one in losses]
    together = StepSums(sums[0].names, sum(s.sums for s in sums), sum(s.counts for s in sums), 3)
    monkeypatch.setattr(parallel, "summed_over_ranks", lambda own, mesh: together)
    mean = sum(experts.training_step(one, 0)["loss"] for one in batches) / 3
    balanced = (losses[0][3] + losses[1][3]) / 2
    assert balanced > 1.9 and losses[2][3] == 0
    channels = 3 * together.mean("text_loss") + together.mean("speech_loss")
    assert mean.item() == pytest.approx((channels + 0.02 * balanced).item(), rel=1e-5)


def test_a_training_says_how_its_experts_are_balanced(experts, model, monkeypatch):
    said = []
    monkeypatch.setattr("nemo_duplex.models.duplex_s2s.logging.info", said.append)
    experts.on_fit_start()
    model.on_fit_start()  # has none
    assert said == ["The load-balancing loss of the experts is added with weight 0.02 (model.loss.experts)."]


@torch.no_grad()
def test_the_loss_of_the_experts_is_validated(experts, monkeypatch):
    values: dict[str, float] = {}
    monkeypatch.setattr(experts, "log_dict", values.update)
    monkeypatch.setattr(experts, "_trainer", object())
    one = batch(experts)
    validate(experts, one)
    assert values["val_experts_loss"] == pytest.approx(balance(experts, one).item(), rel=1e-6)
    channels = 3 * values["val_text_loss"] + values["val_speech_loss"]
    assert values["val_loss"] == pytest.approx(channels + 0.02 * values["val_experts_loss"], rel=1e-6)


def test_an_agent_with_experts_streams_what_it_says_offline_and_asks_no_router(experts, monkeypatch):
    audio, asked = speech_like(1.2), []
    hook = experts.lm.backbone.llm.register_forward_pre_hook(lambda *call: asked.append(call[2]), with_kwargs=True)
    offline = experts.offline_inference(audio[None], torch.tensor([len(audio)]), decode_audio=False)
    session = experts.open_session()
    tokens = [frame.token for frame in [*session.push(audio.numpy()), *session.flush()]]
    hook.remove()
    assert tokens == offline["tokens_text"][0].tolist() and len(set(tokens)) > 2
    assert len(asked) >= 30 and not any("output_router_logits" in kwargs for kwargs in asked)


# ---------------------------------------------------------------------- validation


@pytest.fixture
def logged(model, monkeypatch):
    """What is logged."""
    values: dict[str, float] = {}
    monkeypatch.setattr(model, "log_dict", values.update)
    monkeypatch.setattr(model, "_trainer", object())
    return values


@torch.no_grad()
def validate(model, *batches):
    model.on_validation_epoch_start()
    for one in batches:
        model.validation_step(one, 0)
    model.on_validation_epoch_end()


def test_validation_is_a_mean_over_frames_not_over_batches(model, logged):
    """NeMo's in-tree metrics average the averages of batches of different size (nemo.md, 1.13)."""
    validate(model, batch(model, (14,)))  # of an earlier epoch: forgotten
    logged.clear()
    validate(model, batch(model, (20, 15)), batch(model, (13,)))
    with torch.no_grad():
        together = model._losses(batch(model, (20, 15)))[2] + model._losses(batch(model, (13,)))[2]
    assert logged["val_loss"] == pytest.approx(3 * together.mean("text_loss").item() + together.mean("speech_loss").item())
    assert logged["val_eos_accuracy"] == pytest.approx(together.mean("eos_accuracy").item())
    assert {"val_text_accuracy", "val_bos_accuracy", "val_codebook_1_accuracy", "val_padding_ratio"} <= logged.keys()


def test_named_sets_are_logged_apart_until_each_ends(model, logged):
    one, other = batch(model, (20, 15)), batch(model, (13,))
    validate(model, {"easy": one, "hard": other}, {"easy": other, "hard": None})
    found = dict(logged)
    logged.clear()
    validate(model, one, other)
    assert found["val_easy_loss"] == pytest.approx(logged["val_loss"])
    logged.clear()
    validate(model, other)
    assert found["val_hard_loss"] == pytest.approx(logged["val_loss"])
    assert not any(name in found for name in ("val_loss", "val__loss"))


def test_weights_are_gathered_for_a_validation_and_released_after_it(model, logged, monkeypatch):
    calls = []
    for name in ("gather", "release"):
        monkeypatch.setattr(parallel, name, lambda model, name=name: calls.append(name))
    model.on_validation_epoch_start()
    assert calls == ["gather"]
    model.on_validation_epoch_end()
    assert calls == ["gather", "release"]


# ---------------------------------------------------------------------- what is trained


@pytest.mark.parametrize("patterns", [["^perception\\.encoder\\."], ["^llm\\..+$"], ["^lm\\.backbone\\.llm\\."]])
def test_frozen_parts_stay_in_inference_mode(tmp_path, patterns):
    model = DuplexS2SModel(tiny_config(tmp_path, freeze_params=patterns)).train()
    encoder, llm = model.perception.encoder, model.lm.backbone.llm
    frozen, trained = (encoder, llm) if "perception" in patterns[0] else (llm, encoder)
    assert not any(p.requires_grad for p in frozen.parameters()) and not frozen.training
    assert all(p.requires_grad for p in trained.parameters()) and trained.training and model.training
    assert not model.perception.preprocessor.training, "it would add dither"
    assert not model.audio_codec.training
    assert not model.eval().perception.encoder.training


def test_a_partly_frozen_part_is_in_training(tmp_path):
    patterns = [r"^perception\.encoder\.layers\.0\."]
    model = DuplexS2SModel(tiny_config(tmp_path, freeze_params=patterns)).eval().train()
    assert not any(p.requires_grad for p in model.perception.encoder.layers[0].parameters())
    assert model.perception.encoder.training and model.perception.encoder.layers[0].training, "its other layers still learn"


def test_exceptions_from_freezing(tmp_path):
    exceptions = {"freeze_params": ["^llm"], "prevent_freeze_params": ["^llm.norm"]}
    lora = {"r": 2, "target_modules": ["q_proj"]}
    model = DuplexS2SModel(tiny_config(tmp_path, **exceptions, lora=lora))
    trained = {name for name, p in model.lm.backbone.llm.named_parameters() if p.requires_grad}
    layers = {f"layers.{i}.self_attn.q_proj.lora_{side}.default.weight" for i in (0, 1) for side in "AB"}
    assert trained == layers, "adapters are trained whatever is frozen; under lora nothing else of the language model is"
    plain = DuplexS2SModel(tiny_config(tmp_path, **exceptions))
    assert [name for name, p in plain.lm.backbone.llm.named_parameters() if p.requires_grad] == ["norm.weight"]


def test_adapters_train_alone_and_are_merged_on_request(tmp_path):
    model = DuplexS2SModel(tiny_config(tmp_path, lora={"task_type": "CAUSAL_LM", "r": 2, "target_modules": ["q_proj"]}))
    trained = {name for name, p in model.lm.backbone.llm.named_parameters() if p.requires_grad}
    assert trained and all(".lora_" in name for name in trained)
    for name, p in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(p)
    model.save_to(str(tmp_path / "adapted.nemo"))
    model.save_to(str(tmp_path / "merged.nemo"), merge_lora=True)
    hidden = {}
    for name in ("adapted", "merged"):
        again = DuplexS2SModel.restore_from(str(tmp_path / f"{name}.nemo"), map_location="cpu").eval()
        assert bool(again.cfg.lora) == any(".lora_" in key for key in again.state_dict()) == (name == "adapted")
        with torch.no_grad():
            hidden[name], _ = again(batch(again))
    assert torch.allclose(hidden["adapted"], hidden["merged"], atol=1e-5)


def test_keys_of_the_config_reach_the_network(tmp_path):
    model = DuplexS2SModel(tiny_config(tmp_path, user_weight=2.5, loss={"silence": 0.25}, activation_checkpointing=True))
    assert model.lm.user_weight == 2.5 and model.loss_weights.silence == 0.25
    assert model.lm.backbone.llm.is_gradient_checkpointing


# ---------------------------------------------------------------------- data


def test_a_dataset_fits_the_model_unless_told_otherwise(tmp_path):
    model = DuplexS2SModel(tiny_config(tmp_path, text_alignment="word"))
    fitting = model.dataset()
    assert fitting.tokenizer is model.tokenizer and fitting.text_alignment == "word"
    assert (fitting.user_sample_rate, fitting.agent_sample_rate, fitting.frame_rate.hz) == (16000, 22050, 12.5)
    other = model.dataset(text_alignment="turn", output_roles=["assistant"])
    assert other.text_alignment == "turn" and other.speakers == {"user": "user", "assistant": "agent"}


def test_loaders_of_the_config_are_made_but_not_while_a_file_is_restored(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(DuplexS2SModel, "setup_training_data", lambda self, config: asked.append(("train", config.shar)))
    monkeypatch.setattr(
        DuplexS2SModel, "setup_multiple_validation_data", lambda self, config: asked.append(("validation", config.shar))
    )
    model = DuplexS2SModel(tiny_config(tmp_path, train_ds={"shar": "a"}, validation_ds={"shar": "b"}))
    assert asked == [("train", "a"), ("validation", "b")]
    model.save_to(str(tmp_path / "agent.nemo"))
    again = DuplexS2SModel.restore_from(tmp_path / "agent.nemo", map_location="cpu")
    assert len(asked) == 2 and again.cfg.train_ds.shar == "a" and again.cfg.validation_ds.shar == "b"


# ---------------------------------------------------------------------- files


def test_an_unknown_key_names_the_nearest(tmp_path):
    with pytest.raises(InputError, match="unknown key 'speech_delai'. Did you mean 'speech_delay'"):
        DuplexS2SModel(tiny_config(tmp_path, speech_delai=1))


def test_a_restored_model_is_saved_again_when_its_file_is_gone(nemo, tmp_path):
    """NeMo would unpack the tokenizer from the first file once more."""
    (tmp_path / "first.nemo").write_bytes(nemo.read_bytes())
    model = DuplexS2SModel.restore_from(str(tmp_path / "first.nemo"), map_location="cpu")
    (tmp_path / "first.nemo").unlink()
    model.save_to(str(tmp_path / "second.nemo"))
    again = DuplexS2SModel.restore_from(str(tmp_path / "second.nemo"), map_location="cpu")
    assert again.tokenizer.text_to_ids("It is one.") == model.tokenizer.text_to_ids("It is one.")


def test_the_saved_config_describes_every_part(nemo):
    config = ModelPT.restore_from(str(nemo), return_config=True)
    assert config.pretrained_asr is None and config.pretrained_audio_codec is None
    assert config.codec.sample_rate == 22050 and config.perception.encoder.d_model == 16 and config.format_version == 2
    assert config.target == "nemo_duplex.models.duplex_s2s.DuplexS2SModel"
    assert config.tokenizer.model_path.startswith("nemo:")
