"""Grids of priors, box coders, the feature pyramid and the backbone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectors import FAMILIES, SIZE, small_detector
from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.aliases import find_aliases
from stillhouse.models.backbones import Backbone
from stillhouse.models.detectors.coding import (
    centreness,
    decode_deltas,
    decode_distances,
    encode_deltas,
    encode_distances,
    expected_bins,
)
from stillhouse.models.detectors.priors import AnchorGrid, PointGrid, make_priors
from stillhouse.models.fpn import FPN
from stillhouse.models.taps import Tapped, tap_shapes

LIKE = torch.zeros(1, dtype=torch.double)


def boxes(count: int, low: float = 1.0, high: float = 60.0) -> Tensor:
    corner = 100 * torch.rand(count, 2, dtype=torch.double)
    sides = low + (high - low) * torch.rand(count, 2, dtype=torch.double)
    return torch.cat([corner, corner + sides], 1)


# ------------------------------------------------------------------------------------------ priors


def test_anchors_are_those_of_a_plain_loop() -> None:
    scales, ratios = (4.0, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3)), (0.5, 1.0, 2.0)
    sizes, strides = [(3, 4), (2, 2)], (8, 16)
    priors = make_priors(AnchorGrid(scales, ratios), sizes, strides, LIKE)
    expected = [
        [x * s - w / 2, y * s - h / 2, x * s + w / 2, y * s + h / 2]
        for (rows, columns), s in zip(sizes, strides, strict=True)
        for y in range(rows)
        for x in range(columns)
        for ratio in ratios
        for scale in scales
        for w, h in [(s * scale / math.sqrt(ratio), s * scale * math.sqrt(ratio))]
    ]
    torch.testing.assert_close(
        priors.boxes, torch.tensor(expected, dtype=torch.double), atol=1e-4, rtol=0
    )
    assert priors.counts == [108, 36] and priors.each == 9 and len(priors) == 144
    assert priors.stride.tolist() == [8.0] * 108 + [16.0] * 36


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_points_lie_where_their_family_says(offset: float) -> None:
    priors = make_priors(PointGrid(offset), [(2, 3)], (8,), LIKE)
    expected = [[(x + offset) * 8, (y + offset) * 8] for y in range(2) for x in range(3)]
    assert priors.centres.tolist() == expected
    assert (priors.boxes[:, 2:] - priors.boxes[:, :2] == 8).all()


def test_each_family_has_its_points() -> None:
    first = {
        name: small_detector(name)(torch.zeros(1, 3, *SIZE)).priors.centres[0].tolist()
        for name in FAMILIES
    }
    assert first.pop("fcos") == [2.0, 2.0]
    assert set(map(tuple, first.values())) == {(0.0, 0.0)}


def test_what_differs_between_two_grids_is_said_by_level() -> None:
    one = make_priors(PointGrid(), [(4, 4), (2, 2)], (8, 16), LIKE)
    other = make_priors(AnchorGrid((4.0, 8.0)), [(4, 4), (3, 2)], (8, 16), LIKE)
    assert one.differences(one) == []
    assert one.differences(other) == [
        "level 0: priors per cell 1 and 2",
        "level 1: cells (2, 2) and (3, 2)",
        "level 1: priors per cell 1 and 2",
    ]
    short = make_priors(PointGrid(), [(4, 4)], (8,), LIKE)
    assert one.differences(short) == ["2 levels and 1"]


# ------------------------------------------------------------------------------------------ coders


@pytest.mark.parametrize("deviations", [(1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)])
def test_deltas_are_the_formula_and_decoding_inverts_them(deviations: Any) -> None:
    target, anchors = boxes(50), boxes(50, 2.0, 80.0)
    deltas = encode_deltas(target, anchors, deviations)
    for (x1, y1, x2, y2), (a1, b1, a2, b2), found in zip(
        target.tolist(), anchors.tolist(), deltas.tolist(), strict=True
    ):
        w, h = a2 - a1, b2 - b1
        expected = [
            ((x1 + x2) - (a1 + a2)) / 2 / w / deviations[0],
            ((y1 + y2) - (b1 + b2)) / 2 / h / deviations[1],
            math.log((x2 - x1) / w) / deviations[2],
            math.log((y2 - y1) / h) / deviations[3],
        ]
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)
    torch.testing.assert_close(decode_deltas(deltas, anchors, deviations), target)
    torch.testing.assert_close(
        encode_deltas(decode_deltas(deltas, anchors, deviations), anchors, deviations), deltas
    )


def test_huge_deltas_stay_finite() -> None:
    found = decode_deltas(torch.full((1, 4), 1e4), torch.tensor([[0.0, 0.0, 10.0, 10.0]]))
    assert found.isfinite().all() and (found[:, 2:] - found[:, :2]).allclose(torch.tensor(625.0))


def test_distances_are_the_formula_and_decoding_inverts_them() -> None:
    target, points = boxes(20), 100 * torch.rand(20, 2, dtype=torch.double)
    distances = encode_distances(target, points)
    x, y = points.unbind(1)
    expected = torch.stack(
        [x - target[:, 0], y - target[:, 1], target[:, 2] - x, target[:, 3] - y], 1
    )
    assert torch.equal(distances, expected)
    torch.testing.assert_close(decode_distances(distances, points), target)


def test_the_mean_of_bins_is_a_weighted_sum() -> None:
    bins = torch.randn(3, 4 * 17, dtype=torch.double)
    found = expected_bins(bins, 16)
    for row, means in zip(bins.tolist(), found.tolist(), strict=True):
        for side in range(4):
            logits = row[17 * side : 17 * side + 17]
            total = sum(math.exp(z) for z in logits)
            mean = sum(k * math.exp(z) / total for k, z in enumerate(logits))
            assert means[side] == pytest.approx(mean, rel=1e-12)


def test_centreness_of_a_point() -> None:
    distances = torch.tensor([[2.0, 3.0, 2.0, 3.0], [1.0, 2.0, 4.0, 8.0], [-1.0, 2.0, 3.0, 2.0]])
    assert centreness(distances).tolist() == pytest.approx([1.0, 0.25, 0.0])


# ------------------------------------------------------------------------------- pyramid, backbone


def test_levels_are_sums_of_the_maps_above() -> None:
    neck = FPN((3, 5), (8, 16), 4, extra=2, extra_from="c5", relu=True).double()
    maps = [torch.randn(2, 3, 6, 8).double(), torch.randn(2, 5, 3, 4).double()]
    found = neck(maps)
    deep = neck.lateral[1](maps[1])
    shallow = neck.lateral[0](maps[0]) + deep.repeat_interleave(2, 2).repeat_interleave(2, 3)
    p5 = neck.get_submodule("p5")(maps[1])
    expected = [
        neck.get_submodule("p3")(shallow),
        neck.get_submodule("p4")(deep),
        p5,
        neck.get_submodule("p6")(p5.relu()),
    ]
    assert neck.names == ("p3", "p4", "p5", "p6") and neck.strides == (8, 16, 32, 64)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_extra_levels_come_from_the_last_level_without_a_relu_by_default() -> None:
    neck = FPN((3,), (8,), 4, extra=2)
    (p3, p4, p5) = neck([torch.randn(1, 3, 8, 8)])
    torch.testing.assert_close(p4, neck.get_submodule("p4")(p3))
    torch.testing.assert_close(p5, neck.get_submodule("p5")(p4))


BACKBONES = {
    "timm/resnet18": (128, 256, 512),
    "torchvision/resnet50": (512, 1024, 2048),
    "timm/mobilenetv2_100": (32, 96, 320),
    "torchvision/mobilenet_v2": (32, 96, 1280),
    "torchvision/swin_t": (192, 384, 768),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_any_network_of_the_zoo_gives_maps_by_stride(name: str) -> None:
    backbone = Backbone(zoo.create(name, 3)).eval()
    assert backbone.widths == BACKBONES[name]
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 64, 96))
    shapes = [tuple(m.shape) for m in maps]
    assert shapes == [
        (1, width, 64 // s, 96 // s) for width, s in zip(BACKBONES[name], (8, 16, 32), strict=True)
    ]


def test_a_map_with_channels_last_is_turned() -> None:
    network = zoo.create("torchvision/swin_t", 3).eval()
    image = torch.randn(1, 3, 64, 96)
    expected = Tapped(network, ["features.3"])(image).taps["features.3"].permute(0, 3, 1, 2)
    torch.testing.assert_close(Backbone(network).eval()(image)[0], expected)


def test_layers_behind_the_last_map_are_dropped() -> None:
    backbone = Backbone(zoo.create("timm/resnet18", 1000), (4, 8))
    names = {name.split(".")[1] for name, _ in backbone.named_parameters()}
    assert names == {"conv1", "bn1", "layer1", "layer2"}


def test_a_stride_that_the_network_does_not_have_is_refused() -> None:
    with pytest.raises(UserError, match="has no stage of stride 64, only 2, 4, 8; set strides"):
        Backbone(zoo.create("stillhouse/small", 3), (64,))


def test_what_is_frozen_stays_frozen_in_training() -> None:
    backbone = Backbone(zoo.create("timm/resnet18", 3), frozen=1, frozen_norms=True)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    backbone.train()
    backbone(torch.randn(2, 3, 64, 64))[-1].sum().backward()
    for name, value in backbone.named_buffers():
        assert torch.equal(value, before[name]), name
    fixed = [n for n, p in backbone.named_parameters() if not p.requires_grad]
    assert {n.split(".")[1] for n in fixed} == {"conv1", "bn1", "layer1"}
    assert all(p.grad is not None for p in backbone.parameters() if p.requires_grad)
    assert not any(m.training for m in backbone.modules() if isinstance(m, nn.BatchNorm2d))


def test_norms_learn_where_nothing_is_frozen() -> None:
    backbone = Backbone(zoo.create("stillhouse/small", 3), (4, 8))
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone.train()(torch.randn(2, 3, 64, 64))
    means = [n for n, _ in backbone.named_buffers() if n.endswith("running_mean")]
    assert means and all(
        not torch.equal(dict(backbone.named_buffers())[n], before[n]) for n in means
    )


@pytest.mark.parametrize("count", [-1, 4, 9])
def test_a_wrong_number_of_frozen_stages_is_refused(count: int) -> None:
    with pytest.raises(UserError, match="`frozen` must be from 0 to 3 stages"):
        Backbone(zoo.create("timm/resnet18", 3), frozen=count)


def test_levels_and_stages_are_taps() -> None:
    detector, image = small_detector("gfocal"), torch.randn(1, 3, *SIZE)
    aliases = find_aliases(detector, image)
    assert aliases["p3"] == "neck.p3" and aliases["stage2"] == "backbone.body.stage2"
    shapes = tap_shapes(detector, ["p2", "neck.p4", "p3", "stage3"], image)
    assert shapes["p2"] == (1, 16, 12, 16) and shapes["neck.p4"] == (1, 16, 3, 4)
    assert shapes["stage3"] == (1, 32, 6, 8)
    # the convolution before a norm is a tap of its own
    with_norm = small_detector("reppoints")
    assert tap_shapes(with_norm, ["neck.p2.conv"], image)["neck.p2.conv"] == (1, 16, 12, 16)


def test_boxes_that_were_decoded_without_a_gradient_are_decoded_again() -> None:
    out = small_detector("gfocal")(torch.zeros(1, 3, *SIZE))
    with torch.no_grad():
        plain = out.decoded
        assert out.decoded is plain and not plain.requires_grad
    assert out.decoded.requires_grad and out.decoded is out.decoded
    torch.testing.assert_close(out.decoded.detach(), plain)
