from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from stillhouse.data.loader import BatchSampler, Loader
from stillhouse.data.mixing import Mix
from stillhouse.data.random import derive_seed
from stillhouse.data.source import Pixels
from stillhouse.data.transforms import Crop, Flip
from stillhouse.errors import UserError
from tiny import mixed, same

READ = TypeAdapter(Mix)
CLASSES = 12


def batch(n: int = 12, height: int = 9, width: int = 14) -> tuple[Tensor, Tensor]:
    """Images whose neighbours differ in each pixel, and in their class."""
    return torch.randn(n, 3, height, width), torch.randperm(CLASSES)[:n]


def shares_of(found: Tensor, labels: Tensor) -> list[float]:
    """How much of itself each image is, by its label: the rest must be that of the one before."""
    own = found[torch.arange(len(labels)), labels]
    before = found[torch.arange(len(labels)), labels.roll(1)]
    assert (own + before - 1).abs().max() < 1e-6
    assert (found.sum(1) - 1).abs().max() < 1e-6 and found.min() >= 0
    return own.tolist()


def drawn(how: Mix, count: int) -> Tensor:
    images, labels = batch(4, 2, 2)
    found = (mixed(images, labels, CLASSES, how, seed)[1] for seed in range(count))
    return torch.tensor([shares_of(shares, labels)[0] for shares in found])


# --------------------------------------------------------------------------------------- the images


@pytest.mark.parametrize("seed", range(8))
def test_mixup_is_a_weighted_mean_of_neighbours(seed: int) -> None:
    images, labels = batch()
    found, shares = mixed(images, labels, CLASSES, Mix(mixup=0.8), seed)
    assert (found.dtype, shares.dtype, shares.shape) == (torch.float32, torch.float32, (12, 12))
    (share,) = {round(share, 5) for share in shares_of(shares, labels)}  # one for the batch
    for i in range(12):
        wanted = share * images[i].double() + (1 - share) * images[i - 1].double()
        assert (found[i] - wanted).abs().max() < 1e-4


@pytest.mark.parametrize("seed", range(8))
def test_cutmix_puts_a_box_of_the_neighbour_in_and_counts_its_area(seed: int) -> None:
    images, labels = batch()
    found, shares = mixed(images, labels, CLASSES, Mix(cutmix=1.0), seed)
    foreign = (found != images).any(1)
    rows, columns = foreign[0].any(1), foreign[0].any(0)
    for i in range(12):
        assert torch.equal(foreign[i], rows[:, None] & columns)  # a box, the same for all
        assert torch.equal(found[i][:, foreign[i]], images[i - 1][:, foreign[i]])
    share = 1 - float(foreign[0].double().mean())
    assert all(abs(own - share) < 1e-6 for own in shares_of(shares, labels))


def test_boxes_of_cutmix_are_whole() -> None:
    images, labels = batch()
    for seed in range(60):
        found, _ = mixed(images, labels, CLASSES, Mix(cutmix=1.0), seed)
        for side in ((found != images).any(1)[0].any(1), (found != images).any(1)[0].any(0)):
            places = side.nonzero().flatten().tolist()
            assert places == list(range(places[0], places[-1] + 1)) if places else True


def test_the_given_batch_is_left_alone() -> None:
    images, labels = batch()
    before = images.clone(), labels.clone()
    for how in (Mix(mixup=1.0), Mix(cutmix=1.0)):
        mixed(images, labels, CLASSES, how, 1)
    assert torch.equal(images, before[0]) and torch.equal(labels, before[1])


def test_images_of_one_class_keep_it() -> None:
    images, labels = batch()
    for how in (Mix(mixup=1.0), Mix(cutmix=1.0)):
        _, shares = mixed(images, torch.zeros_like(labels), CLASSES, how, 1)
        assert (shares[:, 0] - 1).abs().max() < 1e-6 and shares[:, 1:].abs().max() == 0


# ---------------------------------------------------------------------------------------- the draws


def test_no_probability_is_no_mixing_but_shares_all_the_same() -> None:
    images, labels = batch()
    for seed in range(20):
        found, shares = mixed(images, labels, CLASSES, Mix(1.0, 1.0, probability=0.0), seed)
        assert torch.equal(found, images)
        assert shares.dtype == torch.float32 and shares.argmax(1).tolist() == labels.tolist()
        assert shares.sum() == 12 and shares.max() == 1


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_shares_of_mixup_are_beta(alpha: float) -> None:
    found = drawn(Mix(mixup=alpha), 1500)
    assert abs(found.mean() - 0.5) < 0.05
    assert abs(found.var() - 1 / (4 * (2 * alpha + 1))) < 0.02


