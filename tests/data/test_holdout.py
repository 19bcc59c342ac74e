"""Validation and test that are held out of one source, for every kind of target."""

from __future__ import annotations

import pytest
import torch

from stillhouse.batches import Objects, Target
from stillhouse.data.holdout import hold_out, hold_out_parts
from stillhouse.data.source import Pixels, classes_of
from stillhouse.errors import UserError

PARTS = ("val", "test")


def labels() -> Target:
    return torch.arange(100) // 40  # 40, 40 and 20 samples of a class


def several() -> Target:
    made = labels()
    assert isinstance(made, torch.Tensor)
    return torch.nn.functional.one_hot(made, 3).float()


def boxes() -> Target:
    made = labels()
    assert isinstance(made, torch.Tensor)
    return Objects(torch.ones(100, 4), made, torch.arange(100), images=100)


def masks() -> Target:
    made = labels()
    assert isinstance(made, torch.Tensor)
    return made[:, None, None].expand(100, 4, 4).contiguous()


def source(targets: Target) -> Pixels:
    images = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(100, 1, 4, 4)
    return Pixels(images.contiguous(), targets, ("a", "b", "c"), "print", "toy")


@pytest.mark.parametrize("make", [labels, several, boxes, masks])
@pytest.mark.parametrize("amount", [20, 0.2])
def test_two_parts_are_stratified_and_disjoint(make, amount: int | float) -> None:
    whole = source(make())
    train, val, test = hold_out_parts(whole, amount, PARTS)
    assert [len(part) for part in (train, val, test)] == [60, 20, 20]
    kept = torch.cat([part.images[:, 0, 0, 0] for part in (train, val, test)])
    assert kept.sort().values.tolist() == list(range(100))
    for part, counts in ((train, [24, 24, 12]), (val, [8, 8, 4]), (test, [8, 8, 4])):
        found = classes_of(part)
        rows = torch.nn.functional.one_hot(found, 3) if found.ndim == 1 else found
        assert rows.sum(0).tolist() == counts
    assert [part.name for part in (train, val, test)] == ["toy/train", "toy/val", "toy/test"]
    assert len({whole.fingerprint, train.fingerprint, val.fingerprint, test.fingerprint}) == 4


def test_validation_does_not_depend_on_test() -> None:
    whole = source(labels())
    assert hold_out_parts(whole, 20, PARTS)[1].fingerprint == hold_out(whole, 20)[1].fingerprint


@pytest.mark.parametrize("amount", [50, 0.5, 0.001, 0])
def test_more_than_there_is_cannot_be_held_out_twice(amount: int | float) -> None:
    wanted = (
        f"toy: cannot hold out {amount} of 100 samples for each of val and test; give a count "
        "below 50 or a fraction between 0 and 0.5"
    )
    with pytest.raises(UserError) as caught:
        hold_out_parts(source(labels()), amount, PARTS)
    assert str(caught.value) == wanted
