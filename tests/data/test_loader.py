from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

import tiny
from stillhouse.batches import Batch
from stillhouse.data.loader import BatchSampler, Loader
from stillhouse.data.random import derive_seed
from stillhouse.data.source import FromTorch, Pixels, Sample, Source
from stillhouse.data.transforms import (
    CenterCrop,
    Crop,
    Flip,
    Resize,
    ResizedCrop,
    Transform,
    transform_batch,
)
from stillhouse.engine.devices import available_cores, describe_excess_workers
from stillhouse.errors import UserError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
RANDOM = (Crop(2), Flip())
KINDS = pytest.mark.parametrize("kind", ["pixels", "torch"])


def pixels(n: int = 23, channels: int = 3, size: int = 6) -> Pixels:
    made = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (n, channels, size, size), generator=made).to(torch.uint8)
    labels = torch.randint(0, 5, (n,), generator=made)
    return Pixels(images, labels, tuple("abcde"), "print", "toy")


def source(kind: str, n: int = 23) -> Source:
    """The same samples in memory, which are served batch by batch, or one by one."""
    data = pixels(n)
    if kind == "pixels":
        return data
    return FromTorch(
        list(zip(data.images, data.targets.tolist(), strict=True)), data.classes, "toy"
    )


def loader(
    data: Source | None = None,
    plan: BatchSampler | None = None,
    transforms: Sequence[Transform] = RANDOM,
    **options: Any,
) -> Loader:
    plan = plan or BatchSampler(23, 4, shuffle=True, seed=3)
    return Loader(data or pixels(), plan, MEAN, STD, transforms=transforms, **options)


def same(a: Iterable[Batch], b: Iterable[Batch]) -> bool:
    return all(tiny.same(x, y) for x, y in zip(a, b, strict=True))


def keys(batches: Iterable[Batch]) -> list[int]:
    return [key for batch in batches for key in batch.keys.tolist()]


# --------------------------------------------------------------------------------------- the order


@pytest.mark.parametrize("batch", [1, 4, 23])
@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_training_order_is_a_permutation_by_seed_and_epoch(batch: int, epoch: int) -> None:
    plan = BatchSampler(23, batch, shuffle=True, seed=3)
    found = torch.cat(list(plan.batches(epoch))).tolist()
    assert plan.steps() == 23 // batch
    assert len(found) == len(set(found)) == 23 // batch * batch
    made = torch.Generator().manual_seed(derive_seed(3, epoch))
    assert found == torch.randperm(23, generator=made)[: len(found)].tolist()


def test_orders_differ_by_epoch_and_seed() -> None:
    plan = BatchSampler(100, 10, shuffle=True)
    orders = [
        torch.cat(list(replace(plan, seed=seed).batches(epoch))).tolist()
        for seed in range(3)
        for epoch in range(3)
    ]
    assert all(sorted(order) == list(range(100)) for order in orders)
    assert len({tuple(order) for order in orders}) == 9


def test_evaluation_is_in_order() -> None:
    plan = BatchSampler(23, 4)
    found = [batch.tolist() for batch in plan.batches(epoch=5)]
    assert found == [list(range(i, min(i + 4, 23))) for i in range(0, 23, 4)]
    assert plan.steps() == 6


