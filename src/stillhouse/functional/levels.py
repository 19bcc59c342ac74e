"""How the predictions of a batch relate, sample by sample and class by class (Jin et al., 2023)."""

from torch import Tensor


def batch_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of the samples' similarities, a sum for each: (N, C), (N, C) -> (N,)."""
    return (teacher @ teacher.mT - student @ student.mT).square().sum(1)


def class_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of the classes' similarities, a sum for each: (N, C), (N, C) -> (C,)."""
    return batch_relation(student.mT, teacher.mT)
