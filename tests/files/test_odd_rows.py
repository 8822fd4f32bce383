from __future__ import annotations

import pytest

from nemo_duplex.files.odd_rows import OddRow, OddRows
from nemo_duplex.inputs import InputError


def some(*reasons: str) -> OddRows:
    odd = OddRows()
    for number, reason in enumerate(reasons, start=1):
        odd.add(OddRow(reason, f"as in {number}", f"Mend {reason}."), f"a.jsonl:{number}")
    return odd


def test_rows_are_counted_by_reason_the_most_frequent_first():
    odd = some("a", "b", "b")
    odd.update(some("b", "c"))
    assert len(odd) == 5
    assert odd.describe() == {
        "b": {"count": 3, "first": ["a.jsonl:2: as in 2", "a.jsonl:3: as in 3", "a.jsonl:1: as in 1"]},
        "a": {"count": 1, "first": ["a.jsonl:1: as in 1"]},
        "c": {"count": 1, "first": ["a.jsonl:2: as in 2"]},
    }
    assert list(odd.describe()) == ["b", "a", "c"]
    assert odd.most_frequent() == "3 of them: b, such as a.jsonl:2: as in 2. Mend b."


def test_twenty_places_of_a_reason_are_kept():
    odd = some(*["a"] * 30)
    odd.update(some("a"))
    assert odd.describe()["a"]["count"] == 31 and len(odd.describe()["a"]["first"]) == 20


@pytest.mark.parametrize(
    ("num_usable", "most", "allowed"), [(1, 0.5, True), (1, 0.49, False), (99, 0.01, True), (0, 1.0, False)]
)
def test_a_larger_share_than_allowed_is_an_error(num_usable, most, allowed):
    odd = some("a")
    if allowed:
        odd.check("source", num_usable, most, "max_odd_rows")
    else:
        with pytest.raises(InputError, match="source: .*a, such as a.jsonl:1: as in 1. Mend a."):
            odd.check("source", num_usable, most, "max_odd_rows")


def test_the_share_that_an_error_names_is_enough():
    for num_odd, num_usable in ((2, 1), (5, 2), (999, 1), (200, 1)):
        odd = some(*["a"] * num_odd)
        with pytest.raises(InputError, match=f"{num_odd} of {num_odd + num_usable} rows .* max_odd_rows=0.3 allows") as error:
            odd.check("source", num_usable, 0.3, "max_odd_rows")
        odd.check("source", num_usable, float(str(error.value).rstrip(".").rsplit("=")[-1]), "max_odd_rows")


def test_no_odd_rows_are_no_error():
    OddRows().check("source", num_usable=0, most=0.0, key="max_odd_rows")
    assert OddRows().most_frequent() == "" and not OddRows()
