"""The settings of a server: what `conf/serve.yaml` says, and what is refused."""

from pathlib import Path

import pytest

from nemo_duplex.inputs import InputError, plain
from nemo_duplex.scripts.config import ScriptConfig
from nemo_duplex.serving.caller_audio import AudioRules
from nemo_duplex.serving.config import Limits, RecordingRules, ServerConfig, read_keys


def settings(*keys):
    return ServerConfig.of(plain(ScriptConfig("serve", ["model=agent.nemo", *keys]).checked()))


def test_the_defaults_of_the_yaml_are_those_of_the_code():
    given = settings()
    assert given.sampling["text"]["temperature"] == 0.0 and given.is_local
    assert {**vars(given), "sampling": None} == vars(ServerConfig())


def test_every_key_arrives_where_it_belongs(tmp_path):
    for name in ("keys", "cert.pem", "key.pem"):
        (tmp_path / name).write_text("# ours\n one \n\ntwo\n")
    given = settings(
        *("callers=3", "host=0.0.0.0", "port=0", "prompt_tokens=9", "int8=true", "sampling.text.top_k=5", "log=json"),
        *("open_metrics=true", "drain_seconds=7", f"api_keys={tmp_path}/keys", "origins=[https://a.example]"),
        *("trusted_proxies=[10.0.0.0/8]", f"tls.certificate={tmp_path}/cert.pem", f"tls.key={tmp_path}/key.pem"),
        *("limits.call_seconds=null", "limits.idle_seconds=1", "limits.message_bytes=2", "limits.unsent_seconds=3"),
        *("limits.send_seconds=4", "limits.handshake_seconds=5", "limits.connections=6", "limits.calls_per_key=7"),
        *("limits.calls_per_address=8", "limits.waiting=9", "audio.patience=1", "audio.patience_at_start=2"),
        *("audio.late_gap=3", "audio.skip_after=4", "audio.most_queued=5", f"recordings.folder={tmp_path}"),
        *("recordings.gigabytes=1", "recordings.days=2"),
    )
    assert given.sampling["text"]["top_k"] == 5
    assert {**vars(given), "sampling": None} == vars(
        ServerConfig(
            *(3, "0.0.0.0", 0, 9, True, None, ("one", "two"), ("https://a.example",), ("10.0.0.0/8",)),
            *(tmp_path / "cert.pem", tmp_path / "key.pem", True, "json", 7.0),
            audio=AudioRules(1, 2, 3, 4, 5),
            limits=Limits(None, 1, 2, 3, 4, 5, 6, 7, 8, 9),
            recordings=RecordingRules(Path(tmp_path), 1, 2),
        )
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_this_machine_needs_no_key(host):
    assert ServerConfig(host=host).is_local


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "myhost", "localhost.example"])
def test_a_server_for_others_needs_one_and_the_cure_works(host, tmp_path):
    with pytest.raises(InputError, match=f"host={host}: a server that other machines can reach needs API keys") as refused:
        ServerConfig(host=host)
    assert "add api_keys=FILE (or set NEMO_DUPLEX_API_KEYS), or listen on this machine only: host=127.0.0.1" in str(
        refused.value
    )
    (tmp_path / "FILE").write_text("a-key\n")
    assert ServerConfig(host=host, api_keys=read_keys(tmp_path / "FILE")).api_keys == ("a-key",)


REFUSED = {
    "one of two": ({"tls_key": Path("k")}, "tls.certificate is not given: add tls.certificate=FILE"),
    "the other": ({"tls_certificate": Path("c")}, "tls.key is not given: add tls.key=FILE"),
    "port": ({"port": 70000}, "port=70000: expected 0 to 65535"),
    "origin": ({"origins": ("example.com",)}, "'example.com' is no origin, expected such as https://example.com"),
    "a path": ({"origins": ("https://example.com/page",)}, "no origin"),
    "proxy": ({"trusted_proxies": ("proxy",)}, "'proxy' is no address or network"),
    "key": ({"api_keys": ("a key",)}, "characters that no header can carry"),
    "log": ({"log": "xml"}, "log=xml: expected text or json"),
}


@pytest.mark.parametrize("given, message", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused_in_one_line(given, message):
    with pytest.raises(InputError, match=message) as refused:
        ServerConfig(**given)
    assert "\n" not in str(refused.value) and "a key" not in str(refused.value).replace("a key has", "")


def test_keys_come_from_the_file_then_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("NEMO_DUPLEX_API_KEYS", " three,one\tfour ")
    (tmp_path / "keys").write_text("# for the page\none\n\n  two \n")
    assert read_keys(tmp_path / "keys") == ("one", "two", "three", "four")
    assert read_keys(None) == ("three", "one", "four")
    monkeypatch.delenv("NEMO_DUPLEX_API_KEYS")
    assert read_keys(None) == ()


def test_a_file_without_keys_is_refused(tmp_path):
    (tmp_path / "keys").write_text("# none\n\n")
    with pytest.raises(InputError, match="holds no key. Write one a line, such as the output of: openssl rand -hex 24"):
        read_keys(tmp_path / "keys")
    with pytest.raises(InputError, match="api_keys: there is no file"):
        read_keys(tmp_path / "nothing")
