"""Large scenes: divided, judged and pictured by a sample, with small ones left as they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dac_nerfstudio.errors import PartitionError
from dac_nerfstudio.partition import Views, divide, measure, sampling
from dac_nerfstudio.partition.contacts import border_views, ordered_similarity
from dac_nerfstudio.partition.sampling import SAMPLE, nearest_of, representatives, sample_of
from dac_nerfstudio.partition.split import split
from dac_nerfstudio.runs.layout import PARTITION_PAGE

CLUSTERS = np.arange(90) % 3


@pytest.fixture
def three_places(ring, monkeypatch: pytest.MonkeyPatch) -> Views:
    """Ninety cameras in three places, of which no more than thirty are looked at."""
    monkeypatch.setattr(sampling, "MOST_VIEWS", 40)
    monkeypatch.setattr(sampling, "SAMPLE", 30)
    return ring(np.array([0, 120, 240])[CLUSTERS] + np.random.default_rng(0).uniform(-20, 20, 90))


@pytest.mark.parametrize("views", [501, 999, 10_007])
def test_a_sample_has_one_view_of_each_run_of_views(views: int) -> None:
    assert np.array_equal(sample_of(500), np.arange(500))
    sample = sample_of(views)
    assert np.array_equal(sample_of(views), sample) and (np.diff(sample) > 0).all() and sample[-1] < views
    assert np.array_equal((sample * SAMPLE + SAMPLE - 1) // views, np.arange(SAMPLE))


def test_views_that_take_turns_in_rings_are_all_met() -> None:
    assert np.bincount(sample_of(10 * SAMPLE) % 10).min() > SAMPLE / 20


@pytest.mark.parametrize("strategy", ["kmeans", "spectral", "louvain"])
def test_views_outside_the_sample_join_the_nearest_of_it(three_places: Views, strategy: str) -> None:
    similarity = measure(three_places)
    assert similarity.values.shape == (30, 30)
    partition = divide(three_places, 3, strategy, similarity=similarity)
    assert partition.homes.tolist() == (CLUSTERS + 1).tolist()
    assert partition.notes == ["Divided by a sample of 30 of 90 views; the others follow the nearest."]


def test_azimuth_needs_no_sample(three_places: Views) -> None:
    partition = divide(three_places, 4, "azimuth")
    assert partition.notes == [] and np.array_equal(partition.route(three_places.camera_to_worlds), partition.homes)


def test_short_tracks_join_views_of_a_sample(three_places: Views) -> None:
    # Every view shares points with the one before and after it in its place, and those of a sample with none.
    tracks = tuple(np.array([index, index + 3]) for index in range(90))
    views = replace(three_places, tracks=tracks)
    sample = sample_of(90)
    assert sum(map(len, representatives(views, sample).tracks)) > 2 * len(sample)
    nearest = nearest_of(views, sample)
    for place, points in enumerate(representatives(views, sample).tracks):
        assert set(points) == {point for index in np.flatnonzero(nearest == place) for point in tracks[index]}


def test_figures_and_pictures_are_of_the_sample(three_places: Views, tmp_path: Path) -> None:
    partition, _ = split(three_places, tmp_path, similarity="frustum", groups=4, strategy="kmeans")
    quality = partition.about["quality"]
    assert sum(quality["sizes"]) == 90
    sample, similarity = sample_of(90), measure(three_places, "frustum")
    border = border_views(partition, similarity)
    assert border.any() and [three_places.names[index] for index in np.flatnonzero(border)] == quality["border"]
    order, values = ordered_similarity(partition, similarity)
    places = np.searchsorted(sample, order)
    assert sorted(order) == sample.tolist() and np.array_equal(values, similarity.values[places][:, places])
    assert "Judged by a sample of 30 of 90 views, which alone are pictured one by one." in partition.notes
    assert (tmp_path / PARTITION_PAGE).exists()


def test_a_sample_of_another_scene_is_refused(three_places: Views, ring) -> None:
    last = sample_of(90)[-1]
    with pytest.raises(PartitionError, match=f"The similarity is of 30 views, but the partition has {last}"):
        divide(ring(range(last)), 3, "louvain", similarity=measure(three_places))
