"""Areas and overlaps of boxes against plain loops, invariances, gradients and empty boxes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torchvision import ops

from stillhouse.functional.boxes import (
    EPS,
    box_area,
    centre,
    clip_boxes,
    diou,
    giou,
    intersection,
    iou,
    pairwise_iou,
    pairwise_overlap,
)

Box = list[float]
Overlap = Callable[[Tensor, Tensor], Tensor]
OVERLAPS = {"iou": iou, "giou": giou, "diou": diou}
every = pytest.mark.parametrize("name", OVERLAPS)


def random_boxes(*shape: int, dtype: torch.dtype = torch.double) -> Tensor:
    """Boxes of sides 1 to 31 in an image of 60 x 60, of which most overlap."""
    corner, side = 30 * torch.rand(*shape, 2), 1 + 30 * torch.rand(*shape, 2)
    return torch.cat([corner, corner + side], -1).to(dtype)


def area(box: Box) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def shared(a: Box, b: Box) -> float:
    return area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])


def plain(name: str, a: Box, b: Box) -> float:
    union = area(a) + area(b) - shared(a, b)
    value = shared(a, b) / union
    x1, y1, x2, y2 = min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])
    if name == "giou":
        value -= ((x2 - x1) * (y2 - y1) - union) / ((x2 - x1) * (y2 - y1))
    elif name == "diou":
        x = (a[0] + a[2] - b[0] - b[2]) / 2
        y = (a[1] + a[3] - b[1] - b[3]) / 2
        value -= (x**2 + y**2) / ((x2 - x1) ** 2 + (y2 - y1) ** 2)
    return value


# ------------------------------------------------------------------------------------------- values


@every
def test_overlaps_are_those_of_plain_loops(name: str) -> None:
    one, other = random_boxes(40), random_boxes(40)
    expected = [plain(name, a, b) for a, b in zip(one.tolist(), other.tolist(), strict=True)]
    torch.testing.assert_close(
        OVERLAPS[name](one, other).tolist(), expected, rtol=1e-12, atol=1e-12
    )


def test_pairs_are_those_of_plain_loops() -> None:
    one, other = random_boxes(7), random_boxes(5)
    for i, a in enumerate(one.tolist()):
        for j, b in enumerate(other.tolist()):
            assert pairwise_iou(one, other)[i, j].item() == pytest.approx(plain("iou", a, b))
            assert pairwise_overlap(one, other)[i, j].item() == pytest.approx(
                shared(a, b) / area(a)
            )


@every
def test_overlaps_equal_those_of_torchvision(name: str) -> None:
    theirs = {
        "iou": ops.box_iou,
        "giou": ops.generalized_box_iou,
        "diou": ops.distance_box_iou,
    }[name]
    one, other = random_boxes(9), random_boxes(6)
    ours = OVERLAPS[name](one[:, None], other)
    torch.testing.assert_close(ours, theirs(one, other), rtol=0, atol=1e-7)


def test_hand_made_values() -> None:
    one, other = torch.tensor([0.0, 0, 4, 2]), torch.tensor([2.0, 0, 8, 2])
    assert intersection(one, other).item() == 4
    assert iou(one, other).item() == pytest.approx(4 / 16)
    assert giou(one, other).item() == pytest.approx(4 / 16)  # the union fills the enclosing box
    assert diou(one, other).item() == pytest.approx(4 / 16 - 9 / 68)
    far = torch.tensor([4.0, 2, 8, 4])
    assert giou(one, far).item() == pytest.approx(-16 / 32)
    assert box_area(other).item() == 12
    assert centre(other).tolist() == [5, 1]


def test_pairs_are_batched_and_elements_broadcast() -> None:
    one, other = random_boxes(3, 4), random_boxes(3, 6)
    pairs = pairwise_iou(one, other)
    assert pairs.shape == (3, 4, 6)
    assert torch.equal(pairs[2], pairwise_iou(one[2], other[2]))
    assert torch.equal(pairs[:, 1], iou(one[:, 1, None], other))  # (3, 1, 4) and (3, 6, 4)
    assert pairwise_iou(one[0, :0], other[0]).shape == (0, 6)
    assert pairwise_overlap(one[0], other[0, :0]).shape == (4, 0)


def test_clipped_boxes_lie_inside_and_those_inside_stay() -> None:
    boxes = torch.tensor([[-3.0, 2, 5, 9], [1, 1, 2, 2], [12, 4, 15, 5], [-9, -9, -1, -1]])
    expected = [[0, 2, 5, 6], [1, 1, 2, 2], [8, 4, 8, 5], [0, 0, 0, 0]]
    assert clip_boxes(boxes, 6, 8).tolist() == expected
    sizes = torch.tensor([[6, 8], [1, 1], [20, 20], [5, 5]])  # of one image each
    assert clip_boxes(boxes, *sizes.unbind(1)).tolist() == [
        [0, 2, 5, 6],
        [1, 1, 1, 1],
        [12, 4, 15, 5],
        [0, 0, 0, 0],
    ]


# -------------------------------------------------------------------------------------- properties


numbers = st.floats(-50, 50, width=32)


@every
@given(shift=st.tuples(numbers, numbers), scale=st.floats(0.1, 10), seed=st.integers(0, 2**16))
def test_overlaps_do_not_change_with_place_and_scale(
    name: str, shift: tuple[float, float], scale: float, seed: int
) -> None:
    torch.manual_seed(seed)
    one, other = random_boxes(8), random_boxes(8)
    moved = [scale * (boxes + torch.tensor(2 * shift)) for boxes in (one, other)]
    torch.testing.assert_close(OVERLAPS[name](*moved), OVERLAPS[name](one, other))


@every
def test_overlaps_are_symmetric_and_one_for_equal_boxes(name: str) -> None:
    one, other = random_boxes(30), random_boxes(30)
    torch.testing.assert_close(OVERLAPS[name](one, other), OVERLAPS[name](other, one))
    assert torch.equal(OVERLAPS[name](one, one), torch.ones(30, dtype=torch.double))
    assert (OVERLAPS[name](one, other) <= iou(one, other)).all()
    assert (OVERLAPS[name](one, other) >= -1).all()


# --------------------------------------------------------------------------------------- gradients


@every
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    one = random_boxes(6).requires_grad_()
    other = random_boxes(6).requires_grad_()
    assert torch.autograd.gradcheck(OVERLAPS[name], (one, other))


def test_gradients_of_pairs_are_those_of_finite_differences() -> None:
    pair = (random_boxes(3).requires_grad_(), random_boxes(4).requires_grad_())
    assert torch.autograd.gradcheck(pairwise_iou, pair)
    assert torch.autograd.gradcheck(pairwise_overlap, pair)


EDGES = {
    "two points": ([3, 3, 3, 3], [3, 3, 3, 3]),
    "two equal lines": ([0, 5, 9, 5], [0, 5, 9, 5]),
    "a line in a box": ([2, 5, 9, 5], [0, 0, 10, 10]),
    "a point in a box": ([2, 5, 2, 5], [0, 0, 10, 10]),
    "equal boxes": ([0, 0, 10, 10], [0, 0, 10, 10]),
    "touching boxes": ([0, 0, 5, 5], [5, 0, 9, 5]),
    "distant boxes": ([0, 0, 5, 5], [1e5, 1e5, 2e5, 2e5]),
    "an inverted box": ([8, 8, 2, 2], [0, 0, 10, 10]),
    "two inverted boxes": ([8, 8, 2, 2], [8, 8, 2, 2]),
    "boxes of almost no area": ([0, 0, 1e-20, 1e-20], [0, 0, 1e-20, 1e-20]),
}


@every
@pytest.mark.parametrize("edge", EDGES)
def test_values_and_gradients_of_edges_are_finite(name: str, edge: str) -> None:
    one, other = (torch.tensor(box, dtype=torch.float).requires_grad_() for box in EDGES[edge])
    value = OVERLAPS[name](one, other)
    value.backward()
    assert -1 <= value.item() <= 1
    for box in (one, other):
        assert box.grad is not None
        assert box.grad.isfinite().all()


@pytest.mark.parametrize("edge", ["two points", "two equal lines", "two inverted boxes"])
def test_empty_boxes_do_not_overlap(edge: str) -> None:
    one, other = (torch.tensor(box, dtype=torch.float) for box in EDGES[edge])
    assert iou(one, other).item() == 0
    assert pairwise_overlap(one[None], other[None]).item() == 0
    assert box_area(one).item() == 0


def test_an_overlap_is_none_only_up_to_the_smallest_area() -> None:
    side = (2 * EPS) ** 0.5
    tiny = torch.tensor([0, 0, side, side], dtype=torch.double)
    assert iou(tiny, tiny).item() == 1
    assert iou(tiny / 2, tiny / 2).item() == 0


@pytest.mark.parametrize("name", ["giou", "diou"])
def test_distant_boxes_are_drawn_together(name: str) -> None:
    one = torch.tensor([0.0, 0, 5, 5]).requires_grad_()
    OVERLAPS[name](one, torch.tensor([20.0, 0, 25, 5])).backward()
    assert one.grad is not None
    assert one.grad[2] > 0  # the near edge goes towards the other box


# ----------------------------------------------------------------------------------------- dtypes


@every
def test_half_precision_is_computed_in_single(name: str) -> None:
    one, other = (random_boxes(9, dtype=torch.half) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        value = OVERLAPS[name](one, other)
    assert value.dtype == torch.float
    assert torch.equal(value, OVERLAPS[name](one.float(), other.float()))


def test_areas_beyond_half_precision() -> None:
    assert box_area(torch.tensor([0, 0, 1000, 1000], dtype=torch.half)).item() == 1e6
    assert box_area(torch.tensor([0, 0, 1000, 1000])).item() == 1e6  # integers too
    assert clip_boxes(torch.zeros(1, 4, dtype=torch.half), 5, 5).dtype == torch.half
