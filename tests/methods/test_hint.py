"""Hints through a regressor."""

from __future__ import annotations

import pytest
import torch

from settings import heard, setting
from stillhouse.errors import UserError
from stillhouse.methods.hint import FitNet
from stillhouse.models.adapters import SafeBatchNorm2d


def test_the_second_stage_is_regressed_with_weight_100() -> None:
    at = setting()
    method = FitNet().build(at)
    lesson = heard(at, method)
    (term,) = method(lesson).values()
    hint = method.adapters[0](lesson.student.taps["stage2"])
    want = (hint - lesson.teacher.taps["stage2"]).square().flatten(1).mean(1)
    torch.testing.assert_close(term.total, want.sum())
    assert (term.mass, term.weight) == (4, 100.0)
    assert [type(part).__name__ for part in method.adapters[0]] == [
        "Conv2d",
        "SafeBatchNorm2d",
        "ReLU",
    ]
    assert isinstance(method.adapters[0][1], SafeBatchNorm2d)


def test_a_pointwise_adapter_fits_what_a_regressor_cannot() -> None:
    """The first stage is a half of an odd number of times larger: 8 to 2, and 2 to 8."""
    pairs = (("stage1", "stage3"), ("stage3", "stage1"))
    with pytest.raises(UserError, match="2 x 2 and the teacher's 8 x 8.*adapter 'pointwise'"):
        FitNet(pairs=pairs).build(setting())
    at = setting()
    method = FitNet(adapter="pointwise", pairs=pairs).build(at)
    lesson = heard(at, method)
    taps = lesson.student.taps, lesson.teacher.taps
    terms = method(lesson)
    assert list(terms) == ["stage1", "stage3"]
    ours = method.adapters[0](taps[0]["stage1"])
    pooled = torch.nn.functional.avg_pool2d(ours, 4)
    want = (pooled - taps[1]["stage3"]).square().mean()
    torch.testing.assert_close(terms["stage1"].mean(), want)
    ours = method.adapters[1](taps[0]["stage3"])
    pooled = torch.nn.functional.avg_pool2d(taps[1]["stage1"], 4)
    torch.testing.assert_close(terms["stage3"].mean(), (ours - pooled).square().mean())


def test_vectors_may_be_hints_too() -> None:
    at = setting()
    method = FitNet(adapter="pointwise", pairs=(("penultimate", "penultimate"),)).build(at)
    (term,) = method(heard(at, method)).values()
    assert float(term.mean().detach()) > 0


def test_every_stage_may_be_a_hint() -> None:
    method = FitNet(pairs="stages").build(setting())
    assert method.student_taps == method.teacher_taps == ("stage1", "stage2", "stage3")


def test_no_pairs_are_no_method() -> None:
    with pytest.raises(ValueError, match="at least one student tap"):
        FitNet(pairs=())
