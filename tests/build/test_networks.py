"""A teacher's file says what it was made for, and is fitted to what the data are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from quick import kept_teacher, metrics, quick, run
from stillhouse.build.contract import CONTRACT_SUFFIX, read_contract
from stillhouse.build.networks import TeacherNetwork, load_teacher, make_student
from stillhouse.build.session import Session
from stillhouse.errors import UserError
from stillhouse.models import weights, zoo
from stillhouse.recipes.schema import Network, TeacherSpec
from stillhouse.runs.teacher import check_teacher

DIGITS = [str(digit) for digit in range(10)]


@pytest.fixture(scope="module")
def session() -> Session:
    return Session.open(quick())


@pytest.fixture
def image() -> Tensor:
    return torch.randn(4, 1, 8, 8)


def put(tmp_path: Path, change: Any = None, **contract: Any) -> Path:
    """The kept teacher's file, changed, beside a contract that says so."""
    state = safetensors.torch.load_file(kept_teacher())
    path = tmp_path / "teacher.safetensors"
    safetensors.torch.save_file(change(state) if change else state, path)
    said = json.loads((kept_teacher().parent / f"student.safetensors{CONTRACT_SUFFIX}").read_text())
    said.pop("sha256", None)  # of the file before it was changed
    path.with_name(path.name + CONTRACT_SUFFIX).write_text(json.dumps(said | contract))
    return path


def heads(state: dict[str, Tensor], rows: list[int]) -> dict[str, Tensor]:
    """The same network with other rows in its head; of -1, a row that fires for everything."""
    made = dict(state)
    for name in ("head.weight", "head.bias"):
        picked = [state[name][row] if row >= 0 else state[name][0] + 100 for row in rows]
        made[name] = torch.stack(picked)
    return made


def taught(path: Path, session: Session, **options: Any) -> TeacherNetwork:
    return load_teacher(TeacherSpec("stillhouse/little", **options), [path], session)


def original() -> nn.Module:
    network = zoo.create("stillhouse/little", 10, 1).eval()
    weights.load_weights(network, kept_teacher())
    return network


def score(made: TeacherNetwork, session: Session) -> Any:
    found = check_teacher(TeacherSpec("stillhouse/little"), made, session)
    return found["validation"]


def test_a_run_writes_the_contract_of_its_student(session: Session) -> None:
    contract = read_contract(kept_teacher())
    assert contract is not None
    assert contract.name == "stillhouse/little" and list(contract.classes) == DIGITS
    assert (contract.channels, contract.size) == (1, (8, 8))
    assert (contract.mean, contract.std) == ((0.25,), (0.25,))


def test_one_that_fits_is_left_as_it_is(tmp_path: Path, session: Session, image: Tensor) -> None:
    made = taught(put(tmp_path), session)
    assert made.network is made.inner and made.notes == ()
    assert torch.equal(made.network.eval()(image), original()(image))


def test_classes_in_another_order_are_put_in_the_datas(tmp_path: Path, session: Session) -> None:
    rows = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    path = put(tmp_path, lambda s: heads(s, rows), classes=[DIGITS[row] for row in rows])
    made = taught(path, session)
    assert made.notes == ("the teacher's classes are reordered to those of the data",)
    plain = score(TeacherNetwork(original(), original()), session)
    assert score(made, session) == pytest.approx(plain)
    path.with_name(path.name + CONTRACT_SUFFIX).unlink()  # and not by luck
    with pytest.raises(UserError, match="check its weights, its class order"):
        score(taught(path, session), session)


def test_of_more_classes_the_datas_are_selected(
    tmp_path: Path, session: Session, image: Tensor
) -> None:
    rows, names = [-1, *range(10), -1], ["owl", *DIGITS, "elk"]
    made = taught(put(tmp_path, lambda s: heads(s, rows), classes=names), session)
    torch.testing.assert_close(made.network.eval()(image), original()(image))


def test_missing_classes_are_named(tmp_path: Path, session: Session) -> None:
    path = put(tmp_path, lambda s: heads(s, [0, 1, 2]), classes=["0", "1", "2"])
    with pytest.raises(UserError, match=r"has 3 classes, and 7 of the data's 10 .*\(3, 4, 5\)"):
        taught(path, session)


def test_images_are_normalised_anew(tmp_path: Path, session: Session, image: Tensor) -> None:
    made = taught(put(tmp_path, mean=[0.5], std=[0.2]), session)
    assert made.notes == ("images are normalised with the teacher's mean and std",)
    pixels = image * 0.25 + 0.25
    ours, theirs = made.network.eval()(image), original()((pixels - 0.5) / 0.2)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    # what the recipe says counts more than what the file says
    again = taught(put(tmp_path, mean=[0.5], std=[0.2]), session, mean=(0.25,), std=(0.25,))
    assert again.notes == () and score(again, session)["top1"] > 50


def test_images_are_resized(tmp_path: Path, session: Session, image: Tensor) -> None:
    made = taught(put(tmp_path, size=[16, 16]), session)
    assert made.notes == ("images are resized to 16 x 16 for the teacher",)
    seen: list[torch.Size] = []
    made.inner.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    made.network.eval()(image)
    assert seen == [torch.Size((4, 1, 16, 16))]


@pytest.mark.parametrize(
    ("contract", "sentence"),
    [
        ({"name": "stillhouse/medium"}, "holds weights of stillhouse/medium, but the teacher is"),
        ({"channels": 3}, "takes 3 channels, but the images have 1"),
        (
            {"classes": 7},
            r"teacher\.safetensors\.json is damaged; it should describe .*: delete it",
        ),
        ({"size": [8]}, r"is damaged"),
    ],
)
def test_a_contract_that_does_not_fit(
    tmp_path: Path, session: Session, contract: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        taught(put(tmp_path, **contract), session)


def test_a_contract_that_is_no_json(tmp_path: Path, session: Session) -> None:
    path = put(tmp_path)
    path.with_name(path.name + CONTRACT_SUFFIX).write_text("{")
    with pytest.raises(UserError, match=r"json is damaged; it should describe"):
        taught(path, session)


def test_taps_reach_through_what_was_put_around(tmp_path: Path) -> None:
    """A fitted teacher gives the features that the bare one gives: the same run in other words."""
    rows = [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    words = ("method={name: cwd, pairs: [[stage1, stage2], [last, last]]}", "train.epochs=1")
    lines = []
    for name in ("bare", "fitted"):
        (tmp_path / name).mkdir()
        if name == "bare":
            path = put(tmp_path / name)
        else:
            classes = [DIGITS[row] for row in rows]
            path = put(tmp_path / name, lambda s: heads(s, rows), classes=classes)
        weighed = (f"teacher.weights={path}", "teacher.remember=false")
        lines.append(metrics(run(tmp_path / name / "run", *words, *weighed).folder))
    assert lines[0] == lines[1]


def test_a_student_can_start_from_weights(tmp_path: Path, session: Session) -> None:
    shutil.copyfile(kept_teacher(), tmp_path / "start.safetensors")
    spec = Network("stillhouse/little", weights=tmp_path / "start.safetensors")
    made = make_student(spec, session).state_dict()
    assert all(torch.equal(made[name], value) for name, value in original().state_dict().items())
