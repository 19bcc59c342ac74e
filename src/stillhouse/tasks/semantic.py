"""Semantic segmentation: a class for each pixel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.batches import IGNORE, Batch, read_batch, without_absent
from stillhouse.errors import UserError
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.functional.pieces import sum_over_pieces
from stillhouse.functional.resize import resize_lines, resize_maps
from stillhouse.functional.site_maps import cut_maps
from stillhouse.models.segmenters.output import read_segmentation
from stillhouse.spec import require, spec
from stillhouse.tasks.base import Facts
from stillhouse.tasks.meters.mean_iou import MeanIoU
from stillhouse.tasks.pixel_sites import SITES, pixel_sites
from stillhouse.tasks.windows import predict_windows
from stillhouse.types import Clock, Lesson, Sites, Term, Terms, Trace

AUXILIARY = 0.4  # weight of the label loss of auxiliary logits (Zhao et al., 2017)
MASK_AXES = 3  # N, H, W


@spec
class SemanticSpec:
    """A class for each pixel; 255 in a mask is none.

    `auxiliary` is the weight of the label loss of auxiliary logits. `boundary` adds the boundary
    IoU to the scores. With `window`, the side of a square in pixels, predictions are means over
    windows that are `stride` apart, by default two thirds of a window; else whole images are taken.
    """

    auxiliary: float = AUXILIARY
    boundary: bool = False
    window: int | None = None
    stride: int | None = None
    name: Literal["semantic"] = "semantic"
    storable: ClassVar[bool] = False  # predictions at every pixel of an image

    def __post_init__(self) -> None:
        require(self.auxiliary >= 0, "auxiliary", "non-negative", self.auxiliary)
        for name in ("window", "stride"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, "at least 1", value)
        if self.stride is not None and (self.window is None or self.stride > self.window):
            raise ValueError(
                f"`stride` must be at most `window`, {self.window}, got {self.stride}, so that "
                "each pixel is in a window"
            )

    def build(self, facts: Facts) -> Semantic:
        """The task for the classes of the data."""
        target, classes = facts.validation, len(facts.classes)
        if target is not None and not (isinstance(target, Tensor) and is_mask(target)):
            raise UserError(
                f"task=semantic needs images with masks, but {facts.data} has none; choose a data "
                "set of masks (see `stillhouse datasets`), or another task"
            )
        share = 1.0 if target is None else largest_share(target, classes)
        windows = None
        if self.window is not None:
            windows = (self.window, self.stride or max(1, round(2 * self.window / 3)))
        return Semantic(classes, self.auxiliary, self.boundary, share, windows)


@dataclass(frozen=True)
class Semantic:
    """A class for each pixel; outputs are a `Segmentation`, or what `read_segmentation` reads.

    Logits are resized to the masks for label losses and scores. See `pixel_sites` for the sites.
    Pixels of class 255, and images without labels, add nothing to label losses.
    """

    classes: int | None = None
    auxiliary: float = AUXILIARY
    boundary: bool = False
    share: float = 1.0  # of the most frequent class among the pixels
    windows: tuple[int, int] | None = None  # side and stride of those that predictions are made in
    headline: ClassVar[str] = "miou"
    sites: ClassVar[tuple[str, ...]] = SITES
    examine: ClassVar[tuple[str, ...]] = ("masks", "class_iou", "mask_confusion", "pixel_losses")

    @property
    def chance(self) -> float:
        """The mean IoU of a network that always predicts the most frequent class, in percent."""
        return 100 * self.share / (self.classes or 1)

    def adapt(self, network: nn.Module) -> nn.Module:
        """The network itself."""
        return network

    def read(self, batch: Any) -> Batch[Tensor]:
        """A batch of any loader: (images, masks), a mapping with both, or a `Batch`."""
        return read_batch(batch)

    def inputs(self, batch: Batch[Tensor], teacher: Trace | None = None) -> tuple[Tensor]:
        """The images: (N, C, H, W)."""
        return (batch.images,)

    def run(self, network: Callable[..., Any], batch: Batch[Any]) -> Trace:
        """What a network, or one with taps, gives for a batch in evaluation."""

        def output(images: Tensor) -> Any:
            found = network(images)
            return found.out if isinstance(found, Trace) else found

        if self.windows is None:
            return Trace(output(batch.images))
        return Trace(predict_windows(output, batch.images, *self.windows))

    def check_output(self, output: Any, name: str, images: int) -> None:
        """Raise UserError for an output that is not scores of the task's classes at each place."""
        found = read_segmentation(output)
        count, classes = len(found), found.classes
        if count != images or classes != (self.classes or classes):
            raise UserError(
                f"{name} gives scores of {classes} classes for {count} images; expected "
                f"{self.classes} classes and {images} images"
            )

    def check_pair(self, student: Any, teacher: Any) -> None:
        """Raise UserError for outputs that do not fit; maps of different sizes are resized."""
        ours, theirs = read_segmentation(student), read_segmentation(teacher)
        if ours.classes != theirs.classes:
            raise UserError(
                f"the student has {ours.classes} classes and the teacher {theirs.classes}; give "
                "both the classes of the data"
            )

    def pair_sites(self, student: Any, teacher: Any) -> tuple[str, ...]:
        """The sites that two networks have in common, by their outputs."""
        return tuple(pixel_sites(read_segmentation(student), read_segmentation(teacher), None))

    def assign(self, student: Trace, batch: Batch[Tensor]) -> None:
        """None: each pixel has its own label."""
        return

    def supervise(self, student: Trace, batch: Batch[Tensor], assigned: Any = None) -> Terms:
        """The terms `label` and, with auxiliary logits, `aux`: means over pixels with a class."""
        out = read_segmentation(student.out)
        terms = {"label": self.label_term(out.logits, batch.target)}
        if out.auxiliary is not None:
            aux = self.label_term(out.auxiliary, batch.target)
            terms["aux"] = aux._replace(weight=self.auxiliary)
        return terms

    def label_term(self, logits: Tensor, mask: Tensor | None) -> Term:
        """The cross-entropy of logits at the size of the masks: (N, C, h, w), (N, H, W) -> Term."""
        if mask is None:
            nothing = 0.0 * upcast(logits).sum()
            return Term(nothing, torch.zeros_like(nothing))
        mask = without_absent(mask)
        check_mask(mask, logits)
        size = (mask.shape[-2], mask.shape[-1])
        same = tuple(logits.shape[-2:]) == size
        places = cut_maps(logits, size)  # because resized logits are many times as large

        def total(part: Tensor, number: int) -> Tensor:
            images, _, lines = places[number]
            with full_precision(part):
                scores = upcast(part)
                if not same:
                    scores = resize_lines(scores, size, lines.start, lines.stop)
                target = mask[images, lines].long()
                return F.cross_entropy(scores, target, ignore_index=IGNORE, reduction="sum")

        loss = sum_over_pieces(total, logits, [p if same else p[:1] for p in places])
        return Term(loss, (mask != IGNORE).sum().to(loss.dtype))

    def lesson(
        self,
        student: Trace,
        teacher: Trace,
        batch: Batch[Tensor],
        clock: Clock,
        assigned: Any = None,
    ) -> Lesson:
        """The sites of both networks; `labels` are the masks (N, H, W)."""
        sites = Sites({})
        if teacher.out is not None:
            outputs = read_segmentation(student.out), read_segmentation(teacher.out)
            sites = pixel_sites(*outputs, batch.target)
        return Lesson(
            student, teacher, sites, clock, keys=batch.keys, labels=batch.target, sizes=batch.sizes
        )

    def segment(self, trace: Trace, batch: Batch[Any]) -> Tensor:
        """The class of each pixel of the batch's images: -> (N, H, W) int64."""
        logits = read_segmentation(trace.out).logits
        size = (batch.images.shape[-2], batch.images.shape[-1])
        # image by image, because resized logits are many times as large
        found = [resize_maps(logits[i : i + 1], size).argmax(1) for i in range(len(logits))]
        return torch.cat(found) if found else logits.new_zeros((0, *size), dtype=torch.int64)

    def select(self, output: Any, index: Tensor) -> Tensor:
        """The highest logit of one class in each image: (N,) -> (N,)."""
        return highest(output).gather(1, index[:, None])[:, 0]

    def storable(self, output: Any) -> Tensor:
        """Raise UserError: the predictions of all pixels would fill a disk."""
        raise UserError(
            "the outputs of a segmenter are not cached; set teacher.store=false and "
            "teacher.remember=false"
        )

    def collect(self, trace: Trace) -> Tensor:
        """The highest logit of each class in each image: -> (N, C)."""
        return highest(trace.out)

    def collect_target(self, batch: Batch[Tensor]) -> Tensor:
        """Which classes each image has, on the CPU: -> (N, C)."""
        hot = torch.zeros(len(batch), (self.classes or 0) + 1)
        if batch.target is not None:
            index = without_absent(batch.target).flatten(1).long().cpu()
            index = index.clamp(max=self.classes or 0)
            hot.scatter_(1, index, 1.0)
        return hot[:, :-1]

    def passes(self, summary: Mapping[str, float], images: int) -> bool:
        """Whether a teacher is clearly better than one that always predicts one class."""
        return bool(summary[self.headline] >= min(1.5 * self.chance, (100 + self.chance) / 2))

    def meter(self) -> MeanIoU:
        """A meter of mean IoU."""
        return MeanIoU(self.classes or 0, self.segment, IGNORE, self.boundary)


