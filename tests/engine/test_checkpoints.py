"""Checkpoints: whole or not at all, plain, and exact in their random numbers."""

import errno
import os
import random
import resource
import signal
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from stillhouse.engine import checkpoints
from stillhouse.errors import UserError


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimiser.step()
    return model, optimiser


def test_there_and_back(tmp_path):
    model, optimiser = trained()
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "step": 7,
        "plain": [1, 2.5, "a", None, True, b"b", (1, 2), {3: OrderedDict(x=1)}],
        "half": torch.ones(2, dtype=torch.bfloat16),
        "parameter": nn.Parameter(torch.ones(2)),
    }
    checkpoints.save_checkpoint(tmp_path / "state.pt", state)
    read = checkpoints.load_checkpoint(tmp_path / "state.pt")
    assert read.keys() == state.keys() and read["plain"] == state["plain"] and read["step"] == 7
    assert torch.equal(read["half"], state["half"])
    other, second = trained()
    other.load_state_dict(read["model"])
    second.load_state_dict(read["optimiser"])
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    # By anybody, without this program and without trust.
    assert torch.load(tmp_path / "state.pt", weights_only=True)["step"] == 7


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"a": {"b": [1, Path("x")]}}, r"PosixPath at a\.b\[1\]"),
        ({"a": np.float64(1)}, "float64 at a"),
        ({"a": {(1, 2): 1}}, r"key \(1, 2\) at a"),
        ({"a": [lambda: 1]}, r"function at a\[0\]"),
        ({"a": {1, 2}}, "set at a"),
        ({"a": torch.float32}, "dtype at a"),
    ],
)
def test_what_would_have_to_be_trusted_is_refused(tmp_path, state, words):
    with pytest.raises(TypeError, match=words):
        checkpoints.save_checkpoint(tmp_path / "state.pt", state)
    assert not list(tmp_path.iterdir())


def test_its_own_key_is_refused(tmp_path):
    with pytest.raises(ValueError, match="stillhouse_checkpoint' is reserved"):
        checkpoints.save_checkpoint(tmp_path / "state.pt", {checkpoints.FORMAT: 1})


@pytest.mark.parametrize("place", ["save", "replace"])
def test_a_full_disk_keeps_the_previous_one(tmp_path, monkeypatch, place):
    path = tmp_path / "state.pt"
    checkpoints.save_checkpoint(path, {"step": 1})

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((torch, "save") if place == "save" else (os, "replace")), full)
    words = (
        r"could not write .*state\.pt: No space left on device; "
        "the previous checkpoint is kept, free some space and resume"
    )
    with pytest.raises(UserError, match=words):
        checkpoints.save_checkpoint(path, {"step": 2})
    assert checkpoints.load_checkpoint(path)["step"] == 1
    names = {path.name for path in tmp_path.iterdir()}
    assert names - {"state.previous.pt"} == {"state.pt"}  # no partial file


def test_a_write_that_the_system_really_cuts_off(tmp_path):
    # torch reports it as a RuntimeError about positions in an archive.
    path = tmp_path / "state.pt"
    checkpoints.save_checkpoint(path, {"step": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(UserError, match="File too large; the previous checkpoint is kept"):
            checkpoints.save_checkpoint(path, {"weight": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert checkpoints.load_checkpoint(path)["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_mistake_of_ours_is_not_called_a_full_disk(tmp_path, monkeypatch):
    def broken(*args: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(RuntimeError, match="ours"):
        checkpoints.save_checkpoint(tmp_path / "state.pt", {"step": 2})
    assert not list(tmp_path.iterdir())


def test_a_missing_one(tmp_path):
    for path in (tmp_path / "state.pt", tmp_path):
        with pytest.raises(UserError, match="checkpoint .* does not exist"):
            checkpoints.load_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_one(tmp_path, share):
    path = tmp_path / "state.pt"
    checkpoints.save_checkpoint(path, {"weight": torch.randn(1000)})
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        checkpoints.load_checkpoint(path)


class Harm:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harmed",)


def test_a_foreign_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "state.pt"
    torch.save({"a": Harm()}, path)
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        checkpoints.load_checkpoint(path)
    assert not (tmp_path / "harmed").exists()
    path.write_text("<html>not found</html>")
    with pytest.raises(UserError, match="damaged or not a checkpoint"):
        checkpoints.load_checkpoint(path)
    for value in ({"weight": torch.ones(2)}, [1, 2]):
        torch.save(value, path)
        with pytest.raises(UserError, match="not the checkpoint of a run"):
            checkpoints.load_checkpoint(path)
    torch.save({checkpoints.FORMAT: 99}, path)
    with pytest.raises(UserError, match="another version"):
        checkpoints.load_checkpoint(path)


def draw() -> tuple[list[float], list[float], list[float]]:
    return (
        [random.random(), random.gauss(0, 1)],
        np.random.standard_normal(3).tolist(),
        torch.randn(5).tolist(),
    )


def test_random_numbers_go_on_exactly(tmp_path):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    draw()  # an odd number of normal ones, so that NumPy and Python each hold one back
    checkpoints.save_checkpoint(tmp_path / "state.pt", {"random": checkpoints.random_state()})
    wanted = [draw(), draw()]
    random.seed(2), np.random.seed(2), torch.manual_seed(2)
    assert draw() != wanted[0]
    checkpoints.restore_random_state(checkpoints.load_checkpoint(tmp_path / "state.pt")["random"])
    assert [draw(), draw()] == wanted


def test_the_state_is_a_snapshot():
    torch.manual_seed(3)
    state = checkpoints.random_state()
    first = draw()
    checkpoints.restore_random_state(state)
    second = draw()
    checkpoints.restore_random_state(state)
    assert first == second == draw()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_random_numbers_of_a_gpu_go_on_exactly():
    torch.randn(3, device="cuda")
    state = checkpoints.random_state()
    wanted = torch.randn(3, device="cuda")
    checkpoints.restore_random_state(state)
    assert torch.equal(torch.randn(3, device="cuda"), wanted)
