"""Predictions of a run's student for image files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import UnidentifiedImageError
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.build.contract import Contract, read_contract
from stillhouse.build.data import Sources, evaluation_batch
from stillhouse.build.networks import make_deployed
from stillhouse.data.images import read_image
from stillhouse.data.loader import BatchSampler, Loader
from stillhouse.data.source import Sample
from stillhouse.data.targets import SampleTarget
from stillhouse.engine.devices import Hardware
from stillhouse.engine.progress import Progress, create_progress
from stillhouse.errors import UserError
from stillhouse.explain.phrases import count_of
from stillhouse.models.factories import trust_factories
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.prediction_files import WRITERS, Writer
from stillhouse.runs.prediction_inputs import (
    Picture,
    Seen,
    check_output_links,
    check_outputs,
    find_pictures,
    make_folder,
)
from stillhouse.runs.training import STUDENT
from stillhouse.tasks.base import Facts, Task, run_network
from stillhouse.types import Trace

FOLDER = "predictions"  # in the folder of the run
GREY = (0.299, 0.587, 0.114)  # the weights of red, green and blue


@dataclass(frozen=True, eq=False)
class Images:
    """Images in memory, of any sizes, without labels."""

    images: Sequence[Tensor]  # (C, H, W) uint8 each
    target: Callable[[Tensor], SampleTarget]  # of an image
    classes: tuple[str, ...]
    name: str = "the images"
    fingerprint: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = self.images[index]
        return Sample(image, self.target(image), index)


@dataclass(frozen=True, eq=False)
class Predictor:
    """A trained student with all that its images need; the data set is not needed."""

    recipe: Recipe
    contract: Contract
    task: Task[Any]
    network: nn.Module
    hardware: Hardware

    def batch(
        self, images: Sequence[Tensor], target: Callable[[Tensor], SampleTarget]
    ) -> Batch[Any]:
        """Images as the evaluation of the run loads them: N x (3, H, W) uint8 -> Batch."""
        fitted = [fit_channels(image, self.contract.channels) for image in images]
        data, contract = self.recipe.data, self.contract
        loader = Loader(
            Images(fitted, target, contract.classes),
            BatchSampler(len(images), len(images)),
            contract.mean,
            contract.std,
            transforms=data.evaluation,
            device=self.hardware.device,
            pad=data.pad,
        )
        return next(loader.epoch(0))

    @torch.no_grad()
    def predict(self, batch: Batch[Any]) -> Trace:
        """The output of the network, checked."""
        with self.hardware.autocast():
            trace = run_network(self.task, self.network, batch)
        self.task.check_output(trace.out, self.contract.name, len(batch))
        if not self.task.collect(trace).isfinite().all():
            raise UserError(
                f"{self.contract.name} gives scores that are not finite; its weights are damaged"
            )
        return trace


def predict_run(
    folder: Path,
    inputs: Sequence[Path],
    out: Path | None = None,
    weights: Path | None = None,
    threshold: float = 0.3,
) -> str:
    """Write the predictions of a run's student for image files, and return a summary of one line.

    `inputs` are files, or folders that are searched at any depth; results go to `out`, by default
    RUN/predictions, below the same sub-folders. Files that are no images are skipped with a
    warning. `weights` replace those of the run, `threshold` is the least score of a detection.
    """
    recipe, contract = read_run_contract(folder)
    check_channels(folder, contract)
    inside = out is None
    out = folder / FOLDER if out is None else out
    pictures = find_pictures(inputs, out)
    task = recipe.task.build(Facts(recipe.data.name, contract.classes, None))
    writer = WRITERS[recipe.task.name](task, contract.classes, out, threshold)
    names = writer.names(pictures)
    check_outputs(pictures, out, names)
    if inside:
        check_output_links(folder, out, names)
    predictor = make_predictor(recipe, contract, task, weights or folder / STUDENT)
    make_folder(out)
    with create_progress(len(pictures), images=1) as progress:
        read, skipped = write_predictions(predictor, writer, pictures, progress)
    if not read:
        first = skipped[0]
        count = count_of(len(skipped), "file")
        raise UserError(f"of {count}, none can be read as an image: {first}; name other files")
    what = writer.finish()
    left = f" ({count_of(len(skipped), 'file')} skipped)" if skipped else ""
    return f"{count_of(read, 'image')}{left}, {what}: {out / writer.file}"


def read_run_contract(folder: Path) -> tuple[Recipe, Contract]:
    """The recipe of a finished run, and the classes and images that its student is for."""
    path = folder / load.RECIPE_FILE
    if not path.is_file():
        raise UserError(f"{folder} is not a run folder: it has no {load.RECIPE_FILE}")
    contract = read_contract(folder / STUDENT)
    if contract is None:
        raise UserError(
            f"{folder} has no {STUDENT} yet; finish it with `stillhouse run {folder} --resume`"
        )
    return load.load_resolved(path), contract


def check_channels(folder: Path, contract: Contract) -> None:
    """Raise UserError for a student of images that are neither grey nor RGB."""
    if contract.channels not in (1, 3):
        raise UserError(
            f"the student of {folder} takes images of {contract.channels} channels, but image "
            "files are read in RGB; predict in Python with stillhouse.load_student"
        )


def load_student(folder: str | Path, trust: bool = False) -> nn.Module:
    """The student of a finished run with its weights, in eval mode on the CPU.

    The data of the run are not needed. With `trust`, the recipe may name networks as
    `package.module:factory`, which runs their code.
    """
    recipe, contract = read_run_contract(Path(folder))
    with trust_factories(trust):
        return make_deployed(recipe, absent_sources(contract), Path(folder) / STUDENT).eval()


def absent_sources(contract: Contract) -> Sources:
    """The classes and images of a contract as data without samples."""
    empty = Images((), lambda image: None, contract.classes)
    return Sources(
        *(empty,) * 3,
        mean=contract.mean,
        std=contract.std,
        size=contract.size,
        channels=contract.channels,
    )


def make_predictor(recipe: Recipe, contract: Contract, task: Task[Any], weights: Path) -> Predictor:
    """The student with its weights, on the device of the recipe or, if there is none, the CPU."""
    if recipe.engine.threads:
        torch.set_num_threads(recipe.engine.threads)
    try:
        hardware = Hardware(recipe.engine.device, recipe.engine.precision)
    except UserError:  # trained on another machine
        hardware = Hardware("cpu")
    network = make_deployed(recipe, absent_sources(contract), weights).to(hardware.device).eval()
    return Predictor(recipe, contract, task, network, hardware)


def write_predictions(
    predictor: Predictor, writer: Writer, pictures: Sequence[Picture], progress: Progress
) -> tuple[int, list[str]]:
    """Predict for all images; returns their number, and why files were skipped."""
    read, skipped = 0, list[str]()
    # one image of the kind, which decides on the size of batches as in evaluation
    example = Images((torch.zeros(3, 1, 1),), writer.target, predictor.contract.classes)
    size = evaluation_batch(predictor.recipe.data, example)
    for start in range(0, len(pictures), size):
        some = pictures[start : start + size]
        seen, failed = read_pictures(some)
        for reason in failed:
            progress.note(f"skipped {reason}")
        for alike in group_by_size(seen):
            batch = predictor.batch(alike.pixels, writer.target)
            writer.add(predictor.predict(batch), batch, alike)
        read, skipped = read + len(seen.pictures), [*skipped, *failed]
        progress.update(start + len(some), {})
    return read, skipped


def read_pictures(pictures: Sequence[Picture]) -> tuple[Seen, list[str]]:
    """The images that can be read, and why others cannot."""
    with ThreadPoolExecutor() as pool:
        results = list(pool.map(_read_or_reason, pictures))
    seen = [(p, r) for p, r in zip(pictures, results, strict=True) if isinstance(r, Tensor)]
    failed = [result for result in results if isinstance(result, str)]
    return Seen([picture for picture, _ in seen], [pixels for _, pixels in seen]), failed


def group_by_size(seen: Seen) -> list[Seen]:
    """The images of each size, so that none is padded to, or changed by, the size of another."""
    groups: dict[torch.Size, list[tuple[Picture, Tensor]]] = {}
    for picture, pixels in zip(*seen, strict=True):
        groups.setdefault(pixels.shape, []).append((picture, pixels))
    return [Seen([p for p, _ in pairs], [x for _, x in pairs]) for pairs in groups.values()]


def _read_or_reason(picture: Picture) -> Tensor | str:
    try:
        return read_image(picture.path)
    except UserError as error:
        return f"{picture.path}: {_reason(error.__cause__ or error)}"


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not an image of a known format"
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")


def fit_channels(image: Tensor, channels: int) -> Tensor:
    """An RGB image, or its brightness for a network of grey images: (3, H, W) -> (C, H, W)."""
    if channels == 3:
        return image
    weights = torch.tensor(GREY)[:, None, None]
    return (image * weights).sum(0, keepdim=True).round().clamp(0, 255).to(torch.uint8)
