"""The draw of pixels: permutations, epochs, weights."""

from collections import Counter
from collections.abc import Sequence

import pytest
import torch

from dac_nerfstudio.sampling import pixels
from dac_nerfstudio.sampling.hashing import key_of
from dac_nerfstudio.sampling.pixels import PixelSchedule, draw, permute


def permutation(size: int, key: int) -> list[int]:
    return permute(torch.arange(size), torch.full((size,), size), torch.full((size,), key)).tolist()


def drawn(schedule: PixelSchedule, first: int, last: int) -> list[tuple[int, int]]:
    """(view, pixel) of the draws number `first` to `last` - 1, whatever steps they fall in."""
    steps = range(first // schedule.num_rays_per_batch, (last - 1) // schedule.num_rays_per_batch + 1)
    pairs = [pair for step in steps for pair in zip(*(part.tolist() for part in schedule.draw(step)), strict=True)]
    start = steps.start * schedule.num_rays_per_batch
    return pairs[first - start : last - start]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 65, 1000, 4097])
def test_permute_is_one_to_one(size: int) -> None:
    for key in (0, 1, 12345, key_of(42, 3)):
        assert sorted(permutation(size, key)) == list(range(size))


def test_permute_shuffles_and_the_key_decides_how() -> None:
    one, other = permutation(1000, 1), permutation(1000, 2)
    assert one == permutation(1000, 1)
    # Of a random permutation one number in 1000 stays where it is, on average.
    assert sum(a == b for a, b in zip(one, other, strict=True)) < 10
    assert sum(a == b for a, b in zip(one, range(1000), strict=True)) < 10
    assert sum(abs(a - b) == 1 for a, b in zip(one, one[1:], strict=False)) < 15


def test_a_number_is_taken_to_the_same_place_whoever_else_is_asked() -> None:
    sizes, keys = torch.tensor([5, 1, 300, 7000, 2, 300]), torch.tensor([9, 8, 7, 6, 5, 4])
    numbers = torch.tensor([4, 0, 299, 6999, 1, 17])
    together = permute(numbers, sizes, keys)
    alone = [permute(numbers[i : i + 1], sizes[i : i + 1], keys[i : i + 1]).item() for i in range(6)]
    assert together.tolist() == alone


def test_a_small_view_beside_a_large_one_is_permuted_in_a_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    # Walked in the range of the large view, the small one would be found only after some million rounds.
    rounds = 0

    def counting(x: torch.Tensor) -> torch.Tensor:
        nonlocal rounds
        rounds += 1
        assert rounds < 1000
        return mix(x)

    mix = pixels.mix
    monkeypatch.setattr(pixels, "mix", counting)
    assert permute(torch.tensor([0, 5]), torch.tensor([1, 10**6]), torch.tensor([1, 2]))[0] == 0


def test_keys_depend_on_every_part_and_fit_into_31_bits() -> None:
    keys = {key_of(seed, epoch) for seed in range(30) for epoch in range(30)} | {key_of(1), key_of(1, 2, 3)}
    assert len(keys) == 902
    assert all(0 <= key < 2**31 for key in keys) and key_of(-1) != key_of(1)


# Sizes whose permutations run on different numbers of bits, too.
@pytest.mark.parametrize("sizes", [[30, 30, 30], [7, 100, 64, 1], [60, 70]])
@pytest.mark.parametrize("batch", [5, 16, 400])
def test_an_epoch_visits_every_pixel_once(sizes: list[int], batch: int) -> None:
    schedule = PixelSchedule(sizes, [1.0] * len(sizes), batch, seed=3)
    length = sum(sizes)
    assert schedule.epoch_length == length
    everything = [(view, pixel) for view, size in enumerate(sizes) for pixel in range(size)]
    for epoch in range(3):
        assert sorted(drawn(schedule, epoch * length, (epoch + 1) * length)) == everything
    assert drawn(schedule, 0, length) != drawn(schedule, length, 2 * length)


