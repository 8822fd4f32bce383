"""ASR-BLEU: what the agent should say against what is heard of it (paper, Table 4), by sacrebleu.

Both sides are normalised (`normalized_text.py`). BLEU counts n-grams, so counts of conversations add up to those of a corpus,
and drawing conversations for the interval is adding up other counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nemo_duplex.evaluation.confidence import Estimate, drawn_interval
from nemo_duplex.evaluation.outcome import Outcome
from nemo_duplex.evaluation.scorer import Scorer, made_by, not_run
from nemo_duplex.evaluation.speech.hearing import Heard
from nemo_duplex.evaluation.speech.normalized_text import heard_words
from nemo_duplex.inputs import NotInstalled

_ORDER = 4


@dataclass(frozen=True)
class Pair:
    """What was heard, and the texts that would have been right; words are separated by blanks."""

    heard: str
    right: tuple[str, ...]


def asr_bleu(heard: Sequence[tuple[Outcome, Heard]], scorer: Scorer, seed: int = 0) -> dict[str, Any]:
    """BLEU of corpora (0 to 100) of what is heard of the agent.

    Returns:
        `asr_bleu_turn`: everything that the agent says from a question's start to the next one's, against the question's right
        answers; nothing is an empty hypothesis. With `unanswered`, and `cut_off`: answers that the user or the recording cut
        off, which are left out. `asr_bleu_conversation`: all that the agent says in a conversation against all that the corpus'
        agent says, or against the right answers one after the other. Both with `signature`; `n` counts turns, conversations.
    """
    by_turn, by_conversation, unanswered, cut_off = [], [], 0, 0
    for outcome, one in heard:
        pairs = []
        for question in outcome.questions:
            if question.reference is None:
                continue
            said = one.answer(question)
            if said is not None and (said.end > question.next_start or said.custom.get("unfinished")):
                cut_off += 1
                continue
            unanswered += said is None
            pairs.append(_pair(said.text if said else "", question.reference.texts, one.language))
        by_turn.append(pairs)
        right = _whole_conversations(outcome)
        by_conversation.append([_pair(" ".join(t.text for t in one.turns), right, one.language)] if right else [])
    return {
        "asr_bleu_turn": _entry(by_turn, scorer, seed) | {"unanswered": unanswered, "cut_off": cut_off},
        "asr_bleu_conversation": _entry(by_conversation, scorer, seed),
    }


def corpus_bleu(conversations: Sequence[Sequence[Pair]], seed: int = 0) -> tuple[Estimate, str]:
    """BLEU of all pairs together, and sacrebleu's signature.

    The value is that of `sacrebleu.corpus_score`. It is None where no right text has four words: of such a corpus BLEU is 0
    even if every word is right.

    Raises:
        NotInstalled: if sacrebleu is missing.
    """
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        raise NotInstalled("sacrebleu is not installed: pip install 'nemo_duplex[eval]'") from None
    pairs = [pair for one in conversations for pair in one]
    if not any(len(text.split()) >= _ORDER for pair in pairs for text in pair.right):
        return Estimate(None, 0, None), ""
    bleu, segment = BLEU(), BLEU(effective_order=True)  # which does not change what is counted
    most = max(len(pair.right) for pair in pairs)
    # None fills up where there are fewer right texts; an empty text would be one of them, and the nearest to a short answer
    columns = [[pair.right[i] if i < len(pair.right) else None for pair in pairs] for i in range(most)]
    value = bleu.corpus_score([pair.heard for pair in pairs], columns).score  # type: ignore[arg-type]
    counts = np.zeros((len(conversations), 2 + 2 * _ORDER))
    for row, one in zip(counts, conversations, strict=True):
        for pair in one:
            found = segment.sentence_score(pair.heard, list(pair.right))
            row += [found.sys_len, found.ref_len, *found.counts, *found.totals]
    interval = drawn_interval(counts[counts[:, 1] > 0], bleu_of_counts, seed=seed)
    return Estimate(value, len(pairs), interval, interval), str(bleu.get_signature())


def bleu_of_counts(counts: np.ndarray) -> np.ndarray:
    """BLEU of many corpora (R,) from their counts (R, 10): words heard, right words, matching n-grams and all n-grams of 1 to 4
    words; smoothed as sacrebleu's default (`exp`: the k-th precision of 0 becomes 1 / 2^k of one match)."""
    heard, right = counts[:, 0], counts[:, 1]
    matching, all_of = counts[:, 2 : 2 + _ORDER], counts[:, 2 + _ORDER :]
    halved = 2.0 ** np.cumsum(matching == 0, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.where(matching > 0, matching, 1 / halved) / all_of
        short = np.where(heard < right, np.exp(1 - right / heard), 1.0)
        score = 100 * short * np.exp(np.log(precision).sum(axis=1) / _ORDER)
    return np.where((all_of > 0).all(axis=1) & (matching[:, 0] > 0), score, 0.0)


def _entry(conversations: Sequence[Sequence[Pair]], scorer: Scorer, seed: int) -> dict[str, Any]:
    if not any(conversations):
        return not_run("the corpus has no right answers to compare with")
    estimate, signature = corpus_bleu(conversations, seed)
    if estimate.value is None:
        return not_run(f"no right answer has {_ORDER} words, which BLEU needs")
    return made_by(scorer, estimate) | {"signature": signature}


def _pair(heard: str, right: Sequence[str], language: str) -> Pair:
    texts = dict.fromkeys(" ".join(heard_words(text, language)) for text in right)
    return Pair(" ".join(heard_words(heard, language)), tuple(filter(None, texts)) or ("",))


def _whole_conversations(outcome: Outcome) -> tuple[str, ...]:
    """All that should be said in a conversation; the i-th one takes the i-th right answer of each question, or its last."""
    if outcome.conversation.agent:
        return (" ".join(t.text for t in outcome.conversation.agent),)
    rights = [q.reference.texts for q in outcome.questions if q.reference is not None]
    most = max(map(len, rights), default=0)
    return tuple(" ".join(texts[min(i, len(texts) - 1)] for texts in rights) for i in range(most))
