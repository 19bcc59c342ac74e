"""A study from plan to results: jobs, shared work, failures, continuation."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch

from alone import Alone
from quick import kept_teacher, metrics, quick, run, student_bytes
from stillhouse.build.session import Session
from stillhouse.engine import train as training
from stillhouse.engine.interrupt import Stopped
from stillhouse.errors import UserError
from stillhouse.methods.plugin import Plugin
from stillhouse.models import weights, zoo
from stillhouse.recipes.schema import Comparison, Network
from stillhouse.study.plan import StudyPlan, make_plan
from stillhouse.study.results import STUDY_FILE, Study, read_study
from stillhouse.study.runner import run_study
from stillhouse.study.statistics import t_interval

FAST = ("train.epochs=1", "engine.evaluate_every=0.5")


def plan(methods: str, seeds: int = 2, *words: str, **more: Any) -> StudyPlan:
    return make_plan(quick(*FAST, *words), methods, seeds, **more)


def go(plan: StudyPlan, folder: Path, **options: Any) -> tuple[Study, list[str], Alone]:
    kept_teacher()
    messages: list[str] = []
    workers = Alone()
    return run_study(plan, folder, workers, messages.append, **options), messages, workers


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, list[str]]:
    """One study: the control, a logit method, a feature method, and an invalid method."""
    folder = tmp_path_factory.mktemp("done") / "study"
    study_plan = plan("kd,cwd:pairs=[[stage1, stage1]],cwd:pairs=[[stage9, last]]")
    return go(study_plan, folder)[:2]


def test_every_job_is_an_ordinary_run(done: tuple[Study, list[str]], tmp_path: Path) -> None:
    study, _ = done
    (kd,) = (arm for arm in study.arms if arm.label == "kd")
    alone = run(tmp_path / "run", *FAST, "seed=1")
    assert student_bytes(kd.folder / "1") == student_bytes(alone)
    assert metrics(kd.folder / "1") == metrics(alone.folder)
    assert {p.name for p in (kd.folder / "1").iterdir()} >= {"recipe.yaml", "state.pt"}


def test_the_control_has_the_seeds_and_steps_of_the_others(
    done: tuple[Study, list[str]], tmp_path: Path
) -> None:
    study, _ = done
    assert set(study.values("none")) == set(study.values("kd")) == {0, 1}
    lines = {arm: metrics(study.arm(arm).folder / "0") for arm in ("none", "kd")}
    assert [x["step"] for x in lines["none"]] == [x["step"] for x in lines["kd"]]


def test_a_failed_job_has_a_reason_and_the_others_continue(
    done: tuple[Study, list[str]],
) -> None:
    study, messages = done
    wrong = study.arm("cwd:pairs=[[stage9, last]]")
    assert wrong.scores == {} and set(wrong.failures) == {0, 1}
    assert "no module or alias 'stage9'" in wrong.failures[0]
    assert sum("failed: " in line and "'stage9'" in line for line in messages) == 2
    assert {arm.label for arm in study.taught} == {"kd", "cwd:pairs=[[stage1, stage1]]"}
    assert any("stage9" in note for note in study.notes)


def test_progress_messages(done: tuple[Study, list[str]]) -> None:
    _, messages = done
    assert messages[0] == "4 arms x 2 seeds: 8 runs"
    numbered = [line for line in messages if line.startswith("[")]
    assert [line.partition("]")[0] for line in numbered] == [f"[{i}/8" for i in range(1, 9)]
    assert any(line.startswith("teacher stillhouse/little: top1 ") for line in messages)
    assert sum("storing 200 answers" in line for line in messages) <= 1


def test_the_outputs_of_the_teacher_are_computed_once(
    done: tuple[Study, list[str]], tmp_path: Path
) -> None:
    study, _ = done
    recipes = {a.label: (a.folder / "0" / "recipe.yaml") for a in study.arms if a.scores}
    assert "store:\n    precision: full" in recipes["kd"].read_text()
    assert "store: null" in recipes["cwd:pairs=[[stage1, stage1]]"].read_text()
    _, messages, _ = go(plan("dist", 2), tmp_path / "other")  # another study finds the store full
    assert not any("storing" in line for line in messages)


def test_summaries_are_the_statistics_of_the_jobs(done: tuple[Study, list[str]]) -> None:
    study, _ = done
    kd_values, control_values = study.values("kd"), study.values("none")
    for seed, value in kd_values.items():
        result = json.loads((study.arm("kd").folder / str(seed) / "result.json").read_text())
        assert value == result["test"]["top1"] and result["seed"] == seed
    gain = t_interval([*kd_values.values()], [*control_values.values()])
    assert study.gain("kd", "none") == gain
    line = study.summaries()[0]
    assert line.startswith(f"KD: student {mean(kd_values.values()):.1f} ± ")
    assert f"{gain.mean:+.1f} (95 % interval {gain.low:.1f} … {gain.high:.1f}, 2 seeds)" in line
    assert f"teacher {study.teachers['stillhouse/little']['test']['top1']:.1f}" in line


def test_a_second_run_reads_finished_jobs_and_retries_failed_ones(
    done: tuple[Study, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _ = done
    trained: list[Any] = []
    before = (study.folder / "kd" / "0" / "environment.json").read_text()
    monkeypatch.setattr(training, "set_rates", lambda *_: trained.append(_))
    study_plan = plan("kd,cwd:pairs=[[stage1, stage1]],cwd:pairs=[[stage9, last]]")
    again, messages, workers = go(study_plan, study.folder)
    assert trained == [] and len(workers.folders) == 8
    assert (study.folder / "kd" / "0" / "environment.json").read_text() == before
    assert [a.scores for a in again.arms] == [a.scores for a in study.arms]
    assert sum("failed: " in line for line in messages) == 2


def test_methods_and_seeds_can_be_added_later(
    done: tuple[Study, list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    shutil.copytree(done[0].folder, folder)
    before = (folder / "kd" / "1" / "result.json").stat().st_mtime_ns
    more, _, _ = go(plan("kd,mse", 3), folder)
    assert [arm.label for arm in more.arms] == ["none", "kd", "mse"]
    assert {len(arm.scores) for arm in more.arms} == {3}
    assert (folder / "kd" / "1" / "result.json").stat().st_mtime_ns == before


def test_changed_options_are_refused_or_retrained(
    done: tuple[Study, list[str]], tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    shutil.copytree(done[0].folder, folder)
    other = plan("kd", 1, "method={name: kd, temperature: 2}")
    with pytest.raises(
        UserError, match=r"kd/0 was trained with other options; choose another folder with --out"
    ):
        go(other, folder)
    assert read_study(folder).values("kd") == done[0].values("kd")
    anew, _, _ = go(other, folder, overwrite=True)
    assert anew.values("kd").keys() == {0}
    assert "temperature: 2" in (folder / "kd" / "0" / "recipe.yaml").read_text()


def test_another_recipe_is_refused(done: tuple[Study, list[str]]) -> None:
    with pytest.raises(UserError, match="contains a run of another recipe"):
        go(plan("kd", 2, "train.epochs=2"), done[0].folder)


def test_an_interrupted_study_continues_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study interrupted within a job continues that job from its last step."""
    import signal

    set_rates = training.set_rates
    seen: list[int] = []

    def interrupted(run: Any, clock: Any) -> None:
        seen.append(clock.step)
        if len(seen) == 9:
            signal.raise_signal(signal.SIGINT)
        set_rates(run, clock)

    study_plan = plan("kd", 2)
    with monkeypatch.context() as patch:
        patch.setattr(training, "set_rates", interrupted)
        with pytest.raises(Stopped):
            go(study_plan, tmp_path / "study")
    first, seen[:] = list(seen), []
    monkeypatch.setattr(training, "set_rates", lambda r, c: (seen.append(c.step), set_rates(r, c)))
    study, _, _ = go(study_plan, tmp_path / "study")
    assert len(first) + len(seen) == 4 * 6  # no step twice, none left out
    undisturbed, _, _ = go(study_plan, tmp_path / "other")
    for arm in study.arms:
        for seed in arm.scores:
            other = undisturbed.arm(arm.label).folder / str(seed)
            assert student_bytes(arm.folder / str(seed)) == student_bytes(other)


