from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from stillhouse import files
from stillhouse.data import cache as module
from stillhouse.data.cache import Tensors, cache_folder, cached

PRINT = "0123456789abcdef" * 4


class Maker:
    """Gives tensors, and counts how often it is asked."""

    def __init__(self, value: int = 7) -> None:
        self.asked, self.value = 0, value

    def __call__(self) -> Tensors:
        self.asked += 1
        return {
            "images": torch.full((3, 1, 4, 4), self.value, dtype=torch.uint8),
            "labels": torch.tensor([0, 1, self.value]),
        }


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "own"))
    return tmp_path / "own"


def check(found: Tensors, value: int = 7) -> None:
    wanted = Maker(value)()
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_what_is_kept_is_not_made_again(folder: Path) -> None:
    make = Maker()
    for _ in range(3):
        check(cached("digits/x", PRINT, make))
    assert make.asked == 1
    assert [path.name for path in folder.iterdir()] == ["digits-x-0123456789abcdef.safetensors"]


def test_the_file_says_what_it_is(folder: Path) -> None:
    cached("x", PRINT, Maker())
    with safe_open(next(folder.iterdir()), framework="pt") as file:
        assert file.metadata()["fingerprint"] == PRINT
        check({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118


def test_names_and_fingerprints_are_kept_apart() -> None:
    for name, fingerprint, value in (("x", PRINT, 1), ("y", PRINT, 2), ("x", PRINT[::-1], 3)):
        check(cached(name, fingerprint, Maker(value)), value)
    make = Maker(9)
    check(cached("x", PRINT, make), 1)
    assert make.asked == 0


def flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def cut(data: bytes) -> bytes:
    return data[:-5]


def rename(data: bytes) -> bytes:
    return data.replace(b'"labels"', b'"lapels"')


@pytest.mark.parametrize(
    "damage",
    [flip, cut, rename, lambda data: b"", lambda data: b"\xff" * 100, lambda data: data + b"x"],
    ids=["a bit", "cut", "renamed", "empty", "noise", "longer"],
)
def test_a_damaged_file_is_made_again(damage: Callable[[bytes], bytes], folder: Path) -> None:
    make = Maker()
    cached("x", PRINT, make)
    path = next(folder.iterdir())
    intact = path.read_bytes()
    path.write_bytes(damage(intact))
    assert path.read_bytes() != intact
    check(cached("x", PRINT, make))
    assert make.asked == 2
    check(cached("x", PRINT, make))
    assert make.asked == 2
    assert list(folder.iterdir()) == [path]


def test_a_file_of_another_recipe_is_made_again() -> None:
    """The name holds 16 digits of the fingerprint, and the file holds them all."""
    other = PRINT[:16] + "0" * 48
    cached("x", other, Maker(1))
    make = Maker(2)
    check(cached("x", PRINT, make), 2)
    check(cached("x", PRINT, make), 2)
    assert make.asked == 1


def test_what_is_read_survives_its_file(folder: Path) -> None:
    cached("x", PRINT, Maker())
    found = cached("x", PRINT, Maker())
    next(folder.iterdir()).write_bytes(b"")
    check(found)


def test_what_is_read_can_be_written_to(folder: Path) -> None:
    cached("x", PRINT, Maker())
    cached("x", PRINT, Maker())["images"].zero_()
    check(cached("x", PRINT, Maker()))


def test_tensors_that_lie_oddly_in_memory_are_kept() -> None:
    whole = torch.arange(24).view(4, 6)
    wanted = {"turned": whole.T, "part": whole[1:3, ::2], "none": whole[:0], "one": whole[0, 0]}
    for _ in range(2):
        found = cached("x", PRINT, lambda: dict(wanted))
        assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("place", ["mkdir", "write", "replace"])
def test_a_folder_that_cannot_be_written_costs_time_alone(
    place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    if place == "mkdir":
        monkeypatch.setattr(Path, "mkdir", refuse)
    elif place == "write":
        monkeypatch.setattr(files.os, "fsync", refuse)
    else:
        monkeypatch.setattr(files.os, "replace", refuse)
    make = Maker()
    for _ in range(2):
        check(cached("x", PRINT, make))
    assert make.asked == 2
    assert not folder.exists() or not list(folder.iterdir())  # nor half a file


def test_a_file_in_place_of_the_folder_costs_time_alone(folder: Path) -> None:
    folder.write_text("in the way")
    make = Maker()
    check(cached("x", PRINT, make))
    assert folder.read_text() == "in the way"


def test_a_folder_in_place_of_the_file_costs_time_alone(folder: Path) -> None:
    (folder / f"x-{PRINT[:16]}.safetensors").mkdir(parents=True)
    check(cached("x", PRINT, Maker()))
    assert len(list(folder.iterdir())) == 1


def test_an_interruption_leaves_no_half_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module.os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        cached("x", PRINT, Maker())
    assert list(folder.iterdir()) == []


def test_mistakes_of_the_maker_are_not_hidden(folder: Path) -> None:
    def fail() -> Tensors:
        raise OSError("no source")

    with pytest.raises(OSError, match="no source"):
        cached("x", PRINT, fail)
    assert not folder.exists()


@pytest.mark.parametrize(
    "own, shared, wanted",
    [
        ("/a/b", "/c", "/a/b"),
        ("~/mine", "/c", "/home/me/mine"),
        (None, "/c", "/c/stillhouse"),
        (None, "~/c", "/home/me/c/stillhouse"),
        (None, None, "/home/me/.cache/stillhouse"),
        ("", "", "/home/me/.cache/stillhouse"),
    ],
)
def test_where_it_lies(
    own: str | None, shared: str | None, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in (("STILLHOUSE_CACHE", own), ("XDG_CACHE_HOME", shared)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert cache_folder() == Path(wanted)
