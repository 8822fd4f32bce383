"""`examples/serve.py` and `make talk`: a caller from outside, one line for each mistake, an orderly end."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import websockets
import yaml

from nemo_duplex.scripts.config import ScriptConfig
from tests.dummies import tiny_model

ROOT = Path(__file__).parent.parent


@pytest.fixture
def said(tmp_path, monkeypatch, capsys):
    """Runs the script with these keys, which are wrong; gives its one line."""
    (tmp_path / "agent.nemo").write_text("no model")
    (tmp_path / "keys").write_text("# none yet\n")
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location("serve", ROOT / "examples" / "serve.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    def run(*keys: str) -> str:
        with pytest.raises(SystemExit) as ended:
            script.main(["model=agent.nemo", *keys])
        error = capsys.readouterr().err
        assert ended.value.code == 2 and error.count("\n") == 1, error
        return error

    return run


MISTAKES = {
    "model=other.nemo": "model: there is no file other.nemo. Check the path",
    "host=0.0.0.0": "host=0.0.0.0: a server that other machines can reach needs API keys",
    "api_keys=nothing": "api_keys: there is no file nothing",
    "api_keys=keys": "api_keys: keys holds no key",
    "tls.key=agent.nemo": "tls.certificate is not given: add tls.certificate=FILE",
    "origins=[example.com]": "'example.com' is no origin",
    "limits.wait=3": "limits.wait",
    "limits.idle_seconds=0": "limits.idle_seconds=0: expected a positive number",
    "callers=0": "callers=0: expected a positive whole number",
    "log=xml": "log=xml: expected text or json",
    "port=99999": "port=99999: expected 0 to 65535",
    "port=0": "agent.nemo",  # all is well, but for the model
}


@pytest.mark.parametrize("key, message", MISTAKES.items())
def test_a_mistake_is_one_line(said, key, message):
    assert message in said(key)


def test_a_port_that_is_taken_is_known_before_the_model_is_read(said):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port={port}: another program listens on it" in said(f"port={port}")


def test_make_talk_takes_the_agent_that_is_there_or_makes_one_in_five_minutes(tmp_path):
    def planned(*variables):
        done = subprocess.run(["make", "-n", "talk", *variables], cwd=ROOT, capture_output=True, text=True, check=True)
        return [line for line in done.stdout.splitlines() if "examples/" in line]

    assert planned() == [
        "test -f demo/agent.nemo || .venv/bin/python examples/demo.py out=demo minutes=5",
        "exec .venv/bin/python examples/serve.py model=demo/agent.nemo recordings.folder=demo/recordings ",
    ]
    assert planned("OUT=x", "MINUTES=9", "PORT=7") == [
        "test -f x/agent.nemo || .venv/bin/python examples/demo.py out=x minutes=9",
        "exec .venv/bin/python examples/serve.py model=x/agent.nemo recordings.folder=x/recordings port=7",
    ]


async def call(address):
    """A call of 0.4 s: how it ended."""
    async with websockets.connect(f"ws://{address}/api/talk?rate=16000&record=1") as talk:
        ready = json.loads(await talk.recv())
        await talk.send(np.zeros(6400, "<i2").tobytes())
        await talk.send('{"type": "finish"}')
        last = [json.loads(message) async for message in talk if isinstance(message, str)][-1]
    return ready["recording"], last["reason"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_talk_prints_an_address_at_which_the_agent_answers(tmp_path):
    tiny_model(tmp_path).save_to(str(tmp_path / "agent.nemo"))
    command = ["make", "--old-file=install", "talk", f"OUT={tmp_path}", "PORT=0", f"BIN={Path(sys.executable).parent}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as serving:
        try:
            line = next(line for line in serving.stdout if line.startswith("Talk to the agent: "))
            address = line.strip().rpartition("http://")[2]
            assert asyncio.run(call(address)) == (True, "finished")
            with urllib.request.urlopen(f"http://{address}/", timeout=60) as page:
                assert page.headers["Content-Type"].startswith("text/html")
        finally:
            serving.send_signal(signal.SIGTERM)
            serving.wait(timeout=60)
    assert len(list((tmp_path / "recordings").iterdir())) == 1


def test_the_container_and_kubernetes_give_keys_that_the_script_knows():
    dockerfile = (ROOT / "Dockerfile").read_text()
    lists = [json.loads(line.split(" ", 1)[1]) for line in dockerfile.splitlines() if line.startswith(("ENTRYPOINT", "CMD"))]
    manifests = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))
    [deployment] = [manifest for manifest in manifests if manifest["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    for keys in (lists[0][2:] + lists[1], lists[0][2:] + container["args"]):
        cfg = ScriptConfig("serve", keys).checked()
        assert cfg.host == "0.0.0.0" and cfg.api_keys and cfg.log == "json"
    sleep = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > sleep + cfg.drain_seconds + 5
    for copied in re.findall(r"^COPY (?!--)(.+) \S+$", dockerfile, re.MULTILINE):
        assert all((ROOT / name).exists() for name in copied.split()), copied
        assert all(f"!{name}\n" in (ROOT / ".dockerignore").read_text() for name in copied.split()), copied
