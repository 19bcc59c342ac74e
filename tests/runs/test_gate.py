"""A teacher that a guess could match is refused; every other is let through."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from quick import kept_teacher, quick, run
from stillhouse.build.session import Session
from stillhouse.errors import UserError
from stillhouse.models import weights, zoo
from stillhouse.runs.gate import gate
from stillhouse.runs.teacher import obtain_teacher
from stillhouse.tasks.classification import Classification
from stillhouse.tasks.multilabel import Multilabel


def passes(score: float, chance: float, images: int) -> bool:
    """What both tasks decide at this level of chance."""
    verdicts = set()
    for task in (Classification(round(100 / chance)), Multilabel(share=chance)):
        assert task.chance == chance
        summary = {task.headline: score}
        try:
            gate("t", task, summary, images)
        except UserError:
            verdicts.add(False)
        else:
            verdicts.add(True)
        assert task.passes(summary, images) in verdicts
    (verdict,) = verdicts
    return verdict


@pytest.mark.parametrize(
    ("chance", "images", "needed"),
    [
        (10, 360, 10 + 4 * (900 / 360) ** 0.5),  # four standard errors
        (10, 10**6, 15),  # many images: half as much again
        (1, 10**6, 1.5),
        (50, 10**6, 75),
        (50, 10, 75),  # few images: half way to all, or nobody could pass
        (100, 10, 100),  # one class
    ],
)
def test_what_a_teacher_needs(chance: float, images: int, needed: float) -> None:
    assert passes(needed + 1e-6, chance, images)
    assert not passes(needed - 1e-3, chance, images)


def test_guessing_never_passes() -> None:
    """Of 10 classes and 360 images; one false pass in all is less likely than one in a hundred."""
    made = torch.Generator().manual_seed(1)
    hits = (torch.rand(200, 360, generator=made) < 0.1).double().mean(1) * 100
    assert not any(passes(float(score), 10, 360) for score in hits)


def refused(tmp_path: Path, *words: str) -> str:
    with pytest.raises(UserError) as caught:
        run(tmp_path / "run", *words)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "student.safetensors").exists()
    return str(caught.value)


def test_a_random_teacher_is_refused_with_its_score_and_the_mend(tmp_path: Path) -> None:
    weights.save_weights(zoo.create("stillhouse/little", 10, 1), tmp_path / "random.safetensors")
    word = f"teacher.weights={tmp_path}/random.safetensors"
    said = refused(tmp_path, word)
    recipe = quick(word, "teacher.gate=false")
    assert recipe.teacher is not None
    _, score = obtain_teacher(recipe, recipe.teacher, Session.open(recipe), lambda _: None)
    assert f"stillhouse/little reaches top1 {score['validation']['top1']:.1f} on 360 valid" in said
    assert "where chance is 10.0" in said
    assert "check its weights, its class order (teacher.classes) and its normalisation" in said
    assert said.endswith("or set teacher.gate=false to use it anyway")


def test_a_teacher_that_was_not_trained_enough_is_refused(tmp_path: Path) -> None:
    said = refused(tmp_path, "teacher.train.epochs=0.1", "teacher.train.optimiser.lr=1e-6")
    assert "the teacher stillhouse/little reaches top1" in said


def test_a_permuted_class_list_is_refused_and_the_gate_can_be_opened(tmp_path: Path) -> None:
    state = safetensors.torch.load_file(kept_teacher())
    for name in ("head.weight", "head.bias"):
        state[name] = state[name].roll(3, 0)
    safetensors.torch.save_file(state, tmp_path / "permuted.safetensors")
    word = f"teacher.weights={tmp_path}/permuted.safetensors"
    assert "check its weights, its class order" in refused(tmp_path, word)
    let = run(tmp_path / "let", word, "teacher.gate=false", "train.epochs=0.2")
    assert let.teacher is not None and let.teacher["validation"]["top1"] < 10
    assert (tmp_path / "let" / "student.safetensors").exists()


def test_a_wrong_normalisation_is_refused(tmp_path: Path) -> None:
    shutil.copyfile(kept_teacher(), tmp_path / "t.safetensors")
    words = (
        f"teacher.weights={tmp_path}/t.safetensors",
        "teacher.mean=[40.0]",
        "teacher.std=[0.1]",
    )
    assert "check its weights" in refused(tmp_path, *words)
