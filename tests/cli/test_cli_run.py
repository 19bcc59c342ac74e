"""`run`, `doctor` and `evaluate`: results and errors."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import typer
from PIL import Image

from quick import WORDS, Call, caller, kept_teacher, quick, student_bytes
from stillhouse.models import weights, zoo
from stillhouse.recipes import load


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return caller(capsys)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from quick import run

    return run(tmp_path_factory.mktemp("cli") / "run").folder


def go(call: Call, folder: Path, *words: str):
    """A run without diagnostics, which would take longer than the run."""
    return call("run", "digits/raw", *WORDS, *words, "--out", str(folder), "--no-explain")


def page_of(folder: Path) -> str:
    return (folder / "report.html").read_text()


def state_of(folder: Path) -> dict[Path, bytes]:
    kept = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: path.read_bytes() for path in kept}


# ---------------------------------------------------------------------------------------------- run


def test_a_run_prints_scores_and_writes_a_report(call: Call, tmp_path: Path) -> None:
    words = ("control=true", "train.epochs=1", "--out", str(tmp_path / "run"))
    ended = call("run", "digits/raw", *WORDS, *words)
    assert ended.code == 0
    last = ended.out.splitlines()[-4:]
    assert [line.split()[0] for line in last] == ["teacher", "control", "student", "report:"]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert f"{result['test']['top1']:6.2f}" in last[2]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<html" in page and f"{result['test']['top1']:.2f}" in page
    assert "Gradients of the loss terms" in page and "Size and speed" in page
    assert "Gradients" not in (go(call, tmp_path / "other") and page_of(tmp_path / "other"))
    assert "Traceback" not in ended.err and "step 6/6" in ended.err


def test_a_run_is_named_after_its_recipe(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("recipes", "cp", "digits/raw", "mine.yaml").code == 0
    assert call("run", "mine.yaml", *WORDS, "train.epochs=0.2", "--no-explain").code == 0
    assert (tmp_path / "runs" / "mine" / "student.safetensors").is_file()
    again = call(
        "run", "runs/mine", "--resume", "--no-explain"
    )  # a run's folder is its recipe and its place
    assert again.code == 0 and "step" not in again.err


def test_an_interrupted_run_prints_how_to_continue(
    call: Call, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    from stillhouse.engine import train

    set_rates = train.set_rates

    def interrupted(run, clock) -> None:
        if clock.step == 4:
            signal.raise_signal(signal.SIGINT)
        set_rates(run, clock)

    with monkeypatch.context() as patch:
        patch.setattr(train, "set_rates", interrupted)
        ended = go(call, tmp_path / "run")
    assert ended.code == 130 and "Traceback" not in ended.err
    command = ended.err.splitlines()[-1].partition("Continue with: stillhouse ")[2].split()
    assert command == ["run", str(tmp_path / "run"), "--resume"]
    assert call(*command).code == 0
    assert student_bytes(tmp_path / "run") == student_bytes(done)


# ------------------------------------------------------------------------------------ wrong words


@pytest.mark.parametrize(
    ("recipe", "words", "message"),
    [
        (
            "digits/row",
            [],
            "recipe 'digits/row' not found: neither a file nor listed by `stillhouse recipes ls`",
        ),
        ("nosuch.yaml", [], "recipe 'nosuch.yaml' not found"),
        ("digits/raw", ["trian.epochs=1"], "unknown key trian"),
        ("digits/raw", ["train.epoch=1"], "unknown key train.epoch; did you mean 'epochs' or"),
        ("digits/raw", ["train.epochs"], "'train.epochs' is not an override"),
        ("digits/raw", ["train.epochs=many"], "train.epochs"),
        ("digits/raw", ["train.epochs=[1"], "is not a valid YAML value"),
        ("digits/raw", ["method=kdd"], "method: unknown name 'kdd'; did you mean 'kd'"),
        ("digits/raw", ["student=stillhouse/tinny"], "no network 'tinny'; did you mean 'tiny'?"),
        ("digits/raw", ["data=digits/rww"], "no data set 'digits/rww'; did you mean"),
        ("digits/raw", ["data=folder", "data.path=/nosuch"], "/nosuch/train does not exist"),
        (
            "digits/raw",
            ["data.train.count=9999"],
            "digits/raw has 1078 train images, but `count` is 9999",
        ),
        ("digits/raw", ["data.batch=999"], "too few for one batch of 999"),
        (
            "digits/raw",
            ["train.groups={metod: adamw}"],
            "train.groups.metod: there is no such group",
        ),
        ("digits/raw", ["engine.device=cuda:7"], "engine.device"),
        ("digits/raw", ["teacher.weights=/nosuch/t.pt"], "there is no folder '/nosuch'"),
        ("digits/raw", ["student=timm/vit_tiny_patch16_224"], "does not take images of 1 x 8 x 8"),
        (
            "digits/raw",
            ["method={name: cwd, pairs: [[stge1, last]]}", "teacher.remember=false"],
            "no module or alias 'stge1'; did you mean 'stage1'",
        ),
        (
            "digits/raw",
            ["method={name: cwd, pairs: [[stage1, stage9]]}", "teacher.remember=false"],
            "no module or alias 'stage9'",
        ),
    ],
)
def test_a_mistake_is_one_error_and_leaves_nothing_behind(
    call: Call, tmp_path: Path, recipe: str, words: list[str], message: str
) -> None:
    kept_teacher()
    out = tmp_path / "run"
    ended = call("run", recipe, *WORDS, *words, "--out", str(out))
    assert message in ended.error
    assert ended.out == "" or ended.out.startswith("teacher: ")
    left = {path.name for path in out.iterdir()} if out.exists() else set()
    assert left <= {".lock", ".run"}  # so that the mended command is not refused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data: [digits/raw\nstudent: x\n", r"not valid YAML"),
        ("student: stillhouse/tiny\n", "data is missing"),
        ("data: digits/raw\nstudent: stillhouse/tiny\nmethod: kd\n", "kd needs a teacher"),
        ("- 1\n", "a recipe must be a mapping of keys to values, got list"),
        ("extends: nosuch\n", "recipe 'nosuch' not found"),
    ],
)
def test_an_invalid_recipe_is_an_error(
    call: Call, tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(content)
    assert message in call("run", str(path), "--out", str(tmp_path / "run")).error
    assert not (tmp_path / "run").exists()
    assert message in call("doctor", str(path)).error


class Bomb:
    """An object that runs code when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_code_in_a_teacher_file_is_not_executed(call: Call, tmp_path: Path) -> None:
    torch.save({"state_dict": Bomb(str(tmp_path / "boom"))}, tmp_path / "t.pt")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Bomb(str(tmp_path / "boom"))))
    for name in ("t.pt", "plain.pth"):
        output = go(call, tmp_path / "run", f"teacher.weights={tmp_path}/{name}").error
        assert str(tmp_path / name) in output
    assert not (tmp_path / "boom").exists()
    pickle.loads((tmp_path / "plain.pth").read_bytes())  # and it would have
    assert (tmp_path / "boom").exists()


