"""Parts of data whose samples have several labels. Those of one label are in `test_source`."""

import pytest
import torch
from torch import Tensor

from stillhouse.data.holdout import hold_out
from stillhouse.data.source import Pixels
from stillhouse.data.stratify import stratify


def pick(targets: Tensor, count: int, seed: int) -> Tensor:
    """`stratify` for as many classes as there are columns."""
    return stratify(targets, targets.shape[1], count, seed)


def drawn(rates: Tensor, n: int, seed: int = 0) -> Tensor:
    """Labels that are there independently of one another, each at its rate."""
    made = torch.Generator().manual_seed(seed)
    return (torch.rand(n, len(rates), generator=made) < rates).float()


def alike(n: int, seed: int = 0) -> Tensor:
    """Labels as of scenes: a person with most things, rare classes beside common ones."""
    labels = drawn(torch.tensor([0.5, 0.2, 0.1, 0.05, 0.02, 0.01]), n, seed)
    labels[:, 1] = labels[:, 0] * labels[:, 1]
    labels[:, 4] = torch.maximum(labels[:, 4], labels[:, 5])
    return labels


def shares(labels: Tensor, chosen: Tensor) -> tuple[list[int], list[float]]:
    """How many of each class are chosen and would be at best, no label among the classes."""
    hot = torch.cat([labels, 1 - labels.amax(1, keepdim=True)], 1).double()
    wanted = hot.sum(0) * len(chosen) / len(labels)
    return hot[chosen].sum(0).long().tolist(), wanted.tolist()


# --------------------------------------------------------------------------------- what is chosen


@pytest.mark.parametrize("count", [1, 2, 7, 60, 100, 299, 599, 600])
@pytest.mark.parametrize("seed", [0, 1])
def test_as_many_as_asked_for_in_order_and_none_twice(count: int, seed: int) -> None:
    chosen = pick(alike(600), count, seed)
    assert len(chosen) == count and chosen.dtype == torch.int64
    assert chosen.tolist() == sorted(set(chosen.tolist()))
    assert chosen[0] >= 0 and chosen[-1] < 600


@pytest.mark.parametrize("count", [50, 100, 250, 500, 900])
@pytest.mark.parametrize("seed", range(4))
def test_each_class_is_near_its_share(count: int, seed: int) -> None:
    labels = alike(1000, seed)
    found, wanted = shares(labels, pick(labels, count, seed))
    for mine, ideal in zip(found, wanted, strict=True):
        assert abs(mine - ideal) <= 2 + 0.5 * ideal**0.5, (found, wanted)


def test_it_is_far_nearer_than_chance() -> None:
    labels = alike(2000)
    distances = []
    for seed in range(10):
        made = torch.Generator().manual_seed(seed)
        picks = (pick(labels, 200, seed), torch.randperm(2000, generator=made)[:200])
        found = [shares(labels, pick) for pick in picks]
        distances.append([sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) for pair in found])
    ours, chance = torch.tensor(distances).sum(0).tolist()
    assert ours < chance / 10


def test_samples_without_a_label_have_their_share() -> None:
    labels = drawn(torch.tensor([0.3, 0.2]), 1000)
    labels[:400] = 0
    found, wanted = shares(labels, pick(labels, 100, 0))
    assert all(abs(a - b) <= 2 for a, b in zip(found, wanted, strict=True))


def test_many_rare_classes_do_not_starve_nor_flood_the_others() -> None:
    """Each is too rare to have a sample of its own by rounding, or would have one by rounding."""
    for size in (2, 3, 4, 6, 7):
        rare = torch.eye(60).repeat_interleave(size, 0)
        common = torch.zeros(600 - len(rare), 60)
        labels = torch.cat([rare, common])
        labels = torch.cat([labels, torch.zeros(600, 1)], 1)
        labels[-100:, -1] = 1
        found, wanted = shares(labels, pick(labels, 60, 0))
        assert abs(sum(found[:60]) - sum(wanted[:60])) <= 2
        assert max(found[:60]) <= 1
        assert abs(found[60] - wanted[60]) <= 2 and abs(found[61] - wanted[61]) <= 2


