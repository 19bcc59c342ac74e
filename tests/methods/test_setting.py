"""Which taps of two networks belong together."""

from __future__ import annotations

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from pyramids import Pyramid
from settings import hear, images, loss, setting
from stillhouse import methods
from stillhouse.errors import UserError
from stillhouse.methods.build import make_method
from stillhouse.methods.setting import Setting
from stillhouse.models import zoo
from stillhouse.objectives import presets
from stillhouse.recipes import load
from stillhouse.types import Lesson
from tiny import CLOCK


def test_levels_are_paired_by_name_in_the_student_s_order() -> None:
    at = setting(Pyramid(4, ("p4", "p3")), Pyramid(8, ("p3", "p4")))
    assert at.resolve_pairs("levels") == (("p4", "p4"), ("p3", "p3"))
    at = setting(Pyramid(4, ("p3", "p4")), Pyramid(8, ("p4", "p5")))
    assert at.resolve_pairs("levels") == (("p4", "p4"),)


def test_stages_and_pairs_of_one_s_own_are_as_ever() -> None:
    at = setting(Pyramid(4), Pyramid(8))
    expected = (("stage1", "stage1"), ("stage2", "stage2"), ("last", "last"))
    assert set(at.resolve_pairs("stages")) <= set(expected)
    assert at.resolve_pairs((("p3", "last"),)) == (("p3", "last"),)


def two_families() -> Setting:
    networks = (zoo.create(f"cifar/{name}", 5) for name in ("shufflenetv1", "wrn_16_2"))
    return Setting(*networks, images(side=32))


# The feature maps of the public code for CIFAR-100, by the sizes and channels of its stages.
def test_stages_in_order_are_the_maps_of_public_code_for_small_images() -> None:
    at = two_families()
    pairs = at.resolve_pairs("stage_order")
    assert pairs == (("stage1", "stage1"), ("stage2", "stage2"), ("stage3", "stage3"))
    sides = [shape[1:] for shape in at.student_shapes([tap for tap, _ in pairs]).values()]
    assert sides == [(240, 16, 16), (480, 8, 8), (960, 4, 4)]
    assert at.resolve_pairs("stages") == (("stage1", "stage2"), ("stage2", "stage3"))
    # The sum of the last block, before the BatchNorm and ReLU that `last` lies behind.
    assert at.resolve_pairs("last_stage") == (("stage3", "stage3"),)
    taps = hear(at.teacher, ("stage3", "last"), at.example).taps
    assert taps["stage3"].min() < 0 <= taps["last"].min()


@pytest.mark.parametrize("name", ["at", "nst", "vid", "ofd", "ab", "reviewkd", "sp"])
def test_published_methods_pair_the_stages_of_two_families_as_their_code(name: str) -> None:
    recipe = load.load(f"cifar100/methods/{name}", ["data.path=data"])
    at = two_families()
    taps = make_method(list(recipe.method), at).student_taps
    stages = [tap for tap in taps if tap.startswith("stage")]
    numbers = [3] if name == "sp" else [1, 2, 3]
    assert [int(stage[5]) for stage in stages] == numbers


def test_a_network_without_levels_is_named() -> None:
    text = "the teacher SmallResNet declares none; declare them .*, or name the taps under method.p"
    with pytest.raises(UserError, match=text):
        setting(Pyramid(), "small").resolve_pairs("levels")
    with pytest.raises(UserError, match="the student SmallResNet declares none"):
        setting("small", Pyramid()).resolve_pairs("levels")


def test_levels_of_different_names_do_not_match() -> None:
    at = setting(Pyramid(4, ("p3", "p4")), Pyramid(8, ("p5", "p6")))
    with pytest.raises(UserError, match="the levels p3, p4 and the teacher p5, p6, none of them"):
        at.resolve_pairs("levels")


def test_stages_of_a_network_that_is_not_understood_are_refused_with_the_reason() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = zoo.create("stillhouse/tiny", 5)

        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            scores = self.model(image)
            return {"scores": scores, "boxes": scores}

    with pytest.raises(UserError, match="Two returns 2 tensors, so 'stage1' would be a guess"):
        setting("small", Two()).resolve_pairs("stages")


@pytest.mark.parametrize("make", [presets.cwd, presets.mimic, methods.at, methods.mgd, methods.nst])
def test_every_kind_of_feature_method_takes_levels(make) -> None:
    torch.manual_seed(0)
    at = setting(Pyramid(4), Pyramid(8))
    method = make_method([make(pairs="levels")], at)
    assert method.student_taps == method.teacher_taps == ("p3", "p4")
    student, teacher = (
        hear(network, method.student_taps, images()) for network in (at.student, at.teacher)
    )
    terms = method(Lesson(student, teacher, {}, CLOCK))
    assert {name.partition("/")[0] for name in terms} == {"p3", "p4"}
    loss(terms).backward()
    assert at.student.layer1[0].weight.grad is not None


@pytest.mark.parametrize("spec", [type(presets.cwd()), type(methods.at()), type(methods.rkd())])
def test_a_recipe_may_say_so(spec: type) -> None:
    read = TypeAdapter(spec).validate_python
    assert read({"pairs": "levels"}).pairs == "levels"
    assert read({"pairs": "stages"}).pairs == "stages"
    assert read({"pairs": [["p3", "p4"]]}).pairs == (("p3", "p4"),)
    with pytest.raises(ValidationError):
        read({"pairs": "everything"})
    with pytest.raises(ValidationError):
        read({"pairs": []})