def test_weights_of_another_network_are_refused(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    word = f"teacher.weights={path}"
    weights.save_weights(zoo.create("stillhouse/medium", 10, 1), path)
    output = go(call, tmp_path / "run", word).error
    assert str(path) in output and "the weights belong to a" in output
    weights.save_weights(zoo.create("stillhouse/little", 7, 1), path)
    assert "the file has 7 classes, the recipe 10" in go(call, tmp_path / "run", word).error
    path.write_bytes(path.read_bytes()[:500])
    assert "not a readable safetensors file" in go(call, tmp_path / "run", word).error
    path.unlink()
    assert "there is no such file" in go(call, tmp_path / "run", word).error


def test_a_random_teacher_is_refused(call: Call, tmp_path: Path) -> None:
    weights.save_weights(zoo.create("stillhouse/little", 10, 1), tmp_path / "w.safetensors")
    output = go(call, tmp_path / "run", f"teacher.weights={tmp_path}/w.safetensors").error
    assert "where chance is 10.0" in output and "teacher.gate=false" in output


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_is_named(call: Call, tmp_path: Path, workers: int) -> None:
    for split in ("train", "val"):
        for label in ("a", "b"):
            folder = tmp_path / "images" / split / label
            folder.mkdir(parents=True)
            for number in range(4):
                noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(noise).save(folder / f"{number}.png")
    broken = tmp_path / "images" / "train" / "b" / "2.png"
    broken.write_bytes(broken.read_bytes()[:200])
    words = ["data=folder", f"data.path={tmp_path}/images", "data.batch=4", "method=none"]
    ended = go(call, tmp_path / "run", *words, "teacher=null", f"engine.workers={workers}")
    assert "b/2.png" in ended.error
    assert not (tmp_path / "run" / "student.safetensors").exists()
    if workers:
        return
    words += ["teacher=null", "data.broken=skip", "train.epochs=1"]
    sentence = "train: 1 of 8 images cannot be read and are skipped"
    assert sentence in go(call, tmp_path / "skipped", *words).err
    assert sentence in (tmp_path / "skipped" / "report.html").read_text("utf-8")
    assert sentence in " ".join(call("doctor", "digits/raw", *WORDS, *words).out.split())


@pytest.mark.parametrize("when", ["state.pt", "student.safetensors", "manifest.json"])
def test_a_full_disk_is_an_error_and_the_run_can_resume(
    call: Call, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    replace, seen = os.replace, []

    def full(source: object, target: object) -> None:
        if Path(str(target)).name == when and "teachers" not in str(target):
            seen.append(target)
            if len(seen) == (2 if when == "state.pt" else 1):  # the first checkpoint fits
                raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        output = go(call, tmp_path / "run").error
    assert "No space left on device" in output and when in output
    torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert not list((tmp_path / "run").glob(".*.part*"))
    assert call("run", str(tmp_path / "run"), "--resume").code == 0
    assert student_bytes(tmp_path / "run") == student_bytes(done)


# -------------------------------------------------------------------------- a folder that is there


def test_an_existing_run_is_not_overwritten(call: Call, done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "run")
    before = state_of(tmp_path / "run")
    assert "already contains a run; add --resume" in go(call, tmp_path / "run").error
    other = go(call, tmp_path / "run", "method.temperature=3", "--resume").error
    assert "contains a run of another recipe" in other
    both = go(call, tmp_path / "run", "--resume", "--overwrite").error
    assert "cannot be both resumed and overwritten" in both
    assert state_of(tmp_path / "run") == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("dear")
    for word in ("--resume", "--overwrite"):
        assert "is not a run folder but contains files" in go(call, tmp_path / "mine", word).error
    assert [path.name for path in (tmp_path / "mine").iterdir()] in (
        ["thesis.tex"],
        [".lock", "thesis.tex"],
        ["thesis.tex", ".lock"],
    )


class Terminal:
    """A stdin that looks like a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("answer", ["resume", "R", "overwrite", "o", "stop", "", "x"])
def test_an_interactive_user_is_asked(
    call: Call, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    shutil.copytree(done, tmp_path / "run")
    before = state_of(tmp_path / "run")
    questions: list[str] = []
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(typer, "prompt", lambda text, **_: questions.append(text) or answer)
    ended = go(call, tmp_path / "run")
    assert questions and str(tmp_path / "run") in questions[0]
    if answer.lower() in ("resume", "r"):
        assert ended.code == 0 and "step" not in ended.err
    elif answer in ("overwrite", "o"):
        assert ended.code == 0 and "step 12/12" in ended.err
    else:
        assert "was left unchanged" in ended.error
        assert state_of(tmp_path / "run") == before


def test_a_script_is_not_asked(call: Call, done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a script cannot answer")

    monkeypatch.setattr(typer, "prompt", refuse)
    assert "add --resume" in go(call, done).error


# -------------------------------------------------------------------------------------- evaluate


def table(out: str) -> dict[str, float]:
    """The numbers below the line that names the split."""
    return {line.split()[0]: float(line.split()[1]) for line in out.splitlines()[1:]}


def test_evaluate_gives_the_recorded_result(call: Call, done: Path) -> None:
    ended = call("evaluate", str(done))
    assert ended.code == 0 and ended.err == ""
    assert ended.out.startswith("student on test, 359 images\n")
    recorded = json.loads((done / "result.json").read_text())
    assert table(ended.out) == pytest.approx(recorded["test"], abs=1e-4)
    val = table(call("evaluate", str(done), "--split", "val").out)
    assert val["top1"] == pytest.approx(recorded["validation"]["top1"], abs=1e-4)


def test_evaluate_with_other_weights(call: Call, done: Path, tmp_path: Path) -> None:
    state = safetensors.torch.load_file(done / "student.safetensors")
    state["head.bias"][3] += 1000  # says 3 to everything
    safetensors.torch.save_file(state, tmp_path / "threes.safetensors")
    result = table(call("evaluate", str(done), "--weights", f"{tmp_path}/threes.safetensors").out)
    from stillhouse.data.embedded.digits import make_raw

    assert result["top1"] == pytest.approx(
        100 * float((make_raw("test").targets == 3).double().mean()), abs=1e-3
    )
    weights.save_weights(zoo.create("stillhouse/little", 10, 1), tmp_path / "other.safetensors")
    output = call("evaluate", str(done), "--weights", f"{tmp_path}/other.safetensors").error
    assert "other.safetensors" in output


def test_evaluate_needs_a_finished_run(call: Call, done: Path, tmp_path: Path) -> None:
    assert "is not a run folder: it has no recipe.yaml" in call("evaluate", str(tmp_path)).error
    assert (
        "--split: unknown split 'tets'; did you mean 'test'?"
        in call("evaluate", str(done), "--split", "tets").error
    )
    (tmp_path / "recipe.yaml").write_text(load.to_yaml(quick()))
    output = call("evaluate", str(tmp_path)).error
    assert "has no student.safetensors yet; finish it with" in output and "--resume" in output


# ---------------------------------------------------------------------------------------- doctor


def test_doctor_passes_a_valid_recipe(call: Call) -> None:
    kept_teacher()
    ended = call("doctor", "digits/raw", *WORDS)
    assert ended.code == 0 and ended.err == ""
    signs = [line.split()[0] for line in ended.out.splitlines() if not line.startswith(" ")]
    assert signs == ["ok"] * 8


def test_doctor_reports_a_failure_and_skips_the_rest(call: Call) -> None:
    ended = call("doctor", "digits/raw", *WORDS, "data=folder", "data.path=/nosuch")
    assert ended.code == 2 and ended.err == ""
    lines = [line for line in ended.out.splitlines() if not line.startswith(" ")]
    assert [line.split()[0] for line in lines] == ["ok", "FAIL"] + ["skip"] * 6
    assert "/nosuch/train does not exist" in lines[1]


def test_doctor_on_a_typo(call: Call) -> None:
    assert "unknown key studnt" in call("doctor", "digits/raw", "studnt=x").error