def test_a_rejected_teacher_fails_only_its_own_arms(tmp_path: Path) -> None:
    bad = tmp_path / "random.safetensors"
    weights.save_weights(zoo.create("stillhouse/medium", 10, 1), bad)
    study_plan = plan("kd", 1, teachers=f"stillhouse/little,stillhouse/medium={bad}")
    study, messages, _ = go(study_plan, tmp_path / "study")
    good, wrong = (study.arm(f"kd from stillhouse/{name}") for name in ("little", "medium"))
    assert good.scores and not wrong.scores
    assert "where chance is 10.0" in wrong.failures[0]
    assert any(line.startswith("teacher stillhouse/medium is not used") for line in messages)
    with pytest.raises(UserError, match="where chance is"):  # and alone it ends the study
        go(plan("kd", 1, teachers=f"stillhouse/medium={bad}"), tmp_path / "alone")
    assert not (tmp_path / "alone" / "none").exists()  # before the control was trained


def test_an_unexpected_exception_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(run: Any, clock: Any) -> None:
        if run.teacher_hash:
            raise RuntimeError("shapes do not fit\nand more")
        set_rates(run, clock)

    set_rates = training.set_rates
    monkeypatch.setattr(training, "set_rates", broken)
    study, _, _ = go(plan("kd", 1), tmp_path / "study")
    message = study.arm("kd").failures[0]
    assert message.startswith("RuntimeError: shapes do not fit; for a traceback: stillhouse run")
    monkeypatch.undo()
    mended, _, _ = go(plan("kd", 1), tmp_path / "study")
    assert mended.arm("kd").failures == {} and mended.arm("kd").scores
    assert not list((tmp_path / "study").rglob("*.failure.json"))


