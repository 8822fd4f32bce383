"""DuplexS2SModel: the NeMo and Lightning shell around perception, language model and codec."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from nemo.collections.common.tokenizers import SentencePieceTokenizer
from nemo.core.classes import ModelPT
from nemo.core.classes.common import PretrainedModelInfo
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor

from nemo_duplex.channels import ChannelLayout
from nemo_duplex.codec.fsq_codec import FSQCodec
from nemo_duplex.data.batch import DuplexBatch
from nemo_duplex.data.datamodule import duplex_dataloader
from nemo_duplex.data.dataset import DuplexS2SDataset
from nemo_duplex.inputs import InputError
from nemo_duplex.models.backbone import Backbone
from nemo_duplex.models.duplex_lm import AgentTargets, DuplexLM, lay_out
from nemo_duplex.models.losses import DuplexLoss, LossWeights, duplex_loss, speech_loss, text_loss
from nemo_duplex.models.perception import Perception
from nemo_duplex.nemo_file import read_nemo_config

if TYPE_CHECKING:
    from nemo_duplex.streaming.session import Session

#: Raised with every change that an older reader of the `.nemo` would get wrong.
FORMAT_VERSION = 1


class DuplexS2SModel(ModelPT):
    """A full-duplex agent: hears 16 kHz, writes and speaks 80 ms frames (SALM-Duplex, section 3).

    The config names pretrained parts (`pretrained_asr`, `pretrained_audio_codec`) or describes them (`perception`, `codec`,
    `llm`). Once built, the model's own config describes every part, so that its `.nemo` needs nothing else.

    Args:
        cfg: the `model` section of `conf/duplex_*.yaml`.
        trainer: where the model is trained.
    """

    def __init__(self, cfg: DictConfig, trainer: Trainer | None = None) -> None:
        cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True) if isinstance(cfg, DictConfig) else cfg)
        version = cfg.get("format_version", FORMAT_VERSION)
        if version > FORMAT_VERSION:
            raise InputError(
                f"This model has format {version}, nemo_duplex here reads up to {FORMAT_VERSION}. Install a newer one."
            )
        perception, codec = _perception(cfg), _codec(cfg)
        super().__init__(cfg=cfg, trainer=trainer)
        tokenizer_path = self.register_artifact("tokenizer.model_path", self.cfg.tokenizer.model_path)
        self.tokenizer = SentencePieceTokenizer(tokenizer_path)
        self.layout = _layout(self.tokenizer, codec, self.cfg.speech_delay)
        backbone = Backbone(
            {**OmegaConf.to_container(self.cfg.llm), "vocab_size": self.layout.text_vocab_size}, self.cfg.attention_window
        )
        self.perception, self.audio_codec = perception, codec.eval().requires_grad_(False)
        self.lm = DuplexLM(self.layout, backbone)
        self.loss_weights = LossWeights(**self.cfg.loss)
        self._check_grids()
        with open_dict(self._cfg):
            self._cfg.format_version = FORMAT_VERSION
            self._cfg.llm.vocab_size = self.layout.text_vocab_size

    # ------------------------------------------------------------------ what the model is

    @property
    def user_sample_rate(self) -> int:
        return self.perception.sample_rate

    @property
    def agent_sample_rate(self) -> int:
        return self.audio_codec.sample_rate

    @classmethod
    def list_available_models(cls) -> list[PretrainedModelInfo]:
        """There is none to download: `make demo` trains one."""
        return []

    @classmethod
    def restore_from(cls, restore_path: str, *args: Any, **kwargs: Any) -> DuplexS2SModel:
        """Reads an `agent.nemo`; arguments as `ModelPT.restore_from`. Needs no network and no other file.

        Raises:
            InputError: if the file is missing, truncated, another model, of a newer format, or its weights do not fit.
        """
        read_nemo_config(restore_path, "model", cls.__name__)
        try:
            return super().restore_from(str(restore_path), *args, **kwargs)
        except InputError:
            raise
        except (RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"model: {restore_path} cannot be restored ({reason}). Copy or train it again.") from error
        finally:  # NeMo forgets this after a failure, and later models would get no data loaders
            cls._set_model_restore_state(is_being_restored=False)

    def _check_grids(self) -> None:
        heard, spoken = self.perception.frame_rate, self.audio_codec.frame_rate
        if heard.hz != spoken.hz:
            raise InputError(
                f"The user encoder has {float(heard.hz):g} frames per second and the codec {float(spoken.hz):g}: "
                "they must be the same. Choose another codec or encoder."
            )
        if self.perception.output_dim != self.lm.backbone.hidden_size:
            raise InputError(
                f"The user encoder gives {self.perception.output_dim} features, the language model takes "
                f"{self.lm.backbone.hidden_size}: set model.perception.output_dim to the latter."
            )

    # ------------------------------------------------------------------ training

    def forward(self, batch: DuplexBatch) -> tuple[Tensor, AgentTargets, Tensor]:
        """Teacher-forced: hidden states (B, T, H), the targets they predict, and which frames are valid (B, T)."""
        user, _ = self.perception(batch.user_audio, batch.user_audio_lens)
        valid = batch.valid
        tokens = batch.agent_tokens.where(valid, self.layout.text_pad)  # the layout moves text ahead: no padding may come along
        targets = lay_out(tokens, self._codes(batch), self.layout)
        return self.lm(user, targets.tokens, targets.codes), targets, valid

    def _codes(self, batch: DuplexBatch) -> Tensor:
        """(B, K, T) codes of the batch: made once with the data, else now, without gradient."""
        if batch.agent_codes is not None:
            return batch.agent_codes
        assert batch.agent_audio is not None and batch.agent_audio_lens is not None, "A batch has codes or audio of the agent."
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            codes, _ = self.audio_codec.encode(batch.agent_audio.float(), batch.agent_audio_lens)
        frames = batch.agent_tokens.shape[1]
        return torch.nn.functional.pad(codes, (0, max(0, frames - codes.shape[2])))[:, :, :frames]

    def _losses(self, batch: DuplexBatch) -> tuple[DuplexLoss, Tensor, AgentTargets, Tensor]:
        hidden, targets, valid = self(batch)
        text = text_loss(self.lm.text_logits(hidden), targets.tokens, valid, self.layout, self.loss_weights)
        speech = speech_loss(self.lm.speech_logits, hidden, targets, valid, self.loss_weights)
        return duplex_loss(text, speech, self.loss_weights), hidden, targets, valid

    def training_step(self, batch: DuplexBatch, batch_idx: int) -> Tensor:
        losses, *_ = self._losses(batch)
        group = self.optimizers().param_groups[0]
        self.log_dict({"loss": losses.total, "text": losses.text, "speech": losses.speech}, prog_bar=True)
        self.log("lr", group["lr"])
        self.log("audio_seconds", batch.user_audio_lens.sum().item() / self.user_sample_rate, batch_size=len(batch.ids))
        return losses.total

    def validation_step(self, batch: DuplexBatch, batch_idx: int, dataloader_idx: int = 0) -> None:
        losses, hidden, targets, valid = self._losses(batch)
        written = self.lm.text_logits(hidden).argmax(-1)
        spoken = self.lm.speech_logits(hidden[targets.speaking & valid]).argmax(-1)
        text = targets.tokens != self.layout.text_pad
        metrics = {
            "val_loss": losses.total,
            "val_text_loss": losses.text,
            "val_speech_loss": losses.speech,
            "val_text_accuracy": (written == targets.tokens)[text & valid].float().mean(),
            "val_speech_accuracy": (spoken == targets.codes.transpose(1, 2)[targets.speaking & valid]).float().mean(),
        }
        self.log_dict(metrics, batch_size=len(batch.ids), sync_dist=True, add_dataloader_idx=False)

    def on_validation_epoch_end(self, sync_metrics: bool = False) -> None:
        """Nothing to gather: every metric is logged with its batch."""

    def dataset(self) -> DuplexS2SDataset:
        """The dataset that fits this model's tokenizer and rates."""
        return DuplexS2SDataset(
            self.tokenizer,
            text_bos=self.layout.text_bos,
            text_eos=self.layout.text_eos,
            text_pad=self.layout.text_pad,
            frame_rate=self.perception.frame_rate,
            user_sample_rate=self.user_sample_rate,
            agent_sample_rate=self.agent_sample_rate,
        )

    def setup_training_data(self, train_data_config: DictConfig | dict) -> None:
        """NeMo's way to data (`model.train_ds`); the examples hand a DuplexDataModule to the trainer."""
        self._train_dl = duplex_dataloader(train_data_config, self.dataset())

    def setup_validation_data(self, val_data_config: DictConfig | dict) -> None:
        self._validation_dl = duplex_dataloader(val_data_config, self.dataset())

    # ------------------------------------------------------------------ inference

    @torch.inference_mode()
    def offline_inference(self, input_signal: Tensor, input_signal_lens: Tensor, decode_audio: bool = True) -> dict[str, Any]:
        """The agent's side of B whole recordings, frame by frame as in a session.

        Args:
            input_signal: (B, S) float32 at `user_sample_rate`.
            input_signal_lens: (B,) samples.
            decode_audio: False leaves out `audio` and `audio_len`.

        Returns:
            text list[str], tokens_text (B, T), tokens_audio (B, T, K) with specials, tokens_len (B,), audio (B, S') float32 at
            `agent_sample_rate`, audio_len (B,): keys, axes and meaning of NeMo's in-tree model.
        """
        was_training = self.training
        self.eval()
        user, lens = self.perception(input_signal, input_signal_lens)
        state, frames = self.lm.init_state(len(user)), []
        for t in range(user.shape[1]):
            frame, state = self.lm.step(user[:, t], state)
            frames.append(frame)
        inside = torch.arange(user.shape[1], device=lens.device) < lens[:, None]
        tokens = torch.stack([f.tokens for f in frames], dim=1).where(inside, self.layout.text_pad)
        codes = torch.stack([f.codes for f in frames], dim=1).where(inside[..., None], self.layout.speech_pad)
        answer = {
            "text": [self.written(row[:n]) for row, n in zip(tokens.tolist(), lens.tolist())],
            "tokens_text": tokens,
            "tokens_audio": codes,
            "tokens_len": lens,
        }
        if decode_audio:
            answer["audio"], answer["audio_len"] = self.audio_codec.decode(self.audible(codes.transpose(1, 2)), lens)
        self.train(was_training)
        return answer

    def audible(self, codes: Tensor) -> Tensor:
        """Codes (B, K, T) in which every frame that holds a special is the codec's silence: such frames say nothing."""
        special = (codes >= self.layout.codebook_size).any(dim=1, keepdim=True)
        return torch.where(special, self.audio_codec.silence_codes[None, :, None], codes)

    def written(self, tokens: list[int]) -> str:
        """The text of a stretch of the text channel, without its special ids, turns separated by a space."""
        specials = {self.layout.text_pad, self.layout.text_bos, self.layout.text_eos}
        turns: list[str] = []
        turn: list[int] = []
        for token in [*tokens, self.layout.text_bos]:
            if token == self.layout.text_bos and turn:
                turns.append(self.tokenizer.ids_to_text(turn))
                turn = []
            elif token not in specials:
                turn.append(token)
        return " ".join(turns)

    def open_session(self) -> Session:
        """One caller's live conversation: push PCM, get frames."""
        # The one arrow that points up: the public surface promises a session from a model (DESIGN, section 4).
        from nemo_duplex.streaming.session import Session

        return Session(self)


