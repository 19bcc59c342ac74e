"""A network that only speaks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.errors import UserError
from stillhouse.teachers.frozen import Frozen, NoTeacher
from tiny import Net, batch


class Noisy(Net):
    """With what differs between train and eval."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5)
        self.drop = nn.Dropout(0.5)


def images(rows: Batch) -> tuple[Tensor]:
    return (rows.images,)


@pytest.fixture
def network() -> Noisy:
    return Noisy().double()


@pytest.fixture
def teacher(network: Noisy) -> Frozen[Any]:
    return Frozen(network, images, taps=["stem"])


def test_it_says_what_the_network_says_in_eval_mode(network: Noisy, teacher: Frozen[Any]) -> None:
    rows = batch()
    trace = teacher(rows)
    assert torch.equal(trace.out, network.eval()(rows.images))
    assert torch.equal(trace.taps["stem"], network.stem(rows.images))


def test_train_mode_of_others_does_not_reach_it(network: Noisy, teacher: Frozen[Any]) -> None:
    rows = batch()
    said = teacher(rows).out
    network.train()
    assert torch.equal(teacher(rows).out, said)
    assert not any(module.training for module in network.modules())


def test_nothing_of_it_has_a_gradient(network: Noisy, teacher: Frozen[Any]) -> None:
    rows = batch()
    trace = teacher(replace(rows, images=rows.images.requires_grad_()))
    assert not trace.out.requires_grad
    assert not trace.taps["stem"].requires_grad
    assert not any(p.requires_grad for p in network.parameters())
    assert teacher.groups() == {}


def test_its_statistics_and_its_fingerprint_do_not_move(
    network: Noisy, teacher: Frozen[Any]
) -> None:
    before, buffers = teacher.fingerprint(), [b.clone() for b in network.buffers()]
    network.train()
    for _ in range(3):
        teacher(batch())
    assert all(map(torch.equal, buffers, network.buffers()))
    assert teacher.fingerprint() == before


@pytest.mark.parametrize("name", ["head.weight", "norm.running_mean"])
def test_its_fingerprint_is_of_every_parameter_and_buffer(
    network: Noisy, teacher: Frozen[Any], name: str
) -> None:
    before = teacher.fingerprint()
    with torch.no_grad():
        network.state_dict()[name].view(-1)[0] += 1e-9
    assert teacher.fingerprint() != before


def test_two_networks_have_two_fingerprints() -> None:
    first, second = Noisy(), Noisy()
    assert Frozen(first, images).fingerprint() != Frozen(second, images).fingerprint()
    second.load_state_dict(first.state_dict())
    assert Frozen(first, images).fingerprint() == Frozen(second, images).fingerprint()


def test_a_module_that_holds_it_does_not_hold_its_parameters(teacher: Frozen[Any]) -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.teacher = teacher
            self.own = nn.Linear(2, 2)

    holder = Holder().train()
    assert [name for name, _ in holder.named_parameters()] == ["own.weight", "own.bias"]
    assert list(holder.state_dict()) == ["own.weight", "own.bias"]


def test_a_tap_that_is_not_there_is_said_at_once(network: Noisy) -> None:
    with pytest.raises(UserError, match="stme"):
        Frozen(network, images, taps=["stme"])


def test_an_absent_teacher_says_nothing() -> None:
    absent: NoTeacher[Batch] = NoTeacher()
    trace = absent(batch())
    assert trace.out is None
    assert dict(trace.taps) == {}
    assert absent.groups() == {}
    assert absent.fingerprint() == ""
