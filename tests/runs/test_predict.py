"""Predictions for image files, end to end: read back by the tools of COCO, and re-derived apart."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from safetensors.torch import load_file, save_file

from quick import Call, caller, run
from stillhouse.batches import Batch
from stillhouse.build.session import Session
from stillhouse.data.images import read_image
from stillhouse.engine.evaluate import evaluate
from stillhouse.errors import UserError
from stillhouse.models import weights, zoo
from stillhouse.recipes import load
from stillhouse.runs import predict as predict_module
from stillhouse.runs.execute import evaluate_run, execute
from stillhouse.runs.predict import fit_channels, predict_run
from stillhouse.runs.training import STUDENT
from stillhouse.types import Trace

OPTIONS = {
    "backbone": "stillhouse/small",
    "strides": [4, 8],
    "neck": {"width": 8, "extra": 1},
    "head": {"width": 8, "depth": 1},
}
RECIPE = f"""
task: {{name: detection}}
data:
  name: digits/objects
  train: {{count: 8}}
  val: {{count: 4}}
  test: {{count: 6}}
  batch: 4
  pad: 16
  evaluation: [{{kind: resize, size: 40}}]
student: {{name: detector/fcos, options: {json.dumps(OPTIONS)}}}
method: none
train: {{epochs: 1}}
engine: {{device: cpu, tensorboard: false}}
"""
MEAN = STD = 0.25  # of digits/objects


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose student finds something in every image: the biases of its classes are raised."""
    folder = tmp_path_factory.mktemp("detector")
    (folder / "recipe.yaml").write_text(RECIPE)
    done = execute(load.load(str(folder / "recipe.yaml")), folder / "run", say=lambda _: None)
    state = load_file(done.folder / STUDENT)
    state["head.score.bias"] = torch.linspace(-1.0, 1.5, 10)
    state["head.quality.bias"] += 3
    save_file(state, done.folder / STUDENT)
    contract = done.folder / f"{STUDENT}.json"  # of the weights before
    known = json.loads(contract.read_text())
    contract.write_text(json.dumps({**known, "sha256": ""}))
    return done.folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ("method=none", "teacher=null", "train.epochs=1")
    return run(tmp_path_factory.mktemp("classifier") / "run", *words).folder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return caller(capsys)


