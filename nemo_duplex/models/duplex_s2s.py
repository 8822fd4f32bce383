"""DuplexS2SModel: a DuplexAgent with NeMo's files and Lightning's training around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, Trainer
from nemo.core.classes import ModelPT
from nemo.core.classes.common import PretrainedModelInfo
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from nemo.utils import logging
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor
from torch.optim import Optimizer

from nemo_duplex.channels.targets import AgentTargets, lay_out
from nemo_duplex.data.batch import SILENCE, DuplexBatch
from nemo_duplex.data.datamodule import duplex_dataloader
from nemo_duplex.data.dataset import DuplexS2SDataset
from nemo_duplex.files.hub import nemo_file
from nemo_duplex.inputs import InputError, existing_file
from nemo_duplex.llm.experts import Routing, said_of_experts
from nemo_duplex.llm.lora import merged_state_dict
from nemo_duplex.llm.streamable import llm_name
from nemo_duplex.models import parallel
from nemo_duplex.models.agent import DuplexAgent
from nemo_duplex.models.duplex_lm import DuplexLM
from nemo_duplex.models.in_tree.config import is_in_tree, our_config
from nemo_duplex.models.losses import ChannelLoss, speech_loss, text_loss, with_experts
from nemo_duplex.models.metrics import StepSums
from nemo_duplex.models.model_config import FORMAT_VERSION, ModelConfig
from nemo_duplex.models.nemo.hub import push_to_hub
from nemo_duplex.models.nemo.restore_connector import RestoreConnector, check_what_nemo_restores
from nemo_duplex.models.parts import build_parts
from nemo_duplex.models.text_rows import train_specials_alone, without_decay
from nemo_duplex.models.throughput import Throughput
from nemo_duplex.models.training_speed import compile_layers, freeze, recompute_activations

if TYPE_CHECKING:
    from nemo_duplex.streaming.engine import DuplexEngine, Session

_DATA = ("train_ds", "validation_ds", "test_ds")


class DuplexS2SModel(DuplexAgent, ModelPT):
    """A full-duplex agent: user audio in, a text token and agent audio out, every 80 ms (SALM-Duplex, section 3).

    The config names pretrained parts (`pretrained_llm`, `pretrained_asr`, `pretrained_audio_codec`) or describes them (`llm`,
    `perception`, `codec`). The config of the built model describes every part, so its `.nemo` needs nothing else.

    Args:
        cfg: a `ModelConfig`, the `model` section of `conf/duplex_*.yaml`, or one written for NeMo's in-tree DuplexS2SModel.
        trainer: where the model is trained.

    Raises:
        InputError: for an unknown key, a part that is not given or cannot be read, or parts that do not fit each other.

    Examples:
        >>> model.user_sample_rate, model.agent_sample_rate
        (16000, 22050)
        >>> audio = torch.from_numpy(question)
        >>> out = model.offline_inference(audio[None], torch.tensor([len(audio)]))
        >>> out["audio"].shape[1] == int(out["tokens_len"][0]) * 1764      # one frame is 80 ms
        True
        >>> model.save_to("agent.nemo")
        >>> from nemo_duplex import DuplexS2SModel
        >>> DuplexS2SModel.restore_from("agent.nemo", map_location="cpu").layout == model.layout
        True
    """

    def __init__(self, cfg: ModelConfig | DictConfig | Mapping[str, Any], trainer: Trainer | None = None) -> None:
        check_what_nemo_restores(type(self), DuplexS2SModel)
        if not isinstance(cfg, ModelConfig):
            cfg = ModelConfig.of(our_config(cfg) if is_in_tree(cfg) else cfg)
        parts, config = build_parts(cfg)
        cfg = OmegaConf.create(config.as_dict())  # the name that Lightning writes into checkpoints
        data = {name: cfg.pop(name) for name in _DATA}  # NeMo would set it up now, before there is a tokenizer
        super().__init__(cfg=cfg, trainer=trainer)
        self.register_artifact("tokenizer.model_path", config.tokenizer.model_path)
        self.tokenizer, self.layout = parts.tokenizer, parts.layout
        self.perception, self.audio_codec = parts.perception, parts.codec
        self.lm = DuplexLM(self.layout, parts.backbone, config.user_weight)
        self.lm.backbone.fused_training = config.fused_training
        self.loss_weights = with_experts(config.loss, self.lm.backbone.experts_loss, llm_name(self.lm.backbone.config))
        self._validation: dict[str, StepSums] = {}
        self._weight_of_step: Tensor | float = 0.0  # of its batches so far, on all ranks
        freeze(self, config.freeze_params, [*config.prevent_freeze_params, *([r".+\.lora_"] if config.lora else [])])
        if config.text_rows == "specials":
            train_specials_alone(self.lm.backbone, self.layout)
        if config.activation_checkpointing:
            recompute_activations(self.perception, self.lm.backbone.llm)
        self._set_up(data)

    def _set_up(self, data: Mapping[str, DictConfig | None]) -> None:
        """Makes the data loaders that the config describes in NeMo's way, except while the model is restored from a file."""
        with open_dict(self.cfg):
            self.cfg.update(data)
        if not self._is_model_being_restored():
            if data["train_ds"]:
                self.setup_training_data(data["train_ds"])
            if data["validation_ds"]:
                self.setup_multiple_validation_data(data["validation_ds"])

    # ------------------------------------------------------------------ files

    @classmethod
    def list_available_models(cls) -> list[PretrainedModelInfo]:
        """None: no model is published. `make demo` trains one."""
        return []

    def save_to(self, save_path: str, merge_lora: bool = False) -> None:
        """Writes one `.nemo`, whole or not at all. In a training on many processes, call it on all of them.

        Args:
            merge_lora: whether LoRA adapters are merged into the weights that they adapt. The file then needs no peft, and a
                model restored from it trains all weights.
        """
        parallel.save_once(self, lambda: _write(_merged(self) if merge_lora and self.cfg.lora else self, save_path))

    @classmethod
    def restore_from(
        cls,
        restore_path: str | Path,
        override_config_path: str | DictConfig | None = None,
        map_location: Any = None,
        strict: bool = True,
        return_config: bool = False,
        save_restore_connector: SaveRestoreConnector | None = None,
        trainer: Trainer | None = None,
        validate_access_integrity: bool = True,
    ) -> DuplexS2SModel:
        """Reads an `agent.nemo`; arguments as `ModelPT.restore_from`. Needs no network and no other file.

        The file need not be trusted: no code in it is run, unless the caller's own connector does so.

        Raises:
            InputError: if the file is missing, broken, not safe, another model, of a newer format, or its weights do not fit.
        """
        connector = RestoreConnector.instead_of(save_restore_connector, DuplexS2SModel, FORMAT_VERSION)
        if isinstance(connector, RestoreConnector):
            existing_file(Path(restore_path).expanduser(), "model")
        arguments = (override_config_path, map_location, strict, return_config, connector, trainer, validate_access_integrity)
        return super().restore_from(str(restore_path), *arguments)

    @classmethod
    def from_pretrained(
        cls,
        model_name: str | Path,
        refresh_cache: bool = False,
        override_config_path: str | DictConfig | None = None,
        map_location: Any = None,
        strict: bool = True,
        return_config: bool = False,
        trainer: Trainer | None = None,
        save_restore_connector: SaveRestoreConnector | None = None,
        return_model_file: bool = False,
        *,
        revision: str | None = None,
        token: str | None = None,
    ) -> Any:
        """Reads a model from the Hugging Face Hub (`org/name`), a folder, or a `.nemo`; other arguments as `restore_from`.

        Args:
            revision: branch, tag or commit; None takes the main branch.
            token: of an account that may read it; None takes the one of `hf auth login`.

        Raises:
            InputError: if there is no such model, the hub cannot be reached, or as `restore_from`.
        """
        path = nemo_file(model_name, "model", revision, token, refresh_cache)
        if return_model_file:
            return str(path)
        arguments = (override_config_path, map_location, strict, return_config, save_restore_connector, trainer)
        return cls.restore_from(path, *arguments)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Uploads `.nemo`, card and config as `org/name` and returns the address; options and errors as `hub.push_to_hub`."""
        return push_to_hub(self, repo_id, **options)

    # ------------------------------------------------------------------ training

    def forward(self, batch: DuplexBatch, routing: Routing | None = None) -> tuple[Tensor, AgentTargets]:
        """Teacher-forced: hidden states (B, T, H) and the targets that they predict.

        Args:
            routing: takes what the routers of a mixture of experts said; None where that is not needed.
        """
        user, _ = self.perception(batch.user_audio, batch.user_audio_lens)
        targets = lay_out(batch.agent_tokens, self._codes(batch), batch.valid, self.layout)
        return self.lm(user, targets.tokens, targets.codes, routing), targets

    def _codes(self, batch: DuplexBatch) -> Tensor:
        """(B, K, T) codes of the batch: those of the data, or encoded now, without gradient; beyond either, silence."""
        silence = self.audio_codec.silence_codes[:, None]
        if batch.agent_codes is not None:
            if (found := batch.agent_codes.shape[1]) != len(silence):
                raise InputError(
                    f"The batch of {', '.join(batch.ids[:8])} has codes of {found} codebooks, the model's codec has "
                    f"{len(silence)}. Make batches by model.dataset(), which checks the codes of each cut."
                )
            return batch.agent_codes.where(batch.agent_codes != SILENCE, silence)
        assert batch.agent_audio is not None and batch.agent_audio_lens is not None, "A batch has codes or audio of the agent."
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            codes, _ = self.audio_codec.encode(batch.agent_audio.float(), batch.agent_audio_lens)
        frames = batch.agent_tokens.shape[1]
        beyond = silence.expand(len(codes), -1, max(0, frames - codes.shape[2]))
        return torch.cat([codes, beyond], dim=2)[:, :, :frames]

    def _losses(self, batch: DuplexBatch) -> tuple[ChannelLoss, ChannelLoss, StepSums, Tensor | None]:
        """Text loss, speech loss, sums and the loss of the experts, if there is one, of one batch on this rank."""
        weights, balance = self.loss_weights, self.lm.backbone.experts_loss
        routing = Routing() if balance is not None and weights.experts else None
        hidden, targets = self(batch, routing)
        experts = None if balance is None or routing is None else balance(routing, targets.valid)
        heads = (self.lm.backbone.plain_head, self.lm.speech_head.projection) if self.cfg.fused_training else (None, None)
        rows = self.lm.backbone.trained_rows
        text = text_loss(self.lm.text_logits, hidden, targets, self.layout, weights, heads[0], rows)
        speech = speech_loss(self.lm.speech_logits, hidden, targets, weights, heads[1])
        return text, speech, StepSums.of(text, speech, targets, self.layout, experts), experts

    def configure_model(self) -> None:
        """Lightning's hook: spreads the weights over the ranks under a model-parallel strategy."""
        if self.device_mesh is not None and self.cfg.text_rows == "specials":
            raise InputError(
                "model.text_rows is specials, which a strategy that spreads weights over ranks does not know: "
                "set it to all, or trainer.strategy to ddp."
            )
        parallel.shard(self, self.device_mesh)

    def setup_optimizer_param_groups(self) -> None:
        """NeMo's hook: the parameter groups of the optimizer, each on one device mesh."""
        super().setup_optimizer_param_groups()
        groups = without_decay(self._optimizer_param_groups, self.lm.backbone)  # type: ignore[has-type]
        self._optimizer_param_groups = parallel.groups_by_mesh(groups)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Lightning's hook: clips gradients by their norm over all ranks."""
        if self.device_mesh is None or not gradient_clip_val:
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            parallel.clip_gradients(self.parameters(), gradient_clip_val)

    def on_fit_start(self) -> None:
        """Lightning's hook: compiles the language model, where the config says so; says how its experts are balanced."""
        backbone = self.lm.backbone
        if said := said_of_experts(backbone.llm, backbone.experts_loss, self.loss_weights.experts):
            logging.info(said)
        if self.cfg.compile:
            compile_layers(self.lm.backbone.llm, self.cfg.compile)

    def training_step(self, batch: DuplexBatch | Mapping[str, Any], batch_idx: int) -> dict[str, Any]:
        """One batch: `loss` to minimise, the losses of both channels (means over the global batch) and its `StepSums`.

        A channel of which no frame has a weight, on any rank, has a loss of 0, and gradients of 0. See also
        `on_before_optimizer_step`.
        """
        text, speech, sums, experts = self._losses(self._as_our_batch(batch))
        sums = parallel.summed_over_ranks(sums, self.device_mesh)
        self._weight_of_step = self._weight_of_step + sums.weight(self.loss_weights)
        # Gradients are averaged over ranks, so each rank divides by the average weight: a frame counts the same on all ranks.
        text_share, speech_share = (sums.count(name) / sums.ranks for name in ("text_loss", "speech_loss"))
        loss = self.loss_weights.text * text.over(text_share) + self.loss_weights.speech * speech.over(speech_share)
        if experts is not None:  # a mean over the ranks that have frames
            loss = loss + experts * self.loss_weights.experts * sums.ranks / sums.count("experts_loss").clamp(min=1)
        means = {name: sums.mean(name).where(sums.count(name) > 0, 0.0) for name in ("text_loss", "speech_loss")}
        return {"loss": loss, "text_loss": means["text_loss"], "audio_loss": means["speech_loss"], "sums": sums}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Lightning's hook: takes away the gradients of a step in whose batches no frame has a weight, on any rank.

        They are 0, but weight decay and moments would still change the weights. Without gradients an optimizer leaves weights
        and its state as they are. The step counts for the schedule and `trainer.max_steps`, so that a training ends.
        """
        if not self._weight_of_step:
            optimizer.zero_grad(set_to_none=True)
        self._weight_of_step = 0.0

    def configure_callbacks(self) -> list[Callback]:
        """Lightning's hook: a `Throughput`, unless the trainer has one."""
        watched = any(isinstance(callback, Throughput) for callback in self._trainer.callbacks)
        return [] if watched else [Throughput()]

    def validation_step(self, batch: DuplexBatch | Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        """One batch, or one batch of each of several named sets (as NeMo's in-tree data module yields them)."""
        one_set = isinstance(batch, DuplexBatch) or "source_audio" in batch
        sets: Mapping[str, Any] = {"": batch} if one_set else batch  # type: ignore[assignment]
        for name, one in sets.items():
            if one is not None:  # None: this set has no more batches
                _, _, sums, _ = self._losses(self._as_our_batch(one))
                self._validation[name] = self._validation[name] + sums if name in self._validation else sums

    def on_validation_epoch_start(self) -> None:
        """Lightning's hook: starts the sums, with whole weights on each rank until the epoch ends."""
        self._validation = {}
        parallel.gather(self)

    def on_validation_epoch_end(self, sync_metrics: bool = False) -> None:
        """Logs `val_loss` and the means of `StepSums` as `val_...`, over whole sets: a frame counts the same in every batch."""
        parallel.release(self)
        for name, sums in parallel.merged_over_ranks(self._validation, self.device_mesh).items():
            if self._trainer is not None:
                prefix = f"val_{name}_" if name else "val_"
                self.log_dict({f"{prefix}{key}": value for key, value in sums.logged(self.loss_weights).items()})

    def _as_our_batch(self, batch: DuplexBatch | Mapping[str, Any]) -> DuplexBatch:
        if isinstance(batch, DuplexBatch):
            return batch
        return DuplexBatch.from_in_tree(batch, self.perception.samples_per_frame, self.layout.text_pad)

    def train(self, mode: bool = True) -> DuplexS2SModel:
        """As `nn.Module.train`; frozen parts stay in inference mode, without dropout."""
        super().train(mode)
        for part in (self.perception.encoder, self.lm.backbone.llm, self.audio_codec):
            if not any(p.requires_grad for p in part.parameters()):
                part.eval()
        self.perception.preprocessor.eval()  # in training mode it adds dither
        return self

    def dataset(self, **arguments: Any) -> DuplexS2SDataset:
        """The dataset that fits this model's tokenizer, rates and codec; `arguments` replace or add others, such as roles."""
        fitting = {
            "frame_length": self.perception.frame_rate.seconds,
            "source_sample_rate": self.user_sample_rate,
            "target_sample_rate": self.agent_sample_rate,
            "text_alignment": self.cfg.text_alignment,
            "num_codebooks": self.layout.num_codebooks,
            "codebook_size": self.layout.codebook_size,
        }
        return DuplexS2SDataset(self.tokenizer, **{**fitting, **arguments})

    def setup_training_data(self, train_data_config: DictConfig | dict) -> None:
        """NeMo's hook for `model.train_ds`. (The examples give the trainer a DuplexDataModule instead.)"""
        self._train_dl = duplex_dataloader(train_data_config, self.dataset())

    def setup_validation_data(self, val_data_config: DictConfig | dict) -> None:
        """NeMo's hook for `model.validation_ds`."""
        self._validation_dl = duplex_dataloader(val_data_config, self.dataset())

    # ------------------------------------------------------------------ live sessions: the only imports of streaming/

    def open_session(self, **options: Any) -> Session:
        """A live conversation with one caller: push PCM, get frames. Options as `DuplexEngine.open_session`."""
        from nemo_duplex.streaming.engine import open_session

        return open_session(self, **options)

    def open_engine(self, max_sessions: int = 64, **options: Any) -> DuplexEngine:
        """An engine for many callers, with one batched step per frame. Options as `DuplexEngine`."""
        from nemo_duplex.streaming.engine import DuplexEngine

        return DuplexEngine(self, max_sessions, **options)


def _merged(model: DuplexS2SModel) -> DuplexS2SModel:
    """The same model with its adapters merged.

    A function, because Lightning takes the arguments of any method that calls `super` for those of the constructor below it.
    """
    cfg = model.cfg.copy()
    with open_dict(cfg):
        cfg.lora = None
        cfg.update(dict.fromkeys(_DATA))
    plain = DuplexS2SModel(cfg)
    plain.load_state_dict(merged_state_dict(model))
    return plain


def _write(model: DuplexS2SModel, path: str) -> None:
    """Writes the `.nemo` by our connector, in place of NeMo's plain one."""
    nemos = model._save_restore_connector
    model._save_restore_connector = RestoreConnector.instead_of(nemos, DuplexS2SModel, FORMAT_VERSION)
    ModelPT.save_to(model, path)
