"""Rotary positions: exact at any age, moved in the family's layout, and the family's own numbers where it was trained."""

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from nemo_duplex.inputs import InputError
from nemo_duplex.llm.backbone import Backbone
from nemo_duplex.llm.rope import EndlessRotary, cos_sin, rope_layout, rotate, trained_positions
from nemo_duplex.llm.trial import check_streaming
from tests.hf_families import SIZES, lively, random_family
from tests.llm.test_cache import POSITIONS, stepped


@pytest.mark.parametrize(
    ("layout", "moved"), [("half", [-3.0, -4.0, 1.0, 2.0, 9.0]), ("interleaved", [-2.0, 1.0, -4.0, 3.0, 9.0])]
)
def test_a_quarter_turn(layout, moved):
    """(a, b) becomes (-b, a) for each pair; the fifth feature has no position."""
    keys, cos, sin = torch.tensor([[1.0, 2.0, 3.0, 4.0, 9.0]]), torch.zeros(1, 2), torch.ones(1, 2)
    assert rotate(keys, cos, sin, layout).tolist() == [moved]
    assert rotate(keys, cos, sin, "none").tolist() == keys.tolist()


def test_a_layout_is_recognised_by_what_it_does():
    keys, (cos, sin) = torch.randn(2, 1, 8), cos_sin(torch.tensor([1.0, 0.3, 0.1]), torch.tensor(5))
    for layout in ("half", "interleaved", "none"):
        assert rope_layout(keys, rotate(keys, cos, sin, layout), (cos, sin)) == layout
    assert rope_layout(keys, rotate(keys, cos, -sin, "half"), (cos, sin)) is None, "backwards"
    assert rope_layout(keys, rotate(keys, cos, sin, "half"), None) is None, "frequencies that are not known"
    assert rope_layout(keys[..., :4], rotate(keys[..., :4], cos[:1], sin[:1], "half"), (cos, sin)) is None, "too many of them"


@pytest.mark.parametrize("position", [1, 45_000, 10**6, 10**9])
def test_angles_are_exact_at_any_position(position):
    frequencies = 10000.0 ** (-torch.arange(0, 1, 1 / 32))
    cos, sin = cos_sin(frequencies, torch.tensor([position, position + 1]))
    expected = torch.polar(torch.ones(32, dtype=torch.double), frequencies.double())
    moved = torch.complex(cos[1], sin[1]) / torch.complex(cos[0], sin[0])
    assert (moved - expected).abs().max() < 1e-6


def test_within_the_trained_positions_the_familys_own_numbers_are_used_bit_for_bit():
    family = random_family("gemma3").model.rotary_emb
    endless = EndlessRotary(family, ["full_attention", "sliding_attention"], 64)
    positions = torch.arange(128)[None]
    for kind in ("full_attention", "sliding_attention"):
        ours, theirs = endless(torch.zeros(1), positions, kind), family(torch.zeros(1), positions, kind)
        for here, there in zip(ours, theirs):
            assert torch.equal(here[:, :64], there[:, :64])
            assert (here - there).abs().max() < 1e-4  # where float32 is still good enough


def test_beyond_them_a_family_that_scales_its_cosines_still_does():
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 10000.0}
    family = random_family("llama", rope_parameters=yarn).model.rotary_emb
    assert family.attention_scaling > 1.1
    endless, positions = EndlessRotary(family, [None], 16), torch.arange(40)[None]
    for here, there in zip(endless(torch.zeros(1), positions), family(torch.zeros(1), positions)):
        assert (here - there).abs().max() < 1e-4


def test_frequencies_that_are_kept_reach_as_far_as_they_were_trained():
    """Phi-3 128k has other ones beyond its first 4096 positions, which are not used here."""
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [8.0] * 4, "rope_theta": 10000.0}
    sizes = {"max_position_embeddings": 4 * POSITIONS, "original_max_position_embeddings": POSITIONS, "sliding_window": None}
    backbone = Backbone({}, weights=random_family("phi3", **sizes, rope_parameters=rope, partial_rotary_factor=1.0))
    assert backbone.positions == POSITIONS and backbone.empty_cache(1).keys[0].shape[3] == POSITIONS + 1


@pytest.mark.parametrize("kind, positions", [("longrope", 16), ("dynamic", 16), ("yarn", 64), ("llama3", 64), ("default", 64)])
def test_only_frequencies_that_switch_are_kept_at_their_first_ones(kind, positions):
    """YaRN and Llama 3 scale their frequencies once, for all positions."""
    rope = {"rope_type": kind, "original_max_position_embeddings": 16}
    for layers in (rope, {"full_attention": rope, "sliding_attention": {"rope_type": "default"}}):
        config = SimpleNamespace(max_position_embeddings=64, rope_parameters=layers)
        assert trained_positions(config) == positions
    assert trained_positions(SimpleNamespace(max_position_embeddings=64)) == 64


class TurnedOtherwise(LlamaForCausalLM):
    """A family that turns its features in an order of its own."""

    def __init__(self, config):
        super().__init__(config)
        rotary = self.model.rotary_emb
        forward, rotary.inv_freq = rotary.forward, rotary.inv_freq[::2]
        full = rotary.original_inv_freq

        def turn(x, position_ids):
            rotary.inv_freq, kept = full, rotary.inv_freq
            try:
                return forward(x, position_ids)
            finally:
                rotary.inv_freq = kept

        rotary.forward = turn


def test_a_family_whose_first_frames_cannot_be_moved_keeps_them_where_they_need_not():
    torch.manual_seed(0)
    model, frames = (
        lively(TurnedOtherwise(LlamaConfig(**SIZES | {"max_position_embeddings": POSITIONS}))),
        torch.randn(1, 40, 32),
    )
    refused = TurnedOtherwise(LlamaConfig(**SIZES))
    beside_a_window = Backbone({}, 8, weights=refused, sinks=2)
    with pytest.raises(InputError, match="its first frames cannot be kept beside a window. Set model.sinks to 0"):
        beside_a_window.empty_cache(1)
    with pytest.raises(InputError, match="something else after a while .* set it to null"):  # angles of float32, after a day
        check_streaming(refused, beside_a_window)
    assert Backbone({}, 8, weights=TurnedOtherwise(LlamaConfig(**SIZES))).prompt_limit == 0
    backbone = Backbone({}, weights=model)
    found = stepped(backbone, frames)
    late = torch.cat([frames[:, :4], frames[:, 24:]], dim=1)  # the session has begun again 10 and 20 frames after the 4 kept
    assert (found[:, -6:] - backbone(late)[:, -6:]).abs().max() < 1e-5
