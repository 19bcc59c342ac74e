"""Whole networks for semantic segmentation by name."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from stillhouse.errors import UserError
from stillhouse.models import weights, zoo
from stillhouse.models.segmenters.output import Segmentation
from stillhouse.models.segmenters.segmenter import Segmenter

FAMILIES = ("deeplabv3", "pspnet", "fpn")
DEEP_STEM = {"stem_type": "deep", "stem_width": 64}
COUNTS = {  # 19 classes, with auxiliary head
    ("deeplabv3", "timm/resnet18"): 13_607_974,
    ("deeplabv3", "timm/resnet101s"): 61_118_950,
    ("pspnet", "timm/resnet18"): 12_919_334,
    ("pspnet", "timm/resnet101s"): 68_072_166,
}
AUXILIARY = {"timm/resnet18": 148_819, "timm/resnet101s": 2_364_691}


def small(family: str, size: str = "small", classes: int = 5, **options: Any) -> Segmenter:
    torch.manual_seed(0)
    made = zoo.create(f"segmenter/{family}", classes, backbone=f"stillhouse/{size}", **options)
    assert isinstance(made, Segmenter)
    return made


def count(module: nn.Module | None) -> int:
    assert module is not None
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("family", "backbone"), COUNTS)
@pytest.mark.usefixtures("unfilled")
def test_parameters_equal_the_published_networks(family: str, backbone: str) -> None:
    options = {"backbone_options": DEEP_STEM} if backbone == "timm/resnet18" else {}
    network = zoo.create(f"segmenter/{family}", 19, backbone=backbone, **options)
    assert isinstance(network, Segmenter)
    assert count(network) == COUNTS[family, backbone]
    assert count(network.auxiliary) == AUXILIARY[backbone]


def test_small_networks_for_small_images() -> None:
    student, teacher = count(small("fpn", "small")), count(small("fpn", "large"))
    assert 30_000 < student < 60_000 and 400_000 < teacher < 600_000


SHAPES: list[tuple[str, dict[str, Any], int]] = [
    ("deeplabv3", {}, 8),
    ("deeplabv3", {"output_stride": 4, "rates": [2, 4]}, 4),
    ("pspnet", {"output_stride": 2, "auxiliary": 6}, 2),
    ("fpn", {}, 2),
    ("fpn", {"strides": [4, 8]}, 4),
]


@pytest.mark.parametrize(("family", "options", "stride"), SHAPES)
@pytest.mark.parametrize("size", [(48, 48), (45, 61), (33, 17)])
def test_maps_are_as_large_as_the_image_over_the_stride(
    family: str, options: dict[str, Any], stride: int, size: tuple[int, int]
) -> None:
    network = small(family, **options).double().eval()
    images = torch.randn(2, 3, *size, dtype=torch.double)
    out, again = network(images), network(images)
    expected = (2, 5, *(math.ceil(side / stride) for side in size))
    assert isinstance(out, Segmentation) and out.logits.shape == expected
    assert out.logits.dtype == torch.double and torch.equal(out.logits, again.logits)
    assert (out.auxiliary is None) == (family == "fpn")
    if out.auxiliary is not None:
        assert out.auxiliary.shape[2:] == expected[2:] or stride == 8
    torch.testing.assert_close(network(images[:1]).logits, out.logits[:1])


def test_a_large_image_of_an_odd_size() -> None:
    network = zoo.create("segmenter/pspnet", 4, backbone="timm/resnet18", width=8).eval()
    with torch.no_grad():
        out = network(torch.zeros(1, 3, 257, 513))
    assert out.logits.shape == (1, 4, 33, 65) and out.auxiliary.shape == (1, 4, 33, 65)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("images", [1, 2])
def test_gradients_reach_all_parameters(family: str, images: int) -> None:
    network = small(family).train()
    out = network(torch.randn(images, 3, 45, 61))
    maps = [one for one in (out.logits, out.auxiliary) if one is not None]
    sum(one.square().sum() for one in maps).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    assert network.classifier.weight.grad is not None and network.classifier.weight.grad.any()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_rank_without_images_has_finite_gradients(family: str) -> None:
    network = small(family).train()
    out = network(torch.zeros(0, 3, 45, 61))
    assert len(out) == 0 and out.logits.shape[1] == 5
    out.logits.sum().backward()
    for tensor in network.state_dict().values():
        assert tensor.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_classifier_reads_the_map_of_the_decoder_after_dropout(family: str) -> None:
    network = small(family, dropout=0.5).double().train()
    images = torch.randn(4, 3, 45, 61, dtype=torch.double)
    kept: list[torch.Tensor] = []
    network.classifier.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    out = network(images)
    (last,) = kept
    assert torch.equal(network.classifier(last), out.logits)
    assert (last == 0).double().mean() > 0.4 and (last >= 0).all()


def test_an_auxiliary_head_may_be_left_out() -> None:
    network = small("deeplabv3", auxiliary=False).eval()
    with_head = small("deeplabv3").eval()
    assert network(torch.zeros(1, 3, 48, 48)).auxiliary is None
    assert count(with_head) - count(network) == count(with_head.auxiliary)
    wide = small("pspnet", auxiliary=7).auxiliary
    assert wide is not None and count(wide) == 16 * 7 * 9 + 2 * 7 + 5 * 8


def test_weights_of_a_classifier_are_for_the_backbone(tmp_path: Path) -> None:
    classifier = zoo.create("stillhouse/small", 3)
    weights.save_weights(classifier, tmp_path / "classifier.safetensors")
    for family in FAMILIES:
        network = small(family)
        weights.load_pretrained(network, tmp_path / "classifier.safetensors")
        body = network.backbone.body.state_dict()
        expected = {n: part for n, part in classifier.state_dict().items() if n in body}
        assert len(body) == len(expected) > 20
        assert all(torch.equal(part, body[name]) for name, part in expected.items())
        assert not any("pretrained_part" in name for name in network.state_dict())


def test_what_is_frozen_is_said() -> None:
    assert small("fpn").frozen_parts == "" and small("pspnet").frozen_parts == ""
    network = small("pspnet", frozen=1, frozen_norms=True)
    words = "the stem and the first 1 stages and the statistics of batch norms"
    assert network.frozen_parts == words
    assert not next(network.backbone.parameters()).requires_grad


@pytest.mark.parametrize(
    ("family", "options", "text"),
    [
        ("deeplabv3", {"widht": 3}, "segmenter/deeplabv3 has no option 'widht'; did you mean 'wid"),
        ("deeplabv3", {"strides": (4,)}, "segmenter/deeplabv3 has no option 'strides'; did you"),
        ("fpn", {"output_stride": 4}, "segmenter/fpn has no option 'output_stride'"),
        ("fpn", {"auxiliary": True}, "segmenter/fpn has no option 'auxiliary'"),
        ("fpn", {"strides": (64,)}, "has no stage of stride 64, only 2, 4, 8; set strides"),
        ("fpn", {"neck": {"widht": 3}}, "unexpected keyword argument 'widht'"),
        ("pspnet", {"dropout": 1}, r"`dropout` must be in \[0, 1\), got 1"),
        ("pspnet", {"auxiliary": 0}, "`auxiliary` must be positive integers, got 0"),
        ("pspnet", {"output_stride": 16}, "output_stride must be one of 2, 4, 8"),
        (
            "pspnet",
            {"backbone": "timm/resnet18", "backbone_options": {"output_stride": 8}},
            "segmenter/pspnet: set output_stride, not backbone_options.output_stride",
        ),
        (
            "pspnet",
            {"backbone": "timm/vit_tiny_patch16_224", "backbone_options": {"img_size": 64}},
            "VisionTransformer has no stages with maps, which a segmenter needs",
        ),
        ("deeplab", {}, "segmenter has no network 'deeplab'; did you mean 'deeplabv3'"),
    ],
)
def test_a_wrong_option_is_one_sentence(family: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        zoo.create(f"segmenter/{family}", 3, **{"backbone": "stillhouse/small", **options})


def test_names_of_segmenters() -> None:
    assert zoo.is_segmenter("segmenter/fpn") and zoo.is_segmenter("torchvision/fcn_resnet50")
    assert not zoo.is_segmenter("torchvision/resnet50") and not zoo.is_detector("segmenter/fpn")
    assert zoo.list_models("segmenter/") == [f"segmenter/{name}" for name in sorted(FAMILIES)]
