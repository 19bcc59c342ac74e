"""Several views of a sample: copies in a step, and a strong view beside the first."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from stillhouse.batches import Batch
from stillhouse.data.loader import STRONG_SEED, BatchSampler, Loader
from stillhouse.data.mixing import Mix
from stillhouse.data.random import derive_seed
from stillhouse.data.source import FromTorch, Pixels, Source
from stillhouse.data.transforms import (
    Crop,
    Cutout,
    Flip,
    RandAugment,
    Resize,
    Single,
    Transform,
    normalise,
)
from stillhouse.errors import UserError
from tiny import same

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
WEAK = (Crop(2), Flip())
STRONGER = (*WEAK, RandAugment(uniform=True), Cutout())
KINDS = pytest.mark.parametrize("kind", ["pixels", "torch"])


def source(kind: str = "pixels", n: int = 23) -> Source:
    made = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (n, 3, 8, 8), generator=made).to(torch.uint8)
    data = Pixels(images, torch.arange(n) % 5, tuple("abcde"), "print", "toy")
    if kind == "pixels":
        return data
    return FromTorch(
        list(zip(data.images, data.targets.tolist(), strict=True)), data.classes, "toy"
    )


def loader(kind: str = "pixels", plan: BatchSampler | None = None, **options: Any) -> Loader:
    plan = plan or BatchSampler(23, 4, True, 3)
    return Loader(source(kind), plan, MEAN, STD, **{"transforms": WEAK, **options})


def shown(transforms: Sequence[Transform], seed: int, batch: Batch, views: Tensor) -> Tensor:
    """What a batch should show, image by image."""
    single, data = Single(transforms, seed), source()
    keys = batch.keys.tolist()
    images = [single(data[k].image, k, v) for k, v in zip(keys, views.tolist(), strict=True)]
    return normalise(torch.stack(images), torch.tensor(MEAN), torch.tensor(STD))


# ------------------------------------------------------------------------------ copies in the order


@pytest.mark.parametrize("repeats", [1, 2, 3, 5])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_each_sample_comes_so_many_times_in_the_steps_of_all_ranks(
    repeats: int, world: int
) -> None:
    ranks = [BatchSampler(61, 5, True, 2, rank, world, repeats) for rank in range(world)]
    steps = 61 // (5 * world)
    assert {plan.steps() for plan in ranks} == {steps}  # as ever
    turns = [list(plan.numbered(4)) for plan in ranks]
    assert {len(keys) for mine in turns for keys, _ in mine} == {5}
    pairs = [
        pair
        for mine in turns
        for keys, copies in mine
        for pair in zip(keys.tolist(), copies.tolist(), strict=True)
    ]
    assert len(set(pairs)) == len(pairs) == 5 * world * steps  # nothing twice on any rank
    counts = Counter(key for key, _ in pairs)
    assert sum(count < repeats for count in counts.values()) <= 1  # where the epoch was cut
    assert max(counts.values()) == repeats
    assert {copy for _, copy in pairs} == set(range(repeats))
    order = torch.randperm(61, generator=torch.Generator().manual_seed(derive_seed(2, 4))).tolist()
    assert set(counts) == set(order[: len(counts)])


@pytest.mark.parametrize("world", [1, 2, 4])
def test_copies_are_in_the_same_step(world: int) -> None:
    ranks = [list(BatchSampler(64, 4, True, 2, rank, world, 4).batches(1)) for rank in range(world)]
    for together in zip(*ranks, strict=True):
        counts = Counter(key for keys in together for key in keys.tolist())
        assert set(counts.values()) == {4}


@pytest.mark.parametrize("repeats", [2, 3])
@pytest.mark.parametrize("world", [1, 2])
def test_no_copy_stands_beside_another_which_it_would_be_mixed_with(
    repeats: int, world: int
) -> None:
    for rank in range(world):
        for keys in BatchSampler(120, 12, True, 1, rank, world, repeats).batches(0):
            assert (keys != keys.roll(1)).all()


def test_one_copy_is_the_order_as_ever() -> None:
    for plan in (BatchSampler(23, 4, True, 3), BatchSampler(23, 4)):
        for keys, copies in plan.numbered(2):
            assert copies.tolist() == [0] * len(keys)
        once = [keys.tolist() for keys in BatchSampler(23, 4, True, 3, repeats=1).batches(2)]
        assert once == [keys.tolist() for keys in BatchSampler(23, 4, True, 3).batches(2)]


# -------------------------------------------------------------------------------- copies in batches


@KINDS
@pytest.mark.parametrize("transforms", [WEAK, STRONGER], ids=["batch", "single"])
def test_every_copy_is_another_view(kind: str, transforms: Sequence[Transform]) -> None:
    made, views = loader(kind, BatchSampler(23, 6, True, 3, repeats=3), transforms=transforms), []
    for epoch in (0, 4):
        for batch in made.epoch(epoch):
            assert Counter(batch.views.tolist()) == {3 * epoch + copy: 2 for copy in range(3)}
            assert torch.equal(batch.images, shown(transforms, 3, batch, batch.views))
            assert torch.equal(batch.target, batch.keys % 5)
            views += zip(batch.keys.tolist(), batch.views.tolist(), strict=True)
    assert len(set(views)) == len(views) == 2 * 3 * 6


@KINDS
@pytest.mark.parametrize("start", [0, 1, 3])
def test_an_epoch_of_copies_can_be_entered_anywhere(kind: str, start: int) -> None:
    made = loader(kind, BatchSampler(23, 6, True, 3, repeats=2), mixing=Mix(0.8, 1.0))
    whole = list(made.epoch(2))
    torch.manual_seed(99)
    found = list(made.epoch(2, start))
    assert len(found) == 3 - start
    assert all(same(a, b) for a, b in zip(found, whole[start:], strict=True))


def test_copies_of_what_is_not_random_are_one_view() -> None:
    made = loader("torch", BatchSampler(23, 6, True, 3, repeats=2), transforms=())
    assert {int(v) for batch in made.epoch(3) for v in batch.views} == {0}


# ---------------------------------------------------------------------------------- the strong view


@KINDS
@pytest.mark.parametrize("strong", [WEAK, STRONGER, (Cutout(),), ()], ids=str)
def test_a_strong_view_stands_beside_the_first(kind: str, strong: Sequence[Transform]) -> None:
    made = loader(kind, strong=strong)
    alone = list(loader(kind).epoch(2))
    for batch, first in zip(made.epoch(2), alone, strict=True):
        assert same(replace(batch, strong=None), first)  # which is what it would be without
        views = torch.full_like(batch.views, 2 if strong else 0)
        wanted = shown(strong, derive_seed(3, STRONG_SEED), batch, views)
        assert torch.equal(batch.strong, wanted)
        assert not torch.equal(
            batch.strong, batch.images
        )  # though it may be of the same transforms


@KINDS
def test_without_there_is_none(kind: str) -> None:
    assert all(batch.strong is None for batch in loader(kind).epoch(0))


def test_the_draws_of_both_have_nothing_in_common() -> None:
    data = source(n=400)
    made = Loader(
        data, BatchSampler(400, 400, True, 3), MEAN, STD, transforms=[Flip()], strong=[Flip()]
    )
    (batch,) = made.epoch(0)
    plain = normalise(data.images[batch.keys], torch.tensor(MEAN), torch.tensor(STD))
    first, second = ((x != plain).flatten(1).any(1) for x in (batch.images, batch.strong))
    assert abs((first == second).double().mean() - 0.5) < 0.1


@KINDS
def test_a_strong_view_is_new_each_epoch_also_where_the_first_is_not(kind: str) -> None:
    made = loader(kind, transforms=(), strong=WEAK)
    for epoch in (0, 5):
        for batch in made.epoch(epoch):
            assert batch.views.tolist() == [0] * 4
            wanted = shown(
                WEAK, derive_seed(3, STRONG_SEED), batch, torch.full_like(batch.views, epoch)
            )
            assert torch.equal(batch.strong, wanted)


@KINDS
def test_numbered_views_number_the_strong_one_too(kind: str) -> None:
    made = loader(kind, strong=STRONGER, views=2, draws=0)
    for epoch in (1, 4):
        for batch in made.epoch(epoch):
            assert batch.views.tolist() == [epoch % 2] * 4
            wanted = shown(STRONGER, derive_seed(0, STRONG_SEED), batch, batch.views)
            assert torch.equal(batch.strong, wanted)


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_and_entries_change_nothing(workers: int) -> None:
    before = torch.get_rng_state()
    whole = list(loader(strong=STRONGER).epoch(1))
    found = list(loader("torch", strong=STRONGER, workers=workers).epoch(1, 2))
    assert all(same(a, b) for a, b in zip(found, whole[2:], strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_copies_have_strong_views_of_their_own() -> None:
    made = loader(plan=BatchSampler(23, 6, True, 3, repeats=3), strong=STRONGER)
    for batch in made.epoch(1):
        assert set(batch.views.tolist()) == {3, 4, 5}
        assert torch.equal(
            batch.strong, shown(STRONGER, derive_seed(3, STRONG_SEED), batch, batch.views)
        )


@KINDS
def test_both_views_must_be_of_one_size(kind: str) -> None:
    with pytest.raises(UserError) as error:
        next(loader(kind, strong=(Resize(5),)).epoch(0))
    assert str(error.value) == (
        "data.transforms gives images of 3 x 8 x 8, but data.strong of 3 x 5 x 5; "
        "set transforms that end in the same size"
    )
