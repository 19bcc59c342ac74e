"""A teacher of one's own: every kind of file, network, class order and normalisation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from quick import kept_teacher, quick, run
from stillhouse.build.networks import load_teacher
from stillhouse.build.session import Session
from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.recipes import load
from stillhouse.recipes.schema import TeacherSpec
from stillhouse.runs.doctor import check_recipe
from stillhouse.runs.teacher import check_teacher

DIGITS = tuple(str(digit) for digit in range(10))
ORDER = (3, 1, 4, 0, 5, 9, 2, 6, 8, 7)
HEAD = ("head.weight", "head.bias")
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def session() -> Session:
    return Session.open(quick())


@pytest.fixture(scope="module")
def state() -> State:
    return safetensors.torch.load_file(kept_teacher())


def of_digits(path: Path, session: Session, **keys: Any) -> float:
    """The accuracy of the quick teacher, loaded from a file without a contract."""
    spec = TeacherSpec("stillhouse/little", weights=path, **keys)
    made = load_teacher(spec, [path], session)
    return float(check_teacher(spec, made, session)["validation"]["top1"])


def ordered(state: State, rows: tuple[int, ...] = ORDER) -> State:
    return state | {name: state[name][list(rows)] for name in HEAD}


FORMS: dict[str, Callable[[State], Any]] = {
    "plain.pt": lambda state: state,
    "ddp.pth": lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
    "compiled.bin": lambda state: {f"_orig_mod.{name}": t for name, t in state.items()},
    "trainer.ckpt": lambda state: {
        "state_dict": {f"model.{name}": tensor for name, tensor in state.items()},
        "epoch": 7,
        "optimizer_states": [{"lr": 0.1}],
    },
    "timm.pt": lambda state: {"model": state, "epoch": 7},
    "hand.pt": lambda state: {"model_state_dict": state, "loss": 0.5},
}


@pytest.mark.parametrize("name", [*FORMS, "plain.safetensors"])
def test_every_form_of_a_file_is_the_same_teacher(
    name: str, state: State, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / name
    if name in FORMS:
        torch.save(FORMS[name](state), path)
    else:
        safetensors.torch.save_file(state, path)
    assert of_digits(path, session) > 60


def listed(tmp_path: Path, names: list[str], kind: str) -> Any:
    """The names as the recipe says them, or the path of a file that has them."""
    if kind == "list":
        return tuple(names)
    content: Any = {
        "names.json": names,
        "config.json": {"id2label": {str(i): name for i, name in enumerate(names)}},
        "index.json": {str(i): name for i, name in enumerate(names)},
    }.get(kind)
    path = tmp_path / kind
    path.write_text("\n".join(names) + "\n" if content is None else json.dumps(content))
    return path


@pytest.mark.parametrize("kind", ["list", "names.txt", "names.json", "config.json", "index.json"])
def test_another_class_order_is_set_right(
    kind: str, state: State, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "t.pt"
    torch.save(ordered(state), path)
    names = [DIGITS[row] for row in ORDER]
    with pytest.raises(UserError, match=r"class order \(teacher.classes\)"):
        of_digits(path, session)
    assert of_digits(path, session, classes=listed(tmp_path, names, kind)) > 60


def test_of_more_classes_those_of_the_data_are_selected(
    state: State, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "t.pt"
    torch.save(ordered(state, (0, *range(10), 1)), path)
    with pytest.raises(UserError, match=r"has 12 classes, the recipe 10.*teacher\.classes"):
        of_digits(path, session)
    assert of_digits(path, session, classes=("owl", *DIGITS, "elk")) > 60


def test_another_normalisation_and_size_are_set_right(
    state: State, session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "t.pt"
    first = next(name for name, tensor in state.items() if tensor.shape[1:] == (1, 3, 3))
    torch.save(state | {first: state[first] / 50}, path)  # for images that are 50 times as large
    bad, good = of_digits(path, session, gate=False), of_digits(path, session, std=(0.005,))
    assert good > 60 > bad
    with pytest.raises(UserError, match=r"teacher.mean has 3 values, but the images have 1"):
        of_digits(path, session, mean=(0.5, 0.5, 0.5))


def test_the_keys_are_in_the_recipe_and_change_its_hash_only_where_they_are_set() -> None:
    plain = quick()
    named = quick("teacher.classes=[0, 1, 2]")
    assert named.teacher is not None and named.teacher.classes == ("0", "1", "2")
    assert load.digest(named) != load.digest(plain)
    assert load.digest(plain) == "d539367678c984c1"
    assert quick("teacher.classes=names.txt").teacher.classes == Path("names.txt")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        ((), "teacher.classes has no names; teacher.classes must be a list of names"),
        (("a", "a"), "has 'a' twice"),
        (Path("nosuch.txt"), "nosuch.txt does not exist; teacher.classes must be"),
        ((*DIGITS[:9], "ten"), r"1 of the data's 10 are not among them \(9\).*teacher.classes"),
        (12, "the file has 10 classes"),
    ],
)
def test_wrong_names_are_one_sentence(
    classes: Any, sentence: str, state: State, session: Session, tmp_path: Path
) -> None:
    torch.save(state, tmp_path / "t.pt")
    with pytest.raises(UserError, match=sentence):
        of_digits(tmp_path / "t.pt", session, classes=classes)


# -------------------------------------------------------------------------- networks of libraries


class Normaliser(nn.Module):
    """What a user's own evaluation does before the network."""

    def __init__(self, network: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self.network, self.mean, self.std = network, mean, std

    def forward(self, images: Tensor) -> Any:
        return self.network((images - self.mean) / self.std)


@pytest.fixture(scope="module")
def scenes() -> Session:
    """Images of 3 x 48 x 48, and ten classes."""
    words = ("task.name=multilabel", "data={name: digits/labels, train: {count: 40}}")
    keys = ("data.val.count=20", "data.test.count=20", "teacher.remember=false")
    return Session.open(quick(*words, *keys))


VIT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
LIBRARIES = {
    "timm/resnet10t": {},
    "torchvision/squeezenet1_1": {},
    "transformers/ViTForImageClassification": {
        **VIT,
        "image_size": 32,
        "patch_size": 8,
        "intermediate_size": 32,
    },
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_networks_of_libraries_take_their_own_images_and_classes(
    name: str, scenes: Session, tmp_path: Path
) -> None:
    if name.startswith("transformers"):
        pytest.importorskip("transformers", reason="transformers is optional")
    network = zoo.create(name, 12, 3, **LIBRARIES[name]).eval()
    if name.startswith("transformers"):
        network.save_pretrained(tmp_path)  # type: ignore[operator]
        path = tmp_path / "model.safetensors"
    else:
        torch.save(network.state_dict(), path := tmp_path / "t.pth")
    names = ("owl", *reversed(DIGITS), "elk")
    spec = TeacherSpec(
        name,
        weights=path,
        options=LIBRARIES[name],
        classes=names,
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        size=(32, 32),
    )
    made = load_teacher(spec, [path], scenes).network.eval()
    pixels = torch.rand(2, 3, 1, 1).expand(2, 3, 48, 48)  # which resizing does not change
    with torch.no_grad():
        out = Normaliser(network, 0.5, 0.2)(pixels[..., :32, :32])
        found = made((pixels - 0.25) / 0.25)
    wanted = getattr(out, "logits", out)[:, [names.index(name) for name in DIGITS]]
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


# ------------------------------------------------------------------------------------ features only

FITNET = ("method={name: fitnet, pairs: [[stage1, stage1]]}", "teacher.remember=false")


@pytest.mark.parametrize(("rows", "classes"), [((0, 1, 2), 3), ((0, 1, 2), ("a", "b", "c"))])
def test_a_teacher_of_features_may_have_any_classes(
    rows: tuple[int, ...], classes: Any, state: State, tmp_path: Path
) -> None:
    torch.save(ordered(state, rows), tmp_path / "t.pt")
    text = classes if isinstance(classes, int) else f"[{', '.join(classes)}]"
    words = (f"teacher.weights={tmp_path}/t.pt", f"teacher.classes={text}", "train.epochs=0.2")
    said: list[str] = []
    result = run(tmp_path / "run", *words, *FITNET, say=said.append)
    assert result.teacher is None and result.student["test"]["top1"] > 0
    assert "teacher: the teacher has other classes than the data, and gives features only" in said
    with pytest.raises(UserError, match=r"teacher has 3 classes.*compares features only"):
        run(tmp_path / "kd", *words)


def test_the_doctor_says_what_is_unknown(state: State, tmp_path: Path) -> None:
    torch.save(state, tmp_path / "t.pt")
    word = f"teacher.weights={tmp_path}/t.pt"

    def contract(*words: str) -> str:
        return {c.name: c.message for c in check_recipe(quick(word, *words))}["contract"]

    assert contract().startswith(
        "unknown: teacher.classes, teacher.mean, teacher.std, teacher.size; no file beside"
    )
    whole = ("teacher.classes=10", "teacher.mean=[0.25]", "teacher.std=[0.25]")
    assert contract(*whole).startswith("unknown: teacher.size;")
    assert "same for both" in contract(*whole, "teacher.size=[8, 8]")
