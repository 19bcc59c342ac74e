"""Images of different sizes in one batch, and the loader that makes such batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from stillhouse.batches import IGNORE, Batch, Objects
from stillhouse.data.loader import BatchSampler, Loader
from stillhouse.data.mixing import Mix
from stillhouse.data.mosaic import Mosaic
from stillhouse.data.padding import canvas_size, clear_padding, pad_images, pad_target
from stillhouse.data.source import FromTorch, Pixels, Sample
from stillhouse.data.transforms import (
    ColorJitter,
    Crop,
    Flip,
    RandAugment,
    Resize,
    Single,
    Transform,
    normalise,
)
from stillhouse.errors import UserError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SIZES = [(7, 9), (5, 12), (8, 4), (6, 6)]


def images(sizes: Sequence[tuple[int, int]] = SIZES) -> list[Tensor]:
    """Without a black pixel."""
    return [torch.randint(1, 256, (3, *size)).to(torch.uint8) for size in sizes]


# ----------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize(("multiple", "sides"), [(1, (8, 12)), (4, (8, 12)), (5, (10, 15))])
def test_images_are_at_the_upper_left_of_the_smallest_canvas(
    multiple: int, sides: tuple[int, int]
) -> None:
    given = images()
    whole, sizes = pad_images(given, multiple)
    assert whole.shape == (4, 3, *sides) and whole.dtype == torch.uint8
    assert sizes.tolist() == [list(size) for size in SIZES]
    assert canvas_size(sizes, multiple) == sides
    for image, padded, (height, width) in zip(given, whole, SIZES, strict=True):
        assert torch.equal(padded[:, :height, :width], image)
        assert not padded[:, height:].any() and not padded[:, :, width:].any()


def test_images_of_one_size_are_not_padded() -> None:
    given = images([(6, 9)] * 3)
    whole, sizes = pad_images(given)
    assert torch.equal(whole, torch.stack(given)) and sizes.tolist() == [[6, 9]] * 3


def test_grey_images_among_others_are_refused() -> None:
    given = [*images([(4, 4)]), torch.zeros(1, 4, 4, dtype=torch.uint8)]
    with pytest.raises(UserError, match="^images of one batch have 1 and 3 channels; convert all"):
        pad_images(given)


def test_masks_are_padded_and_everything_else_is_left() -> None:
    part = {"boxes": torch.rand(2, 4), "labels": torch.tensor([1, 0])}
    objects = Objects(**part, image=torch.zeros(2, dtype=torch.int64))
    masked = replace(objects, masks=torch.ones(2, 3, 4, dtype=torch.bool))
    found = pad_target(masked, 5, 6)
    assert isinstance(found, Objects) and found.masks is not None
    assert found.masks.shape == (2, 5, 6) and found.masks.dtype == torch.bool
    assert found.masks.sum() == 24 and found.masks[:, :3, :4].all()
    assert found.boxes is masked.boxes and found.labels is masked.labels
    for dtype in (torch.int64, torch.uint8):
        classes = torch.full((3, 4), 2, dtype=dtype)
        padded = pad_target(classes, 5, 6)
        assert isinstance(padded, Tensor) and padded.dtype == dtype
        assert (padded[:3, :4] == 2).all() and (padded == IGNORE).sum() == 30 - 12
    for target in (objects, 3, torch.ones(7), None):
        assert pad_target(target, 5, 6) is target


def test_what_is_outside_of_an_image_is_cleared() -> None:
    sizes = torch.tensor([[2, 3], [4, 4], [1, 4]])
    given = torch.rand(3, 2, 4, 4) + 1
    found = clear_padding(given.clone(), sizes)
    for image, before, (height, width) in zip(found, given, sizes.tolist(), strict=True):
        assert torch.equal(image[:, :height, :width], before[:, :height, :width])
        assert (image != 0).sum() == 2 * height * width


# ------------------------------------------------------------------------------------- the loader


def detections(count: int = 23, masks: bool = False) -> FromTorch:
    """Images of four sizes, some without an object, and some of which nothing is known."""
    made = torch.Generator().manual_seed(1)
    pairs: list[tuple[Tensor, Any]] = []
    for number in range(count):
        height, width = SIZES[number % 4]
        image = torch.randint(1, 256, (3, height, width), generator=made).to(torch.uint8)
        amount = number % 3
        corner = torch.rand(amount, 2, generator=made) * 2
        boxes = torch.cat([corner, corner + 1 + torch.rand(amount, 2, generator=made)], 1)
        target: Any = {"boxes": boxes, "labels": torch.arange(amount), "iscrowd": [0] * amount}
        if masks:
            target["masks"] = torch.rand(amount, height, width, generator=made) < 0.5
        pairs.append((image, None if number % 7 == 6 else target))
    return FromTorch(pairs, "abc", "toy")


def loader(
    source: Any = None,
    transforms: Sequence[Transform] = (Flip(),),
    workers: int = 0,
    **options: Any,
) -> Loader:
    sampler = options.pop("sampler", None) or BatchSampler(23, 4, True, 3)
    source = source or detections()
    options = {"transforms": transforms, "workers": workers, **options}
    return Loader(source, sampler, MEAN, STD, **options)


def alike(found: Sequence[Batch[Any]], wanted: Sequence[Batch[Any]]) -> bool:
    return len(found) == len(wanted) and all(map(tiny.same, found, wanted))


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("transforms", [(), (Crop(1), Flip(), ColorJitter())], ids=["none", "all"])
def test_a_batch_is_its_samples_moved_and_padded(
    masks: bool, transforms: Sequence[Transform]
) -> None:
    source, single = detections(masks=masks), Single(transforms, 3)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    made, seen = loader(source, transforms), 0
    for batch, keys in zip(made.epoch(2), made.sampler.batches(2), strict=True):
        assert torch.equal(batch.keys, keys) and len(batch) == 4
        assert batch.views.tolist() == [2 if transforms else 0] * 4
        assert batch.sizes.tolist() == [list(SIZES[key % 4]) for key in keys.tolist()]
        assert tuple(batch.images.shape[2:]) == tuple(batch.sizes.amax(0).tolist())
        assert isinstance(batch.target, Objects) and batch.target.images == 4
        for place, (key, view) in enumerate(zip(keys.tolist(), batch.views.tolist(), strict=True)):
            sample = source[key]
            image, target = single.sample(sample.image, sample.target, key, view)
            height, width = image.shape[1:]
            shown = batch.images[place]
            assert torch.equal(shown[:, :height, :width], normalise(image[None], mean, std)[0])
            assert not shown[:, height:].any() and not shown[:, :, width:].any()
            own = batch.target.rows(slice(place, place + 1))
            if target is None:
                assert not len(own.labels)
                continue
            assert isinstance(target, Objects)
            assert tiny.same_target(own.labels, target.labels)
            assert tiny.same_target(own.boxes, target.boxes)
            assert tiny.same_target(own.crowd, target.crowd)
            assert (own.masks is None) == (not masks)
            if masks:
                assert torch.equal(own.masks[:, :height, :width], target.masks)
                assert own.masks.sum() == target.masks.sum()
            seen += len(own.labels)
    assert seen > 10


@pytest.mark.parametrize("start", range(6))
@pytest.mark.parametrize("masks", [False, True])
def test_an_epoch_can_be_entered_anywhere(start: int, masks: bool) -> None:
    whole = list(loader(detections(masks=masks)).epoch(4))
    torch.manual_seed(99)
    assert len(whole) == 5
    assert alike(list(loader(detections(masks=masks)).epoch(4, start)), whole[start:])


@pytest.mark.parametrize("masks", [False, True])
def test_workers_change_nothing(masks: bool) -> None:
    transforms = (Crop(1), Flip(), Resize(9))
    alone = list(loader(detections(masks=masks), transforms).epoch(1))
    before = torch.get_rng_state()
    found = list(loader(detections(masks=masks), transforms, workers=2).epoch(1, 1))
    assert alike(found, alone[1:])
    assert torch.equal(torch.get_rng_state(), before)


def test_views_of_objects_come_again() -> None:
    made = loader(views=2, sampler=BatchSampler(23, 23))
    first, second, third = (next(made.epoch(epoch)) for epoch in range(3))
    assert tiny.same(first, third) and not tiny.same(first, second)


def test_ranks_see_what_one_would() -> None:
    whole = {}
    for batch in loader(sampler=BatchSampler(23, 4)).epoch(0):
        for place, key in enumerate(batch.keys.tolist()):
            height, width = batch.sizes[place].tolist()
            image = batch.images[place, :, :height, :width]
            whole[key] = image, batch.target.rows(slice(place, place + 1))
    for rank in range(2):
        for batch in loader(sampler=BatchSampler(23, 3, rank=rank, world=2)).epoch(0):
            for place, key in enumerate(batch.keys.tolist()):
                height, width = batch.sizes[place].tolist()
                image, target = whole.pop(key)
                assert torch.equal(batch.images[place, :, :height, :width], image)
                own = batch.target.rows(slice(place, place + 1))
                assert tiny.same_target(own.boxes, target.boxes)
                assert tiny.same_target(own.labels, target.labels)
    assert not whole


class Maps(FromTorch):
    """A class for each pixel, which torch data sets do not give."""

    def __getitem__(self, index: int) -> Sample:
        image = super().__getitem__(index).image
        classes = (image[0] % 3).long()
        return Sample(image, None if index % 7 == 6 else classes, index)


def test_maps_of_classes_are_padded_with_what_is_ignored() -> None:
    source = Maps([(image, 0) for image, _ in detections().dataset], "abc", "maps")
    for batch in loader(source, ()).epoch(0):
        assert batch.target.shape == (4, *batch.images.shape[2:])
        assert batch.target.dtype == torch.int64
        for place, key in enumerate(batch.keys.tolist()):
            image, classes, _ = source[key]
            height, width = image.shape[1:]
            if classes is None:
                assert (batch.target[place] == -1).all()
                continue
            assert torch.equal(batch.target[place, :height, :width], classes)
            assert (batch.target[place] == IGNORE).sum() == (
                batch.target[place].numel() - height * width
            )


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_have_sides_of_a_multiple_and_say_what_was_read(workers: int) -> None:
    source, transforms = detections(), (Flip(), Resize(9))
    plain = list(loader(source, transforms).epoch(1))
    wider = list(loader(source, transforms, pad=32, workers=workers).epoch(1))
    for one, other in zip(plain, wider, strict=True):
        assert one.images.shape[2:] != other.images.shape[2:] == (32, 32)
        assert torch.equal(one.sizes, other.sizes) and tiny.same_target(one.target, other.target)
        read = [list(SIZES[key % 4]) for key in other.keys.tolist()]
        assert one.originals.tolist() == other.originals.tolist() == read
        for before, after, (height, width) in zip(
            one.images, other.images, one.sizes.tolist(), strict=True
        ):
            assert torch.equal(before[:, :height, :width], after[:, :height, :width])
            assert not after[:, height:].any() and not after[:, :, width:].any()
        part = other.rows(torch.tensor([2, 0]))
        assert part.originals.tolist() == [read[2], read[0]]


def test_evaluation_is_padded_as_training_is() -> None:
    (batch,) = loader(transforms=(), sampler=BatchSampler(23, 30), pad=5).epoch(0)
    assert batch.images.shape == (23, 3, 10, 15) and batch.keys.tolist() == list(range(23))
    assert (
        batch.originals.tolist() == batch.sizes.tolist() == [list(SIZES[i % 4]) for i in range(23)]
    )


class Unlabelled(FromTorch):
    """Objects of which only the last image knows any."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        return sample if index == 14 else sample._replace(target=None)


