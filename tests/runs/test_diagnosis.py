"""Diagnoses of folders: of the networks in them, kept, and guarded against failures."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from quick import caller, kept_teacher, quick, run, student_bytes
from stillhouse.build.contract import CONTRACT_SUFFIX
from stillhouse.build.networks import make_deployed, make_network
from stillhouse.build.run import make_pupil
from stillhouse.build.session import Session
from stillhouse.data.source import targets_of
from stillhouse.engine.environment import seed_everything
from stillhouse.errors import UserError
from stillhouse.explain.predictions import ExplainOptions
from stillhouse.explain.section import ImageGrid, Section, Table
from stillhouse.models.factories import trust_factories
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.report.run import run_page
from stillhouse.runs import diagnosis
from stillhouse.runs.diagnosis import (
    DIAGNOSIS_FILE,
    Student,
    diagnose,
    read_kept,
    sections_of_run,
    stratified_sample,
    weight_ids,
)
from stillhouse.runs.execute import Result
from stillhouse.runs.training import STUDENT
from stillhouse.tasks.base import Facts
from stillhouse.tasks.classification import Classification, ClassificationSpec
from stillhouse.types import Terms, Trace

WORDS = ("train.epochs=1", "method=dkd")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Result:
    kept_teacher()
    return run(tmp_path_factory.mktemp("done") / "run", *WORDS, "control=true")


@pytest.fixture(scope="module")
def sections(done: Result) -> dict[str, Section]:
    found = sections_of_run(done.folder, quick(*WORDS), Session.open(quick(*WORDS), quiet=True))
    return {section.name: section for section in found}


def table(section: Section, number: int = 0) -> Table:
    return section.tables[number]


def test_a_run_has_every_diagnosis_of_its_task(sections: dict[str, Section]) -> None:
    assert {*sections} == {
        "agreement",
        "consistency",
        "correlation",
        "relations",
        "logits",
        "calibration",
        "classes",
        "confusion",
        "embedding",
        "activation",
        "gradients",
    }
    assert all(section.sentences for section in sections.values())


def test_they_are_of_the_networks_in_the_folder(done: Result, sections: dict[str, Section]) -> None:
    """The accuracies per class have the means that the run's own evaluation found on test."""
    assert done.control is not None and done.teacher is not None
    rows = table(sections["classes"])
    counts = torch.bincount(targets_of(Session.open(quick(), quiet=True).sources.test)).double()
    for who, score in (
        ("teacher", done.teacher),
        ("control", done.control),
        ("student", done.student),
    ):
        column = next(i for i, name in enumerate(rows.columns) if name.startswith(who))
        by_class = {str(row[0]): float(row[column] or 0) for row in rows.rows}
        mean = sum(by_class[str(c)] * n for c, n in enumerate(counts.tolist())) / counts.sum()
        assert mean == pytest.approx(score["test"]["top1"], abs=0.05)


def test_the_gradients_are_of_the_start_and_of_the_end(sections: dict[str, Section]) -> None:
    rows = table(sections["gradients"]).rows
    assert [row[:2] for row in rows] == [
        (moment, term)
        for moment in ("at the start", "at the end")
        for term in ("label", "class/target", "class/rest")
    ]
    start, end = ([row[2] for row in rows[i : i + 3]] for i in (0, 3))
    assert start != end and all(norm and norm > 0 for norm in start + end)


def test_the_start_has_the_initial_weights() -> None:
    """The first gradient is that of the very weights that training began with."""
    recipe = quick(*WORDS)
    session = Session.open(recipe, quiet=True)
    seed_everything(recipe.seed, False)
    first = make_pupil(recipe, session, diagnosis.try_teacher(recipe, session)[0])
    seed_everything(recipe.seed, False)
    again = make_pupil(recipe, session, diagnosis.try_teacher(recipe, session)[0])
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)


def test_diagnosing_changes_no_file_of_the_run(done: Result, sections: dict[str, Section]) -> None:
    before = student_bytes(done), (done.folder / "state.pt").read_bytes()
    session = Session.open(quick(*WORDS), quiet=True)
    fresh = sections_of_run(done.folder, quick(*WORDS), session, ExplainOptions(recompute=True))
    assert (student_bytes(done), (done.folder / "state.pt").read_bytes()) == before
    assert [section.name for section in fresh] == [*sections]


