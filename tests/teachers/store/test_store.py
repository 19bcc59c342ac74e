"""A store is filled once, by whoever comes first, and refused where it is not what it should be."""

from __future__ import annotations

import errno
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stores import BATCH, BLOCK, CLASSES, ROWS, Counting, Moving, filled, filling_by, identity, read

from stillhouse.errors import UserError
from stillhouse.files import lock, unlock
from stillhouse.teachers.store import fill as filling
from stillhouse.teachers.store import store
from stillhouse.teachers.store.cached import DiskCached
from stillhouse.teachers.store.fill import fill
from stillhouse.teachers.store.outputs import RowFormat
from stillhouse.teachers.store.store import BLOCKS, Store


@pytest.fixture(autouse=True)
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filling, "BLOCK", BLOCK)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "store"


def right(folder: Path) -> bool:
    """Whether it says what the teacher says, up to the batches in which it was asked."""
    live, stored = Counting(), DiskCached(Store(folder, identity()))
    pairs = [(stored(batch).out, live(batch).out) for batch in read(0)]
    return all(torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6) for ours, theirs in pairs)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ----------------------------------------------------------------------------------------- filling


def test_every_answer_is_asked_once_in_order(folder: Path) -> None:
    teacher = Counting()
    for _ in range(2):  # and the second time, none
        fill(Store(folder, identity()), filling_by(teacher))
        assert teacher.asked == list(range(ROWS))
    assert right(folder)
    assert names(folder) == {"identity.json", "logits.npy", "blocks.txt", ".lock"}


def test_it_says_its_size_and_time_before_it_starts(folder: Path) -> None:
    teacher, said = Counting(pause=0.02), list[tuple[str, int]]()
    held = Store(folder, identity())
    fill(held, filling_by(teacher, say=lambda text: said.append((text, len(teacher.asked)))))
    ((text, asked),) = said
    assert text == f"teacher: storing 60 outputs of net in 1.2 kB at {folder}, about 1 s"
    assert asked == 2 * BATCH  # one warms up, one is timed
    assert held.size == ROWS * CLASSES * 4 == np.load(folder / "logits.npy").nbytes


def test_sizes_and_times_in_words() -> None:
    assert [store.format_size(x) for x in (0, 1_230, 1.5e6, 2.57e9)] == [
        "0.0 kB",
        "1.2 kB",
        "1.5 MB",
        "2.6 GB",
    ]
    seconds = (0, 0.4, 90, 130, 7000, 7200, 30_000)
    words = ["1 s", "1 s", "90 s", "2 min", "117 min", "2 h", "8 h"]
    assert [filling.format_estimate(x) for x in seconds] == words


@pytest.mark.parametrize("batches", [1, 2, 3, 5])
def test_a_stop_loses_nothing_and_the_rest_is_asked_later(folder: Path, batches: int) -> None:
    teacher, said = Counting(), list[str]()
    held = Store(folder, identity())
    fill(held, filling_by(teacher, stop=lambda: len(teacher.asked) >= min(batches * BATCH, ROWS)))
    kept = held.kept()
    assert 0 < kept < ROWS and kept >= len(teacher.asked) - BATCH
    with pytest.raises(UserError, match=rf"holds {kept} of 60 outputs; fill it before"):
        held.open()
    again = Counting()
    fill(held, filling_by(again, say=said.append))
    assert again.asked == list(range(kept, ROWS))
    assert f"storing {ROWS - kept} more of 60 outputs" in said[0]
    assert right(folder)


def test_a_stop_at_the_end_is_no_harm(folder: Path) -> None:
    teacher = Counting()
    fill(Store(folder, identity()), filling_by(teacher, stop=lambda: len(teacher.asked) == ROWS))
    assert right(folder)


