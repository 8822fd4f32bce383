"""Two short conversations whose numbers can be worked out by hand, and how to write more."""

from nemo_duplex.conversation import Conversation, Turn
from nemo_duplex.evaluation.outcome import Outcome, Question, Reference


def outcome(name, duration, asked, speech, agent=(), **more):
    """asked: (start, end, reference or None); speech: spans of sound; agent: (start, end, text) of the text channel."""
    starts = [start for start, *_ in asked]
    nexts = [*starts[1:], duration]
    questions = tuple(
        Question(Turn("user", start, end, f"question {i}"), following, Reference((text,)) if text else None)
        for i, ((start, end, text), following) in enumerate(zip(asked, nexts))
    )
    turns = tuple(Turn("agent", *turn) for turn in agent)
    said = Conversation(name, duration, tuple(question.turn for question in questions))
    return Outcome(said, questions, turns, tuple(speech), **more)


#: Answered after 0.6 s and interrupted at 6. Stops 1 s later (0.4 s, if pauses of 0.3 s are not merged), and falls into the
#: user's turn 0.3 s before its end.
FIRST = outcome(
    "one",
    20.0,
    [(1, 3, "yes"), (6, 8.7, "no")],
    [(3.6, 6.4), (6.7, 7.0), (8.4, 10.0)],
    [(3.5, 7.2, "yes"), (8.3, 10.1, "maybe"), (15.0, 16.0, "still")],
    unterminated=2,
    orphan_eos=1,
)
#: Not answered at all; the text channel runs over the end, and one turn of it starts after the end.
SECOND = outcome("two", 10.0, [(1, 3, None)], [], [(8.0, 12.0, "late"), (11.0, 12.0, "later")], unterminated=1)
