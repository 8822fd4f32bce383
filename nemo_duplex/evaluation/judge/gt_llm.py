"""The row GT+LLM of the paper's Table 3: the backbone alone, given every true user turn, is what a cascade could reach at best.

Its own answers stand in the chat before each turn, as its agent would have given them; the references never do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nemo_duplex.evaluation.answers import contains
from nemo_duplex.evaluation.confidence import estimate_ratio
from nemo_duplex.evaluation.judge.chats import LLM_PROMPT, Chat, Chats, EndpointChats, Replies
from nemo_duplex.evaluation.judge.conversations import JudgedConversation, JudgedTurn
from nemo_duplex.evaluation.judge.scores import WRITTEN, judge_results, no_results
from nemo_duplex.evaluation.judge.setting import SMOLLM2, JudgeSetting
from nemo_duplex.evaluation.scorer import Scorer, made_by, not_run
from nemo_duplex.evaluation.speech.normalized_text import heard_words
from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import NotInstalled

_OFF = "no language model: give judge.llm=smollm2, or judge.llm=http://host/v1 and judge.llm_model=NAME"
_NO_TEXT = "a user turn without text"
_FEWEST_WORDS = 10


def gt_llm_results(
    conversations: Sequence[JudgedConversation],
    setting: JudgeSetting,
    folder: Path,
    wait: Callable[[float], Any] | None = None,
    chats: Chats | None = None,
) -> dict[str, Any]:
    """What the language model alone scores on each set; its answers replace the hypotheses.

    Args:
        conversations, setting, wait: as for `judge_results`.
        folder: in which answers are kept (`answers/`), and the replies of the judge (`replies/`). With the folder of
            `judge_results`, the calibration is paid once.
        chats: the model; None: that of `setting.llm`.

    Returns:
        `sets`, for each set what `judge_results` gives it, and `exact_match` (the share of turns whose answer is a reference,
        word for word), `contains_answer` (of those whose corpus names the part that must be right, the share in which it is
        said), `failed_chats`, and `llm`: the model, its prompt and its limit of words. `scorers`: the judge, and the language
        model. Without a language model, the same with numbers that were not run.

    Raises:
        InputError: in one line, as by `judge_results`.
    """
    names = sorted({c.set for c in conversations})
    if setting.llm is None and chats is None:
        return _no_results(names, _OFF)
    most_words = setting.llm_words or _longest_reference(conversations)
    chats = chats or _open(setting, folder / "answers", most_words, wait)
    try:
        replied = _replied(conversations, chats)
    except NotInstalled as missing:
        return _no_results(names, str(missing))
    answered = [_saying(c, replies) for c, replies in zip(conversations, replied) if not isinstance(replies, OddRow)]
    results = judge_results(answered, setting, folder, WRITTEN, wait)
    about = "answers the true text of the user; what it answers is compared here"
    scorer = Scorer(f"{chats.name}/LLM", LLM_PROMPT.version, about=about)  # it may be the judge's model, too
    for name in names:
        group = results["sets"].setdefault(name, no_results([name], "no chat was answered")["sets"][name])
        group |= _matches(scorer, [c for c in answered if c.set == name])
        group["failed_chats"] = _failed([(c, replies) for c, replies in zip(conversations, replied) if c.set == name])
        group["llm"] = {"name": chats.name, "prompt": LLM_PROMPT.as_dict(), "most_words": most_words}
    return results | {"scorers": [*results["scorers"], scorer]}


def _no_results(names: Sequence[str], why: str) -> dict[str, Any]:
    results = no_results(names, why)
    for group in results["sets"].values():
        group |= {"exact_match": not_run(why), "contains_answer": not_run(why), "failed_chats": {}, "llm": None}
    return results


def _open(setting: JudgeSetting, folder: Path, most_words: int, wait: Callable[[float], Any] | None) -> Chats:
    if setting.llm != SMOLLM2:
        return EndpointChats(setting.llm_endpoint(most_words), folder, most_words, setting.seed, wait)
    from nemo_duplex.evaluation.judge.smollm2_chats import SmolLM2Chats  # imports torch

    return SmolLM2Chats(folder, most_words)


def _longest_reference(conversations: Sequence[JudgedConversation]) -> int:
    """An answer may be as long as the longest reference (words)."""
    lengths = (len(text.split()) for c in conversations for turn in c.turns for text in turn.references)
    return max(_FEWEST_WORDS, max(lengths, default=0))


def _replied(conversations: Sequence[JudgedConversation], chats: Chats) -> list[Replies]:
    """The answers in each conversation, or why there are none."""
    users: list[Chat] = [tuple(" ".join(turn.user.split()) for turn in c.turns) for c in conversations]
    replies = iter(chats.replies([chat for chat in users if chat and all(chat)]))
    return [[] if not chat else next(replies) if all(chat) else OddRow(_NO_TEXT) for chat in users]


def _saying(conversation: JudgedConversation, replies: Sequence[str]) -> JudgedConversation:
    said = zip(conversation.turns, replies, strict=True)
    return replace(conversation, turns=tuple(replace(turn, hypothesis=text, cut_off=False) for turn, text in said))


def _matches(scorer: Scorer, answered: Sequence[JudgedConversation]) -> dict[str, Any]:
    """Right answers, without any judge. What is written in digits is as right as what is written in letters."""

    def is_reference(turn: JudgedTurn) -> bool:
        said, *right = (heard_words(text, turn.language) for text in (turn.hypothesis, *turn.references))
        return said in right

    def holds_answer(turn: JudgedTurn) -> bool:
        said, answer = (heard_words(text, turn.language) for text in (turn.hypothesis, turn.answer))
        return contains(said, answer)

    named = {c.id: [turn for turn in c.turns if turn.answer] for c in answered}
    try:
        exact = {c.id: (sum(map(is_reference, c.turns)), len(c.turns)) for c in answered}
        holding = {name: (sum(map(holds_answer, turns)), len(turns)) for name, turns in named.items()}
    except NotInstalled as missing:
        return dict.fromkeys(("exact_match", "contains_answer"), not_run(str(missing)))
    return {
        name: made_by(scorer, estimate_ratio(list(parts.values()), proportion=True)) | {"by_conversation": parts}
        for name, parts in (("exact_match", exact), ("contains_answer", holding))
    }


def _failed(replied: Sequence[tuple[JudgedConversation, Replies]]) -> dict[str, Any]:
    odd = OddRows()
    for conversation, replies in replied:
        if isinstance(replies, OddRow):
            odd.add(replies, conversation.id)
    return odd.describe()
