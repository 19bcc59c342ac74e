"""NST at stages, and FSP between stages that follow each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from references import batchwise
from stillhouse.errors import UserError
from stillhouse.functional.pooling import pool
from stillhouse.methods.flow import FSP
from stillhouse.methods.selectivity import NST
from stillhouse.methods.setting import Setting
from stillhouse.models.small import small_resnet
from stillhouse.types import Clock, Lesson
from tiny import Net, lesson

STAGES = ("stage1", "stage2", "stage3")


def setting(student: str = "small", teacher: str = "medium") -> Setting:
    example = torch.zeros(2, 1, 16, 16)
    return Setting(
        small_resnet(student, 4, channels=1), small_resnet(teacher, 4, channels=1), example
    )


def stages(n: int, widths: tuple[int, ...], size: int = 8) -> dict[str, Tensor]:
    return {
        name: torch.randn(n, width, size // 2**i, size // 2**i, dtype=torch.double).requires_grad_()
        for i, (name, width) in enumerate(zip(STAGES, widths, strict=True))
    }


def taught(n: int = 3, teacher: tuple[int, ...] = (16, 32, 64), **fields: Any) -> Lesson:
    return lesson(student=stages(n, (8, 16, 32)), teacher=stages(n, teacher), **fields)


def planes(image: Tensor) -> list[Any]:
    return image.flatten(1).tolist()


def test_selectivity_is_that_of_loops_at_each_stage() -> None:
    method, at = NST().build(setting()).double(), taught()
    terms = method(at)
    assert list(terms) == list(STAGES)
    assert not list(method.parameters())
    for name, term in terms.items():
        pairs = zip(at.student.taps[name], at.teacher.taps[name], strict=True)
        losses = [batchwise.nst(planes(s), planes(t)).real for s, t in pairs]
        torch.testing.assert_close(term.mean().item(), sum(losses) / 3)
        assert (term.weight, float(term.mass)) == (50.0, 3.0)


def test_selectivity_pools_the_larger_map() -> None:
    method = NST(pairs=(("a", "b"),)).build(setting())
    student, teacher = torch.randn(2, 3, 8, 8), torch.randn(2, 5, 4, 4)
    (term,) = method(lesson(student={"a": student}, teacher={"b": teacher})).values()
    losses = [
        batchwise.nst(planes(s), planes(t)).real
        for s, t in zip(pool(student, 4, 4), teacher, strict=True)
    ]
    assert term.mean().item() == pytest.approx(sum(losses) / 2, rel=1e-4)


def test_flow_is_that_of_loops_between_stages() -> None:
    spec = FSP()
    method = spec.build(setting(teacher="small")).double()
    at = taught(teacher=(8, 16, 32))
    assert not list(method.parameters())  # channels agree
    terms = method(at)
    assert list(terms) == ["stage1-stage2", "stage2-stage3"]
    for name, term in terms.items():
        first, second = name.split("-")
        want = 0.0
        for n in range(3):
            both = []
            for trace in (at.student, at.teacher):
                small = trace.taps[second][n]
                large = pool(trace.taps[first], *small.shape[1:])[n]
                both.append((planes(large), planes(small)))
            want += batchwise.fsp(*both).real / 3
        torch.testing.assert_close(term.mean().item(), want)
        assert term.weight == 50.0


def test_flow_has_a_convolution_where_channels_differ() -> None:
    method, at = FSP().build(setting()).double(), taught()
    assert [tuple(p.shape) for p in method.parameters()] == [
        (16, 8, 1, 1),
        (32, 16, 1, 1),
        (64, 32, 1, 1),
    ]
    sum(term.mean() for term in method(at).values()).backward()
    for name in STAGES:
        assert at.student.taps[name].grad.abs().sum() > 0
        assert at.teacher.taps[name].grad is None
    assert all(p.grad.abs().sum() > 0 for p in method.parameters())


@pytest.mark.parametrize("spec", [NST(), FSP()], ids=["nst", "fsp"])
def test_images_count_by_their_weight(spec: Any) -> None:
    method = spec.build(setting()).double()
    at = taught(weight=torch.tensor([1.0, 0.0, 3.0]))
    alone = [
        method(
            lesson(
                student={name: tap[[n]] for name, tap in at.student.taps.items()},
                teacher={name: tap[[n]] for name, tap in at.teacher.taps.items()},
            )
        )
        for n in (0, 2)
    ]
    for name, term in method(at).items():
        first, last = (terms[name].mean() for terms in alone)
        torch.testing.assert_close(term.mean(), (first + 3 * last) / 4)


def test_flow_may_have_the_first_part_of_a_run_to_itself() -> None:
    method = FSP(init=0.25, label_weight=2.0).build(setting()).double()
    seen = []
    for step in (0, 9, 10, 39):
        clock = Clock(step, 40, 10)
        (weight,) = {term.weight for term in method(taught(clock=clock)).values()}
        seen.append((weight, method.share(clock)))
    assert seen == [(50.0, 0.0), (50.0, 0.0), (0.0, 2.0), (0.0, 2.0)]
    beside = FSP().build(setting())
    assert beside.share(Clock(0, 40, 10)) == 1.0


def test_flow_needs_two_stages() -> None:
    with pytest.raises(ValueError, match="at least two stages"):
        FSP(pairs=(("last", "last"),))
    with pytest.raises(ValueError, match="`init` must be a number of epochs, or a share"):
        FSP(init=-1)


class OneStage(nn.Sequential):
    def __init__(self) -> None:
        block = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
        super().__init__(block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def test_networks_with_one_stage_in_common_have_no_flow() -> None:
    one = Setting(OneStage(), OneStage(), torch.zeros(2, 3, 8, 8))
    with pytest.raises(UserError, match="fsp needs at least two stages"):
        FSP(pairs="stages").build(one)


def test_named_stages_may_be_any_maps() -> None:
    net = Setting(Net(), Net(8), torch.zeros(2, 3, 12, 12))
    method = FSP(pairs=(("stem", "stem"), ("body", "body"))).build(net)
    assert method.student_taps == ("stem", "body")
    assert method.names == ["stem-body"]