@pytest.mark.parametrize("count", [300, 500, 590])
def test_rare_classes_are_kept(count: int) -> None:
    """However many are chosen, some of each class are left to learn from, as long as it can be."""
    labels = alike(600)
    labels[:, 5] = 0
    labels[:, 4] = 0
    labels[[17, 400], 4] = 1
    labels[3, 5] = 1
    chosen = pick(labels, count, 0)
    rest = torch.ones(600, dtype=torch.bool)
    rest[chosen] = False
    assert labels[rest].any(0).all()
    assert labels[chosen][:, 4].sum() == 1


def test_no_labels_at_all() -> None:
    labels = torch.zeros(50, 3)
    chosen = pick(labels, 10, 0)
    assert len(chosen) == len(set(chosen.tolist())) == 10
    many = torch.cat([pick(labels, 10, seed) for seed in range(200)]).double()
    assert abs(many.mean() - 24.5) < 4 * 50 / 12**0.5 / 2000**0.5  # at random


def test_all_labels_of_all() -> None:
    chosen = pick(torch.ones(50, 3), 20, 0)
    assert len(set(chosen.tolist())) == 20


def test_one_label_each_is_shared_out_as_classes_are() -> None:
    """The two ways agree where they mean the same, but for what rounding leaves to choose."""
    classes = torch.arange(4).repeat_interleave(torch.tensor([50, 30, 15, 5]))
    for count in (10, 20, 40, 60):
        one = classes[stratify(classes, 4, count, 0)].bincount(minlength=4)
        hot = torch.nn.functional.one_hot(classes).float()
        other = hot[pick(hot, count, 0)].sum(0)
        assert (one - other).abs().max() <= 1


# ------------------------------------------------------------------------------- what it depends on


def test_it_depends_on_labels_and_seed_alone() -> None:
    labels = alike(400)
    first = pick(labels, 80, 3)
    torch.manual_seed(9)
    before = torch.get_rng_state()
    assert torch.equal(pick(labels, 80, 3), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(pick(labels.double(), 80, 3), first)
    assert torch.equal(pick(labels.bool(), 80, 3), first)
    assert not torch.equal(pick(labels, 80, 4), first)
    assert not torch.equal(pick(labels[torch.randperm(400)], 80, 3), first)


def test_members_are_taken_at_random() -> None:
    labels = torch.ones(500, 1)
    chosen = torch.cat([pick(labels, 50, seed) for seed in range(50)]).double()
    assert abs(chosen.mean() - 249.5) < 4 * 500 / 12**0.5 / 2500**0.5


# -------------------------------------------------------------------------------------- the sources


@pytest.mark.parametrize("held", [60, 0.2])
def test_a_source_is_split_into_two_that_cover_it(held: int | float) -> None:
    labels = alike(300)
    images = torch.arange(300).view(-1, 1, 1, 1).expand(-1, 2, 1, 1).clone()
    images[:, 1] = images[:, 1] // 256
    data = Pixels((images % 256).to(torch.uint8), labels, tuple("abcdef"), "print", "toy")
    rest, val = hold_out(data, held)
    assert (len(rest), len(val)) == (300 - len(val), 60)

    def keys(part: object) -> list[int]:
        assert isinstance(part, Pixels)
        return [int(low) + 256 * int(high) for low, high in part.images[:, :, 0, 0]]

    assert sorted(keys(rest) + keys(val)) == list(range(300))
    for part in (rest, val):
        assert isinstance(part, Pixels) and torch.equal(part.targets, labels[keys(part)])
    assert len({rest.fingerprint, val.fingerprint, data.fingerprint}) == 3


def test_a_large_set_is_split_quickly() -> None:
    """A loop over samples would take minutes; one over classes takes a moment."""
    labels = drawn(torch.logspace(-2.8, -0.4, 80), 60_000)
    found, wanted = shares(labels, pick(labels, 3000, 0))
    off = torch.tensor([(a - b) ** 2 / b for a, b in zip(found, wanted, strict=True) if b > 1])
    assert len(off) >= 80 and off.mean() < 0.2 and off.max() < 9  # of chance, the mean would be 1
