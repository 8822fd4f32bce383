"""Every family of language models: computes what transformers computes, learns, streams as the whole, saves and loads."""

import pytest
import torch

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.inputs import InputError
from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.llm.pretrained import llm_config
from nemo_duplex.models.duplex_lm import DuplexLM
from tests.hf_families import FAMILIES, TIED, family_config, random_family

LAYOUT = ChannelLayout(text_vocab_size=320, text_pad=0, text_bos=1, text_eos=2, num_codebooks=3, codebook_size=11)
FRAMES = 24  # far beyond the window of 5 that one layer has

families = pytest.mark.parametrize("name", FAMILIES)
a_few = pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_neox"])


def backbone_of(name, window=None):
    return Backbone(family_config(name), window, weights=random_family(name)).eval()


def duplex_lm(name, window=None):
    lm = DuplexLM(LAYOUT, backbone_of(name, window)).eval()
    for weight in (lm.speech_embedding.table.weight, lm.speech_head.projection.weight):
        torch.nn.init.normal_(weight, std=0.5)  # zero at the start of training, which would hide any fault here
    return lm


@torch.no_grad()
def stepped(backbone, frames):
    """(B, T, H) frame by frame."""
    cache, live = backbone.empty_cache(len(frames)), torch.ones(len(frames), dtype=torch.bool)
    return torch.cat([backbone.step(frames[:, t : t + 1], cache, live) for t in range(frames.shape[1])], dim=1)


@families
@torch.no_grad()
def test_it_computes_what_transformers_computes(name):
    model = random_family(name).eval()
    tokens = torch.randint(3, 320, (2, FRAMES))
    expected = model(input_ids=tokens).logits
    backbone = Backbone(family_config(name), weights=model)
    assert torch.allclose(backbone.text_logits(backbone(backbone.embed_tokens(tokens))), expected, atol=1e-4)


@families
@pytest.mark.parametrize("window", [None, 3], ids=["own windows", "window of 3"])
def test_frame_by_frame_equals_the_whole(name, window):
    backbone, frames = backbone_of(name, window), torch.randn(2, FRAMES, 32)
    with torch.no_grad():
        whole = backbone(frames)
        changed = frames.clone()
        changed[:, 0] += 1
        seen = (backbone(changed) - whole).abs().amax(dim=(0, 2)) > 0
    assert (stepped(backbone, frames) - whole).abs().max() < 1e-5
    layers_look_back = [min(w for w in (window, own, FRAMES) if w) for own in own_windows(name)]
    reach = 1 + sum(w - 1 for w in layers_look_back)
    assert seen[:reach].all() and not seen[reach:].any(), f"The first frame is seen for {reach} frames, got {seen}."


def own_windows(name):
    if name in ("mistral", "phi3"):
        return 5, 5
    return (5, None) if name in ("qwen2", "gemma2", "gemma3") else (None, None)


@a_few
def test_sessions_of_different_age_share_a_batch(name):
    lm, user = duplex_lm(name, window=8), 4 * torch.randn(3, FRAMES, 32)  # the user must outweigh what was said before
    starts, alone = (0, 7, 11), []
    with torch.no_grad():
        for row in range(3):
            state, tokens = lm.init_state(1), []
            for t in range(FRAMES):
                out, state = lm.step(user[row : row + 1, t], state)
                tokens.append(int(out.tokens[0]))
            alone.append(tokens)
        state, together = lm.init_state(3), [[], [], []]
        for t in range(FRAMES + max(starts)):
            live = torch.tensor([start <= t < start + FRAMES for start in starts])
            frame = torch.stack([user[row, min(max(t - start, 0), FRAMES - 1)] for row, start in enumerate(starts)])
            out, state = lm.step(frame, state, live)
            for row in range(3):
                if live[row]:
                    together[row].append(int(out.tokens[row]))
    assert together == alone
    assert all(len(set(tokens)) > 3 for tokens in alone), "A constant output would prove nothing."


@a_few
def test_it_learns(name):
    torch.manual_seed(0)
    lm = DuplexLM(LAYOUT, Backbone(family_config(name))).train()
    user, tokens, codes = torch.randn(2, FRAMES, 32), torch.randint(3, 320, (2, FRAMES)), torch.randint(0, 11, (2, 3, FRAMES))
    optimizer = torch.optim.AdamW(lm.parameters(), lr=5e-3)
    losses = []
    for _ in range(20):
        hidden = lm(user, tokens, codes)
        loss = torch.nn.functional.cross_entropy(lm.text_logits(hidden).flatten(0, 1), tokens.flatten())
        loss = loss + torch.nn.functional.cross_entropy(lm.speech_logits(hidden).flatten(0, 2), codes.mT.flatten())
        optimizer.zero_grad()
        loss.backward()
        missing = [key for key, weight in lm.named_parameters() if weight.grad is None]
        assert not missing, f"No gradient reaches {missing}."
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses


@families
def test_its_state_and_its_config_are_all_there_is(name):
    backbone, frames = backbone_of(name, window=8), torch.randn(1, FRAMES, 32)
    again = Backbone(llm_config(random_family(name)), 8).eval()
    again.load_state_dict(backbone.state_dict())
    with torch.no_grad():
        hidden = again(frames)
        assert torch.equal(hidden, backbone(frames))
        assert torch.equal(again.text_logits(hidden), backbone.text_logits(hidden))


