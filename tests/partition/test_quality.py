import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cameras import manual

from dac_nerfstudio.partition import STRATEGIES, Partition, Similarity, assess, divide, verdict, view_distances
from dac_nerfstudio.partition.quality import BORDER_NEIGHBOURS, on_border
from dac_nerfstudio.partition.similarity import featureless
from dac_nerfstudio.partition.strategies import BY_SIMILARITY
from dac_nerfstudio.scene.frames import spread

FOUR = np.array(
    [
        [1.0, 0.8, 0.2, 0.0],
        [0.8, 1.0, 0.4, 0.2],
        [0.2, 0.4, 1.0, 0.6],
        [0.0, 0.2, 0.6, 1.0],
    ]
)


def test_figures_of_four_views_are_those_worked_out_by_hand(ring) -> None:
    figures = assess(manual(ring([0, 40, 180, 220]), [1, 1, 2, 2]), Similarity("covisibility", FOUR))
    assert figures["similarity"] == "covisibility" and figures["sizes"] == [2, 2]
    assert figures["within"] == pytest.approx([0.8, 0.6])
    assert figures["between"] == pytest.approx([0.2, 0.2])  # (0.2 + 0 + 0.4 + 0.2) / 4
    # Weights add up to 2.2, degrees are 1, 1.4, 1.2 and 0.8: 1.4 / 2.2 less (2.4 / 4.4)^2 and (2 / 4.4)^2.
    assert figures["modularity"] == pytest.approx(1.4 / 2.2 - (2.4**2 + 2**2) / 4.4**2)
    assert figures["test"] is None


def test_a_group_of_one_view_and_a_single_group_lack_some_figures(ring) -> None:
    views, similarity = ring([0, 40, 180, 220]), Similarity("covisibility", FOUR)
    figures = assess(manual(views, [1, 2, 2, 2]), similarity)
    assert figures["within"] == [None, pytest.approx(0.4)]  # (0.4 + 0.2 + 0.6) / 3
    assert figures["between"] == pytest.approx([1 / 3, 1 / 3])
    figures = assess(manual(views, [1, 1, 1, 1]), similarity)
    assert figures["between"] == [None] and figures["modularity"] == pytest.approx(0) and figures["border"] == []
    single = assess(manual(views.select([0]), [1]), Similarity("covisibility", np.eye(1)))
    assert single["sizes"] == [1] and single["within"] == single["between"] == [None] and single["border"] == []
    assert single["modularity"] == single["featureless_modularity"] == 0.0


def test_views_beside_a_gap_between_groups_are_on_the_border(ring) -> None:
    views = ring(np.arange(24) * 15 + 7.0)
    partition = divide(views, 3)
    poses = views.camera_to_worlds
    similarity = Similarity("frustum", np.exp(-view_distances(poses, poses, spread(views.centres))))
    # Of the four nearest views two are on either side: the last two and the first two of every eight see another group.
    assert BORDER_NEIGHBOURS == 4
    expected = [i % 8 in (0, 1, 6, 7) for i in range(24)]
    assert on_border(similarity.values, partition.homes).tolist() == expected
    border = assess(partition, similarity)["border"]
    assert border == [name for name, there in zip(views.names, expected) if there]


def test_test_views_are_measured_to_the_nearest_view_of_the_group_that_answers(ring) -> None:
    views = ring([10, 80, 100, 170, 190])
    partition = manual(views, [1, 1, 2, 2, 3])
    test = ring([10, 84, 96, 140, 85], prefix="test/r_")
    figures = assess(partition, Similarity("frustum", np.eye(5)), test)["test"]
    assert figures["views"] == [3, 2, 0]
    distances = view_distances(test.camera_to_worlds, views.camera_to_worlds, spread(views.centres))
    first, second = [0.0, distances[1, 1], distances[4, 1]], [distances[2, 2], distances[3, 3]]
    assert first[0] == distances[0, 0] and first[1] < first[2]
    assert figures["mean_distance"] == [pytest.approx(np.mean(first)), pytest.approx(np.mean(second)), None]
    assert figures["largest_distance"] == [pytest.approx(max(first)), pytest.approx(max(second)), None]


def test_a_sector_that_answers_is_measured_even_if_another_group_is_nearer(ring) -> None:
    views = ring([10, 91, 190, 280])
    test = ring([89], prefix="test/r_")
    figures = assess(divide(views), Similarity("frustum", np.eye(4)), test)["test"]
    assert figures["views"] == [1, 0, 0, 0]
    expected = view_distances(test.camera_to_worlds, views.camera_to_worlds[:1], spread(views.centres))
    assert figures["mean_distance"][0] == pytest.approx(float(expected[0, 0]))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("upright", [True, False])
def test_the_scenes_own_groups_beat_the_featureless_scene_and_places_do_not(
    ring, planted, tmp_path: Path, strategy: str, upright: bool
) -> None:
    views = ring(np.arange(48) * 7.5 + 0.1)
    shift = 0.0 if upright else [[0, 0, 0, 9.0]] * 3
    views = replace(views, camera_to_worlds=views.camera_to_worlds + shift, upright=upright)
    similarity = Similarity("frustum", planted([16, 16, 16], noise=0.02))
    partition = divide(views, 3, strategy, similarity=similarity)
    figures = assess(partition, similarity, ring([5, 95], prefix="test/r_"))
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    null = Similarity("frustum", featureless(similarity.values, views))
    places = assess(divide(views, 3, strategy, similarity=null), null)
    # Which of a ring's divisions, all about alike, the spectral one finds depends on the version of scikit-learn.
    alike = 0.01 if strategy == "spectral" else None
    assert places["modularity"] == pytest.approx(places["featureless_modularity"], rel=alike)
    if strategy in BY_SIMILARITY:  # the featureless scene is divided by itself, whatever the groups
        mixed = replace(partition, homes=np.arange(48) % 3 + 1, membership=np.ones((3, 48)))
        assert assess(mixed, similarity)["featureless_modularity"] == figures["featureless_modularity"]
    if strategy != "kmeans":  # which cuts a ring without gaps anywhere
        assert figures["modularity"] > figures["featureless_modularity"] + 0.05
    # What was read from a file no longer tells whether the data is upright, and is judged alike.
    partition.save(tmp_path / "partition.json")
    assert assess(Partition.load(tmp_path / "partition.json"), similarity, ring([5, 95], prefix="test/r_")) == figures


def test_a_division_is_said_to_be_no_more_than_the_cameras_places() -> None:
    figures = {"sizes": [4, 4], "modularity": 0.40, "featureless_modularity": 0.36}
    assert verdict(figures).startswith(
        "These groups follow camera position only: the photos' content plays no part. This is usual"
    )
    assert verdict({**figures, "modularity": 0.42}).startswith("The groups are the scene's own")
    assert verdict({**figures, "sizes": [8]}) == "There is one group: nothing is divided."
