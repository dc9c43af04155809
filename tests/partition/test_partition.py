import copy
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cameras import manual

from dac_nerfstudio.partition import (
    Axis,
    Partition,
    PartitionError,
    Views,
    check_views,
    current_partition,
    divide,
    publish,
    publish_first,
)

EVERY_30 = range(5, 360, 30)


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# Dividing


def test_hard_division_is_one_hot_at_home(ring) -> None:
    partition = divide(ring([10, 100, 190, 280, 20]))
    assert partition.homes.tolist() == [1, 2, 3, 4, 1]
    assert partition.membership.tolist() == [[1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0]]
    assert partition.num_groups == 4
    assert partition.members(1) == ("train/r_0.png", "train/r_4.png")


def test_one_group_is_the_baseline(ring) -> None:
    for settings in ({}, {"overlap": 1.0}, {"softness": 0.5}):
        assert (divide(ring(EVERY_30), 1, **settings).membership == 1).all()


def test_overlap_takes_the_nearest_views_outside(ring) -> None:
    # Sectors of 180 degrees; group 1 has four views and takes round(0.4 * 4) = 2 of those below the x axis.
    partition = divide(ring([30, 70, 110, 150, 250, 185, 300, 348, 270, 240]), 2, overlap=0.4)
    assert partition.homes.tolist() == [1] * 4 + [2] * 6
    assert np.flatnonzero(partition.membership[0]).tolist() == [0, 1, 2, 3, 5, 7]
    assert np.flatnonzero(partition.membership[1]).tolist() == [0, 3, 4, 5, 6, 7, 8, 9]  # round(0.4 * 6) = 2
    assert set(np.unique(partition.membership)) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"groups": 0}, "groups is 0; expected an integer from 1 up"),
        ({"groups": 2.0}, "groups is 2.0; expected an integer"),
        ({"groups": 13}, "13 groups for 12 views; choose a number of groups from 1 to 12"),
        ({"strategy": "azimut"}, "Unknown strategy 'azimut'; choose one of: auto, azimuth, kmeans, spectral, louvain"),
        ({"groups": "many"}, "groups is 'many'; expected a number or auto"),
        ({"overlap": 1.5}, "overlap is 1.5; expected a number from 0 to 1"),
        ({"overlap": -0.1}, "overlap is -0.1; expected"),
        ({"softness": 1.0}, "softness is 1.0; expected a number from 0 to below 1"),
        ({"softness": float("nan")}, "softness is nan; expected"),
        ({"softness": 0.1, "overlap": 0.2}, "overlap 0.2 and softness 0.1 exclude each other"),
    ],
)
def test_settings_out_of_range_are_named(ring, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PartitionError, match=message):
        divide(ring(EVERY_30), **settings)


def test_empty_groups_are_named_and_a_smaller_number_is_suggested(ring) -> None:
    # With 3 groups the third, 240 to 360 degrees, is empty as well; with 2 the border is at 180.
    views = ring([10, 100, 190, 200, 210])
    with pytest.raises(PartitionError, match=r"With 4 groups by azimuth, group 4 would have no views.*; 2 is the larg"):
        divide(views, 4)
    with pytest.raises(PartitionError, match="groups 4, 5 would have no views"):
        divide(views, 5)


# Routing


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 5, 6])
def test_training_views_are_routed_home(ring, groups: int) -> None:
    views = ring([*np.random.default_rng(0).uniform(0, 360, 40), *EVERY_30, *range(0, 360, 30)])
    partition = divide(views, groups)
    np.testing.assert_array_equal(partition.route(views.camera_to_worlds), partition.homes)


def test_azimuth_routes_by_sector_and_not_by_nearest_view(ring) -> None:
    partition = divide(ring([10, 91, 190, 280]))
    assert partition.route(ring([89]).camera_to_worlds).tolist() == [1]


def test_other_divisions_route_to_the_home_of_the_nearest_view(ring) -> None:
    views = ring([10, 91, 190, 280])
    partition = manual(views, [2, 1, 1, 3])
    assert partition.route(ring([89, 20, 200, 260]).camera_to_worlds).tolist() == [1, 2, 1, 3]
    np.testing.assert_array_equal(partition.route(views.camera_to_worlds), partition.homes)


