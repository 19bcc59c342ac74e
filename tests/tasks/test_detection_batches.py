"""Batches of the user's own loader, as torchvision's references have them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stillhouse.errors import UserError
from stillhouse.tasks.detection import Detection

IMAGES = torch.zeros(3, 3, 8, 8)
ONE = {"boxes": torch.tensor([[0.0, 0, 4, 4]]), "labels": torch.tensor([2])}
TWO = {"boxes": [[0, 0, 4, 4], [1, 2, 5, 6]], "labels": [0, 1]}
NONE: dict[str, Any] = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}


def test_lists_of_targets_become_objects() -> None:
    batch = Detection(3).read((list(IMAGES), [TWO, NONE, ONE]))
    assert batch.images.shape == (3, 3, 8, 8) and batch.target.images == 3
    assert batch.target.image.tolist() == [0, 0, 2]
    assert batch.target.labels.tolist() == [0, 1, 2]
    assert batch.target.boxes.dtype == torch.float32
    assert batch.target.boxes.tolist() == [[0, 0, 4, 4], [1, 2, 5, 6], [0, 0, 4, 4]]
    assert batch.target.crowd is None


def test_an_image_without_crowds_has_none() -> None:
    """Where another image of the batch has them."""
    batch = Detection(3).read((IMAGES, [{**TWO, "iscrowd": [1, 0]}, NONE, ONE]))
    assert batch.target.crowd.tolist() == [True, False, False]
    assert batch.target.ignored.tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ({"boxes": [[0, 0, 1, 1]]}, "image 1 of the batch: a target with objects must have"),
        (torch.zeros(3), "image 1 of the batch: a target with objects must have"),
        ({"boxes": [[0, 0, 1, 1]], "labels": [0, 1]}, "there are 1 boxes, but 2 labels"),
    ],
)
def test_a_target_that_does_not_fit_is_a_sentence(target: Any, text: str) -> None:
    with pytest.raises(UserError, match=text):
        Detection(3).read((IMAGES, [ONE, target, NONE]))
