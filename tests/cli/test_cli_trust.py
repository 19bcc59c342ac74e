"""Code that a recipe names is run only where the user says so."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from quick import WORDS, Call, caller
from stillhouse.recipes import load
from stillhouse.study.jobs import Job, process_workers

# As if it came from elsewhere: it leaves a trace where it is imported.
MODULE = """
from pathlib import Path

from torch import nn

Path("imported").touch()

def make(classes, channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes))
"""
SAID = "'foreign_nets:make' names code to be run; if you trust where it comes from, add --trust"
NAME = "student=foreign_nets:make"
FAST = (*WORDS, "method=none", "teacher=null", "train.epochs=1")


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return caller(capsys)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "foreign_nets.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sys.modules.pop("foreign_nets", None)
    yield tmp_path
    sys.modules.pop("foreign_nets", None)


def test_a_recipe_runs_no_code_unless_it_is_trusted(call: Call, place: Path) -> None:
    assert SAID in call("run", "digits/raw", *FAST, NAME, "--out", "run").error
    checked = call("doctor", "digits/raw", *FAST, NAME)
    assert checked.code == 2 and "add --trust" in " ".join(checked.out.split())
    assert SAID in call("study", "digits/raw", *WORDS, NAME, "--out", "study").error
    assert SAID in call("models", "foreign_nets:make", "classes=2").error
    assert not Path("imported").exists() and not Path("run", "result.json").exists()


def test_a_callable_that_is_no_network_is_not_called(call: Call, place: Path) -> None:
    Path("kept").write_text("kept")
    name = "student={name: 'logging:basicConfig', options: {filename: kept, filemode: w}}"
    assert "add --trust" in call("run", "digits/raw", *FAST, name, "--out", "run").error
    name = "student={name: 'torch.hub:load', options: {repo_or_dir: theirs, source: local}}"
    assert "add --trust" in call("run", "digits/raw", *FAST, name, "--out", "run").error
    assert Path("kept").read_text() == "kept"


def test_a_run_folder_runs_no_code_unless_it_is_trusted(call: Call, place: Path) -> None:
    words = ("run", "digits/raw", *FAST, NAME, "--out", "run", "--no-explain")
    assert call(*words, "--trust").code == 0
    assert json.loads(Path("run", "environment.json").read_text())["trust"] is True
    for file in ("imported", "run/cost.json"):
        Path(file).unlink()
    sys.modules.pop("foreign_nets")
    assert SAID in call("evaluate", "run").error
    for words in (("report", "run"), ("explain", "run")):
        assert call(*words).code == 0  # the page is made, with a note
        assert "names code to be run" in Path("run", "report.html").read_text()
    assert not Path("imported").exists()
    assert call("evaluate", "run", "--trust").code == 0 and Path("imported").exists()
    assert call("explain", "run", "--trust").code == 0
    assert "names code to be run" not in Path("run", "report.html").read_text()


def test_the_workers_of_a_trusted_study_are_trusted(place: Path) -> None:
    from stillhouse.models.factories import trust_factories

    job = Job(load.load("digits/raw", [*FAST, NAME]), place / "study" / "none" / "0")
    with process_workers(1) as workers:
        failed = workers.train([job], lambda *_: None)[job.folder]
        assert "names code to be run" in failed.message
        with trust_factories():
            score = workers.train([job], lambda *_: None)[job.folder]
    assert score["name"] == "foreign_nets:make"


def test_an_argument_that_no_file_system_takes(call: Call) -> None:
    long = "x" * 300
    assert "File name too long; shorten it" in call("report", long).error
    assert "File name too long; shorten it" in call("run", "digits/raw", *FAST, "--out", long).error
    assert "not found: neither a file" in " ".join(call("recipes", "validate", long).out.split())


def test_a_factory_beside_the_recipe_or_in_the_working_directory_is_found(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "recipes"
    folder.mkdir()
    networks = MODULE.replace("classes", "num_classes").replace("channels", "in_chans")
    (folder / "nets_beside.py").write_text(networks)
    (tmp_path / "nets_here.py").write_text(networks)
    (folder / "mine.yaml").write_text("extends: digits/raw\nstudent: nets_beside:make\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    words = (*FAST, "train.epochs=0.1", "--trust")
    assert call("run", "recipes/mine.yaml", *words, "--out", "run").code == 0
    here = "student=nets_here:make"
    assert call("run", "recipes/mine.yaml", *words, here, "--out", "other").code == 0
    said = call("run", "recipes/mine.yaml", *words, "student=nets_gone:make", "--out", "x").error
    assert "put its file beside the recipe" in said
