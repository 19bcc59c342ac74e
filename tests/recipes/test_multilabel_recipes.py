"""Runs in which an image has several labels: from a recipe, and in a loop of one's own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.build.contract import CONTRACT_SUFFIX
from stillhouse.build.data import make_facts
from stillhouse.build.networks import TeacherNetwork, load_teacher, make_student
from stillhouse.build.run import make_pupil, make_run
from stillhouse.build.session import Session
from stillhouse.data.source import Pixels, targets_of
from stillhouse.distiller import Distiller
from stillhouse.engine.train import set_rates
from stillhouse.errors import UserError
from stillhouse.methods.labelwise import CD
from stillhouse.models import weights, zoo
from stillhouse.models.labelwise import Labelwise, LabelwiseHead, labelwise
from stillhouse.models.taps import Tapped
from stillhouse.objectives import presets
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.doctor import check_recipe
from stillhouse.runs.execute import evaluate_run, execute
from stillhouse.runs.training import STUDENT
from stillhouse.tasks.multilabel import MultilabelSpec
from stillhouse.types import Clock

# Small scenes, narrow networks and an epoch: enough to see every part move.
WORDS = (
    "data.train.count=96",
    "data.val.count=64",
    "data.test.count=64",
    "data.train.options.size=24",
    "data.val.options.size=24",
    "data.test.options.size=24",
    "student=stillhouse/tiny",
    "student.head={kind: labelwise, width: 16, heads: 2, hidden: 16}",
    "teacher.name=stillhouse/small",
    "teacher.head={kind: labelwise, width: 24, heads: 2, hidden: 16}",
    "teacher.train.epochs=1",
    "teacher.gate=false",
    "train.epochs=1",
    "engine.tensorboard=false",
    "engine.device=cpu",
)


def recipe(*words: str) -> Recipe:
    return load.load("digits/labels", [*WORDS, *words])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of L2D with its control."""
    folder = tmp_path_factory.mktemp("l2d") / "run"
    execute(recipe("method=l2d", "control=true"), folder, say=lambda _: None)
    return folder


# ------------------------------------------------------------------------------------------ the run


def test_a_run_measures_what_several_labels_are_measured_by(finished: Path) -> None:
    score = json.loads((finished / "result.json").read_text())
    assert score["headline"] == "map"
    wanted = {"map", "of1", "cf1", "macro_f1", "of1_oracle", "macro_f1_oracle", "of1_top3", "loss"}
    assert wanted <= set(score["test"])
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    terms = {name for line in lines for name in line if name.startswith("term/")}
    assert terms == {"term/label", "term/class/mld", "term/embeddings/cd", "term/embeddings/id"}


def test_the_shipped_student_says_its_head(finished: Path) -> None:
    said = json.loads((finished / f"{STUDENT}{CONTRACT_SUFFIX}").read_text())
    assert (said["name"], said["head"]) == ("stillhouse/tiny", "labelwise")
    again = evaluate_run(recipe("method=l2d"), finished, "test", None).scores
    score = json.loads((finished / "result.json").read_text())
    assert again == pytest.approx(score["test"])
    plain = labelwise(
        zoo.create("stillhouse/tiny", 10, 3),
        10,
        torch.zeros(2, 3, 24, 24),
        LabelwiseHead(16, 2, 16),
    )
    plain.load_state_dict(safetensors.torch.load_file(finished / STUDENT))  # with plain torch


@pytest.mark.parametrize(
    "method",
    [
        "kd",
        "mse",
        "ps",
        "mld",
        "tld",
        "tld_dist",
        "bcd",
        "dist",
        "cd",
        "id",
        "l2d",
        "rkd",
        "pkt",
        "reviewkd",
        "[{name: tld}, {name: cd}, {name: id}]",
    ],
)
def test_every_method_of_the_papers_teaches(method: str) -> None:
    made = recipe(f"method={method}")
    session = Session.open(made)
    torch.manual_seed(0)
    teacher = make_student(made.student, session)  # as good as any
    pupil = make_pupil(made, session, untaught(teacher))
    batch = next(session.split("train").epoch(0))
    trace = Tapped(teacher.eval(), pupil.method.teacher_taps, (batch.images[:2],))(batch.images)
    terms = pupil(batch, {"": trace.detached()}, Clock(20, 40, 10))
    assert len(terms) > 1 and all(bool(t.total.isfinite()) for t in terms.values())
    sum(t.weight * t.mean() for t in terms.values()).backward()
    moved = [p.grad for p in pupil.student.parameters() if p.grad is not None]
    assert moved and all(bool(grad.isfinite().all()) for grad in moved)


def untaught(network: nn.Module) -> TeacherNetwork:
    return TeacherNetwork(network, network)


