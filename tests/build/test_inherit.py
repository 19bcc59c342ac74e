"""A student that starts with parts of its teacher: which tensors, when, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from detectors import small_detector
from stillhouse.build.contract import CONTRACT_SUFFIX
from stillhouse.build.inherit import find_parts, inherit_weights
from stillhouse.build.networks import (
    TeacherNetwork,
    load_teacher,
    make_contract,
    make_student,
    untrained_teacher,
)
from stillhouse.build.run import make_pupil
from stillhouse.build.session import Session
from stillhouse.errors import UserError
from stillhouse.methods.control import Control
from stillhouse.models import weights, zoo
from stillhouse.models.detectors.torchvision.adapter import adapt_detector
from stillhouse.models.teacher_wrapper import TeacherWrapper
from stillhouse.recipes import load
from stillhouse.recipes.schema import Network, Recipe, TeacherSpec
from stillhouse.runs.execute import execute, run_job
from stillhouse.study.plan import make_plan

OPTIONS = (
    "{{backbone: stillhouse/{size}, strides: [4, 8], neck: {{width: 16, extra: 0}}, "
    "head: {{width: 16, depth: 1}}, scale: 4}}"
)
WORDS = (
    "data.train.count=16",
    "data.val.count=8",
    "data.test.count=8",
    "data.batch=8",
    f"student.options={OPTIONS.format(size='small')}",
    f"teacher.options={OPTIONS.format(size='medium')}",
    "teacher.train.epochs=1",
    "teacher.gate=false",
    "train.epochs=2",
    "engine.device=cpu",
    "engine.tensorboard=false",
)


def recipe_of(*words: str) -> Recipe:
    return load.load("digits/objects", [*WORDS, *words])


@pytest.fixture(scope="module")
def session() -> Session:
    return Session.open(recipe_of())


def started(session: Session, *words: str) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """The state of a new student and of its teacher, and the notes."""
    recipe, notes = recipe_of(*words), []
    torch.manual_seed(0)
    assert recipe.teacher is not None
    teacher = untrained_teacher(recipe.teacher, session)
    torch.manual_seed(1)
    pupil = make_pupil(recipe, session, teacher, notes.append)
    return pupil.student.model.state_dict(), teacher.inner.state_dict(), notes


# ------------------------------------------------------------------------------- which tensors


@pytest.mark.parametrize("word", ["neck", "head", "neck+head", "[neck, head]", "backbone + neck"])
def test_parts_are_the_teachers_where_names_and_shapes_agree(session: Session, word: str) -> None:
    own, theirs, notes = started(session, f"student.inherit={word}")
    plain = started(session)[0]
    parts = [part for part in ("backbone", "neck", "head") if part in word]
    counts = {part: [0, 0] for part in parts}
    for name, tensor in own.items():
        part = name.partition(".")[0]
        agrees = name in theirs and theirs[name].shape == tensor.shape
        if part in parts:
            counts[part][0] += agrees
            counts[part][1] += 1
        assert torch.equal(tensor, theirs[name] if part in parts and agrees else plain[name]), name
    (note,) = notes
    for part, (copied, total) in counts.items():
        assert f"{copied} of {total} tensors of its {part}" in note
        assert copied == total if part == "head" else 0 < copied < total
    assert "\n" not in note


def test_without_the_key_nothing_is_taken(session: Session) -> None:
    own, theirs, notes = started(session)
    assert notes == [] and not torch.equal(own["head.score.weight"], theirs["head.score.weight"])


def test_the_teacher_keeps_its_own_tensors(session: Session) -> None:
    recipe = recipe_of("student.inherit=head")
    teacher = untrained_teacher(recipe.teacher or TeacherSpec(""), session)
    before = weights.state_hash(teacher.network)
    student = make_pupil(recipe, session, teacher).student.model
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    assert weights.state_hash(teacher.network) == before


def test_classifiers_have_a_head() -> None:
    torch.manual_seed(0)
    student, teacher = zoo.create("stillhouse/small", 5), zoo.create("stillhouse/small", 5)
    note = inherit_weights(student, TeacherNetwork(teacher, teacher), ("head",))
    assert note == "the student starts with the teacher's weights in 2 of 2 tensors of its head"
    assert torch.equal(student.head.weight, teacher.head.weight)
    assert not torch.equal(student.stem[0].weight, teacher.stem[0].weight)
    assert find_parts(zoo.create("timm/resnet18", 5)) == {"head": "fc"}
    inner = nn.ModuleDict({"head": nn.Linear(2, 2), "backbone": nn.Linear(2, 2)})
    nested = nn.ModuleDict({"head": nn.Linear(2, 2), "backbone": inner, "other": inner})
    assert find_parts(nested) == {"backbone": "backbone", "head": "head"}


def test_detectors_of_torchvision_have_their_pyramid_apart() -> None:
    one, other = (
        adapt_detector(RetinaNet(resnet_fpn_backbone(backbone_name="resnet18", weights=None), 5))
        for _ in range(2)
    )
    theirs, before = other.state_dict(), {n: x.clone() for n, x in one.state_dict().items()}
    inherit_weights(one, TeacherNetwork(other, other), ("neck",))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, theirs[name] if ".fpn." in name else before[name]), name
    note = inherit_weights(one, TeacherNetwork(other, other), ("backbone",))
    inside = [name for name in theirs if name.startswith("model.backbone.body.")]
    assert f"{len(inside)} of {len(inside)} tensors of its backbone" in note
    assert all(torch.equal(one.state_dict()[name], theirs[name]) for name in inside)
    assert find_parts(one)["head"] == "model.head"


# ----------------------------------------------------------------------------------- refusals


def pair(student: nn.Module, teacher: nn.Module, *parts: str) -> str:
    return inherit_weights(student, TeacherNetwork(teacher, teacher), parts)


def test_parts_that_do_not_exist_or_do_not_agree() -> None:
    plain, detector = zoo.create("stillhouse/small", 5), small_detector("gfocal")
    with pytest.raises(UserError, match="the student SmallResNet has no neck; it has head"):
        pair(plain, plain, "neck")
    with pytest.raises(UserError, match="teacher Flatten has no head; it has none of backbone, ne"):
        pair(plain, nn.Flatten(), "head")
    other = small_detector("gfocal", head={"width": 24, "depth": 1}, neck={"width": 8, "extra": 1})
    pair(detector, other, "backbone")
    with pytest.raises(UserError, match="no tensor of the student's head has the name and shape"):
        pair(detector, small_detector("retinanet", head={"width": 24, "depth": 1}), "head")
    with pytest.raises(UserError, match="leave neck out, or give both networks the same neck"):
        pair(detector, small_detector("gfocal", neck={"width": 12, "extra": 1}), "neck")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["teacher=null", "method=none"], "student.inherit takes weights of the teacher, but"),
        (["method=none"], "set student.pretrained to the teacher's weights"),
        (["student.inherit=neck+tail"], "'backbone', 'neck' or 'head'"),
        (["student.inherits=neck"], "did you mean 'inherit'"),
    ],
)
def test_recipes_that_cannot_inherit(words: list[str], text: str) -> None:
    with pytest.raises(UserError) as caught:
        recipe_of("student.inherit=head", *words)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_an_ensemble_has_no_one_to_inherit_from() -> None:
    members = {"name": "two", "members": ["stillhouse/small", "stillhouse/small"]}
    with pytest.raises(UserError, match="takes weights of one network, but this teacher has mem"):
        load.replace_sections(recipe_of("student.inherit=head"), {"teacher": members})


def reordered(session: Session, folder: Path) -> TeacherNetwork:
    """A teacher whose classes are those of the data in another order."""
    spec = recipe_of().teacher
    assert spec is not None
    network = make_student(Network(spec.name, options=spec.options), session)
    path = folder / "teacher.safetensors"
    weights.save_weights(network, path)
    contract = make_contract(Network(spec.name), session.sources).text()
    order = [f'"{digit}"' for digit in (1, 0, *range(2, 10))]
    swapped = contract.replace('"0"', '"x"').replace('"1"', order[1]).replace('"x"', order[0])
    Path(f"{path}{CONTRACT_SUFFIX}").write_text(swapped)
    return load_teacher(spec, [path], session)


def test_a_head_of_other_classes_is_not_taken(session: Session, tmp_path: Path) -> None:
    teacher = reordered(session, tmp_path)
    assert isinstance(teacher.network, TeacherWrapper)
    make_pupil(recipe_of("student.inherit=neck"), session, teacher)
    with pytest.raises(UserError, match="inherit takes the teacher's head, but the teacher's cla"):
        make_pupil(recipe_of("student.inherit=neck+head"), session, teacher)
    with pytest.raises(UserError, match="method crosskd uses the teacher's head, but the teacher'"):
        make_pupil(recipe_of("method={name: crosskd, after: 1}"), session, teacher)


# --------------------------------------------------------------------------------------- runs


def test_it_is_part_of_the_hash_but_not_of_the_controls() -> None:
    plain, one = recipe_of(), recipe_of("student.inherit=neck+head")
    assert load.digest(plain) != load.digest(one) != load.digest(recipe_of("student.inherit=neck"))
    arms = [make_plan(recipe, "none,tld", seeds=1).arms for recipe in (plain, one)]
    controls = [next(arm.recipe for arm in each if arm.is_control) for each in arms]
    assert load.digest(controls[0]) == load.digest(controls[1])
    taught = [next(arm.recipe for arm in each if not arm.is_control) for each in arms]
    assert taught[1].student.inherit == ("neck", "head")
    assert load.validate_recipe(load.to_dict(one), Path("x")) == one


def test_a_run_says_what_it_takes_and_its_control_takes_nothing(tmp_path: Path) -> None:
    recipe, said = recipe_of("student.inherit=neck+head", "control=true"), []
    execute(recipe, tmp_path / "run", say=said.append)
    notes = [line for line in said if line.startswith("the student starts with")]
    assert len(notes) == 1 and "of its neck and" in notes[0]
    assert load.load(tmp_path / "run").student.inherit == ("neck", "head")
    control = replace(recipe_of(), method=(Control(),), teacher=None)
    result = json.loads((tmp_path / "run" / "control" / "result.json").read_text())
    assert result["recipe"] == load.digest(control)


def test_a_resumed_run_does_not_start_again_from_the_teacher(tmp_path: Path) -> None:
    recipe = recipe_of("student.inherit=neck+head")
    execute(recipe, tmp_path / "whole", say=lambda _: None)
    run_job(recipe, tmp_path / "parts", until=1)
    run_job(recipe, tmp_path / "parts")
    first, second = (
        (tmp_path / name / "student.safetensors").read_bytes() for name in ("whole", "parts")
    )
    assert first == second
