"""CTC training of a small streaming encoder in a budget of minutes: on the user's side of a corpus, on manifests, or on both.

Single turns come first: from random weights, an encoder learns nothing from whole conversations alone. Conversations come in
later, because an agent has to understand the user amid their noise, silences and echoes. What is learnt from is augmented, so
that a small corpus lasts longer: the audio (`acoustics.py`) and its log-mels (`mel_augmentation.py`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import lightning.pytorch as pl
import torch
from nemo.collections.asr.models import EncDecCTCModelBPE
from torch import Tensor, nn
from torch.nn.functional import nll_loss, smooth_l1_loss
from torch.utils.data import DataLoader, IterableDataset

from nemo_duplex.data.text_tokenizer import train_tokenizer
from nemo_duplex.files.atomic import sha256, whole_file
from nemo_duplex.files.odd_rows import OddRows
from nemo_duplex.frames import USER_SAMPLE_RATE
from nemo_duplex.inputs import InputError, existing_folder, plain
from nemo_duplex.perception.acoustics import Augmentation
from nemo_duplex.perception.config import perception_config
from nemo_duplex.perception.ctc_config import WHISPER, EncoderTrainingConfig
from nemo_duplex.perception.ctc_data import (
    UNKNOWN,
    Utterance,
    UtteranceBatch,
    UtteranceBatches,
    read_utterances,
)
from nemo_duplex.perception.ctc_model import (
    centre_input,
    ctc_model,
    error_rate,
    open_ctc_model,
    replace_tokenizer,
    save_ctc_model,
    transcribe,
)
from nemo_duplex.perception.manifest_utterances import made_conversations, manifest_utterances
from nemo_duplex.perception.mel_augmentation import masked, warped
from nemo_duplex.perception.perception import FrameEncoder
from nemo_duplex.perception.phonemes import PER_FRAME, PhonemeTargets, phoneme_loss
from nemo_duplex.perception.teacher import Teacher, TeacherFeatures
from nemo_duplex.perception.transcripts import Transcripts
from nemo_duplex.perception.whisper_encoder import StreamingWhisperEncoder
from nemo_duplex.perception.whisper_start import PREPROCESSOR, WholeWhisper, fit_distances, whisper_encoder
from nemo_duplex.synthesis.tts.english_phonemes import EnglishPhonemes
from nemo_duplex.training.small_part import (
    PartTraining,
    claim,
    finish,
    fit,
)
from nemo_duplex.training.time_budget import TimeBudget

_FREE = ("validate_every",)  # it changes nothing
# Utterances of each held-out set that are transcribed during the training.
_VALIDATED = 100
# Most frames are blank. A blank counts less than a token, so that tokens are learnt from the start.
_BLANK_WEIGHT = 0.3
# Root mean square of a step of Muon against its rate, by `match_rms_adamw`.
_MUON_STEP = 0.2
# Utterances to which the attention of an ear that begins as Whisper is fitted, and how much of each.
_FITTED, _FITTED_SAMPLES = 24, 8 * USER_SAMPLE_RATE


class CTCTraining(PartTraining):
    """The LightningModule around the recogniser.

    Args:
        asr: trained in place.
        config: rates and shares.
        turns, conversations: the utterances of the corpus, by turn and by conversation.
        budget: its spent share sets the learning rate and the curriculum.
        held_out: by name; a part of it is transcribed every `validate_every` steps.
        teacher: what the features of utterances are to tell, by a projection that is thrown away at the end.
        phonemes: which ones they are to tell, likewise.
        whisper: what an ear that began as Whisper is to hear, where `config.teacher` says so.
    """

    def __init__(
        self,
        asr: EncDecCTCModelBPE,
        config: EncoderTrainingConfig,
        turns: Sequence[Utterance],
        conversations: Sequence[Utterance],
        budget: TimeBudget,
        held_out: Mapping[str, HeldOut] = MappingProxyType({}),
        teacher: TeacherFeatures | None = None,
        phonemes: PhonemeTargets | None = None,
        whisper: WholeWhisper | None = None,
    ) -> None:
        super().__init__(config, budget)
        self.asr = asr
        self.whisper = whisper
        self._validations = 0
        self.held_out = {name: one.first(_VALIDATED) for name, one in held_out.items()}
        augmentation = Augmentation(**config.augmentation)
        self.turns, self.conversations = (
            UtteranceBatches(utterances, asr.tokenizer, config.batch_seconds, config.seed, augmentation, teacher, phonemes)
            for utterances in (turns, conversations)
        )
        width = asr.encoder._feat_out
        self.phoneme_head = nn.Linear(width, PER_FRAME * phonemes.count) if phonemes is not None else None
        self.feature_head = nn.Linear(width, teacher.width) if teacher is not None else None

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Curriculum(self), batch_size=None)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        learnt: list[nn.Parameter] = []
        whisper = isinstance(self.asr.encoder, StreamingWhisperEncoder)
        for name, parameter in self.named_parameters():
            inner = parameter.dim() == 2 and ".layers." in name and "pos_bias" not in name
            known = whisper and name.startswith("asr.encoder.") and ".join." not in name
            (matrices if inner else learnt if known else others).append(parameter)
        groups: list[dict[str, Any]] = [{"params": others}]
        if learnt:  # what Whisper knows besides its matrices moves as far in a step as these do
            groups.append({"params": learnt, "share_of_rate": _MUON_STEP * self.config.matrix_rate / self.config.rate})
        return [
            torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01),
            torch.optim.Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        ]

    def training_step(self, batch: UtteranceBatch, batch_index: int) -> None:
        frame_encoder = FrameEncoder(self.asr.preprocessor, self.asr.encoder)
        mel = frame_encoder.mel(batch.audio, batch.audio_lens)
        changed = masked(warped(mel, frame_encoder.preprocessor.featurizer.fb, self.config.mel_warp), *self.config.mel_masks)
        whole: Tensor | float = 0.0
        if self.whisper is None:
            features = frame_encoder.features(changed)
        else:
            heard = self.asr.encoder.features(self.asr.encoder.pre_encode(changed))
            features = self.asr.encoder.joined(heard)
            distance = self.whisper.loss(heard, mel, frame_encoder.counts(batch.audio_lens))
            whole = self.config.teacher["whole"] * distance
        log_probs = self.asr.decoder(encoder_output=features.transpose(1, 2))
        if self.share < self.config.aligned and batch.paths is not None and batch.paths.ne(UNKNOWN).any():
            loss = path_loss(log_probs, batch.paths)
        else:
            loss = self.asr.loss(
                log_probs=log_probs,
                targets=batch.tokens,
                input_lengths=frame_encoder.counts(batch.audio_lens),
                target_lengths=batch.token_lens,
            )
        if batch.phonemes is not None:
            assert self.phoneme_head is not None, "phonemes come of a reader"
            loss = loss + self.config.phonemes * phoneme_loss(self.phoneme_head(features), batch.phonemes)
        if batch.targets is not None:
            assert self.feature_head is not None, "targets come of a teacher"
            loss = loss + self.config.teacher["weight"] * feature_loss(self.feature_head(features), batch.targets)
        self.descend(loss + whole if self.whisper is not None else loss)

    def on_train_epoch_end(self) -> None:
        """Adds a line to progress.jsonl when the next `validate_every` steps are done."""
        due = self.step // self.config.validate_every
        if not self.held_out or due == self._validations:
            return
        self._validations = due
        line: dict[str, Any] = {"step": self.step, "share": round(self.share, 4)}
        line["loss"] = round(float(self.trainer.callback_metrics["loss"]), 4)
        line |= {name: round(error_rate(transcribe(self.asr, one.turns), one.turns), 4) for name, one in self.held_out.items()}
        with (Path(self.config.out) / "progress.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.whisper is not None:
            checkpoint["deviation_of_whisper"] = self.whisper.deviation

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if self.whisper is not None:
            self.whisper.deviation = checkpoint.get("deviation_of_whisper")
        self._validations = self.step // self.config.validate_every


class Curriculum(IterableDataset):
    """Batches without end from the training's step on: turns alone first, then more and more conversations."""

    def __init__(self, training: CTCTraining) -> None:
        self.training = training

    def __iter__(self) -> Iterator[UtteranceBatch]:
        training, config = self.training, self.training.config
        index = training.step
        while True:
            progress = max(0.0, training.share - config.turns_alone) / max(1e-9, 1 - config.turns_alone)
            # Multiples of the golden ratio fill 0..1 evenly: conversations are spread evenly over the batches at any share.
            whole = (index * 0.6180339887498949) % 1.0 < config.conversations * min(1.0, progress)
            yield (training.conversations if whole else training.turns).batch(index)
            index += 1