# ---------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        (
            "method=dkd",
            "dkd needs one class per image, but digits/labels/train has",
        ),
        ("method={name: lskd, base: dkd}", "method lskd needs one class per image"),
        ("method=ats", "method ats needs one class"),
        ("method=crd", "method crd needs one class"),
        (
            "task=classification",
            "digits/labels have several labels each, .*; set task=multilabel",
        ),
        ("task={name: multilabel, reduction: all}", "task.*reduction.*'batch', 'sum' or 'mean'"),
        ("task={name: multilabel, loss: focus}", "task.*loss"),
        ("student.head={kind: labelwise, width: 9}", "width must be a multiple of heads"),
        ("student.head=labelwide", "student.head"),
        ("train.schedule_epochs=0.5", "`schedule_epochs` must be at least `epochs`, 1, got 0.5"),
    ],
)
def test_what_does_not_fit_is_a_sentence(word: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        made = recipe(word)
        session = Session.open(made)
        make_pupil(made, session, untaught(make_student(made.student, session)))


def test_embeddings_need_a_head() -> None:
    made = recipe("method=cd", "student.head=null")
    session = Session.open(made)
    teacher = make_student(recipe().student, session)
    with pytest.raises(UserError, match=r"student\.head=labelwise"):
        make_pupil(made, session, untaught(teacher))


def test_mixed_images_have_no_labels_for_methods_that_ask() -> None:
    made = recipe("method=ps", "data.mix={mixup: 1}")
    session = Session.open(made)
    with pytest.raises(UserError, match="ps needs the labels of each image, but data.mix gives"):
        make_pupil(made, session, untaught(make_student(made.student, session)))


def test_one_class_an_image_is_a_case_of_several() -> None:
    made = load.load("digits/raw", ["task=multilabel", "engine.device=cpu"])
    session = Session.open(made)
    assert session.task.chance == pytest.approx(10)
    batch = next(session.split("val").epoch(0))
    network = make_student(made.student, session)
    terms = session.task.supervise(Tapped(network.eval())(batch.images), batch)
    hot = F.one_hot(batch.target, 10).float()
    expected = F.binary_cross_entropy_with_logits(network(batch.images), hot, reduction="sum")
    torch.testing.assert_close(terms["label"].mean(), expected / len(hot))


def test_chance_is_how_frequent_a_class_is() -> None:
    session = Session.open(recipe())
    labels = targets_of(session.sources.val)
    assert session.task.chance == pytest.approx(100 * float(labels.mean()))

    class Unknowing:
        """A source that knows labels only with their images."""

        def __init__(self, whole: Pixels) -> None:
            self.whole = whole
            self.classes, self.fingerprint, self.name = whole.classes, "", ""

        def __len__(self) -> int:
            return len(self.whole)

        def __getitem__(self, index: int) -> Any:
            return self.whole[index]

    assert isinstance(session.sources.val, Pixels)
    sources = replace(session.sources, val=Unknowing(session.sources.val))
    found = MultilabelSpec().build(make_facts(recipe().data, sources))
    assert found.chance == pytest.approx(100 * float(labels.mean()))


# ------------------------------------------------------------------------------- files of networks


def test_a_teacher_of_another_order_of_classes_keeps_its_embeddings(
    finished: Path, tmp_path: Path
) -> None:
    made = recipe("method=cd")
    session = Session.open(made)
    path = tmp_path / STUDENT
    shutil.copy(finished / STUDENT, path)
    said = json.loads((finished / f"{STUDENT}{CONTRACT_SUFFIX}").read_text())
    order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    said["classes"] = [said["classes"][i] for i in order]
    path.with_name(path.name + CONTRACT_SUFFIX).write_text(json.dumps(said))
    spec = recipe(
        "teacher={name: stillhouse/tiny, head: {width: 16, heads: 2, hidden: 16}}"
    ).teacher
    assert spec is not None
    found = load_teacher(spec, [path], session)
    assert isinstance(found.network, Labelwise)
    assert found.notes == ("the teacher's classes are reordered to those of the data",)
    plain = make_student(recipe().student, session)
    weights.load_weights(plain, finished / STUDENT)
    images = torch.randn(2, 3, 24, 24)
    ours, theirs = (
        Tapped(network.eval(), ["embeddings"])(images) for network in (found.network, plain)
    )
    place = [order.index(i) for i in range(10)]
    torch.testing.assert_close(ours.out, theirs.out[:, place])
    torch.testing.assert_close(ours.taps["embeddings"], theirs.taps["embeddings"][:, place])


def test_weights_of_another_head_are_refused(finished: Path) -> None:
    session = Session.open(recipe())
    spec = recipe("teacher={name: stillhouse/tiny}", "teacher.head=null").teacher
    assert spec is not None
    with pytest.raises(UserError, match=r"with a labelwise head, .* set teacher\.head=labelwise"):
        load_teacher(spec, [finished / STUDENT], session)


def test_a_student_begins_from_a_network_of_other_classes(tmp_path: Path) -> None:
    published = zoo.create("stillhouse/tiny", 1000, 3)
    weights.save_weights(published, tmp_path / "published.safetensors")
    made = recipe(f"student.pretrained={tmp_path / 'published.safetensors'}")
    session = Session.open(made)
    student = make_student(made.student, session)
    assert isinstance(student, Labelwise)
    stem = student.get_submodule("trunk.model.stem")
    assert all(
        torch.equal(a, b)
        for a, b in zip(stem.parameters(), published.stem.parameters(), strict=True)
    )
    bare = recipe(f"student.pretrained={tmp_path / 'published.safetensors'}", "student.head=null")
    plain = make_student(bare.student, session)
    assert torch.equal(plain.stem[0].weight, published.stem[0].weight)
    with pytest.raises(UserError, match="there is no such file"):
        make_student(recipe(f"student.pretrained={tmp_path / 'no.safetensors'}").student, session)


def test_training_stops_on_the_way_of_a_longer_course(tmp_path: Path) -> None:
    """The papers' teacher: a cycle of 80 epochs, left after 30."""
    rates = []
    for words in (["train.epochs=2", "train.schedule_epochs=6"], ["train.epochs=6"]):
        made = recipe(*words, "method=none")
        session = Session.open(made)
        with make_run(made, tmp_path, session, None) as run:
            assert run.steps == (
                6 if "train.schedule_epochs=6" in words else 18
            )  # of three an epoch
            found = []
            for step in range(6):
                set_rates(run, Clock(step, run.steps, run.steps_per_epoch))
                found.append(run.groups["student"].optimiser.param_groups[0]["lr"])
        rates.append(found)
    assert rates[0] == rates[1] and len(set(rates[0])) == 6


# ------------------------------------------------------------------------------ a loop of one's own


def net(classes: int = 4, width: int = 8) -> nn.Module:
    trunk = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    trunk.extend([nn.Flatten(), nn.Linear(width, classes)])
    return labelwise(trunk, classes, torch.randn(2, 3, 8, 8), LabelwiseHead(8, 2, 8, 0.0))


def rows(n: int = 9) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    return torch.randn(n, 3, 8, 8), (torch.rand(n, 4) < 0.6).float()


def test_the_distiller_takes_several_labels() -> None:
    images, hot = rows()
    student, teacher = net(), net()
    made = Distiller(
        student, teacher, [presets.tld(0.5), CD()], "multilabel", example=torch.randn(2, 3, 8, 8)
    )
    loss, terms = made((images, hot))
    assert set(terms) == {"label", "tld/class/tld", "cd/embeddings/cd"}
    scores = student(images)
    label = F.binary_cross_entropy_with_logits(scores, hot, reduction="sum") / len(hot)
    torch.testing.assert_close(terms["label"], label.detach())
    torch.testing.assert_close(loss, sum(terms.values()))
    loss.backward()
    assert all(p.grad is not None for p in student.parameters())
    assert not any(p.requires_grad for p in teacher.parameters())


def test_labels_that_do_not_fit_are_a_sentence() -> None:
    images, hot = rows()
    made = Distiller(net(), net(), presets.mld(), "multilabel")
    with pytest.raises(UserError):
        made((images, hot[:, :3]))
    with pytest.raises(UserError, match="unknown task 'multilable'; did you mean 'multilabel'"):
        Distiller(net(), net(), presets.mld(), "multilable")


def test_the_doctor_looks_at_a_labelwise_pair() -> None:
    found = {check.name: check for check in check_recipe(recipe("method=l2d"))}
    assert all(check.passed for check in found.values()), found
    assert "embeddings (10x16) -> embeddings (10x24)" in found["taps"].message
    assert "embeddings/cd" in found["step"].message


def test_rows_of_a_batch_keep_their_labels() -> None:
    images, hot = rows()
    keys = torch.arange(9)
    batch = Batch(images, hot, keys, keys)
    assert torch.equal(batch.rows(slice(2, 4)).target, hot[2:4])


def test_a_run_says_what_its_data_left_out(tmp_path: Path) -> None:
    from PIL import Image

    for split in ("train", "val"):
        lines = ["path,labels"]
        for number in range(24):
            name = f"{split}{number}.png"
            Image.new("RGB", (24, 24), (10 * number, 0, 0)).save(tmp_path / name)
            lines.append(f"{name},{';'.join(c for i, c in enumerate('abc') if number >> i & 1)}")
        (tmp_path / f"{split}.csv").write_text("\n".join(lines))
    said: list[str] = []
    words = [
        f"data={{name: csv/labels, path: {tmp_path}, batch: 8, options: {{unlabelled: skip}}}}"
    ]
    plain = [word for word in WORDS if not word.startswith("data.")]
    made = load.load("digits/labels", [*plain, *words, "method=none"])
    result = execute(made, tmp_path / "run", say=said.append)
    notes = [line for line in said if line.startswith("data: ")]
    assert len(notes) == 2 and all("3" in note and "label" in note for note in notes), said
    assert result.student["validation"]["map"] > 0
    found = {check.name: check.message for check in check_recipe(made)}
    assert notes[0].removeprefix("data: ") in found["data"]
