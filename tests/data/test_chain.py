import pickle
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from stillhouse.data.transforms import (
    BoxCrop,
    CenterCrop,
    Chain,
    ColorJitter,
    Crop,
    Cutout,
    Erasing,
    Expand,
    Flip,
    RandAugment,
    RandomCrop,
    RandomScale,
    Resize,
    ResizedCrop,
    Single,
    Transform,
)
from stillhouse.errors import UserError
from stillhouse.spec import members

EACH = {
    Crop: Crop(2),
    Flip: Flip(),
    ResizedCrop: ResizedCrop(8),
    Resize: Resize(8, square=True),
    CenterCrop: CenterCrop(8),
    BoxCrop: BoxCrop(),
    Expand: Expand(),
    RandomScale: RandomScale(),
    RandomCrop: RandomCrop(8),
    RandAugment: RandAugment(),
    ColorJitter: ColorJitter(hue=0.1),
    Cutout: Cutout(),
    Erasing: Erasing(),
}
CHAINS = [
    [],
    [Crop(2), Flip()],
    [Resize(8)],
    [Crop(2), Flip(), RandAugment(uniform=True), Cutout()],  # head, middle and tail
    [
        Cutout(colour="random"),
        Resize(8, square=True),
        Flip(),
        Erasing(0.7),
        Crop(1),
        Cutout(),
        Flip(),
    ],
    [ResizedCrop(8, interpolation="bicubic"), Flip(), RandAugment(), ColorJitter(), Erasing()],
    [Expand(), BoxCrop(), Flip(), Resize((8, 12), square=True), CenterCrop(9)],
]


def images(n: int = 12, channels: int = 3, side: int = 12) -> Tensor:
    return torch.randint(0, 256, (n, channels, side, side)).to(torch.uint8)


def one_by_one(given: Sequence[Tensor], chain: Sequence[Transform], keys: Tensor, views: Tensor):
    single = Single(chain, 7)
    return [
        single(image, int(key), int(view))
        for image, key, view in zip(given, keys, views, strict=True)
    ]


def named(chain: Sequence[Transform]) -> str:
    return "-".join(transform.kind for transform in chain) or "none"


# --------------------------------------------------------------------------------------- each kind

every_kind = pytest.mark.parametrize("kind", members(Transform), ids=lambda kind: kind.__name__)


@every_kind
@pytest.mark.parametrize("channels", [1, 3])
def test_views_differ_where_the_class_says_so(kind: type, channels: int) -> None:
    single = Single([EACH[kind]], 3)
    given, torch_state = images(1, channels)[0], torch.get_rng_state()
    first = [single(given, key, 0) for key in range(40)]
    assert all(image.dtype == torch.uint8 and len(image) == channels for image in first)
    assert torch.equal(torch.get_rng_state(), torch_state)
    torch.manual_seed(99)
    again = [Single([EACH[kind]], 3)(given, key, 0) for key in range(40)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    for other in (
        [single(given, key, 1) for key in range(40)],
        [single(given, key + 40, 0) for key in range(40)],
        [Single([EACH[kind]], 4)(given, key, 0) for key in range(40)],
    ):
        differ = any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
        assert differ is EACH[kind].random


@every_kind
def test_batches_are_changed_at_once_where_the_class_says_so(kind: type) -> None:
    assert kind.batched is hasattr(kind, "batch") is not hasattr(kind, "single")


# ------------------------------------------------------------------------------------------- chains


@pytest.mark.parametrize("chain", CHAINS, ids=named)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_chain_is_what_each_image_alone_becomes(
    chain: Sequence[Transform], channels: int
) -> None:
    given, keys, views = images(channels=channels), torch.randperm(500)[:12], torch.arange(12) % 3
    found = Chain(chain, 7)(list(given), keys, views)
    wanted = one_by_one(given, chain, keys, views)
    assert len(found) == 12
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("first", [ResizedCrop(8), Resize(8, square=True), CenterCrop(8)], ids=str)
def test_images_of_different_shapes_become_alike(first: Transform) -> None:
    given = [images(1, side=9 + i % 4)[0] for i in range(8)]
    keys, views = torch.arange(8), torch.zeros(8, dtype=torch.int64)
    for chain in ([first, Flip(), Erasing()], [Flip(), first, Cutout()]):
        found = Chain(chain, 7)(given, keys, views)
        wanted = one_by_one(given, chain, keys, views)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_images_that_stay_different_are_refused() -> None:
    given = [images(1, side=9 + i)[0] for i in range(2)]
    with pytest.raises(UserError, match=r"shapes \(\(3, 9, 9\) and \(3, 10, 10\)\); add trans"):
        Chain([Flip()], 7)(given, torch.arange(2), torch.arange(2))


@pytest.mark.parametrize("chain", CHAINS, ids=named)
def test_chains_can_be_sent_to_other_processes(chain: Sequence[Transform]) -> None:
    made = Chain(chain, 7)
    sent = pickle.loads(pickle.dumps(made))
    given, keys = list(images()), torch.arange(12)
    assert torch.equal(sent(given, keys, keys), made(given, keys, keys))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_sizes_are_interpolated_as_asked(interpolation: str) -> None:
    image = 80 + images(1)[0] // 4  # far from black and white, where bytes would be cut
    found = Single([Resize(30, square=True, interpolation=interpolation)], 0)(image, 0, 0)
    for mode in ("bilinear", "bicubic"):
        wanted = torch.nn.functional.interpolate(
            image[None].double(), (30, 30), mode=mode, antialias=True
        )
        assert bool((found - wanted[0]).abs().max() < 2) is (mode == interpolation)
    whole = ResizedCrop(30, (1.0, 1.0), (1.0, 1.0), interpolation)
    assert torch.equal(Single([whole], 0)(image, 0, 0), found)


@pytest.mark.parametrize("ratio", [(1.0, 1.0), (2.0, 2.0), (0.5, 0.5)], ids=str)
def test_crops_are_of_the_ratio_asked_for(ratio: tuple[float, float]) -> None:
    """A ramp keeps its slope: how much of a side is seen is the range of what is seen."""
    ramp = torch.arange(0, 240, 4, dtype=torch.uint8)
    down, across = ramp[None, :, None].expand(1, 60, 60), ramp[None, None].expand(1, 60, 60)
    single = Single([ResizedCrop(60, (0.25, 0.25), ratio)], 0)
    for key in range(10):
        shown = [single(image, key, 0).int() for image in (down, across)]
        height, width = (int(image.max() - image.min()) for image in shown)
        assert abs(width / height - ratio[0]) < 0.15 * ratio[0]
