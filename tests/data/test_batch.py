"""What a training step sees: whole frames, padding that is marked, and NeMo's names for all of it."""

import pytest
import torch

from nemo_duplex.data.batch import DuplexBatch

PAD = 9


def in_tree(tokens, lens, **more):
    """A batch as NeMo's own DuplexS2SDataset makes it: two conversations with audio and tokens."""
    audio = torch.arange(2 * 3000.0).view(2, 3000)
    return {
        "source_audio": audio,
        "source_audio_lens": torch.tensor(lens),
        "target_audio": -audio,
        "target_audio_lens": torch.tensor([7, 8]),
        "target_tokens": torch.tensor(tokens),
    } | more


def test_a_batch_of_nemo_keeps_its_last_partial_frame():
    """2560 samples are two frames of 1280, one more begins a third."""
    batch = DuplexBatch.from_in_tree(in_tree([[1, 5, 2], [1, 6, 0]], [2561, 2560]), 1280, PAD)
    assert batch.num_frames.tolist() == [3, 2]
    assert batch.valid.tolist() == [[True, True, True], [True, True, False]]
    assert batch.agent_tokens.tolist() == [[1, 5, 2], [1, 6, 0]]


def test_tokens_of_nemo_are_fitted_to_the_frames_of_the_audio():
    shorter = DuplexBatch.from_in_tree(in_tree([[1, 5], [1, 6]], [3 * 1280, 1280]), 1280, PAD)
    assert shorter.agent_tokens.tolist() == [[1, 5, PAD], [1, 6, PAD]]
    longer = DuplexBatch.from_in_tree(in_tree([[1, 5, 2, 0], [1, 6, 0, 0]], [2 * 1280, 1280]), 1280, PAD)
    assert longer.agent_tokens.tolist() == [[1, 5], [1, 6]]


def test_everything_of_nemos_batch_finds_its_place():
    theirs = in_tree([[1, 2], [3, 4]], [2560, 2000], ids=["x", 7], target_texts=["one", "two"])
    batch = DuplexBatch.from_in_tree(theirs, 1280, PAD)
    assert batch.ids == ["x", "7"] and batch.agent_texts == ["one", "two"]
    assert batch.user_audio is theirs["source_audio"] and batch.user_audio_lens is theirs["source_audio_lens"]
    assert batch.agent_audio is theirs["target_audio"] and batch.agent_audio_lens is theirs["target_audio_lens"]
    assert batch.agent_codes is None
    codes = torch.zeros(2, 4, 2)
    plain = DuplexBatch.from_in_tree(in_tree([[1, 2], [3, 4]], [2560, 2000], target_codes=codes), 1280, PAD)
    assert plain.agent_codes is codes and plain.ids == ["0", "1"] and plain.agent_texts is None


def full_batch():
    """Every field has something else in it."""
    return DuplexBatch(
        ids=["a", "b"],
        user_audio=torch.full((2, 4), 1.0),
        user_audio_lens=torch.tensor([4, 2]),
        agent_tokens=torch.full((2, 3), 3),
        num_frames=torch.tensor([3, 1]),
        agent_codes=torch.full((2, 4, 3), 5),
        agent_audio=torch.full((2, 6), 6.0),
        agent_audio_lens=torch.tensor([6, 3]),
        user_tokens=torch.full((2, 3), 8),
        agent_texts=["one", "two"],
    )


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("source_audio", "user_audio"),
        ("source_audio_lens", "user_audio_lens"),
        ("target_audio", "agent_audio"),
        ("target_audio_lens", "agent_audio_lens"),
        ("target_tokens", "agent_tokens"),
        ("target_token_lens", "num_frames"),
        ("source_tokens", "user_tokens"),
        ("source_token_lens", "num_frames"),
        ("target_texts", "agent_texts"),
    ],
)
def test_nemos_keys_find_our_fields(theirs, ours):
    batch = full_batch()
    assert theirs in batch and batch[theirs] is getattr(batch, ours)


def test_what_is_not_there_is_not_in_the_batch():
    batch = DuplexBatch(["a"], torch.zeros(1, 4), torch.tensor([4]), torch.zeros(1, 3), torch.tensor([3]))
    assert "target_audio" not in batch and "source_tokens" not in batch and "nothing" not in batch
    assert "source_audio" in batch


def test_all_tensors_go_to_the_device():
    batch = full_batch()
    moved = batch.to("meta")
    for name, value in vars(batch).items():
        there = getattr(moved, name)
        if isinstance(value, torch.Tensor):
            assert there.device.type == "meta" and there.shape == value.shape, name
        else:
            assert there is value, name
