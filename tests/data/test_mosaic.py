"""Four images in one: what is painted shows where boxes and masks must be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

import tiny
from stillhouse.batches import IGNORE, Objects
from stillhouse.data.loader import BatchSampler, Loader
from stillhouse.data.mosaic import Mosaic, MosaicSamples, join_samples
from stillhouse.data.source import FromTorch, Sample
from stillhouse.data.transforms import Flip, Resize
from stillhouse.errors import UserError

SIZE = 64
GREY = 114
SHAPES = [(32, 32), (32, 16), (16, 32), (8, 32)]  # the longer side is half of a mosaic
INNER = (2, 3, 7, 7)  # x1, y1, x2, y2 of an object in each image
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def picture(number: int) -> tuple[Tensor, dict[str, Any]]:
    """An image in a shade of its own, with an object and the whole image as objects."""
    height, width = SHAPES[number % 4]
    image = torch.full((3, height, width), 10 * number + 1, dtype=torch.uint8)
    x1, y1, x2, y2 = INNER
    image[0, y1:y2, x1:x2] = 255
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    masks[0, y1:y2, x1:x2] = True
    masks[1] = True
    boxes = [list(INNER), [0, 0, width, height]]
    target = {"boxes": boxes, "labels": [0, 1], "masks": masks, "iscrowd": [0, number % 2]}
    return image, target


def source(count: int = 9) -> FromTorch:
    return FromTorch([picture(number) for number in range(count)], ("inner", "whole"), "toy")


def tile(number: int, x: int, y: int, width: int, height: int) -> tuple[int, int]:
    """Where the image at a place 0 to 3 begins, if it is not cut."""
    return (x if number in (1, 3) else x - width), (y if number in (2, 3) else y - height)


@pytest.mark.parametrize(("x", "y"), [(32, 32), (16, 16), (48, 20), (25, 47)])
def test_images_meet_at_a_point_and_objects_move_with_them(x: int, y: int) -> None:
    samples = [source()[number] for number in range(4)]
    image, target, key = join_samples(samples, SIZE, x, y)
    assert image.shape == (3, SIZE, SIZE) and image.dtype == torch.uint8 and key == 0
    assert isinstance(target, Objects) and target.masks is not None and target.crowd is not None
    assert target.images == 1 and not target.image.any()
    canvas = torch.full((3, SIZE, SIZE), GREY, dtype=torch.uint8)
    wanted = []
    for number, sample in enumerate(samples):
        height, width = sample.image.shape[1:]
        left, top = tile(number, x, y, width, height)
        for row in range(height):
            for column in range(width):
                if 0 <= top + row < SIZE and 0 <= left + column < SIZE:
                    canvas[:, top + row, left + column] = sample.image[:, row, column]
        for label, (x1, y1, x2, y2) in enumerate((INNER, (0, 0, width, height))):
            centre = left + (x1 + x2) / 2, top + (y1 + y2) / 2
            if all(0 <= place < SIZE for place in centre):
                corners = left + x1, top + y1, left + x2, top + y2
                wanted.append((label, [min(max(place, 0), SIZE) for place in corners], number % 2))
    assert torch.equal(image, canvas)
    assert target.labels.tolist() == [label for label, _, _ in wanted]
    assert target.boxes.tolist() == [box for _, box, _ in wanted]
    crowd = [bool(label and odd) for label, _, odd in wanted]
    assert target.crowd.tolist() == crowd
    for mask, (x1, y1, x2, y2) in zip(target.masks, target.boxes.int().tolist(), strict=True):
        assert mask.shape == (SIZE, SIZE) and mask.sum() == (x2 - x1) * (y2 - y1)
        assert mask[y1:y2, x1:x2].all()


def test_images_are_resized_to_half_of_a_mosaic() -> None:
    """A side of 128 shows each of 32 pixels at twice its size, and its boxes with it."""
    samples = [source()[number] for number in range(4)]
    image, target, _ = join_samples(samples, 128, 64, 64)
    assert isinstance(target, Objects)
    for number, sample in enumerate(samples):
        height, width = (2 * side for side in sample.image.shape[1:])
        left, top = tile(number, 64, 64, width, height)
        centre = image[1, top : top + height, left : left + width]
        assert centre.shape == (height, width) and (centre == 10 * number + 1).all()
        x1, y1, x2, y2 = (2 * place for place in INNER)
        box = [left + x1, top + y1, left + x2, top + y2]
        assert target.boxes[2 * number].tolist() == box
    assert (image[1] == GREY).any()


def test_classes_of_pixels_are_joined() -> None:
    samples = [
        Sample(s.image, torch.full(s.image.shape[1:], number), number)
        for number, s in enumerate(source()[i] for i in range(4))
    ]
    image, target, _ = join_samples(samples, SIZE, 32, 32)
    assert isinstance(target, Tensor) and target.shape == (SIZE, SIZE)
    for number in range(4):
        assert torch.equal(target == number, image[1] == 10 * number + 1)
    assert torch.equal(target == IGNORE, image[1] == GREY)


def test_a_mosaic_with_an_unknown_image_is_unknown() -> None:
    samples = [source()[number] for number in range(4)]
    samples[2] = samples[2]._replace(target=None)
    image, target, _ = join_samples(samples, SIZE, 32, 32)
    assert target is None and image.shape == (3, SIZE, SIZE)


@pytest.mark.parametrize("target", [1, torch.tensor([1.0, 0.0])], ids=["index", "shares"])
def test_classes_of_whole_images_are_refused(target: Any) -> None:
    samples = [source()[number]._replace(target=target) for number in range(4)]
    with pytest.raises(UserError, match=r"^data\.mosaic joins images with boxes or masks, but"):
        join_samples(samples, SIZE, 32, 32)


# ------------------------------------------------------------------------------------------- draws


def shown(samples: MosaicSamples, keys: int = 60, view: int = 0) -> list[Sample]:
    return [samples.sample(key % 9, view + key // 9) for key in range(keys)]


def same(a: Sample, b: Sample) -> bool:
    return torch.equal(a.image, b.image) and tiny.same_target(a.target, b.target) and a.key == b.key


def test_a_sample_follows_seed_key_and_view_alone() -> None:
    samples = MosaicSamples(source(), Mosaic(SIZE, 0.5), 3)
    first = shown(samples)
    torch.manual_seed(9)
    state = torch.get_rng_state()
    again = [samples.sample(key % 9, key // 9) for key in reversed(range(60))][::-1]
    assert all(map(same, first, again))
    assert torch.equal(torch.get_rng_state(), state)
    for other in (shown(MosaicSamples(source(), Mosaic(SIZE, 0.5), 4)), shown(samples, view=1)):
        assert not all(map(same, first, other))


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_samples_are_joined_with_the_probability(probability: float) -> None:
    samples, given = MosaicSamples(source(), Mosaic(SIZE, probability), 3), source()
    joined = 0
    for key, sample in enumerate(shown(samples, 200)):
        if sample.image.shape[1:] == (SIZE, SIZE):
            joined += 1
        else:
            assert same(sample, given[key % 9])
    assert abs(joined / 200 - probability) < 0.1


def test_the_sample_itself_is_first_and_the_others_come_from_everywhere() -> None:
    samples, counts = MosaicSamples(source(), Mosaic(SIZE), 3), torch.zeros(9)
    for key in range(9):
        for view in range(12):
            shades = samples.sample(key, view).image[1].unique().tolist()
            assert 10 * key + 1 in shades and GREY in shades
            for shade in shades:
                if shade not in (GREY, 10 * key + 1):
                    counts[shade // 10] += 1
    assert (counts > 12).all() and (counts < 60).all()


# ------------------------------------------------------------------------------------------ batches


def loader(sampler: BatchSampler | None = None, **options: Any) -> Loader:
    sampler = sampler or BatchSampler(9, 2, True, 3)
    options = {"transforms": (Flip(), Resize(40)), "mosaic": Mosaic(SIZE, 0.7), **options}
    return Loader(source(), sampler, MEAN, STD, **options)


def test_an_epoch_is_the_same_from_any_batch_on_with_any_workers() -> None:
    whole = list(loader().epoch(2))
    assert len(whole) == 4
    for workers, start in ((0, 1), (2, 0)):
        found = list(loader(workers=workers).epoch(2, start))
        assert all(tiny.same(a, b) for a, b in zip(found, whole[start:], strict=True))


def test_a_mosaic_is_the_same_on_any_rank_in_any_batch() -> None:
    images = {}
    for batch in loader(BatchSampler(9, 9)).epoch(1):
        for place, (key, (height, width)) in enumerate(
            zip(batch.keys.tolist(), batch.sizes.tolist(), strict=True)
        ):
            images[key] = batch.images[place, :, :height, :width]
    assert {image.shape[1:] for image in images.values()} > {(40, 40)}
    for rank in range(2):
        for batch in loader(BatchSampler(9, 2, rank=rank, world=2)).epoch(1):
            for place, (key, (height, width)) in enumerate(
                zip(batch.keys.tolist(), batch.sizes.tolist(), strict=True)
            ):
                assert torch.equal(batch.images[place, :, :height, :width], images.pop(key))
    assert not images


def test_mosaics_differ_by_epoch_and_come_again_in_views() -> None:
    options = {"transforms": (), "mosaic": Mosaic(SIZE)}
    made = loader(BatchSampler(9, 9), **options, views=2)
    first, second, third = (next(made.epoch(epoch)) for epoch in range(3))
    assert tiny.same(first, third) and not torch.equal(first.images, second.images)
    assert first.originals.tolist() == first.sizes.tolist() == [[SIZE, SIZE]] * 9
    endless = loader(BatchSampler(9, 9), **options)
    assert [next(endless.epoch(e)).views.unique().tolist() for e in range(3)] == [[0], [1], [2]]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": 4}, "`size` must be at least 8, got 4"),
        ({"probability": 0}, "`probability` must be in (0, 1], got 0"),
        ({"probability": 1.5}, "`probability` must be in (0, 1], got 1.5"),
    ],
    ids=str,
)
def test_recipes_cannot_say_nonsense(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        TypeAdapter(Mosaic).validate_python(given)
    assert said in str(error.value)
