"""Batch norms over all ranks, in one process; tests of ranks have several."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stillhouse.engine.rank_norm import RankBatchNorm2d, share_norm, share_norms
from stillhouse.errors import UserError
from stillhouse.models import zoo


def test_a_network_keeps_its_parameters_and_outputs() -> None:
    torch.manual_seed(0)
    network = zoo.create("stillhouse/small", 5)
    images = torch.randn(3, 3, 16, 16)
    network(images)
    before = network.state_dict()
    parameters = [id(p) for p in network.parameters()]
    want = network.eval()(images)
    assert share_norms(network) is network
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    assert norms and all(isinstance(norm, RankBatchNorm2d) for norm in norms)
    assert not any(norm.training for norm in norms)
    assert [id(p) for p in network.parameters()] == parameters
    assert network.state_dict().keys() == before.keys()
    assert torch.equal(network(images), want)
    network.train()(images)
    assert all(int(norm.num_batches_tracked or 0) == 2 for norm in norms)


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}])
def test_options_are_kept(options: dict[str, bool]) -> None:
    norm = nn.BatchNorm2d(4, eps=0.1, momentum=0.3, **options)
    shared = share_norm(norm)
    assert (shared.eps, shared.momentum) == (0.1, 0.3)
    assert shared.affine == norm.affine
    x = torch.randn(2, 4, 3, 3)
    assert torch.equal(shared(x), norm(x))


def test_other_batch_norms_are_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(3))
    with pytest.raises(UserError, match="but 1 of Sequential is a BatchNorm1d; leave out train.sy"):
        share_norms(network)
