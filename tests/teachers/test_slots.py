"""Teachers asked in fixed shapes say what they say otherwise."""

from typing import Any

import pytest
import torch
from nerfstudio.cameras.rays import RayBundle
from tiny_runs import Rays, TinyModel

from dac_nerfstudio.kplanes.distillation import TeacherOutput
from dac_nerfstudio.kplanes.teaching import ExpertModel
from dac_nerfstudio.teachers.ensemble import Ensemble
from dac_nerfstudio.teachers.slots import Slots

BACKGROUND = torch.tensor([0.2, 0.5, 0.9])


@pytest.fixture
def ensemble(tiny_model: TinyModel) -> Ensemble:
    """Two experts of group 1, with another decoder each, and one of groups 2 and 3."""
    nowhere: Any = None
    models = []
    for seed, explicit in enumerate((True, False, True, True)):
        model = tiny_model(seed=seed, linear_decoder=explicit)
        expert = ExpertModel(model.config, model.scene_box, num_train_data=0)
        expert.load_state_dict(model.state_dict())
        models.append(expert)
    return Ensemble(models, (1, 1, 2, 3), nowhere)


def check_same(one: TeacherOutput, other: TeacherOutput) -> None:
    """Equal but for a last digit: the ends of an array are computed by other instructions on a CPU."""
    for name in ("rgb", "alphas", "colours"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=0, atol=2e-7)
    for name in ("edges", "distances"):
        assert torch.equal(getattr(one.bins, name), getattr(other.bins, name))


def taught(slots: Slots, bundle: RayBundle) -> TeacherOutput:
    groups = bundle.metadata.pop("group")[:, 0]
    slots.place(groups)
    answer = slots.teach(bundle, BACKGROUND)
    assert "group" not in bundle.metadata
    return answer


def test_slots_answer_as_models_asked_for_their_share(ensemble: Ensemble, rays: Rays) -> None:
    slots = Slots(ensemble, "cpu")
    for counts in ((120, 60, 20), (110, 50, 40), (130, 70, 0)):
        groups = [group for group, count in enumerate(counts, start=1) for _ in range(count)]
        expected = ensemble.teach(rays(200, groups=groups), BACKGROUND)
        table = slots.table.data_ptr()
        check_same(taught(slots, rays(200, groups=groups)), expected)
        assert slots.fits
        assert counts[0] == 120 or slots.table.data_ptr() == table, "the same memory: a captured step reads it"


def test_a_batch_that_does_not_fit_is_answered_all_the_same(ensemble: Ensemble, rays: Rays) -> None:
    slots = Slots(ensemble, "cpu")
    taught(slots, rays(200, groups=[1] * 180 + [2] * 20))
    groups = [1] * 20 + [2] * 180
    expected = ensemble.teach(rays(200, groups=groups), BACKGROUND)
    check_same(taught(slots, rays(200, groups=groups)), expected)
    assert not slots.fits
