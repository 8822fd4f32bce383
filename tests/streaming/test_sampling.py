"""Choices: greedy is argmax, chance follows the model's probabilities, and depends on nothing but seed, frame and place."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.inputs import InputError
from nemo_duplex.streaming.sampling import (
    MAX_SEED,
    REPETITION_WINDOW,
    AgentSampling,
    RowSampler,
    SamplerState,
    Sampling,
    channel_key,
    checked_seed,
    draw,
    gumbel,
    penalised,
)

LAYOUT = ChannelLayout(50, text_pad=0, text_bos=1, text_eos=2, num_codebooks=3, codebook_size=20)
KEYS = [[[1336229038, 4282990089], [1569631545, 3768268810]], [[2229111375, 1853110563], [3280740140, 295518400]]]
NOISE = [-0.17653, 0.96037, -0.84025]
HOT = AgentSampling(Sampling(temperature=1.0), Sampling(temperature=1.0))


def logits(rows: int = 1, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    text, speech = LAYOUT.text_vocab_size, (LAYOUT.num_codebooks, LAYOUT.speech_vocab_size)
    return torch.randn(rows, text, generator=generator), torch.randn(rows, *speech, generator=generator)


def draws(row: torch.Tensor, sampling: Sampling, frames: int, seed: int = 7) -> torch.Tensor:
    """(frames,) entries that one session draws from the same logits (V,)."""
    state = SamplerState.of(AgentSampling(text=sampling), seed, frames)
    key = channel_key(state.seed, torch.arange(frames), torch.zeros(1, dtype=torch.long))
    return draw(row.expand(frames, 1, -1), state, 0, key)[:, 0]


def support(row: list[float], sampling: Sampling) -> list[int]:
    return draws(torch.tensor(row), sampling, 4000).unique().tolist()


# ---------------------------------------------------------------------- greedy


def test_greedy_is_argmax_bit_for_bit_whoever_else_draws():
    text, speech = logits(4)
    text[1, 5] = text[1, 30] = speech[2, 1, 3] = speech[2, 1, 9] = 9.0  # ties go where argmax lets them go
    state = SamplerState.of(AgentSampling(), 0, 4)
    state.temperature[3] = 1.0
    output = RowSampler(LAYOUT).choose(text, speech, state, torch.zeros(4, dtype=torch.long))
    assert torch.equal(output.tokens[:3], text.argmax(-1)[:3]) and torch.equal(output.codes[:3], speech.argmax(-1)[:3])


def test_what_is_greedy_says_so():
    assert AgentSampling().greedy and AgentSampling(Sampling(top_k=5, top_p=0.5)).greedy
    assert not AgentSampling(Sampling(repetition_penalty=1.2)).greedy
    assert not AgentSampling(speech=Sampling(temperature=0.5)).greedy


# ---------------------------------------------------------------------- chance


def test_noise_is_uniform_and_its_neighbours_do_not_know_each_other():
    """Chi-square over seeds, frames, channels and entries that count up by one, as they do in a session."""
    seeds, frames, channels, entries = 8, 40, 5, 512
    seed = torch.arange(seeds).repeat_interleave(frames)
    key = channel_key(seed, torch.arange(frames).repeat(seeds), torch.arange(channels))
    noise = gumbel(key, torch.arange(entries).expand(seeds * frames, channels, -1))
    unit = torch.exp(-torch.exp(-noise.double())).view(seeds, frames, channels, entries).numpy()
    counts, _ = np.histogram(unit, bins=256, range=(0, 1))
    assert stats.chisquare(counts).pvalue > 1e-3
    for axis in range(4):  # pairs of neighbours along each axis fill the unit square evenly
        first, second = (np.take(unit, range(s, unit.shape[axis] - 1 + s), axis) for s in (0, 1))
        pairs, *_ = np.histogram2d(first.ravel(), second.ravel(), bins=16, range=[[0, 1]] * 2)
        assert stats.chisquare(pairs.ravel()).pvalue > 1e-3, f"axis {axis}"


def test_temperature_one_draws_from_the_softmax():
    row, frames = 2 * torch.randn(24, generator=torch.Generator().manual_seed(3)), 40000
    for temperature in (1.0, 0.6, 1.7):
        counts = np.bincount(draws(row, Sampling(temperature=temperature), frames), minlength=24)
        assert stats.chisquare(counts, frames * (row / temperature).double().softmax(0).numpy()).pvalue > 1e-3


def test_codebooks_draw_on_their_own():
    state, frames = SamplerState.of(HOT, 11, 20000), torch.arange(20000)
    speech = torch.zeros(20000, LAYOUT.num_codebooks, LAYOUT.speech_vocab_size)
    codes = RowSampler(LAYOUT).choose(torch.zeros(20000, 50), speech, state, frames).codes.numpy()
    for first, second in ((0, 1), (1, 2), (0, 2)):
        table = np.histogram2d(codes[:, first], codes[:, second], bins=LAYOUT.speech_vocab_size)[0]
        assert stats.chi2_contingency(table).pvalue > 1e-3
    following = np.histogram2d(codes[:-1, 0], codes[1:, 0], bins=LAYOUT.speech_vocab_size)[0]
    assert stats.chi2_contingency(following).pvalue > 1e-3


def test_text_and_speech_have_options_and_noise_of_their_own():
    """Of equal logits: a greedy channel takes the first entry, and two hot ones do not draw alike."""
    text, speech = torch.zeros(200, 50), torch.zeros(200, LAYOUT.num_codebooks, LAYOUT.speech_vocab_size)
    frames, hot = torch.arange(200), Sampling(temperature=1.0)
    drawn = [
        RowSampler(LAYOUT).choose(text, speech, SamplerState.of(sampling, 3, 200), frames)
        for sampling in (AgentSampling(text=hot), AgentSampling(speech=hot))
    ]
    assert drawn[0].tokens.unique().numel() > 20 and not drawn[0].codes.any()
    assert drawn[1].codes[:, 0].unique().numel() > 15 and not drawn[1].tokens.any()
    same = RowSampler(LAYOUT).choose(speech[:, 0], speech, SamplerState.of(HOT, 3, 200), frames)
    for codebook in range(LAYOUT.num_codebooks):
        assert (same.tokens == same.codes[:, codebook]).float().mean() < 0.2


def test_chance_depends_on_seed_and_frame_and_not_on_the_batch():
    text, speech = logits(16)
    seeds, frames = torch.arange(16) % 5, torch.arange(16) * 3 % 7
    state = SamplerState.of(HOT, 0, 16)
    state.seed.copy_(seeds)
    together = RowSampler(LAYOUT).choose(text, speech, state, frames)
    for row in range(16):
        alone = SamplerState.of(HOT, int(seeds[row]))
        output = RowSampler(LAYOUT).choose(text[row : row + 1], speech[row : row + 1], alone, frames[row : row + 1])
        assert torch.equal(output.tokens[0], together.tokens[row]) and torch.equal(output.codes[0], together.codes[row])


def test_every_bit_of_the_seed_matters():
    row = torch.zeros(1000)
    texts = {tuple(draws(row, Sampling(temperature=1.0), 8, seed=1 << bit).tolist()) for bit in range(63)}
    assert len(texts) == 63


def test_the_same_noise_on_every_machine():
    """Words are hashed in whole numbers, so that a recorded session can be replayed elsewhere."""
    key = channel_key(torch.tensor([42, MAX_SEED]), torch.tensor([0, 12345]), torch.arange(2))
    assert [half.tolist() for half in key] == KEYS
    assert (gumbel(key, torch.arange(3).expand(2, 2, -1))[1, 1] - torch.tensor(NOISE)).abs().max() < 1e-5


# ---------------------------------------------------------------------- supports


def test_top_k_is_the_k_most_likely_and_of_equal_ones_the_first():
    hot = {"temperature": 2.0}
    assert support([0.1, 0.5, 0.3, 0.4], Sampling(**hot, top_k=2)) == [1, 3]
    assert support([0.5, 0.1, 0.5, 0.5, 0.5], Sampling(**hot, top_k=3)) == [0, 2, 3]
    assert support([0.5, 0.1, 0.5], Sampling(**hot, top_k=0)) == [0, 1, 2] == support([0.5, 0.1, 0.5], Sampling(**hot, top_k=9))


def test_top_p_is_the_smallest_set_that_reaches_it():
    row = [math.log(p) for p in (0.15, 0.4, 0.05, 0.3, 0.1)]
    for top_p, kept in ((0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.71, [0, 1, 3]), (0.96, [0, 1, 2, 3, 4])):
        assert support(row, Sampling(temperature=1.0, top_p=top_p)) == kept
    assert support(row, Sampling(temperature=1.0, top_p=1e-9)) == [1]
    for n in range(1, 10):  # equal ones: exactly n tenths, whatever a sum of floats says
        assert support([0.0] * 10, Sampling(temperature=1.0, top_p=n / 10)) == list(range(n))
    assert support([0.0, 1.0, 0.5], Sampling(temperature=1.0, top_p=1e-7)) == [1], "The most likely one is always inside."


def test_top_p_counts_what_temperature_and_top_k_leave():
    row = [math.log(p) for p in (0.4, 0.3, 0.2, 0.1)]
    assert support(row, Sampling(temperature=1.0, top_k=2, top_p=0.56)) == [0]  # 0.4 of 0.7
    assert support(row, Sampling(temperature=1.0, top_k=2, top_p=0.6)) == [0, 1]
    assert support(row, Sampling(temperature=100.0, top_p=0.7)) == [0, 1, 2]


def test_the_draw_within_a_support_follows_the_softmax():
    row = torch.tensor([1.0, 0.2, 2.0, -1.0, 1.5])
    counts = np.bincount(draws(row, Sampling(temperature=1.0, top_k=3), 20000), minlength=5)
    inside = [0, 2, 4]
    assert counts.sum() == counts[inside].sum()
    assert stats.chisquare(counts[inside], 20000 * row[inside].double().softmax(0).numpy()).pvalue > 1e-3


def test_top_k_has_an_effect_unlike_in_tree():
    """NeMo 3.0's `TransformerARSpeechDecoder.sample_codes_from_logits` masks a copy of the logits and then takes the softmax
    of the ones without mask: top-k has no effect there, and codes of the far tail are spoken."""
    row = torch.zeros(1000)
    row[::200] = 1.0
    in_tree = row.clone()
    in_tree[row < row.topk(5).values[-1]] = -math.inf  # `codebook_logits_rescored`, of which nothing is used
    in_tree = torch.multinomial((row / 0.7).softmax(0), 1000, replacement=True, generator=torch.Generator().manual_seed(0))
    assert (row[in_tree] == 0).float().mean() > 0.9
    assert support(row.tolist(), Sampling(temperature=0.7, top_k=5)) == [0, 200, 400, 600, 800]


# ---------------------------------------------------------------------- repetition


def test_what_was_written_lately_is_less_likely():
    text = torch.tensor([[2.0, -1.0, 3.0, 0.5]])
    recent = torch.tensor([[-1, -1, 2, 1, 2]])
    assert penalised(text, recent, torch.tensor([1.5])).tolist() == [[2.0, -1.5, 2.0, 0.5]]
    assert torch.equal(penalised(text, recent, torch.tensor([1.0])), text)
    greedy = SamplerState.of(AgentSampling(text=Sampling(repetition_penalty=2.0)), 0)
    text, speech = logits()
    favourite = text.argmax(-1)
    sampler, zero, live = RowSampler(LAYOUT), torch.zeros(1, dtype=torch.long), torch.ones(1, dtype=torch.bool)
    assert sampler.choose(text, speech, greedy, zero).tokens == favourite
    sampler.remember(favourite, greedy, live)
    assert sampler.choose(text, speech, greedy, zero).tokens != favourite


def test_the_window_holds_the_latest_tokens_that_are_no_specials():
    state, sampler = SamplerState.of(AgentSampling(), 0, 2), RowSampler(LAYOUT)
    for token in (0, 1, *range(3, 3 + REPETITION_WINDOW - 2), 2, 0, 40, 41, 42):
        sampler.remember(torch.tensor([token, token]), state, torch.tensor([True, False]))
    assert REPETITION_WINDOW == 64
    assert state.recent[0].tolist() == [*range(4, 3 + REPETITION_WINDOW - 2), 40, 41, 42]
    assert (state.recent[1] == -1).all()


# ---------------------------------------------------------------------- what is refused


def test_options_are_read_from_plain_data():
    read = AgentSampling.of({"text": {"temperature": 0.7, "top_k": 5}, "speech": Sampling(temperature=0.9)})
    assert read == AgentSampling(Sampling(0.7, 5), Sampling(0.9)) and AgentSampling.of(read) is read
    assert AgentSampling.of(None) == AgentSampling.of({}) == AgentSampling()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"text": {"temperature": -0.1}}, "temperature is -0.1"),
        ({"text": {"temperature": math.nan}}, "temperature is nan"),
        ({"text": {"temperature": "hot"}}, "temperature is 'hot'"),
        ({"text": {"temperature": math.inf}}, "temperature is inf, expected 0, or a number from 0.001 to 1000"),
        ({"text": {"temperature": 1e-40}}, "temperature is 1e-40"),  # logits divided by it would be infinite
        ({"text": {"temperature": True}}, "temperature is True"),
        ({"text": {"top_k": 1.5}}, "top_k is 1.5"),
        ({"text": {"top_k": 10**30}}, "top_k is 1000000000000000000000000000000"),  # no tensor holds it
        ({"text": {"top_p": math.nan}}, "top_p is nan"),
        ({"text": {"top_p": 0.0}}, "top_p is 0.0"),
        ({"text": {"top_p": 1.01}}, "top_p is 1.01"),
        ({"text": {"repetition_penalty": 0}}, "repetition_penalty is 0"),
        ({"speech": {"repetition_penalty": 1.1}}, "sounds may repeat"),
        ({"speech": {"topk": 5}}, "sampling.speech has no topk: expected temperature, top_k"),
        ({"audio": {}}, "sampling has no audio: expected text, speech"),
        ({"text": {"repetition_penalty": 1e300}}, "repetition_penalty is 1e"),
        ({"text": None}, "sampling.text is None, expected a mapping"),
        ([("text", {})], "sampling is .*, expected a mapping"),
        ({"text": 0.7}, "sampling.text is 0.7, expected a mapping"),
        (0.7, "sampling is 0.7, expected a mapping"),
    ],
    ids=str,
)
def test_bad_options_are_refused_in_one_line(given, says):
    with pytest.raises(InputError, match=says.replace("+", r"\+")) as refusal:
        AgentSampling.of(given)
    assert "\n" not in str(refusal.value)


def test_seeds():
    assert checked_seed(5) == checked_seed(np.uint8(5)) == 5 and checked_seed(None) != checked_seed(None)
    for seed in (-1, MAX_SEED + 1, 1.5, True, "7"):
        with pytest.raises(InputError, match="expected a whole number from 0"):
            checked_seed(seed)
