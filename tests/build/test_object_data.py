"""What a recipe says of data with boxes, down to the batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from quick import quick
from stillhouse.build.data import (
    Sources,
    data_is_finite,
    make_filling_loader,
    make_loader,
    make_training_loader,
    open_sources,
)
from stillhouse.data.mosaic import Mosaic
from stillhouse.data.source import FromTorch
from stillhouse.data.transforms import Flip, Resize
from stillhouse.errors import UserError
from stillhouse.recipes.schema import Data, Recipe

CPU = torch.device("cpu")


class Photos(FromTorch):
    """Images with an object each, half of them wider than high, of known sizes."""

    def __init__(self, count: int, name: str) -> None:
        shapes = [(20, 30) if number % 2 else (40, 24) for number in range(count)]
        made = torch.Generator().manual_seed(0)
        target = {"boxes": [[2, 3, 12, 14]], "labels": [0]}
        super().__init__(
            [(torch.randint(1, 256, (3, *s), generator=made).byte(), target) for s in shapes],
            ("thing", "other"),
            name,
            name,
        )
        self.shapes = torch.tensor(shapes)


def opened(*options: str, train: Any = None) -> tuple[Recipe, Sources]:
    recipe = quick("data=folder", "data.holdout=0", "data.batch=4", *options)
    given = {"train": train or Photos(24, "train"), "val": Photos(9, "val")}
    return recipe, open_sources(recipe.data, given)


def test_images_of_training_and_evaluation_are_padded_to_a_multiple() -> None:
    recipe, sources = opened("data.pad=32", "data.transforms=[{kind: flip}]")
    assert sources.size == (64, 32)  # the first image of val is 40 x 24
    made = (
        make_training_loader(recipe, sources, CPU),
        make_loader(sources.val, recipe.data, sources, CPU),
        make_filling_loader(recipe.data, sources, CPU),
    )
    for loader in made:
        for batch in loader.epoch(0):
            assert {side % 32 for side in batch.images.shape[2:]} == {0}
            assert batch.sizes.tolist() == batch.originals.tolist()
    assert opened()[1].size == (40, 24)


def test_a_batch_of_evaluation_is_what_fits_boxes_or_what_is_asked_for() -> None:
    def lengths(*options: str, classes: bool = False) -> list[int]:
        if classes:
            recipe = quick("data.batch=4", "data.val.count=100", *options)
            sources = open_sources(recipe.data)
        else:
            recipe, sources = opened(*options)
        return [
            len(batch) for batch in make_loader(sources.val, recipe.data, sources, CPU).epoch(0)
        ]

    assert lengths() == [4, 4, 1]
    assert lengths("data.evaluation_batch=2") == [2, 2, 2, 2, 1]
    assert lengths(classes=True)[0] == 64
    assert lengths("data.evaluation_batch=30", classes=True)[0] == 30


def test_batches_of_like_aspect() -> None:
    recipe, sources = opened("data.group_by_aspect=true", "data.pad=8")
    batches = list(make_training_loader(recipe, sources, CPU).epoch(0))
    shapes = [tuple(batch.images.shape[2:]) for batch in batches]
    assert sorted(shapes) == [(24, 32)] * 3 + [(40, 24)] * 3
    mixed = make_training_loader(opened("data.pad=8")[0], sources, CPU)
    assert (40, 32) in {tuple(batch.images.shape[2:]) for batch in mixed.epoch(0)}


def test_batches_of_like_aspect_need_the_sizes() -> None:
    train = Photos(24, "train")
    del train.shapes
    recipe, sources = opened("data.group_by_aspect=true", train=train)
    with pytest.raises(UserError, match=r"^data\.group_by_aspect needs the sizes of images, which"):
        make_training_loader(recipe, sources, CPU)


def test_mosaics_are_for_training_alone() -> None:
    recipe, sources = opened("data.mosaic={size: 64}", "data.transforms=[]")
    assert recipe.data.mosaic == Mosaic(64)
    (first, *_) = make_training_loader(recipe, sources, CPU).epoch(0)
    assert first.sizes.tolist() == [[64, 64]] * 4
    assert make_loader(sources.val, recipe.data, sources, CPU).mosaics is None
    assert sources.size == (40, 24)


def test_views_of_mosaics_are_repeated_only_where_they_are_limited() -> None:
    mosaic = Mosaic(64)
    assert data_is_finite(Data("folder", transforms=(Resize(9),)))
    assert not data_is_finite(Data("folder", transforms=(Resize((8, 9)),)))
    assert not data_is_finite(Data("folder", mosaic=mosaic))
    assert data_is_finite(Data("folder", mosaic=mosaic, views=2))


def test_the_same_images_are_filled_in_as_are_trained_on() -> None:
    """With numbered views, the teacher's outputs are of the student's images."""
    options = ("data.mosaic={size: 64, probability: 0.5}", "data.views=2")
    recipe, sources = opened(*options, "data.transforms=[{kind: flip}]")
    filled = {}
    for batch in make_filling_loader(recipe.data, sources, CPU).epoch(1):
        for place, (key, (height, width)) in enumerate(
            zip(batch.keys.tolist(), batch.sizes.tolist(), strict=True)
        ):
            filled[key] = batch.images[place, :, :height, :width]
    for batch in make_training_loader(recipe, sources, CPU).epoch(3):
        for place, (key, (height, width)) in enumerate(
            zip(batch.keys.tolist(), batch.sizes.tolist(), strict=True)
        ):
            assert torch.equal(batch.images[place, :, :height, :width], filled[key])


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("data.pad=0", "`pad` must be at least 1, got 0"),
        ("data.evaluation_batch=0", "`evaluation_batch` must be at least 1, got 0"),
        ("data.mosaic={size: 2}", "`size` must be at least 8, got 2"),
    ],
)
def test_options_out_of_range_are_refused(option: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        quick(option)
    assert said in str(error.value)


def test_repeats_and_groups_exclude_each_other() -> None:
    with pytest.raises(UserError, match="repeats and group_by_aspect both choose the images"):
        quick("data.repeats=2", "data.group_by_aspect=true")


def test_the_recipe_of_coco_at_several_scales() -> None:
    recipe = quick(
        "data.transforms=[{kind: resize, size: [480, 800], range: true, longest: 1333}, "
        "{kind: flip}]",
        "data.evaluation=[{kind: resize, size: 800, longest: 1333}]",
    )
    assert recipe.data.transforms == (Resize((480, 800), longest=1333, range=True), Flip())
    assert recipe.data.evaluation == (Resize(800, longest=1333),)
