"""What is no speech inside a text: what stays when it is taken out, or why nothing stays."""

from __future__ import annotations

import time

import pytest

from nemo_duplex.synthesis.text.markup import _PLAIN, _RULES
from nemo_duplex.synthesis.text.speakable import speakable

TAKEN_OUT = {
    # reasoning, tools and tokens of language models
    "<think>It is\n 2?</think>\n\nTwo.": ("Two.", "reasoning"),
    "It is 2?</think>Two.": ("Two.", "reasoning"),
    "<|begin_of_thought|>2?<|end_of_thought|> Two.": ("Two.", "reasoning"),
    "<|channel|>analysis<|message|>2?<|end|>Two.": ("Two.", "reasoning"),
    'I see. <tool_call>{"name": "look"}</tool_call>': ("I see.", "calls of tools"),
    'I see. <functioncall> {"name": "look"} <|endoftext|>': ("I see.", "calls of tools"),
    "Two.<|im_end|>": ("Two.", "tokens of chat templates"),
    "<|im_start|>assistant\nTwo.<|im_end|>\n": ("Two.", "tokens of chat templates"),
    "<s>[INST] Two? [/INST]": ("Two?", "tokens of chat templates"),
    "<|start_header_id|>assistant<|end_header_id|>\n\nTwo.<|eot_id|>": ("Two.", "tokens of chat templates"),
    "<start_of_turn>model\nTwo.<end_of_turn>": ("Two.", "tokens of chat templates"),
    "<|0.00|> It is <|0.48|> two. <|1.00|>": ("It is two.", "tokens of chat templates"),
    "User: how many?": ("how many?", "labels of speakers"),
    "Agent: Two.": ("Two.", "labels of speakers"),
    "AI: Two.": ("Two.", "labels of speakers"),
    "**Bot:** Two.": ("Two.", "labels of speakers"),
    "SPEAKER_00: Two.": ("Two.", "labels of speakers"),
    # characters
    "Two\u200b ti\u00admes\ufeff.": ("Two times.", "invisible characters"),
    "Two\x00 times\x07.": ("Two times.", "control characters"),
    "\x1b[1mTwo\x1b[0m.": ("Two.", "control characters"),
    "It\x92s two.": ("It’s two.", "control characters"),
    "Two \ue000.": ("Two .", "control characters"),
    "Two. \ufffd": ("Two.", "lost characters"),
    "𝐓𝐰𝐨 times.": ("Two times.", "letters of another font"),
    "Ｔｗｏ times, ② or ２。": ("Two times, 2 or 2。", "letters of another font"),
    "Two 👍🏽!": ("Two!", "emoji"),
    "Two👨‍👩‍👧times": ("Two times", "emoji"),
    "🇩🇪 Two ❤️ times": ("Two times", "emoji"),
    "2️⃣ times": ("2 times", "emoji"),
    "Two. :)": ("Two.", "emoji"),
    "Two :thumbs_up: times": ("Two times", "emoji"),
    # HTML
    "<p>Two <b>times</b>.<br/>Yes.</p>": ("Two times. Yes.", "HTML"),
    '<a href="https://x.org/a?b=c">Two</a> times': ("Two times", "HTML"),
    "Tom &amp; Jerry&#39;s": ("Tom & Jerry's", "HTML"),
    "&lt;b&gt;Two&lt;/b&gt; times": ("Two times", "HTML"),
    "Tom &amp;amp; Jerry": ("Tom & Jerry", "HTML"),
    "<p>User: two?</p>": ("two?", "HTML"),
    "Two <!-- three --> times": ("Two times", "HTML"),
    # Markdown
    "It is **two**, *really* __two__ and _not_ ~~three~~.": ("It is two, really two and not three.", "Markdown"),
    "# Two\n\n- once\n* twice\n> thrice\n\n---\nEnd": ("Two once twice thrice End", "Markdown"),
    "- [x] Two": ("Two", "Markdown"),
    "Two\n-\n#\n**_times_ *really***": ("Two times really", "Markdown"),
    "Read [the page](https://x.org/a_(b) 'Two') twice.": ("Read the page twice.", "Markdown"),
    "Read [the page][1] twice.\n\n[1]: https://x.org": ("Read the page twice.", "Markdown"),
    "Call `two times`.": ("Call two times.", "Markdown"),
    "I don`t and can`t.": ("I don't and can't.", "Markdown"),
    "**Two** is un**believ**able": ("Two is unbelievable", "Markdown"),
    "Two\\_times, really\\!": ("Two_times, really!", "Markdown"),
    # the rest
    "Two [1]. Twice[2, 3] 【4†source】.": ("Two. Twice.", "citations"),
    "Two.[^1]\n\n[^1]: Of them.": ("Two.", "citations"),
    "Two.[1][2]": ("Two.", "citations"),
    "Two \ue200cite\ue202turn0search1\ue201.": ("Two .", "citations"),
    "It is two. https://x.org/a?b=c": ("It is two.", "URLs"),
    "It is two (www.x.org).": ("It is two.", "URLs"),
    "https://x.org/a\nIt is two.": ("It is two.", "URLs"),
    "Two.\\nTwice.": ("Two. Twice.", "escapes"),
    'He said \\"two\\".': ('He said "two".', "escapes"),
    "Two\n=====\nTimes": ("Two Times", "Markdown"),
    "<answer>Two.</answer>": ("Two.", "HTML"),
    "Two™ • times©": ("Two times", "symbols"),
}

