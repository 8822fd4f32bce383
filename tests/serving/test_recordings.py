"""Recordings of calls: asked for, downloaded, deleted."""

import asyncio
import io
import json
import os
import time
import urllib.error
import urllib.request
import zipfile

import numpy as np
import pytest
import websockets

from nemo_duplex.serving.admission import RefusedError
from nemo_duplex.serving.app import make_app
from nemo_duplex.serving.config import RecordingRules, ServerConfig
from nemo_duplex.serving.recordings import Recordings
from tests.serving.answering import serving
from tests.serving.conftest import UNHURRIED

CALL = "abcdefghijkl_-34"


async def call(address, query):
    """A call of 0.4 s: what the server said first."""
    async with websockets.connect(f"ws://{address}/api/talk?rate=16000&{query}") as socket:
        ready = json.loads(await socket.recv())
        await socket.send((np.ones(6400) * 1000).astype("<i2").tobytes())
        await socket.send('{"type": "finish"}')
        async for _ in socket:
            pass
    return ready


def download(url, seconds=20):
    """A file, as soon as it is complete."""
    until = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            if error.code != 409 or time.monotonic() > until:
                raise
            assert error.headers["Retry-After"] == "1"
            time.sleep(0.1)


def test_a_call_that_asks_is_recorded_and_its_recording_is_one_file(agent, tmp_path):
    config = ServerConfig(callers=2, audio=UNHURRIED, recordings=RecordingRules(tmp_path))
    with serving(make_app(agent, config)) as address:
        asked, silent = (asyncio.run(call(address, query)) for query in ("record=1", "record=0"))
        assert (asked["recording"], silent["recording"]) == (True, False)
        for name in (asked["id"], f"live_{asked['id']}"):
            headers, data = download(f"http://{address}/api/recordings/{name}.zip")
        assert headers["Content-Type"] == "application/zip"
        archive = zipfile.ZipFile(io.BytesIO(data))
        assert archive.testzip() is None
        folder = tmp_path / asked["id"]
        files = {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in folder.rglob("*")}
        assert {name: archive.read(name) for name in archive.namelist()} == files and f"{folder.name}/cut.jsonl" in files
        with pytest.raises(urllib.error.HTTPError, match="404"):
            download(f"http://{address}/api/recordings/{silent['id']}.zip")
    assert [path.name for path in tmp_path.iterdir()] == [asked["id"]]


def test_a_server_that_records_nothing_says_so_and_the_call_goes_on(server):
    assert asyncio.run(call(server, "record=1"))["recording"] is False
    with pytest.raises(urllib.error.HTTPError, match="404") as none:
        download(f"http://{server}/api/recordings/{CALL}.zip")
    assert "recordings.folder=FOLDER" in none.value.read().decode()


@pytest.mark.parametrize("name", ["..", "a" * 15, "a" * 17, "../" + "a" * 13, ".part-1-" + CALL, "a" * 15 + "\n"])
def test_a_name_that_is_no_call_finds_nothing(tmp_path, name):
    (tmp_path / CALL).mkdir()
    with pytest.raises(RefusedError, match="no such recording"):
        Recordings(RecordingRules(tmp_path)).archive(name)


def test_a_recording_that_is_not_complete_is_not_handed_out(tmp_path):
    (tmp_path / f".part-18f-{CALL}").mkdir()
    with pytest.raises(RefusedError, match="not complete yet") as early:
        Recordings(RecordingRules(tmp_path)).archive(CALL)
    assert (early.value.status, early.value.retry_after) == (409, 1)


def test_what_is_too_old_or_too_much_is_deleted_and_nothing_else(tmp_path):
    now = 1_000_000.0
    ages = {"a": 3 * 86400, "b": 40, "c": 30, "d": 20, "e": 10}  # in seconds
    for letter, age in ages.items():
        folder = tmp_path / (letter * 16)
        folder.mkdir()
        (folder / "user.wav").write_bytes(bytes(400))
        os.utime(folder, (now - age, now - age))
    for name in (f".part-18f-{CALL}", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(400))
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "notes.txt").write_bytes(bytes(5000))
    Recordings(RecordingRules(tmp_path, gigabytes=1600e-9, days=2)).tidy(now)
    left = sorted(path.name for path in tmp_path.iterdir())  # 400 bytes of a call that goes on, 1200 of those that are over
    assert left == [f".part-18f-{CALL}", "c" * 16, "d" * 16, "e" * 16, "mine", "notes.txt"]