def path_loss(log_probs: Tensor, paths: Tensor) -> Tensor:
    """Mean negative log-likelihood of the path on which every token is at the time when it is spoken; a start for CTC.

    CTC has to find out where tokens are; during that search a small model outputs nothing but blanks for minutes. Synthesised
    speech comes with word times, which replace the search.

    Args:
        log_probs: (B, T or more, V + 1), blank last.
        paths: (B, T), UNKNOWN where the token is not known.
    """
    weight = torch.ones(log_probs.shape[-1], device=log_probs.device)
    weight[-1] = _BLANK_WEIGHT
    log_probs = log_probs[:, : paths.shape[1]].float()
    return nll_loss(log_probs.flatten(0, 1), paths.flatten(), weight, ignore_index=UNKNOWN)


def feature_loss(told: Tensor, targets: Tensor) -> Tensor:
    """Mean smooth L1 distance between what features tell and what they are to tell; 0 where no frame is known.

    Args:
        told: (B, T or more, W).
        targets: (B, T, W), NaN where a frame is not known.
    """
    known = targets.isfinite().all(2)
    told = told[:, : targets.shape[1]].float()
    return smooth_l1_loss(told[known], targets[known], reduction="sum") / max(1, int(known.sum()) * targets.shape[2])


@dataclass(frozen=True)
class HeldOut:
    """What a training is measured on: voices, and where there are some texts, that it does not learn from.

    Args:
        turns: utterances one by one.
        conversations: the same ones as parts of conversations.
    """

    turns: Sequence[Utterance]
    conversations: Sequence[Utterance]

    def first(self, count: int) -> HeldOut:
        """At most `count` of each."""
        return HeldOut(self.turns[:count], self.conversations[:count])