def test_weights_are_the_share_of_a_views_pixels_in_an_epoch() -> None:
    schedule = PixelSchedule([40, 60, 80, 20], [1.0, 0.5, 0.0, 0.25], num_rays_per_batch=7, seed=1)
    assert schedule.epoch_length == 40 + 30 + 0 + 5
    seen: set[int] = set()
    for epoch in range(8):
        pairs = drawn(schedule, epoch * 75, (epoch + 1) * 75)
        assert len(set(pairs)) == 75
        assert Counter(view for view, _ in pairs) == {0: 40, 1: 30, 3: 5}
        seen |= {pixel for view, pixel in pairs if view == 1}
    # Every epoch draws another half: (1/2)^8 of 60 pixels is less than one.
    assert len(seen) >= 57 and seen <= set(range(60))


def test_a_draw_is_a_function_of_the_step_alone() -> None:
    ascending = PixelSchedule([50, 70], [1.0, 0.5], num_rays_per_batch=16, seed=7)
    steps = [ascending.draw(step) for step in range(20)]
    torch.manual_seed(99)
    fresh = PixelSchedule([50, 70], [1.0, 0.5], num_rays_per_batch=16, seed=7)
    for step in (19, 3, 3, 0, 11):
        for one, other in zip(fresh.draw(step), steps[step], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("sizes", "weights", "batch", "steps"),
    [
        ([50, 0, 70, 1], [1.0, 1.0, 0.5, 1.0], 16, range(20)),
        ([6, 4], [1.0, 1.0], 25, range(4)),  # several epochs in a batch
        ([1], [1.0], 3, range(2)),
        ([800 * 800] * 100, [1.0] * 60 + [0.2] * 40, 4096, [0, 1, 11_000, 65_000]),
        ([4000 * 3000] * 300, [1.0] * 300, 512, [0, 7_000_000]),  # numbers beyond 32 bits
    ],
)
def test_the_fused_draw_is_its_plain_reference(
    sizes: list[int], weights: list[float], batch: int, steps: Sequence[int]
) -> None:
    for seed in (0, 42, -1, 2**31 - 1):
        schedule = PixelSchedule(sizes, weights, batch, seed)
        for step in steps:
            for one, other in zip(schedule.draw(step), draw(schedule, step), strict=True):
                assert one.dtype == other.dtype == torch.int64 and torch.equal(one, other)


def test_draws_are_those_that_earlier_versions_made() -> None:
    views, pixels = PixelSchedule([300, 500, 200], [1.0, 0.5, 1.0], num_rays_per_batch=8, seed=42).draw(7)
    assert views.tolist() == [2, 0, 0, 0, 0, 1, 1, 0]
    assert pixels.tolist() == [126, 26, 185, 71, 2, 156, 399, 113]
    assert (key_of(42, 3), key_of(-1), key_of(1, 2, 3)) == (84791284, 460282497, 1686266059)


def test_seeds_give_different_draws() -> None:
    one, other = (PixelSchedule([1000], [1.0], num_rays_per_batch=100, seed=seed).draw(0)[1] for seed in (1, 2))
    assert (one == other).float().mean() < 0.05


def test_early_draws_are_spread_evenly_over_pixels_and_views() -> None:
    # 200 first batches of 25 of 100 pixels, each of another seed: 50 draws of each pixel are expected, with a standard
    # deviation of sqrt(200 * 0.25 * 0.75) = 6.1.
    counts: Counter[tuple[int, int]] = Counter()
    for seed in range(200):
        counts.update(drawn(PixelSchedule([80, 20], [1.0, 1.0], num_rays_per_batch=25, seed=seed), 0, 25))
    assert len(counts) == 100
    assert max(abs(count - 50) for count in counts.values()) < 5 * 6.1
    deviations = torch.tensor([float(count) for count in counts.values()]) - 50
    assert 4 < deviations.square().mean().sqrt() < 8.5


def test_no_pixel_to_draw_is_an_error() -> None:
    with pytest.raises(ValueError, match="There is no pixel to draw: every view is empty, masked as a whole, or of"):
        PixelSchedule([10, 0], [0.0, 1.0], num_rays_per_batch=4, seed=0)
