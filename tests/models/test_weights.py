import errno
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from stillhouse.errors import UserError
from stillhouse.models import small, weights


@pytest.fixture
def source() -> nn.Module:
    torch.manual_seed(1)
    return small.small_resnet("tiny", classes=5, channels=1)


@pytest.fixture
def goal() -> nn.Module:
    torch.manual_seed(2)
    return small.small_resnet("tiny", classes=5, channels=1)


def equal(one: nn.Module, other: nn.Module) -> bool:
    return weights.state_hash(one) == weights.state_hash(other)


def refused(model: nn.Module, path: Path) -> str:
    """The sentence with which a file is refused; the network must not have moved."""
    before = weights.state_hash(model)
    with pytest.raises(UserError) as caught:
        weights.load_weights(model, path)
    assert weights.state_hash(model) == before
    said = str(caught.value)
    assert "\n" not in said and str(path) in said
    return said


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt"])
def test_files_of_torch(source: nn.Module, goal: nn.Module, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"net{suffix}"
    torch.save(source.state_dict(), path)
    report = weights.load_weights(goal, path)
    assert equal(source, goal)
    assert report == weights.LoadReport(path, len(source.state_dict()))


def test_a_safetensors_file_written_by_hand(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    header = {
        "weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]},
        "bias": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]},
    }
    text = json.dumps(header).encode()
    path = tmp_path / "line.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<3f", 1.5, -2.0, 0.25))
    weights.load_weights(model, path)
    assert model.weight.tolist() == [[1.5, -2.0]]
    assert model.bias.tolist() == [0.25]


@pytest.mark.parametrize(
    ("wrap", "wrapper", "prefix"),
    [
        (lambda s: {"state_dict": s, "epoch": 3}, "state_dict", ""),
        (lambda s: {"model": {"state_dict": s}}, "model.state_dict", ""),
        (lambda s: {"student": {f"module.{k}": v for k, v in s.items()}}, "student", "module."),
        (
            lambda s: {f"module._orig_mod.model.{k}": v for k, v in s.items()},
            "",
            "module._orig_mod.model.",
        ),
    ],
)
def test_wrappers_and_prefixes_come_off(
    source: nn.Module, goal: nn.Module, tmp_path: Path, wrap: Any, wrapper: str, prefix: str
) -> None:
    torch.save(wrap(source.state_dict()), tmp_path / "net.pt")
    report = weights.load_weights(goal, tmp_path / "net.pt")
    assert equal(source, goal)
    assert (report.wrapper, report.prefix) == (wrapper, prefix)


def test_a_prefix_that_belongs_to_the_network_stays(tmp_path: Path) -> None:
    source, goal = (nn.ModuleDict({"model": nn.Linear(2, 2)}) for _ in range(2))
    torch.save(source.state_dict(), tmp_path / "net.pt")
    assert weights.load_weights(goal, tmp_path / "net.pt").prefix == ""
    assert equal(source, goal)


def test_networks_of_before_batch_counts_are_whole(
    source: nn.Module, goal: nn.Module, tmp_path: Path
) -> None:
    state = {k: v for k, v in source.state_dict().items() if "num_batches" not in k}
    safetensors.torch.save_file(state, tmp_path / "old.safetensors")
    weights.load_weights(goal, tmp_path / "old.safetensors")
    assert equal(source, goal)


class Malice:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


def test_code_in_a_file_never_runs(goal: nn.Module, tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    torch.save({"state_dict": goal.state_dict(), "extra": Malice(witness)}, tmp_path / "bad.pt")
    said = refused(goal, tmp_path / "bad.pt")
    assert "holds code or objects (posix.system), which are never loaded" in said
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Malice(witness)))
    refused(goal, tmp_path / "raw.pt")
    (tmp_path / "old.pt").write_bytes(pickle.dumps(Malice(witness), protocol=2))
    assert "posix.system" in refused(goal, tmp_path / "old.pt")
    assert not witness.exists()


