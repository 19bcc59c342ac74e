"""The published sizes of detectors: all parameters, frozen ones and those of norms included."""

from __future__ import annotations

import pytest
import torch

from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.detectors.detector import Detector

BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")
COUNTS = {
    "retinanet": (21_410_100, 31_518_260, 37_968_692, 56_960_820),
    "fcos": (19_275_674, 29_383_834, 32_295_322, 51_287_450),
    "atss": (19_275_674, 29_383_834, 32_295_322, 51_287_450),
    "gfocal": (19_420_889, 29_529_049, 32_440_537, 51_432_665),
    "reppoints": (20_290_486, 30_398_646, 36_849_078, 55_841_206),
}
FROZEN = (157_504, 231_488, 225_344, 225_344)  # stem and first stage
HEADS = {
    "retinanet": 6_463_220,
    "fcos": 4_918_618,
    "atss": 4_918_618,
    "gfocal": 5_063_833,
    "reppoints": 5_341_558,
}


def count(module: torch.nn.Module, trained: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


def made(family: str, backbone: str) -> Detector:
    network = zoo.create(f"detector/{family}", 80, backbone=backbone)
    assert isinstance(network, Detector)
    return network


@pytest.mark.parametrize("family", COUNTS)
@pytest.mark.usefixtures("unfilled")
def test_parameters_equal_the_published_detectors(family: str) -> None:
    for backbone, expected, frozen in zip(BACKBONES, COUNTS[family], FROZEN, strict=True):
        network = made(family, f"timm/{backbone}")
        assert count(network) == expected, backbone
        assert expected - count(network, trained=True) == frozen, backbone
        assert count(network.head) == HEADS[family]


@pytest.mark.usefixtures("unfilled")
def test_parts_of_a_detector_have_the_published_sizes() -> None:
    small, large = made("retinanet", "torchvision/resnet18"), made("fcos", "torchvision/resnet50")
    assert count(small.backbone) == 11_176_512 and count(large.backbone) == 23_508_032
    assert count(small.neck) == 3_770_368 and count(large.neck) == 3_868_672


TWO_STAGES = {  # the cascade without its mask heads, 3 * 2,643,280 parameters
    "faster_rcnn": (28_684_256, 38_792_416, 41_753_056, 60_745_184),
    "cascade_rcnn": (56_325_966, 66_434_126, 69_394_766, 88_386_894),
}


@pytest.mark.parametrize("family", TWO_STAGES)
@pytest.mark.usefixtures("unfilled")
def test_parameters_equal_the_published_detectors_of_two_stages(family: str) -> None:
    for backbone, expected in zip(BACKBONES, TWO_STAGES[family], strict=True):
        network = zoo.create(f"detector/{family}", 80, backbone=f"timm/{backbone}")
        assert count(network) == expected, backbone
        assert count(network.get_submodule("rpn")) == 593_935
    if family == "faster_rcnn":
        assert count(network.get_submodule("heads")) == 14_306_705


@pytest.mark.usefixtures("unfilled")
def test_the_largest_backbone() -> None:
    assert count(made("retinanet", "timm/resnext101_64x4d")) == 95_866_932


def test_class_scores_start_at_the_prior() -> None:
    for family in COUNTS:
        network = zoo.create(f"detector/{family}", 7, backbone="stillhouse/small", strides=(4, 8))
        with torch.no_grad():
            out = network.eval()(torch.zeros(1, 3, 64, 64))
        assert out.scores.sigmoid().mean() == pytest.approx(0.01, rel=0.05), family


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"bakbone": "timm/resnet18"}, "has no option 'bakbone'; did you mean 'backbone'"),
        ({"neck": {"widht": 3}}, "unexpected keyword argument 'widht'"),
        ({"head": {"dept": 3}}, "unexpected keyword argument 'dept'"),
        ({"backbone": "timm/resnet1"}, "timm has no network 'resnet1'"),
        ({"strides": (2, 64)}, "has no stage of stride"),
    ],
)
def test_a_wrong_option_is_one_sentence(options: dict[str, object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        zoo.create(
            "detector/fcos", 3, **{"backbone": "stillhouse/small", "strides": (4, 8), **options}
        )