def test_kept_diagnoses_are_not_computed_again(
    done: Result, sections: dict[str, Section], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "diagnose_run", lambda *_: pytest.fail("made again"))
    session = Session.open(quick(*WORDS), quiet=True)
    found = sections_of_run(done.folder, quick(*WORDS), session)
    assert [section.name for section in found] == [*sections]
    kept = read_kept(done.folder)
    assert kept is not None
    assert kept.weights == weight_ids(diagnosis.students_of(done.folder, quick(*WORDS)))
    other = Student("student", quick(*WORDS), done.folder / "control" / STUDENT)
    assert weight_ids([other])[0] not in kept.weights  # other weights under the same name
    assert (done.folder / DIAGNOSIS_FILE).stat().st_size < 1_000_000


@pytest.mark.parametrize("content", ["{", "[]", '{"other": 1}', "null"])
def test_a_damaged_file_is_an_error(done: Result, tmp_path: Path, content: str) -> None:
    students = [Student("student", quick(*WORDS), done.folder / STUDENT)]
    path = tmp_path / DIAGNOSIS_FILE
    assert read_kept(tmp_path) is None
    path.write_text(content)
    with pytest.raises(
        UserError, match="is damaged; run `stillhouse explain .*` to write it again"
    ):
        read_kept(tmp_path)
    path.write_text(json.dumps({"about": weight_ids(students), "sections": [{"name": 1}]}))
    with pytest.raises(UserError, match="is damaged"):
        read_kept(tmp_path)
    assert read_kept(tmp_path, damaged_is_none=True) is None


def test_students_of_several_recipes_share_sections(done: Result) -> None:
    recipe = quick(*WORDS)
    session = Session.open(recipe, quiet=True)
    students = [
        Student("first", recipe, done.folder / "control" / STUDENT),
        Student("second", recipe, done.folder / STUDENT),
    ]
    found = {
        section.name: section for section in diagnose(recipe, students, session, ExplainOptions(50))
    }
    names = {row[0] for row in table(found["agreement"]).rows}
    assert {"first", "second"} <= names
    alone = diagnose(quick("method=none", "teacher=null"), students, session, ExplainOptions(50))
    assert "consistency" not in {section.name for section in alone}


def test_a_teacher_that_is_not_in_the_cache_is_named(done: Result) -> None:
    # a seed whose teacher was not trained
    recipe = quick(*WORDS, "teacher.seed=77")
    session = Session.open(recipe, quiet=True)
    first, *rest = diagnose(recipe, [Student("student", recipe, done.folder / STUDENT)], session)
    assert first.title == "Missing networks" and first.sentences[0] == "Left out: teacher."
    assert "weights of the teacher stillhouse/little are not in the cache" in first.sentences[1]
    assert "run the recipe again" in first.sentences[1]
    assert "consistency" not in {section.name for section in rest}


def test_a_sample_is_stratified() -> None:
    from stillhouse.data.embedded.digits import make_raw
    from stillhouse.data.source import take

    source = make_raw("test")
    by_class = take(source, targets_of(source).argsort(), "sorted")
    assert targets_of(stratified_sample(by_class, 50)).unique().numel() == 10
    assert (
        len(stratified_sample(by_class, 50)) == 50 and stratified_sample(by_class, 5000) is by_class
    )


# ------------------------------------------------------------------------------- several classes

HEAD = "student.head={kind: labelwise, width: 16, heads: 2, hidden: 32}"
SEVERAL = ("method=none", "teacher=null", "student=stillhouse/small", HEAD, "engine.device=cpu")


def several(*words: str) -> Recipe:
    counts = [f"data.{split}.count=60" for split in ("train", "val", "test")]
    return load.load("digits/labels", [*SEVERAL, *counts, *words])


