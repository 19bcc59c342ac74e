"""Maps before the ReLU, with the teacher's margins."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import nn

from references import hidden
from settings import heard, setting
from stillhouse.errors import UserError
from stillhouse.functional.pooling import pool
from stillhouse.methods.overhaul import OFD
from stillhouse.models.small import SmallResNet, small_resnet


def teacher() -> SmallResNet:
    """A network whose norms say something."""
    network = small_resnet("medium", 5)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    return network


def margin(gain: float, bias: float) -> float:
    deviation = abs(gain)
    below = stats.norm.cdf(-bias / deviation)
    if below <= 1e-3:
        return -3 * deviation
    return bias - deviation * stats.norm.pdf(bias / deviation) / below


def test_stages_are_compared_before_their_relu_and_deeper_ones_count_twice() -> None:
    at = setting(teacher=teacher())
    method = OFD().build(at)
    taps = ("stage1@pre", "stage2@pre", "stage3@pre")
    assert method.student_taps == method.teacher_taps == taps
    terms = method(heard(at, method))
    assert [term.weight for term in terms.values()] == [0.25e-3, 0.5e-3, 1e-3]


def test_margins_are_those_of_the_last_norm_before_the_relu() -> None:
    at = setting(teacher=teacher())
    method = OFD().build(at)
    for index, stage in enumerate((at.teacher.stage1, at.teacher.stage2, at.teacher.stage3)):
        norm = stage[-1].norm2
        want = [margin(g, b) for g, b in zip(norm.weight.tolist(), norm.bias.tolist(), strict=True)]
        found = method.get_buffer(f"margin{index}")
        assert found.shape == (len(want), 1, 1)
        assert found.flatten().tolist() == pytest.approx(want, rel=1e-5)


def test_a_term_is_what_loops_say_of_the_connected_map() -> None:
    at = setting("tiny", teacher())
    method = OFD(pairs=(("stage1", "stage2"), ("stage2", "stage1"))).build(at)
    lesson = heard(at, method)
    for index, term in enumerate(method(lesson).values()):
        ours, theirs = method.student_taps[index], method.teacher_taps[index]
        student = method.adapters[index](lesson.student.taps[ours])
        goal = pool(lesson.teacher.taps[theirs], *student.shape[2:])
        margin = method.get_buffer(f"margin{index}").flatten().double().tolist()
        want = hidden.partial_squares(student.double().tolist(), goal.double().tolist(), margin)
        assert float(term.total.detach()) == pytest.approx(sum(want).real, rel=1e-4)


def test_the_teacher_is_left_as_it_was() -> None:
    at = setting(teacher=teacher())
    before = {key: value.clone() for key, value in at.teacher.state_dict().items()}
    method = OFD().build(at)
    method(heard(at, method))
    torch.testing.assert_close(at.teacher.state_dict(), before)


def test_a_teacher_without_batch_norm_is_refused() -> None:
    network = small_resnet("medium", 5)
    for block in (network.stage1[0], network.stage2[0], network.stage3[0]):
        block.norm2 = nn.Identity()
        block.shortcut = nn.Identity() if block is network.stage1[0] else block.shortcut[0]
        block.norm1 = nn.Identity()
    with pytest.raises(UserError, match="has no BatchNorm with gain and bias before the ReLU"):
        OFD().build(setting(teacher=network))
