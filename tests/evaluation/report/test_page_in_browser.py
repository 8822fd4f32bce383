"""report.html and compare.html in headless Chromium: filters, keys, sound, a phone, contrast, texts that look like markup."""

import json

import pytest

from nemo_duplex.evaluation.activity import energy_vad
from nemo_duplex.evaluation.generation import run_conversations
from nemo_duplex.evaluation.report.compare import compare
from nemo_duplex.evaluation.report.compare_page import write_comparison
from nemo_duplex.evaluation.report.page import Example, write_html
from nemo_duplex.evaluation.scores import score, summary
from tests.browser import PHONE, chromium
from tests.evaluation.agents import Oracle, Talker
from tests.evaluation.outcomes import outcome

pytestmark = pytest.mark.slow

EVIL = '</script><img src=x onerror="document.title=1">'
LIGHT_AND_DARK = ("light", "dark")


def quick(name, said="yes"):
    """Answered after 0.6 s; the user interrupts at 6 s and the agent stops 0.5 s later."""
    return score(outcome(name, 12.0, [(1, 3, "yes"), (6, 8, None)], [(3.6, 6.5), (8.7, 10.0)], [(3.5, 6.5, said)]))


def slow(name):
    """Talks on for 2 s, and answers nothing later."""
    return score(outcome(name, 12.0, [(1, 3, None), (6, 8, None)], [(3.6, 8.0)]))


@pytest.fixture(scope="module")
def page(cuts, tmp_path_factory):
    """Two conversations with sound, 120 of set `dev` (every third talks on), one of set `odd` with an evil name."""
    talks = [score(run_conversations(agent, cuts[:1], energy_vad)[0]) for agent in (Talker(), Oracle(cuts))]
    many = [slow(f"talk-{i:03}") if i % 3 == 0 else quick(f"talk-{i:03}", "a needle" if i == 50 else "yes") for i in range(120)]
    scored = {"dev": many, "heard": talks, "odd": [quick(EVIL, EVIL)]}
    report = {
        "schema_version": 2,
        "provenance": {"vad": "energy", "model": EVIL, "versions": {}},
        "sets": {name: summary(rows) for name, rows in scored.items()},
        "controls": [],
        "conversations": {name: [one.as_dict() for one in rows] for name, rows in scored.items()},
    }
    folder = tmp_path_factory.mktemp("page")
    write_html(folder / "report.html", report, [Example("heard", one) for one in talks], scored)
    pairs, found = compare(report, report)
    write_comparison(folder / "compare.html", (EVIL, "b"), (report, report), pairs, found)
    return folder


@pytest.fixture(scope="module")
def browser(page):
    with chromium() as opened:
        opened.screen(1280, 900)
        opened.open(f"file://{page / 'report.html'}")
        yield opened
        assert opened.troubles == []


@pytest.fixture(autouse=True)
def reset(browser):
    yield
    browser.run("document.querySelector('.filters').reset()")
    browser.wait("document.querySelector('.found').innerText.startsWith('123 of')")


def found(browser):
    return browser.text(".found")


def choose(browser, name, value):
    browser.run(
        f"(e => {{ e.value = {json.dumps(value)}; e.dispatchEvent(new Event('input', {{bubbles: true}})) }})"
        f"(document.querySelector('.filters').elements.{name})"
    )


def test_all_are_counted_the_worst_stand_first_and_rows_come_by_the_page(browser):
    assert found(browser) == "123 of 123 conversations, 2 with picture and sound"
    assert browser.run("document.querySelectorAll('.list .row').length") == 50
    assert browser.text(".list .row:first-child summary .id") == "d0", "the talker: three times interrupted, never stops"
    assert browser.text(".more") == "Show 50 more of 73"
    browser.click(".more")
    assert browser.run("document.querySelectorAll('.list .row').length") == 100
    assert browser.run("[...document.querySelectorAll('.list .row')].indexOf(document.activeElement.closest('.row'))") == 50
    browser.click(".more")
    assert browser.run("[document.querySelectorAll('.list .row').length, document.querySelector('.more').hidden]") == [
        123,
        True,
    ]


def test_each_filter_shows_what_it_says(browser):
    choose(browser, "set", "odd")
    assert found(browser) == "1 of 123 conversations, 0 with picture and sound"
    assert browser.run("[...document.querySelectorAll('.conversation')].every(c => c.hidden)")
    choose(browser, "set", "")
    choose(browser, "event", "barge in: failure")
    assert found(browser) == "41 of 123 conversations, 1 with picture and sound"
    assert browser.run("[...document.querySelectorAll('.conversation')].map(c => c.hidden)") == [False, True]
    choose(browser, "event", "")
    browser.click("[name=faulty]")
    assert found(browser).startswith("43 of 123"), "two gave wrong answers"
    choose(browser, "set", "dev")
    assert found(browser).startswith("41 of 123")
    browser.run("document.querySelector('.filters').reset()")
    browser.click("[name=barge_in]")
    assert found(browser).startswith("123 of 123")
    choose(browser, "event", "response: no response")
    assert found(browser).startswith("41 of 123")


