"""A task that nobody has heard of, on boxes, goes through all of the machinery unchanged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from slice.detector import DetectionTask, Detector, source
from stillhouse.batches import Batch, Objects
from stillhouse.data.loader import BatchSampler, Loader
from stillhouse.data.transforms import ColorJitter, Crop, Flip
from stillhouse.distiller import Distiller
from stillhouse.distributed import combine, mean_terms, rank
from stillhouse.engine.devices import Hardware
from stillhouse.engine.evaluate import evaluate
from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError
from stillhouse.methods.build import make_method
from stillhouse.methods.setting import Setting
from stillhouse.models.taps import Tapped
from stillhouse.objectives import presets
from stillhouse.recipes import load
from stillhouse.runs.execute import Result, execute
from stillhouse.teachers.base import observe
from stillhouse.teachers.frozen import Frozen
from stillhouse.types import Clock, Term

CLOCK = Clock(0, 10, 5)
CUTS = 0, 3, 3, 8  # the second rank has no images
METHODS = (
    presets.tld(sites=("class",)),
    presets.mse(sites=("box",)),
    presets.mimic(pairs=(("neck", "neck"),)),
)
MEAN, STD = (0.25,) * 3, (0.25,) * 3


def loader(batch: int = 8, count: int = 24, **options: Any) -> Loader:
    return Loader(source("train", count), BatchSampler(count, batch, True, 3), MEAN, STD, **options)


def bare_batch() -> Batch[Objects]:
    """Eight images, the first of them without an object."""
    batch = next(loader().epoch(0))
    return Batch(
        batch.images.double(),
        batch.target.objects(batch.target.image > 0),
        batch.keys,
        batch.views,
    )


def networks() -> tuple[Detector, Detector]:
    torch.manual_seed(0)
    return Detector(6, 10).double(), Detector(12, 10).double()


def pupil_of(student: Detector, teacher: Detector) -> tuple[Pupil[Any], Frozen[Any]]:
    example = torch.zeros(2, 3, 48, 48, dtype=torch.double)
    method = make_method(METHODS, Setting(student, teacher, example)).double()
    task = DetectionTask(10)
    pupil = Pupil(Tapped(student, method.student_taps, (example,)), method, task)
    return pupil, Frozen(teacher, task.inputs, method.teacher_taps, (example,))


# --------------------------------------------------------------------------------- loader, sampler


def test_boxes_move_with_their_images_and_images_are_what_they_were() -> None:
    transforms = [Crop(4), Flip(), ColorJitter()]
    moved = list(loader(transforms=transforms).epoch(1))
    kept = source("train", 24)
    for batch in moved:
        assert len(batch) == 8 and isinstance(batch.target, Objects) and batch.target.images == 8
        assert batch.target.boxes.min() >= 0 and batch.target.boxes.max() <= 48
        for place, key in enumerate(batch.keys.tolist()):
            own = batch.target.image == place
            true = kept.targets.rows(slice(key, key + 1))  # type: ignore[union-attr]
            assert own.sum() <= len(true.labels)
            widths = batch.target.boxes[own, 2] - batch.target.boxes[own, 0]
            assert (widths <= (true.boxes[:, 2] - true.boxes[:, 0]).max()).all()
    again = list(loader(transforms=transforms).epoch(1, start=1))
    for one, other in zip(moved[1:], again, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.target.boxes, other.target.boxes)


def test_objects_are_served_from_memory_where_nothing_moves_them() -> None:
    kept = source("train", 24)
    for batch in loader().epoch(0):
        for place, key in enumerate(batch.keys.tolist()):
            true = kept.targets.rows(slice(key, key + 1))  # type: ignore[union-attr]
            own = batch.target.objects(batch.target.image == place)
            assert torch.equal(own.boxes, true.boxes) and torch.equal(own.labels, true.labels)


# ---------------------------------------------------------------------------------- pupil, methods


def test_two_methods_speak_at_two_sites_beside_a_tapped_level() -> None:
    pupil, teacher = pupil_of(*networks())
    batch = bare_batch()
    terms = pupil(batch, observe(teacher, batch), CLOCK)
    assert set(terms) == {"class", "box", "tld/class/tld", "mse/box/mse", "mimic/neck/mimic"}
    # the box site has positives only: its loss re-derived in a loop
    student, other = (net(batch.images) for net in (pupil.student.model, teacher.network.model))
    assigned = DetectionTask(10).assign(pupil.student(batch.images), batch)
    total, count = 0.0, 0
    for image in range(8):
        for point in range(student.points.shape[0]):
            if assigned.labels[image, point] >= 0:
                gap = (student.boxes[image, point] - other.boxes[image, point]) / 8
                total, count = total + float(gap.detach().square().mean()), count + 1
    assert float(terms["mse/box/mse"].mean().detach()) == pytest.approx(total / count)
    combine(terms).backward()
    assert all(p.grad is not None for p in pupil.student.parameters())


def test_an_unknown_site_is_refused_before_training() -> None:
    student, teacher = networks()
    with pytest.raises(UserError, match="'edge'"):
        Distiller(student, teacher, presets.kd(sites=("edge",)), DetectionTask(10))


def test_the_distiller_takes_the_task_as_it_is() -> None:
    student, teacher = networks()
    distiller = Distiller(student, teacher, presets.tld(), DetectionTask(10))
    loss, terms = distiller(bare_batch())
    assert set(terms) == {"class", "box", "class/tld"} and loss.isfinite()


# ------------------------------------------------------------------------------------------- ranks


def step(module: torch.nn.Module, teacher: Frozen[Any], batch: Batch[Objects]) -> dict[str, Any]:
    terms: dict[str, Term] = module(batch, observe(teacher, batch), CLOCK)
    loss = combine(terms)
    loss.backward()
    pupil = getattr(module, "module", module)
    scores = evaluate(pupil.task, Tapped(pupil.student.model), [batch], Hardware("cpu"))
    return {
        "means": dict(mean_terms(terms)),
        "slopes": {name: p.grad for name, p in pupil.named_parameters()},
        "scores": dict(scores),
    }


def on_each_rank() -> dict[str, Any]:
    pupil, teacher = pupil_of(*networks())
    mine = bare_batch().rows(slice(CUTS[rank()], CUTS[rank() + 1]))
    return step(DistributedDataParallel(pupil), teacher, mine)


def test_three_ranks_are_one_process(ranks: list[dict[str, Any]]) -> None:
    """Ragged, one rank empty, one image without boxes: terms, gradients and scores."""
    pupil, teacher = pupil_of(*networks())
    whole = step(pupil, teacher, bare_batch())
    for found in ranks:
        for name, value in whole["means"].items():
            torch.testing.assert_close(found["means"][name], value, rtol=1e-10, atol=1e-12)
        for name, slope in whole["slopes"].items():
            torch.testing.assert_close(found["slopes"][name], slope, rtol=1e-9, atol=1e-12)
        assert found["scores"] == pytest.approx(whole["scores"])


# ---------------------------------------------------------------------------------- a run, its page


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A teacher, a control and a student, trained for a moment."""
    recipe = load.validate_recipe(
        {
            "data": {"name": "scenes", "batch": 16, "transforms": [{"kind": "flip"}]},
            "teacher": {
                "name": "slice.detector:large",
                "gate": False,
                "train": {"epochs": 2, "optimiser": {"kind": "adamw", "lr": 3e-3}},
            },
            "student": "slice.detector:small",
            "method": [
                {"name": "tld", "sites": ["class"]},
                {"name": "mse", "sites": ["box"]},
                {"name": "mimic", "pairs": [["neck", "neck"]]},
            ],
            "train": {"epochs": 2, "optimiser": {"kind": "adamw", "lr": 3e-3}},
            "engine": {"device": "cpu", "threads": 1, "tensorboard": False, "log_every": 1},
            "control": True,
        },
        Path("recipe"),
    )
    splits = {"train": source("train", 64), "val": source("val", 24), "test": source("test", 24)}
    folder = tmp_path_factory.mktemp("slice") / "run"
    quiet: list[str] = []
    return execute(
        recipe, folder, splits=splits, task=DetectionTask(10), say=quiet.append, trust=True
    )


def test_a_run_trains_teacher_control_and_student(result: Result) -> None:
    assert result.teacher is not None and result.control is not None
    for score in (result.teacher, result.control, result.student):
        assert set(score["test"]) == {"map", "objects", "detections"}
        assert score["test"]["objects"] > 24
    lines = (result.folder / "metrics.jsonl").read_text()
    assert all(name in lines for name in ("term/class", "term/tld/class/tld", "term/mse/box/mse"))


def test_the_page_has_scores_and_curves(result: Result) -> None:
    from stillhouse.report.run import write_run

    page = write_run(result.folder).read_text()
    assert "slice.detector:small" in page and "mse/box/mse" in page


def test_a_batch_with_objects_is_kept_for_replay() -> None:
    plain = bare_batch().plain()
    assert set(plain) == {"images", "target", "keys", "views"}
    assert set(plain["target"]) == {"images", "boxes", "labels", "image"}
    assert isinstance(plain["target"]["boxes"], Tensor)