def test_a_batch_without_any_target_is_like_those_of_its_source() -> None:
    """By `targets`, or by some of the samples, or by `pad` where no sample has a target."""
    known = Unlabelled(detections().dataset, "abc", "toy")
    shown = list(loader(known, (), sampler=BatchSampler(23, 4)).epoch(0))
    assert [batch.target is None for batch in shown] == [True] * 3 + [False] + [True] * 2
    for batch in shown:
        assert batch.sizes.tolist() == [list(SIZES[key % 4]) for key in batch.keys.tolist()]
        assert batch.images.shape[2:] == tuple(batch.sizes.amax(0).tolist())
    blank = FromTorch([(image, None) for image, _ in detections().dataset], "abc", "toy")
    with pytest.raises(UserError, match="images of one batch have different shapes"):
        next(loader(blank).epoch(0))
    batch = next(loader(blank, pad=8).epoch(0))
    assert batch.target is None and batch.images.shape[2:] == (8, 16)
    blank.targets = detections()[1].target  # what a reader knows of all its samples
    assert next(loader(blank).epoch(0)).sizes.tolist() == batch.sizes.tolist()


def test_objects_in_memory_are_moved_too() -> None:
    """Batches of one size, made sample by sample where boxes move, are padded by nothing."""
    pixels = torch.randint(1, 256, (23, 3, 6, 6)).to(torch.uint8)
    image = torch.arange(23).repeat_interleave(2)
    corner = 3 * torch.rand(46, 2)
    boxes = torch.cat([corner, corner + 2], 1)
    targets = Objects(boxes, image % 3, image, 23)
    source = Pixels(pixels, targets, tuple("abc"), "print", "toy")
    for transforms, sizes in (((Flip(),), [[6, 6]] * 4), ((), None)):
        made = loader(source, transforms)
        for batch in made.epoch(0):
            assert (None if batch.sizes is None else batch.sizes.tolist()) == sizes
            for place, (key, view) in enumerate(
                zip(batch.keys.tolist(), batch.views.tolist(), strict=True)
            ):
                sample = source[key]
                moved = Single(transforms, 3).sample(sample.image, sample.target, key, view)[1]
                own = batch.target.rows(slice(place, place + 1))
                assert isinstance(moved, Objects) and tiny.same_target(own, moved)
        whole = list(made.epoch(1))
        assert alike(list(made.epoch(1, 3)), whole[3:])