def test_cameras_on_one_spot_are_routed_by_direction(ring) -> None:
    views = ring([10, 100, 190])
    poses = views.camera_to_worlds.copy()
    poses[:, :, 3] = 7.0
    partition = manual(Views(views.names, poses, views.intrinsics), [1, 2, 3])
    assert partition.route(ring([20, 110, 150]).camera_to_worlds).tolist() == [1, 2, 3]


# The file


def test_the_fingerprint_of_a_known_partition_never_changes() -> None:
    views = Views(("a", "b"), np.tile(np.eye(4)[:3], (2, 1, 1)), np.full((2, 6), 8.0))
    assert manual(views, [1, 2]).fingerprint == "dab556eacfd79650"


def test_every_change_changes_the_fingerprint(ring) -> None:
    views = ring(EVERY_30)
    moved = Views(views.names, np.nextafter(views.camera_to_worlds.astype(np.float32), 9.0), views.intrinsics)
    renamed = Views(tuple(name + "x" for name in views.names), views.camera_to_worlds, views.intrinsics)
    partitions = [divide(views, 3), divide(views, 4), divide(views, 3, softness=0.1), divide(views, 3, overlap=0.1)]
    by_hand = manual(views, divide(views, 3).homes.tolist())
    partitions += [divide(moved, 3), divide(renamed, 3), by_hand]
    partitions += [replace(by_hand, axis=Axis(np.array([0.0, 0.0, 1e-6]), by_hand.axis.up))]
    partitions += [replace(by_hand, settings={**by_hand.settings, "similarity": "frustum"})]
    assert len({partition.fingerprint for partition in partitions}) == len(partitions)


def test_what_is_only_told_of_a_partition_does_not_change_the_fingerprint(ring, tmp_path: Path) -> None:
    partition = divide(ring(EVERY_30), 3)
    annotated = replace(partition, about={"notes": ["by hand"], "quality": {"modularity": 0.5}})
    assert annotated.fingerprint == partition.fingerprint
    annotated.save(tmp_path / "a.json")
    assert Partition.load(tmp_path / "a.json").about == annotated.about
    content = annotated.to_json()
    del content["about"]
    assert Partition.from_json(content, "file").about == {}


def test_whole_numbers_and_layout_do_not_change_the_fingerprint(ring) -> None:
    def rewritten(value: Any) -> Any:
        """The same content as another program might write it: keys in another order, 1 for 1.0, 0 for -0.0."""
        if isinstance(value, dict):
            return {key: rewritten(value[key]) for key in reversed(value)}
        if isinstance(value, list):
            return [rewritten(item) for item in value]
        return int(value) if isinstance(value, float) and value.is_integer() else value

    views = ring([0, 90, 180, 270])
    signed = Views(views.names, np.where(views.camera_to_worlds == 0, -0.0, views.camera_to_worlds), views.intrinsics)
    partition = divide(signed, 2)
    assert Partition.from_json(rewritten(partition.to_json()), "file").fingerprint == partition.fingerprint


def test_an_edited_file_is_rejected_until_its_fingerprint_is_removed(ring, tmp_path: Path) -> None:
    path = tmp_path / "partition.json"
    divide(ring(EVERY_30), 3).save(path)
    content = json.loads(path.read_text())
    content["views"][0]["membership"][1] = 0.5
    path.write_text(json.dumps(content))
    with pytest.raises(PartitionError, match=r'was edited.* remove the "fingerprint" entry to accept the edit'):
        Partition.load(path)
    del content["fingerprint"]
    path.write_text(json.dumps(content))
    assert Partition.load(path).membership[1, 0] == 0.5


