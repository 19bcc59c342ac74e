import torch
from torch import nn

from stillhouse.models import small
from stillhouse.models.cost import flops, latency, parameters
from stillhouse.models.weights import state_hash


def test_parameters_are_counted_once() -> None:
    line = nn.Linear(3, 4)
    assert parameters(nn.Sequential(line, nn.BatchNorm1d(4), line)) == 16 + 8


def test_flops_are_two_for_a_multiply_and_add() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 36, 5))
    multiplied = 36 * 4 * 2 * 9 + 4 * 36 * 5
    assert flops(model, torch.randn(1, 2, 6, 6)) == 2 * multiplied
    assert flops(model, torch.randn(3, 2, 6, 6)) == 3 * 2 * multiplied


def test_measuring_leaves_the_network_as_it_was() -> None:
    model = small.build("tiny", 5, 1).train()
    before, image = state_hash(model), torch.randn(2, 1, 8, 8)
    assert flops(model, image) > 0
    assert 0 < latency(model, image, repeats=3) < 10
    assert state_hash(model) == before and model.training