def highest(output: Any) -> Tensor:
    """The highest logit of each class in each image: -> (N, C)."""
    return read_segmentation(output).logits.flatten(2).amax(2)


def is_mask(target: Any) -> bool:
    """Whether a target is the class masks of images."""
    whole = isinstance(target, Tensor) and not target.is_floating_point()
    return whole and target.ndim == MASK_AXES


def largest_share(mask: Tensor, classes: int) -> float:
    """The share of the most frequent class among the pixels with one: (N, H, W) -> in [0, 1]."""
    counts = torch.bincount(mask.flatten().long(), minlength=IGNORE + 1)[:classes]
    return float(counts.max() / counts.sum().clamp(min=1))


def check_mask(mask: Tensor, logits: Tensor) -> None:
    """Raise UserError for masks that do not fit logits (N, C, h, w)."""
    if not is_mask(mask) or len(mask) != len(logits):
        raise UserError(
            f"masks of dtype {mask.dtype} and shape {tuple(mask.shape)} do not fit scores of shape "
            f"{tuple(logits.shape)}; expected (N, H, W) class indices, 255 for none"
        )
    if mask.device.type == "cpu" and len(mask):  # on a device, the check would synchronise
        wrong = mask[(mask != IGNORE) & ((mask < 0) | (mask >= logits.shape[1]))]
        if len(wrong):
            raise UserError(
                f"a mask has class {int(wrong[0])}, but the network has {logits.shape[1]} classes; "
                "give it those of the data, or mark pixels without a class by 255"
            )
