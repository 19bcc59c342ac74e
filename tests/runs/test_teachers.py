"""Teachers that move, teach together, teach themselves, or are weaker: whole runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from quick import kept_teacher, metrics, quick, run, student_bytes
from stillhouse.build.data import make_training_loader
from stillhouse.build.networks import load_teacher, make_deployed
from stillhouse.build.run import make_pupil
from stillhouse.build.session import Session
from stillhouse.build.teacher import make_live
from stillhouse.distributed import combine
from stillhouse.engine import train as training
from stillhouse.engine.interrupt import Stopped
from stillhouse.errors import UserError
from stillhouse.models import cost
from stillhouse.recipes import load
from stillhouse.runs.costs import describe_network, student_spec
from stillhouse.runs.execute import evaluate_run
from stillhouse.runs.training import RESULT, TRAINED_TEACHER
from stillhouse.teachers.base import observe
from stillhouse.types import Clock

LIVE = "teacher.remember=false"
ACCLIMATED = "method=[{name: dist, temperature: 4}, acclimation]"


EACH_STEP = "engine.log_every=1"


def terms_of(folder: Path) -> dict:
    """The first line of a run's record that speaks of terms."""
    return next(line for line in metrics(folder) if "loss" in line)


def result(folder: Path) -> dict:
    return json.loads((folder / RESULT).read_text())


@pytest.fixture(scope="module")
def acclimated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("acclimated") / "run", ACCLIMATED, LIVE).folder


# ----------------------------------------------------------------------------- a teacher that moves


def test_only_the_teacher_s_last_block_and_head_move(acclimated: Path) -> None:
    before = safetensors.torch.load_file(kept_teacher())
    after = safetensors.torch.load_file(acclimated / TRAINED_TEACHER)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all(name.startswith(("stage2.0.", "head.")) for name in moved)
    assert {"head.weight", "stage2.0.conv1.weight"} <= moved
    assert not any("running" in name for name in moved)  # its statistics stand still


def test_what_the_teacher_reached_before_and_after_is_recorded(acclimated: Path) -> None:
    found = result(acclimated)["acclimation"]
    assert {*found} == {"before", "after"}
    teacher = json.loads((acclimated / "teacher.json").read_text())
    for split in ("validation", "test"):
        assert found["before"][split]["top1"] == teacher[split]["top1"]
        assert 0 < found["after"][split]["top1"] <= 100
    evaluated = [line for line in metrics(acclimated) if "teacher_top1" in line]
    assert evaluated[-1]["teacher_top1"] == found["after"]["validation"]["top1"]
    rates = [line for line in metrics(acclimated) if "rate/teacher" in line]
    assert all(line["rate/teacher"] == pytest.approx(0.1 * line["rate/student"]) for line in rates)


def test_acclimation_leaves_the_student_s_gradient_alone() -> None:
    slopes = {}
    for words in (ACCLIMATED, "method={name: dist, temperature: 4}"):
        recipe = quick(words, LIVE)
        session = Session.open(recipe, quiet=True)
        taught = load_teacher(recipe.teacher, [kept_teacher()], session)
        torch.manual_seed(0)
        pupil = make_pupil(recipe, session, taught)
        teacher = make_live(session, taught, pupil.method)
        batch = next(
            make_training_loader(recipe, session.sources, session.hardware.device).epoch(0)
        )
        combine(pupil(batch, observe(teacher, batch), Clock(0, 10, 5))).backward()
        slopes[words] = [p.grad for p in pupil.student.parameters()]
    ours, theirs = slopes.values()
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_stopped_run_takes_up_its_teacher_too(
    acclimated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = training.Interrupt.requested_on_any_rank
    left = iter([False] * 4 + [True] * 99)
    with monkeypatch.context() as patch:
        patch.setattr(training.Interrupt, "requested_on_any_rank", lambda self, device: next(left))
        with pytest.raises(Stopped):
            run(tmp_path / "run", ACCLIMATED, LIVE)
    assert training.Interrupt.requested_on_any_rank is asked
    again = run(tmp_path / "run", ACCLIMATED, LIVE, resume=True).folder
    assert student_bytes(again) == student_bytes(acclimated)
    assert (again / TRAINED_TEACHER).read_bytes() == (acclimated / TRAINED_TEACHER).read_bytes()
    assert metrics(again) == metrics(acclimated)


def test_its_layers_and_its_optimiser_may_be_said(tmp_path: Path) -> None:
    words = ("method=[dist, {name: acclimation, layers: [head]}]", LIVE)
    group = "train.groups={teacher: {kind: sgd, lr: 0.5, momentum: 0}}"
    folder = run(tmp_path / "run", *words, group, EACH_STEP).folder
    before = safetensors.torch.load_file(kept_teacher())
    after = safetensors.torch.load_file(folder / TRAINED_TEACHER)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"head.weight", "head.bias"}
    line = terms_of(folder)
    assert line["rate/teacher"] == pytest.approx(5 * line["rate/student"])


def test_what_moves_cannot_be_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="method acclimation trains the teacher; set teacher.remem"):
        run(tmp_path / "run", ACCLIMATED)
    with pytest.raises(UserError, match="method mlkd needs two views of each image; set"):
        run(tmp_path / "run", "method=mlkd")


# --------------------------------------------------------------------------------- several teachers

MEMBERS = (
    "teacher={name: both, train: null, members: [{name: stillhouse/little, weights: %s}, "
    "{name: stillhouse/tiny, weights: %s}]}"
)


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A good teacher and one of the student's kind, which is weaker."""
    weak = run(tmp_path_factory.mktemp("weak") / "run", "method=none", "teacher=null").folder
    return MEMBERS % (kept_teacher(), weak / "student.safetensors")


