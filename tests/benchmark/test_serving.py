"""The load benchmark of a server."""

import json

import pytest

from nemo_duplex.benchmark.serving import ServingSetting, _quantile, benchmark_serving, serving_tables
from nemo_duplex.inputs import InputError

_BUCKET = 'nemo_duplex_lateness_seconds_bucket{le="%s"}'


def test_the_servers_own_lateness_is_read_between_two_readings():
    before = {_BUCKET % "0.01": 5.0, _BUCKET % "0.08": 10.0, _BUCKET % "+Inf": 10.0}
    after = {_BUCKET % "0.01": 54.0, _BUCKET % "0.08": 109.0, _BUCKET % "+Inf": 110.0}
    assert _quantile(before, after, 0.49) == 0.01 and _quantile(before, after, 0.5) == 0.08
    assert _quantile(before, after, 0.99) == 0.08 and _quantile(before, after, 1.0) == float("inf")
    assert _quantile(after, after, 0.5) == float("inf")


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"wires": ["telegraph"]}, r"wires=\[telegraph\]: expected some of talk, moshi, realtime, live."),
        ({"talk_seconds": 1.0}, "talk_seconds=1: expected 2 or more."),
        ({"least": 65, "most": 70}, "least=65 most=70: no number of callers is between them"),
    ],
)
def test_what_cannot_be_measured_is_refused_first(wrong, said):
    with pytest.raises(InputError, match=said):
        benchmark_serving(ServingSetting(**wrong))


@pytest.mark.slow
def test_a_server_is_measured_over_the_network():
    result = benchmark_serving(ServingSetting(wires=["talk"], talk_seconds=2.0, most=1))
    (load,) = json.loads(json.dumps(result))["talk"]["loads"]
    assert load["callers"] == 1 and load["dropped"] == 0 and 0 < load["p50"] <= load["p99"]
    (table,) = serving_tables(result)
    assert table.rows[0][0] == "1" and len(table.rows[0]) == len(table.columns)
