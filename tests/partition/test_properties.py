"""What holds for every division of whatever cameras: hypothesis looks for one for which it does not."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dac_nerfstudio.errors import PartitionError
from dac_nerfstudio.partition import Partition, Views, blending_weights, divide, nearness
from dac_nerfstudio.partition.sampling import followed, nearest_of
from dac_nerfstudio.partition.strategies import BORDER_TOLERANCE, renumbered

tried = settings(max_examples=25, derandomize=True, deadline=None, database=None)
LENGTHS = st.floats(-5, 5, width=32)


@st.composite
def scenes(draw: st.DrawFn, most: int = 16) -> Views:
    """Cameras anywhere, some of them perhaps in one place, some looking the same way."""
    count = draw(st.integers(1, most))
    places = draw(st.lists(st.tuples(LENGTHS, LENGTHS, LENGTHS), min_size=1, max_size=count))
    turns = draw(st.lists(st.tuples(LENGTHS, LENGTHS, LENGTHS), min_size=1, max_size=count))
    tracks = draw(st.none() | st.lists(st.sets(st.integers(0, 12)), min_size=count, max_size=count))
    centres = np.array([places[number % len(places)] for number in range(count)])
    axes = Rotation.from_rotvec([turns[number % len(turns)] for number in range(count)]).as_matrix()
    return Views(
        tuple(f"v{number}.png" for number in range(count)),
        np.concatenate([axes, centres[:, :, None]], axis=2),
        np.tile([20.0, 20.0, 8.0, 6.0, 16.0, 12.0], (count, 1)),
        upright=draw(st.booleans()),
        tracks=None if tracks is None else tuple(np.array(sorted(points), dtype=np.int64) for points in tracks),
    )


SETTINGS = st.fixed_dictionaries(
    {
        "groups": st.integers(1, 6) | st.just("auto"),
        "strategy": st.sampled_from(["auto", "azimuth", "kmeans", "spectral", "louvain"]),
    },
    optional={"softness": st.floats(0, 0.9)},
) | st.fixed_dictionaries({"groups": st.integers(1, 6), "overlap": st.floats(0, 1)})


def division(views: Views, asked: dict[str, Any]) -> Partition | None:
    """A partition, or None where the views cannot be divided so, which is said."""
    try:
        return divide(views, **asked)
    except PartitionError as error:
        assert str(error).strip()
        return None


@tried
@given(scenes(), SETTINGS)
def test_every_view_has_one_home_and_every_group_a_view(views: Views, asked: dict[str, Any]) -> None:
    partition = division(views, asked)
    if partition is None:
        return
    groups = range(1, partition.num_groups + 1)
    assert sorted(name for group in groups for name in partition.members(group)) == sorted(views.names)
    assert all(partition.members(group) for group in groups)
    assert (partition.membership[partition.homes - 1, np.arange(len(views))] == 1).all()
    if not asked.get("softness"):
        own = np.array([len(partition.members(group)) for group in groups])
        borrowed = [round(asked.get("overlap", 0.0) * count) for count in own.tolist()]
        # Each of weight 1, and no more than there are.
        np.testing.assert_array_equal(partition.membership.sum(axis=1), own + np.minimum(borrowed, len(views) - own))
    if partition.settings["strategy"] != "louvain" and asked["groups"] != "auto":
        assert partition.num_groups == asked["groups"]


@tried
@given(scenes(), SETTINGS)
def test_dividing_again_gives_the_same_and_a_file_keeps_it(views: Views, asked: dict[str, Any]) -> None:
    partition = division(views, asked)
    if partition is None:
        return
    assert division(views, asked).fingerprint == partition.fingerprint
    with tempfile.TemporaryDirectory() as folder:
        partition.save(Path(folder, "partition.json"))
        again = Partition.load(Path(folder, "partition.json"))
    assert again.fingerprint == partition.fingerprint and again.settings == partition.settings
    np.testing.assert_array_equal(again.membership, partition.membership)
    poses = views.camera_to_worlds
    np.testing.assert_array_equal(again.route(poses), partition.route(poses))


@tried
@given(scenes(), SETTINGS, st.floats(0, 1e6))
def test_blends_are_shares_whose_sharpest_is_the_route(views: Views, asked: dict[str, Any], sharpness: float) -> None:
    partition = division(views, asked)
    if partition is None:
        return
    weights = blending_weights(partition, views.camera_to_worlds, sharpness)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    near = nearness(partition, views.camera_to_worlds)
    # Where two groups are equally near, or a camera is on the border of a sector, either may be the largest.
    chosen = near[np.arange(len(views)), partition.route(views.camera_to_worlds) - 1]
    np.testing.assert_allclose(chosen, near.max(axis=1), atol=2 * BORDER_TOLERANCE)


@tried
@given(scenes(), st.floats(0.01, 0.9), st.integers(2, 4))
def test_others_get_no_more_of_an_expert_than_was_asked_for(views: Views, softness: float, groups: int) -> None:
    partition = division(views, {"groups": groups, "strategy": "kmeans", "softness": softness})
    if partition is None:
        return
    for group, weights in enumerate(partition.membership, start=1):
        others = weights[partition.homes != group].sum()
        assert others / weights.sum() <= softness + 1e-9
        # Short of it only where a weight has no room left.
        assert others / weights.sum() >= softness - 1e-9 or weights[partition.homes != group].max() > 1 - 1e-9


@tried
@given(scenes(), st.data())
def test_views_follow_the_nearest_of_a_sample(views: Views, data: st.DataObject) -> None:
    count = len(views)
    sample = np.array(sorted(data.draw(st.sets(st.integers(0, count - 1), min_size=1))))
    labels = np.array(data.draw(st.lists(st.integers(1, 3), min_size=len(sample), max_size=len(sample))))
    nearest = nearest_of(views, sample)
    np.testing.assert_array_equal(nearest[sample], np.arange(len(sample)))
    homes = followed(lambda groups: labels, views, sample)(3)
    if len(sample) < count:
        np.testing.assert_array_equal(homes, renumbered(labels[nearest]))
        assert homes[0] == 1 and set(homes) == set(range(1, homes.max() + 1))
