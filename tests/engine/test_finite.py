"""What is NaN or infinite is refused by name: in outputs and in weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from engine.parts import CLASSES, Fixed, make_run
from quick import kept_teacher, run
from stillhouse.batches import Batch
from stillhouse.engine import train as training
from stillhouse.engine.devices import Hardware
from stillhouse.engine.evaluate import evaluate
from stillhouse.engine.finite import check_weights, has_finite_numbers
from stillhouse.engine.state import STATE
from stillhouse.engine.watch import NonFiniteLoss
from stillhouse.errors import UserError
from stillhouse.models import weights, zoo
from stillhouse.runs.training import RESULT, STUDENT
from stillhouse.tasks.classification import Classification
from stillhouse.tasks.multilabel import Multilabel

BROKEN = [float("nan"), float("inf"), float("-inf")]


@dataclass
class Answer:
    scores: Tensor
    number: int = 0


@pytest.mark.parametrize("value", BROKEN)
def test_a_number_is_found_wherever_an_output_holds_it(value: float) -> None:
    good, broken = torch.ones(2, 3), torch.ones(2, 3)
    broken[1, 2] = value
    empty, whole = torch.zeros(0, 3), torch.ones(2, dtype=torch.long)
    for wrap in (
        lambda x: x,
        lambda x: [good, (x,)],
        lambda x: {"a": x},
        Answer,
        lambda x: x.half(),
    ):
        assert has_finite_numbers(wrap(good)) and not has_finite_numbers(wrap(broken))
    assert has_finite_numbers([empty, whole, None, "text"])


class Broken(nn.Module):
    """Gives NaN for the third batch."""

    seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += 1
        return torch.full((len(images), CLASSES), float("nan") if self.seen == 3 else 0.0)


def several_labels() -> Iterator[Batch]:
    for batch in Fixed().epoch(0):
        hot = nn.functional.one_hot(batch.target, CLASSES).float()
        yield Batch(batch.images, hot, batch.keys, batch.views)


@pytest.mark.parametrize(
    ("task", "batches"),
    [(Classification(CLASSES), lambda: Fixed().epoch(0)), (Multilabel(CLASSES), several_labels)],
    ids=["one label", "several labels"],
)
def test_an_evaluation_names_the_network_that_gives_nan(task: Any, batches: Any) -> None:
    with pytest.raises(UserError, match=r"^the teacher x gives NaN or infinite numbers in eval"):
        evaluate(task, Broken(), batches(), Hardware("cpu"), "teacher x")


def test_weights_that_are_not_finite_are_named() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    check_weights(network, "student")
    network[1].running_var[1] = float("inf")
    with pytest.raises(UserError, match=r"^1 of 6 weights of the student are .* 1\.running_var;"):
        check_weights(network, "student")


def test_a_teacher_of_nan_is_refused_before_training(tmp_path: Path) -> None:
    teacher = zoo.create("stillhouse/little", 10, 1)
    weights.load_weights(teacher, kept_teacher())
    with torch.no_grad():
        next(teacher.parameters())[0] = float("nan")
    path = tmp_path / "teacher.safetensors"
    weights.save_weights(teacher, path)
    with pytest.raises(UserError, match="the teacher .*gives NaN"):
        run(tmp_path / "run", f"teacher.weights={path}", "teacher.train=null")
    assert not (tmp_path / "run" / STATE).exists()


def test_a_student_of_nan_is_never_published(tmp_path: Path, monkeypatch: Any) -> None:
    update = training.update

    def spoil(run: Any, clock: Any) -> None:
        update(run, clock)
        if clock.step == clock.steps - 1:  # after the last loss that is looked at
            with torch.no_grad():
                next(run.student.parameters())[0] = float("nan")

    monkeypatch.setattr(training, "update", spoil)
    words = ("method=none", "teacher=null", "engine.evaluate_every=0")
    with pytest.raises(UserError, match="weights of the student are NaN or infinite after"):
        run(tmp_path / "run", *words)
    assert not (tmp_path / "run" / STUDENT).exists()
    assert not (tmp_path / "run" / RESULT).exists()


def test_a_state_of_nan_is_never_saved(tmp_path: Path, monkeypatch: Any) -> None:
    made = make_run(tmp_path, Fixed(poison=(0, 2)), save_every=3, log_every=100, evaluate_every=0)
    monkeypatch.setattr(made.hardware, "autocast", nullcontext)
    made.hardware.device = torch.device("meta")  # so that not every step is looked at
    with pytest.raises(NonFiniteLoss, match="at step 2"):
        training.train(made)
    assert not (tmp_path / STATE).exists()
