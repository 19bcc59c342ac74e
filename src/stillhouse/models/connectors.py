"""Modules of single methods between a student's map and a teacher's, discarded after training."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stillhouse.models.adapters import SafeBatchNorm2d, resize_conv

LEAKY_SLOPE = 0.1  # negative slope of the networks of factor transfer
MIN_VARIANCE = 1e-5


def pointwise(before: int, after: int) -> nn.Conv2d:
    """A 1x1 convolution with a bias of 0 (MGD): (N, before, H, W) -> (N, after, H, W)."""
    conv = nn.Conv2d(before, after, 1)
    nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="linear")
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def pointwise_norm(before: int, after: int) -> nn.Sequential:
    """A 1x1 convolution and BatchNorm (OFD): (N, before, H, W) -> (N, after, H, W)."""
    return nn.Sequential(
        init_kaiming(nn.Conv2d(before, after, 1, bias=False)), SafeBatchNorm2d(after)
    )


def pointwise_norm_relu(before: int, after: int) -> nn.Sequential:
    """A 1x1 convolution, BatchNorm and ReLU (SRRL): (N, before, H, W) -> (N, after, H, W)."""
    return nn.Sequential(*pointwise_norm(before, after), nn.ReLU())


def shape_connector(student: torch.Size, teacher: torch.Size) -> nn.Module:
    """An identity between two maps of one shape, else a convolution and BatchNorm (AB).

    (N, C, H, W) of the student -> (N, C, H, W) of the teacher.
    """
    if student[1:] == teacher[1:]:
        return nn.Identity()
    conv = resize_conv(student[1], teacher[1], student[2:], teacher[2:])
    return nn.Sequential(init_kaiming(conv), SafeBatchNorm2d(teacher[1]))


def generator(width: int) -> nn.Sequential:
    """Two 3x3 convolutions with a ReLU between (MGD): (N, C, H, W) -> (N, C, H, W)."""
    first, second = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, nn.ReLU(), second)


class VariationalRegressor(nn.Module):
    """The mean of a teacher's map given the student's, and a variance for each channel (VID)."""

    def __init__(self, before: int, after: int, variance: float = 5.0) -> None:
        super().__init__()
        widths = (before, after, after)
        layers = [nn.Conv2d(width, after, 1, bias=False) for width in widths]
        self.layers = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
        raw = math.log(math.expm1(variance - MIN_VARIANCE))  # whose softplus is the variance
        self.raw = nn.Parameter(torch.full((after,), raw))

    def forward(self, student: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance: (N, before, H, W) -> (N, after, H, W), (after,)."""
        return self.layers(student), F.softplus(self.raw) + MIN_VARIANCE


class Fusion(nn.Module):
    """A map of a student fused with the deeper ones by attention, at `width` channels (ReviewKD).

    `fuses` is False for the deepest map.
    """

    def __init__(self, before: int, width: int, after: int, fuses: bool) -> None:
        super().__init__()
        self.reduce = nn.Sequential(uniform_conv(before, width, 1), SafeBatchNorm2d(width))
        self.expand = nn.Sequential(uniform_conv(width, after, 3), SafeBatchNorm2d(after))
        self.attend = nn.Conv2d(2 * width, 2, 1) if fuses else None

    def forward(
        self, level: Tensor, deeper: Tensor | None, size: tuple[int, int]
    ) -> tuple[Tensor, Tensor]:
        """The map that is compared with the teacher's, and the one for the next shallower fusion.

        (N, before, H, W), (N, width, h, w), (I, J) -> (N, after, I, J), (N, width, I, J).
        """
        fused = self.reduce(level)
        if self.attend is not None and deeper is not None:
            deeper = F.interpolate(deeper, fused.shape[2:], mode="nearest")
            share = self.attend(torch.cat((fused, deeper), 1)).sigmoid()
            fused = fused * share[:, :1] + deeper * share[:, 1:]
        if fused.shape[2:] != size:
            fused = F.interpolate(fused, size, mode="nearest")
        return self.expand(fused), fused


class Paraphraser(nn.Module):
    """An autoencoder of a teacher's map with fewer channels in the middle (FT)."""

    def __init__(self, width: int, factors: int) -> None:
        super().__init__()
        self.encoder = factor_encoder(width, factors, norm=False)
        steps = ((factors, factors), (factors, width), (width, width))
        layers = [
            (nn.ConvTranspose2d(before, after, 3, padding=1), nn.LeakyReLU(LEAKY_SLOPE))
            for before, after in steps
        ]
        self.decoder = nn.Sequential(*(part for layer in layers for part in layer))

    def forward(self, teacher: Tensor) -> Tensor:
        """The map reconstructed from its factors: (N, C, H, W) -> (N, C, H, W)."""
        reconstruction: Tensor = self.decoder(self.encoder(teacher))
        return reconstruction


def factor_encoder(width: int, factors: int, norm: bool) -> nn.Sequential:
    """Three 3x3 convolutions to the factors: (N, width, H, W) -> (N, factors, H, W)."""
    layers: list[nn.Module] = []
    for before, after in ((width, width), (width, factors), (factors, factors)):
        layers.append(nn.Conv2d(before, after, 3, padding=1))
        if norm:
            layers.append(SafeBatchNorm2d(after))
        layers.append(nn.LeakyReLU(LEAKY_SLOPE))
    return nn.Sequential(*layers)


def init_kaiming(conv: nn.Conv2d | nn.ConvTranspose2d) -> nn.Conv2d | nn.ConvTranspose2d:
    """The same layer with weights of the Kaiming normal distribution, in fan-out mode."""
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv


def uniform_conv(before: int, after: int, side: int) -> nn.Conv2d:
    """A convolution without bias, with Kaiming uniform weights (ReviewKD)."""
    conv = nn.Conv2d(before, after, side, padding=side // 2, bias=False)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    return conv
