"""The recipe that `key=value` words alone describe: the rest is found from data and networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from stillhouse.build.splits import find_split, open_split
from stillhouse.data.catalogue import entry
from stillhouse.data.images import limit_pixels
from stillhouse.data.layouts import find_layouts
from stillhouse.data.source import Source
from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.recipes import load
from stillhouse.recipes.defaults import TWO_STAGES, name_of
from stillhouse.recipes.schema import Data, Recipe

WORDS = Path("the command line")  # the place of errors
LOOKED_AT = 16  # training images whose sizes are read
SMALL = 128  # side of images that are taken as they are
STRIDE = 32  # that sides of crops are multiples of
STEPS = 10_000  # of a training, as far as the epochs allow
LEAST_EPOCHS, MOST_EPOCHS = 30, 100
HELD_OUT = 0.1  # share of train that is val, and as much test, where the data have none
LEARNING_RATE, FINE_TUNING_RATE = 1e-3, 2e-4
BACKBONES = ("timm", "torchvision", "cifar", "stillhouse")  # whose networks can be in others
DENSE_NETWORKS = {
    "detection": "detector/gfocal",
    "instance": "detector/solov2",
    "semantic": "segmenter/fpn",
}
# options for small images, whose objects are small
SMALL_IMAGES: Mapping[str, dict[str, Any]] = {
    "detection": {"strides": [4, 8], "scale": 4, "neck": {"width": 64, "extra": 0}},
    "instance": {
        "strides": [2, 4, 8],
        "grids": [12, 8],
        "ranges": [[1, 16], [12, 64]],
        "levels": ["p2", "p3"],
        "neck": {"width": 64, "extra": 0},
    },
    "semantic": {},
}


class Images(NamedTuple):
    """What is known of the training images."""

    number: int
    side: int  # the median of the shorter sides
    uniform: bool  # whether all that were looked at have one size
    files: bool  # whether each is a file, and not drawn

    @property
    def small(self) -> bool:
        """Whether the images are taken in their own size."""
        return self.uniform and self.side <= SMALL


def complete_recipe(words: Sequence[str]) -> Recipe:
    """The recipe of `key=value` words; what they leave out is chosen for the data and networks.

    Raises UserError where the data or the student are missing, or the data can be read in several
    ways.
    """
    content = load.apply_overrides({}, words)
    data = content.get("data")
    if not isinstance(data, dict) or not (data.get("name") or data.get("path")):
        raise UserError("a run without a recipe needs data; add data.path=FOLDER")
    if not name_of(content.get("student")):
        raise UserError(
            "a run without a recipe needs a student; add student=NAME, one of `stillhouse models`"
        )
    if not data.get("name"):
        content = {**content, "data": {**data, "name": choose_layout(content, data)}}
    bare = {key: content[key] for key in ("data", "student", "task") if key in content}
    draft = load.validate_recipe({**bare, "method": "none"}, WORDS, words)  # finds the task
    task = draft.task.name
    limit_pixels(draft.data.max_pixels)
    train = open_split(draft.data, "train")
    images = look_at_images(train, files=entry(draft.data.name).files)
    found = choose_data(draft.data, task, images, content) | choose_training(content, task, images)
    content = load.merge_sections(found, content)
    for role in ("student", "teacher"):
        if isinstance(network := content.get(role), dict):
            content[role] = place_backbone(network, task, images)
    content.setdefault("task", {"name": task})
    if content.get("teacher") is None:
        content.setdefault("method", {"name": "none"})
    return load.validate_recipe(content, WORDS, words)


# -------------------------------------------------------------------------------------------- data


def choose_layout(content: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    """The reader for a folder, by its layout, the task that is named, and the student."""
    path = Path(str(data["path"]))
    names = find_layouts(path)
    tasks = {name: load.task_of_data(name) for name in names}
    named = name_of(content.get("task"))
    for task in [named] if named else tasks_of_network(name_of(content["student"])):
        if task in tasks.values():
            names = [name for name in names if tasks[name] == task]
            break
    if len(names) == 1:
        return names[0]
    listed = ", ".join(names[:-1]) + f" and {names[-1]}"
    raise UserError(f"{path} has the layouts of {listed}; set data.name to one of them")


def tasks_of_network(name: str) -> list[str]:
    """The tasks that a network is for, the most telling first; empty for a classifier."""
    if zoo.is_segmenter(name):
        return ["semantic"]
    if not zoo.is_detector(name):
        return []
    masks = any(part in name for part in ("mask", "solo"))
    return ["instance", "detection"] if masks else ["detection"]


def look_at_images(train: Source, *, files: bool) -> Images:
    """The number and sizes of the training images."""
    count = len(train)
    looked = min(count, LOOKED_AT)
    shapes = [tuple(train[i * count // looked].image.shape[-2:]) for i in range(looked)]
    side = int(median(min(shape) for shape in shapes))
    return Images(count, side, len(set(shapes)) == 1, files)


def choose_data(
    data: Data, task: str, images: Images, content: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The batch, the transforms and the split of validation, for images of some sizes."""
    batch = choose_batch(task, images)
    found: dict[str, Any] = {"batch": batch, **choose_transforms(task, images, content)}
    if not has_validation(data):
        found["holdout"] = max(1, round(HELD_OUT * images.number))
    return {"data": found}


