"""The query of `/api/chat`: used where it means something, never a refusal."""

import pytest

from nemo_duplex.serving.config import ServerConfig
from nemo_duplex.serving.protocols.moshi_query import session_options
from nemo_duplex.streaming.sampling import MAX_SEED
from nemo_duplex.streaming.session import EngineSession

WEB_UI = {
    **{"worker_auth_id": "x", "email": "a@b.c", "text_temperature": "0.7", "text_topk": "25", "audio_temperature": "0.8"},
    **{"audio_topk": "250", "pad_mult": "0", "text_seed": "123456", "audio_seed": "654321"},
    **{"repetition_penalty_context": "64", "repetition_penalty": "1.2", "image_resolution": "224"},
}


def test_the_web_ui_chooses_how_the_agent_speaks(agent):
    options = session_options(WEB_UI, agent, ServerConfig(sampling={"text": {"top_p": 0.9}}))
    text, speech = options["sampling"].text, options["sampling"].speech
    assert (text.temperature, text.top_k, text.top_p, text.repetition_penalty) == (0.7, 25, 0.9, 1.2)
    assert (speech.temperature, speech.top_k, speech.top_p, speech.repetition_penalty) == (0.8, 250, 1.0, 1.0)
    assert options["seed"] == (123456 << 32 ^ 654321)
    assert session_options(WEB_UI | {"audio_seed": "1"}, agent, ServerConfig())["seed"] != options["seed"]


def test_without_a_query_the_server_chooses(agent):
    options = session_options({}, agent, ServerConfig(sampling={"text": {"temperature": 0.3}, "speech": {"top_k": 5}}))
    assert (options["sampling"].text.temperature, options["sampling"].speech.top_k) == (0.3, 5)
    assert options["seed"] is None and options["system_prompt"] is None


@pytest.mark.parametrize(
    ("given", "temperature"),
    [("0", 0), ("-1", 0), ("1e-9", 1e-3), ("5000", 1e3), ("nan", 0.5), ("inf", 0.5), ("warm", 0.5), ("", 0.5), ("０.７", 0.7)],
)
def test_temperatures_become_what_sampling_takes(agent, given, temperature):
    config = ServerConfig(sampling={"text": {"temperature": 0.5}, "speech": {"temperature": 0.5}})
    sampling = session_options({"text_temperature": given, "audio_temperature": given}, agent, config)["sampling"]
    assert sampling.text.temperature == sampling.speech.temperature == temperature


@pytest.mark.parametrize(("given", "top_k"), [("25.9", 25), ("-3", 0), ("1e30", 10**9), ("NaN", 7), ("all", 7)])
def test_top_k_becomes_what_sampling_takes(agent, given, top_k):
    config = ServerConfig(sampling={"text": {"top_k": 7}, "speech": {"top_k": 7}})
    sampling = session_options({"text_topk": given, "audio_topk": given}, agent, config)["sampling"]
    assert sampling.text.top_k == sampling.speech.top_k == top_k


@pytest.mark.parametrize(
    ("query", "penalty"),
    [
        ({"repetition_penalty": "0"}, 0.01),
        ({"repetition_penalty": "1000"}, 100.0),
        ({"repetition_penalty": "2", "repetition_penalty_context": "0"}, 1.0),
        ({"repetition_penalty": "?"}, 1.5),
    ],
)
def test_the_penalty_becomes_what_sampling_takes(agent, query, penalty):
    config = ServerConfig(sampling={"text": {"repetition_penalty": 1.5}})
    assert session_options(query, agent, config)["sampling"].text.repetition_penalty == penalty


@pytest.mark.parametrize(
    ("query", "seed"),
    [
        ({"seed": "42"}, 42),
        ({"seed": "0", "text_seed": "9"}, 0),
        ({"seed": "-1"}, None),
        ({"seed": "-1", "text_seed": "1"}, 1 << 32),
        ({"audio_seed": "5"}, 5),
        ({"seed": str(2**64 - 1)}, MAX_SEED),
        ({"seed": "9" * 5000}, None),
        ({"seed": "1.5"}, None),
        ({"seed": "²"}, None),
    ],
)
def test_seeds_of_personaplex_and_of_moshi(agent, query, seed):
    options = session_options(query, agent, ServerConfig())
    assert options["seed"] == seed
    EngineSession(agent, **options)


def test_the_prompt_of_personaplex_is_the_system_prompt_where_the_server_has_room_for_it(agent):
    query = {"text_prompt": "What is one?", "voice_prompt": "NATF2.pt"}
    tokens = len(agent.prompt_tokens(query["text_prompt"]))
    for room, prompt in ((0, None), (tokens - 1, None), (tokens, query["text_prompt"])):
        assert session_options(query, agent, ServerConfig(prompt_tokens=room))["system_prompt"] == prompt
    assert session_options({"text_prompt": "  "}, agent, ServerConfig(prompt_tokens=9))["system_prompt"] is None