def test_a_multi_label_run_has_its_own_diagnoses(tmp_path: Path) -> None:
    """Of three networks that know nothing."""
    recipe = several()
    session = Session.open(recipe, quiet=True)
    students = []
    for name in ("teacher", "control", "student"):
        path = tmp_path / f"{name}.safetensors"
        save_file(make_network(recipe.student, session.sources).state_dict(), path)
        students.append(Student(name, recipe, path))
    found = {section.name: section for section in diagnose(recipe, students, session)}
    assert [*found] == [
        "disagreement",
        "decisions",
        "average_precision",
        "correlation",
        "relations",
        "retrieval",
        "activation",
    ]
    rows = table(found["decisions"]).rows
    for student, row in zip(students, rows, strict=True):
        network = make_deployed(recipe, session.sources, student.weights).eval()
        meter = session.task.meter()
        for batch in session.measured():
            with torch.no_grad():
                meter.update(Trace(network(batch.images)), batch)
        score = meter.summary()
        assert row[0] == student.name
        assert row[1:3] == pytest.approx((score["of1"], score["macro_f1"]), abs=1e-4)
    assert [row[1] for row in table(found["retrieval"]).rows[:3]] == ["label-wise embedding"] * 3
    (pictures,) = found["activation"].charts
    assert isinstance(pictures, ImageGrid) and pictures.columns == 4
    assert "over 60 images: " in found["activation"].sentences[1]


def test_the_subset_has_the_inputs_of_the_networks() -> None:
    """After the transforms of evaluation, with the colours that they had before normalisation."""
    recipe = several("data.evaluation=[{kind: resize, size: 32}, {kind: center_crop, size: 24}]")
    session = Session.open(recipe, quiet=True)
    again = diagnosis.subset_loader(session.sources.test, session)
    (batch,) = again.batches(torch.tensor([7, 3]))
    (whole,) = session.measured()
    assert batch.images.shape == (2, 3, 24, 24)
    assert torch.equal(batch.images, whole.images[[7, 3]])
    assert torch.equal(batch.target, whole.target[[7, 3]])
    pixels = again.pixels(batch.images)
    assert pixels.dtype == torch.uint8
    mean, std = (
        torch.tensor(x)[:, None, None] for x in (session.sources.mean, session.sources.std)
    )
    torch.testing.assert_close((pixels / 255 - mean) / std, batch.images, atol=0.02, rtol=0)


# ------------------------------------------------------------------------------------- failures

TRACEBACK = "; run `stillhouse explain RUN --debug` for the traceback."


def by_name(sections: Iterable[Section]) -> dict[str, Section]:
    return {section.name: section for section in sections}


