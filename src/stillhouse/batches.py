"""What a loader yields and a task reads: images, what is known of them, and which samples they are.

The loader, the sampler, checkpoints and the engine never look at the target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from stillhouse.errors import UserError


@dataclass(frozen=True, eq=False)
class Objects:
    """Boxes and labels of several images, stored flat: object `i` belongs to image `image[i]`.

    M objects of `images` images, in the order of their images. Detections are objects with scores.
    """

    boxes: Tensor  # (M, 4) float: x1, y1, x2, y2 in pixels
    labels: Tensor  # (M,) class index
    image: Tensor  # (M,) index of the image
    images: int = 1
    crowd: Tensor | None = None  # (M,) bool: a group of objects under one box
    masks: Tensor | None = None  # (M, H, W) bool
    difficult: Tensor | None = None  # (M,) bool: neither trained on nor counted
    area: Tensor | None = None  # (M,) in pixels of the image as it was read, where annotated
    scores: Tensor | None = None  # (M,) of detections, in [0, 1]
    # (images,) bool, on the CPU: images without labels, whose objects are not known; None: no image
    unlabelled: Tensor | None = None

    @property
    def ignored(self) -> Tensor:
        """The crowds and difficult objects, which are not trained on: -> (M,) bool."""
        ignored = torch.zeros_like(self.image, dtype=torch.bool)
        for part in (self.crowd, self.difficult):
            if part is not None:
                ignored = ignored | part
        return ignored

    def rows(self, index: slice | Tensor) -> Objects:
        """The objects of some images, with new indices: slice or (N,) -> Objects."""
        kept = torch.arange(self.images, device=self.image.device)[index].contiguous()
        first = torch.searchsorted(self.image, kept)
        counts = torch.searchsorted(self.image, kept, right=True) - first
        image = torch.arange(len(kept), device=kept.device).repeat_interleave(counts)
        # the place of each object: where its image begins, and its number among those of the image
        before = counts.cumsum(0) - counts
        places = first[image] + torch.arange(len(image), device=kept.device) - before[image]
        unlabelled = None if self.unlabelled is None else self.unlabelled[kept.cpu()]
        return replace(self.objects(places), image=image, images=len(kept), unlabelled=unlabelled)

    def objects(self, index: Tensor) -> Objects:
        """Some of the objects: (K,) int64, or (M,) bool."""
        parts: dict[str, Any] = {name: part[index] for name, part in self.tensors().items()}
        return replace(self, **parts)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of objects by name, without those that are absent."""
        names = [field.name for field in fields(self) if field.name != "unlabelled"]
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def to(self, device: torch.device, non_blocking: bool = False) -> Objects:
        """The same on another device."""
        moved: dict[str, Any] = {
            name: part.to(device, non_blocking=non_blocking)
            for name, part in self.tensors().items()
        }
        return replace(self, **moved)

    def pin_memory(self) -> Objects:
        """The same in pinned memory; called by torch's DataLoader."""
        pinned: dict[str, Any] = {n: part.pin_memory() for n, part in self.tensors().items()}
        return replace(self, **pinned)


def join_objects(targets: Sequence[Objects | None]) -> Objects:
    """The objects of several images, each with the same tensors; None is one without labels."""
    known = [(number, target) for number, target in enumerate(targets) if target is not None]
    image = [torch.full_like(target.image, number) for number, target in known]
    parts: dict[str, Any] = {
        name: torch.cat([getattr(target, name) for _, target in known])
        for name in known[0][1].tensors()
        if name != "image"
    }
    absent = torch.tensor([target is None for target in targets])
    unlabelled = absent if len(known) < len(targets) else None
    return replace(
        known[0][1], image=torch.cat(image), images=len(targets), unlabelled=unlabelled, **parts
    )