@pytest.mark.parametrize("samples", [24, 25, 29, 31])
@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_train_on_samples_of_their_own_for_equally_many_steps(
    samples: int, world: int
) -> None:
    ranks = [
        BatchSampler(samples, 3, True, seed=1, rank=rank, world=world) for rank in range(world)
    ]
    batches = [list(plan.batches(2)) for plan in ranks]
    assert {len(mine) for mine in batches} == {samples // (3 * world)} == {ranks[0].steps()}
    assert {len(batch) for mine in batches for batch in mine} == {3}
    found = torch.cat([batch for mine in batches for batch in mine]).tolist()
    assert len(found) == len(set(found)) == samples // (3 * world) * 3 * world
    # Step by step, all ranks together take what one rank of a batch so much larger would.
    whole = list(BatchSampler(samples, 3 * world, True, seed=1).batches(2))
    for step, together in enumerate(whole):
        theirs = torch.cat([mine[step] for mine in batches])
        assert sorted(theirs.tolist()) == sorted(together.tolist())


@pytest.mark.parametrize("samples", [4, 5, 23, 24, 25])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_ranks_evaluate_each_sample_once(samples: int, world: int) -> None:
    ranks = [BatchSampler(samples, 3, rank=rank, world=world) for rank in range(world)]
    found = [index for plan in ranks for batch in plan.batches(0) for index in batch.tolist()]
    assert sorted(found) == list(range(samples))
    assert all(len(list(plan.batches(0))) == plan.steps() for plan in ranks)


# ------------------------------------------------------------------------------------- what comes


@KINDS
@pytest.mark.parametrize("epoch", [0, 2])
def test_batches_are_the_samples_changed_and_normalised(kind: str, epoch: int) -> None:
    data, made = pixels(), loader(source(kind))
    plan = made.sampler
    for batch, wanted in zip(made.epoch(epoch), plan.batches(epoch), strict=True):
        assert torch.equal(batch.keys, wanted)
        assert torch.equal(batch.target, data.targets[wanted])
        assert batch.views.tolist() == [epoch] * 4
        bytes_ = transform_batch(data.images[wanted], RANDOM, 3, wanted, batch.views).double()
        mean, std = (torch.tensor(x, dtype=torch.double).view(3, 1, 1) for x in (MEAN, STD))
        exact = (bytes_ / 255 - mean) / std
        assert batch.images.dtype == torch.float32
        torch.testing.assert_close(batch.images.double(), exact, rtol=1e-5, atol=1e-5)


def test_both_ways_give_the_same() -> None:
    for epoch in range(3):
        ours, theirs = (loader(source(kind)).epoch(epoch) for kind in ("pixels", "torch"))
        assert same(ours, theirs)


def test_memory_goes_image_by_image_where_a_transform_has_to() -> None:
    made = loader(transforms=[ResizedCrop(4), Flip()])
    batches = list(made.epoch(0))
    assert {tuple(batch.images.shape) for batch in batches} == {(4, 3, 4, 4)}
    assert keys(batches) == torch.cat(list(made.sampler.batches(0))).tolist()
    for batch in batches:
        assert torch.equal(batch.target, pixels().targets[batch.keys])


@KINDS
@pytest.mark.parametrize("start", range(7))
def test_an_epoch_can_be_entered_anywhere(kind: str, start: int) -> None:
    made = loader(source(kind))
    whole = list(made.epoch(4))
    assert len(whole) == len(made) == 5
    assert same(made.epoch(4, start=start), whole[start:])


@pytest.mark.parametrize("start", [0, 2])
def test_an_epoch_of_random_crops_can_be_entered_anywhere(start: int) -> None:
    transforms = [ResizedCrop(5), Crop(1)]
    whole = list(loader(source("torch"), transforms=transforms).epoch(4))
    torch.manual_seed(99)
    assert same(loader(source("torch"), transforms=transforms).epoch(4, start), whole[start:])


def test_an_evaluation_can_be_entered_anywhere() -> None:
    made = loader(plan=BatchSampler(23, 4), transforms=())
    whole = list(made.epoch(0))
    assert [len(batch.keys) for batch in whole] == [4] * 5 + [3]
    assert same(made.epoch(0, start=5), whole[5:])
    assert list(made.epoch(0, start=6)) == []


@KINDS
def test_a_batch_follows_seed_epoch_and_step_alone(kind: str) -> None:
    first = list(loader(source(kind)).epoch(2))
    torch.manual_seed(41)
    made = loader(source(kind))
    list(made.epoch(0)), next(made.epoch(1))
    assert same(made.epoch(2), first)
    assert not same(made.epoch(3), first)
    assert not same(loader(source(kind), BatchSampler(23, 4, True, seed=4)).epoch(2), first)


@KINDS
def test_ranks_see_what_one_would(kind: str) -> None:
    """An image in a view is the same, whoever asks."""
    one = {k: x for b in loader(source(kind)).epoch(1) for k, x in zip(b.keys.tolist(), b.images)}  # noqa: B905
    for rank in range(2):
        made = loader(source(kind), BatchSampler(23, 4, True, 3, rank, 2))
        for batch in made.epoch(1):
            for key, image in zip(batch.keys.tolist(), batch.images, strict=True):
                assert key not in one or torch.equal(image, one[key])


@KINDS
@pytest.mark.parametrize("transforms", [RANDOM, (ResizedCrop(5),), ()], ids=["b", "s", "none"])
def test_numbers_of_the_networks_are_left_alone(kind: str, transforms: Sequence[Transform]) -> None:
    """Dropout after a resume goes on where it was, though the epoch is entered once more."""
    before = torch.get_rng_state()
    list(loader(source(kind), transforms=transforms).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("transforms", [RANDOM, (ResizedCrop(5), Flip())], ids=["batch", "single"])
def test_workers_change_nothing(transforms: Sequence[Transform]) -> None:
    alone = list(loader(source("torch"), transforms=transforms).epoch(1))
    before = torch.get_rng_state()
    made = loader(source("torch"), transforms=transforms, workers=2)
    assert same(made.epoch(1, start=1), alone[1:])
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------------------------------- the views


@KINDS
@pytest.mark.parametrize(
    "transforms, views, wanted",
    [
        (RANDOM, None, [0, 1, 2, 3, 4, 5]),
        (RANDOM, 1, [0, 0, 0, 0, 0, 0]),
        (RANDOM, 3, [0, 1, 2, 0, 1, 2]),
        ((), None, [0] * 6),
        ((), 3, [0] * 6),
        ((Resize(5), CenterCrop(4)), None, [0] * 6),
        ((Resize(5), Flip()), 2, [0, 1, 0, 1, 0, 1]),
    ],
    ids=str,
)
def test_views(
    kind: str, transforms: Sequence[Transform], views: int | None, wanted: list[int]
) -> None:
    made = loader(source(kind), transforms=transforms, views=views)
    found = [batch.views.unique().tolist() for epoch in range(6) for batch in made.epoch(epoch, 4)]
    assert found == [[view] for view in wanted]


def test_a_view_is_the_same_in_each_epoch_that_shows_it() -> None:
    made = loader(views=2)

    def shown(epoch: int) -> dict[int, Tensor]:
        batches = list(made.epoch(epoch))
        return {k: x for b in batches for k, x in zip(b.keys.tolist(), b.images, strict=True)}

    epochs = [shown(epoch) for epoch in range(4)]
    for epoch in (0, 1):
        both = epochs[epoch].keys() & epochs[epoch + 2].keys()
        assert all(torch.equal(epochs[epoch][key], epochs[epoch + 2][key]) for key in both)
    both = epochs[0].keys() & epochs[1].keys()
    assert sum(torch.equal(epochs[0][key], epochs[1][key]) for key in both) < len(both) / 3


@KINDS
@pytest.mark.parametrize("transforms", [RANDOM, (ResizedCrop(5), Flip())], ids=["batch", "single"])
def test_what_is_random_in_views_can_have_a_seed_of_its_own(
    kind: str, transforms: Sequence[Transform]
) -> None:
    def shown(seed: int) -> tuple[list[int], dict[int, Tensor]]:
        plan = BatchSampler(23, 23, True, seed)
        made = loader(source(kind), plan, transforms, views=2, draws=0)
        (batch,) = made.epoch(1)
        return batch.keys.tolist(), dict(zip(batch.keys.tolist(), batch.images, strict=True))

    (order, ours), (other, theirs) = shown(1), shown(2)
    assert order != other and sorted(order) == sorted(other)
    assert all(torch.equal(image, theirs[key]) for key, image in ours.items())


@pytest.mark.parametrize("views", [0, -1])
def test_views_must_be_some(views: int) -> None:
    with pytest.raises(UserError, match=f"^data.views must be at least 1, got {views}"):
        loader(views=views)


# ----------------------------------------------------------------------------------------- mistakes


class Ragged(FromTorch):
    def __getitem__(self, index: int) -> Sample:
        return Sample(torch.zeros(3, 4 + index % 2, 4, dtype=torch.uint8), 0, index)


class Broken(FromTorch):
    def __getitem__(self, index: int) -> Sample:
        raise UserError(f"sample {index} is damaged; mend it")


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_different_shapes_are_refused(workers: int) -> None:
    made = loader(Ragged([0] * 23, "a", "ragged"), transforms=(), workers=workers)
    with pytest.raises(UserError) as error:
        next(made.epoch(0))
    assert str(error.value) == (
        "images of one batch have different shapes ((3, 4, 4) and (3, 5, 4)); add "
        "transforms to one size, such as resize and center_crop"
    )
    alike = loader(Ragged([0] * 23, "a", "ragged"), transforms=(Resize(4, square=True),))
    assert next(alike.epoch(0)).images.shape == (4, 3, 4, 4)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_source_complains_of_stays_one_sentence(workers: int) -> None:
    made = loader(Broken([0] * 23, "a", "broken"), BatchSampler(23, 4), workers=workers)
    with pytest.raises(UserError) as error:
        next(made.epoch(0))
    assert str(error.value) == "sample 0 is damaged; mend it"


@KINDS
@pytest.mark.parametrize("channels", [1, 4])
def test_means_must_be_as_many_as_channels(kind: str, channels: int) -> None:
    made = Loader(source(kind), BatchSampler(23, 4), (0.5,) * channels, (0.5,) * channels)
    with pytest.raises(UserError) as error:
        next(made.epoch(0))
    assert str(error.value) == (
        f"toy has 3 channels, but data.mean has {channels} numbers; set data.mean and data.std to "
        "one number per channel"
    )


@pytest.mark.parametrize(
    "plan",
    [
        BatchSampler(23, 24, True),
        BatchSampler(23, 12, True, world=2),
        BatchSampler(23, 8, True, world=3),
    ],
    ids=str,
)
def test_too_few_samples_are_refused(plan: BatchSampler) -> None:
    with pytest.raises(UserError) as error:
        loader(plan=plan)
    assert str(error.value) == (
        f"toy has 23 samples, too few for one batch of {plan.batch} on {plan.world} ranks; "
        "set a smaller data.batch"
    )


def test_evaluation_needs_no_whole_batch() -> None:
    made = loader(plan=BatchSampler(23, 500), transforms=())
    assert keys(made.epoch(0)) == list(range(23))


def test_many_workers_are_no_warning_of_torch(recwarn: pytest.WarningsRecorder) -> None:
    made = loader(source("torch"), transforms=(), workers=available_cores() + 1)
    assert len([*made.epoch(0)]) == len(made)
    assert [str(warning.message) for warning in recwarn if "worker" in str(warning.message)] == []
    assert describe_excess_workers(available_cores()) == ""
    sentence = describe_excess_workers(available_cores() + 1)
    assert sentence.endswith(f"set engine.workers={available_cores()}")
