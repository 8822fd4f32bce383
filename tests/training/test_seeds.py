"""Seeds that ranks and steps draw from: written out, because a changed one would change every training that goes on."""

from types import SimpleNamespace

from nemo_duplex.training.seeds import data_rank, mixed_seed, rank_seed


def test_ranks_are_far_apart():
    assert [rank_seed(7, rank) for rank in (0, 1, 2)] == [7, 100_007, 200_007]


def test_a_tuple_of_numbers_is_one_seed():
    assert (mixed_seed(0, 0, 0), mixed_seed(0, 0, 1), mixed_seed(0, 1, 0), mixed_seed(1, 0, 0)) == (
        2968811710,
        3831201730,
        3964924996,
        1835504127,
    )


def test_who_has_data_of_its_own():
    """Processes of one tensor-parallel group read the same."""
    assert data_rank(None) == (0, 1)
    trainer = SimpleNamespace(global_rank=3, world_size=8, lightning_module=SimpleNamespace(device_mesh=None))
    assert data_rank(trainer) == (3, 8)
    axis = SimpleNamespace(get_local_rank=lambda: 1, size=lambda: 4)
    trainer.lightning_module.device_mesh = {"data_parallel": axis}
    assert data_rank(trainer) == (1, 4)
