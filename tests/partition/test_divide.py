from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dac_nerfstudio.partition import (
    STRATEGIES,
    Partition,
    PartitionError,
    Similarity,
    Transform,
    Views,
    check_views,
    divide,
    measure,
    view_distances,
)
from dac_nerfstudio.scene.data import read_views
from dac_nerfstudio.scene.frames import spread

EVERY = pytest.mark.parametrize("strategy", STRATEGIES)


def orbit(ring: Callable[..., Views], count: int, **known: Any) -> Views:
    """Cameras all round, none on a border of sectors, with 77 degrees of view."""
    intrinsics = np.tile([10.0, 10.0, 8.0, 6.0, 16.0, 12.0], (count, 1))
    return replace(ring(np.arange(count) * 360 / count + 1), intrinsics=intrinsics, **known)


def reloaded(partition: Partition, folder: Path) -> Partition:
    partition.save(folder / "partition.json")
    return Partition.load(folder / "partition.json")


# Which strategy


def test_auto_chooses_by_what_is_known_of_the_views(ring) -> None:
    tracks = tuple(np.arange(i, i + 5) for i in range(24))
    for known, strategy, similarity in (
        ({"upright": True}, "azimuth", None),
        ({"upright": True, "tracks": tracks}, "azimuth", None),
        ({"upright": False}, "kmeans", None),
        ({"upright": False, "tracks": tracks}, "louvain", "covisibility"),
    ):
        partition = divide(orbit(ring, 24, **known))
        assert partition.settings["strategy"] == strategy
        assert partition.settings["similarity"] == similarity
        assert partition.about["asked"] == {"strategy": "auto", "groups": 4, "similarity": "auto"}
        assert partition.num_groups == 4 and not partition.about["notes"]


@pytest.mark.parametrize("upright", [True, False])
def test_few_views_are_divided_into_fewer_groups_by_default(ring, upright: bool) -> None:
    for count in (1, 2, 3):
        partition = divide(orbit(ring, count, upright=upright))
        assert partition.num_groups == count and partition.asked["groups"] == count
    beside = divide(replace(ring([10, 20, 30]), upright=True))  # all in the first of four sectors
    assert beside.num_groups == 1 and beside.notes[0] == "1 groups: with 3 by azimuth, some would have no views."
    with pytest.raises(PartitionError, match="Choose fewer groups; 1 is the largest smaller number"):
        divide(replace(ring([10, 20, 30]), upright=True), 3)


def test_the_similarity_may_be_named_or_measured_before(ring) -> None:
    views = orbit(ring, 24)
    named, measured = (divide(views, 3, "spectral", similarity=s) for s in ("frustum", measure(views, "frustum")))
    assert named.to_json() == measured.to_json()
    assert named.settings["similarity"] == "frustum"
    with pytest.raises(PartitionError, match="The similarity is of 23 views, but the partition has 24"):
        divide(views, 3, "spectral", similarity=measure(views.select(range(23)), "frustum"))
    with pytest.raises(PartitionError, match="Unknown similarity 'frusta'"):
        divide(views, 3, "spectral", similarity="frusta")


def test_what_is_measured_decides_and_not_what_the_views_would_tell(ring, planted) -> None:
    order = np.random.default_rng(0).permutation(24)  # neighbours in blocks, but not on the ring
    similarity = Similarity("appearance", planted([12, 12])[order][:, order])
    for strategy in ("spectral", "louvain"):
        partition = divide(orbit(ring, 24), 2, strategy, similarity=similarity)
        assert partition.settings["similarity"] == "appearance"
        assert len({(int(home), bool(block)) for home, block in zip(partition.homes, order < 12)}) == 2


# How many groups


