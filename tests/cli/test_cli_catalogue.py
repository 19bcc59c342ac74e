"""`methods`, `models`, `datasets` and `recipes`."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

from quick import Call, caller
from stillhouse.methods.catalogue import published
from stillhouse.recipes import load


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return caller(capsys)


OPTIONS = {"kd": ["temperature"], "dkd": ["alpha", "beta"], "cwd": ["pairs", "adapter"]}


def squeezed(text: str) -> str:
    return " ".join(text.split())


def test_methods_lists_all_methods(call: Call) -> None:
    ended = call("methods")
    assert ended.code == 0 and ended.err == ""
    listed = {line.split()[0] for line in ended.out.splitlines() if line[:1].isalpha()}
    assert {"none", *published()} <= listed
    assert ended.out.splitlines()[0].startswith("none ")


@pytest.mark.parametrize("name", published())
def test_details_of_a_method(call: Call, name: str) -> None:
    ended = call("methods", name)
    assert ended.code == 0 and ended.err == ""
    card = published()[name].card
    output = squeezed(ended.out)
    assert output.startswith(f"name {name}: {squeezed(card.title)}")
    for label, text in (("formula", card.formula), ("paper", card.paper), ("cost", card.cost)):
        assert text and f" {label} {squeezed(text)}" in output
    assert " needs " in output and f" limits {squeezed(card.limits)}" in output
    defaults = output.partition(" defaults ")[2].partition(" labels ")[0]
    assert all(f"{option}=" in defaults for option in ("warmup", *OPTIONS.get(name, ())))


def test_the_defaults_shown_are_the_defaults(call: Call) -> None:
    output = squeezed(call("methods", "kd").out)
    assert (
        "temperature=4.0" in output
        and "weight=1.0" in output
        and "labels weight 0.1 unless label_weight" in output
    )


def test_the_control_is_a_method(call: Call) -> None:
    assert "the same student without a teacher" in call("methods", "none").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["methods", "lsdk"], "unknown method 'lsdk'; did you mean 'lskd'"),
        (["methods", "qqqq"], "unknown method 'qqqq'"),
        (["models", "nosuchnetwork"], "no network matches 'nosuchnetwork'"),
        (["models", "resnet180"], "no network matches 'resnet180'; did you mean"),
        (
            ["datasets", "cifar1"],
            "unknown data set 'cifar1'; did you mean 'cifar10' or 'cifar100'?",
        ),
        (["recipes", "ls", "imagenet22k"], "no recipe matches 'imagenet22k'"),
        (["recipes", "cp", "digits/numbrs"], "recipe 'digits/numbrs' not found"),
    ],
)
def test_an_unknown_name_is_an_error(call: Call, words: list[str], message: str) -> None:
    ended = call(*words)
    assert message in ended.error and ended.out == ""


def test_models_by_part_of_a_name_and_by_glob(call: Call) -> None:
    small = call("models", "stillhouse/").out.split()
    assert "stillhouse/tiny" in small and all(n.startswith("stillhouse/") for n in small)
    result = call("models", "torchvision/resnet1*").out.split()
    assert result == ["torchvision/resnet101", "torchvision/resnet152", "torchvision/resnet18"]


def test_detectors_are_listed(call: Call) -> None:
    listed = call("models", "detector").out.split()
    dense = ("atss", "fcos", "gfocal", "reppoints", "retinanet")
    regions = ("faster_rcnn", "cascade_rcnn", "mask_rcnn", "cascade_mask_rcnn")
    assert listed == sorted(f"detector/{name}" for name in (*dense, *regions, "solov2"))
    assert "torchvision/retinanet_resnet50_fpn_v2" in call("models", "retinanet").out.split()


def test_segmenters_are_listed(call: Call) -> None:
    listed = call("models", "segmenter").out.split()
    assert listed == ["segmenter/deeplabv3", "segmenter/fpn", "segmenter/pspnet"]
    torchvision = call("models", "torchvision/*deeplab*").out.split()
    assert "torchvision/deeplabv3_resnet50" in torchvision


def test_details_of_a_segmenter(call: Call) -> None:
    words = ("backbone=stillhouse/small", "classes=6", "strides=[4,8]")
    found = rows_of(call("models", "segmenter/fpn", *words).out)
    assert found["classes"] == "6" and found["stages"].startswith("stage1 (stride 2), stage2 ")
    assert found["levels"].startswith("p2") and "family" not in found


def rows_of(text: str) -> dict[str, str]:
    """The rows of a page of two columns."""
    parts = [line.partition("  ") for line in text.splitlines()]
    return {name: value.strip() for name, _, value in parts if name}


def test_details_of_a_detector(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    words = ("backbone=timm/resnet18", "classes=80", "last=7")
    found = rows_of(call("models", "detector/gfocal", *words).out)
    # 19,420,889 with last=16: 36 outputs less per location and 257 parameters each at stride 1
    count = 19_420_889 - 36 * (256 * 9 + 1)
    assert found == {
        "name": "detector/gfocal",
        "classes": "80",
        "parameters": f"{count:,}, of which {count - 157_504:,} are trained",
        "levels": "p3 (stride 8), p4 (stride 16), p5 (stride 32), p6 (stride 64), p7 (stride 128)",
        "stages": "stage1 (stride 4), stage2 (stride 8), stage3 (stride 16), stage4 (stride 32)",
        "sites": found["sites"],
        "family": "GFocal: scale=8.0, candidates=9, last=7, beta=2.0",
        "detections": "threshold=0.05, candidates=1000, iou=0.6, most=100",
    }


def test_sites_of_sides_need_bins(call: Call) -> None:
    words = ("backbone=stillhouse/small", "strides=[4,8]", "head.width=16", "neck.width=16")
    found = [squeezed(call("models", f"detector/{one}", *words).out) for one in ("gfocal", "fcos")]
    assert all(" sites class, class_main, " in text for text in found)
    assert [" edge_rest," in text for text in found] == [True, False]


def test_options_of_the_parts_of_a_detector(call: Call) -> None:
    words = "backbone=stillhouse/small strides=[4,8] neck.width=16 neck.extra=0 head.depth=1"
    depths = [f"{words} head.width=16".replace("depth=1", f"depth={depth}") for depth in (1, 2)]
    shown = [rows_of(call("models", "detector/fcos", *line.split()).out) for line in depths]
    assert shown[0]["levels"] == "p2 (stride 4), p3 (stride 8)" and shown[0]["classes"] == "80"
    counts = [int(rows["parameters"].split(", of")[0].replace(",", "")) for rows in shown]
    assert counts[1] - counts[0] == 2 * (
        16 * 16 * 9 + 2 * 16
    )  # a convolution and a group norm each


def test_details_of_a_classifier_and_of_a_detector_of_torchvision(call: Call) -> None:
    found = rows_of(call("models", "timm/resnet18", "classes=10", "channels=1").out)
    assert found["classes"] == "10" and found["parameters"].startswith(
        "11,175,370, of which 11,175,370"
    )
    assert "levels" not in found and "family" not in found and found["sites"] == "class"
    tokens = squeezed(call("models", "timm/vit_tiny_patch16_224").out)
    assert "classes 1000 " in tokens and " stages stage1, stage2, " in tokens
    foreign = rows_of(call("models", "torchvision/fcos_resnet50_fpn", "score_thresh=0.1").out)
    assert foreign["family"] == "TorchvisionFCOS: threshold=0.1, radius=1.5, relative=True"
    assert foreign["classes"] == "80"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["detector/fcos", "raduis=1"],
            "detector/fcos has no option 'raduis'; did you mean 'radius'",
        ),
        (["detector/fcos", "head.deph=2"], "head={'deph': 2}: got an unexpected keyword argument"),
        (["detector/fcoss", "radius=1"], "detector has no network 'fcoss'; did you mean 'fcos'"),
        (["stillhouse/tiny", "classes=no"], "classes must be a positive integer, got False"),
        (["stillhouse/tiny", "channels=0"], "channels must be a positive integer, got 0"),
        (["stillhouse/tiny", "wide"], "'wide' is not an override; write key=value"),
        (["tiny", "classes=2"], "'tiny' does not say where the network comes from"),
        (["no_such_module:make"], "'no_such_module:make' names code to be run; if you trust"),
        (["no_such_module:make", "--trust"], "importing 'no_such_module' failed"),
        (
            ["torchvision_detectors:single_shot", "classes=2", "--trust"],
            "SSD cannot be used for task detection: the classes of an SSD share",
        ),
    ],
)
def test_a_wrong_option_of_a_network_is_one_sentence(
    call: Call, words: list[str], message: str
) -> None:
    ended = call("models", *words)
    assert message in ended.error and ended.out == ""


def test_datasets_with_their_layouts(call: Call) -> None:
    from stillhouse.data.catalogue import entries

    listed = call("datasets").out
    for entry in entries():
        assert f"\n{entry.name} " in f"\n{listed}"
    output = call("datasets", "folder").out
    assert "path/train/CLASS/*.jpg" in output


def test_recipes_of_the_package(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    every = call("recipes", "ls", "/").out
    assert {line.split(" ")[0] for line in every.splitlines()} >= set(load.zoo())
    one = call("recipes", "ls", "raw").out
    assert one == "digits/raw  Handwritten digits, 200 images\n"


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_a_folder_of_many_recipes_is_one_line(
    call: Call, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    listed = call("recipes", "ls").out
    assert len(listed.splitlines()) < len(load.zoo())
    assert max(len(line) for line in listed.splitlines()) <= 100
    assert "digits/raw " in squeezed(listed)  # few in a folder are told apart, with titles
    assert "Handwritten digits, 200 images" in squeezed(listed)
    blocks = {block.split()[0]: squeezed(block) for block in listed.split("\n\n")}
    for folder in ("cifar100/methods", "cifar100/pairs", "imagenet/tables"):
        inside = [n.rpartition("/")[2] for n in load.zoo() if n.rpartition("/")[0] == folder]
        assert len(inside) > 9
        assert blocks[f"{folder}/..."] == f"{folder}/... {', '.join(inside)}"
    assert "stillhouse recipes ls PATTERN" in listed


def test_matching_recipes_are_listed_with_titles(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    listed = call("recipes", "ls", "methods/dkd").out
    assert listed == (
        "cifar100/methods/dkd  CIFAR-100, decoupled distillation\n\n"
        "imagenet/methods/dkd  ImageNet, decoupled distillation\n"
    )


def test_copying_a_recipe(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("recipes", "cp", "digits/raw").out == "raw.yaml\n"
    copied = (tmp_path / "raw.yaml").read_bytes()
    assert copied == load.zoo()["digits/raw"].read_bytes()
    (tmp_path / "raw.yaml").write_text("mine")
    assert call("recipes", "cp", "digits/raw").error == (
        "raw.yaml already exists; choose another file"
    )
    assert (tmp_path / "raw.yaml").read_text() == "mine"
    (tmp_path / "folder").mkdir()
    assert call("recipes", "cp", "digits/raw", "folder").out == "folder/raw.yaml\n"
    assert "cannot be written" in call("recipes", "cp", "digits/raw", "no/where.yaml").error


def test_copying_to_a_full_disk(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    output = call("recipes", "cp", "digits/raw", str(tmp_path / "a.yaml")).error
    assert "No space left on device" in output


def test_validate_reports_each_recipe(call: Call, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("data: digits/raw\nstudnt: stillhouse/tiny\nmethod: none\n")
    ended = call("recipes", "validate", "digits/raw", str(wrong), "nosuch", "digits/numbers")
    assert ended.code == 2 and ended.err == ""
    first, second, third, fourth = ended.out.splitlines()
    assert first == "ok       digits/raw" and fourth == "ok       digits/numbers"
    assert second.startswith(f"invalid  {wrong}:2: unknown key studnt; did you mean 'student'?")
    assert third.startswith("invalid  recipe 'nosuch' not found")
    assert call("recipes", "validate", "digits/raw").code == 0


def test_a_segmenter_in_detail(call: Call) -> None:
    words = ("backbone=stillhouse/small", "classes=11")
    found = rows_of(call("models", "segmenter/fpn", *words).out)
    assert found["classes"] == "11" and "of which" in found["parameters"]
    assert found["sites"] == "pixel, every_pixel, aux, channel"
    assert "stage1 (stride 2)" in found["stages"] and "p1" in found["levels"]
    assert rows_of(call("models", "segmenter/pspnet", *words).out)["classes"] == "11"