# ---------------------------------------------------------------------------------- what is refused


def in_memory() -> Pixels:
    """Two images with one object each."""
    boxes, index = torch.tensor([[0.0, 0, 3, 3], [1, 1, 4, 5]]), torch.arange(2)
    pixels = torch.zeros(2, 3, 6, 6, dtype=torch.uint8)
    return Pixels(pixels, Objects(boxes, index, index, 2), tuple("ab"), "print", "toy")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"strong": (Flip(),)}, "images with boxes or masks have no second view"),
        ({"mixing": Mix(mixup=1.0)}, r"data\.mix mixes the classes of whole images"),
        ({"transforms": (Flip(), RandAugment())}, "rand_augment rotates and shears images, but"),
    ],
)
def test_what_boxes_exclude_is_refused_before_the_first_batch(
    options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UserError, match=f"^{complaint}"):
        loader(in_memory(), sampler=BatchSampler(2, 2), **options)


@pytest.mark.parametrize("option", [{"pad": 2}, {"mosaic": Mosaic(8)}], ids=["pad", "mosaic"])
def test_what_needs_boxes_is_refused_for_classes(option: dict[str, Any]) -> None:
    (name,) = option
    images = torch.zeros(4, 3, 6, 6, dtype=torch.uint8)
    held = Pixels(images, torch.zeros(4, dtype=torch.int64), ("a",), "print", "toy")
    with pytest.raises(UserError, match=rf"^data\.{name} .* classes of whole images; leave"):
        loader(held, sampler=BatchSampler(4, 4), **option)
    read = FromTorch([(image, 0) for image in images], "a", "toy")
    made = loader(read, sampler=BatchSampler(4, 4), **option)
    with pytest.raises(UserError, match=rf"^data\.{name} .* classes of whole images; leave"):
        next(made.epoch(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_second_view_of_objects_is_refused(workers: int) -> None:
    with pytest.raises(UserError, match="images with boxes or masks have no second view"):
        next(loader(strong=(Flip(),), workers=workers).epoch(0))


def test_objects_are_not_mixed() -> None:
    with pytest.raises(UserError, match=r"data\.mix mixes the classes of whole images"):
        next(loader(mixing=Mix(mixup=1.0)).epoch(0))


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ({"boxes": [[0, 0, 1, 1]]}, "must have `boxes` and `labels`"),
        ({"labels": [1]}, "must have `boxes` and `labels`"),
        ({"boxes": [[0, 0, 1, 1]], "labels": [0, 1]}, "there are 1 boxes, but 2 labels"),
        ({"boxes": [[0, 0, 1, 1]], "labels": [3]}, r"labels must be from 0 to 2, got \[3\]"),
        ({"boxes": [[0, 0, 1, 1]], "labels": [-1]}, r"labels must be from 0 to 2, got \[-1\]"),
    ],
)
def test_targets_that_make_no_sense_are_refused(target: dict[str, Any], complaint: str) -> None:
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    with pytest.raises(UserError, match=f"^toy, sample 0: .*{complaint}"):
        FromTorch([(image, target)], "abc", "toy")[0]