def test_a_method_of_a_missing_package(tmp_path: Path) -> None:
    recipe = replace(quick(*FAST), study=Comparison({"mine": (Plugin("nosuch"),)}, seeds=1))
    study, _, _ = go(make_plan(recipe), tmp_path / "study")
    assert "no installed package provides a method 'nosuch'" in study.arm("mine").failures[0]


def test_torchrun_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="cannot run under torchrun"):
        run_study(plan("kd", 1), tmp_path / "study", Alone())
    assert not (tmp_path / "study").exists()


def test_wrong_names_are_errors_before_training(tmp_path: Path) -> None:
    recipe = replace(quick(*FAST), student=Network("stillhouse/tinny"))
    with pytest.raises(UserError, match="did you mean 'tiny'"):
        go(make_plan(recipe, "kd", 1), tmp_path / "study")
    with pytest.raises(UserError, match="no network 'litle'; did you mean 'little'"):
        go(plan("kd", 1, teachers="stillhouse/little,stillhouse/litle"), tmp_path / "study")
    assert not (tmp_path / "study").exists()


# --------------------------------------------------------------------------------- what is read


def study_file(control: str, folder: str = "kd", **others: object) -> str:
    """The content of study.json, with one arm."""
    names = dict.fromkeys(("label", "method", "teacher"), "kd")
    arm = {**names, "control": control, "folder": folder, "pair": ""}
    content = {"format": 1, "title": "", "headline": "top1", "seeds": [0], "notes": []}
    return json.dumps({**content, "arms": [arm], **others})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged; run the study again"),
        ("[]", "is damaged; run the study again"),
        ('{"format": 1}', "is damaged; run the study again"),
        (
            '{"format": 99, "arms": [], "seeds": [], "notes": [], "headline": "top1"}',
            "was written by another version",
        ),
        (
            '{"format": 1, "arms": [{}], "seeds": [0], "notes": [], "headline": "top1"}',
            "is damaged; run the study again",
        ),
        (study_file("none"), "is damaged; run the study again"),  # a control that is no arm
        (study_file("kd", title=None), "is damaged; run the study again"),
        (study_file("kd", seeds=["0"]), "is damaged; run the study again"),
        (study_file("kd", headline=""), "is damaged; run the study again"),
        (study_file("kd", notes=[None]), "is damaged; run the study again"),
        (study_file("kd", folder="../other"), "leads out of"),
        (study_file("kd", folder="/tmp"), "leads out of"),
    ],
)
def test_a_damaged_study_is_an_error(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match="is not a study folder: it has no study.json"):
        read_study(tmp_path)
    (tmp_path / STUDY_FILE).write_text(content)
    with pytest.raises(UserError) as error:
        read_study(tmp_path)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not finished yet"),
        ("{", "is damaged; delete its folder and run the study again"),
        ('{"test": {}}', "is damaged"),
        ('{"test": {"top1": NaN}, "best": {"top1": 1}}', "is damaged"),
        ('{"test": {"top1": 1}, "best": {"top1": "1"}}', "is damaged"),
        ('{"test": {"top1": 1}, "best": {"top1": 1}, "errors": {"box": [1]}}', "is damaged"),
        ('{"test": {"top1": null}, "best": {"top1": 1}}', "is not a finite number"),
    ],
)
def test_an_unreadable_job_becomes_a_note(
    done: tuple[Study, list[str]], tmp_path: Path, content: str | None, message: str
) -> None:
    folder = tmp_path / "study"
    shutil.copytree(done[0].folder, folder)
    path = folder / "kd" / "0" / "result.json"
    path.unlink() if content is None else path.write_text(content)
    study = read_study(folder)
    assert message in study.arm("kd").failures[0] and set(study.values("kd")) == {1}
    assert any(note.startswith("kd, seed 0: ") and message in note for note in study.notes)
    assert study.gain("kd", "none") is None and "one seed: no interval" in study.summaries()[0]
    (folder / "teachers.json").write_text("{")
    assert read_study(folder).teachers == {}


