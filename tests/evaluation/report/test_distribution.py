"""The histogram: what is counted where, and the line of shares."""

from xml.etree import ElementTree

from nemo_duplex.evaluation.report.distribution import distribution_svg


def drawn(values, low=0.0, high=3.0, line=1.5):
    return ElementTree.fromstring(distribution_svg(values, low, high, line, 'stops of "<dev>"'))


def test_bins_are_counted_and_what_lies_outside_is_in_the_first_and_last():
    picture = drawn([0.05, 0.1, 0.19, 1.0, 2.95, 9.0, -4.0])
    bins = [(r.findtext("title"), round(float(r.get("height")))) for r in picture.iter("rect")]
    assert bins == [
        ("2 of 7 from 0.00 to 0.10 s", 128),
        ("2 of 7 from 0.10 to 0.20 s", 128),
        ("1 of 7 from 1.00 to 1.10 s", 64),
        ("2 of 7 from 2.90 to 3.00 s", 128),
    ]
    assert picture.get("aria-label") == 'stops of "<dev>": 7, median 0.19 s'


def test_the_line_rises_to_all_and_marks_stand_at_their_times():
    picture = drawn([0.25, 0.75, 0.75, 2.5])
    points = [tuple(map(float, p.split(","))) for p in picture.find("polyline").get("points").split()]
    assert len(points) == 31 and points[0] == (40.0, 142.0) and points[-1] == (542.0, 14.0)
    at = dict(points)
    assert at[round(40 + 502 * 0.8 / 3, 1)] == 142 - 0.75 * 128, "three of four are at most 0.8 s"
    marks = {line.get("class"): float(line.get("x1")) for line in picture.iter("line")}
    assert (marks["threshold"], marks["median"]) == (291.0, round(40 + 502 * 0.25, 1))


def test_seconds_are_named_and_halves_are_not():
    ticks = [t.text for t in drawn([0.5], -1.0, 3.5, 0.0).iter("text")]
    assert ticks == ["-1 s", "0 s", "1 s", "2 s", "3 s", "1", "0", "0 %", "50 %", "100 %"]
