"""A teacher that is asked once and quoted afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.errors import UserError
from stillhouse.teachers.frozen import Frozen
from stillhouse.teachers.memory import MemoryCached
from stillhouse.types import Trace
from tiny import Net, batch


class Counting:
    """A frozen teacher that counts what it was asked."""

    def __init__(self) -> None:
        self.frozen: Frozen[Any] = Frozen(Net().double(), lambda rows: (rows.images,))
        self.asked: list[tuple[int, int]] = []

    def __call__(self, rows: Batch) -> Trace:
        self.asked += zip(rows.keys.tolist(), rows.views.tolist(), strict=True)
        return self.frozen(rows)

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {}

    def fingerprint(self) -> str:
        return self.frozen.fingerprint()


def some(rows: Batch, which: list[int], view: int = 0) -> Batch:
    """Some samples of a batch, in one view; each view of a sample is another image."""
    part = rows.rows(torch.tensor(which))
    images, views = part.images + view, torch.full_like(part.keys, view)
    return replace(part, images=images, views=views)


def test_what_is_remembered_is_what_was_said() -> None:
    rows, network = batch(6), Counting()
    teacher = MemoryCached(network, samples=6, views=1, storable=Tensor.detach)
    first = teacher(rows).out
    assert torch.equal(first, network.frozen(rows).out)
    again = teacher(some(rows, [5, 0, 3])).out
    assert torch.equal(again, first[[5, 0, 3]])
    assert again.dtype == first.dtype


def test_a_sample_is_asked_once() -> None:
    rows, network = batch(6), Counting()
    teacher = MemoryCached(network, samples=6, views=1, storable=Tensor.detach)
    for _ in range(3):
        for which in ([0, 1, 2], [3, 4, 5], [5, 1, 3, 0], [2]):
            teacher(some(rows, which))
    assert sorted(network.asked) == [(key, 0) for key in range(6)]


def test_each_view_of_a_sample_is_asked_once() -> None:
    rows, network = batch(4), Counting()
    teacher = MemoryCached(network, samples=4, views=3, storable=Tensor.detach)
    said = {}
    for view in (0, 1, 2, 1, 0, 2):
        part = some(rows, [0, 1, 2, 3], view)
        out = teacher(part).out
        assert torch.equal(out, said.setdefault(view, out))
        assert torch.equal(out, network.frozen(part).out)
    assert len(network.asked) == len(set(network.asked)) == 12
    assert not torch.equal(said[0], said[1])


def test_a_batch_of_which_one_sample_is_new_is_asked_whole() -> None:
    rows, network = batch(4), Counting()
    teacher = MemoryCached(network, samples=4, views=1, storable=Tensor.detach)
    teacher(some(rows, [0, 1]))
    out = teacher(some(rows, [0, 2])).out
    torch.testing.assert_close(out, network.frozen(some(rows, [0, 2])).out)
    assert [key for key, _ in network.asked] == [0, 1, 0, 2]


@pytest.mark.parametrize("views", [0, -1])
def test_infinitely_many_views_are_refused(views: int) -> None:
    with pytest.raises(UserError, match="finitely many views.*data.views=1"):
        MemoryCached(Counting(), samples=4, views=views, storable=Tensor.detach)


def test_it_learns_nothing_and_has_the_fingerprint_of_the_network() -> None:
    network = Counting()
    teacher = MemoryCached(network, samples=4, views=1, storable=Tensor.detach)
    before = teacher.fingerprint()
    teacher(batch(4))
    assert teacher.groups() == {}
    assert teacher.fingerprint() == before == network.fingerprint()
    assert not teacher(batch(4)).out.requires_grad
