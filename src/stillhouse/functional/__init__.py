"""Pure functions on tensors."""

from stillhouse.functional.distance import cosine, mse, pearson
from stillhouse.functional.divergence import (
    cross_entropy,
    jensen_shannon,
    kl,
    partial_softmax_kl,
    reverse_kl,
    sigmoid_cross_entropy,
    sigmoid_kl,
    softmax_kl,
)
from stillhouse.functional.dtype import upcast
from stillhouse.functional.gradient import reverse_gradient

__all__ = [
    "cosine",
    "cross_entropy",
    "jensen_shannon",
    "kl",
    "mse",
    "partial_softmax_kl",
    "pearson",
    "reverse_gradient",
    "reverse_kl",
    "sigmoid_cross_entropy",
    "sigmoid_kl",
    "softmax_kl",
    "upcast",
]