@families
def test_tied_weights_are_one_parameter(name):
    backbone = backbone_of(name)
    tied = backbone.lm_head.weight is backbone.embed_tokens.weight
    assert tied == (name in TIED)
    assert sum(p.numel() == 320 * 32 for p in backbone.parameters()) == (1 if tied else 2)
    assert {"lm_head.weight", "embed_tokens.weight"} <= set(backbone.state_dict())


def test_the_text_pad_is_learnt_like_any_other_token():
    """transformers would give no gradient to `pad_token_id`, and most frames of the text channel are pad."""
    backbone = backbone_of("llama")
    assert backbone.config.pad_token_id == 0
    backbone(backbone.embed_tokens(torch.zeros(1, 4, dtype=torch.long))).sum().backward()
    assert backbone.embed_tokens.weight.grad[0].abs().max() > 0


def test_a_ring_is_as_long_as_its_layer_looks_back():
    assert [keys.shape[3] - 1 for keys in backbone_of("gemma2").empty_cache(1).keys] == [5 + 4, 64]
    assert [keys.shape[3] - 1 for keys in backbone_of("gemma2", window=3).empty_cache(1).keys] == [3, 3]
    assert [keys.shape[3] - 1 for keys in backbone_of("qwen2", window=8).empty_cache(1).keys] == [8, 5]


def test_a_step_writes_where_the_last_one_wrote():
    """The same buffers in every step: what a CUDA graph replays."""
    backbone, cache = (b := backbone_of("gemma3", window=4)), b.empty_cache(2)
    places = [tensor.data_ptr() for tensor in (*cache.keys, *cache.values, cache.age)]
    for t in range(9):
        with torch.no_grad():
            backbone.step(torch.randn(2, 1, 32), cache, torch.tensor([True, t > 3]))
        cache.reset(torch.tensor([t == 5, False]))
    assert places == [tensor.data_ptr() for tensor in (*cache.keys, *cache.values, cache.age)]
    assert cache.age.tolist() == [3, 5]


LONG = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [8.0] * 4}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0}


@pytest.mark.parametrize(("name", "rope"), [("phi3", LONG), ("llama", DYNAMIC)], ids=["longrope", "dynamic"])
@torch.no_grad()
def test_rotary_frequencies_do_not_change_during_a_session(name, rope):
    """In transformers they do, with the age of the oldest row of the batch, and keys written before no longer fit."""
    changes = {"rope_parameters": {**rope, "rope_theta": 10000.0}, "sliding_window": None}
    changes |= {"max_position_embeddings": 16, "original_max_position_embeddings": 16}
    backbone = Backbone({}, 8, weights=random_family(name, **changes, partial_rotary_factor=1.0)).eval()
    frames = torch.randn(1, 40, 32)
    assert backbone.positions == 16
    whole = backbone(frames)
    assert (stepped(backbone, frames) - whole).abs().max() < 1e-5
    assert (backbone(frames[:, :12]) - whole[:, :12]).abs().max() < 1e-5


def test_building_a_model_runs_no_layer_and_allocates_no_cache(monkeypatch):
    """A model of 131,072 positions would take gigabytes."""

    def refuse(*args, **kwargs):
        raise AssertionError("A pass was made, or a cache allocated.")

    monkeypatch.setattr("transformers.models.llama.modeling_llama.LlamaDecoderLayer.forward", refuse)
    monkeypatch.setattr("nemo_duplex.llm.cache.RowCache.empty", refuse)
    backbone = Backbone(family_config("llama", max_position_embeddings=131072))
    assert backbone.positions == 131072
    with torch.no_grad(), pytest.raises(AssertionError):
        backbone(torch.zeros(1, 1, 32))


@pytest.mark.parametrize(
    ("window", "sinks", "cure", "allowed"),
    [
        (65, None, "Choose model.attention_window and model.sinks so that they are 64 or less together.", (64, 0)),
        (16, 49, "Choose model.attention_window and model.sinks so that they are 64 or less together.", (16, 48)),
        (None, 33, "Choose a value of 32 or less for model.sinks.", (None, 32)),
    ],
)
def test_frames_to_look_back_on_are_refused_with_the_most_that_are_allowed(window, sinks, cure, allowed):
    with pytest.raises(InputError) as error:
        Backbone(family_config("llama"), window, sinks=sinks)
    assert str(error.value).endswith(f" more. {cure}")
    backbone = Backbone(family_config("llama"), allowed[0], sinks=allowed[1])
    assert (backbone.attention_window, backbone.sinks) == allowed


def test_where_no_prompt_can_be_kept_the_advice_is_to_have_none():
    backbone = Backbone(family_config("llama"), 64)
    with pytest.raises(InputError, match="it can keep 0 beside the conversation. Open the session without a prompt.$"):
        backbone.empty_cache(1, 1)
    backbone.empty_cache(1, 0)
    backbone = Backbone(family_config("llama"), 60)
    with pytest.raises(InputError, match="it can keep 4 beside the conversation. Shorten the prompt.$"):
        backbone.empty_cache(1, 5)
    backbone.empty_cache(1, 4)