def test_views_moved_by_hand_need_another_strategy_than_azimuth(ring) -> None:
    content = divide(ring(EVERY_30), 3).to_json()
    del content["fingerprint"]
    content["views"][0] |= {"group": 2, "membership": [0, 1, 0]}
    with pytest.raises(PartitionError, match=r'sector: train/r_0.png\. .* change "strategy" to "manual"'):
        Partition.from_json(content, "file")
    content["settings"]["strategy"] = "manual"
    assert Partition.from_json(content, "file").homes[0] == 2


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ((), [], 'not a partition; expected a JSON object with "format": "dac-partition"'),
        (("format",), "other", "not a partition"),
        (("version",), 1, "version 1 of the format, but this program reads version 2"),
        (("axis",), [0, 0, 1], "it is not as dac split writes it .* Undo the edit, or divide the views again"),
        (("axis", "origin"), [0, 0], "The axis must be a point and a direction of length 1"),
        (("axis", "origin"), [0, 0, float("nan")], "The axis must be a point and a direction of length 1"),
        (("axis", "up"), [0, 0, float("nan")], "The axis must be a point and a direction of length 1"),
        (("axis", "up"), [0, 0, 2], "The axis must be a point and a direction of length 1"),
        (("views",), 7, "it is not as dac split writes it"),
        (("views",), [], "There are no views"),
        (("views", 0), {"name": "a"}, r"it is not as dac split writes it \(KeyError: 'camera_to_world'\)"),
        (("views", 0, "name"), "train/r_1.png", "these occur more than once: train/r_1.png"),
        (("views", 0, "group"), 1.0, "it is not as dac split writes it"),
        (("views", 0, "group"), 5, "a group outside 1 to 4: train/r_0.png"),
        (("views", 0, "group"), 2, "no weight in their own group: train/r_0.png"),
        (("views", 0, "membership"), [1, 0, 0], "it is not as dac split writes it"),
        (("views", 0, "membership"), [2, 0, 0, 0], r"a membership weight outside \[0, 1\]: train/r_0.png"),
        (("views", 0, "membership"), [float("nan"), 0, 0, 0], "a membership weight outside"),
        (("views", 0, "camera_to_world"), [[1, 2], [3]], "it is not as dac split writes it"),
        (("settings", "groups"), 3, "Each of 12 views needs a group, and a membership weight in each of 3"),
        (("settings", "groups"), 4.0, "groups is 4.0; expected an integer from 1 up"),
        (("settings", "softness"), 1, "softness is 1; expected a number from 0 to below 1"),
        (("settings",), {}, r"it is not as dac split writes it \(KeyError: 'strategy'\)"),
    ],
)
def test_defects_of_a_file_are_named(ring, where: tuple[Any, ...], value: Any, message: str) -> None:
    content: Any = {"root": copy.deepcopy(divide(ring(EVERY_30)).to_json())}
    entry = content
    *parents, last = ("root", *where)
    for key in parents:
        entry = entry[key]
    entry[last] = value
    with pytest.raises(PartitionError, match=f"my.json: .*{message}"):
        Partition.from_json(content["root"], "my.json")


def test_a_group_without_views_is_named(ring) -> None:
    settings = {"strategy": "manual", "similarity": None, "groups": 3, "overlap": 0, "softness": 0}
    with pytest.raises(PartitionError, match="No view belongs to group 2; every group from 1 to 3 needs one"):
        Partition(ring([0, 90]), np.array([1, 3]), np.array([[1, 0], [0, 0], [0, 1.0]]), settings)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(PartitionError, match=r"There is no partition .*a.json. Make one: dac split"):
        Partition.load(tmp_path / "a.json")
    for content in ("{", "[" * 100_000):
        (tmp_path / "b.json").write_text(content)
        with pytest.raises(PartitionError, match=r"b.json is not valid JSON .* Divide the views again: dac split"):
            Partition.load(tmp_path / "b.json")
    with pytest.raises(PartitionError, match=f"The partition {tmp_path} cannot be read: Is a directory."):
        Partition.load(tmp_path)