def start(folder: Path, record: Path) -> subprocess.Popen[bytes]:
    """Another process that fills the same store, a tenth of a second a batch."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parents[1]), str(here)])
    words = [sys.executable, str(here / "stores.py"), str(folder), str(record)]
    return subprocess.Popen(words, env={**os.environ, "PYTHONPATH": path})


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def asked_by(record: Path) -> list[int]:
    return list(map(int, record.read_text().split())) if record.exists() else []


def test_a_killed_filling_is_resumed_where_its_blocks_end(folder: Path, tmp_path: Path) -> None:
    record = tmp_path / "asked"
    process = start(folder, record)
    wait_for(lambda: len(asked_by(record)) >= 3 * BATCH)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    held = Store(folder, identity())
    kept, asked = held.kept(), asked_by(record)
    assert BLOCK <= kept < ROWS and kept <= len(asked)
    teacher = Counting()
    fill(held, filling_by(teacher))
    assert teacher.asked == list(range(kept, ROWS))
    assert right(folder)


def test_two_processes_fill_once(folder: Path, tmp_path: Path) -> None:
    record, said = tmp_path / "asked", list[str]()
    process = start(folder, record)
    wait_for(lambda: len(asked_by(record)) > 0)
    teacher = Counting()
    fill(Store(folder, identity()), filling_by(teacher, say=said.append))
    assert teacher.asked == [] and said == [
        f"teacher: waiting for process {process.pid}, which stores 60 outputs of net in 1.2 kB at "
        f"{folder}"
    ]
    assert right(folder)
    assert process.wait(60) == 0 and asked_by(record) == list(range(ROWS))


def test_who_waits_can_be_stopped(folder: Path) -> None:
    folder.mkdir(parents=True)
    other, teacher = lock(folder / store.LOCK), Counting()
    fill(Store(folder, identity()), filling_by(teacher, stop=lambda: True))
    assert teacher.asked == [] and names(folder) == {".lock"}
    unlock(other)
    fill(Store(folder, identity()), filling_by(teacher))
    assert right(folder)


def test_a_line_that_a_killed_process_did_not_end_is_none(folder: Path) -> None:
    teacher = Counting()
    fill(Store(folder, identity()), filling_by(teacher, stop=lambda: len(teacher.asked) > BLOCK))
    kept = Store(folder, identity()).kept()
    with (folder / BLOCKS).open("a") as file:
        file.write(f"{kept} {kept + BLOCK} 12")
    again = Counting()
    fill(Store(folder, identity()), filling_by(again))
    assert again.asked == list(range(kept, ROWS)) and right(folder)


def test_a_disk_without_locks_still_works(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refuse(*args: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    fill(Store(folder, identity()), filling_by(Counting()))
    assert right(folder)


def test_one_that_may_only_be_read_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(folder)

    def refuse(*args: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    opened = os.open

    def only_read(path: Path, flags: int, *rest: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            refuse()
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", only_read)
    monkeypatch.setattr(Path, "mkdir", refuse)
    teacher = Counting()
    fill(Store(folder, identity()), filling_by(teacher))
    assert teacher.asked == [] and right(folder)


# --------------------------------------------------------------------------------- what is refused

MEND = "delete it, or give another teacher.store.path"


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"teacher": {"name": "net", "state": "other"}}, "was filled by another teacher"),
        ({"data": "other"}, "was filled for other data"),
        ({"samples": 21}, "was filled for other data"),
        ({"transforms": []}, "was filled for other transforms"),
        ({"mean": (0.5, 0.25, 0.2)}, "was filled for another normalisation"),
        ({"std": (1.0, 1.0, 2.0)}, "was filled for another normalisation"),
        ({"views": 4}, "was filled for another number of views"),
        ({"row_format": RowFormat(6, "full")}, "was filled for other classes"),
        ({"row_format": RowFormat(CLASSES, "half")}, "was filled in another precision"),
        (
            {"row_format": RowFormat(CLASSES, "full", 2)},
            "was filled with another number of kept classes",
        ),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_what_was_filled_for_something_else_is_refused(
    folder: Path, fields: dict[str, Any], words: str
) -> None:
    filled(folder)
    other, teacher = Store(folder, identity(**fields)), Counting()
    for attempt in (other.open, lambda: fill(other, filling_by(teacher))):
        with pytest.raises(UserError) as error:
            attempt()
        assert str(error.value) == f"{folder} {words}; {MEND}"
    assert teacher.asked == [] and right(folder)
    assert identity(**fields).digest() != identity().digest()


def test_another_format_is_refused(folder: Path) -> None:
    filled(folder)
    said = json.loads((folder / "identity.json").read_text())
    (folder / "identity.json").write_text(json.dumps(said | {"format": 1}))
    with pytest.raises(UserError, match=r"another version .*\(format 1, expected 2\)"):
        Store(folder, identity()).open()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-4])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 4)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def reshape(path: Path) -> None:
    np.save(path, np.load(path).T)


def pickled(path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(path.parent / "sprung"),)

    np.save(path, np.array([Trap()], dtype=object), allow_pickle=True)


@pytest.mark.parametrize("harm", [cut, lengthen, flip, empty, reshape, pickled, Path.unlink])
def test_torn_answers_are_refused(folder: Path, harm: Callable[[Path], None]) -> None:
    filled(folder)
    harm(folder / "logits.npy")
    with pytest.raises(UserError) as error:
        Store(folder, identity()).open()
    said = str(error.value)
    assert said.startswith(f"{folder} is damaged (logits.npy: ") and "\n" not in said
    assert said.endswith("); delete it, and it is filled again")
    assert not (folder / "sprung").exists()


def test_torn_answers_are_found_before_more_are_asked(folder: Path) -> None:
    teacher = Counting()
    fill(Store(folder, identity()), filling_by(teacher, stop=lambda: len(teacher.asked) > BLOCK))
    content = bytearray((folder / "logits.npy").read_bytes())
    content[-ROWS * CLASSES * 4 + 7] ^= 16
    (folder / "logits.npy").write_bytes(content)
    again = Counting()
    with pytest.raises(UserError, match=r"logits\.npy: rows 0 to 15 differ from what was written"):
        fill(Store(folder, identity()), filling_by(again))
    assert again.asked == []


@pytest.mark.parametrize(
    "form", [RowFormat(CLASSES, "full", 2), RowFormat(CLASSES, "half", 2)], ids=str
)
def test_every_column_is_looked_at(tmp_path: Path, form: RowFormat) -> None:
    for name in form.columns():
        filled(tmp_path / name, form)
        flip(tmp_path / name / f"{name}.npy")
        with pytest.raises(UserError, match="differ from what was written"):
            Store(tmp_path / name, identity(form)).open()


@pytest.mark.parametrize(
    "lines",
    ["0 16\n", "0 x 3\n", "16 32 5\n", "0 0 5\n", "0 99 5\n", "\n", "0 16 5\n\n16 32 5\n"],
)
def test_a_block_list_that_makes_no_sense_is_refused(folder: Path, lines: str) -> None:
    filled(folder)
    (folder / BLOCKS).write_text(lines)
    with pytest.raises(UserError, match=r"is damaged \(blocks\.txt: .*\); delete it"):
        Store(folder, identity()).open()


def test_pages_of_zeros_after_a_power_cut_are_refused(folder: Path) -> None:
    filled(folder)
    with (folder / BLOCKS).open("ab") as file:
        file.write(b"\0" * 20 + b"\n")
    with pytest.raises(UserError, match=r"is damaged \(blocks\.txt"):
        Store(folder, identity()).open()


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_an_identity_that_cannot_be_read_is_refused(folder: Path, content: str) -> None:
    filled(folder)
    (folder / "identity.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=f"identity.json .*{MEND}"):
        Store(folder, identity()).open()


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    teacher = Counting()
    with pytest.raises(UserError, match="holds files that do not belong to a store; set another"):
        fill(Store(tmp_path, identity()), filling_by(teacher))
    assert names(tmp_path) == {"thesis.tex"} and teacher.asked == []


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("dear")
    with pytest.raises(UserError, match="file is a file, but a store is a folder"):
        fill(Store(tmp_path / "file", identity()), filling_by(Counting()))
    with pytest.raises(UserError, match="could not write .*file/store"):
        fill(Store(tmp_path / "file" / "store", identity()), filling_by(Counting()))


@pytest.mark.parametrize("call", [(Path, "mkdir"), (os, "open")], ids=lambda c: c[1])
def test_an_unwritable_place_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: tuple[Any, str]
) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(*call, refuse)
    with pytest.raises(UserError, match="could not write .*Permission denied; make it writable"):
        fill(Store(folder, identity()), filling_by(Counting()))


def test_a_disk_that_is_full_is_said_before_anything_is_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = store.shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage)
    teacher = Counting()
    words = "60 outputs take 1.2 kB, but .* has 1.0 kB free; free some space, or set"
    with pytest.raises(UserError, match=words):
        fill(Store(folder, identity()), filling_by(teacher))
    assert teacher.asked == []


def test_a_disk_that_becomes_full_keeps_the_blocks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, left = store.index.append_block, [2]

    def until_full(path: Path, block: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        add(path, block)

    monkeypatch.setattr(store.index, "append_block", until_full)
    with pytest.raises(UserError) as error:
        fill(Store(folder, identity()), filling_by(Counting()))
    kept = Store(folder, identity()).kept()
    assert kept >= 2 * BLOCK
    assert f"No space left on device; {kept} outputs are kept, free some space" in str(error.value)
    monkeypatch.undo()
    teacher = Counting()
    fill(Store(folder, identity()), filling_by(teacher))
    assert teacher.asked == list(range(kept, ROWS)) and right(folder)


def test_a_teacher_that_moves_is_refused(folder: Path) -> None:
    teacher = Moving()
    with pytest.raises(UserError, match=r"its outputs cannot be stored; set .*=false"):
        fill(Store(folder, identity()), filling_by(teacher))
    assert teacher.asked == [] and not folder.exists()


def test_what_it_holds_is_plain(folder: Path) -> None:
    """Any program can read it, and none of it has to be trusted."""
    filled(folder, RowFormat(CLASSES, "half", 2))
    for path in folder.glob("*.npy"):
        np.load(path, allow_pickle=False)
        with pytest.raises(pickle.UnpicklingError):
            pickle.loads(path.read_bytes())
    assert json.loads((folder / "identity.json").read_text())["top"] == 2
    for line in (folder / BLOCKS).read_text().splitlines():
        assert len(list(map(int, line.split()))) == 3