def _perception(cfg: DictConfig) -> Perception:
    """The user encoder, from a NeMo ASR checkpoint or from its description, which `cfg` then holds."""
    if cfg.get("pretrained_asr"):
        perception = Perception.from_asr(cfg.pretrained_asr, OmegaConf.to_container(cfg.perception))
    else:
        perception = Perception(OmegaConf.to_container(cfg.perception))
    cfg.pretrained_asr, cfg.perception = None, perception.config
    return perception


def _codec(cfg: DictConfig) -> FSQCodec:
    """The agent codec, from a checkpoint or from its description, which `cfg` then holds."""
    if cfg.get("pretrained_audio_codec"):
        codec = FSQCodec.restore(cfg.pretrained_audio_codec)
    elif cfg.get("codec"):
        codec = FSQCodec(OmegaConf.create(OmegaConf.to_container(cfg.codec)))
    else:
        raise InputError("The model has no codec: set model.pretrained_audio_codec to a .nemo or Hugging Face id.")
    cfg.pretrained_audio_codec, cfg.codec = None, codec.config
    return codec


def _layout(tokenizer: SentencePieceTokenizer, codec: FSQCodec, speech_delay: int) -> ChannelLayout:
    return ChannelLayout(
        text_vocab_size=tokenizer.vocab_size,
        text_pad=tokenizer.pad_id,
        text_bos=tokenizer.bos_id,
        text_eos=tokenizer.eos_id,
        num_codebooks=codec.num_codebooks,
        codebook_size=codec.codebook_size,
        speech_delay=speech_delay,
    )
