"""What a server counts."""

import math

import pytest

from nemo_duplex.serving.caller_audio import Gaps
from nemo_duplex.serving.metrics import LastMinute, Metrics


def counted(metrics):
    """Each sample of the text as Prometheus reads it: name with labels -> value."""
    lines = [line for line in metrics.text().decode().splitlines() if not line.startswith("#")]
    return {line.rpartition(" ")[0].removeprefix("nemo_duplex_"): float(line.rpartition(" ")[2]) for line in lines}


def test_a_step_counts_its_frames_their_lateness_and_its_own_time():
    metrics = Metrics()
    metrics.stepped(0.05, [0.03, 0.079, 0.081])
    metrics.stepped(0.2, [0.5])
    seen = counted(metrics)
    assert seen["frames_total"] == 4 and seen["step_seconds_count"] == 2 and seen["step_seconds_sum"] == pytest.approx(0.25)
    assert [seen[f'lateness_seconds_bucket{{le="{edge}"}}'] for edge in (0.03, 0.07, 0.08, 0.09, 0.8)] == [1, 1, 2, 3, 4]
    assert seen['lateness_seconds_last_minute{quantile="0.5"}'] == 0.079
    assert seen['lateness_seconds_last_minute{quantile="0.99"}'] == 0.5
    assert seen['step_seconds_last_minute{quantile="0.5"}'] == 0.05


def test_gaps_are_summed_over_the_callers():
    metrics = Metrics()
    metrics.heard([Gaps(1, 0.5, 0.0), Gaps(0, 0.08, 0.0), Gaps(2, 0.0, 1.5)])
    metrics.heard([Gaps(0, 0.0, 0.25)])
    seen = counted(metrics)
    assert (seen["underruns_total"], seen["filled_seconds_total"], seen["skipped_seconds_total"]) == (3, 0.58, 1.75)


def test_bytes_are_counted_by_protocol_and_way():
    metrics = Metrics()
    metrics.traffic("talk").received.inc(10)
    metrics.traffic("talk").sent.inc(3)
    metrics.traffic("moshi").sent.inc(4)
    seen = counted(metrics)
    assert seen['bytes_total{protocol="talk",way="received"}'] == 10
    assert (seen['bytes_total{protocol="talk",way="sent"}'], seen['bytes_total{protocol="moshi",way="sent"}']) == (3, 4)


def test_a_watched_value_is_asked_for_when_somebody_looks():
    metrics, values = Metrics(), [1, 7]
    metrics.watch("waiting", "Callers in the queue.", lambda: values.pop(0))
    assert [counted(metrics)["waiting"], counted(metrics)["waiting"]] == [1, 7]


def test_the_last_minute_forgets_what_is_older_and_keeps_the_newest_of_very_many():
    minute = LastMinute(most=3)
    assert all(math.isnan(value) for value in minute.quantiles((0.5, 0.99), now=0.0))
    minute.add([1.0], now=100.0)
    minute.add([2.0, 3.0], now=130.0)
    assert minute.quantiles((0.01, 0.5, 0.99), now=159.0) == [1.0, 2.0, 3.0]
    assert minute.quantiles((0.01,), now=160.0) == [2.0]
    minute.add([4.0, 5.0], now=160.0)  # in the places of 1 and 2
    assert minute.quantiles((0.01, 0.5, 0.99), now=161.0) == [3.0, 4.0, 5.0]
