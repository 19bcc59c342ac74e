"""Boxes and masks that move with their image: what is painted in it shows where they must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from stillhouse.batches import IGNORE, Objects
from stillhouse.data.random import derive_seed
from stillhouse.data.transforms import (
    CenterCrop,
    ColorJitter,
    Crop,
    Cutout,
    Erasing,
    Expand,
    Flip,
    RandAugment,
    RandomCrop,
    RandomScale,
    Resize,
    ResizedCrop,
    Single,
    Transform,
)
from stillhouse.errors import UserError
from stillhouse.spec import members
from tiny import same_target

HEIGHT, WIDTH = 17, 23
# x1, y1, x2, y2 of rectangles in red, green and blue: in a corner, across the middle, at the edge
RECTANGLES = ((1, 2, 5, 6), (4, 5, 18, 12), (19, 10, 23, 17))
EXACT: list[Sequence[Transform]] = [
    [Crop(6)],
    [Flip()],
    [Flip(1.0)],
    [CenterCrop(9)],
    [CenterCrop(30)],
    [Crop(3), Flip(), CenterCrop(11)],
    [Expand(1.0, 3.0, grey=0)],
    [RandomCrop(9)],
    [RandomCrop((25, 12), grey=0)],
]
# here a border may be off by a pixel, which a second resize enlarges
RESIZED: list[Sequence[Transform]] = [
    [ResizedCrop(32)],
    [ResizedCrop(12, scale=(0.3, 1.0), interpolation="bicubic")],
    [Resize(12)],
    [Resize(40)],
    [Resize(25, square=True)],
    [Resize(30, longest=32)],
    [Resize((12, 30, 40))],
    [Resize((12, 40), range=True)],
    [RandomScale(0.7, 2.0)],
    [RandomScale(step=0.0), RandomCrop(24, grey=0)],
    [Flip(), ResizedCrop(20), Crop(2), Resize(27)],
]
MOVED = EXACT + RESIZED
PADDED = ("crop", "center_crop30", "expand", "random_crop(25, 12)")


def name(chain: Sequence[Transform]) -> str:
    return "-".join(f"{transform.kind}{getattr(transform, 'size', '')}" for transform in chain)


exact = pytest.mark.parametrize("chain", EXACT, ids=name)
moved = pytest.mark.parametrize("chain", MOVED, ids=name)


def painted() -> tuple[Tensor, Objects]:
    """Rectangles of one colour each, and the objects that they are."""
    image = torch.zeros(3, HEIGHT, WIDTH, dtype=torch.uint8)
    for colour, (x1, y1, x2, y2) in enumerate(RECTANGLES):
        image[colour, y1:y2, x1:x2] = 255
    boxes = torch.tensor(RECTANGLES, dtype=torch.float32)
    crowd = torch.tensor([False, True, False])
    labels = torch.tensor([0, 1, 2])  # the colour of each
    return image, Objects(boxes, labels, torch.zeros(3, dtype=torch.int64), 1, crowd, image > 0)


def extent(colour: Tensor) -> list[int] | None:
    """The box around all pixels of a colour: (H, W) bool -> x1, y1, x2, y2."""
    rows, columns = (colour.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if rows else None


# ---------------------------------------------------------------------------------- boxes and masks


@exact
def test_boxes_and_masks_cover_what_is_painted(chain: Sequence[Transform]) -> None:
    image, target = painted()
    counts = set()
    for key in range(40):
        shown, found = Single(chain, 3).sample(image, target, key, 0)
        assert isinstance(found, Objects) and found.masks is not None and found.crowd is not None
        seen = {label: extent(shown[label] > 0) for label in range(3)}
        # what is out of sight is dropped, with everything that belongs to it
        assert found.labels.tolist() == [label for label, box in seen.items() if box]
        assert found.crowd.tolist() == [label == 1 for label in found.labels.tolist()]
        assert len(found.image) == len(found.boxes) == len(found.masks) == len(found.labels)
        assert found.images == 1 and not found.image.any()
        for label, box, mask in zip(found.labels, found.boxes, found.masks, strict=True):
            assert box.tolist() == seen[int(label)]
            assert torch.equal(mask, shown[label] > 0)
        counts.add(len(found.labels))
    smaller = any(isinstance(transform, Crop | RandomCrop) for transform in chain)
    assert (min(counts) < 3) == (smaller or name(chain) == "center_crop9")  # some are lost, or none


@moved
def test_boxes_are_within_a_pixel_of_what_is_painted(chain: Sequence[Transform]) -> None:
    image, target = painted()
    resizes = sum(isinstance(transform, Resize | ResizedCrop) for transform in chain)
    kept, slack = 0, 3 if resizes > 1 else 1
    for key in range(40):
        shown, found = Single(chain, 3).sample(image, target, key, 0)
        assert isinstance(found, Objects) and found.masks is not None
        height, width = shown.shape[1:]
        assert found.masks.shape[1:] == shown.shape[1:] and found.masks.dtype == torch.bool
        for label, box, mask in zip(found.labels, found.boxes, found.masks, strict=True):
            assert 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height
            seen = extent(shown[label] >= 128)
            around = extent(mask)
            if seen is None or around is None:  # too thin in one direction
                assert float((box[2:] - box[:2]).min()) < 1.5
                continue
            kept += 1
            for other in (seen, around):
                assert (box - torch.tensor(other)).abs().max() <= slack
            # a pixel well inside of the box is in the mask, and one well outside is not
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            deep = torch.stack([x - box[0], y - box[1], box[2] - x - 1, box[3] - y - 1]).amin(0)
            assert mask[deep >= slack].all() and not mask[deep <= -1 - slack].any()
        for label in set(range(3)) - set(found.labels.tolist()):
            assert not (shown[label] >= 128).any()
    assert kept >= 40


@moved
def test_the_image_is_what_it_is_without_a_target(chain: Sequence[Transform]) -> None:
    _, target = painted()
    image = torch.randint(0, 256, (3, HEIGHT, WIDTH)).to(torch.uint8)
    single = Single([*chain, ColorJitter(), Cutout()], 5)
    areas = torch.randint(0, 9, (HEIGHT, WIDTH))
    for key in range(20):
        alone = single(image, key, 1)
        for given in (target, replace(target, masks=None), empty(), areas, hot(), 4, None):
            shown, _ = single.sample(image, given, key, 1)
            assert shown.dtype == torch.uint8 and torch.equal(shown, alone)


def empty() -> Objects:
    none = torch.zeros(0, dtype=torch.int64)
    masks = torch.zeros(0, HEIGHT, WIDTH, dtype=torch.bool)
    return Objects(torch.zeros(0, 4), none, none, 1, none.bool(), masks)


def hot() -> Tensor:
    return torch.tensor([1.0, 0.0, 1.0])


@moved
def test_an_image_without_objects_keeps_none(chain: Sequence[Transform]) -> None:
    image, _ = painted()
    shown, found = Single(chain, 3).sample(image, empty(), 0, 0)
    assert isinstance(found, Objects) and found.masks is not None and found.crowd is not None
    assert found.boxes.shape == (0, 4) and found.masks.shape == (0, *shown.shape[1:])
    assert len(found.labels) == len(found.crowd) == 0 and found.images == 1


@moved
def test_labels_of_whole_images_stay(chain: Sequence[Transform]) -> None:
    image, _ = painted()
    for target in (2, hot(), None):
        assert same_target(Single(chain, 3).sample(image, target, 0, 0)[1], target)


@moved
def test_what_was_given_is_left_alone(chain: Sequence[Transform]) -> None:
    image, target = painted()
    areas = torch.randint(0, 9, (HEIGHT, WIDTH))
    before = image.clone(), areas.clone()
    for key in range(5):
        Single(chain, 3).sample(image, target, key, 0)
        Single(chain, 3).sample(image, areas, key, 0)
    assert torch.equal(image, before[0]) and torch.equal(areas, before[1])
    assert same_target(target, painted()[1])


# ------------------------------------------------------------------------------- a class per pixel

STEP, BASE = 40, 15  # how a class is painted; what is not painted at all was padded


def areas(dtype: torch.dtype = torch.int64) -> tuple[Tensor, Tensor]:
    """An image that shows the class of each pixel, and the classes; some pixels do not count."""
    classes = torch.zeros(HEIGHT, WIDTH, dtype=torch.int64)
    for number, (x1, y1, x2, y2) in enumerate(RECTANGLES, 1):
        classes[y1:y2, x1:x2] = number
    image = (BASE + STEP * classes).to(torch.uint8).expand(3, -1, -1).contiguous()
    classes[0, :5] = IGNORE
    image[:, 0, :5] = 255
    return image, classes.to(dtype)


def painted_classes(image: Tensor) -> Tensor:
    """The class of each pixel by its colour."""
    value = image[0].long()
    classes = (value - BASE) // STEP
    return torch.where((value == 0) | (value == 255), IGNORE, classes)


@exact
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8], ids=str)
def test_classes_of_pixels_move_and_what_is_padded_does_not_count(
    chain: Sequence[Transform], dtype: torch.dtype
) -> None:
    image, classes = areas(dtype)
    padded = 0
    for key in range(40):
        shown, found = Single(chain, 3).sample(image, classes, key, 0)
        assert isinstance(found, Tensor) and found.dtype == dtype
        assert torch.equal(found.long(), painted_classes(shown))
        padded += int((shown[0] == 0).sum())
    assert (padded > 0) == (name(chain) in PADDED)


@moved
def test_classes_of_pixels_are_never_mixed(chain: Sequence[Transform]) -> None:
    image, classes = areas()
    for key in range(20):
        shown, found = Single(chain, 3).sample(image, classes, key, 0)
        assert isinstance(found, Tensor) and found.shape == shown.shape[1:]
        assert set(found.unique().tolist()) <= {0, 1, 2, 3, IGNORE}
        # colours are blended at borders only
        alike = (painted_classes(shown) == found).double().mean()
        assert alike > 0.6, float(alike)


# --------------------------------------------------------------------------------- other transforms

COLOURS: list[Transform] = [ColorJitter(hue=0.1), Cutout(), Cutout(colour="random"), Erasing(1.0)]


@pytest.mark.parametrize("transform", COLOURS, ids=str)
def test_what_changes_colours_leaves_boxes_and_masks_alone(transform: Transform) -> None:
    assert not transform.geometric
    image = torch.randint(0, 256, (3, HEIGHT, WIDTH)).to(torch.uint8)
    for target in (painted()[1], areas()[1]):
        changed = 0
        for key in range(10):
            shown, found = Single([transform], 3).sample(image, target, key, 0)
            assert same_target(found, target)
            changed += not torch.equal(shown, image)
        assert changed


def test_every_transform_says_whether_it_moves() -> None:
    found = {kind.__name__: kind.geometric for kind in members(Transform)}
    assert found == {
        **dict.fromkeys(("Crop", "Flip", "ResizedCrop", "Resize", "CenterCrop"), True),
        **dict.fromkeys(("BoxCrop", "Expand", "RandomScale", "RandomCrop"), True),
        **dict.fromkeys(("ColorJitter", "Cutout", "Erasing"), False),
        "RandAugment": True,  # by rotating and shearing, which boxes cannot follow
    }
    follow = {kind.__name__ for kind in members(Transform) if kind.geometric and kind.movable}
    assert follow == {name for name, moves in found.items() if moves} - {"RandAugment"}


@pytest.mark.parametrize("target", [painted()[1], areas()[1]], ids=["objects", "classes"])
def test_what_boxes_and_masks_cannot_follow_is_refused(target: Any) -> None:
    single = Single([RandAugment()], 3)
    image, _ = painted()
    assert single(image, 0, 0).shape == image.shape
    with pytest.raises(UserError, match="rand_augment rotates and shears images, but boxes"):
        single.sample(image, target, 0, 0)


# -------------------------------------------------------------------------------------------- draws


@moved
def test_a_sample_follows_seed_key_and_view_alone(chain: Sequence[Transform]) -> None:
    image, target = painted()

    def made(seed: int, key: int, view: int) -> tuple[Tensor, Any]:
        return Single(chain, seed).sample(image, target, key, view)

    drawn = [(seed, key, view) for seed in range(3) for key in range(4) for view in range(2)]
    first = [made(*numbers) for numbers in drawn]
    torch.manual_seed(derive_seed(1, 2))
    state = torch.get_rng_state()
    for numbers, (shown, found) in reversed(list(zip(drawn, first, strict=True))):
        again = made(*numbers)
        assert torch.equal(again[0], shown) and same_target(again[1], found)
    assert torch.equal(torch.get_rng_state(), state)
    boxes = {str(found.boxes.tolist()) for _, found in first}
    assert (len(boxes) > 1) == any(t.random and t != Flip(1.0) for t in chain)
