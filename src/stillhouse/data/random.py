"""Randomness that counts instead of remembering.

A draw is a hash of (seed, draw number, sample, view). It has no state, so it is the same in every
process, on every device, in every batch that the sample happens to be in, and after any resume.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Draw = Callable[[int], Tensor]  # the how-many-th number of each image: -> (N,) in [0, 1)

# Constants of splitmix64 (Steele, Lea and Flood, 2014).
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def derive_seed(*numbers: int) -> int:
    """One seed of 63 bits out of several numbers; their order matters."""
    return _hash(*numbers) >> 1


def uniform(seed: int, keys: Tensor, views: Tensor, draw: int) -> Tensor:
    """A number in [0, 1) for each (sample, view), in 24 bits: (N,), (N,) -> (N,)."""
    state = torch.full_like(keys, _signed(_hash(seed, draw)))
    for numbers in (keys, views):
        state = _finalise_tensor((state ^ numbers) + _signed(_GOLDEN))
    # 24 bits are what float32 holds exactly, so every device rounds alike: not at all.
    return _shift(state, 40).to(torch.float32) * 2.0**-24


def number(seed: int, key: int, view: int, draw: int) -> float:
    """What `uniform` draws for one sample, a hundred times as fast."""
    return (_hash(seed, draw, key, view) >> 40) * 2.0**-24


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch draws on the CPU from a seed; afterwards it goes on where it was."""
    with torch.random.fork_rng(devices=[]):
        # Not `torch.manual_seed`, which would seed the devices too, and nobody restores those.
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
    # int64 wraps like uint64 does; only the right shift has to be told to bring in zeros.
    x = (x ^ _shift(x, 30)) * _signed(_FIRST)
    x = (x ^ _shift(x, 27)) * _signed(_SECOND)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x
