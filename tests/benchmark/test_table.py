"""Tables: columns that stand below each other, and Markdown that renders."""

from dataclasses import replace

from nemo_duplex.benchmark.table import Table, milliseconds

TABLE = Table("Steps", ["one machine"], ("stage", "p50"), [("llm", "4.6 ms"), ("a longer name", "12 ms")])


def test_lines():
    assert TABLE.text().splitlines() == [
        "Steps",
        "one machine",
        "",
        "stage             p50",
        "llm            4.6 ms",
        "a longer name   12 ms",
    ]


def test_markdown():
    assert TABLE.markdown().splitlines() == [
        "### Steps",
        "",
        "- one machine",
        "",
        "| stage | p50 |",
        "| --- | ---: |",
        "| llm | 4.6 ms |",
        "| a longer name | 12 ms |",
    ]
    assert replace(TABLE, about=[]).markdown().splitlines()[:3] == ["### Steps", "", "| stage | p50 |"]


def test_times_have_three_digits_that_matter():
    assert [milliseconds(s) for s in (0.0004561, 0.0125, 0.0998, 1.2345)] == ["0.456 ms", "12.5 ms", "99.8 ms", "1,234 ms"]
