"""The losses: padding counts nothing, weights are what they say, sampling silence is unbiased."""

import math

import pytest
import torch

from nemo_duplex.channels.layout import ChannelLayout
from nemo_duplex.channels.targets import AgentTargets
from nemo_duplex.inputs import InputError
from nemo_duplex.llm.experts import ExpertsLoss
from nemo_duplex.models.losses import LossWeights, speech_loss, text_loss, with_experts

LAYOUT = ChannelLayout(text_vocab_size=9, text_pad=0, text_bos=1, text_eos=2, num_codebooks=2, codebook_size=5)
PAPER = LossWeights()


def example():
    torch.manual_seed(0)
    valid = torch.arange(6) < torch.tensor([6, 4])[:, None]
    targets = AgentTargets(torch.randint(0, 9, (2, 6)), torch.randint(0, 5, (2, 2, 6)), torch.rand(2, 6) < 0.5, valid)
    return torch.randn(2, 6, 9), torch.randn(2, 6, 10), targets


def written(logits):
    return logits


def spoken(hidden):
    return hidden.unflatten(-1, (2, 5))


def both(text, hidden, targets, weights=PAPER):
    return text_loss(written, text, targets, LAYOUT, weights).mean, speech_loss(spoken, hidden, targets, weights).mean


def test_padding_never_counts():
    """NeMo's in-tree model trains on padding: altering it moved the loss from 5.154 to 5.132 (nemo.md, 1.2)."""
    text, hidden, targets = example()
    before = both(text, hidden, targets)
    padding = ~targets.valid
    text[padding], hidden[padding] = 99.0, -99.0
    targets.tokens[padding] = 3
    targets.codes.transpose(1, 2)[padding] = 4
    assert both(text, hidden, targets) == before


def test_uniform_logits_cost_the_log_of_the_vocabulary():
    _, _, targets = example()
    text, speech = both(torch.zeros(2, 6, 9), torch.zeros(2, 6, 10), targets)
    assert text.item() == pytest.approx(math.log(9)) and speech.item() == pytest.approx(math.log(5))


def test_text_weights_are_what_they_say():
    tokens = torch.tensor([[0, 1, 5, 2]])
    targets = AgentTargets(tokens, tokens[:, None], tokens > 0, torch.ones(1, 4, dtype=torch.bool))
    logits = torch.zeros(1, 4, 9)
    logits[0, 0, 0] = 50.0  # pad is certain and costs nothing, the others cost log 9
    weights = LossWeights(text_pad=0.5, turn=2.0)
    expected = math.log(9) * (3 + 1 + 3) / (0.5 + 3 + 1 + 3)
    assert text_loss(written, logits, targets, LAYOUT, weights).mean.item() == pytest.approx(expected, rel=1e-5)


def test_frames_without_weight_have_no_loss_and_a_gradient_of_0():
    """`text_pad=0` in a batch in which nobody speaks: 0 / 0 must not become NaN, nor may a rank have no gradient."""
    tokens = torch.zeros(1, 4, dtype=torch.long)
    targets = AgentTargets(tokens, tokens[:, None], tokens > 0, torch.ones(1, 4, dtype=torch.bool))
    logits = torch.randn(1, 4, 9, requires_grad=True)
    loss = text_loss(written, logits, targets, LAYOUT, LossWeights(text_pad=0.0))
    assert loss.weight == 0 and loss.mean == 0
    loss.over(torch.tensor(0.0)).backward()
    assert torch.equal(logits.grad, torch.zeros_like(logits))
    assert loss.over(torch.tensor(2.5)) == 0, "other ranks have frames with a weight"


@pytest.mark.parametrize("chunk", [0, 2])
def test_a_batch_of_which_no_frame_is_drawn_has_no_speech_loss(chunk):
    targets = AgentTargets(
        torch.zeros(1, 4, dtype=torch.long),
        torch.zeros(1, 2, 4, dtype=torch.long),
        torch.zeros(1, 4, dtype=torch.bool),
        torch.ones(1, 4, dtype=torch.bool),
    )
    head = torch.nn.Linear(3, 10)
    loss = speech_loss(lambda h: spoken(head(h)), torch.randn(1, 4, 3), targets, LossWeights(silence=1e-9, chunk=chunk))
    assert loss.mean == 0 and loss.predicted.shape == loss.targets.shape == (0, 2)
    loss.mean.backward()
    assert torch.equal(head.weight.grad, torch.zeros(10, 3))


def test_a_sum_is_divided_by_the_weight_that_is_given():
    _, hidden, targets = example()
    loss = speech_loss(spoken, hidden, targets, PAPER)
    assert loss.weight == targets.valid.sum()
    assert torch.equal(loss.over(torch.tensor(1e-9)), loss.total / 1e-9), "however small it is"


