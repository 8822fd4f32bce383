"""The language model part: stepping equals forward, rows are independent, nothing looks ahead."""

import pytest
import torch

from nemo_duplex.channels.layout import ChannelLayout
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


def test_a_conversation_starts_with_a_pad_and_speech_start_and_again_after_a_reset():
    lm = debug_lm()
    state = lm.init_state(2)
    start = [LAYOUT.speech_start] * 3
    assert state.tokens.tolist() == [LAYOUT.text_pad] * 2 and state.codes.tolist() == [start, start]
    with torch.no_grad():
        lm.step(torch.randn(2, 32), state)
    assert state.cache.age.tolist() == [1, 1]
    state.tokens[:], state.codes[:] = 7, 5
    state.reset(torch.tensor([False, True]))
    assert state.cache.age.tolist() == [1, 0]
    assert state.tokens.tolist() == [7, LAYOUT.text_pad] and state.codes.tolist() == [[5, 5, 5], start]


def test_a_frame_is_the_sum_of_user_text_and_all_codes():
    lm, user = DuplexLM(LAYOUT, Backbone(LLAMA), user_weight=0.5), torch.randn(1, 1, 32)
    table = torch.nn.init.normal_(lm.speech_embedding.table.weight)
    size = LAYOUT.speech_vocab_size
    assert table.shape == (3 * size, 32)
    with torch.no_grad():
        found = lm.embed_frames(user, torch.tensor([[7]]), torch.tensor([[[4], [0], [10]]]))
        expected = 0.5 * user + lm.backbone.embed_tokens.weight[7] + table[4] + table[size] + table[2 * size + 10]
        alone = lm(user, torch.tensor([[7]]), torch.tensor([[[4], [0], [10]]]))
        start = LAYOUT.speech_start
        first = 0.5 * user + lm.backbone.embed_tokens.weight[LAYOUT.text_pad] + sum(table[k * size + start] for k in range(3))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(alone, lm.backbone(first), msg="the first frame has nothing of the agent's before it")


def test_no_token_lies_beyond_the_vocabulary():
    """An embedding may have more rows than the tokenizer has tokens."""
    torch.manual_seed(0)
    lm = DuplexLM(LAYOUT, Backbone({**LLAMA, "vocab_size": 64})).eval()
    torch.nn.init.normal_(lm.backbone.lm_head.weight[40:], std=100)
    tokens, _ = free_run(lm, torch.randn(2, 10, 32))
    assert tokens.max() < 40
