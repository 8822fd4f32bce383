"""The language model part: stepping equals forward, rows are independent, nothing looks ahead."""

from dataclasses import replace

import pytest
import torch

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.targets import lay_out
from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.models.duplex_lm import DuplexLM

LAYOUT = ChannelLayout(text_vocab_size=40, text_pad=0, text_bos=1, text_eos=2, num_codebooks=3, codebook_size=11)
LLAMA = {
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}


def debug_lm(window=None):
    torch.manual_seed(0)
    lm = DuplexLM(LAYOUT, Backbone(LLAMA, window)).eval()
    for weight in (lm.speech_embedding.table.weight, lm.speech_head.projection.weight):
        torch.nn.init.normal_(weight, std=0.5)  # zero at the start of training, which would hide any fault here
    return lm


@torch.no_grad()
def free_run(lm, user):
    """(B, T, H) -> tokens (B, T), codes (B, K, T) of the agent left to itself."""
    state, frames = lm.init_state(len(user)), []
    for t in range(user.shape[1]):
        frame, state = lm.step(user[:, t], state)
        frames.append(frame)
    return torch.stack([f.tokens for f in frames], 1), torch.stack([f.codes for f in frames], 2)


@pytest.mark.parametrize("window", [None, 8], ids=["full attention", "window of 8 frames"])
def test_stepping_equals_forward(window):
    """Teacher-forced on its own output, forward must predict exactly that output."""
    lm, user = debug_lm(window), torch.randn(2, 40, 32)
    tokens, codes = free_run(lm, user)
    with torch.no_grad():
        hidden = lm(user, tokens, codes)
    assert torch.equal(lm.text_logits(hidden).argmax(-1), tokens)
    assert torch.equal(lm.speech_logits(hidden).argmax(-1).transpose(1, 2), codes)
    assert len(tokens.unique()) > 3, "A constant output would prove nothing."


def test_a_window_makes_sessions_endless():
    """Beyond the trained positions, a windowed model gives what it gives on the last frames' own history."""
    lm, user = debug_lm(window=8), torch.randn(1, 200, 32)
    tokens, codes = free_run(lm, user)
    with torch.no_grad():
        hidden = lm(user, tokens, codes)
    assert torch.equal(lm.text_logits(hidden).argmax(-1), tokens)


def test_rows_of_different_age_share_a_batch():
    lm, user = debug_lm(window=8), torch.randn(3, 30, 32)
    alone = [free_run(lm, user[i : i + 1]) for i in range(3)]
    starts = [0, 7, 12]
    state, heard = lm.init_state(3), [[], [], []]
    with torch.no_grad():
        for t in range(42):
            live = torch.tensor([s <= t < s + 30 for s in starts])
            frame = torch.stack([user[i, min(max(t - s, 0), 29)] for i, s in enumerate(starts)])
            out, state = lm.step(frame, state, live)
            for i in range(3):
                if live[i]:
                    heard[i].append((out.tokens[i], out.codes[i]))
                else:
                    assert out.tokens[i] == LAYOUT.text_pad and (out.codes[i] == LAYOUT.speech_pad).all()
    for i in range(3):
        assert torch.equal(torch.stack([h[0] for h in heard[i]]), alone[i][0][0])
        assert torch.equal(torch.stack([h[1] for h in heard[i]], 1), alone[i][1][0])


def test_reset_of_a_row_leaves_the_others_bit_for_bit():
    lm, user = debug_lm(), torch.randn(2, 20, 32)
    untouched, _ = free_run(lm, user)
    state, tokens = lm.init_state(2), []
    with torch.no_grad():
        for t in range(10):
            frame, state = lm.step(user[:, t], state)
            tokens.append(frame.tokens)
        state.reset(torch.tensor([True, False]))
        for t in range(10):
            frame, state = lm.step(torch.stack([user[0, t], user[1, 10 + t]]), state)
            tokens.append(frame.tokens)
    tokens = torch.stack(tokens, 1)
    assert torch.equal(tokens[1], untouched[1])
    assert torch.equal(tokens[0, 10:], untouched[0, :10]), "A reset row must start as a new conversation."


