"""What comes out of a store against what the teacher says, up to the store's precision."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from stores import CLASSES, ROWS, SAMPLES, VIEWS, Counting, filled, read, rows_of
from torch import Tensor

from stillhouse.errors import UserError
from stillhouse.objectives import presets
from stillhouse.teachers.store.cached import DiskCached
from stillhouse.teachers.store.outputs import RowFormat

SHUFFLED = [7, 0, 19, 3, 12, 8]


def through(form: RowFormat, out: Tensor) -> Tensor:
    return form.unpack(form.pack(out), torch.device("cpu"))


def test_in_full_precision_it_says_exactly_what_the_teacher_said(tmp_path: Path) -> None:
    live, stored = Counting(), DiskCached(filled(tmp_path / "store"))
    batches = list(read(0))
    assert sum(len(batch.keys) for batch in batches) == ROWS
    for batch in batches:
        assert torch.equal(stored(batch).out, live(batch).out)


@pytest.mark.parametrize("view", range(VIEWS))
def test_samples_are_found_in_any_order_and_view(tmp_path: Path, view: int) -> None:
    stored = DiskCached(filled(tmp_path / "store"))
    batch = rows_of(SHUFFLED, view)
    out = stored(batch).out
    torch.testing.assert_close(out, Counting()(batch).out, rtol=1e-5, atol=1e-6)
    assert not torch.equal(out, stored(rows_of(SHUFFLED, (view + 1) % VIEWS)).out)
    assert out.dtype == torch.float32 and not out.requires_grad
    out.zero_()  # and what is done to an answer is not done to the store
    assert stored(batch).out.abs().min() > 0


def test_half_precision_rounds_once(tmp_path: Path) -> None:
    live, stored = Counting(), DiskCached(filled(tmp_path / "store", RowFormat(CLASSES)))
    for batch in read(0):
        said, kept = live(batch).out, stored(batch).out
        below = said.amax(1, keepdim=True) - said  # what is rounded
        single = 2**-23 * said.abs().max()
        assert ((kept - said).abs() <= below * 2**-11 + 2**-25 + single).all()
        assert torch.equal(kept.amax(1), said.amax(1)) and not torch.equal(kept, said)


@pytest.mark.parametrize("precision", ["full", "half"])
@pytest.mark.parametrize("classes, top", [(5, 1), (5, 4), (100, 10), (70_000, 3)])
def test_the_highest_are_kept_and_the_rest_has_its_mass(
    precision: str, classes: int, top: int
) -> None:
    said = 4 * torch.randn(6, classes)
    form = RowFormat(classes, precision, top)  # type: ignore[arg-type]
    kept = through(form, said)
    for before, after in zip(said.double().tolist(), kept.double().tolist(), strict=True):
        ours, theirs = plain_softmax(before), plain_softmax(after)
        order = sorted(range(classes), key=lambda c: -before[c])
        best, rest = order[:top], order[top:]
        apart = before[best[0]] - before[best[-1]]
        exact = 1e-6 if precision == "full" else 1e-6 + 2 * apart * 2**-11
        for c in best:
            assert theirs[c] == pytest.approx(ours[c], rel=exact)
        total = sum(ours[c] for c in rest)
        assert sum(theirs[c] for c in rest) == pytest.approx(total, rel=exact)
        assert {after[c] for c in rest} == {after[rest[0]]}
        assert max(theirs[c] for c in rest) <= min(theirs[c] for c in best) * (1 + exact)


def plain_softmax(logits: list[float]) -> list[float]:
    highest = max(logits)
    powers = [math.exp(x - highest) for x in logits]
    total = math.fsum(powers)
    return [power / total for power in powers]


def test_it_is_as_small_as_it_says() -> None:
    sizes = {
        RowFormat(1000, "full"): 4000,
        RowFormat(1000): 2000 + 4,
        RowFormat(1000, "half", 10): 10 * (2 + 2) + 4 + 4,
        RowFormat(1000, "full", 10): 10 * (4 + 2) + 4,
        RowFormat(70_000, "half", 10): 10 * (2 + 4) + 4 + 4,
    }
    for form, size in sizes.items():
        assert sum(column.size for column in form.columns().values()) == size
        rows = form.pack(torch.randn(3, form.classes))
        assert sum(column.nbytes for column in rows.values()) == 3 * size
        assert all(rows[name].dtype == column.kind for name, column in form.columns().items())


# ------------------------------------------------------------------------------------ its gradients

METHODS = {"kd": presets.kd(), "dkd": presets.dkd(beta=2), "dist": presets.dist()}


def gradient(method: str, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    student = student.clone().requires_grad_()
    METHODS[method](student, teacher, target).backward()
    assert student.grad is not None
    return student.grad


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "form, tolerance",
    [(RowFormat(CLASSES, "full"), 0), (RowFormat(CLASSES), 2e-3)],
    ids=["full", "half"],
)
def test_gradients_are_those_of_the_live_teacher(
    tmp_path: Path, method: str, form: RowFormat, tolerance: float
) -> None:
    stored, live = DiskCached(filled(tmp_path / "store", form)), Counting()
    for batch in read(0):
        student = 2 * torch.randn(len(batch.keys), CLASSES)
        ours = gradient(method, student, stored(batch).out, batch.target)
        theirs = gradient(method, student, live(batch).out, batch.target)
        assert theirs.abs().max() > 0
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


def test_with_the_highest_alone_the_gradient_of_each_of_them_is_right() -> None:
    """At temperature 1, where the gradient of a class follows its probability alone."""
    student, teacher = 2 * torch.randn(2, 8, 50)
    kept = through(RowFormat(50, "full", 5), teacher)
    loss = presets.kd(temperature=1.0, weight=1.0)

    def of(said: Tensor) -> Tensor:
        leaf = student.clone().requires_grad_()
        loss(leaf, said).backward()
        assert leaf.grad is not None
        return leaf.grad

    best = teacher.topk(5).indices
    torch.testing.assert_close(of(kept).gather(1, best), of(teacher).gather(1, best))
    assert not torch.allclose(of(kept), of(teacher))
    torch.testing.assert_close(  # and what the others share is what they shared
        of(kept).scatter(1, best, 0).sum(1), of(teacher).scatter(1, best, 0).sum(1)
    )


# ---------------------------------------------------------------------------------- what it is not


def test_it_is_the_teacher_that_filled_it_and_learns_nothing(tmp_path: Path) -> None:
    stored = DiskCached(filled(tmp_path / "store"))
    assert stored.fingerprint() == Counting().fingerprint()
    assert stored.groups() == {}


def test_what_half_precision_cannot_hold_is_refused() -> None:
    out = torch.tensor([[1.0, -70_000.0], [0.0, 3.0]])
    words = (
        r"logits of one image differ by up to 7e\+04, which half .*teacher\.store\.precision=full"
    )
    with pytest.raises(UserError, match=words):
        RowFormat(2).pack(out)
    assert torch.equal(through(RowFormat(2, "full"), out), out)
    assert torch.equal(
        through(RowFormat(2, "half", 1), out), out
    )  # here the other class is the rest
    shifted = torch.tensor([[70_000.0, 70_001.5]])  # which no half is, and their distance is
    assert torch.equal(through(RowFormat(2), shifted), shifted)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    "form", [RowFormat(3), RowFormat(3, "full"), RowFormat(3, "full", 1)], ids=str
)
def test_what_is_no_number_is_refused(form: RowFormat, value: float) -> None:
    with pytest.raises(UserError, match="not finite .*check its weights"):
        form.pack(torch.tensor([[0.0, 1.0, value]]))


@pytest.mark.parametrize("top", [0, 5, 6])
def test_more_than_all_but_one_are_all(top: int) -> None:
    with pytest.raises(UserError, match=rf"top must be from 1 to 4 for 5 classes, got {top}"):
        RowFormat(5, top=top)


def test_files_are_read_where_they_lie(tmp_path: Path) -> None:
    """Mapped, so that processes share one copy in memory."""
    store = filled(tmp_path / "store")
    store.open()
    arrays = store._arrays
    assert arrays is not None and all(isinstance(a, np.memmap) for a in arrays.values())
    assert {a.shape[0] for a in arrays.values()} == {SAMPLES * VIEWS}
    with pytest.raises(ValueError, match="read-only"):
        arrays["logits"][0] = 0
