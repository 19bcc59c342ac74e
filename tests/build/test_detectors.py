"""Detectors in recipes: adapted when they are built, and fitted to the classes of the data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stillhouse.build.contract import CONTRACT_SUFFIX
from stillhouse.build.networks import (
    TeacherNetwork,
    load_teacher,
    make_contract,
    make_deployed,
    make_student,
    untrained_teacher,
)
from stillhouse.build.session import Session
from stillhouse.errors import UserError
from stillhouse.models import weights, zoo
from stillhouse.models.detectors.torchvision.adapter import TorchvisionDetector, adapt_detector
from stillhouse.models.factories import trust_factories
from stillhouse.recipes import load
from stillhouse.recipes.schema import Network, Recipe, TeacherSpec
from stillhouse.runs.execute import evaluate_run, execute

FACTORY = "torchvision_detectors:make_fcos"
RECIPE = f"""
task: detection
data:
  name: digits/objects
  train: {{count: 12}}
  val: {{count: 6}}
  test: {{count: 6}}
  batch: 4
teacher: {{name: "{FACTORY}", gate: false, train: {{epochs: 1}}}}
student: "{FACTORY}"
method: tld
train: {{epochs: 1}}
engine: {{device: cpu, tensorboard: false}}
"""
DIGITS = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module", autouse=True)
def trust() -> Iterator[None]:
    with trust_factories():
        yield


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    path.write_text(RECIPE)
    return load.load(str(path))


@pytest.fixture(scope="module")
def session(recipe: Recipe) -> Session:
    return Session.open(recipe)


@pytest.fixture(scope="module")
def images(session: Session) -> Tensor:
    return next(session.val()).images


def put(folder: Path, session: Session, name: str = FACTORY, **contract: Any) -> Path:
    """Weights of a detector as a run leaves them, beside a contract with some changes."""
    torch.manual_seed(0)
    student = make_student(Network(name), session)
    weights.save_weights(student, folder / "student.safetensors")
    text = json.loads(make_contract(Network(name), session.sources).text()) | contract
    (folder / f"student.safetensors{CONTRACT_SUFFIX}").write_text(json.dumps(text))
    return folder / "student.safetensors"


def taught(path: Path, session: Session, **options: Any) -> TeacherNetwork:
    return load_teacher(TeacherSpec(FACTORY, **options), [path], session)


def original(path: Path) -> TorchvisionDetector:
    plain = zoo.create(FACTORY, 10)
    weights.load_weights(plain, path)
    detector = adapt_detector(plain).eval()
    assert isinstance(detector, TorchvisionDetector)
    return detector


def test_a_factory_of_a_detector_of_torchvision_is_a_network_like_others(
    session: Session, images: Tensor
) -> None:
    student = make_student(Network(FACTORY), session)
    assert isinstance(student, TorchvisionDetector)
    assert student(images).scores.shape[-1] == 10
    teacher = untrained_teacher(TeacherSpec(FACTORY), session)
    assert isinstance(teacher.network, TorchvisionDetector)


def test_a_teacher_keeps_its_weights(tmp_path: Path, session: Session, images: Tensor) -> None:
    path = put(tmp_path, session)
    made = taught(path, session)
    assert made.network is made.inner and made.notes == ()
    assert torch.equal(made.network.eval()(images).scores, original(path)(images).scores)


def test_classes_in_another_order_are_put_in_the_datas(
    tmp_path: Path, session: Session, images: Tensor
) -> None:
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]  # column k of the teacher is this digit
    path = put(tmp_path, session, classes=[DIGITS[digit] for digit in order])
    made = taught(path, session)
    assert made.notes == ("the teacher's classes are reordered to those of the data",)
    own, found = original(path)(images), made.network.eval()(images)
    for column, digit in enumerate(order):
        assert torch.equal(found.scores[..., digit], own.scores[..., column])
    assert torch.equal(found.boxes, own.boxes) and torch.equal(found.quality, own.quality)
    example = torch.zeros(2, *images.shape[1:])
    assert made.taps(["model.backbone.stem"], example) == {
        "model.backbone.stem": "model.model.backbone.stem"
    }


def test_images_are_normalised_for_a_detector(
    tmp_path: Path, session: Session, images: Tensor
) -> None:
    path = put(tmp_path, session)
    made = taught(path, session, mean=(0.5,) * 3, std=(0.2,) * 3)
    mean, std = (
        torch.tensor(known)[:, None, None] for known in (session.sources.mean, session.sources.std)
    )
    expected = original(path)((images * std + mean - 0.5) / 0.2)
    torch.testing.assert_close(made.network.eval()(images).scores, expected.scores)


def test_images_of_a_detector_are_not_resized(
    tmp_path: Path, session: Session, images: Tensor
) -> None:
    path = put(tmp_path, session, size=[96, 80], mean=[0.5] * 3, std=[0.2] * 3)
    made = taught(path, session)  # a detector takes images of any size
    assert made.size is None and made.notes == (
        "images are normalised with the teacher's mean and std",
    )
    sizes = {tuple(made.network.eval()(images[..., :side]).scores.shape) for side in (32, 40, 48)}
    assert len(sizes) == 3
    with pytest.raises(
        UserError, match=r"of a detector cannot be resized to 96 x 80, .*; leave out"
    ):
        taught(path, session, size=(96, 80))


def test_a_run_with_detectors_of_torchvision(
    recipe: Recipe, session: Session, images: Tensor, tmp_path: Path
) -> None:
    made = execute(recipe, tmp_path / "run", say=lambda _: None)
    student, plain = made.folder / "student.safetensors", zoo.create(FACTORY, 10)
    assert weights.load_weights(plain, student).prefix == "model."
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    outputs = [
        make_deployed(recipe, session.sources, path).eval()(images).scores
        for path in (student, tmp_path / "plain.pt")
    ]
    assert torch.equal(*outputs)
    scores = evaluate_run(recipe, made.folder, "test", None).scores
    assert scores == {k: v for k, v in made.student["test"].items() if k in scores}