def test_an_ensemble_teaches_by_the_mean_of_its_logits(members: str) -> None:
    recipe = quick(members, "teacher.gate=false")
    session = Session.open(recipe, quiet=True)
    paths = [member.weights for member in recipe.teacher.networks]
    taught = load_teacher(recipe.teacher, paths, session)
    images = torch.randn(3, 1, 8, 8)
    network = taught.network.eval()
    said = [member.network(images) for member in taught.members]
    torch.testing.assert_close(network(images), (said[0] + said[1]) / 2)


@pytest.mark.parametrize(
    "keeping", ["teacher.remember=true", "teacher={remember: false, store: true}", LIVE]
)
def test_an_ensemble_may_be_kept_like_any_teacher(
    members: str, tmp_path: Path, keeping: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    folder = run(tmp_path / "run", members, "teacher.gate=false", keeping).folder
    found = json.loads((folder / "teacher.json").read_text())
    assert found["parameters"] == 77_290 + 1_382 and found["name"] == "both"


def test_teachers_may_teach_apart_with_terms_of_their_own(members: str, tmp_path: Path) -> None:
    both = "method=[{name: kd, weight: 0.8}, {name: at, pairs: [[last, last]]}]"
    apart = ("teacher.gate=false", "teacher.ensemble=separate", LIVE, EACH_STEP)
    line = terms_of(run(tmp_path / "run", members, both, *apart).folder)
    terms = {name for name in line if name.startswith("term/")}
    assert terms == {"term/label"} | {
        f"term/{number}/{name}" for number in (0, 1) for name in ("kd/class/kd", "at/last")
    }
    assert line["weight/0/kd/class/kd"] == 0.4  # half of the weight for each of two


def test_a_place_in_an_ensemble_must_say_whose(members: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="this teacher is an ensemble; set teacher.ensemble=separate"
    ):
        run(tmp_path / "run", members, LIVE, "teacher.gate=false", "method=at")
    pairs = "method={name: mimic, pairs: [[stage2, members.0.stage2]]}"
    run(tmp_path / "run", members, LIVE, "teacher.gate=false", pairs)


def test_members_are_said_once() -> None:
    one = "members: [stillhouse/little]"
    for words, sentence in {
        f"teacher={{name: both, weights: a.pt, {one}}}": "set them for each member",
        "teacher={name: stillhouse/little, ensemble: separate}": "separate needs several teachers",
        f"teacher={{name: both, train: null, ensemble: separate, {one}}}": "cannot be cached with",
    }.items():
        with pytest.raises(UserError, match=sentence):
            quick(words)


# ------------------------------------------------------------------- oneself, and a weaker teacher


def test_a_network_may_teach_its_own_kind(tmp_path: Path) -> None:
    first = run(tmp_path / "first", "method=none", "teacher=null", "train.epochs=6").folder
    own = f"teacher={{name: stillhouse/tiny, weights: {first / 'student.safetensors'}}}"
    found = run(tmp_path / "second", own, "train.epochs=6", "seed=1", "teacher.gate=false")
    assert found.teacher["parameters"] == found.student["parameters"] == 1_382
    assert result(found.folder)["test"]["top1"] > 0


def test_a_weaker_teacher_may_teach_a_stronger_student(tmp_path: Path) -> None:
    first = run(tmp_path / "first", "method=none", "teacher=null", "train.epochs=6").folder
    weak = f"teacher={{name: stillhouse/tiny, weights: {first / 'student.safetensors'}}}"
    found = run(tmp_path / "second", weak, "student=stillhouse/little", "train.epochs=20")
    assert found.student["test"]["top1"] > found.teacher["test"]["top1"]


# ------------------------------------------------------------------------- another classifier


def test_a_student_with_its_teacher_s_classifier_is_shipped_whole(tmp_path: Path) -> None:
    recipe = quick("method=simkd", LIVE)
    found = run(tmp_path / "run", "method=simkd", LIVE, EACH_STEP)
    again = evaluate_run(load.load(found.folder), found.folder, "test", None).scores
    assert again["top1"] == found.student["test"]["top1"]
    session = Session.open(recipe, quiet=True)
    network = make_deployed(recipe, session.sources, found.folder / "student.safetensors")
    assert cost.parameters(network) == found.student["parameters"] > 1_382
    assert (
        describe_network(student_spec(recipe))
        == "stillhouse/tiny with the classifier of stillhouse/little"
    )
    line = terms_of(found.folder)
    assert line["weight/label"] == 0 and line["weight/projector"] == 1


# --------------------------------------------------------------------------------- views and mixes


def test_two_views_are_learnt_from_at_once(tmp_path: Path) -> None:
    words = ("method={name: mlkd, base: lskd}", LIVE, "data.transforms=[{kind: crop, padding: 1}]")
    line = terms_of(run(tmp_path / "run", *words, EACH_STEP).folder)
    assert {n for n in line if n.startswith("term/")} == {
        "term/label",
        "term/label_strong",
        "term/class/weak",
        "term/class/strong",
        "term/class/batch",
        "term/class/class",
    }
    assert line["term/label"] != line["term/label_strong"]


def test_mixed_images_have_no_single_class(tmp_path: Path) -> None:
    mixed = "data.mix={mixup: 0.8}"
    with pytest.raises(UserError, match="method dkd needs the labels of each image, but data.mix"):
        run(tmp_path / "run", "method=dkd", mixed, LIVE)
    run(tmp_path / "run", ACCLIMATED, mixed, LIVE)
