"""A teacher that moves: what of it does, what it says meanwhile, and that it can be put back."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError
from stillhouse.methods.per_teacher import member_trace
from stillhouse.models import zoo
from stillhouse.models.ensemble import Ensemble
from stillhouse.models.last_layers import last_layers
from stillhouse.models.taps import Tapped
from stillhouse.tasks.classification import Classification
from stillhouse.teachers.base import observe
from stillhouse.teachers.frozen import Frozen
from stillhouse.teachers.learner import Learner
from tiny import CLOCK, Looking, Net, batch

INPUTS = Classification().inputs


def learner(layers: tuple[str, ...] = ("body", "head")) -> Learner:
    return Learner(Net(8).double(), INPUTS, layers, ["flat"])


def test_what_it_learns_from_has_a_gradient_and_what_others_see_has_none() -> None:
    trace = learner()(batch())
    assert trace.out.requires_grad and trace.taps["flat"].requires_grad
    plain = trace.detached()
    assert not plain.out.requires_grad and not plain.taps["flat"].requires_grad
    assert torch.equal(plain.out, trace.out) and torch.equal(plain.taps["flat"], trace.taps["flat"])


def test_one_forward_serves_the_loss_that_moves_it_and_all_others() -> None:
    method = Looking(moves_teacher=True, teacher_taps=("flat",))
    pupil: Pupil[Any] = Pupil(Tapped(Net().double()), method, Classification(5))
    teacher, rows, calls = learner(), batch(), []
    teacher.network.model.register_forward_hook(lambda *_: calls.append(1))
    pupil(rows, observe(teacher, rows), CLOCK)
    sites, trace = method.lesson.sites, method.lesson.teacher
    assert len(calls) == 1
    assert not trace.out.requires_grad and not trace.taps["flat"].requires_grad
    assert not sites["class"].teacher.requires_grad and sites["class"].student.requires_grad
    assert sites["class@teacher"].teacher.requires_grad
    assert not sites["class@teacher"].student.requires_grad
    assert torch.equal(sites["class"].teacher, sites["class@teacher"].teacher)


def test_only_the_named_layers_move() -> None:
    teacher = learner()
    before = copy.deepcopy(teacher.network.model.state_dict())
    trace = teacher(batch())
    trace.out.square().sum().backward()
    (own,) = teacher.groups().values()
    torch.optim.SGD(own, lr=0.1).step()
    after = teacher.network.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"body.weight", "body.bias", "head.weight", "head.bias"}


def test_it_stays_in_eval_mode() -> None:
    teacher = learner()
    teacher.network.train()
    teacher(batch())
    assert not any(part.training for part in teacher.network.modules())


def test_its_state_can_be_taken_up_and_its_beginning_seen_again() -> None:
    teacher, other = learner(), learner()
    first = teacher.fingerprint()
    with torch.no_grad():
        for parameter in teacher.trainable.values():
            parameter.add_(1)
    moved = teacher.fingerprint()
    assert moved != first
    with teacher.initial_weights() as network:
        assert network is teacher.network.model and teacher.fingerprint() == first
    assert teacher.fingerprint() == moved
    other.network.model.load_state_dict({**other.network.model.state_dict(), **teacher.state()})
    other.restore(teacher.state())
    assert all(torch.equal(value, teacher.state()[name]) for name, value in other.state().items())


def test_the_last_block_and_the_head_close_a_network() -> None:
    example = torch.zeros(2, 3, 32, 32)
    for name, want in {
        "stillhouse/small": ["stage3.0", "head"],
        "cifar/resnet20": ["stage3.2", "head"],
        "torchvision/resnet18": ["layer4.1", "fc"],
        "timm/resnet18": ["layer4.1", "fc"],
    }.items():
        assert last_layers(zoo.create(name, 10), example) == want, name
    with pytest.raises(UserError, match="name the layers that acclimation moves"):
        last_layers(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU()), example)


def test_both_views_are_asked_apart() -> None:
    rows = batch()
    rows = replace(rows, strong=rows.images.flip(-1))
    frozen = Frozen(Net(8).double(), INPUTS)
    traces = observe(frozen, rows, views=2)
    assert list(traces) == ["", "strong"] and list(observe(frozen, rows)) == [""]
    assert torch.equal(traces[""].out, frozen(rows).out)
    assert torch.equal(traces["strong"].out, frozen(replace(rows, images=rows.strong)).out)
    with pytest.raises(UserError, match="needs two views of each image"):
        observe(frozen, batch(), views=2)


def test_several_teachers_speak_apart_and_as_one() -> None:
    members, rows = [Net(4).double(), Net(8).double()], batch()
    taps = ["members.0", "members.1", "members.0.flat", "members.1.stem"]
    trace = Frozen(Ensemble(members), INPUTS, taps)(rows)
    said = [member(rows.images) for member in members]
    torch.testing.assert_close(trace.out, (said[0] + said[1]) / 2)
    apart = [member_trace(trace, number) for number in range(2)]
    assert torch.equal(apart[0].out, said[0])
    assert torch.equal(apart[1].out, said[1])
    assert [*apart[0].taps] == ["flat"] and [*apart[1].taps] == ["stem"]
    assert torch.equal(apart[1].taps["stem"], members[1].stem(rows.images))