def test_words_and_ids_are_searched_by_keyboard(browser):
    browser.run("document.querySelector('[name=text]').focus()")
    browser.type("NEEDLE a")
    assert found(browser) == "1 of 123 conversations, 0 with picture and sound"
    assert browser.text(".list .id") == "talk-050"
    choose(browser, "text", "talk-00")
    assert found(browser).startswith("10 of 123")
    browser.run("document.querySelector('[name=text]').focus()")
    for key in ("Tab", "Tab", "Tab", "Tab", " "):
        browser.press(key)
    assert browser.run("document.activeElement.name") == "faulty" and found(browser).startswith("4 of 123")


def test_the_order_can_be_chosen(browser):
    choose(browser, "order", "id")
    assert browser.run("[...document.querySelectorAll('.list .id')].slice(1, 4).map(e => e.textContent)") == [
        *("d0", "d0", "talk-000")
    ]
    choose(browser, "order", "response")
    assert "first response 0.69 s" in browser.text(".list .row:first-child summary")
    choose(browser, "order", "stop")
    assert "never stops" in browser.text(".list .row:first-child summary")
    assert "stop 2.00 s" in browser.text(".list .row:nth-child(2) summary")


def test_a_row_opens_by_key_with_its_timeline_and_events(browser):
    choose(browser, "text", "talk-001")
    browser.run("document.querySelector('.list summary').focus()")
    browser.press("Enter")
    browser.wait("!!document.querySelector('.list .lanes')")
    bars = browser.run(
        "[...document.querySelectorAll('.list .speech')]"
        ".map(e => [e.classList[1], +e.getAttribute('x'), e.getBBox().width, e.getBBox().height])"
    )
    assert bars == [  # 52 px for the names, 40 px for a second
        ["user", 92, 80, 26],
        ["user", 292, 80, 26],
        ["agent", 196, 116, 26],
        ["agent", 400, 52, 26],
        ["text", 192, 120, 4],
    ]
    cells = browser.run("[...document.querySelectorAll('.list tbody tr')].map(r => [...r.cells].map(c => c.innerText))")
    assert cells == [
        ["3.00 s", "response", "ok", "0.60 s"],
        ["3.00 s", "answer", "right", ""],
        ["6.00 s", "barge in", "success", "0.50 s"],
        ["8.00 s", "response", "ok", "0.70 s"],
    ]


def test_what_comes_from_a_corpus_is_text(browser):
    choose(browser, "text", "onerror")
    assert browser.text(".list .id") == EVIL
    assert browser.run("[document.querySelectorAll('img').length, document.title.includes('</script>')]") == [0, True]


def test_sound_loads_and_plays(browser):
    browser.run("document.querySelector('audio').load()")
    length = browser.run(
        "new Promise((done, fail) => { const a = document.querySelector('audio'); a.onloadedmetadata = () => done(a.duration);"
        " a.onerror = () => fail(a.error); a.preload = 'auto'; a.load() })"
    )
    assert length == pytest.approx(16.0, abs=0.01)
    browser.click(".play")
    browser.wait("document.querySelector('audio').currentTime > 0 && document.querySelector('.conversation.playing') !== null")
    choose(browser, "set", "odd")
    assert browser.run("document.querySelector('audio').paused"), "what is hidden is not heard"


@pytest.mark.parametrize("name", ["report", "compare"])
@pytest.mark.parametrize("scheme", LIGHT_AND_DARK)
def test_a_phone_scrolls_nothing_but_tables_and_every_text_has_contrast(page, name, scheme):
    with chromium() as phone:
        phone.screen(**PHONE)
        phone.media(prefers_color_scheme=scheme)
        phone.open(f"file://{page / f'{name}.html'}")
        phone.run("document.querySelectorAll('details').forEach(d => { d.open = true })")
        assert phone.run("document.documentElement.scrollWidth") == 375
        assert phone.run(CONTRAST) == []
        assert phone.troubles == []


#: Texts whose contrast with what is behind them is below WCAG's 4.5.
CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const parsed = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((v, i) => v * a / 255 + below[i] * (1 - a / 255));
  const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const behind = (e) =>
    e === null ? [255, 255, 255] : over(parsed(getComputedStyle(e).backgroundColor), behind(e.parentElement));
  const low = new Set();
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length || e.closest("svg, option, script")) continue;
    const ground = behind(e);
    const [a, b] = [light(over(parsed(getComputedStyle(e).color), ground)), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.add(`${e.tagName}.${e.className}: ${ratio.toFixed(2)} ${e.textContent.slice(0, 30)}`);
  }
  return [...low];
})()"""