@pytest.mark.parametrize("strategy", ["spectral", "louvain"])
@pytest.mark.parametrize("blocks", [2, 5])
def test_auto_finds_the_number_of_planted_blocks(ring, planted, strategy: str, blocks: int) -> None:
    sizes = [40 // blocks + i for i in range(blocks)]
    views = orbit(ring, sum(sizes))
    similarity = Similarity("frustum", planted(sizes, noise=0.03))
    partition = divide(views, "auto", strategy, similarity=similarity)
    assert np.bincount(partition.homes)[1:].tolist() == sizes
    assert partition.settings["groups"] == blocks and partition.about["asked"]["groups"] == "auto"
    (note,) = partition.about["notes"]
    assert note.startswith(f"{blocks} groups: their modularity exceeds a featureless scene's by 0.")


@pytest.mark.parametrize(
    ("count", "groups", "note"),
    [
        (48, 4, "4 groups by default: the photos favour no number from 2 to 6, which is usual."),
        (30, 3, "3 groups: 30 views are too few for more, at 8 or more in each."),
        (16, 2, "2 groups: 16 views are too few for more, at 8 or more in each."),
        (15, 1, "1 group: auto divides no fewer than 16 views; found 15."),
        (1, 1, "1 group: auto divides no fewer than 16 views; found 1."),
    ],
)
@EVERY
def test_auto_falls_back_to_the_papers_number_or_fewer(ring, strategy: str, count: int, groups: int, note: str) -> None:
    views = orbit(ring, count)
    distances = view_distances(views.camera_to_worlds, views.camera_to_worlds, spread(views.centres))
    partition = divide(views, "auto", strategy, similarity=Similarity("frustum", np.exp(-distances)))
    assert partition.num_groups == groups
    assert partition.about["notes"][0].startswith(note)


def test_auto_asks_for_no_sector_without_views(ring) -> None:
    views = ring(np.linspace(10, 170, 40))  # of four sectors, the last two are empty
    assert divide(views, "auto", "azimuth").num_groups == 1


def test_louvain_tells_that_it_found_fewer_groups(ring, tmp_path: Path) -> None:
    # All pairs alike: at some resolution all are together, beyond it all are apart.
    similarity = Similarity("frustum", np.where(np.eye(12), 1.0, 0.5))
    views = orbit(ring, 12)
    found = {groups: divide(views, groups, "louvain", similarity=similarity) for groups in range(1, 13)}
    for groups, partition in found.items():
        assert partition.num_groups == partition.homes.max() <= groups
        expected = [] if partition.num_groups == groups else [f"No resolution gives {groups} groups"]
        assert [note.partition(";")[0] for note in partition.about["notes"]] == expected
        assert reloaded(partition, tmp_path).to_json() == partition.to_json()


def test_a_louvain_division_of_fewer_groups_is_whole(ring, planted, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    # No view may be moved and nothing merged: only one resolution, which gives two groups.
    monkeypatch.setattr("dac_nerfstudio.partition.strategies.RESOLUTIONS", np.array([0.5]))
    similarity = Similarity("frustum", planted([10, 14]))
    partition = divide(orbit(ring, 24), 5, "louvain", overlap=0.2, similarity=similarity)
    assert partition.settings["groups"] == 2 and partition.membership.shape == (2, 24)
    assert partition.about["notes"] == ["No resolution gives 5 groups; 2 is the nearest number that one does."]
    assert partition.membership.sum(axis=1).tolist() == [12, 17]
    assert reloaded(partition, tmp_path).to_json() == partition.to_json()


def test_small_groups_are_noted(ring) -> None:
    partition = divide(ring([*range(80), 100, 110, 190, 280]))
    assert partition.about["notes"] == [
        f"Group {group} has only {size} of 84 views; its expert will know little of the scene."
        for group, size in ((2, 2), (3, 1), (4, 1))
    ]


# Odd scenes


@EVERY
@pytest.mark.parametrize("groups", [1, 4, 8, "auto"])
@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("centre", [[0.0, 0.0, 0.0], [7.1, -7.3, 2.9]])
def test_cameras_in_one_place_are_divided_or_told_why_not(
    cameras_around, tmp_path, strategy: str, groups: Any, turned: bool, centre: list[float]
) -> None:
    views = cameras_around(8, 0)
    poses = views.camera_to_worlds.copy() if turned else np.tile(views.camera_to_worlds[:1], (8, 1, 1))
    poses[:, :, 3] = centre
    views = replace(views, camera_to_worlds=poses)
    try:
        partition = divide(views, groups, strategy)
    except PartitionError as error:
        if strategy == "azimuth":
            assert "All cameras stand in one place" in str(error) and groups not in (1, "auto")
        else:
            assert strategy == "kmeans" and not turned and groups not in (1, "auto")
            assert "1 is the largest smaller number that leaves none empty" in str(error)
        return
    assert strategy != "azimuth" or partition.num_groups == 1
    assert reloaded(partition, tmp_path).to_json() == partition.to_json()
    if turned:  # equal views cannot be told apart
        np.testing.assert_array_equal(partition.route(poses), partition.homes)


@EVERY
def test_every_view_may_be_a_group_and_one_view_is_one(ring, strategy: str) -> None:
    for count in (1, 2, 3, 5):
        views = ring((np.arange(count) + 0.5) * 360 / count)
        assert divide(views, count, strategy).homes.tolist() == list(range(1, count + 1))
    with pytest.raises(PartitionError, match="6 groups for 5 views; choose a number of groups from 1 to 5"):
        divide(views, 6, strategy)


# The frame of the data


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("strategy", ["kmeans", "spectral", "louvain"])
def test_a_turned_scene_is_divided_into_the_same_groups(ring, random_transform, tmp_path, strategy, seed: int) -> None:
    degrees = [*range(10, 42, 8), *range(120, 160, 5), *range(240, 288, 4)]  # three arcs: 4, 8 and 12 views
    views = replace(orbit(ring, 24), upright=False, camera_to_worlds=ring(degrees).camera_to_worlds)
    moved = replace(views, camera_to_worlds=random_transform(seed).apply(views.camera_to_worlds))
    for data in (views, moved):
        partition = divide(data, 3, strategy)
        assert partition.homes.tolist() == [1] * 4 + [2] * 8 + [3] * 12
        np.testing.assert_array_equal(reloaded(partition, tmp_path).route(data.camera_to_worlds), partition.homes)


@pytest.mark.parametrize("seed", range(4))
def test_sectors_of_a_turned_orbit_are_equal_and_go_round_it(ring, random_transform, tmp_path, seed: int) -> None:
    views = orbit(ring, 60)
    moved = replace(views, upright=False, camera_to_worlds=random_transform(seed).apply(views.camera_to_worlds))
    partition = divide(moved, 5, "azimuth")
    borders = np.flatnonzero(partition.homes != np.roll(partition.homes, 1))
    assert np.diff(borders).tolist() == [12] * 4
    # Counterclockwise from above, as in the upright scene.
    assert ((partition.homes[borders] - partition.homes[borders - 1]) % 5 == 1).all()
    between = random_transform(seed).apply(ring(np.arange(60) * 6 + 1.5).camera_to_worlds)
    np.testing.assert_array_equal(reloaded(partition, tmp_path).route(between), partition.route(between))


@pytest.mark.parametrize("distance", [0.0, 1e3])
def test_cameras_on_borders_stay_in_their_sector_when_the_file_is_read_again(
    ring, tmp_path: Path, distance: float
) -> None:
    # Every camera stands on a border of sectors, where the last digit of the axis decides.
    poses = ring(np.arange(24) * 15).camera_to_worlds
    for seed in range(5):
        shift = distance * np.random.default_rng(seed).normal(size=3)
        moved = Transform(1.0, np.eye(3), shift).apply(poses)
        partition = divide(replace(ring(np.arange(24)), camera_to_worlds=moved, upright=False), 24 // 2, "azimuth")
        np.testing.assert_array_equal(reloaded(partition, tmp_path).homes, partition.homes)


@pytest.mark.parametrize("strategy", ["auto", *STRATEGIES])
def test_test_views_have_no_influence_on_a_division(ring, colmap_folder, strategy: str) -> None:
    # Not quite even: where cameras stand on an even ring, the last digit of their poses decides.
    degrees = np.arange(40) * 9 + np.random.default_rng(0).uniform(2, 6, 40)
    tracks = tuple(np.arange(10 * i, 10 * i + 30) for i in range(40))
    views = replace(ring(degrees, prefix="v"), upright=False, tracks=tracks)
    before = divide(read_views(colmap_folder(views)), 3, strategy)
    # Every eighth view is for tests: elsewhere, and with other points.
    test = np.arange(40) % 8 == 0
    elsewhere = np.where(test[:, None, None], ring(degrees + 77).camera_to_worlds * 2, views.camera_to_worlds)
    other = tuple(np.arange(500) if test[i] else points for i, points in enumerate(tracks))
    changed = replace(views, camera_to_worlds=elsewhere, tracks=other)
    after = divide(read_views(colmap_folder(changed)), 3, strategy)
    assert after.views.names == before.views.names and len(after.views) == 35
    # The frame is another one: the data parser puts all cameras in the middle of it.
    np.testing.assert_array_equal(after.homes, before.homes)
    np.testing.assert_array_equal(after.membership, before.membership)
    check_views(before, after.views, Path("before"))
