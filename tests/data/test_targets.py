"""What is known of samples: collating it, and which classes it contains, whatever its kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from stillhouse.batches import IGNORE, Batch, Objects, select_target
from stillhouse.data.holdout import hold_out
from stillhouse.data.source import FromTorch, Pixels, Source, targets_of
from stillhouse.data.stratify import stratify
from stillhouse.data.targets import (
    SampleTarget,
    collate,
    count_samples,
    describe_target,
    is_spatial,
    presence,
    target_at,
)
from stillhouse.errors import UserError
from stillhouse.runs.diagnosis import stratified_sample
from tiny import same_target

CLASSES = 4
CPU = torch.device("cpu")


def objects(labels: list[int], seed: int = 0, **parts: Any) -> Objects:
    """The objects of one image, each with a box of its own."""
    made = torch.Generator().manual_seed(seed)
    corners = 20 * torch.rand(len(labels), 2, generator=made)
    boxes = torch.cat([corners, corners + 5], 1)
    image = torch.zeros(len(labels), dtype=torch.int64)
    return Objects(boxes, torch.tensor(labels, dtype=torch.int64), image, **parts)


def masked(labels: list[int], seed: int = 0) -> Objects:
    """With a crowd flag and a mask each."""
    made = torch.Generator().manual_seed(seed)
    crowd = torch.rand(len(labels), generator=made) < 0.5
    masks = torch.rand(len(labels), 6, 7, generator=made) < 0.5
    return objects(labels, seed, crowd=crowd, masks=masks)


def hot(*classes: int) -> Tensor:
    row = torch.zeros(CLASSES)
    row[list(classes)] = 1
    return row


def mask(*classes: int, dtype: torch.dtype = torch.int64) -> Tensor:
    """A map (3, 4) with some classes, and pixels that do not count."""
    pixels = torch.full((3, 4), IGNORE)
    for number, name in enumerate(classes):
        pixels[number % 3, number // 3] = name
    return pixels.to(dtype)


# Four samples of each kind; the second has no class but where a sample must have one.
KINDS: dict[str, list[SampleTarget]] = {
    "index": [2, 0, 1, 2],
    "shares": [hot(0, 3), hot(), hot(1), hot(0, 1, 2, 3)],
    "map": [mask(0, 3), mask(), mask(1), mask(3, 2, 1, 0)],
    "objects": [objects([3, 0, 3]), objects([]), objects([1], 1), objects([2, 2], 2)],
    "masks": [masked([3, 0, 3]), masked([]), masked([1], 1), masked([2, 2], 2)],
}
CONTAINED = {
    "index": [{2}, {0}, {1}, {2}],
    "shares": [{0, 3}, set(), {1}, {0, 1, 2, 3}],
    "map": [{0, 3}, set(), {1}, {0, 1, 2, 3}],
    "objects": [{3, 0}, set(), {1}, {2}],
    "masks": [{3, 0}, set(), {1}, {2}],
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def contained(present: Tensor) -> list[set[int]]:
    return [set(row.nonzero().flatten().tolist()) for row in present]


# ----------------------------------------------------------------------------------------- a batch


@every_kind
def test_targets_come_out_of_a_batch_as_they_went_in(kind: str) -> None:
    targets = KINDS[kind]
    whole = collate(targets)
    assert count_samples(whole) == 4
    for number, target in enumerate(targets):
        assert same_target(target_at(whole, number), target)
    for chosen in ([2, 0], [1], [], [3, 3, 1]):
        again = collate([targets[i] for i in chosen]) if chosen else None
        part = select_target(whole, torch.tensor(chosen, dtype=torch.int64))
        assert count_samples(part) == len(chosen)
        assert not chosen or same_target(part, again)
    assert same_target(select_target(whole, slice(1, 3)), collate(targets[1:3]))


def test_the_forms_of_a_batch() -> None:
    index, shares, maps, things, masks = (collate(targets) for targets in KINDS.values())
    assert isinstance(index, Tensor) and (index.dtype, index.shape) == (torch.int64, (4,))
    assert isinstance(shares, Tensor) and (shares.dtype, shares.shape) == (torch.float32, (4, 4))
    assert isinstance(maps, Tensor) and (maps.dtype, maps.shape) == (torch.int64, (4, 3, 4))
    for whole in (things, masks):
        assert isinstance(whole, Objects) and whole.images == 4
        assert whole.image.tolist() == [0, 0, 0, 2, 3, 3]
        assert whole.labels.tolist() == [3, 0, 3, 1, 2, 2]
        assert whole.boxes.shape == (6, 4)
    assert things.crowd is None and things.masks is None
    assert masks.crowd.shape == (6,) and masks.masks.shape == (6, 6, 7)


@every_kind
def test_classes_are_those_that_a_loop_finds(kind: str) -> None:
    found = presence(collate(KINDS[kind]), CLASSES)
    assert found.dtype == torch.bool and found.shape == (4, CLASSES)
    assert contained(found) == CONTAINED[kind]


@every_kind
@pytest.mark.parametrize("absent", [[1], [0, 3], [0, 1, 2]])
def test_samples_without_a_target_keep_their_place_and_have_no_class(
    kind: str, absent: list[int]
) -> None:
    targets = [None if i in absent else target for i, target in enumerate(KINDS[kind])]
    whole = collate(targets)
    assert count_samples(whole) == 4
    wanted = [set() if i in absent else CONTAINED[kind][i] for i in range(4)]
    assert contained(presence(whole, CLASSES)) == wanted
    for number, target in enumerate(targets):
        if target is not None:
            assert same_target(target_at(whole, number), target)


def test_what_stands_for_an_absent_target() -> None:
    assert collate([2, None, 1]).tolist() == [2, -1, 1]
    assert collate([None, hot(1)]).tolist() == [[-1] * CLASSES, [0, 1, 0, 0]]
    for dtype, signed in ((torch.int64, torch.int64), (torch.uint8, torch.int16)):
        found = collate([mask(1, dtype=dtype), None])
        assert found.dtype == signed and found[1].unique().tolist() == [-1]
        assert torch.equal(found[0], mask(1, dtype=signed))
        assert target_at(found, 1) is None and target_at(found, 0) is not None
    things = collate([None, objects([1]), None])
    assert things.image.tolist() == [1] and things.images == 3
    assert things.unlabelled.tolist() == [True, False, True]
    assert [target_at(things, i) is None for i in range(3)] == [True, False, True]
    chosen = things.rows(torch.tensor([1, 2, 1]))
    assert chosen.unlabelled.tolist() == [False, True, False] and chosen.image.tolist() == [0, 2]
    assert collate([objects([1]), objects([])]).unlabelled is None
    assert collate([None, None]) is None and collate([]) is None
    assert count_samples(None) == 0 and presence(None, CLASSES).shape == (0, CLASSES)


@pytest.mark.parametrize(
    "targets",
    [
        [1, hot(1)],
        [hot(1), 1],
        [objects([1]), 1],
        [1, objects([1])],
        [hot(1), objects([1])],
        [masked([1]), objects([1])],
        [objects([1]), masked([1])],
        [hot(1), torch.zeros(3)],
    ],
    ids=str,
)
def test_targets_of_several_kinds_are_refused(targets: list[SampleTarget]) -> None:
    with pytest.raises(UserError, match="the samples of a batch must have one kind of target"):
        collate(targets)


@every_kind
def test_what_geometry_moves(kind: str) -> None:
    lies = kind in ("map", "objects", "masks")
    assert all(is_spatial(target) is lies for target in KINDS[kind])
    assert is_spatial(collate(KINDS[kind])) is lies
    assert not is_spatial(None)


@every_kind
def test_a_description_tells_targets_apart(kind: str) -> None:
    texts = {describe_target(target) for target in (*KINDS[kind], None)}
    assert len(texts) == (4 if kind == "index" else 5)  # two samples have one index
    assert all(describe_target(target) == describe_target(target) for target in KINDS[kind])


def test_maps_of_the_same_pixels_and_other_classes_are_told_apart() -> None:
    assert describe_target(mask(1, 2)) != describe_target(mask(2, 1))


def test_objects_of_other_masks_are_told_apart() -> None:
    one = masked([1, 2])
    assert describe_target(one) != describe_target(replace(one, masks=~one.masks))
    assert describe_target(one) != describe_target(replace(one, crowd=~one.crowd))


# ------------------------------------------------------------------------------------- the objects


def by_loop(whole: Objects, chosen: list[int]) -> list[tuple[int, int, list[float]]]:
    """(image, label, box) of the objects of some images, numbered anew."""
    return [
        (new, int(label), box.tolist())
        for new, old in enumerate(chosen)
        for image, label, box in zip(whole.image, whole.labels, whole.boxes, strict=True)
        if int(image) == old
    ]


@pytest.mark.parametrize("chosen", [[0], [3, 0], [1], [2, 2, 0], [], [0, 1, 2, 3]], ids=str)
def test_rows_are_the_objects_of_some_images(chosen: list[int]) -> None:
    whole = collate(KINDS["masks"])
    assert isinstance(whole, Objects)
    part = whole.rows(torch.tensor(chosen, dtype=torch.int64))
    found = zip(part.image.tolist(), part.labels.tolist(), part.boxes.tolist(), strict=True)
    assert list(found) == by_loop(whole, chosen)
    assert part.images == len(chosen)
    assert len(part.masks) == len(part.crowd) == len(part.labels)


def test_rows_can_be_a_slice_or_a_mask_of_images() -> None:
    whole = collate(KINDS["objects"])
    assert isinstance(whole, Objects)
    for index, chosen in (
        (slice(1, None), [1, 2, 3]),
        (slice(None, None, 2), [0, 2]),
        (slice(4, 9), []),
        (torch.tensor([True, False, True, False]), [0, 2]),
    ):
        assert same_target(whole.rows(index), whole.rows(torch.tensor(chosen, dtype=torch.int64)))


def test_some_objects_keep_their_images() -> None:
    whole = collate(KINDS["masks"])
    assert isinstance(whole, Objects)
    chosen = whole.labels == 2
    part = whole.objects(chosen)
    assert (part.labels.tolist(), part.image.tolist(), part.images) == ([2, 2], [3, 3], 4)
    assert torch.equal(part.masks, whole.masks[chosen])
    assert same_target(whole.objects(torch.tensor([4, 5])), part)


def test_objects_go_to_a_device_with_all_that_they_have() -> None:
    for kind in ("objects", "masks"):
        whole = collate(KINDS[kind])
        assert isinstance(whole, Objects)
        assert same_target(whole.to(CPU), whole)
        meta = whole.to(torch.device("meta"))
        assert {part.device.type for part in meta.tensors().values()} == {"meta"}
        assert meta.tensors().keys() == whole.tensors().keys() and meta.images == 4


def test_a_batch_of_objects_has_rows_and_a_plain_form() -> None:
    keys = torch.arange(4) + 7
    sizes = torch.tensor([[3, 4], [5, 6], [7, 8], [9, 9]])
    batch = Batch(torch.randn(4, 3, 9, 9), collate(KINDS["masks"]), keys, keys * 0, sizes=sizes)
    part = batch.rows(torch.tensor([3, 0]))
    assert len(batch) == 4 and len(part) == 2
    assert part.keys.tolist() == [10, 7] and part.sizes.tolist() == [[9, 9], [3, 4]]
    assert same_target(part.target, batch.target.rows(torch.tensor([3, 0])))
    plain = batch.plain()
    assert plain["target"]["images"] == 4 and "strong" not in plain
    assert torch.equal(plain["target"]["masks"], batch.target.masks)
    assert "target" not in replace(batch, target=None).plain()


# ----------------------------------------------------------------------------------------- a source

MANY = 120


def many(kind: str) -> list[SampleTarget]:
    """Common and rare classes, and samples without any."""
    return [KINDS[kind][(0, 0, 1, 2, 3, 3)[i % 6]] for i in range(MANY)]


def pixels(kind: str) -> Pixels:
    images = torch.arange(MANY).to(torch.uint8)[:, None, None, None].expand(-1, 3, 6, 7)
    return Pixels(images.contiguous(), collate(many(kind)), tuple("abcd"), "print", "toy")


def from_torch(kind: str) -> FromTorch:
    """The same samples as a torch data set gives them."""

    def given(target: SampleTarget) -> Any:
        if not isinstance(target, Objects):
            return target
        found = {"boxes": target.boxes, "labels": target.labels}
        more = {"iscrowd": target.crowd, "masks": target.masks}
        return found | {name: part for name, part in more.items() if part is not None}

    images = pixels(kind).images
    pairs = [(image, given(t)) for image, t in zip(images, many(kind), strict=True)]
    return FromTorch(pairs, tuple("abcd"), "toy")


SOURCES = [
    *(("pixels", kind) for kind in KINDS),
    *(("torch", kind) for kind in KINDS if kind != "map"),  # which torch data sets do not give
]


def make(form: str, kind: str) -> Source:
    return pixels(kind) if form == "pixels" else from_torch(kind)


def unmasked(target: SampleTarget) -> SampleTarget:
    return replace(target, masks=None) if isinstance(target, Objects) else target


def keys_of(part: Source) -> list[int]:
    return [int(part[i].image[0, 0, 0]) for i in range(len(part))]


@pytest.mark.parametrize(("form", "kind"), SOURCES)
def test_a_source_of_every_kind_is_split(form: str, kind: str) -> None:
    whole = make(form, kind)
    # what is read sample by sample leaves masks out, which would fill the memory
    wanted = [unmasked(t) for t in many(kind)] if form == "torch" else many(kind)
    assert same_target(targets_of(whole), collate(wanted))
    rest, held = hold_out(whole, 30)
    assert (len(rest), len(held)) == (90, 30)
    assert sorted(keys_of(rest) + keys_of(held)) == list(range(MANY))
    for part in (rest, held):
        keys = keys_of(part)
        assert same_target(targets_of(part), collate([wanted[key] for key in keys]))
        for index in (0, len(part) - 1):
            assert same_target(part[index].target, many(kind)[keys[index]])
            assert part[index].key == index
    # each class has a quarter of its samples, and so have those without a class
    shares = presence(targets_of(held), CLASSES)
    every = presence(targets_of(whole), CLASSES)
    for found, total in (
        *zip(shares.sum(0).tolist(), every.sum(0).tolist(), strict=True),
        (int((~shares.any(1)).sum()), int((~every.any(1)).sum())),
    ):
        assert abs(found - total / 4) <= 1


@every_kind
def test_stratified_samples_follow_targets_and_seed_alone(kind: str) -> None:
    targets = collate(many(kind))
    chosen = stratify(targets, CLASSES, 30, 1)
    assert len(chosen) == 30 and chosen.tolist() == sorted(set(chosen.tolist()))
    torch.manual_seed(8)
    assert torch.equal(stratify(targets, CLASSES, 30, 1), chosen)
    assert not torch.equal(stratify(targets, CLASSES, 30, 2), chosen)


@pytest.mark.parametrize("form", ["pixels", "torch"])
def test_a_source_without_targets_is_split_at_random(form: str) -> None:
    data: Source = replace(pixels("index"), targets=None)
    if form == "torch":
        data = FromTorch([(image, None) for image in pixels("index").images], "abcd", "toy")
    assert data[3].target is None and targets_of(data) is None
    rest, held = hold_out(data, 0.25)
    assert (len(rest), len(held)) == (90, 30)
    assert sorted(keys_of(rest) + keys_of(held)) == list(range(MANY))
    assert held[0].target is None and targets_of(held) is None
    assert keys_of(hold_out(data, 0.25, seed=1)[1]) != keys_of(held)
    assert keys_of(hold_out(data, 0.25)[1]) == keys_of(held)


@pytest.mark.parametrize("kind", ["index", "shares", "objects"])
def test_samples_without_a_target_have_their_share(kind: str) -> None:
    targets = [None if i % 4 == 3 else target for i, target in enumerate(many(kind))]
    images = pixels(kind).images
    data = Pixels(images, collate(targets), tuple("abcd"), "print", "toy")
    rest, held = hold_out(data, 40)
    absent = sum(targets[key] is None for key in keys_of(held))
    assert abs(absent - 10) <= 1 and (len(rest), len(held)) == (80, 40)


def test_masks_of_images_of_different_sizes_do_not_hinder_a_split() -> None:
    pairs = []
    for number in range(20):
        side = 5 + number % 3
        one = {"boxes": torch.tensor([[0.0, 0, 2, 2]]), "labels": torch.tensor([number % 2])}
        one |= {"masks": torch.ones(1, side, side, dtype=torch.bool)}
        pairs.append((torch.zeros(3, side, side, dtype=torch.uint8), one))
    rest, held = hold_out(FromTorch(pairs, "ab", "toy"), 10)
    assert targets_of(held).labels.bincount().tolist() == [5, 5]
    assert targets_of(rest).masks is None
    assert rest[0].target.masks.shape[-1] == rest[0].image.shape[-1]


@pytest.mark.parametrize("form", ["pixels", "torch"])
def test_a_stratified_sample_of_images_without_targets(form: str) -> None:
    data: Source = replace(pixels("index"), targets=None)
    if form == "torch":
        data = FromTorch([(image, None) for image in pixels("index").images], "abcd", "toy")
    assert len(stratified_sample(data, 30)) == 30
    assert stratified_sample(data, MANY) is data