def noise(height: int, width: int, channels: int = 3) -> Image.Image:
    generator = np.random.default_rng(height * 1000 + width)
    pixels = generator.integers(0, 256, (height, width, channels), dtype=np.uint8)
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of several sizes in folders, one of them broken."""
    folder = tmp_path / "photos"
    (folder / "inner" / "most").mkdir(parents=True)
    noise(48, 48).save(folder / "b.png")
    noise(60, 90).save(folder / "inner" / "a.jpg")
    noise(400, 352).save(folder / "inner" / "most" / "c.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def results(out: Path) -> Any:
    return json.loads((out / "detections.json").read_text())


# --------------------------------------------------------------------------------------- detection


def test_detections_are_in_pixels_of_the_files_and_load_in_coco_tools(
    detector: Path, photos: Path, tmp_path: Path
) -> None:
    said = predict_run(detector, [photos], tmp_path / "out", threshold=0.5)
    content = results(tmp_path / "out")
    assert [one["file_name"] for one in content["images"]] == [
        "b.png",
        "inner/a.jpg",
        "inner/most/c.png",
    ]
    sizes = [(one["height"], one["width"]) for one in content["images"]]
    assert sizes == [(48, 48), (60, 90), (400, 352)]
    found = COCO(str(tmp_path / "out" / "detections.json"))
    assert [one["name"] for one in found.loadCats(found.getCatIds())] == [*map(str, range(10))]
    assert found.getCatIds() == [*range(1, 11)]
    assert len(found.getAnnIds()) == len(content["annotations"]) > 0
    assert said == (
        f"3 images (1 file skipped), {len(content['annotations'])} detections with a score of at "
        f"least 0.5: {tmp_path / 'out' / 'detections.json'}"
    )
    for image in content["images"]:
        again = one_by_hand(detector, photos / image["file_name"], 0.5)
        own = [one for one in content["annotations"] if one["image_id"] == image["id"]]
        assert len(own) == len(again)
        for one, (label, score, box) in zip(own, again, strict=True):
            assert one["category_id"] == label + 1 and one["iscrowd"] == 0
            assert one["score"] == pytest.approx(score, abs=1e-4)
            assert one["bbox"] == pytest.approx(box, abs=0.02)
            assert one["area"] == pytest.approx(one["bbox"][2] * one["bbox"][3], rel=0.01)
            assert one["bbox"][0] + one["bbox"][2] <= image["width"] + 0.01


def one_by_hand(folder: Path, path: Path, threshold: float) -> list[tuple[int, float, list[float]]]:
    """Class, score and x, y, width, height of an image that is resized to 40 and padded to 16."""
    from torchvision.transforms.v2 import functional as F

    network = zoo.create("detector/fcos", 10, 3, **OPTIONS)
    weights.load_weights(network, folder / STUDENT)
    pixels = read_image(path)
    height, width = pixels.shape[1:]
    shorter = min(height, width)
    small = F.resize(pixels, [int(40 * height / shorter), int(40 * width / shorter)])
    h, w = small.shape[1:]
    canvas = torch.zeros(1, 3, -(-h // 16) * 16, -(-w // 16) * 16)
    canvas[0, :, :h, :w] = (small / 255 - MEAN) / STD
    with torch.no_grad():
        out = network.eval()(canvas)
    keys = torch.zeros(1, dtype=torch.int64)
    task = load.load(folder / "recipe.yaml").task.build(_facts())
    batch = Batch(canvas, None, keys, keys, sizes=torch.tensor([[h, w]]))
    found = task.detect(Trace(out), batch)
    assert found.scores is not None
    rows = []
    for label, score, (x1, y1, x2, y2) in zip(
        found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(), strict=True
    ):
        if score >= threshold and x2 > x1 and y2 > y1:
            across, down = width / w, height / h
            rows.append(
                (label, score, [across * x1, down * y1, across * (x2 - x1), down * (y2 - y1)])
            )
    return rows


def _facts() -> Any:
    from stillhouse.tasks.base import Facts

    return Facts("digits", tuple(map(str, range(10))), None)


def test_drawn_files_are_images_of_the_right_size_and_inputs_stay(
    detector: Path, photos: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    predict_run(detector, [photos], tmp_path / "out", threshold=0.5)
    assert {path: path.read_bytes() for path in before} == before
    written = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")}
    assert written == {"b.png", "inner/a.jpg", "inner/most/c.png", "detections.json"}
    # of small images each pixel is repeated, so that 320 is nearly reached
    for name, size in (
        ("b.png", (288, 288)),
        ("inner/a.jpg", (270, 180)),
        ("inner/most/c.png", (352, 400)),
    ):
        drawn = Image.open(tmp_path / "out" / name)
        drawn.load()
        assert drawn.size == size
        assert drawn.format == ("JPEG" if name.endswith("jpg") else "PNG")
    original = np.asarray(Image.open(photos / "inner" / "most" / "c.png"))
    drawn = np.asarray(Image.open(tmp_path / "out" / "inner" / "most" / "c.png"))
    changed = (original != drawn).any(2)
    assert 0.001 < changed.mean() < 0.9  # boxes and texts, and the image between them


def test_an_image_does_not_depend_on_the_others(
    detector: Path, photos: Path, tmp_path: Path
) -> None:
    predict_run(detector, [photos], tmp_path / "all")
    predict_run(detector, [photos / "b.png"], tmp_path / "one")
    together, alone = results(tmp_path / "all"), results(tmp_path / "one")
    assert [one["file_name"] for one in alone["images"]] == ["b.png"]
    own = [one for one in together["annotations"] if one["image_id"] == 1]
    assert own == alone["annotations"]


def test_without_detections_there_is_a_list_all_the_same(
    detector: Path, photos: Path, tmp_path: Path
) -> None:
    said = predict_run(detector, [photos / "b.png"], tmp_path / "out", threshold=1.0)
    assert said.startswith("1 image, 0 detections")
    assert results(tmp_path / "out")["annotations"] == []
    drawn = np.asarray(Image.open(tmp_path / "out" / "b.png"))
    plain = np.asarray(Image.open(photos / "b.png"))
    assert np.array_equal(drawn, plain.repeat(6, 0).repeat(6, 1))


def test_files_of_every_kind_are_read_upright(detector: Path, tmp_path: Path) -> None:
    folder = tmp_path / "kinds"
    folder.mkdir()
    noise(40, 64, 1).save(folder / "grey.png")
    noise(40, 64).convert("RGBA").save(folder / "alpha.png")
    deep = np.asarray(noise(40, 64, 1)).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    noise(40, 64).save(folder / "turned.jpg", exif=exif)
    noise(40, 64).save(folder / "still.gif")
    predict_run(detector, [folder], tmp_path / "out", threshold=0.5)
    content = results(tmp_path / "out")
    sizes = {one["file_name"]: (one["width"], one["height"]) for one in content["images"]}
    wide = dict.fromkeys(("grey.png", "alpha.png", "deep.png", "still.gif"), (64, 40))
    assert sizes == {**wide, "turned.jpg": (40, 64)}
    assert Image.open(tmp_path / "out" / "turned.jpg").size == (200, 320)
    assert Image.open(tmp_path / "out" / "still.gif.png").format == "PNG"
    by_image: dict[int, list[Any]] = {}
    for one in content["annotations"]:
        by_image.setdefault(one["image_id"], []).append((one["category_id"], one["bbox"]))
    ids = {one["file_name"]: one["id"] for one in content["images"]}
    assert by_image[ids["grey.png"]] == by_image[ids["deep.png"]]  # of the same 8 bits


def test_the_default_folder_is_in_the_run_and_is_not_read_again(detector: Path) -> None:
    noise(48, 48).save(detector / "picture.png")
    for _ in range(2):
        said = predict_run(detector, [detector])
        assert said.startswith("1 image, ")
    assert (detector / "predictions" / "picture.png").is_file()


def test_other_weights_give_other_detections(detector: Path, photos: Path, tmp_path: Path) -> None:
    state = load_file(detector / STUDENT)
    state["head.score.bias"] = state["head.score.bias"].flip(0)
    save_file(state, tmp_path / "other.safetensors")
    predict_run(detector, [photos / "b.png"], tmp_path / "a", threshold=0.6)
    predict_run(
        detector, [photos / "b.png"], tmp_path / "b", tmp_path / "other.safetensors", threshold=0.6
    )
    a, b = (
        {one["category_id"] for one in results(tmp_path / name)["annotations"]} for name in "ab"
    )
    assert min(a) > 5 and max(b) < 6  # the classes with the raised biases


def test_the_data_set_is_not_needed(
    detector: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the data were opened")

    monkeypatch.setattr("stillhouse.build.splits.open_source", refuse)
    predict_run(detector, [photos / "b.png"], tmp_path / "out")
    assert results(tmp_path / "out")["images"]


def test_evaluate_reads_a_detector(detector: Path) -> None:
    recipe = load.load(detector / "recipe.yaml")
    found = evaluate_run(recipe, detector, "test", None).scores
    session = Session.open(recipe, quiet=True)
    network = zoo.create("detector/fcos", 10, 3, **OPTIONS)
    weights.load_weights(network, detector / STUDENT)
    again = evaluate(session.task, session.traced(network), session.measured(), session.hardware)
    assert found == again and found["detections"] > 0 and found["objects"] > 0


def test_an_interrupted_call_leaves_whole_files_only(
    detector: Path, photos: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stillhouse.runs import detection_files

    draw, drawn = detection_files.draw_marks, []

    def stop(*arguments: Any) -> Any:
        picture = draw(*arguments)
        drawn.append(picture)
        if len(drawn) == 2:
            picture.save = _interrupted  # while the second file is being written
        return picture

    monkeypatch.setattr(detection_files, "draw_marks", stop)
    ended = call("predict", detector, photos, "--out", tmp_path / "out")
    assert ended.code == 130 and "the list of predictions was not written" in ended.err
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["b.png"]
    Image.open(files[0]).load()


def _interrupted(file: Any, *_: Any, **__: Any) -> None:
    file.write(b"half")
    raise KeyboardInterrupt


# -------------------------------------------------------------------------------------- classes


def table(out: Path) -> list[dict[str, str]]:
    with (out / "predictions.csv").open(newline="") as file:
        return [*csv.DictReader(file)]


def test_a_classifier_gives_the_five_most_probable_classes(
    classifier: Path, tmp_path: Path
) -> None:
    session = Session.open(load.load(classifier / "recipe.yaml"), quiet=True)
    folder = tmp_path / "digits"
    folder.mkdir()
    for key in range(4):
        pixels = session.sources.test[key].image[0].numpy()
        Image.fromarray(pixels).save(folder / f"{3 - key}.png")  # listed in reverse
    said = predict_run(classifier, [folder], tmp_path / "out")
    assert said == f"4 images, the most probable classes: {tmp_path / 'out' / 'predictions.csv'}"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["predictions.csv"]
    network = zoo.create("stillhouse/tiny", 10, 1)
    weights.load_weights(network, classifier / STUDENT)
    batch = next(session.measured())
    with torch.no_grad():
        shares = network.eval()(batch.images[:4]).softmax(1)
    for key, row in zip((3, 2, 1, 0), table(tmp_path / "out"), strict=True):
        assert row.pop("path") == f"{3 - key}.png"
        order = sorted(range(10), key=lambda c: -float(shares[key, c]))[:5]
        assert [*row] == [f"{x}_{n}" for n in range(1, 6) for x in ("class", "probability")]
        assert [row[f"class_{n}"] for n in range(1, 6)] == [str(c) for c in order]
        for n, c in enumerate(order, 1):
            assert float(row[f"probability_{n}"]) == pytest.approx(float(shares[key, c]), abs=1e-4)


def test_several_classes_are_those_above_one_half(tmp_path: Path) -> None:
    from stillhouse.runs.prediction_files import LabelWriter
    from stillhouse.runs.prediction_inputs import Picture, Seen
    from stillhouse.tasks.multilabel import Multilabel

    writer = LabelWriter(Multilabel(3), ("cat", "dog", "cow"), tmp_path, 0.3)
    logits = torch.tensor([[1.0, -1.0, 2.0], [-1.0, -2.0, 0.0]])
    pictures = [Picture(Path("b.png"), "b.png", 2), Picture(Path("a.png"), "a.png", 1)]
    keys = torch.arange(2)
    images = torch.zeros(2, 3, 4, 4)
    writer.add(Trace(logits), Batch(images, None, keys, keys), Seen(pictures, [*images]))
    assert writer.finish() == "the classes with a probability above 0.5"
    assert table(tmp_path) == [
        {"path": "a.png", "labels": "", "probabilities": ""},
        {"path": "b.png", "labels": "cow;cat", "probabilities": "0.880797;0.731059"},
    ]


def test_a_network_of_grey_images_gets_their_brightness() -> None:
    red = torch.tensor([100, 0, 0], dtype=torch.uint8)[:, None, None]
    assert fit_channels(red, 1).tolist() == [[[30]]]
    grey = torch.full((3, 2, 2), 255, dtype=torch.uint8)
    assert torch.equal(fit_channels(grey, 1), grey[:1])
    assert fit_channels(red, 3) is red


# ------------------------------------------------------------------------------------ wrong inputs


def test_a_broken_file_is_skipped_with_a_warning(
    detector: Path, photos: Path, tmp_path: Path, call: Call
) -> None:
    cut = (photos / "inner" / "a.jpg").read_bytes()[:-200]
    (photos / "cut.jpg").write_bytes(cut)
    ended = call("predict", detector, photos, "--out", tmp_path / "out", "--threshold", "0.5")
    assert ended.code == 0 and ended.out.startswith("3 images (2 files skipped), ")
    assert f"skipped {photos}/broken.jpg: it is not an image of a known format" in ended.err
    assert f"skipped {photos}/cut.jpg: image file is truncated" in ended.err
    assert len(results(tmp_path / "out")["images"]) == 3


def test_wrong_inputs_end_in_one_sentence(
    detector: Path, photos: Path, tmp_path: Path, call: Call
) -> None:
    def error(*words: object) -> str:
        return call("predict", *words).error

    empty = tmp_path / "empty"
    empty.mkdir()
    assert error(empty, photos) == f"{empty} is not a run folder: it has no recipe.yaml"
    assert error(detector, tmp_path / "nothing") == (
        f"there is no file or folder {tmp_path}/nothing; name images or folders of images"
    )
    assert error(detector, empty).startswith(f"there are no images in {empty}; ")
    assert error(detector, photos / "broken.jpg", "--out", tmp_path / "out") == (
        f"of 1 file, none can be read as an image: {photos}/broken.jpg: it is not an image of a "
        "known format; name other files"
    )
    assert not (tmp_path / "out" / "detections.json").exists()
    assert error(detector, photos, "--out", photos) == (
        f"{photos}/b.png is an input; name another folder with --out"
    )
    assert error(detector, photos, "--out", photos / "b.png") == (
        f"{photos}/b.png is not a folder; name another one with --out"
    )
    assert "no such file" in error(detector, photos, "--weights", tmp_path / "w.pt")
    assert "--threshold" in call("predict", detector, photos, "--threshold", "3").err
    (empty / "recipe.yaml").write_text(RECIPE)
    assert error(empty, photos) == (
        f"{empty} has no student.safetensors yet; finish it with `stillhouse run {empty} --resume`"
    )


def test_a_link_to_an_input_does_not_hide_it(detector: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photos)
    with pytest.raises(UserError, match=r"b\.png is an input"):
        predict_run(detector, [photos], tmp_path / "link")


def test_inputs_of_one_name_in_several_folders_are_kept_apart(
    detector: Path, tmp_path: Path
) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        noise(48, 40 + ord(name)).save(tmp_path / name / "x.png")
    inputs = [tmp_path / "a" / "x.png", tmp_path / "b", tmp_path / "a"]
    predict_run(detector, inputs, tmp_path / "out")
    names = [one["file_name"] for one in results(tmp_path / "out")["images"]]
    assert names == ["a/x.png", "b/x.png"]  # each once


def test_scores_that_are_not_finite_are_an_error(
    detector: Path, photos: Path, tmp_path: Path
) -> None:
    state = load_file(detector / STUDENT)
    state["head.score.bias"][0] = float("nan")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(UserError, match="scores that are not finite"):
        predict_run(detector, [photos], tmp_path / "out", tmp_path / "nan.safetensors")


def test_a_device_that_is_not_here_is_replaced_by_the_cpu(
    detector: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has the device")
    text = (detector / "recipe.yaml").read_text()
    assert "device: cpu" in text
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in (STUDENT, f"{STUDENT}.json"):
        (copy / name).write_bytes((detector / name).read_bytes())
    (copy / "recipe.yaml").write_text(text.replace("device: cpu", "device: cuda"))
    assert predict_module.predict_run(copy, [photos], tmp_path / "out").startswith("3 images")


def test_a_link_among_the_results_of_a_run_is_not_followed(
    classifier: Path, detector: Path, photos: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (classifier / "predictions").symlink_to(outside)
    try:
        with pytest.raises(UserError, match=r"predictions leads out of .* replace the link by a c"):
            predict_run(classifier, [photos])
    finally:
        (classifier / "predictions").unlink()
    (detector / "predictions").mkdir(exist_ok=True)
    (detector / "predictions" / "inner").symlink_to(outside)
    with pytest.raises(UserError, match="predictions/inner leads out of"):
        predict_run(detector, [photos])
    assert [*outside.iterdir()] == [] and not (detector / "predictions" / "b.png").exists()
    (classifier / "elsewhere").symlink_to(outside)  # where the user says so, it is followed
    predict_run(classifier, [photos], classifier / "elsewhere")
    assert [path.name for path in outside.iterdir()] == ["predictions.csv"]
