"""SOLOv2 as a network: its published sizes, options, cells, and masks of cells."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from cells import SIZE, small_solov2, some_images, some_instances
from stillhouse.distributed import combine
from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.aliases import find_aliases
from stillhouse.models.detectors.cell_masks import CellMasks
from stillhouse.models.detectors.solov2_head import with_coordinates
from stillhouse.types import Trace

COUNTS = {
    "resnet18": 33_524_112,
    "resnet34": 43_632_272,
    "resnet50": 46_592_912,
    "resnet101": 65_585_040,
}
ROWS = torch.tensor([[0, 3], [0, 100], [2, 5], [2, 5], [2, 80]])


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def some_output(**options: Any) -> CellMasks:
    torch.manual_seed(0)
    network = small_solov2(**options).double()
    torch.nn.init.normal_(network.head.kernel.weight, std=0.5)
    out: CellMasks = network(some_images(3))
    return out


@pytest.mark.parametrize("backbone", COUNTS)
@pytest.mark.usefixtures("unfilled")
def test_parameters_equal_the_published_network(backbone: str) -> None:
    network = zoo.create("detector/solov2", 80, backbone=f"timm/{backbone}")
    assert count(network) == COUNTS[backbone]
    assert count(network.get_submodule("head")) == 19_740_496


def test_published_grids_are_read_from_the_published_strides() -> None:
    network = zoo.create("detector/solov2", 3, backbone="timm/resnet18", head={"width": 32}).eval()
    with torch.no_grad():
        out = network(torch.zeros(1, 3, 100, 161))
    assert out.strides == (8, 8, 16, 32, 32) and out.size == (100, 161)
    assert out.grids == (40, 36, 24, 16, 12) and out.scores.shape == (1, 3872, 3)
    assert out.kernels.shape == (1, 3872, 256) and out.features.shape == (1, 256, 25, 41)
    assert out.scores.sigmoid().mean() == pytest.approx(0.01, rel=0.05)


def test_the_first_and_the_last_map_are_resized() -> None:
    torch.manual_seed(0)
    head = small_solov2(levels=None, grids=(4, 4, 4), ranges=((1, 9),) * 3).head.double()
    levels = [torch.randn(2, 16, side, side + 2).double() for side in (12, 6, 3)]
    middle = (6, 8)
    given = [F.interpolate(level, middle, mode="bilinear") for level in levels]
    scores = []
    for level in given:
        cells = F.interpolate(level, (4, 4), mode="bilinear")
        scores.append(head.score(head.class_tower(cells)).flatten(2).mT)
    torch.testing.assert_close(head(levels).scores, torch.cat(scores, 1))


def test_mask_features_are_a_sum_of_enlarged_levels() -> None:
    torch.manual_seed(0)
    branch = small_solov2().head.masks.double()
    levels = [torch.randn(1, 16, h, w).double() for h, w in ((11, 14), (6, 7), (3, 4))]
    steps = [layers for layers in branch.levels]
    assert [len(layers) for layers in steps] == [1, 1, 2]
    enlarge = [
        lambda x, size=size: F.interpolate(x, size, mode="bilinear") for size in ((11, 14), (6, 7))
    ]
    total = steps[0][0](levels[0]) + enlarge[0](steps[1][0](levels[1]))
    last = enlarge[1](steps[2][0](with_coordinates(levels[2])))
    total = total + enlarge[0](steps[2][1](last))
    torch.testing.assert_close(branch(levels), branch.last(total))


def test_coordinates_go_from_side_to_side() -> None:
    placed = with_coordinates(torch.zeros(2, 1, 3, 5))
    assert placed.shape == (2, 3, 3, 5)
    assert placed[1, 1, 2].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert placed[0, 2, :, 4].tolist() == [-1, 0, 1]


def test_kernels_read_the_coordinates_and_classes_do_not() -> None:
    torch.manual_seed(0)
    network = small_solov2(neck={"width": 16, "extra": 0}).double()
    out = network.predict([torch.ones(1, 16, s, s).double() for s in (24, 12, 6)], SIZE)
    centres = out.scores[0, :81].unflatten(0, (9, 9))[2:-2, 2:-2].flatten(0, 1)
    torch.testing.assert_close(centres, centres[:1].expand_as(centres))
    kernels = out.kernels[0, :81].unflatten(0, (9, 9))[2:-2, 2:-2].flatten(0, 1)
    assert kernels.std(0).max() > 1e-4


@pytest.mark.parametrize("size", [(48, 64), (47, 61), (33, 90)])
def test_any_size_of_image(size: tuple[int, int]) -> None:
    out = small_solov2().double()(some_images(2, size=size))
    assert out.scores.shape == (2, 117, 5) and out.kernels.shape == (2, 117, 6)
    assert out.features.shape == (2, 6, -(-size[0] // 2), -(-size[1] // 2))
    assert len(out) == 2 and out.classes == 5 and out.counts == [81, 36]
    assert out.strides == (4, 8) and out.size == size


def test_the_places_of_the_network_have_names() -> None:
    aliases = find_aliases(small_solov2(), torch.zeros(1, 3, *SIZE))
    assert aliases["p1"] == "neck.p1" and aliases["p3"] == "neck.p3"
    assert aliases["last"] == aliases["stage3"] == "backbone.body.stage3"


# ------------------------------------------------------------------------------- masks of cells


@pytest.mark.parametrize("side", [1, 3])
def test_masks_are_convolutions_with_the_kernels_of_cells(side: int) -> None:
    head = {"width": 16, "depth": 1, "mask_width": 8, "mask_channels": 6, "kernel": side}
    out = some_output(head=head)
    assert out.kernels.shape[2] == 6 * side**2
    found = out.mask_logits(ROWS).detach()
    assert found.shape == (5, 24, 32)
    padded = F.pad(out.features, [side // 2] * 4)
    for (image, cell), logits in zip(ROWS.tolist(), found, strict=True):
        kernel = out.kernels[image, cell].view(6, side, side)
        for y, x in ((0, 0), (5, 17), (23, 31)):
            window = padded[image, :, y : y + side, x : x + side]
            assert float(logits[y, x]) == pytest.approx(
                float((window * kernel).sum().detach()), rel=1e-9
            )


def test_masks_have_gradients_of_kernels_and_features() -> None:
    out = some_output()
    inputs = tuple(part.detach().requires_grad_() for part in (out.kernels, out.features))

    def square(kernels: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        made = replace(out, kernels=kernels, features=features[:, :, :3, :2])
        return made.mask_logits(ROWS[:2]).square().sum()

    assert torch.autograd.gradcheck(square, inputs, fast_mode=True)


def test_masks_of_no_cells_and_of_no_images() -> None:
    out = some_output()
    assert out.mask_logits(ROWS[:0]).shape == (0, 24, 32)
    none = replace(out, scores=out.scores[:0], kernels=out.kernels[:0], features=out.features[:0])
    assert len(none) == 0 and none.mask_logits(ROWS[:0]).shape == (0, 24, 32)
    assert none.class_logits().shape == (0, 5)


def test_classes_can_be_chosen() -> None:
    out = some_output()
    chosen = out.select(torch.tensor([3, 0]))
    assert chosen.classes == 2
    torch.testing.assert_close(chosen.scores, out.scores[..., [3, 0]])
    torch.testing.assert_close(chosen.class_logits(), out.scores.amax(1)[:, [3, 0]])
    assert chosen.kernels is out.kernels


def test_outputs_can_be_detached() -> None:
    out = Trace(some_output()).detached().out
    assert isinstance(out, CellMasks) and out.grids == (9, 6)
    assert not any(part.requires_grad for part in (out.scores, out.kernels, out.features))


def test_what_differs_between_two_networks_is_said() -> None:
    out = some_output()
    assert out.differences(some_output(head={"width": 8})) == []
    assert out.differences(replace(out, grids=(9, 6, 3))) == ["2 grids and 3"]
    other = replace(out, grids=(9, 8), features=out.features[..., ::2, ::2])
    assert out.differences(other) == [
        "grid 1: 6 x 6 cells and 8 x 8",
        "masks of 24 x 32 and 12 x 16 pixels",
    ]


# ------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"grids": (12, 8)}, "has 2 grids and 1 ranges of object sizes; give `grids` and `ranges`"),
        ({"grids": (0,)}, "`grids` of detector/solov2 must be positive"),
        ({"grids": (), "ranges": ()}, "`grids` of detector/solov2 must be positive"),
        (
            {"grids": (9, 9), "ranges": ((1, 9),) * 2, "levels": None},
            "has 2 grids for the levels p1, p2, p3; give `grids` one for each",
        ),
        ({"levels": ("p4",)}, "has no level 'p4', only p1, p2, p3; set `levels` to some of them"),
        ({"head": {"mask_width": 0}}, "`mask_width` of the head must be positive, got 0"),
        ({"head": {"kernel": 2}}, "`kernel` of the head must be positive and odd, got 2"),
        ({"head": {"widht": 3}}, "unexpected keyword argument 'widht'"),
        ({"grid": (3,)}, "has no option 'grid'; did you mean 'grids'"),
    ],
)
def test_a_wrong_option_is_one_sentence(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        small_solov2(**{"levels": ("p2",), "grids": (9,), "ranges": ((1, 96),), **options})


def test_options_of_a_file_are_lists() -> None:
    network = small_solov2(levels=["p2", "p3"], grids=[9, 6], ranges=[[1, 24], [16, 96]])
    family: Any = network.family
    assert family.grids == (9, 6) and family.ranges == ((1, 24), (16, 96))
    assert family.levels == ("p2", "p3")


# ------------------------------------------------------------------------------- gradients of all


@pytest.mark.parametrize("counts", [(2, 0, 3), (0, 0, 0)])
def test_all_parameters_have_finite_gradients(counts: tuple[int, ...]) -> None:
    network = small_solov2().double()
    out = network(some_images(3))
    objects = some_instances(*counts)
    combine(out.terms(out.assign(objects))).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    touched = bool(network.head.kernel.weight.grad.abs().sum() > 0)
    assert touched == (sum(counts) > 0)
