import itertools

import pytest
import torch
from torch import Tensor

from stillhouse.data.random import derive_seed, seeded, uniform, uniform_number

WRAP = 2**64


def splitmix(*numbers: int) -> int:
    """Splitmix64 absorbing one number after the other, with integers of any size."""
    state = 0
    for value in numbers:
        z = ((state ^ (value % WRAP)) + 0x9E3779B97F4A7C15) % WRAP
        z = ((z ^ (z // 2**30)) * 0xBF58476D1CE4E5B9) % WRAP
        z = ((z ^ (z // 2**27)) * 0x94D049BB133111EB) % WRAP
        state = z ^ (z // 2**31)
    return state


def reference(seed: int, key: int, view: int, draw: int) -> float:
    return (splitmix(seed, draw, key, view) // 2**40) / 2**24


NUMBERS = (0, 1, 2, 7, 1234, 2**31, 2**40 + 3, 2**63 - 1)


def test_splitmix_of_the_test_is_the_published_one() -> None:
    # The first outputs of splitmix64 for the seed 0, from its authors' C.
    assert splitmix(0) == 0xE220A8397B1DCDAF
    assert splitmix(0x9E3779B97F4A7C15) == 0x6E789E6AA1B965F4


@pytest.mark.parametrize("numbers", list(itertools.product(NUMBERS, repeat=2)), ids=str)
def test_mix_is_splitmix(numbers: tuple[int, ...]) -> None:
    assert derive_seed(*numbers) == splitmix(*numbers) // 2
    assert derive_seed(*numbers, 5) == splitmix(*numbers, 5) // 2
    assert 0 <= derive_seed(*numbers) < 2**63  # what a generator of torch takes


def test_mix_takes_negative_and_huge_numbers() -> None:
    assert derive_seed(-1) == derive_seed(2**64 - 1) == splitmix(2**64 - 1) // 2
    torch.Generator().manual_seed(derive_seed(-1, 2**70))


def test_mix_tells_orders_and_lengths_apart() -> None:
    assert derive_seed(1, 2) != derive_seed(2, 1)
    assert derive_seed(1) != derive_seed(1, 0) != derive_seed(1, 0, 0)
    assert len({derive_seed(a, b) for a in range(100) for b in range(100)}) == 10_000


@pytest.mark.parametrize("seed", [0, 1, 99, 2**62 + 5, -3])
@pytest.mark.parametrize("draw", [0, 1, 6])
def test_uniform_is_splitmix(seed: int, draw: int) -> None:
    pairs = list(itertools.product(NUMBERS, NUMBERS))
    keys, views = torch.tensor(pairs).T
    wanted = [reference(seed, key, view, draw) for key, view in pairs]
    found = uniform(seed, keys, views, draw)
    assert found.dtype == torch.float32
    assert found.tolist() == wanted  # to the last bit


def draws(seed: int = 0, count: int = 20_000, view: int = 0, draw: int = 0) -> Tensor:
    keys = torch.arange(count)
    return uniform(seed, keys, torch.full_like(keys, view), draw)


def test_a_sample_draws_alike_in_every_batch() -> None:
    alone, view = draws(3, 100), torch.tensor([0])
    for key in (0, 17, 99):
        assert uniform(3, torch.tensor([key]), view, 0) == alone[key]
    order = torch.randperm(100)
    assert torch.equal(uniform(3, order, torch.zeros_like(order), 0), alone[order])


def test_nothing_is_drawn_from_the_generator_of_torch() -> None:
    before = torch.get_rng_state()
    draws()
    assert torch.equal(torch.get_rng_state(), before)


def test_numbers_are_uniform() -> None:
    x = draws().double()
    assert 0 <= x.min() < 0.001
    assert 0.999 < x.max() < 1
    # Four standard errors: 1/sqrt(12 n) of the mean, and sqrt(1/180 n) of the variance.
    assert abs(x.mean() - 1 / 2) < 4 * (1 / 12 / len(x)) ** 0.5
    assert abs(x.var() - 1 / 12) < 4 * (1 / 180 / len(x)) ** 0.5
    counts = (x * 20).long().bincount(minlength=20).double()
    chi = ((counts - 1000) ** 2 / 1000).sum()
    assert chi < 50  # 19 degrees of freedom: the chance of more is 1e-4


@pytest.mark.parametrize("other", [{"seed": 1}, {"view": 1}, {"draw": 1}], ids=str)
def test_seeds_views_and_draws_do_not_know_of_each_other(other: dict[str, int]) -> None:
    first, second = draws(), draws(**other)
    assert abs(torch.corrcoef(torch.stack([first, second]).double())[0, 1]) < 4 / len(first) ** 0.5


def test_neighbouring_samples_do_not_know_of_each_other() -> None:
    x = draws().double()
    assert abs(torch.corrcoef(torch.stack([x[1:], x[:-1]]))[0, 1]) < 4 / len(x) ** 0.5


def test_sample_and_view_are_not_exchangeable() -> None:
    a, b = torch.arange(50), torch.arange(50) + 100
    assert (uniform(0, a, b, 0) == uniform(0, b, a, 0)).sum() <= 1


def test_no_keys_give_no_numbers() -> None:
    assert draws(count=0).shape == (0,)


@pytest.mark.parametrize("seed", [0, 5, 2**62 + 5, -3])
@pytest.mark.parametrize("draw", [0, 6])
def test_one_number_is_that_of_many(seed: int, draw: int) -> None:
    pairs = list(itertools.product(NUMBERS, NUMBERS))
    found = uniform(seed, *torch.tensor(pairs).T, draw).tolist()
    assert found == [uniform_number(seed, key, view, draw) for key, view in pairs]


def test_a_seed_holds_inside_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(8)
    before = torch.get_rng_state()
    with seeded(3):
        assert torch.equal(torch.rand(2), wanted)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(RuntimeError), seeded(3):
        raise RuntimeError
    assert torch.equal(torch.get_rng_state(), before)