def read_objects(target: Any, where: str) -> Objects:
    """The objects of one image as torchvision has them: a mapping with `boxes` and `labels`.

    `iscrowd` and `masks` are optional. Raises UserError, which begins with `where`, for others.
    """
    if not isinstance(target, Mapping) or not {"boxes", "labels"} <= target.keys():
        raise UserError(f"{where}: a target with objects must have `boxes` and `labels`")
    boxes = torch.as_tensor(target["boxes"]).as_subclass(Tensor).float().reshape(-1, 4)
    labels = torch.as_tensor(target["labels"]).long().reshape(-1)
    if len(boxes) != len(labels):
        raise UserError(
            f"{where}: there are {len(boxes)} boxes, but {len(labels)} labels; give one label per "
            "box"
        )
    crowd, masks = target.get("iscrowd"), target.get("masks")
    return Objects(
        boxes,
        labels,
        torch.zeros_like(labels),
        crowd=None if crowd is None else torch.as_tensor(crowd).bool().reshape(-1),
        masks=None if masks is None else torch.as_tensor(masks).as_subclass(Tensor).bool(),
    )


# the class index, the share of each class, or the class of each pixel, of an image without labels
ABSENT = -1
IGNORE = 255  # the class index of pixels that losses and scores ignore

# Class indices (N,), one share per class (N, classes), class indices per pixel (N, H, W), objects,
# or None for images without labels.
Target = Tensor | Objects | None
T = TypeVar("T", bound=Target)


@dataclass(frozen=True, eq=False)
class Batch(Generic[T]):
    """N images; `len(batch)` is their number, whatever the target."""

    images: Tensor  # (N, C, H, W) normalised
    target: T
    keys: Tensor  # (N,) index of each sample in its data set
    views: Tensor  # (N,) which augmentation of it: the epoch, for one view per epoch
    strong: Tensor | None = None  # (N, C, H, W) a second, stronger view, for methods that need one
    sizes: Tensor | None = None  # (N, 2) height and width before padding, where images were padded
    originals: Tensor | None = None  # (N, 2) height and width as read, where transforms resize

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, index: slice | Tensor) -> Batch[T]:
        """Some of the images, with everything that belongs to them."""
        parts: dict[str, Any] = {
            name: None if part is None else part[index]
            for name in ("images", "keys", "views", "strong", "sizes", "originals")
            for part in (getattr(self, name),)
        }
        return replace(self, target=select_target(self.target, index), **parts)

    def second_view(self) -> Batch[T]:
        """The batch with its second view as images."""
        if self.strong is None:
            raise UserError(
                "the method needs two views of each image, but the batch has one; pass batches "
                "with `strong` images"
            )
        return replace(self, images=self.strong, strong=None)

    def plain(self) -> dict[str, Any]:
        """Tensors by name, as a checkpoint can hold them."""
        parts = {field.name: getattr(self, field.name) for field in fields(self)}
        if isinstance(self.target, Objects):
            parts["target"] = {"images": self.target.images, **self.target.tensors()}
            if self.target.unlabelled is not None:
                parts["target"]["unlabelled"] = self.target.unlabelled
        return {name: part for name, part in parts.items() if part is not None}


def select_target(target: Any, index: slice | Tensor) -> Any:
    """The target of some images."""
    if target is None:
        return None
    return target.rows(index) if isinstance(target, Objects) else target[index]


def without_absent(mask: Tensor) -> Tensor:
    """Class masks in which the pixels of images without labels are ignored: (...) -> (...)."""
    return mask if mask.dtype == torch.uint8 else mask.masked_fill(mask == ABSENT, IGNORE)


def read_batch(batch: Any) -> Batch[Any]:
    """A batch of any loader: (images, target), a mapping with both, or a `Batch` as it is."""
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, Mapping):
        images = _first(batch, ("images", "image", "pixel_values"))
        target = _first(batch, ("target", "labels", "label"))
    else:
        images, target, *_ = batch
    if images is None:
        raise ValueError("a batch must be (images, target), or a mapping with `images`")
    keys = torch.arange(len(images), device=images.device)
    return Batch(images, target, keys, torch.zeros_like(keys))


def _first(batch: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((batch[name] for name in names if name in batch), None)


def image_sizes(batch: Batch[Any]) -> Tensor:
    """Height and width of each image before padding: -> (N, 2)."""
    if batch.sizes is not None:
        return batch.sizes
    height, width = batch.images.shape[-2:]
    return torch.tensor([[height, width]], device=batch.images.device).expand(len(batch), 2)