def test_a_whole_pickled_network_is_refused(goal: nn.Module, tmp_path: Path) -> None:
    torch.save(goal, tmp_path / "net.pt")
    said = refused(goal, tmp_path / "net.pt")
    assert "SmallResNet" in said and "save only `model.state_dict()`" in said


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.98])
def test_a_file_that_is_cut_off(goal: nn.Module, tmp_path: Path, suffix: str, share: float) -> None:
    path = tmp_path / f"net{suffix}"
    if suffix == ".pt":
        torch.save(goal.state_dict(), path)
    else:
        weights.save_weights(goal, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "not a readable" in refused(goal, path)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"<html>not found</html>", bytes(range(256)) * 9, b"version 1"]
)
def test_garbage(goal: nn.Module, tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"net{suffix}"
    path.write_bytes(content)
    assert f"its {len(content)} bytes may be cut off" in refused(goal, path)


def test_a_file_that_is_not_there(goal: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "teacher.pt").touch()
    (tmp_path / "teacher.txt").touch()
    said = refused(goal, tmp_path / "teachr.pt")
    assert said.endswith("there is no such file; did you mean 'teacher.pt'?")
    assert "there is no folder" in refused(goal, tmp_path / "nowhere" / "teacher.pt")
    assert "is a folder, not a file of weights; name a file in it: teacher.pt" in refused(
        goal, tmp_path
    )
    assert "weights end in .safetensors, .pt" in refused(goal, tmp_path / "teacher.txt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([torch.zeros(2)], "it is a list"),
        (torch.zeros(2), "it is a Tensor"),
        ({}, "it is empty"),
        ({"state_dict": {"head.weight": torch.zeros(2), "epoch": 3}}, "'epoch' is a int"),
    ],
)
def test_a_file_without_a_table_of_tensors(
    goal: nn.Module, tmp_path: Path, content: Any, said: str
) -> None:
    torch.save(content, tmp_path / "net.pt")
    assert f"holds no state dict ({said})" in refused(goal, tmp_path / "net.pt")


def test_another_number_of_classes_is_said_as_such(goal: nn.Module, tmp_path: Path) -> None:
    torch.save(small.small_resnet("tiny", classes=9, channels=1).state_dict(), tmp_path / "net.pt")
    said = refused(goal, tmp_path / "net.pt")
    assert "the file has 9 classes, the recipe 5 ('head.weight' is [9, 8] in the file and" in said


def test_another_width_names_the_first_tensor(goal: nn.Module, tmp_path: Path) -> None:
    other = small.SmallResNet((6, 8), classes=5, channels=1)
    torch.save(other.state_dict(), tmp_path / "net.pt")
    said = refused(goal, tmp_path / "net.pt")
    assert "'stem.0.weight' is [6, 1, 3, 3] in the file and [4, 1, 3, 3] in the network" in said
    assert "classes" not in said


def test_a_backbone_without_its_head_is_never_completed(
    source: nn.Module, goal: nn.Module, tmp_path: Path
) -> None:
    state = {k: v for k, v in source.state_dict().items() if not k.startswith("head")}
    torch.save({**state, "fc.weight": torch.zeros(5, 8)}, tmp_path / "net.pt")
    said = refused(goal, tmp_path / "net.pt")
    assert "2 tensors ('head.weight', 'head.bias') of the network not in the file" in said
    assert "1 tensor ('fc.weight') of the file not in the network" in said