REFUSED = {
    "<think>It is": "reasoning without an answer",
    '<tool_call>{"name": "look"}</tool_call>': "a call of a tool",
    "<s>[INST] Two? [/INST] Two. </s>": "several turns in one text",
    "<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\nTwo.": "several turns in one text",
    "User: Two?\nAssistant: Two.": "several turns in one text",
    "How?\n\n### Response:\nTwo.": "several turns in one text",
    "A <unk> day": "several turns in one text",
    "Two?### Assistant: Two.": "several turns in one text",
    "Human: Two? Assistant: Two.": "several turns in one text",
    "Two? Assistant: Two.": "several turns in one text",
    "Agent: Two.\nUser: Three?": "several turns in one text",
    "Ð¿Ñ€Ð¸Ð²ÐµÑ‚": "letters in a wrong encoding",
    "ä½\xa0å¥½": "letters in a wrong encoding",
    "à¤¨à¤®": "letters in a wrong encoding",
    "Ø³Ù„Ø§Ù…": "letters in a wrong encoding",
    "ì•ˆë…•": "letters in a wrong encoding",
    "Say print(2) twice": "code",
    "See /usr/local/bin twice": "code",
    "In ~/two/three": "code",
    "Hello %s.": "a placeholder or a tag",
    "Hello %(name)s, two.": "a placeholder or a tag",
    "See HTTP://X.Y for two.": "a URL inside a sentence",
    "donâ€™t": "letters in a wrong encoding",
    "cafÃ©": "letters in a wrong encoding",
    "caf\ufffd": "a character that was lost",
    "See:\n```python\nprint(2)\n```": "code",
    "Say `x = 2;` twice": "code",
    "Use print() twice": "code",
    "def two():\n  return 2": "code",
    "<pre>two</pre>": "code",
    "|a|b|\n|--|--|\n|1|2|": "a table",
    "<table><tr><td>2</td></tr></table>": "a table",
    "name\tage\nTom\t2": "a table",
    "It is $x^2$.": "a formula",
    "It is \\frac{1}{2}.": "a formula",
    "It is 5 * 3.": "a formula",
    "It is x<sup>2</sup>.": "a formula",
    "2 ∈ N": "a formula",
    "See https://x.org for two.": "a URL inside a sentence",
    "https://x.org is two.": "a URL inside a sentence",
    "For two see https://x.org": "a URL inside a sentence",
    "两https://x.org": "a URL inside a sentence",
    "两www.x.org": "a URL inside a sentence",
    "![two](two.png)": "an image, a sound or a file",
    "<image>\nHow many?": "an image, a sound or a file",
    "Dear <name>, two.": "a placeholder or a tag",
    "Dear [Your Name], two.": "a placeholder or a tag",
    "Two and ____.": "a placeholder or a tag",
    "The array[0] is two.": "a placeholder or a tag",
    "Hello {name}": "symbols that nobody says",
    '{"type": "text", "text": "Two."}': "symbols that nobody says",
    "C:\\new": "symbols that nobody says",
    "two -> three": "symbols that nobody says",
    "two → three": "symbols that nobody says",
    "5 < 6": "symbols that nobody says",
    "😀": "nothing to say",
    "...": "nothing to say",
    "": "nothing to say",
}

