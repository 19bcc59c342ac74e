"""The run's folder: who may write there, and that nothing is ever half written."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.engine import folder as folders
from stillhouse.engine.folder import lock_folder
from stillhouse.errors import UserError
from stillhouse.files import atomic_write, replace_nonfinite, write_json, write_text


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def begin(folder: Path, recipe: str = "one") -> None:
    with lock_folder(folder, resume=False, recipe=recipe):
        write_text(folder / "recipe.yaml", "seed: 1\n")


def test_it_makes_the_folder_and_its_parents(tmp_path):
    with lock_folder(tmp_path / "a" / "b", resume=False) as held:
        assert held.folder.is_dir()


def test_a_second_run_is_refused(tmp_path):
    begin(tmp_path / "run")
    with pytest.raises(UserError, match="already contains a run; add --resume to continue it"):
        lock_folder(tmp_path / "run", resume=False, recipe="one")
    with lock_folder(tmp_path / "run", resume=True, recipe="one"):
        assert (tmp_path / "run" / "recipe.yaml").read_text() == "seed: 1\n"


def test_another_recipe_is_refused_and_the_first_still_fits(tmp_path):
    begin(tmp_path / "run")
    with pytest.raises(UserError, match="contains a run of another recipe"):
        lock_folder(tmp_path / "run", resume=True, recipe="two")
    lock_folder(tmp_path / "run", resume=True, recipe="one").release()


def test_a_run_that_wrote_nothing_is_no_run(tmp_path):
    lock_folder(tmp_path / "run", resume=False, recipe="one").release()
    lock_folder(tmp_path / "run", resume=False, recipe="two").release()


def test_resuming_nothing_begins_anew(tmp_path):
    lock_folder(tmp_path / "run", resume=True, recipe="one").release()
    assert (tmp_path / "run" / folders.MARK).read_text() == "one\n"


def test_a_folder_of_other_things_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("dear")
    for options in ({"resume": False}, {"resume": True}, {"resume": False, "overwrite": True}):
        with pytest.raises(UserError, match="is not a run folder but contains files"):
            lock_folder(tmp_path, **options)
    assert (tmp_path / "thesis.tex").read_text() == "dear"


def test_overwriting_removes_the_run_but_nothing_that_it_points_to(tmp_path):
    begin(tmp_path / "run")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    (tmp_path / "run" / "link").symlink_to(outside)
    (tmp_path / "run" / "deep").mkdir()
    (tmp_path / "run" / "deep" / "file").write_text("x")
    lock_folder(tmp_path / "run", resume=False, overwrite=True, recipe="two").release()
    assert names(tmp_path / "run") == {folders.LOCK, folders.MARK}
    assert (outside / "kept").read_text() == "kept"
    with pytest.raises(UserError, match="both resumed and overwritten"):
        lock_folder(tmp_path / "run", resume=True, overwrite=True)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="is a file, not a folder"):
            lock_folder(place, resume=False)


@pytest.mark.parametrize("call", ["mkdir", "open"])
def test_an_unwritable_place(tmp_path, monkeypatch, call):
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(*((Path, "mkdir") if call == "mkdir" else (os, "open")), refuse)
    with pytest.raises(UserError, match=r"Permission denied; .*choose another folder"):
        lock_folder(tmp_path / "run", resume=False)


def test_two_processes_cannot_write_one_folder(tmp_path):
    code = (
        "import sys; from stillhouse.engine.folder import lock_folder; "
        "lock_folder(sys.argv[1], resume=True); print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    with pytest.raises(UserError, match=f"being written by process {other.pid};"):
        lock_folder(tmp_path / "run", resume=True)
    other.kill()  # no chance to tidy up: the system releases the lock
    other.communicate()
    lock_folder(tmp_path / "run", resume=True).release()


def test_one_process_claims_twice_only_after_release(tmp_path):
    held = lock_folder(tmp_path / "run", resume=False)
    with pytest.raises(UserError, match=f"process {os.getpid()};"):
        lock_folder(tmp_path / "run", resume=True)
    held.release()
    held.release()
    lock_folder(tmp_path / "run", resume=True).release()


def test_a_refused_claim_lets_go_of_the_lock(tmp_path):
    begin(tmp_path / "run")
    for _ in range(2):
        with pytest.raises(UserError, match="already contains a run"):
            lock_folder(tmp_path / "run", resume=False)


def test_half_written_files_are_swept(tmp_path):
    begin(tmp_path / "run")
    (tmp_path / "run" / ".state.pt.123.partial").write_bytes(b"half")
    lock_folder(tmp_path / "run", resume=True, recipe="one").release()
    assert names(tmp_path / "run") == {folders.LOCK, folders.MARK, "recipe.yaml"}


def test_a_disk_without_locks_still_works(tmp_path, monkeypatch):
    import fcntl

    def refuse(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock_folder(tmp_path / "run", resume=False).release()


@pytest.mark.parametrize(
    ("number", "mend"), [(errno.ENOSPC, "free some space"), (errno.EACCES, "make it writable")]
)
def test_a_refused_write_keeps_the_old_file(tmp_path, monkeypatch, number, mend):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def refuse(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    words = rf"a\.txt: {os.strerror(number)}; the previous file is kept, {mend}"
    with pytest.raises(UserError, match=words):
        write_text(path, "new")
    assert path.read_text() == "old" and names(tmp_path) == {"a.txt"}


def test_an_interrupted_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and names(tmp_path) == {"a.txt"}


def test_a_missing_folder_is_said(tmp_path):
    with pytest.raises(UserError, match=r"no/a\.txt: No such file or directory; fix that"):
        write_text(tmp_path / "no" / "a.txt", "x")


def test_json_is_valid_json(tmp_path):
    value = {"loss": float("nan"), "ü": [1, (float("inf"), 2.5)], "deep": {"x": None, "y": True}}
    write_json(tmp_path / "a.json", value)

    def no_constant(name: str) -> None:
        raise AssertionError(name)

    read = json.loads((tmp_path / "a.json").read_text("utf-8"), parse_constant=no_constant)
    assert read == {"loss": None, "ü": [1, [None, 2.5]], "deep": {"x": None, "y": True}}
    assert replace_nonfinite(-float("inf")) is None and replace_nonfinite("nan") == "nan"


@pytest.mark.parametrize("name", ["metrics.jsonl", "control/metrics.jsonl", "tensorboard"])
def test_a_run_with_a_link_out_of_its_folder_is_not_resumed(name: str, tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_text("kept\n")
    lock_folder(folder, resume=False).release()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(victim)
    with pytest.raises(UserError, match="leads out of .*replace the link by a copy"):
        lock_folder(folder, resume=True)
    with lock_folder(folder, resume=False, overwrite=True):
        assert not (folder / name).exists()
    assert victim.read_text() == "kept\n"


def test_a_link_of_the_lock_file_is_refused(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_text("kept\n")
    folder.mkdir()
    (folder / ".lock").symlink_to(victim)
    with pytest.raises(UserError, match="could not write into"):
        lock_folder(folder, resume=False)
    assert victim.read_text() == "kept\n"
