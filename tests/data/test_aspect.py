"""Batches of images of like aspect: one orientation each, in an order by seed and epoch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from stillhouse.data.loader import BatchSampler, Loader
from stillhouse.data.sampler import aspect_groups
from stillhouse.data.source import FromTorch, Pixels, take
from stillhouse.errors import UserError

WORLDS = pytest.mark.parametrize("world", [1, 2, 3])


def groups(samples: int = 50) -> Tensor:
    return (torch.arange(samples) % 3 == 0).long()  # 17 of 50 are wide


def ranks(world: int, seed: int = 1, samples: int = 50, batch: int = 4) -> list[BatchSampler]:
    return [
        BatchSampler(samples, batch, True, seed, rank, world, groups=groups(samples))
        for rank in range(world)
    ]


@WORLDS
def test_a_batch_is_of_one_group_and_no_sample_comes_twice(world: int) -> None:
    for epoch in range(4):
        plans = ranks(world)
        batches = [list(plan.batches(epoch)) for plan in plans]
        # four batches of the 17 wide images, and eight of the 33 others
        assert {len(mine) for mine in batches} == {plan.steps() for plan in plans} == {12 // world}
        found = [batch for mine in batches for batch in mine]
        assert all(len(batch) == 4 and len(groups()[batch].unique()) == 1 for batch in found)
        keys = torch.cat(found).tolist()
        assert len(keys) == len(set(keys)) and set(keys) <= set(range(50))


def test_every_sample_is_seen_in_some_epoch_and_nothing_keeps_its_place() -> None:
    (plan,) = ranks(1)
    epochs = [torch.cat(list(plan.batches(epoch))) for epoch in range(20)]
    assert torch.cat(epochs).unique().tolist() == list(range(50))
    # groups are mixed over an epoch: the wide ones are neither first nor last
    kinds = torch.stack([groups()[keys.view(12, 4)[:, 0]] for keys in epochs]).double()
    assert (kinds.sum(1) == 4).all() and (kinds.mean(0) > 0).all() and (kinds.mean(0) < 0.8).all()


@WORLDS
def test_the_order_follows_seed_and_epoch_and_can_be_entered_anywhere(world: int) -> None:
    for plan, other in zip(ranks(world), ranks(world, seed=2), strict=True):
        whole = torch.stack(list(plan.batches(3)))
        torch.manual_seed(7)
        for start in range(len(whole) + 1):
            rest = list(plan.batches(3, start))
            assert torch.equal(torch.stack([*whole[:start], *rest]), whole)
        assert not torch.equal(whole, torch.stack(list(plan.batches(4))))
        assert not torch.equal(whole, torch.stack(list(other.batches(3))))


def test_one_group_is_an_ordinary_epoch() -> None:
    plan = BatchSampler(10, 3, True, 1, groups=torch.ones(10, dtype=torch.int64))
    assert plan.steps() == BatchSampler(10, 3, True, 1).steps() == 3
    assert len(torch.cat(list(plan.batches(0))).unique()) == 9


@pytest.mark.parametrize("options", [{"repeats": 2, "shuffle": True}, {"shuffle": False}], ids=str)
def test_groups_exclude_repeats_and_evaluation(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="groups need shuffle, and repeats of 1"):
        BatchSampler(10, 2, **options, groups=groups(10))


# ------------------------------------------------------------------------------------ of a source


class Measured(FromTorch):
    """A source that knows the sizes of its images."""

    shapes = torch.tensor([[4, 6], [6, 4], [5, 5], [3, 9], [8, 7], [2, 3]])


def measured() -> Measured:
    images = [torch.zeros(3, *shape, dtype=torch.uint8) for shape in Measured.shapes.tolist()]
    boxes = {"boxes": [[0, 0, 2, 2]], "labels": [0]}
    return Measured([(image, boxes) for image in images], "a", "toy")


def test_groups_are_of_images_wider_than_high() -> None:
    assert aspect_groups(measured()).tolist() == [1, 0, 0, 1, 0, 1]
    part = take(measured(), torch.tensor([3, 1, 5]), "part")
    assert aspect_groups(part).tolist() == [1, 0, 1]
    images = torch.zeros(4, 3, 5, 6, dtype=torch.uint8)
    assert aspect_groups(Pixels(images, None, ("a",), "print", "toy")).tolist() == [1] * 4


def test_a_source_that_does_not_know_its_sizes_is_refused() -> None:
    with pytest.raises(UserError) as error:
        aspect_groups(FromTorch([], "a", "toy"))
    assert str(error.value) == (
        "data.group_by_aspect needs the sizes of images, which toy does not know without reading "
        "them; leave data.group_by_aspect out"
    )


def test_batches_of_the_loader_are_padded_little() -> None:
    sampler = BatchSampler(6, 3, True, 1, groups=aspect_groups(measured()))
    for batch in Loader(measured(), sampler, (0.5,) * 3, (0.5,) * 3).epoch(0):
        height, width = batch.sizes.unbind(1)
        assert len((width > height).unique()) == 1


def test_a_group_that_fills_no_batch_is_refused() -> None:
    sampler = BatchSampler(6, 2, True, 1, groups=torch.tensor([1, 0, 0, 0, 0, 0]))
    with pytest.raises(UserError) as error:
        Loader(measured(), sampler, (0.5,) * 3, (0.5,) * 3)
    assert str(error.value) == (
        "toy: data.group_by_aspect makes a group of 1, which is smaller than data.batch, 2; set a "
        "smaller data.batch, or leave data.group_by_aspect out"
    )