def test_a_failed_save_keeps_the_earlier_file(ring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "partition.json"
    divide(ring(EVERY_30), 3).save(path)
    before = path.read_bytes()

    def fail(source: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        divide(ring(EVERY_30), 4).save(path)
    assert path.read_bytes() == before
    assert files(tmp_path) == ["partition.json"]


# The scene's folder


def test_publish_replaces_the_current_partition_and_keeps_the_earlier(ring, tmp_path: Path) -> None:
    first, second = divide(ring(EVERY_30), 3), divide(ring(EVERY_30), 4)
    assert publish(first, tmp_path) == tmp_path / "partitions" / f"{first.fingerprint}.json"
    path = publish(second, tmp_path)
    assert (tmp_path / "partition.json").read_bytes() == path.read_bytes()
    assert Partition.load(tmp_path / "partition.json").fingerprint == second.fingerprint
    edited = divide(ring(EVERY_30), 2)
    edited.save(tmp_path / "partition.json")  # as by hand, without a copy
    publish(first, tmp_path)
    kept = [f"partitions/{partition.fingerprint}.json" for partition in (first, second, edited)]
    assert files(tmp_path) == ["partition.json", *sorted(kept)]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": "dac-partition", "version": 1}'])
def test_an_earlier_partition_that_cannot_be_read_is_moved_aside(text: str, ring, tmp_path: Path) -> None:
    path = tmp_path / "partition.json"
    path.write_text(text)
    assert current_partition(tmp_path) is None
    with pytest.warns(UserWarning, match="An earlier division cannot be read and is now partition-before-20"):
        publish(divide(ring(EVERY_30), 3), tmp_path)
    (aside,) = tmp_path.glob("partition-before-*.json")
    assert aside.read_text() == text
    found = current_partition(tmp_path)
    assert found is not None and found.num_groups == 3


def test_a_mistake_in_an_edited_partition_is_told_and_nothing_replaced(ring, tmp_path: Path) -> None:
    path = tmp_path / "partition.json"
    publish(divide(ring(EVERY_30), 3), tmp_path)
    content = json.loads(path.read_text())
    content["views"][0]["group"] = 7
    path.write_text(json.dumps(content))
    for use in (current_partition, lambda folder: publish(divide(ring(EVERY_30), 4), folder)):
        with pytest.raises(PartitionError, match="These views have a group outside 1 to 3"):
            use(tmp_path)
    assert json.loads(path.read_text()) == content


def test_the_first_partition_of_a_scene_stays(ring, tmp_path: Path) -> None:
    views, scene = ring(EVERY_30), tmp_path / "outputs" / "scene"
    made, path = publish_first(divide(views, 3), scene)
    assert made.num_groups == 3
    path.unlink()
    found, found_path = publish_first(divide(views, 5), scene)
    assert found.fingerprint == made.fingerprint
    assert found_path == path == scene / "partitions" / f"{made.fingerprint}.json"
    assert files(scene) == ["partition.json", f"partitions/{made.fingerprint}.json"]
    assert Partition.load(path).to_json() == made.to_json()


def test_a_partition_of_other_views_is_refused(ring) -> None:
    made = divide(ring(EVERY_30))
    for views, message in (
        (ring(list(EVERY_30)[:11]), r"here was made from other views .*: the data lacks train/r_11.png\. Div"),
        (ring([*EVERY_30, 1]), r"the partition lacks train/r_12.png"),
        # Another scene of the same data set has the same names.
        (ring([*list(EVERY_30)[:11], 350]), r"the names agree, but not the cameras of "),
    ):
        with pytest.raises(PartitionError, match=message):
            check_views(made, views, Path("here"))


def test_the_slower_of_two_processes_returns_the_winner(ring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    winner, link = divide(ring(EVERY_30), 3), os.link

    def overtaken(source: Path, target: Path) -> None:
        publish(winner, tmp_path)
        link(source, target)

    monkeypatch.setattr(os, "link", overtaken)
    assert publish_first(divide(ring(EVERY_30), 5), tmp_path)[0].fingerprint == winner.fingerprint
    assert files(tmp_path) == ["partition.json", f"partitions/{winner.fingerprint}.json"]


def test_the_first_partition_needs_no_hard_links(ring, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    made, _ = publish_first(divide(ring(EVERY_30), 3), tmp_path / "scene")
    assert files(tmp_path / "scene") == ["partition.json", f"partitions/{made.fingerprint}.json"]