def test_scores_of_the_best_epoch(done: tuple[Study, list[str]]) -> None:
    study = read_study(done[0].folder, by="best", kind="bootstrap")
    arm = study.arm("kd")
    history = {s: json.loads((arm.folder / f"{s}" / "result.json").read_text()) for s in (0, 1)}
    wanted = {s: max(line["top1"] for line in score["history"]) for s, score in history.items()}
    assert study.values("kd") == wanted
    assert "bootstrap interval" in study.summaries()[0]


def test_a_blind_or_paused_job_never_evaluates_on_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillhouse.runs.execute import run_job
    from stillhouse.runs.training import read_result

    kept_teacher()
    monkeypatch.setattr(Session, "measured", lambda self: pytest.fail("test was looked at"))
    recipe = quick("train.epochs=3")
    paused = run_job(recipe, tmp_path / "cell", until=1, blind=True)
    assert paused["steps"] == 6 and paused["of"] == 18 and len(paused["history"]) == 1
    assert not (tmp_path / "cell" / "result.json").exists()
    same = run_job(recipe, tmp_path / "cell", until=1, blind=True)
    assert same["history"] == paused["history"]
    whole = run_job(recipe, tmp_path / "cell", blind=True)
    assert whole["test"] == {} and whole["history"][0] == paused["history"][0]
    teacher, data = whole["teacher"], Session.open(recipe, quiet=True).describe_data()
    assert read_result(recipe, tmp_path / "cell", teacher, data, blind=True) is not None
    assert (
        read_result(recipe, tmp_path / "cell", teacher, data) is None
    )  # one with a test score is wanted
    monkeypatch.undo()
    seeing = run_job(recipe, tmp_path / "cell")
    assert seeing["test"] and torch.isfinite(torch.tensor(seeing["test"]["top1"]))
    straight = run_job(recipe, tmp_path / "other")
    assert student_bytes(tmp_path / "cell") == student_bytes(tmp_path / "other")
    assert straight["test"] == seeing["test"]
