"""What the doctor says of a method's places."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyramids import Pyramid
from stillhouse import methods
from stillhouse.methods.build import make_method
from stillhouse.methods.setting import Setting
from stillhouse.models import zoo
from stillhouse.objectives import presets
from stillhouse.runs.tap_plan import describe_places, plan_of, suggestions

EXAMPLE = torch.zeros(2, 3, 64, 64)


def setting(teacher: str = "torchvision/resnet18") -> Setting:
    return Setting(zoo.create("cifar/resnet8", 10), zoo.create(teacher, 10), EXAMPLE)


def lines(*specs: object) -> list[str]:
    at = setting()
    return plan_of(make_method(specs, at), at.student, at.teacher, EXAMPLE)


def test_a_line_has_names_paths_shapes_and_the_adapter() -> None:
    assert lines(presets.mimic(pairs=(("stage3", "stage2"),))) == [
        "stage3 (64x16x16) -> stage2 = layer2 (128x8x8) through Conv2d of 8,192 parameters"
    ]


def test_every_method_of_a_list_is_there() -> None:
    found = lines(presets.kd(), methods.rkd(), methods.at(pairs=(("stage1", "layer1"),)))
    assert found == [
        "penultimate = pool (64) -> penultimate = fc@input (512)",
        "stage1 (16x64x64) -> layer1 (64x16x16)",
    ]


def test_taps_before_an_activation_say_where_that_is() -> None:
    (line,) = lines(presets.mimic(pairs=(("stage3@pre", "stage4@pre"),)))
    assert "stage3@pre = stage3.0." in line and "stage4@pre = layer4.1.relu@input" in line


def test_pairs_are_suggested_by_size() -> None:
    assert suggestions(setting("cifar/resnet14")) == (
        "pairs by size: [[stage1, stage1], [stage2, stage2], [stage3, stage3]]"
    )
    assert suggestions(setting()).startswith("pairs by size: [[stage3, stage1]")


def test_levels_are_listed_and_suggested_where_networks_declare_them() -> None:
    at = Setting(Pyramid(4), Pyramid(8), EXAMPLE)
    assert describe_places(at.student, EXAMPLE) == (
        "stage1 = layer1, stage2 = layer2, last = layer2, p3 = neck.p3, p4 = neck.p4, "
        "stage1@pre = layer1.1@input, stage2@pre = layer2.1@input, last@pre = layer2.1@input"
    )
    assert suggestions(at) == (
        "pairs by size: [[stage1, stage1], [stage2, stage2]]; pairs by level: [[p3, p3], [p4, p4]]"
    )
    method = make_method([presets.cwd(pairs="levels")], at)
    assert plan_of(method, at.student, at.teacher, EXAMPLE) == [
        f"{level} = neck.{level} (4x{side}x{side}) -> {level} = neck.{level} (8x{side}x{side}) "
        "through Conv2d of 32 parameters"
        for level, side in (("p3", 32), ("p4", 16))
    ]


def test_a_network_whose_places_would_be_guesses_says_why() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 4, 3)

        def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
            return self.body(image), image

    assert describe_places(Two(), EXAMPLE).startswith("Two returns 2 tensors, so 'stage1' would be")