def test_targets_of_a_torch_data_set_become_objects() -> None:
    from torchvision import tv_tensors

    image = torch.zeros(3, 4, 5, dtype=torch.uint8)
    boxes = tv_tensors.BoundingBoxes([[0, 1, 2, 3]], format="XYXY", canvas_size=(4, 5))
    masks = tv_tensors.Mask(torch.ones(1, 4, 5, dtype=torch.uint8))
    found = FromTorch(
        [
            (image, {"boxes": boxes, "labels": torch.tensor([2]), "masks": masks, "area": [3.0]}),
            (image, {"boxes": [], "labels": []}),
        ],
        "abc",
        "toy",
    )
    first, second = found[0].target, found[1].target
    assert isinstance(first, Objects) and isinstance(second, Objects)
    assert type(first.boxes) is Tensor and first.boxes.tolist() == [[0, 1, 2, 3]]
    assert type(first.masks) is Tensor and first.masks.dtype == torch.bool
    assert first.labels.dtype == torch.int64 and first.crowd is None and first.images == 1
    assert second.boxes.shape == (0, 4) and second.labels.shape == (0,)
    crowd = FromTorch([(image, {"boxes": boxes, "labels": [0], "iscrowd": [1]})], "abc", "toy")
    assert crowd[0].target.crowd.tolist() == [True]
