"""Sessions without end: what is kept is kept exactly, in constant memory, at positions that the model was trained for."""

import copy
import math

import pytest
import torch
from transformers import AttentionInterface

from nemo_duplex.inputs import InputError
from nemo_duplex.llm.backbone import Backbone
from tests.hf_families import family_config, random_family

POSITIONS = 24
FRAMES = 60  # of a session that outlasts its positions twice
# Mixed layers, some that rotate a part of the features, some that rotate neighbours, some with a window in every layer.
ROTARY_SIZE = {"llama": 8, "gemma3": 8, "gpt_neox": 2, "cohere": 8, "mistral": 8}
OWN_WINDOWS = {"gemma3": (5, None), "mistral": (5, 5)}


def backbone_of(name, window, sinks):
    model = random_family(name, max_position_embeddings=POSITIONS)
    return Backbone({}, window, weights=model, sinks=sinks).eval()


@torch.no_grad()
def stepped(backbone, frames, starts=(0,), cache=None):
    """(B, T, H) frame by frame; row b joins at starts[b], with garbage in its place until then."""
    cache = cache or backbone.empty_cache(len(frames))
    found = [[] for _ in frames]
    length = frames.shape[1]
    for t in range(length + max(starts)):
        age = t - torch.tensor(starts).expand(len(frames))
        live = (age >= 0) & (age < length)
        now = frames[torch.arange(len(frames)), age.clamp(0, length - 1)][:, None]
        out = backbone.step(now, cache, live)
        for row in range(len(frames)):
            if live[row]:
                found[row].append(out[row, 0])
    return torch.stack([torch.stack(row) for row in found])


