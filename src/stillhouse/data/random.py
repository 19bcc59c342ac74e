"""Counter-based random numbers.

A random number is a hash of (seed, draw number, sample, view). There is no state, so it is the same
in every process, on every device, in every batch that contains the sample, and after a resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Draw = Callable[[int], Tensor]  # index of a draw -> one number for each image: (N,) in [0, 1)

# Constants of splitmix64 (Steele, Lea and Flood, 2014).
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def derive_seed(*numbers: int) -> int:
    """A seed of 63 bits from several numbers; their order matters."""
    return _hash(*numbers) >> 1


def uniform(seed: int, keys: Tensor, views: Tensor, draw: int) -> Tensor:
    """A number in [0, 1) for each (sample, view), with 24 bits: (N,), (N,) -> (N,) float32."""
    state = torch.full_like(keys, _signed(_hash(seed, draw)))
    for numbers in (keys, views):
        state = _finalise_tensor((state ^ numbers) + _signed(_GOLDEN))
    # float32 represents 24 bits exactly, so no device rounds.
    return _shift(state, 40).to(torch.float32) * 2.0**-24


def uniform_number(seed: int, key: int, view: int, draw: int) -> float:
    """The number that `uniform` gives for one sample, computed much faster without tensors."""
    return (_hash(seed, draw, key, view) >> 40) * 2.0**-24


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """A context in which torch's CPU generator starts from a seed; its state is restored after."""
    with torch.random.fork_rng(devices=[]):
        # `torch.manual_seed` would seed the devices as well, whose state is not restored.
        torch.default_generator.manual_seed(seed)
        yield


def _hash(*numbers: int) -> int:
    state = 0
    for number in numbers:
        state = _finalise((state ^ (number & _MASK)) + _GOLDEN)
    return state


def _finalise(x: int) -> int:
    x &= _MASK
    x = ((x ^ (x >> 30)) * _FIRST) & _MASK
    x = ((x ^ (x >> 27)) * _SECOND) & _MASK
    return x ^ (x >> 31)


def _finalise_tensor(x: Tensor) -> Tensor:
    # int64 wraps around like uint64; only the right shift must be made to shift in zeros.
    x = (x ^ _shift(x, 30)) * _signed(_FIRST)
    x = (x ^ _shift(x, 27)) * _signed(_SECOND)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x
