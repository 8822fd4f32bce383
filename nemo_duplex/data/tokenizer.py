"""A SentencePiece tokenizer for a corpus, for models whose language model brings none."""

from __future__ import annotations

import io
from pathlib import Path

import sentencepiece

from nemo_duplex.files.atomic import whole_file
from nemo_duplex.inputs import InputError, existing_file


def train_tokenizer(texts: str | Path, model_path: str | Path, size: int) -> Path:
    """Trains a SentencePiece model (byte pair encoding) on the lines of `texts` and writes it to `model_path`.

    Pad, BOS and EOS get the ids 0, 1 and 2, all different, as the text channel needs them. An agent that speaks 16 characters
    a second has room for 12 tokens in it: with fewer than about 512 pieces long turns do not fit (shared measurements on
    eSpeak: 0 of 526 turns overflow at 512, 10 at 256, 471 at 64). Of a corpus with few different texts, a unigram model of
    any size takes words apart (half of the built-in ones, `Wh|at` among them); 1024 pairs leave every one of them whole.

    Args:
        size: pieces at most; a small corpus gets as many as it has.

    Raises:
        InputError: if `texts` is missing, or too small to train on.
    """
    texts = existing_file(texts, "texts of the corpus")
    lines = [line for line in texts.read_text().splitlines() if line.strip()]
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=size,
            hard_vocab_limit=False,
            character_coverage=1.0,
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise InputError(f"No tokenizer of {size} pieces can be trained on {texts} ({len(lines)} lines): {error}") from error
    with whole_file(model_path) as path:
        path.write_bytes(model.getvalue())
    return Path(model_path)


def corpus_tokenizer(corpus: str | Path, model_path: str | Path, size: int) -> Path:
    """As `train_tokenizer`, on the texts that `synthesize` wrote into its corpus folder; once: a model that is there stays."""
    if Path(model_path).is_file():
        return Path(model_path)
    texts = Path(corpus) / "texts.txt"
    if not texts.is_file():
        raise InputError(
            f"data: {corpus} has no texts.txt to train a tokenizer on. Give the corpus folder of examples/synthesize.py, "
            "or a tokenizer in model.tokenizer.model_path."
        )
    return train_tokenizer(texts, model_path, size)
