from itertools import accumulate

import pytest
import torch
from torch import nn
from torch.profiler import profile

from stillhouse.models import small
from stillhouse.models.cost import flops, latency, parameters, peak_memory
from stillhouse.models.dry_run import undisturbed
from stillhouse.models.weights import state_hash


def test_parameters_are_counted_once() -> None:
    line = nn.Linear(3, 4)
    assert parameters(nn.Sequential(line, nn.BatchNorm1d(4), line)) == 16 + 8


def test_flops_are_two_for_a_multiply_and_add() -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 36, 5))
    multiplied = 36 * 4 * 2 * 9 + 4 * 36 * 5
    assert flops(model, torch.randn(1, 2, 6, 6)) == 2 * multiplied
    assert flops(model, torch.randn(3, 2, 6, 6)) == 3 * 2 * multiplied


class Token(nn.Module):
    """Gives a module a view of a parameter, as transformers do with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.line = nn.Parameter(torch.zeros(1, 3)), nn.Linear(3, 4)
        self.line.bias.requires_grad_(False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.line(self.token.expand(len(image), -1))


def test_flops_behind_a_view_of_a_parameter() -> None:
    model = Token()
    assert flops(model, torch.randn(5, 3)) == 2 * 5 * 3 * 4
    learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert learning == ["token", "line.weight"]


def test_measuring_leaves_the_network_as_it_was() -> None:
    model = small.small_resnet("tiny", 5, 1).train()
    before, image = state_hash(model), torch.randn(2, 1, 8, 8)
    assert flops(model, image) > 0
    assert 0 < latency(model, image, repeats=3) < 10
    assert state_hash(model) == before and model.training


def test_peak_memory_is_weights_inputs_and_what_is_held_at_once() -> None:
    model = nn.Sequential(nn.Linear(100, 400, bias=False), nn.Tanh(), nn.Linear(400, 10))
    weights, image = 100 * 400 + 400 * 10 + 10, torch.randn(64, 100)
    # While the hyperbolic tangent is taken, what it is given and what it gives are both there.
    assert peak_memory(model, image) == 4 * (weights + 64 * 100 + 2 * 64 * 400)


def test_peak_memory_frees_what_is_no_longer_held() -> None:
    deep = nn.Sequential(*(nn.Tanh() for _ in range(9)))
    image = torch.randn(32, 1000)
    assert peak_memory(deep, image) == 4 * 3 * 32 * 1000  # the input and two neighbours


class Held(nn.Module):
    """Keeps every intermediate until the end, changes one in place, and looks at views."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        held = [image.tanh() for _ in range(5)]
        return held[0].add_(held[1].view(-1).reshape(image.shape).T.T).sum()


def test_peak_memory_counts_no_view_and_no_change_in_place() -> None:
    image = torch.randn(50, 50)
    assert peak_memory(Held(), image) == 4 * (6 * 50 * 50 + 1)


def test_peak_memory_counts_shared_weights_once_and_agrees_with_the_profiler() -> None:
    line = nn.Linear(300, 300, bias=False)
    twice = nn.Sequential(line, nn.ReLU(), line)
    assert peak_memory(twice, torch.zeros(1, 300)) == 4 * (300 * 300 + 3 * 300)
    model, image = small.small_resnet("medium", 10, 3).train(), torch.randn(4, 3, 32, 32)
    before = state_hash(model)
    fixed = sum(t.nbytes for t in (*model.parameters(), *model.buffers(), image))
    assert peak_memory(model, image) - fixed == pytest.approx(profiled(model, image), rel=0.05)
    assert state_hash(model) == before and model.training


def profiled(model: nn.Module, image: torch.Tensor) -> int:
    with undisturbed(model), profile(profile_memory=True) as seen:
        model(image)
    events = seen.profiler.kineto_results.events()
    memory = [e for e in events if e.name() == "[memory]"]
    sizes = [e.nbytes() for e in sorted(memory, key=lambda e: e.start_ns())]
    return max(accumulate(sizes))
