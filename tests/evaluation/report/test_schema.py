"""The example of report.json in docs/how-to/read-a-report.md is what an evaluation writes."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from nemo_duplex.evaluation.confidence import estimate_ratio
from nemo_duplex.evaluation.report.compare import compare, read_report
from nemo_duplex.evaluation.report.number import SCHEMA_VERSION, numbers
from nemo_duplex.evaluation.run import evaluate
from nemo_duplex.evaluation.scorer import Scorer, made_by, not_run
from tests.evaluation.agents import Oracle
from tests.evaluation.settings import quick

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "read-a-report.md"
#: Of the example: what depends on keys of the evaluation.
OPTIONAL = {"speech", "scorers"}


@pytest.fixture(scope="module")
def example():
    return json.loads(re.search(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL).group(1))


@pytest.fixture(scope="module")
def written(cuts, tmp_path_factory):
    out = tmp_path_factory.mktemp("schema")
    setting = quick(control_turns=1)
    evaluate(Oracle(cuts), {"dev": cuts}, out, setting, progress=False)
    return json.loads((out / "report.json").read_text())


def places(tree, path=""):
    """Every key of a tree, with the kind of what stands there; of a list, its first entry."""
    for key, value in tree.items() if isinstance(tree, Mapping) else enumerate(tree[:1]):
        kind = "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
        yield f"{path}/{key}", kind
        if isinstance(value, Mapping | list):
            yield from places(value, f"{path}/{key}")


def test_what_the_example_has_is_written(example, written):
    there = dict(places(written))
    for place, kind in places(example):
        if not OPTIONAL & {*place.split("/")}:
            assert there.get(place) == kind, place


def test_the_version_is_the_one_that_is_written_and_read(example):
    assert example["schema_version"] == SCHEMA_VERSION


def test_entries_of_scorers_are_those_of_the_example(example):
    speech = example["sets"]["dev"]["speech"]
    scorer = Scorer("distillmos", "0.9.1", about="estimated mean opinion score, 1 to 5")
    assert example["scorers"]["distillmos"] | {"name": "distillmos"} == scorer.as_dict()
    made = made_by(scorer, estimate_ratio([(4.1, 1), (4.0, 1)], proportion=False))
    assert {*made, "by_conversation"} == {*speech["distillmos"]}
    assert not_run("utmos=PATH is not given") == speech["utmos"]


def test_the_groups_of_the_page_are_those_of_a_set(written):
    listed = re.search(r"\*\*Groups\*\* of a set:(.*?)\.", PAGE.read_text(), re.DOTALL).group(1)
    named = set(re.findall(r"`(\w+)`", listed))
    assert {*written["sets"]["dev"]} - named <= {"hours", "latencies", "sensitivity"}


def test_every_rate_with_parts_is_the_ratio_of_their_sums(written, tmp_path):
    found = numbers(written["sets"]["dev"])
    rows = written["conversations"]["dev"]
    assert len(rows[0]["parts"]) > 15
    for key in rows[0]["parts"]:
        above, below = (sum(row["parts"][key][i] for row in rows) for i in (0, 1))
        value = found[key].value
        assert (value is None) == (below == 0) and (value is None or value == pytest.approx(above / below)), key
    (tmp_path / "report.json").write_text(json.dumps(written))
    same = read_report(tmp_path, "a")
    assert {c.difference.value for c in compare(same, same)[1]} <= {0.0, None}
