"""How the page's files are served; what they do is tested in the browser, in tests/serving/web."""

import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

import nemo_duplex.serving.page
from nemo_duplex.serving.page import page_routes

WEB = Path(nemo_duplex.serving.page.__file__).parent / "web"
FILES = sorted(path.name for path in WEB.iterdir() if path.name != "index.html")


@pytest.fixture(scope="module")
def client():
    return TestClient(Starlette(routes=[*page_routes()]))


def test_the_page_allows_nothing_from_elsewhere_and_nothing_inline(client):
    answer = client.get("/")
    assert answer.status_code == 200 and answer.headers["content-type"] == "text/html; charset=utf-8"
    rules = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert rules["default-src"] == "'none'" and rules["script-src"] == rules["style-src"] == "'self'"
    assert rules["frame-ancestors"] == "'none'" and "unsafe" not in str(rules)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<style|<script>|\son\w+=|\sstyle=", answer.text)
    used = set(re.findall(r'(?:src|href)="([^"#]+)"', answer.text))
    assert {one for one in used if not one.startswith(("page/", "data:"))} == {"https://github.com/NVIDIA/NeMo"}


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_with_its_type_and_known_again(client, name):
    answer = client.get(f"/page/{name}")
    expected = {".js": "text/javascript", ".css": "text/css"}[Path(name).suffix]
    assert answer.headers["content-type"] == f"{expected}; charset=utf-8"
    assert answer.content == (WEB / name).read_bytes()
    assert answer.headers["cache-control"] == "no-cache"
    again = client.get(f"/page/{name}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", answer.headers["etag"])


@pytest.mark.parametrize("path", ["/page/", "/page/index.html", "/page/../page.py", "/page/%2e%2e/page.py", "/page/none.js"])
def test_nothing_else_is_served(client, path):
    assert client.get(path).status_code == 404


def test_modules_import_only_each_other():
    for path in WEB.glob("*.js"):
        imported = re.findall(r"""(?:from|import)\s*\(?\s*["']([^"']+)""", path.read_text())
        assert {name.removeprefix("./") for name in imported} <= set(FILES), path.name


def test_every_file_begins_with_what_it_is_for():
    for name in FILES:
        assert (WEB / name).read_text().startswith(("// ", "/* ")), name


def luminance(colour):
    """Relative luminance of "#rrggbb" (WCAG 2)."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(theme):
    style = (WEB / "style.css").read_text()
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", re.findall(r":root \{(.*?)\}", style, re.DOTALL)[theme]))
    texts = {
        **{text: ("ground", "card", "fill") for text in ("ink", "soft")},
        **{"agent": ("ground", "card"), "user": ("ground",), "bad": ("bad-fill", "card"), "on-agent": ("agent",)},
    }
    for text, backs in texts.items():
        for back in backs:
            dark, light = sorted(luminance(colours[name]) for name in (text, back))
            assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{text} on {back}"