def train_encoder(config: EncoderTrainingConfig) -> dict[str, Any]:
    """Trains, writes `<out>/encoder.nemo` and `<out>/quality.json`, and returns the content of the latter.

    Started again with the same `out`, it continues from the last checkpoint; when it was done already, it does nothing.
    Word error rates on parts of what is held out are added to `<out>/progress.jsonl` as the training goes on.

    Raises:
        InputError: for data that cannot be used, an encoder that cannot be streamed, or an `out` of another training.
    """
    out = Path(config.out)
    if config.data is not None:
        existing_folder(Path(existing_folder(config.data, "data")) / "train" / "shar", "data")
    if (out / "training.json").is_file():
        claim(out, config, _FREE)
    encoder_file, quality_file = out / "encoder.nemo", out / "quality.json"
    if encoder_file.is_file() and quality_file.is_file():
        return json.loads(quality_file.read_text())

    pl.seed_everything(config.seed, verbose=False)
    odd, settings = OddRows(), Teacher(**config.teacher)
    transcripts = settings.transcriber(out)
    turns, conversations = _training_utterances(config, odd, transcripts)
    held_out = _held_out(config, odd)
    phonemes = _phonemes(turns) if config.phonemes else None
    asr = _recogniser(config, turns)
    whisper = _whisper(asr, settings) if settings.whole else None
    claim(out, config, _FREE)
    teacher = settings.features_of(turns, out)
    budget = TimeBudget(config.minutes)
    training = CTCTraining(asr, config, turns, conversations, budget, held_out, teacher, phonemes, whisper)
    if config.init is None:
        centre_input(asr, training.conversations.batch(0))
    fit(training, "encoder", out, config.accelerator, config.precision)

    save_ctc_model(asr.cpu(), encoder_file)
    quality = {"steps": training.step, "minutes": config.minutes, "seed": config.seed, "sha256": sha256(encoder_file)}
    quality |= {"hours": round(sum(turn.duration for turn in turns) / 3600, 2), "left_out": odd.describe()}
    quality |= {"taught": len(teacher)} if teacher is not None else {}
    quality |= {"transcribed": transcripts.taken} if transcripts is not None else {}
    known = {turn.text for turn in turns}
    quality |= {name: held_out_quality(asr, one, known) for name, one in held_out.items()}
    finish(out, quality)
    return quality


def _training_utterances(
    config: EncoderTrainingConfig, odd: OddRows, transcripts: Transcripts | None
) -> tuple[list[Utterance], list[Utterance]]:
    turns, conversations = read_utterances(Path(config.data) / "train" / "shar") if config.data is not None else ([], [])
    if config.manifests:
        alone = manifest_utterances(config.manifests, odd, transcripts)
        turns, conversations = turns + alone, conversations + made_conversations(alone, config.seed)
    return turns, conversations


