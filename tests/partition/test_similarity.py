from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from dac_nerfstudio.partition import SIMILARITIES, PartitionError, Views, measure, similarity, view_distances
from dac_nerfstudio.partition.similarity import featureless
from dac_nerfstudio.scene.frames import spread

KINDS = pytest.mark.parametrize("kind", SIMILARITIES)
WIDE = [10.0, 10.0, 8.0, 6.0, 16.0, 12.0]


def picture(seed: int, width: int = 320, height: int = 240) -> Image.Image:
    """Discs of random colours before a sky that brightens downwards, with a little noise."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] / height
    pixels = np.stack([0.3 + 0.3 * rows, 0.5 + 0.2 * rows, 0.9 - 0.4 * rows], axis=-1)
    for x, y, radius in rng.uniform([0, 0, 0.05], [1.3, 1, 0.2], (12, 3)):
        pixels[(columns - x) ** 2 + (rows - y) ** 2 < radius**2] = rng.random(3)
    pixels += 0.02 * rng.normal(size=pixels.shape)
    return Image.fromarray((pixels.clip(0, 1) * 255).astype(np.uint8))


def unposed(photos: list[Path] | None = None, tracks: list[list[int]] | None = None) -> Views:
    """Views of which nothing counts but photos or tracks."""
    count = len(photos or tracks or [])
    return Views(
        names=tuple(f"v{i}" for i in range(count)),
        camera_to_worlds=np.tile(np.eye(4)[:3], (count, 1, 1)),
        intrinsics=np.tile(WIDE, (count, 1)),
        upright=False,
        tracks=None if tracks is None else tuple(np.array(points, dtype=int) for points in tracks),
        photos=None if photos is None else tuple(photos),
    )


@pytest.fixture(params=range(3))
def scene(request: pytest.FixtureRequest, cameras_around, tmp_path: Path) -> Views:
    """Cameras around a scene with points and photos."""
    seed = request.param
    views = cameras_around(12, seed)
    rng = np.random.default_rng(seed)
    for i, name in enumerate(views.names):
        picture(100 * seed + i, 32, 24).save(tmp_path / name)
    tracks = tuple(rng.choice(200, rng.integers(0, 100), replace=False) for _ in views.names)
    return replace(views, tracks=tracks, photos=tuple(tmp_path / name for name in views.names))


@KINDS
def test_a_similarity_is_symmetric_from_0_to_1_and_1_on_its_diagonal(scene: Views, kind: str) -> None:
    measured = measure(scene, kind)
    assert measured.kind == kind and measured.values.shape == (12, 12)
    assert np.array_equal(measured.values, measured.values.T) and (measured.values.diagonal() == 1).all()
    assert measured.values.min() >= 0 and measured.values.max() <= 1
    others = measured.values[np.triu_indices(12, k=1)]
    assert 0 < np.median(others) < 1 and np.ptp(others) > 0.1


@KINDS
def test_a_similarity_does_not_change_with_the_frame(scene: Views, random_transform, kind: str) -> None:
    before = measure(scene, kind).values
    for seed in range(3):
        moved = replace(scene, camera_to_worlds=random_transform(seed).apply(scene.camera_to_worlds))
        # Poses are single precision: of the hundreds of surfaces that a camera sees, one on the border of its frustum
        # may fall on the other side.
        np.testing.assert_allclose(measure(moved, kind).values, before, atol=3e-3 if kind == "frustum" else 0)


def test_a_few_surfaces_at_a_time_are_as_good_as_all(scene: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = measure(scene, "frustum").values
    monkeypatch.setattr(similarity, "BLOCK", 1000)  # less than a view's surfaces with all views
    assert np.array_equal(measure(scene, "frustum").values, whole)


@KINDS
def test_a_similarity_follows_the_order_of_the_views(scene: Views, kind: str) -> None:
    order = np.random.default_rng(0).permutation(len(scene))
    expected = measure(scene, kind).values[order][:, order]
    np.testing.assert_allclose(measure(scene.select(order), kind).values, expected, atol=1e-12)


def test_what_cannot_be_measured_is_refused(scene: Views) -> None:
    for kind in ("covisible", ""):
        with pytest.raises(PartitionError, match=f"'{kind}'; choose one of: auto, covisibility, frustum, appearance"):
            measure(scene, kind)
    bare = replace(scene, tracks=None, photos=None)
    with pytest.raises(PartitionError, match="Covisibility needs .* another similarity: --similarity frustum"):
        measure(bare, "covisibility")
    with pytest.raises(PartitionError, match="Appearance needs the photos"):
        measure(bare, "appearance")


# Covisibility


def test_covisibility_is_the_cosine_of_sets_of_points() -> None:
    # 100 points and 4 of them; 2 of 4 shared; a view without points; one that shares nothing.
    tracks = [list(range(100)), [0, 1, 2, 3], [2, 3, 200, 201], [], [10**12]]
    few = 2 / np.sqrt(100 * 4)
    expected = [
        [1, 4 / 20, few, 0, 0],
        [4 / 20, 1, 2 / 4, 0, 0],
        [few, 2 / 4, 1, 0, 0],
        [0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1],
    ]
    np.testing.assert_allclose(measure(unposed(tracks=tracks), "covisibility").values, expected, rtol=1e-12)
    np.testing.assert_array_equal(measure(unposed(tracks=[[], []]), "covisibility").values, np.eye(2))


# Frustum overlap


def test_frustum_overlap_falls_along_a_ring_and_is_least_on_the_opposite_side(ring) -> None:
    views = ring(range(0, 360, 10))
    for focal in (8.0, 20.0, 100.0):  # a view of 90, 44 and 9 degrees
        intrinsics = np.tile([focal, focal, 8, 6, 16, 12], (36, 1))
        overlap = measure(replace(views, intrinsics=intrinsics), "frustum").values
        assert (np.diff(overlap[0, :18]) < 0).all()
        assert overlap[0, 1] > 0.75 and overlap[0, 18] < 0.35
        # No direction is special: neighbours are alike all round.
        assert np.ptp(overlap[np.arange(36), np.arange(36) - 1]) < 0.01
        arc = measure(replace(views, intrinsics=intrinsics).select(range(7)), "frustum").values
        np.testing.assert_allclose(arc[0], overlap[0, :7], atol=0.15)


def test_equal_cameras_overlap_wholly_and_averted_ones_not_at_all(ring) -> None:
    views = ring([0, 90])
    poses = np.concatenate([views.camera_to_worlds, views.camera_to_worlds])
    poses[3, :, [0, 2]] *= -1  # turned about
    views = Views(("a", "b", "c", "d"), poses, np.tile(WIDE, (4, 1)))
    overlap = measure(views, "frustum").values
    assert overlap[0, 2] == 1.0
    assert overlap[1, 3] == 0.0


def test_quarters_of_a_picture_overlap_with_the_whole_and_not_with_each_other(ring) -> None:
    views = ring([0, 0, 0])
    intrinsics = np.array([WIDE, [10, 10, 8, 6, 8, 6], [10, 10, 0, 0, 8, 6]])  # top left and bottom right
    overlap = measure(replace(views, intrinsics=intrinsics), "frustum").values
    # Of the whole's surfaces a quarter lies in each, with all of its own: 1.25 of 3, and 1.25 of 1.25 shared.
    assert overlap[0, 1:] == pytest.approx([(1.25 / 3) ** 0.5] * 2, abs=0.1) and overlap[1, 2] == 0.0


def test_a_camera_far_behind_the_others_sees_nothing_of_theirs(ring) -> None:
    views = ring([0, 90, 180, 270, 0])
    poses = views.camera_to_worlds.copy()
    poses[4, :, 3] *= 10
    overlap = measure(replace(views, camera_to_worlds=poses), "frustum").values
    assert (overlap[4, :4] == 0).all()


@pytest.mark.parametrize("place", [[0.0, 0.0, 0.0], [7.1, -7.3, 2.9], [1e4, 0.0, -3e4]])
def test_cameras_in_one_place_overlap_by_direction(place: list[float]) -> None:
    turns = Rotation.from_euler("y", [[0], [0], [30], [60], [180]], degrees=True).as_matrix()
    poses = np.concatenate([turns, np.tile(np.reshape(place, (3, 1)), (5, 1, 1))], axis=2)
    poses[1::2, :, 3] *= 1 + 1e-7  # as far as single precision tells places apart
    overlap = measure(Views("abcde", poses, np.tile(WIDE, (5, 1))), "frustum").values
    assert overlap[0, 1] > 0.95 and overlap[0, 4] == 0.0
    # 77 degrees wide: about 47 / 77 is left after a turn by 30 degrees, and 17 / 77 after one by 60.
    assert 0.9 > overlap[0, 2] > 0.5 > overlap[0, 3] > 0.1


# Appearance


def test_a_photo_stays_alike_when_resized_or_encoded_again(tmp_path: Path) -> None:
    for seed in range(3):
        photo, other = picture(seed), picture(seed + 10)
        photo.save(tmp_path / "a.png")
        photo.save(tmp_path / "b.jpg", quality=40)
        photo.resize((160, 120), Image.Resampling.LANCZOS).save(tmp_path / "c.webp")
        photo.resize((1280, 960)).save(tmp_path / "d.jpg", quality=80)
        other.save(tmp_path / "e.png")
        photo.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "f.png")
        paths = [tmp_path / name for name in ("a.png", "b.jpg", "c.webp", "d.jpg", "e.png", "f.png")]
        alike = measure(unposed(paths), "appearance").values
        assert alike[:4, :4].min() > 0.95
        assert alike[:4, 4:].max() < 0.9


def test_photos_of_opposite_colours_and_edges_share_half_of_nothing(tmp_path: Path) -> None:
    # Plain photos have no edges, which makes that half alike; across and down have none of their directions in common.
    Image.new("RGB", (64, 64), (10, 10, 10)).save(tmp_path / "dark.png")
    Image.new("RGB", (64, 64), (240, 240, 240)).save(tmp_path / "light.png")
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1))
    Image.fromarray(ramp).save(tmp_path / "across.png")
    Image.fromarray(ramp.T).save(tmp_path / "down.png")
    # A clear photo is white. Saws that rise and fall differ by the sign of their slopes alone.
    Image.new("RGBA", (64, 64), (10, 10, 10, 0)).save(tmp_path / "clear.png")
    saw = np.tile(np.arange(64, dtype=np.uint8) % 16 * 8, (64, 1))
    Image.fromarray(saw).save(tmp_path / "rising.png")
    Image.fromarray(saw[:, ::-1]).save(tmp_path / "falling.png")
    names = ("dark.png", "light.png", "across.png", "down.png", "clear.png", "rising.png", "falling.png")
    alike = measure(unposed([tmp_path / name for name in names]), "appearance").values
    assert alike[0, 1] == pytest.approx(0.5)
    same = unposed([tmp_path / "across.png", tmp_path / "across.png"])
    assert measure(same, "appearance").values[0, 1] == 1.0
    assert alike[2, 3] < 0.75
    assert alike[1, 4] == 1.0 and alike[5, 6] == pytest.approx(1.0)
    # What is flat has no direction and a ramp has one.
    assert alike[0, 2] < 0.66


def test_photos_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(0).save(tmp_path / "whole.jpg")
    picture(0).save(tmp_path / "whole.png")
    (tmp_path / "text.png").write_text("no photo")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)  # Pillow refuses photos of twice as many
    Image.new("L", (500, 500)).save(tmp_path / "huge.png")
    paths = [tmp_path / name for name in ("whole.jpg", "missing.jpg", "text.png", "huge.png")]
    for name in ("whole.jpg", "whole.png"):
        paths.append(tmp_path / f"cut_{name}")
        paths[-1].write_bytes((tmp_path / name).read_bytes()[:3000])
    with pytest.raises(
        PartitionError, match=r"cannot be read: (\S+(missing|text|huge|cut_whole)\.(jpg|png)(, |\. )){5}Put"
    ):
        measure(unposed(paths), "appearance")


# The featureless scene


@pytest.fixture
def judged(cameras_around) -> tuple[np.ndarray, Views, np.ndarray]:
    """A random similarity that falls with distance on the whole, its views, and their distances."""
    views = cameras_around(20, 0)
    poses = views.camera_to_worlds
    distances = view_distances(poses, poses, spread(views.centres))
    noise = np.random.default_rng(1).uniform(-0.2, 0.2, distances.shape)
    values = (np.exp(-distances) + noise + noise.T).clip(0, 1)
    np.fill_diagonal(values, 1)
    return values, views, distances


def test_the_featureless_scene_is_a_falling_function_of_distance(judged) -> None:
    values, views, distances = judged
    null = featureless(values, views)
    assert np.array_equal(null, null.T) and null.min() >= 0 and null.max() <= 1
    upper = np.triu_indices(20, k=1)
    order = distances[upper].argsort()
    assert (np.diff(null[upper][order]) <= 0).all() and np.ptp(null[upper]) > 0.2
    # Isotonic regression keeps the mean, and nothing that falls is nearer to what was measured.
    assert null[upper].mean() == pytest.approx(values[upper].mean())
    errors = [((other - values)[upper] ** 2).sum() for other in (null, np.exp(-distances), np.exp(-2 * distances))]
    assert errors[0] == min(errors)


def test_a_featureless_scene_is_its_own(judged) -> None:
    _, views, distances = judged
    falling = np.exp(-distances)
    np.testing.assert_allclose(featureless(falling, views), falling, atol=1e-4)
    np.testing.assert_array_equal(featureless(np.eye(1), views.select([0])), np.eye(1))


def test_views_equally_far_apart_are_equally_alike_in_a_featureless_scene(ring, planted: Callable) -> None:
    measured, views = planted([18, 9, 9]), np.arange(36)
    measured[views, views - 18] = 0.9  # of the largest distance are half as many pairs as of any other
    values = featureless(measured, ring(range(0, 360, 10)))
    assert values.mean() == pytest.approx(measured.mean())
    steps = [np.diagonal(np.roll(values, -step, axis=1)) for step in range(1, 18)]
    for step in steps:
        assert np.ptp(step) < 1e-12
    assert steps[0][0] > steps[5][0] > steps[16][0]
