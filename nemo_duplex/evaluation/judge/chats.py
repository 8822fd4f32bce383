"""What a language model answers in writing when it is given the user's true text, turn by turn, with its own answers before."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from nemo_duplex.evaluation.judge.prompt import Prompt
from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.synthesis.writing.endpoint import Answer, Answers, Endpoint
from nemo_duplex.synthesis.writing.replies import CUT, EMPTY, without_thoughts
from nemo_duplex.synthesis.writing.rules import shortened

#: What the model is told first: it answers for the ear, as an agent does. `{words}` is the limit of an answer.
LLM_PROMPT = Prompt.of_file("gt_llm_prompt_v1")
_NOTHING_SAID = "..."  # stands in a chat for an answer without words, which servers refuse

#: The texts of a user, in order; and of the answers to them, or why there are none.
Chat = tuple[str, ...]
Replies = list[str] | OddRow


class Chats(Protocol):
    """A language model that answers."""

    @property
    def name(self) -> str:
        """Of the model, for people."""
        ...

    def replies(self, chats: Sequence[Chat]) -> list[Replies]:
        """The answers in each chat. A chat in which one cannot be had has none."""
        ...


def system_text(most_words: int) -> str:
    """What the model is told first."""
    return LLM_PROMPT.text.strip().replace("{words}", str(most_words))


def limited(text: str, most_words: int) -> str:
    """An answer in one line: its first whole sentences of at most `most_words` words, or so many words of its first one."""
    said = " ".join(without_thoughts(text).split())
    if len(said.split()) > most_words:
        said = " ".join(shortened(said, most_words).split()[:most_words])
    return said


@dataclass(frozen=True)
class ChatRequest:
    """The next answer of a chat, as it is asked of an endpoint.

    Args:
        place: of the chat among the others.
        messages, seed, kept_by: as in `Asked`.

    Examples:
        >>> ChatRequest(0, ({"role": "user", "content": "Hello!"},), 0, ()).place
        0
    """

    place: int
    messages: tuple[dict[str, str], ...]
    seed: int
    kept_by: tuple[str, ...]


@dataclass
class EndpointChats:
    """A model behind an endpoint (`Chats`). Each answer is kept; chats that begin alike are asked once as far as they do.

    Args:
        endpoint: that is asked.
        folder: of the kept answers.
        most_words: of an answer.
        seed: of the requests.
        wait: sleeps some seconds; None: as needed.

    Examples:
        >>> EndpointChats(Endpoint("http://localhost:8000/v1", "llama"), Path("kept"), most_words=30).name
        'llama'
    """

    endpoint: Endpoint
    folder: Path
    most_words: int
    seed: int = 0
    wait: Callable[[float], Any] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.endpoint.model

    def replies(self, chats: Sequence[Chat]) -> list[Replies]:
        """The answers in each chat, all first ones before all second ones.

        Raises:
            InputError: in one line, if the endpoint cannot be reached or refuses what is asked. What was answered is kept.
        """
        answers = Answers(self.endpoint, self.folder, self.wait)
        found: list[Replies] = [[] for _ in chats]
        for turn in range(max(map(len, chats), default=0)):
            live = [place for place, chat in enumerate(chats) if turn < len(chat) and isinstance(found[place], list)]
            requests = [self._request(place, chats[place], found[place]) for place in live]
            with contextlib.closing(answers.ask(requests)) as asked:
                for request, answer in asked:
                    said, so_far = self._said(answer), found[request.place]
                    assert isinstance(so_far, list)
                    found[request.place] = said if isinstance(said, OddRow) else [*so_far, said]
        return found

    def _request(self, place: int, chat: Chat, said: Replies) -> ChatRequest:
        assert isinstance(said, list)
        messages = [{"role": "system", "content": system_text(self.most_words)}]
        for user, reply in zip(chat, [*said, None]):
            messages.append({"role": "user", "content": user})
            if reply is not None:
                messages.append({"role": "assistant", "content": reply or _NOTHING_SAID})
        return ChatRequest(place, tuple(messages), self.seed, (self.endpoint.url,))

    def _said(self, answer: Answer) -> str | OddRow:
        if answer.odd and answer.odd.reason not in (CUT, EMPTY):  # what is beyond the limit of words is not needed
            return answer.odd
        return limited(answer.text, self.most_words)