def _phonemes(turns: Sequence[Utterance]) -> PhonemeTargets:
    """Those that hibari reads in the words of the utterances."""
    targets = PhonemeTargets(turns, EnglishPhonemes().sounds)
    if targets.count == 1:  # silence
        raise InputError(
            "phonemes: no utterance has word times (`words` in a manifest) with words that hibari can read, so it is not known "
            "which phoneme is spoken when. Leave phonemes=0, or give utterances of make_bank.py."
        )
    return targets


def _held_out(config: EncoderTrainingConfig, odd: OddRows) -> dict[str, HeldOut]:
    """By name: the corpus' sets, and each group of the manifests."""
    found = {}
    for name in ("dev", "impatient"):
        if config.data is not None and (shar := Path(config.data) / name / "shar").is_dir():
            found[name] = HeldOut(*read_utterances(shar))
    groups: dict[str, list[Utterance]] = {}
    for utterance in manifest_utterances(config.held_out, odd) if config.held_out else ():
        groups.setdefault(utterance.group, []).append(utterance)
    return found | {name: HeldOut(group, made_conversations(group, config.seed)) for name, group in groups.items()}


def _recogniser(config: EncoderTrainingConfig, turns: Sequence[Utterance]) -> EncDecCTCModelBPE:
    """That of `init`, or one with random weights; its tokenizer is that of `init`, or one of what is said in training."""
    asr = None
    whisper = whisper_encoder(config.teacher["model"]) if config.init == WHISPER else None
    if config.init not in (None, WHISPER):
        asr = open_ctc_model(config.init)
        perception_config({"preprocessor": plain(asr.cfg.preprocessor), "encoder": plain(asr.cfg.encoder), "output_dim": 1})
        if config.keep_tokenizer:
            return asr
    folder = Path(config.out) / "tokenizer"
    with whole_file(folder / "texts.txt") as file:
        file.write_text("".join(f"{turn.text}\n" for turn in turns), encoding="utf-8")
    tokenizer = train_tokenizer(folder / "texts.txt", folder / "tokenizer.model", config.tokenizer_size)
    if whisper is not None:
        return _from_whisper(whisper, turns, tokenizer)
    if asr is None:
        return ctc_model(config.preprocessor, config.encoder, tokenizer)
    replace_tokenizer(asr, tokenizer)
    return asr


def _from_whisper(encoder: StreamingWhisperEncoder, turns: Sequence[Utterance], tokenizer: Path) -> EncDecCTCModelBPE:
    """Whisper's encoder with a new output layer, and attention fitted to some utterances."""
    asr = ctc_model(PREPROCESSOR, {"kind": "whisper", **encoder.arguments()}, tokenizer)
    asr.encoder.load_state_dict(encoder.state_dict())
    some = turns[:: max(1, len(turns) // _FITTED)][:_FITTED]
    samples = [torch.from_numpy(turn.whole()[:_FITTED_SAMPLES])[None] for turn in some]
    frame_encoder = FrameEncoder(asr.preprocessor, asr.encoder)
    mels = [frame_encoder.mel(each, torch.tensor([each.shape[1]])) for each in samples]
    fit_distances(asr.encoder, WholeWhisper(encoder), mels)
    return asr


def _whisper(asr: EncDecCTCModelBPE, settings: Teacher) -> WholeWhisper:
    """What an ear that began as Whisper learns from."""
    encoder = whisper_encoder(settings.model)
    ear = asr.encoder
    if not isinstance(ear, StreamingWhisperEncoder) or (ear.d_model, ear.feat_in) != (encoder.d_model, encoder.feat_in):
        raise InputError(
            "teacher.whole is for an ear that began as this Whisper: give init=whisper, or the encoder.nemo of one."
        )
    return WholeWhisper(encoder)


def held_out_quality(asr: EncDecCTCModelBPE, held_out: HeldOut, known: Collection[str]) -> dict[str, Any]:
    """Word error rates of greedy decoding: single turns, turns whose text is not `known`, and whole conversations."""
    turns, conversations = held_out.turns, held_out.conversations
    transcripts = transcribe(asr, turns)
    unseen = [i for i, turn in enumerate(turns) if turn.text not in known]
    return {
        "turns": len(turns),
        "turns_wer": round(error_rate(transcripts, turns), 4),
        "unseen_texts": len(unseen),
        "unseen_texts_wer": round(error_rate([transcripts[i] for i in unseen], [turns[i] for i in unseen]), 4)
        if unseen
        else None,
        "conversations": len(conversations),
        "conversations_wer": round(error_rate(transcribe(asr, conversations), conversations), 4),
    }
