"""Batch norms whose statistics are those of the images of all ranks."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stillhouse.distributed import sum_over_ranks, world_size
from stillhouse.errors import UserError
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.models.adapters import SafeBatchNorm2d

T = TypeVar("T", bound=nn.Module)
REPLACED = (nn.BatchNorm2d, SafeBatchNorm2d)
LEAST = 2  # values of a channel that have a variance


class RankBatchNorm2d(SafeBatchNorm2d):
    """A BatchNorm2d over all ranks: (N, C, H, W) -> the same; exact for any division of images.

    Unlike `nn.SyncBatchNorm` it runs on a CPU, too, and takes ranks without images. Where all ranks
    together have a single value per channel, it uses its running statistics.
    """

    def forward(self, x: Tensor) -> Tensor:
        """In training with several ranks by their statistics, else as `nn.BatchNorm2d`."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        with full_precision(x):
            values = upcast(x)
            count = sum_over_ranks(values.new_tensor(float(x.numel() // x.shape[1])))
            mean = sum_over_ranks(values.sum((0, 2, 3))) / count.clamp(min=1)
            several = count >= LEAST
            if self.running_mean is not None:
                mean = mean.where(several, self.running_mean.to(mean.dtype))
            centred = values - mean[:, None, None]
            variance = sum_over_ranks(centred.square().sum((0, 2, 3))) / count.clamp(min=1)
            if self.running_var is not None:
                variance = variance.where(several, self.running_var.to(variance.dtype))
            self.remember(mean.detach(), variance.detach(), count)
            scaled = centred * (variance + self.eps).rsqrt()[:, None, None]
            if self.affine:
                scaled = scaled * self.weight[:, None, None] + self.bias[:, None, None]
        return scaled.to(x.dtype)

    @torch.no_grad()
    def remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics, the variance without bias, as `nn.BatchNorm2d` does."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        rate = self.momentum
        share = 1 / self.num_batches_tracked.to(mean.dtype) if rate is None else rate
        # a single value changes nothing
        unbiased = (variance * count / (count - 1)).where(count >= LEAST, self.running_var)
        for running, value in ((self.running_mean, mean), (self.running_var, unbiased)):
            running += share * (value.to(running.dtype) - running)


def share_norms(network: T) -> T:
    """The network, with batch norms that take the statistics of all ranks in place of its own.

    Parameters, buffers and their names stay. Raises UserError for other kinds of batch norms.
    """
    for path, module in list(network.named_modules()):
        if not isinstance(module, _BatchNorm):
            continue
        if not isinstance(module, nn.BatchNorm2d) or type(module) not in REPLACED:
            raise UserError(
                f"train.sync_norms replaces BatchNorm2d layers, but {path} of "
                f"{type(network).__name__} is a {type(module).__name__}; leave out train.sync_norms"
            )
        holder, _, name = path.rpartition(".")
        setattr(network.get_submodule(holder), name, share_norm(module))
    return network


def share_norm(norm: nn.BatchNorm2d) -> RankBatchNorm2d:
    """One norm over all ranks with the parameters and buffers of another."""
    made = RankBatchNorm2d(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    made.load_state_dict(norm.state_dict())
    if norm.affine:
        made.weight, made.bias = norm.weight, norm.bias
    for name, buffer in norm.named_buffers():
        setattr(made, name, buffer)
    return made.train(norm.training)
