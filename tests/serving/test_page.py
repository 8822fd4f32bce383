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