class Reference:
    """Attention of a whole session at once, as the documentation says it: a loop over pairs of frames."""

    def __init__(self, name, reaches, theta):
        self.reaches = reaches  # of each layer: frames of its window, frames of its start
        self.size, self.interleaved = ROTARY_SIZE[name], name == "cohere"
        self.frequencies = [theta[layer] ** (-2 * i / self.size) for layer in range(2) for i in range(self.size // 2)]

    def __call__(self, module, query, key, value, mask, scaling, **more):
        layer = module.layer_idx
        key, value = (kv.repeat_interleave(query.shape[1] // kv.shape[1], dim=1) for kv in (key, value))
        window, sinks = self.reaches[layer]
        scores = torch.full((*query.shape[:3], query.shape[2]), -math.inf, dtype=query.dtype)
        for t in range(query.shape[2]):
            for k in range(t + 1):
                if t - k < window:
                    kept = key[:, :, k]
                elif k < sinks:
                    kept = self.moved(key[:, :, k], layer, max(0, t - (POSITIONS - 1)))
                else:
                    continue
                scores[:, :, t, k] = (query[:, :, t] * kept).sum(-1) * scaling
        return (scores.softmax(-1) @ value).transpose(1, 2), None

    def moved(self, key, layer, by):
        moved, half = key.clone(), self.size // 2
        for i in range(half):
            angle = by * self.frequencies[layer * half + i]
            first, second = (2 * i, 2 * i + 1) if self.interleaved else (i, i + half)
            a, b = key[..., first], key[..., second]
            moved[..., first] = a * math.cos(angle) - b * math.sin(angle)
            moved[..., second] = a * math.sin(angle) + b * math.cos(angle)
        return moved


def begun_again(name, frames, kept):
    """Without a window: after every half of the positions, as if the session had begun one half ago, with what is kept."""
    model = random_family(name, max_position_embeddings=POSITIONS).eval().double().base_model
    half, found = (POSITIONS - kept) // 2, []
    for t in range(frames.shape[1]):
        halves = max(0, t - kept) // half
        start = kept + (halves - 1) * half if halves > 1 else kept
        known = torch.cat([frames[:, : min(kept, t + 1)], frames[:, start : t + 1]], dim=1).double()
        assert known.shape[1] <= POSITIONS
        with torch.no_grad():
            found.append(model(inputs_embeds=known, use_cache=False).last_hidden_state[:, -1])
    return torch.stack(found, dim=1)


def reference(name, frames, window, kept):
    """The hidden states of a session (B, T, H) of which all frames are known."""
    own = OWN_WINDOWS.get(name, (None, None))
    if window is None and None in own:
        return begun_again(name, frames, kept)
    reaches = [(w, kept if None not in own else 0) if w else (window or POSITIONS - kept, kept) for w in own]
    theta = {"gemma3": (10000.0, 1000000.0), "cohere": (500000.0, 500000.0)}.get(name, (10000.0, 10000.0))
    model = random_family(name, max_position_embeddings=POSITIONS).eval().double().base_model
    AttentionInterface.register("as_documented", Reference(name, reaches, theta))
    model.config._attn_implementation = "as_documented"
    unused = torch.zeros(1, 1, frames.shape[1], frames.shape[1], dtype=torch.double)
    mask = {"full_attention": unused, "sliding_attention": unused} if name == "gemma3" else unused
    with torch.no_grad():
        return model(inputs_embeds=frames.double(), attention_mask=mask, use_cache=False).last_hidden_state


def test_the_first_frames_are_kept_and_those_behind_them_are_not():
    backbone, frames = backbone_of("llama", None, 4), torch.randn(1, 70, 32)
    found = stepped(backbone, frames)
    for frame, kept in ((0, True), (3, True), (4, False)):
        changed = frames.clone()
        changed[:, frame] *= -1
        # A frame that was dropped lives on in what its successors computed from it, in two layers for two rings at most.
        difference = (stepped(backbone, changed) - found)[:, frame + 2 * POSITIONS :].abs().max()
        assert (difference > 1e-4) == kept, f"Frame {frame}: {difference}"


# ---------------------------------------------------------------------- system prompts


def with_prompts(backbone, prompts, prompt_frames):
    """The cache of one row for each of `prompts`, (n, H) or None."""
    cache = backbone.empty_cache(len(prompts), prompt_frames)
    for row, prompt in enumerate(prompts):
        if prompt is not None:
            one = backbone.empty_cache(1, prompt_frames)
            backbone.prompt(prompt[None], one)
            for name in ("keys", "values", "unmoved_keys"):
                for here, there in zip(getattr(cache, name), getattr(one, name)):
                    here[row] = there[0]
            cache.age[row], cache.kept[row] = one.age[0], one.kept[0]
    return cache


@pytest.mark.parametrize(("window", "sinks"), [(None, 4), (None, 0), (8, 2), (8, 0)])
@pytest.mark.parametrize("name", ROTARY_SIZE)
@torch.no_grad()
def test_every_row_keeps_its_prompt_or_its_first_frames_for_ever(name, window, sinks):
    """Each row computes what is documented, in one batch: without a prompt, with one shorter than the sinks, and with one that
    is the longest one."""
    backbone, frames = backbone_of(name, window, sinks), torch.randn(3, FRAMES, 32)
    prompts = [None, *(torch.randn(n, 32) for n in (1, 11))]
    found = stepped(backbone, frames, starts=(0, 5, 13), cache=with_prompts(backbone, prompts, prompt_frames=11))
    for row, prompt in enumerate(prompts):
        first = prompt if prompt is not None else torch.empty(0, 32)
        whole = torch.cat([first, frames[row]])[None]
        expected = reference(name, whole, window, max(sinks, len(first)))[:, len(first) :]
        assert (found[row] - expected[0]).abs().max() < 1e-4 * expected.abs().max(), f"Row {row}"


@torch.no_grad()
def test_slots_for_prompts_change_nothing_for_those_who_have_none():
    for name, window in (("llama", 8), ("gemma3", None)):
        backbone, frames = backbone_of(name, window, None), torch.randn(1, 30, 32)
        alone, beside = stepped(backbone, frames), stepped(backbone, frames, cache=backbone.empty_cache(1, 11))
        assert (alone - beside).abs().max() < 1e-5


@torch.no_grad()
def test_a_row_that_starts_again_knows_nothing_of_the_prompt_before():
    backbone, frames = backbone_of("llama", 8, 2), torch.randn(1, FRAMES, 32)
    cache = with_prompts(backbone, [torch.randn(11, 32)], prompt_frames=11)
    stepped(backbone, frames, cache=cache)
    cache.reset(torch.tensor([True]))
    assert cache.age.tolist() == [0] and cache.kept.tolist() == [2]
    assert (stepped(backbone, frames, cache=cache) - stepped(backbone, frames)).abs().max() < 1e-5


@pytest.mark.parametrize(("name", "window", "limit"), [("llama", None, 12), ("llama", 8, 16), ("mistral", None, 19)])
def test_a_prompt_that_cannot_be_kept_is_refused(name, window, limit):
    backbone = backbone_of(name, window, None)
    backbone.empty_cache(1, limit)
    with pytest.raises(InputError, match=rf"^A system prompt of {limit + 1} tokens is too long:[^\n]* keep {limit} [^\n]*$"):
        backbone.empty_cache(1, limit + 1)


# ---------------------------------------------------------------------- as it was trained, in constant memory


@pytest.mark.parametrize("name", ["llama", "gemma3", "mistral"])
@torch.no_grad()
def test_it_is_trained_as_it_streams(name):
    backbone, frames = backbone_of(name, 8, 3), torch.randn(2, POSITIONS, 32)
    assert (stepped(backbone, frames) - backbone(frames)).abs().max() < 1e-5


def test_the_default_keeps_four_frames_where_a_layer_has_no_window_and_none_elsewhere():
    expected = {
        ("llama", None, None): [(POSITIONS, POSITIONS, 4, False)] * 2,
        ("gemma3", None, None): [(9, 5, 4, True), (POSITIONS, POSITIONS, 4, False)],
        ("gemma3", 8, None): [(5, 5, 0, False), (8, 8, 0, False)],
        ("gemma3", 8, 2): [(5, 5, 0, False), (10, 8, 2, False)],
        ("mistral", None, None): [(5, 5, 0, False), (5, 5, 0, False)],
        ("mistral", None, 2): [(7, 5, 2, False), (7, 5, 2, False)],
    }
    for settings, spans in expected.items():
        assert [ring.span for ring in backbone_of(*settings).empty_cache(1).rings] == spans


@pytest.mark.parametrize(("window", "sinks"), [(None, 4), (8, 2)])
def test_a_row_that_is_idle_stays_as_it_was(window, sinks):
    """All that it remembers: age, values and keys, except kept keys, which are moved anew in every step, and the scratch."""
    backbone = backbone_of("llama", window, sinks)
    for age in (1, 30):
        cache = backbone.empty_cache(2)
        stepped(backbone, torch.randn(2, age, 32), cache=cache)
        before = copy.deepcopy(cache)
        with torch.no_grad():
            backbone.step(torch.randn(2, 1, 32), cache, torch.tensor([True, False]))
        assert cache.age.tolist() == [age + 1, age]
        for name in ("keys", "values", "unmoved_keys"):
            first = cache.rings[0].moved if name == "keys" else 0
            for now, then in zip(getattr(cache, name), getattr(before, name)):
                assert torch.equal(now[1, :, :, first:-1], then[1, :, :, first:-1])
        assert not torch.equal(cache.values[0][0], before.values[0][0])


def test_memory_does_not_grow():
    backbone = backbone_of("gemma3", None, 4)
    cache = backbone.empty_cache(2)

    def places():
        return [tensor.data_ptr() for tensor in (*cache.keys, *cache.values, *cache.unmoved_keys, cache.age, cache.kept)]

    before = places()
    stepped(backbone, torch.randn(2, FRAMES, 32), cache=cache)
    assert places() == before
    assert [keys.shape[3] for keys in cache.keys] == [5 + 4 + 1, POSITIONS + 1]


def test_a_row_that_starts_again_knows_nothing_of_the_sinks_before():
    backbone, frames = backbone_of("llama", None, 4), torch.randn(2, FRAMES, 32)
    alone = stepped(backbone, frames[:1])
    cache = backbone.empty_cache(2)
    stepped(backbone, frames, cache=cache)
    cache.reset(torch.tensor([True, False]))
    assert cache.age.tolist() == [0, FRAMES]
    assert (stepped(backbone, frames, cache=cache)[:1] - alone).abs().max() < 1e-5


@pytest.mark.parametrize(("name", "window", "sinks"), [("gemma3", None, 4), ("llama", 8, 2)])
@torch.no_grad()
def test_a_step_is_one_graph(name, window, sinks):
    backbone, frames = backbone_of(name, window, sinks), torch.randn(2, 12, 32)
    prompts = [None, torch.randn(7, 32)]
    expected = stepped(backbone, frames, cache=with_prompts(backbone, prompts, prompt_frames=7))
    compiled = copy.copy(backbone)
    compiled.step = torch.compile(backbone.step, backend="eager", fullgraph=True)
    assert (stepped(compiled, frames, cache=with_prompts(backbone, prompts, prompt_frames=7)) - expected).abs().max() < 1e-5


def test_a_conversation_whose_end_is_known_takes_no_more_memory_than_it_needs():
    backbone, frames = backbone_of("llama", None, 4), torch.randn(1, 10, 32)
    known = backbone.empty_cache(1, frames=10)
    assert known.keys[0].shape[3] == 10 + 1
    assert (stepped(backbone, frames, cache=known) - stepped(backbone, frames)).abs().max() < 1e-5
    exactly = backbone.empty_cache(1, frames=POSITIONS)
    assert exactly.memories == 1 and backbone.empty_cache(1, frames=POSITIONS + 1).memories == 2
    assert backbone.empty_cache(1, 11, frames=1).keys[0].shape[3] == 11 + 5 + 1
    assert backbone.empty_cache(1, frames=1000).keys[0].shape[3] == POSITIONS + 1


# ---------------------------------------------------------------------- after days


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt_neox"])
def test_neighbours_stay_neighbours_however_long_a_session_lasts(name):
    """10^6 frames are a day; 10^9 are more than two years."""
    backbone, frames = backbone_of(name, 5, 0), torch.randn(1, 30, 32)
    early, late = backbone.empty_cache(1), backbone.empty_cache(1)
    late.age.fill_(10**9)
    known = slice(2 * 5, None)  # until then, two layers look back on what there never was
    difference = stepped(backbone, frames, cache=late) - stepped(backbone, frames, cache=early)
    assert difference[:, known].abs().max() < 1e-4


# ---------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("window", "sinks", "key"), [(65, 0, "attention_window"), (60, 5, "attention_window"), (None, 64, "sinks")]
)
def test_nothing_looks_further_back_than_there_are_positions(window, sinks, key):
    with pytest.raises(InputError, match=rf"^The language model llama was trained for 64 positions[^\n]*model\.{key}[^\n]*$"):
        Backbone(family_config("llama"), window, sinks=sinks)