def test_later_user_audio_never_changes_earlier_frames():
    lm, user = debug_lm(), torch.randn(1, 20, 32)
    tokens, codes = torch.randint(3, 40, (1, 20)), torch.randint(0, 11, (1, 3, 20))
    changed = user.clone()
    changed[:, 12:] += 1
    with torch.no_grad():
        before, after = lm(user, tokens, codes), lm(changed, tokens, codes)
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


def test_new_vocabulary_starts_at_zero():
    """The pretrained model first hears what it always heard (paper, section 3)."""
    lm = DuplexLM(LAYOUT, Backbone(LLAMA))
    assert not lm.speech_embedding.table.weight.any() and not lm.speech_head.projection.weight.any()


def test_lay_out_draws_the_picture():
    """The timeline of channels/layout.py, for a turn heard in frames 4 to 7 of 11."""
    tokens = torch.tensor([[0, 0, 0, 0, 1, 21, 22, 0, 2, 0, 0]])
    codes = torch.arange(11).repeat(1, 3, 1)
    text, speech, speaking, valid = lay_out(tokens, codes, tokens >= 0, LAYOUT)
    pad, bos, eos = LAYOUT.speech_pad, LAYOUT.speech_bos, LAYOUT.speech_eos
    assert text.tolist() == [[0, 0, 1, 21, 22, 0, 2, 0, 0, 0, 0]]
    assert speech[0, 0].tolist() == [pad, pad, pad, bos, 4, 5, 6, 7, eos, pad, pad]
    assert speaking.tolist() == [[False] * 3 + [True] * 6 + [False] * 2]
    assert valid.all()


def test_lay_out_of_an_unfinished_turn_and_of_one_at_the_very_start():
    tokens = torch.tensor([[1, 21, 0, 2, 0, 0, 1, 22, 23, 0]])
    codes = torch.arange(10).repeat(1, 3, 1)
    text, speech, *_ = lay_out(tokens, codes, tokens >= 0, LAYOUT)
    pad, bos, eos = LAYOUT.speech_pad, LAYOUT.speech_bos, LAYOUT.speech_eos
    assert text.tolist() == [[1, 2, 0, 0, 1, 22, 23, 0, 0, 0]], "There is no room for a lead, so BOS stands at the first frame."
    assert speech[0, 0].tolist() == [0, 1, 2, eos, pad, bos, 6, 7, 8, 9], "An unfinished turn has no EOS."


def test_lay_out_in_place_is_that_of_nemo():
    """What NeMo's in-tree model is trained on: one frame of speech delay, marks over codes, silence as codes."""
    tokens = torch.tensor([[0, 0, 0, 0, 1, 21, 22, 0, 2, 0, 0]])
    codes = torch.arange(11).repeat(1, 3, 1)
    layout = replace(LAYOUT, turn_marks="in_place")
    text, speech, speaking, valid = lay_out(tokens, codes, tokens >= 0, layout)
    bos, eos = layout.speech_bos, layout.speech_eos
    assert text.tolist() == [[0, 0, 0, 1, 21, 22, 0, 2, 0, 0, 0]]
    assert speech[0, 0].tolist() == [0, 1, 2, 3, bos, 5, 6, 7, eos, 9, 10]
    assert speaking.tolist() == [[False] * 4 + [True] * 5 + [False] * 2]
    assert valid.tolist() == [[True] * 10 + [False]], "What follows the last frame is not known."


@pytest.mark.parametrize("delay, expected", [(0, [1, 2, 3, 4, 5, 5]), (2, [0, 0, 1, 2, 3, 4])])
def test_other_delays_in_place(delay, expected):
    layout = replace(LAYOUT, turn_marks="in_place", speech_delay=delay)
    tokens = torch.zeros(1, 6, dtype=torch.long)
    text, speech, *_ = lay_out(tokens, torch.arange(6).repeat(1, 3, 1), tokens >= 0, layout)
    assert speech[0, 0].tolist() == expected


def test_text_never_moves_out_of_padding_into_a_conversation():
    tokens = torch.tensor([[0, 1, 21, 2, 9, 9, 9]])
    valid = torch.tensor([[True] * 4 + [False] * 3])
    text, *_ = lay_out(tokens, torch.zeros(1, 3, 7, dtype=torch.long), valid, LAYOUT)
    assert text.tolist() == [[1, 2, 0, 0, 0, 0, 0]]
