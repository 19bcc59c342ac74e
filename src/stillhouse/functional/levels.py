"""Relations between the predictions of a batch, by sample and by class (Jin et al., 2023)."""

from torch import Tensor


def batch_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of similarities of samples, summed per sample: (N, C), (N, C) -> (N,)."""
    return (teacher @ teacher.mT - student @ student.mT).square().sum(1)


def class_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared difference of similarities of classes, summed per class: (N, C), (N, C) -> (C,)."""
    return batch_relation(student.mT, teacher.mT)