SAID = [
    "What's 20 °C in °F? It's 68; isn't it?",
    'He said "yes." (Twice.)',
    "“Ça va ?” – « Très bien » … naïve Straße",
    "It costs $5.20 or €5 and $6, i.e. 3-4 % off: 10:30:45!",
    "C# and F#, Q&A, and/or, a@b.org, x.org, #1, @home, 2 + 2 = 4, ±5, 3 × 4, m², H₂O, snake_case",
    "क्‍ष ठीक है। می‌خواهم 日本語。한국어 Да, я.",
    "Well - it is a well-known one; - or not",
    "None. Null, e.g. MÃE and VÂN",
    "The item(s) and/or the CAFÉ» «Ñ», é”… café—… 50 %, 100%d 1/2/2024",
    "A user: me. The model T is old, 1. April",
]


@pytest.mark.parametrize("text", TAKEN_OUT)
def test_what_nobody_says_is_taken_out_and_named(text):
    said, kind = TAKEN_OUT[text]
    speech = speakable(text)
    assert (speech.text, speech.reason) == (said, "")
    assert kind in speech.taken_out and len(speech.taken_out) <= 2
    assert speakable(said).text == said, "What is left is speech."


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_sentence_without_it_is_refused_with_its_reason(text):
    speech = speakable(text)
    assert (speech.text, speech.reason) == ("", REFUSED[text])


def test_half_of_a_pair_of_utf_16_is_an_emoji_that_was_cut_or_a_lost_character():
    assert speakable("Two. \ud83d").text == "Two." and speakable("Two. \ud83d").taken_out == ("emoji",)
    assert speakable("caf\udce9").reason == "a character that was lost"
    assert speakable("Two. \udce9").taken_out == ("lost characters",)


@pytest.mark.parametrize("text", SAID)
def test_speech_stays_as_it_is(text):
    speech = speakable(text)
    assert (speech.text, speech.reason, speech.taken_out) == (text, "", ())


@pytest.mark.parametrize("text", [*SAID, *TAKEN_OUT, *REFUSED, "Plain, isn't it? Well-known.", "see www.x.org"])
def test_a_plain_text_is_one_that_no_rule_changes(text):
    if _PLAIN.fullmatch(text) and "www." not in text:
        for rule in _RULES:
            assert not rule.pattern.search(text), rule
    else:
        assert text != "Plain, isn't it? Well-known."


LONG = "[|[a](|<a |<think>|<tool_call>|<!--|*a|* |_a|`a|$a|\\[|<s>| 😀| |\n|![|(|https://|a\t|[^a|a *a *|a _|_a b |a_1b _c "
LONG += '|www.|a.www.|\\n|\ue200|†【|##|``|\t\t|\u3000|*word word word |<p>|User:|$=|【†|\x1b[1;|= |a="|> |[1, |<|a'


@pytest.mark.parametrize("piece", [*LONG.split("|"), "| ", "<|a|> "])
@pytest.mark.parametrize("start", ["", "$", "[a]("])
def test_a_long_text_takes_no_longer_than_its_length(piece, start):
    """Four times the text is not sixteen times the work; a text that is too long is refused before it is searched. Of processor
    time, which other programs disturb: it holds in one of five tries."""

    def seconds(length: int) -> float:
        text = start + piece * (length // len(piece)) + "x"
        begin = time.process_time()
        speakable(text)
        return time.process_time() - begin

    assert any(seconds(9900) < max(8 * seconds(2475), 0.1) for _ in range(5))
    assert any(seconds(400_000) < 2 for _ in range(5))
