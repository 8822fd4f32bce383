"""Plain text as sentences: which are found in a file, which are used, and how they become dialogues."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from nemo_duplex.files.odd_rows import OddRow
from nemo_duplex.inputs import InputError
from nemo_duplex.synthesis.text.dialogue_files import DialogueFiles
from nemo_duplex.synthesis.text.sentences import plain_sentence, sentences
from nemo_duplex.synthesis.text.text_spec import TextSpec

SCRIPT = Path(__file__).parents[3] / "examples" / "import_text.py"
PROSE = """The old man sat on a bench at the end of the long pier and
looked at the sea. He had no hat; the wind blew from the north
and nobody else was there. "Why are you here?" asked Mr. Jones
from the boat.

It was late.
"""


@pytest.fixture
def found(tmp_path):
    def of(text: str | bytes) -> list[tuple[int, str]]:
        path = tmp_path / "a.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return list(sentences(path, "source"))

    return of


def test_prose_is_joined_over_its_lines_and_split_at_its_sentences(found):
    assert found(PROSE) == [
        (1, "The old man sat on a bench at the end of the long pier and looked at the sea."),
        (1, "He had no hat; the wind blew from the north and nobody else was there."),
        (1, '"Why are you here?" asked Mr. Jones from the boat.'), (6, "It was late."),
    ]  # fmt: skip


def test_a_full_stop_after_a_letter_or_a_title_ends_no_sentence(found):
    said = ["The house of J. S. Smith was sold.", "Mrs. Bell and Dr. Ray of St. Ives moved in."]
    assert found(" ".join(said)) == [(1, text) for text in said]


def test_prose_of_any_width_is_joined_where_it_goes_on_with_a_small_letter(found):
    lines = [
        "The lamp in the hall went out long before the others came",
        "back to the house, as it always",
        "does. A bell rang.",
    ]
    assert [text for _, text in found("\n".join(lines))] == [f"{lines[0]} {lines[1]}", "does.", "A bell rang."]
    listed = [
        "a long line of a list that is in small letters",
        "the longest line of this list, which is in small letters",
        "a third one",
    ]
    assert [text for _, text in found("\n".join(listed))] == listed


def test_lines_that_are_sentences_stay_apart_whatever_their_length(found):
    lines = [
        "this is a rather long sentence that nobody has broken",
        "a short one",
        "another short one that is a bit longer now",
    ]
    assert found("\n".join(lines)) == [(1, line) for line in lines]
    many = [f"{'word ' * (1 + number % 16)}number {number}" for number in range(2500)]
    assert [text for _, text in found("\n".join(many))] == many
    assert {line for line, _ in found("\n".join(many))} == {1, 1001, 2001}


def test_fortunes_end_with_a_percent_sign_and_files_come_with_any_line_end(found):
    assert found(b"One for all.\r\n%\r\nAll for\r\none.\r\n%%\r\n\r\n \r\nThe end\r\n") == [
        (1, "One for all."), (3, "All for"), (3, "one."), (8, "The end"),
    ]  # fmt: skip
    assert found("One. Two.".encode("utf-16")) == [(1, "One."), (1, "Two.")]
    assert found("%\n\n") == []


@pytest.mark.parametrize(
    "text, said",
    [
        ("the dog barked", "The dog barked."), (" “Who's over there?” ", "Who's over there?"),
        ("a cat, a dog, a bird;", "A cat, a dog, a bird."),
        ("(it rained all day)", "It rained all day."), ("What a well-known day!", "What a well-known day!"),
        ("I am O'Neill's cat", "I am O'Neill's cat."),
        ("one two three", "One two three."),
        (" ".join(["word"] * 18), f"Word {' '.join(['word'] * 17)}."), ("Où est la gare", "Où est la gare."),
    ],
)  # fmt: skip
def test_a_sentence_as_it_is_said(text, said):
    assert plain_sentence(text) == said


@pytest.mark.parametrize(
    "text, reason",
    [
        ("one two", "a sentence of fewer than 3 words"),
        (" ".join(["word"] * 19), "a sentence of over 18 words"),
        ("he was 12 years old", "a sentence with digits or signs"),
        ("-- Mark Twain, at home", "a sentence with digits or signs"),
        ("he said; nobody heard it", "a sentence with digits or signs"),
        ('the "new" house fell', "a sentence with digits or signs"),
        ("we went -- or not", "a sentence with digits or signs"),
        ("... and so on", "a sentence with digits or signs"),
        ("the NASA people came", "a sentence with an abbreviation"),
        ("plan b was better", "a sentence with an abbreviation"),
        ("he met Mr. Jones there", "a sentence with an abbreviation"),
        ("well... maybe not now", "a sentence with an abbreviation"),
        ("caf\udce9 is open now", "not UTF-8 text"),
    ],
)  # fmt: skip
def test_a_sentence_that_may_be_said_in_more_than_one_way_is_odd(text, reason):
    with pytest.raises(OddRow) as odd:
        plain_sentence(text)
    assert odd.value.reason == reason


def spec(**settings) -> TextSpec:
    return TextSpec(form="sentences", max_odd_rows=1.0, **settings)


def pairs(source: DialogueFiles) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in source.dialogues.read_text(encoding="utf-8").splitlines()]
    return [tuple(turn["text"] for turn in row["turns"]) for row in rows]


def test_two_sentences_at_a_time_are_a_dialogue(tmp_path):
    (tmp_path / "a.txt").write_text(
        "the first one\nthe 2nd one\nthe second one\nThe first one!\n\nthe third one\nthe fourth one\nthe last one\n"
    )
    (tmp_path / "b.txt").write_text("the fourth one\nthe fifth one\nthe sixth one\n")
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    source = DialogueFiles(files, spec(), store=tmp_path / "store")
    assert pairs(source) == [
        ("The first one.", "The second one."), ("The third one.", "The fourth one."), ("The fifth one.", "The sixth one."),
    ]  # fmt: skip
    left_out = {reason: found["first"] for reason, found in source.describe()["left_out"].items()}
    assert left_out == {
        "a sentence that was there before": [f"{files[0]}:1: 'The first one!'", f"{files[1]}:1: 'The fourth one.'"],
        "a sentence with digits or signs": [f"{files[0]}:1: 'the 2nd one'"],
    }
    again = DialogueFiles(files, spec(keep_duplicates=True), store=tmp_path / "store")
    assert pairs(again)[1] == ("The first one!", "The third one.")


def test_max_words_and_what_no_voice_can_say(tmp_path):
    (tmp_path / "a.txt").write_text(
        "\n".join(["one two three four", "one two three", "a b c", "it is bad", "so are you", "who is he", "it is her"])
    )

    def cannot_say(speaker, text, language):
        return OddRow("bad", text) if speaker == "agent" and "bad" in text else None

    source = DialogueFiles([tmp_path / "a.txt"], spec(max_words=3), cannot_say, store=tmp_path / "store")
    assert pairs(source) == [("One two three.", "So are you."), ("Who is he.", "It is her.")]
    assert set(source.describe()["left_out"]) == {"a sentence of over 3 words", "a sentence with an abbreviation", "bad"}


def test_the_script(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("he is here now\nshe was there then\nthey will be late\nit is very cold\nnot one\n")
    main = runpy.run_path(str(SCRIPT))["main"]
    main([f"out={tmp_path / 'out'}", f"source=[{tmp_path}/*.txt]", "text.form=sentences", f"text.store={tmp_path / 'store'}"])
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "source: 2 dialogues; rows left out: 1"
    assert said[1].startswith("  1 x a sentence of fewer than 3 words")
    rows = [json.loads(line) for line in (tmp_path / "out" / "dialogues.jsonl").read_text().splitlines()]
    assert [row["turns"][0]["text"] for row in rows] == ["He is here now.", "They will be late."]


def test_a_file_without_sentences_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("1\n2\n")
    with pytest.raises(InputError, match="none of 2 rows can be used. All of them: a sentence of fewer than 3 words, such as"):
        DialogueFiles([tmp_path / "a.txt"], spec(), store=tmp_path / "store")