def test_saved_weights_load_into_the_bare_network(
    source: nn.Module, goal: nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "new" / "folder" / "student.safetensors"
    weights.save_weights(source, path)
    goal.load_state_dict(safetensors.torch.load_file(path))
    assert equal(source, goal)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_tied_and_strided_weights_are_saved_whole(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(3, 3), nn.Linear(3, 3)
            self.other.weight = self.one.weight
            self.register_buffer("strided", torch.arange(6.0).reshape(2, 3).T)

    source, goal = Tied(), Tied()
    weights.save_weights(source, tmp_path / "tied.safetensors")
    weights.load_weights(goal, tmp_path / "tied.safetensors")
    assert equal(source, goal)
    assert goal.other.weight is goal.one.weight


@pytest.mark.parametrize("place", ["os.replace", "os.fsync"])
def test_a_full_disk_leaves_the_old_file(
    source: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    path = tmp_path / "student.safetensors"
    path.write_bytes(b"before")

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(place, full)
    kept = r"could not write .*No space left on device; the previous file of weights is kept"
    with pytest.raises(UserError, match=kept):
        weights.save_weights(source, path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file(source: nn.Module, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(UserError, match="could not write"):
        weights.save_weights(source, tmp_path / "run" / "student.safetensors")


def test_the_hash_sees_every_tensor_and_nothing_else(source: nn.Module) -> None:
    before = weights.state_hash(source)
    source.train(not source.training)
    source.requires_grad_(False)
    assert weights.state_hash(source) == before
    for tensor in [*source.parameters(), *source.buffers()]:
        kept = tensor.clone()
        tensor.add_(1)
        assert weights.state_hash(source) != before
        tensor.copy_(kept)
    assert weights.state_hash(source) == before
    assert weights.state_hash(source.bfloat16()) != before


# ------------------------------------------------------------------------ what training begins from


def test_a_network_begins_from_weights_of_another_classifier(tmp_path: Path) -> None:
    torch.manual_seed(1)
    source, goal = (small.small_resnet("tiny", classes=n, channels=1) for n in (7, 5))
    weights.save_weights(source, tmp_path / "seven.safetensors")
    drawn = goal.head.weight.detach().clone()
    report = weights.load_pretrained(goal, tmp_path / "seven.safetensors")
    assert torch.equal(goal.head.weight, drawn)  # as it was drawn
    ours, theirs = goal.state_dict(), source.state_dict()
    body = [name for name in ours if not name.startswith("head.")]
    assert body and all(torch.equal(ours[name], theirs[name]) for name in body)
    assert report.tensors == len(body)


def test_a_network_without_a_classifier_begins_from_one_with(
    source: nn.Module, tmp_path: Path
) -> None:
    weights.save_weights(source, tmp_path / "whole.safetensors")
    body = small.small_resnet("tiny", classes=5, channels=1)
    body.head = nn.Identity()
    weights.load_pretrained(body, tmp_path / "whole.safetensors")
    assert torch.equal(body.stem[0].weight, source.stem[0].weight)


def test_what_is_no_beginning_is_refused(source: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    for other, sentence in (
        (
            small.small_resnet("little", classes=5, channels=1),
            "belong to a network of another size",
        ),
        (small.small_resnet("small", classes=5, channels=1), "of the network not in the file"),
    ):
        weights.save_weights(source, path)
        before = weights.state_hash(other)
        with pytest.raises(UserError, match=sentence):
            weights.load_pretrained(other, path)
        assert weights.state_hash(other) == before


# ----------------------------------------------------------------------- prepared by somebody else


def test_an_archive_that_grows_is_not_read(goal: nn.Module, tmp_path: Path) -> None:
    plain, packed = tmp_path / "plain.pt", tmp_path / "packed.pt"
    torch.save({"weight": torch.zeros(2_000_000)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    assert packed.stat().st_size < plain.stat().st_size / 100
    assert "its entries are compressed" in refused(goal, packed)


def test_entries_that_share_their_bytes_are_not_read(goal: nn.Module, tmp_path: Path) -> None:
    file = tmp_path / "net.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("one", bytes(1000))
        twins = [zipfile.ZipInfo(f"two{i}") for i in range(3)]
        first = archive.infolist()[0]
        for twin in twins:
            twin.header_offset, twin.CRC = first.header_offset, first.CRC
            twin.file_size = twin.compress_size = first.file_size
            archive.filelist.append(twin)
            archive.NameToInfo[twin.filename] = twin
    assert file.stat().st_size < 2000
    assert "its entries are compressed" in refused(goal, file)


def test_a_pipe_is_not_waited_for(goal: nn.Module, tmp_path: Path) -> None:
    for name in ("net.pt", "net.safetensors"):
        os.mkfifo(tmp_path / name)
        assert "is a pipe or a device" in refused(goal, tmp_path / name)


@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_a_mapping_that_contains_itself(goal: nn.Module, tmp_path: Path, key: str) -> None:
    content: dict[str, Any] = {}
    content[key] = content
    torch.save(content, tmp_path / "net.pt")
    assert f"the file holds no state dict ('{key}' is a dict)" in refused(goal, tmp_path / "net.pt")


@pytest.mark.parametrize(
    ("dtype", "kind"),
    [(torch.int64, "integer"), (torch.bool, "boolean"), (torch.complex64, "complex")],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_numbers_of_another_kind_are_not_cast(
    goal: nn.Module, tmp_path: Path, dtype: torch.dtype, kind: str, suffix: str
) -> None:
    state = goal.state_dict()
    name = next(iter(state))
    state[name] = torch.ones(state[name].shape).to(dtype)
    file = tmp_path / f"net{suffix}"
    save = torch.save if suffix == ".pt" else safetensors.torch.save_file
    save(state, file)
    assert f"{name!r} holds {kind} numbers ({dtype})" in refused(goal, file)
    with pytest.raises(UserError, match=f"holds {kind} numbers"):
        weights.load_pretrained(goal, file)


def test_floats_of_another_precision_are_loaded(goal: nn.Module, tmp_path: Path) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in goal.state_dict().items()}
    torch.save(state, tmp_path / "net.pt")
    weights.load_weights(goal, tmp_path / "net.pt")
