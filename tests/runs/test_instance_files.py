"""Predicted instances as COCO JSON with run-length codes, and drawn."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faster_coco_eval.core import mask as library
from PIL import Image

from stillhouse.batches import Batch, Objects
from stillhouse.functional.mask_boxes import boxes_around
from stillhouse.runs.instance_files import InstanceWriter
from stillhouse.runs.prediction_files import WRITERS
from stillhouse.runs.prediction_inputs import Picture, Seen
from stillhouse.tasks.catalogue import TASKS
from stillhouse.types import Trace


class Stub:
    """Two masks in the first image, one of them below the least score, and none in the second."""

    def segment(self, trace: Trace, batch: Batch[Any]) -> Iterator[Objects]:
        masks = torch.zeros(2, 8, 8, dtype=torch.bool)
        masks[0, 1:3, 2:6] = True
        masks[1, 4:, :] = True
        for kept in (masks, masks[:0]):
            labels = torch.tensor([1, 0])[: len(kept)]
            scores = torch.tensor([0.9, 0.2])[: len(kept)]
            image = torch.zeros_like(labels)
            yield Objects(boxes_around(kept).float(), labels, image, masks=kept, scores=scores)


def test_every_task_has_a_writer() -> None:
    assert set(WRITERS) == set(TASKS)


def test_masks_have_the_size_of_the_images_as_they_were_read(tmp_path: Path) -> None:
    """The batch has 6 x 6 pixels and 2 of padding, the files 12 x 18."""
    writer = InstanceWriter(Stub(), ("cat", "dog"), tmp_path, 0.3)
    pictures = [Picture(Path(n), n, i) for i, n in enumerate(("a.png", "b.jpg"), 1)]
    pixels = [torch.full((3, 12, 18), 90, dtype=torch.uint8) for _ in pictures]
    keys = torch.arange(2)
    batch = Batch(torch.zeros(2, 3, 8, 8), None, keys, keys, sizes=torch.tensor([[6, 6]] * 2))
    writer.add(Trace(None), batch, Seen(pictures, pixels))
    assert writer.finish() == "1 instance with a score of at least 0.3"
    written = json.loads((tmp_path / "instances.json").read_text())
    assert written["images"][1] == {"id": 2, "file_name": "b.jpg", "height": 12, "width": 18}
    (one,) = written["annotations"]
    assert (one["image_id"], one["category_id"], one["score"]) == (1, 2, 0.9)
    expected = np.zeros((12, 18), bool)
    expected[2:6, 6:18] = True
    assert (library.decode(one["segmentation"]).astype(bool) == expected).all()
    assert one["bbox"] == [6, 2, 12, 4] and one["area"] == 48
    drawn = np.asarray(Image.open(tmp_path / "a.png").convert("RGB"))
    assert (drawn != 90).any()
    assert set(writer.names(pictures)) == {"a.png", "b.jpg", "instances.json", "instances.csv"}
    assert (np.asarray(Image.open(tmp_path / "b.jpg")) == 90).all()  # grey, as the drawings are
    ((path, *values),) = list(csv.reader((tmp_path / "instances.csv").open()))[1:]
    assert (path, values[0]) == ("a.png", "dog")
    assert [float(value) for value in values[1:]] == [0.9, 6, 2, 18, 6, 48]


def test_images_without_instances_have_a_table_without_rows(tmp_path: Path) -> None:
    writer = InstanceWriter(Stub(), ("cat", "dog"), tmp_path, 0.3)
    assert writer.finish().startswith("0 instances")
    assert (tmp_path / "instances.csv").read_text() == "path,class,score,x1,y1,x2,y2,area\n"
