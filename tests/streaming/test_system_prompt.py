"""System prompts: what they change is the same in a session, in an engine and offline, and is never forgotten."""

import numpy as np
import pytest
import torch

from nemo_duplex.inputs import InputError
from tests.dummies import LLM, speech_like, tiny_model

SHORT, LONG = "What is the day of two?", "What is the red of one? It is one. What is the sum of six? It is six."
POSITIONS = 60


@pytest.fixture(scope="module", params=[16, None], ids=["window of 16 frames", "60 positions"])
def model(request, tmp_path_factory):
    llm = LLM | {"max_position_embeddings": POSITIONS}
    model = tiny_model(tmp_path_factory.mktemp("model"), attention_window=request.param, llm=llm)
    torch.manual_seed(1)
    with torch.no_grad():  # so that what is far back still matters
        for weight in model.lm.backbone.llm.parameters():
            if weight.dim() == 2:
                weight.normal_(std=0.4)
    return model


def offline(model, signal, prompt):
    whole = model.offline_inference(signal[None], torch.tensor([len(signal)]), system_prompt=prompt)
    return whole["tokens_text"][0].tolist(), whole["tokens_audio"][0].numpy(), whole["audio"][0].numpy()


def assert_same(frames, whole):
    tokens, codes, audio = whole
    assert [f.token for f in frames] == tokens
    assert np.array_equal(np.stack([f.codes for f in frames]), codes)
    assert np.abs(np.concatenate([f.audio for f in frames]) - audio).max() < 1e-4


def test_a_session_with_a_prompt_equals_offline_inference_with_it(model):
    """13 s: long after the prompt has left the window, or the positions have run out."""
    signal = speech_like(13.0, 3)
    whole = offline(model, signal, LONG)
    session = model.open_session(system_prompt=LONG)
    frames = [frame for start in range(0, len(signal), 1280) for frame in session.push(signal[start : start + 1280])]
    assert_same(frames + session.flush(), whole)
    for other in (None, SHORT):
        # Codes of the last frames: a prompt that had been forgotten would make no difference there.
        assert not np.array_equal(offline(model, signal, other)[1][-20:], whole[1][-20:])


def test_a_prompt_is_the_conversations_first_frames(model):
    """The same numbers as by a plain forward of [prompt, frames] in which all is seen."""
    signal, tokens = speech_like(2.0, 3), model.prompt_tokens(SHORT)
    said = offline(model, signal, SHORT)
    written, codes = torch.tensor(said[0])[None], torch.from_numpy(said[1]).T[None]
    with torch.no_grad():
        user, _ = model.perception(signal[None], torch.tensor([len(signal)]))
        start = torch.tensor([[model.layout.text_pad]]), torch.full((1, codes.shape[1], 1), model.layout.speech_start)
        before = torch.cat([start[0], written[:, :-1]], 1), torch.cat([start[1], codes[:, :, :-1]], 2)
        prompt = model.lm.backbone.embed_tokens(torch.tensor(tokens)[None])
        frames = torch.cat([prompt, model.lm.embed_frames(user, *before)], dim=1)
        length, window = frames.shape[1], model.lm.backbone.attention_window
        distance = torch.arange(length)[:, None] - torch.arange(length)
        seen = (distance >= 0) & ((distance < (window or length)) | (torch.arange(length) < len(tokens)))
        hidden = model.lm.backbone.llm(
            inputs_embeds=frames, attention_mask=torch.where(seen, 0.0, -1e9)[None, None], use_cache=False
        ).last_hidden_state[:, len(tokens) :]
    assert torch.equal(model.lm.text_logits(hidden)[..., : model.layout.text_vocab_size].argmax(-1), written)
    assert torch.equal(model.lm.speech_logits(hidden).argmax(-1).transpose(1, 2), codes)


def test_callers_of_one_batch_have_prompts_of_their_own(model):
    prompts = [None, SHORT, LONG, None, SHORT]
    signals = [speech_like(7.0 + i / 3, i) for i in range(5)]
    engine = model.open_engine(max_sessions=5, prompt_tokens=len(model.prompt_tokens(LONG)))
    sessions = [engine.open_session(system_prompt=prompt) for prompt in prompts]
    for session, signal in zip(sessions, signals):
        session.push(signal)
        session.flush()
    answers = engine.run_until_idle()
    for session, signal, prompt in zip(sessions, signals, prompts):
        assert_same(answers[session], offline(model, signal, prompt))
    again = engine.open_session()  # in a row in which there was a prompt, or next to it
    again.push(signals[0])
    again.flush()
    assert_same(engine.run_until_idle()[again], offline(model, signals[0], None))


def test_a_step_reads_one_prompt_and_those_behind_it_lose_nothing(model):
    engine, signal = model.open_engine(max_sessions=4, prompt_tokens=len(model.prompt_tokens(LONG))), speech_like(1.0, 0)
    talking, *others = (engine.open_session(system_prompt=p) for p in (None, SHORT, LONG, None))
    for session in (talking, *others):
        session.push(signal)
    answered = []
    for _ in range(4):
        answers = engine.step()
        answered.append([session in answers for session in (talking, *others)])
    assert answered == [[True, True, False, False], [True, True, True, False], [True] * 4, [True] * 4]
    answers = engine.run_until_idle()
    assert all(answers[session][-1].index == answers[talking][-1].index for session in others)


def test_sessions_that_wait_for_their_prompt_are_not_moved(model):
    """Two are behind the two that leave: the one whose prompt is read would fit into fewer rows, the other one still waits."""
    engine, signal = model.open_engine(max_sessions=4, prompt_tokens=len(model.prompt_tokens(LONG))), speech_like(1.0, 0)
    leaving = [engine.open_session() for _ in range(2)]
    assert engine.step() == {}
    staying = {engine.open_session(system_prompt=prompt): prompt for prompt in (SHORT, LONG)}
    for session in leaving:
        session.close()
    for session in staying:
        session.push(signal)
        session.flush()
    answers = engine.run_until_idle()
    for session, prompt in staying.items():
        assert_same(answers[session], offline(model, signal, prompt))


def test_nobody_who_waits_is_left_behind_when_there_is_nothing_else_to_do(model):
    engine, signal = model.open_engine(max_sessions=2, prompt_tokens=len(model.prompt_tokens(LONG))), speech_like(1.0, 0)
    engine.open_session(system_prompt=SHORT)  # and says nothing
    other = engine.open_session(system_prompt=LONG)
    other.push(signal)
    other.flush()
    assert_same(engine.run_until_idle()[other], offline(model, signal, LONG))


def test_a_prompt_without_room_is_refused_in_one_line(model):
    engine = model.open_engine(max_sessions=1, prompt_tokens=3)
    count = len(model.prompt_tokens(SHORT))
    with pytest.raises(InputError, match=rf"^A system prompt of {count} tokens[^\n]*at most 3[^\n]*prompt_tokens={count}\.$"):
        engine.open_session(system_prompt=SHORT)
    assert len(engine) == 0
    window = model.lm.backbone.attention_window
    limit = POSITIONS - window if window else POSITIONS // 2
    for refused in (
        lambda: model.open_session(system_prompt=LONG * 3),
        lambda: model.offline_inference(torch.zeros(1, 1280), torch.tensor([1280]), system_prompt=LONG * 3),
        lambda: model.open_engine(max_sessions=1, prompt_tokens=limit + 1),
    ):
        with pytest.raises(InputError, match=rf"^A system prompt of [^\n]*too long[^\n]*it can keep {limit} [^\n]*$"):
            refused()