def test_batches_are_mixed_with_their_probability() -> None:
    share = (drawn(Mix(mixup=1.0, probability=0.3), 1000) != 1).double().mean()
    assert abs(share - 0.3) < 0.06


@pytest.mark.parametrize("switch", [0.0, 0.25, 1.0])
def test_either_comes_with_the_switch(switch: float) -> None:
    images, labels = batch(4, 8, 8)
    cut = 0
    for seed in range(400):
        found, _ = mixed(images, labels, CLASSES, Mix(1.0, 1.0, switch=switch), seed)
        cut += bool(((found == images) | (found == images.roll(1, 0))).all())
    assert abs(cut / 400 - switch) < 0.09


def test_the_seed_is_all_that_matters() -> None:
    images, labels = batch()
    how = Mix(0.8, 1.0)
    before = torch.get_rng_state()
    first = [mixed(images, labels, CLASSES, how, seed)[0] for seed in range(5)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(123)
    again = [mixed(images, labels, CLASSES, how, seed)[0] for seed in range(5)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len({image.numpy().tobytes() for image in first}) == 5


# --------------------------------------------------------------------------------------- the loader


def pixels(n: int = 40) -> Pixels:
    images = torch.randint(0, 256, (n, 3, 6, 6), generator=torch.Generator().manual_seed(1))
    return Pixels(images.to(torch.uint8), torch.arange(n) % 5, tuple("abcde"), "print", "toy")


def loader(rank: int = 0, world: int = 1, seed: int = 3, **options: Any) -> Loader:
    plan = BatchSampler(40, 4, True, seed, rank, world)
    options = {"mixing": Mix(0.8, 1.0), "transforms": (Crop(1), Flip()), **options}
    return Loader(pixels(), plan, (0.5,) * 3, (0.2,) * 3, **options)


def test_a_loader_mixes_what_it_would_give() -> None:
    plain, made = loader(mixing=None), loader()
    assert len(plain) == len(made) == 10
    for step, (given, found) in enumerate(zip(plain.epoch(2), made.epoch(2), strict=True)):
        seed = derive_seed(3, 2, step, 0)
        wanted = mixed(given.images, given.target, 5, Mix(0.8, 1.0), seed)
        assert torch.equal(found.images, wanted[0]) and torch.equal(found.target, wanted[1])
        assert torch.equal(found.keys, given.keys) and torch.equal(found.views, given.views)
        assert found.target.shape == (4, 5)


@pytest.mark.parametrize("start", [0, 1, 7, 10])
def test_an_epoch_can_be_entered_anywhere(start: int) -> None:
    whole = list(loader().epoch(3))
    torch.manual_seed(99)
    found = list(loader().epoch(3, start))
    assert len(found) == 10 - start
    assert all(same(a, b) for a, b in zip(found, whole[start:], strict=True))


@pytest.mark.parametrize("change", ["epoch", "step", "rank", "seed"])
def test_draws_differ_by(change: str) -> None:
    """Each time the same images, so that only what is drawn for the batch can differ."""

    def label(seed: int = 3, epoch: int = 0, step: int = 0, rank: int = 0) -> Tensor:
        made = loader(rank, 2, seed, transforms=(), mixing=Mix(mixup=1.0))
        (found,) = [b for s, b in enumerate(made.epoch(epoch)) if s == step]
        return found.target.amax(1).sort().values

    assert not torch.allclose(label(), label(**{change: 1}))


def test_two_views_are_not_mixed() -> None:
    with pytest.raises(UserError) as error:
        loader(strong=(Flip(),))
    assert str(error.value) == (
        "data.mix mixes one view of each image, but the method needs two; leave data.mix out"
    )


# ----------------------------------------------------------------------------------------- the spec


def test_recipes_can_say_it() -> None:
    assert READ.validate_python({"mixup": 0.8, "cutmix": 1}) == Mix(0.8, 1.0, 1.0, 0.5)


@pytest.mark.parametrize(
    "given, said",
    [
        ({}, "mix needs mixup or cutmix above 0; leave mix out for none"),
        ({"mixup": -1}, "mixup must be finite and at least 0, got -1"),
        ({"cutmix": float("inf")}, "`cutmix` must be finite and between -1e30 and 1e30, got inf"),
        ({"mixup": 1, "probability": 1.1}, "probability must be in [0, 1], got 1.1"),
        ({"mixup": 1, "switch": -0.1}, "switch must be in [0, 1], got -0.1"),
        ({"mixup": 1, "alpha": 1}, "alpha"),
    ],
    ids=str,
)
def test_recipes_cannot_say_nonsense(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        READ.validate_python(given)
    assert said in str(error.value)