def choose_batch(task: str, images: Images) -> int:
    """A power of two, of which a small data set has several batches."""
    dense = task in DENSE_NETWORKS
    batch = (16 if images.small else 8) if dense else 64
    while batch > 8 and batch * 8 > images.number:
        batch //= 2
    return min(batch, max(1, images.number // 2))


def choose_transforms(task: str, images: Images, content: Mapping[str, Any]) -> dict[str, Any]:
    """The transforms of training and evaluation, and the padding of images with boxes or masks."""
    flip = {"kind": "flip"}
    if task in ("detection", "instance"):
        if images.small:
            return {"transforms": [flip] if images.files else [], "pad": 8}
        side = min(640, round_to_stride(images.side))
        resize = {"kind": "resize", "size": side, "longest": side * 5 // 3}
        return {"transforms": [resize, flip], "evaluation": [resize], "pad": STRIDE}
    if task == "semantic":
        if images.small:
            return {"transforms": [flip] if images.files else []}
        square = {"kind": "random_crop", "size": min(512, round_to_stride(images.side))}
        return {"transforms": [{"kind": "random_scale"}, flip, square]}
    fixed = input_side(content)
    if fixed is None and images.small:
        return {"transforms": [{"kind": "crop", "padding": 4}, flip] if images.files else []}
    side = fixed or 224
    crop: dict[str, Any] = {"kind": "resized_crop", "size": side}
    if task == "multilabel":
        crop["scale"] = [0.5, 1.0]  # a small crop would lose labels
    evaluation = [
        {"kind": "resize", "size": side * 8 // 7},
        {"kind": "center_crop", "size": side},
    ]
    return {"transforms": [crop, flip], "evaluation": evaluation}


def input_side(content: Mapping[str, Any]) -> int | None:
    """The side of images that the student or the teacher takes, where it takes no other."""
    for role in ("student", "teacher"):
        name = name_of(content.get(role))
        known = zoo.preprocessing(name) if name else None
        if known is not None and known.fixed:
            return known.size[-1]
    return None


def round_to_stride(side: int) -> int:
    """The multiple of the stride below a side, at least one."""
    return max(1, side // STRIDE) * STRIDE


def has_validation(data: Data) -> bool:
    """Whether a data set has a split of validation, or the recipe holds one out."""
    if data.holdout:
        return True
    return "val" in entry(data.name).splits and find_split(data, "val") is not None


# ---------------------------------------------------------------------------- networks and training


def place_backbone(network: dict[str, Any], task: str, images: Images) -> dict[str, Any]:
    """The network, or for a task of positions the usual one for it around a backbone."""
    name = str(network.get("name"))
    source = name.partition("/")[0]
    options: dict[str, Any] = {}
    if task in DENSE_NETWORKS and source in BACKBONES and not fits_positions(name):
        name, options = DENSE_NETWORKS[task], {"backbone": name}
        if images.small:
            options |= SMALL_IMAGES[task]
    random = not (network.get("weights") or network.get("pretrained"))
    if name.startswith("detector/") and random:
        options |= {"frozen": 0, "frozen_norms": False}  # random weights must be trained
    options |= network.get("options") or {}
    return {**network, "name": name, **({"options": options} if options else {})}


def fits_positions(name: str) -> bool:
    """Whether a network has outputs for positions, and is no backbone for another."""
    return zoo.is_detector(name) or zoo.is_segmenter(name) or TWO_STAGES in name


def choose_training(
    content: Mapping[str, Any], task: str, images: Images
) -> dict[str, dict[str, Any]]:
    """The training of the student, and of a teacher that has no weights."""
    batch = content["data"].get("batch") or choose_batch(task, images)
    found = {
        "train": training_options(content["student"], content.get("train"), images, int(batch))
    }
    teacher = content.get("teacher")
    if isinstance(teacher, dict) and not (teacher.get("weights") or teacher.get("members")):
        options = training_options(teacher, teacher.get("train"), images, int(batch))
        found["teacher"] = {"train": options}
    return found


def training_options(network: Any, given: Any, images: Images, batch: int) -> dict[str, Any]:
    """AdamW with a warmup and a cosine, slower for a network that begins with weights."""
    begun = isinstance(network, dict) and (network.get("weights") or network.get("pretrained"))
    epochs = round(STEPS * batch / images.number)
    epochs = min(MOST_EPOCHS, max(LEAST_EPOCHS, epochs))
    if isinstance(given, dict) and isinstance(given.get("epochs"), int | float):
        epochs = given["epochs"]  # of which the warmup is a share
    rate = FINE_TUNING_RATE if begun else LEARNING_RATE
    return {
        "epochs": epochs,
        "optimiser": {"kind": "adamw", "lr": rate, "weight_decay": 0.05, "decay_norms": False},
        "schedule": {"kind": "cosine", "warmup": epochs / 20},
        "clip": 5.0,
    }