@pytest.mark.parametrize("chunk", [1, 3, 10, 0])
def test_chunks_change_neither_loss_nor_gradient_nor_prediction(chunk):
    text, hidden, targets = example()
    head = torch.nn.Linear(10, 10)

    def run(chunk):
        head.zero_grad()
        leaf = hidden.clone().requires_grad_()
        loss = speech_loss(lambda h: spoken(head(h)), leaf, targets, LossWeights(chunk=chunk))
        loss.mean.backward()
        return loss.mean.detach(), loss.predicted, leaf.grad, head.weight.grad.clone()

    whole, pieces = run(0), run(chunk)
    for a, b in zip(whole, pieces):
        assert torch.allclose(a.float(), b.float(), atol=1e-7)


def test_logits_of_one_chunk_exist_at_a_time():
    """The point of chunks: at no time are there float32 logits of all frames (DESIGN: 2.4 GB for 1000 s)."""
    _, hidden, targets = example()
    sizes = []

    def watched(h):
        sizes.append(len(h))
        return spoken(h)

    leaf = hidden.clone().requires_grad_()
    speech_loss(watched, leaf, targets, LossWeights(chunk=4)).mean.backward()
    assert max(sizes) == 4 and sum(sizes) == 2 * int(targets.valid.sum()), "once forward, once again backward"


def test_training_on_a_share_of_the_silence_is_unbiased():
    torch.manual_seed(1)
    hidden, valid = torch.randn(4, 500, 10), torch.ones(4, 500, dtype=torch.bool)
    targets = AgentTargets(torch.zeros(4, 500), torch.randint(0, 5, (4, 2, 500)), torch.rand(4, 500) < 0.2, valid)
    full = speech_loss(spoken, hidden, targets, PAPER).mean
    drawn = torch.stack([speech_loss(spoken, hidden, targets, LossWeights(silence=0.2)).mean for _ in range(50)])
    assert drawn.std() > 0
    assert drawn.mean().item() == pytest.approx(full.item(), abs=4 * drawn.std().item() / math.sqrt(50) + 0.01)


def test_all_speaking_frames_and_a_share_of_the_silent_ones_are_trained_on():
    torch.manual_seed(0)
    hidden, valid = torch.randn(2, 300, 10), torch.ones(2, 300, dtype=torch.bool)
    valid[1, 200:] = False
    speaking = (torch.rand(2, 300) < 0.2) & valid
    targets = AgentTargets(torch.zeros(2, 300), torch.randint(0, 5, (2, 2, 300)), speaking, valid)
    found = speech_loss(spoken, hidden, targets, LossWeights(silence=0.25))
    silent = len(found.predicted) - int(speaking.sum())
    assert 60 < silent < 140  # a quarter of about 400
    assert found.weight.item() == int(speaking.sum()) + 4 * silent
    only = speech_loss(spoken, hidden, targets, LossWeights(silence=1e-9))
    frames = torch.nn.functional.cross_entropy(
        spoken(hidden[speaking]).flatten(0, 1), targets.codes.transpose(1, 2)[speaking].flatten()
    )
    assert len(only.predicted) == int(speaking.sum()) and only.mean.item() == pytest.approx(frames.item(), rel=1e-5)


def test_each_codebook_is_compared_with_its_own_logits():
    codes = torch.tensor([[[1, 2], [3, 4]]])  # (B, K, T)
    hidden = torch.zeros(1, 2, 10)
    for t in range(2):
        for k in range(2):
            hidden[0, t, 5 * k + codes[0, k, t]] = 50.0
    targets = AgentTargets(torch.zeros(1, 2), codes, torch.ones(1, 2).bool(), torch.ones(1, 2).bool())
    found = speech_loss(spoken, hidden, targets, PAPER)
    assert found.total.item() == pytest.approx(0, abs=1e-6) and found.weight == 2
    assert found.predicted.tolist() == found.targets.tolist() == [[1, 3], [2, 4]]


def test_a_chunk_of_zero_makes_all_logits_at_once_and_chunks_hold_for_text_too():
    text, hidden, targets = example()
    sizes = []

    def watched(h):
        sizes.append(len(h))
        return h

    text_loss(watched, text, targets, LAYOUT, LossWeights(chunk=4))
    assert sizes == [4, 4, 2]
    sizes.clear()
    text_loss(watched, text, targets, LAYOUT, LossWeights(chunk=0))
    assert sizes == [10]


BALANCE = ExpertsLoss(lambda *_: torch.zeros(()), num_experts=4, top_k=2, weight=0.02)


@pytest.mark.parametrize(
    "given, family, expected",
    [(None, BALANCE, 0.02), (0.0, BALANCE, 0.0), (0.5, BALANCE, 0.5), (None, None, 0.0), (0.0, None, 0.0)],
)
def test_the_weight_of_the_experts_is_the_familys_unless_it_is_given(given, family, expected):
    assert with_experts(LossWeights(text=7.0, experts=given), family, "llama") == LossWeights(text=7.0, experts=expected)


def test_a_weight_of_a_loss_that_there_is_not_is_refused():
    message = r"^model.loss.experts is 0.5, but .* for the language model llama\. Set it to null\.$"
    with pytest.raises(InputError, match=message):
        with_experts(LossWeights(experts=0.5), None, "llama")