@pytest.fixture
def copy(done: Result, sections: dict[str, Section], tmp_path: Path) -> Path:
    """A copy of the run with its diagnoses."""
    shutil.copytree(done.folder, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def earlier(copy: Path) -> dict[str, Section]:
    """The diagnoses in the copy's file."""
    kept = read_kept(copy)
    assert kept is not None
    return by_name(kept.sections)


@contextmanager
def without(path: Path) -> Iterator[None]:
    """A file is not there inside."""
    hidden = path.rename(path.with_name("hidden"))
    yield
    hidden.rename(path)


def raising(error: Exception) -> Callable[..., Any]:
    def broken(*_: object, **__: object) -> Any:
        raise error

    return broken


def recompute(folder: Path, recipe: Recipe | None = None) -> dict[str, Section]:
    recipe = recipe or quick(*WORDS)
    session = Session.open(recipe, quiet=True)
    return by_name(sections_of_run(folder, recipe, session, ExplainOptions(60, recompute=True)))


def test_a_failed_diagnosis_is_named_and_the_others_are_computed(
    done: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(done.folder, tmp_path / "run")
    (tmp_path / "run" / DIAGNOSIS_FILE).unlink(missing_ok=True)
    monkeypatch.setattr("stillhouse.explain.calibration.calibration", raising(KeyError("bins")))
    monkeypatch.setattr(diagnosis.gradients, "term_gradients", raising(RuntimeError("no memory")))
    found = recompute(tmp_path / "run")
    failed = {name for name, section in found.items() if section.failed}
    assert failed == {"calibration", "gradients"} and len(found) == 11
    assert found["calibration"].sentences == (
        f"Calibration could not be computed: KeyError: 'bins'{TRACEBACK}",
    )
    assert found["gradients"].sentences == (
        f"Gradients of the loss terms could not be computed: RuntimeError: no memory{TRACEBACK}",
    )
    monkeypatch.undo()
    assert not any(section.failed for section in recompute(tmp_path / "run").values())


def test_a_failed_diagnosis_does_not_replace_a_good_one(
    copy: Path, earlier: dict[str, Section], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillhouse.explain.calibration.calibration", raising(KeyError("bins")))
    found = recompute(copy)
    assert [*found] == [*earlier]
    kept = found["calibration"]
    assert kept.tables == earlier["calibration"].tables and not kept.failed
    assert kept.note.startswith("Computed earlier. Calibration could not be computed: KeyError")
    assert found["logits"].tables != earlier["logits"].tables and found["logits"].note == ""
    kept_now = read_kept(copy)
    assert kept_now is not None and by_name(kept_now.sections)["calibration"].note == kept.note


def test_without_predictions_earlier_diagnoses_stay(
    copy: Path, earlier: dict[str, Section], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "collector", raising(RuntimeError("no memory")))
    found = recompute(copy)
    assert [*found] == ["predictions", *earlier]
    assert found["predictions"].sentences == (
        f"Predictions could not be computed: RuntimeError: no memory{TRACEBACK}",
    )
    assert found["agreement"].tables == earlier["agreement"].tables
    assert found["agreement"].note == "Computed earlier."
    assert found["gradients"].note == ""  # these do not need predictions
    monkeypatch.undo()
    assert [*recompute(copy)] == [*earlier]


def test_a_control_that_cannot_be_loaded_is_named(copy: Path, earlier: dict[str, Section]) -> None:
    (copy / "control" / STUDENT).write_bytes(b"damaged")
    found = recompute(copy)
    assert found["missing"].sentences[0] == "Left out: control."
    assert "The network of control could not be loaded" in found["missing"].sentences[1]
    # other weights than those of the earlier diagnoses, which are therefore not kept
    assert found["agreement"].tables != earlier["agreement"].tables
    assert found["agreement"].note == ""


def test_other_weights_have_no_earlier_diagnoses(copy: Path, monkeypatch: Any) -> None:
    for name in (STUDENT, f"{STUDENT}{CONTRACT_SUFFIX}"):
        shutil.copy(copy / "control" / name, copy / name)
    monkeypatch.setattr("stillhouse.explain.calibration.calibration", raising(KeyError("bins")))
    assert recompute(copy)["calibration"].failed


def test_without_the_data_kept_diagnoses_are_shown(copy: Path, earlier: dict[str, Section]) -> None:
    recipe = quick(*WORDS)
    assert [s.name for s in sections_of_run(copy, recipe, None)] == [*earlier]
    again = sections_of_run(copy, recipe, None, ExplainOptions(recompute=True))
    assert {section.note for section in again} == {"Computed earlier."}
    (copy / DIAGNOSIS_FILE).unlink()
    assert sections_of_run(copy, recipe, None) == ()


@pytest.fixture(scope="module")
def given_teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run whose teacher comes from a file, and that file."""
    folder = tmp_path_factory.mktemp("given")
    weights = Path(shutil.copy(kept_teacher(), folder / "teacher.safetensors"))
    beside = kept_teacher().with_name(f"{STUDENT}{CONTRACT_SUFFIX}")
    shutil.copy(beside, folder / f"teacher.safetensors{CONTRACT_SUFFIX}")
    run(folder / "run", *WORDS, f"teacher.weights={weights}")
    return folder / "run", weights


def test_a_teacher_file_that_is_deleted_leaves_the_earlier_diagnoses(
    given_teacher: tuple[Path, Path],
) -> None:
    folder, weights = given_teacher
    recipe = load.load(folder / "recipe.yaml")
    session = Session.open(recipe, quiet=True)
    sections_of_run(folder, recipe, session)
    kept = read_kept(folder)
    assert kept is not None
    before = by_name(kept.sections)
    assert "gradients" in before and not any(s.note or s.failed for s in before.values())
    with without(weights):
        page = run_page(folder)  # `report` shows what is kept
        assert [s.name for s in page.sections] == [*before] and len(page.bars) == 2
        page = run_page(folder, ExplainOptions(60, recompute=True))
    found = by_name(page.sections)
    assert [*found] == ["missing", *before] and len(page.bars) == 2
    assert str(weights) in found["missing"].sentences[1]
    for name in ("agreement", "consistency", "gradients"):
        assert found[name].tables == before[name].tables
        assert found[name].note.startswith("Computed earlier")
    assert found["logits"].note == "Computed earlier, with the outputs of teacher."
    assert [*recompute(folder, recipe)] == [*before]


def test_a_teacher_file_that_is_deleted_does_not_empty_the_first_page(
    given_teacher: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, weights = given_teacher
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run" / DIAGNOSIS_FILE).unlink(missing_ok=True)
    with without(weights):
        page = run_page(tmp_path / "run")
    found = by_name(page.sections)
    assert found["missing"].sentences[0] == "Left out: teacher."
    assert {"logits", "calibration", "classes"} <= {*found} and "consistency" not in found
    assert found["logits"].missing == ("teacher",) and len(page.bars) == 2


@pytest.mark.parametrize("name", ["convnext", "vit"])
def test_a_student_of_transformers_has_a_page(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = (f"student=transformers_models:{name}", "train.epochs=0.1", "method=kd")
    kept_teacher()
    with trust_factories():
        folder = run(tmp_path / "run", *words).folder
        state = torch.load(folder / "state.pt", weights_only=True)
        assert state["step"] == 1
        page = run_page(folder)
    assert [bar.who for bar in page.bars] == ["teacher", "student"]
    assert all("it has learned next to nothing" in note for note in page.notes)
    assert {cost.who for cost in page.costs} == {"teacher", "student"}
    found = by_name(page.sections)
    assert {"agreement", "calibration", "embedding", "activation", "gradients"} <= {*found}
    assert not any(section.failed for section in found.values())
    (pictures,) = found["activation"].charts
    assert isinstance(pictures, ImageGrid)
    assert pictures.columns == (3 if name == "convnext" else 2)  # a transformer has no map


def test_activation_maps_that_fail_are_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse.explain.layer_cam._extract", raising(TypeError("no graph")))
    (copy / DIAGNOSIS_FILE).unlink()
    section = recompute(copy)["activation"]
    assert section.failed and len(section.sentences) == 3
    assert section.sentences[0] == (
        f"The maps of the teacher could not be computed: TypeError: no graph{TRACEBACK}"
    )


def test_a_task_without_diagnoses_needs_no_predictions(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that the page does not know: scores, curves and gradients are shown."""

    class Unknown(Classification):
        def supervise(self, *arguments: Any, **options: Any) -> Terms:
            (term,) = super().supervise(*arguments, **options).values()
            return {"box": term}

        collect = collect_target = select = raising(AssertionError("collected"))

    def build(spec: ClassificationSpec, facts: Facts) -> Classification:
        task = Unknown(len(facts.classes))
        object.__setattr__(task, "examine", ())
        return task

    (copy / DIAGNOSIS_FILE).unlink()
    monkeypatch.setattr(ClassificationSpec, "build", build)
    monkeypatch.setattr(diagnosis, "collector", raising(AssertionError("collected")))
    page = run_page(copy)
    assert len(page.bars) == 3 and page.curves
    assert all("it has learned next to nothing" in note for note in page.notes)
    (section,) = page.sections
    assert section.name == "gradients" and not section.failed
    rows = [row[1:2] + row[-1:] for row in table(section).rows]
    assert ("box", "label term") in rows and len(rows) == 6
    assert {verdict for term, verdict in rows if term != "box"} <= {"ok", "dominant", "conflicting"}


def test_debug_prints_the_traceback(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("stillhouse.explain.calibration.calibration", raising(KeyError("bins")))
    logger = logging.getLogger("stillhouse")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logger.level)
    ended = caller(capsys)("explain", str(copy), "--limit", "60", "--debug")
    assert ended.code == 0 and "Computed earlier. Calibration could not be computed" in ended.out
    assert "Traceback (most recent call last)" in ended.err and "KeyError: 'bins'" in ended.err
