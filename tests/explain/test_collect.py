"""Collecting the outputs of networks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.errors import UserError
from stillhouse.explain import collect
from stillhouse.explain.collect import collect_labels, collect_outputs, collect_predictions
from stillhouse.explain.predictions import Predictions
from stillhouse.explain.subset import SubsetLoader
from stillhouse.models import small
from stillhouse.models.ensemble import Ensemble
from stillhouse.models.labelwise import LabelwiseHead, labelwise
from stillhouse.models.weights import state_hash
from stillhouse.tasks.classification import Classification
from stillhouse.tasks.multilabel import Multilabel
from stillhouse.types import Trace

TASK = Classification(5)
IMAGES = torch.arange(10.0)[:, None, None, None] * torch.ones(1, 3, 8, 8) / 10


def batches() -> Iterator[Batch[Tensor]]:
    """Ten samples in an order of their own: 9, 8, .. 0."""
    for keys in torch.arange(9, -1, -1).split(4):
        yield Batch(IMAGES[keys], keys % 5, keys, torch.zeros_like(keys))


def test_outputs_are_those_of_eval_mode() -> None:
    network = small.small_resnet("tiny", 5, 3).train()
    before = state_hash(network)
    outputs = collect_outputs("student", network, TASK, batches())
    assert state_hash(network) == before and network.training
    assert not [m for m in network.modules() if m._forward_hooks or m._forward_pre_hooks]
    with torch.no_grad():
        network.eval()
        logits = network(IMAGES.flip(0))
        features = nn.Sequential(*list(network)[:-1])(IMAGES.flip(0))
    torch.testing.assert_close(outputs.logits, logits)
    assert outputs.features is not None
    torch.testing.assert_close(outputs.features, features)
    assert outputs.logits.dtype == torch.float32 and not outputs.logits.requires_grad


def test_no_more_images_than_the_limit_are_read() -> None:
    sizes = []

    def counted() -> Iterator[Batch[Tensor]]:
        for given in batches():
            sizes.append(len(given))
            yield given

    outputs = collect_outputs("student", small.small_resnet("tiny", 5, 3), TASK, counted(), limit=6)
    assert outputs.logits.shape == (6, 5) and sizes == [4, 4]
    labels, keys = collect_labels(TASK, batches(), 6)
    assert keys.tolist() == [9, 8, 7, 6, 5, 4] and labels.tolist() == [4, 3, 2, 1, 0, 4]


class Pooled(nn.Module):
    """Class maps whose mean is the answer: no vector stands before a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 5, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.maps(image).mean((2, 3))


def test_a_network_without_a_vector_has_no_features() -> None:
    outputs = collect_outputs("student", Pooled(), TASK, batches())
    assert outputs.features is None and outputs.logits.shape == (10, 5)


def test_predictions_keep_networks_labels_and_images_in_order() -> None:
    networks = {name: small.small_resnet("tiny", 5, 3) for name in ("teacher", "control", "kd")}
    pixels = (IMAGES * 100).to(torch.uint8)
    predictions = collect_predictions(
        networks, TASK, batches, "abcde", lambda key: pixels[key], limit=7
    )
    assert [v.name for v in predictions.outputs] == ["teacher", "control", "kd"]
    assert predictions.labels.tolist() == [4, 3, 2, 1, 0, 4, 3] and predictions.classes == tuple(
        "abcde"
    )
    assert int(predictions.image(0)[0, 0, 0]) == 90 and int(predictions.image(6)[0, 0, 0]) == 30
    assert predictions.teacher is predictions.outputs[0] and predictions.student.name == "kd"


def test_an_empty_split_is_an_error() -> None:
    with pytest.raises(UserError, match="no images for student"):
        collect_outputs("student", small.small_resnet("tiny", 5, 3), TASK, [])


# --------------------------------------------------------------------------------- multi-label

SEVERAL = Multilabel(5)
DICE = torch.Generator().manual_seed(0)
MANY = torch.rand(30, 3, 16, 16, generator=DICE)
HOT = (torch.rand(30, 5, generator=DICE) < 0.4).float()
HOT[0], HOT[1] = 0, 1  # an image without a class, and one with all


def rows(keys: Tensor, size: int = 7) -> Iterator[Batch[Tensor]]:
    """These samples in batches."""
    for some in keys.split(size):
        yield Batch(MANY[some], HOT[some], some, torch.zeros_like(some))


def backwards() -> Iterator[Batch[Tensor]]:
    """Thirty samples in an order of their own: 29, 28, .. 0."""
    return rows(torch.arange(29, -1, -1))


LOADER = SubsetLoader(lambda keys: rows(keys, 4), lambda images: (255 * images).to(torch.uint8))


def headed() -> nn.Module:
    return labelwise(small.small_resnet("small", 5, 3), 5, MANY[:2], LabelwiseHead(16, 2, 32))


def collect_with_subset(**networks: nn.Module) -> Predictions:
    pixels = (255 * MANY).to(torch.uint8)
    return collect_predictions(
        networks, SEVERAL, backwards, "abcde", lambda key: pixels[key], 30, LOADER
    )


def test_multi_hot_labels_keep_their_order() -> None:
    predictions = collect_with_subset(student=headed())
    assert predictions.multilabel and torch.equal(predictions.labels, HOT.flip(0))
    assert torch.equal(predictions.positives, HOT.flip(0) > 0)
    assert predictions.outputs[0].logits.shape == (30, 5) and predictions.subset is not None
    assert 29 not in predictions.subset.samples  # where the one without a class was predictions


def test_class_indices_are_multi_hot_for_a_multi_label_task() -> None:
    predictions = collect_predictions(
        {"student": small.small_resnet("tiny", 5, 3)},
        SEVERAL,
        batches,
        "abcde",
        lambda key: IMAGES[key],
    )
    assert predictions.labels.shape == (10, 5) and predictions.multilabel
    assert predictions.labels.argmax(1).tolist() == [4, 3, 2, 1, 0] * 2
    assert (
        predictions.subset is None
        and predictions.student.nearest is None
        and predictions.student.maps is None
    )


@pytest.mark.parametrize("labelled", [True, False], ids=["embeddings", "features"])
def test_neighbours_are_those_of_a_loop_over_distances(labelled: bool) -> None:
    network = headed() if labelled else small.small_resnet("tiny", 5, 3)
    predictions = collect_with_subset(student=network)
    outputs, close = predictions.student, predictions.subset
    assert close is not None and outputs.nearest is not None and outputs.labelwise == labelled
    with torch.no_grad():
        network.eval()
        images = MANY.flip(0)
        if labelled:
            tokens = network.tokens(network.trunk(images).taps["map"])
            vectors = network.embeddings(tokens)  # (N, C, D)
        else:
            vectors = nn.Sequential(*list(network)[:-1])(images)[:, None].expand(-1, 5, -1)
    for (place, label), found in zip(close.queries.tolist(), outputs.nearest.tolist(), strict=True):
        sample = int(close.samples[place])
        away = (vectors[:, label] - vectors[sample, label]).double().norm(dim=1)
        away[sample] = torch.inf
        assert sample not in found
        torch.testing.assert_close(away[found], away.sort().values[:5], atol=1e-5, rtol=1e-5)


def test_maps_are_of_the_subset_in_its_order() -> None:
    network = headed()
    predictions = collect_with_subset(student=network)
    assert predictions.subset is not None and predictions.student.maps is not None
    assert (
        len(predictions.student.maps)
        == len(predictions.subset.samples)
        == len(predictions.subset.labels)
    )
    kept: list[Tensor] = []
    place = network.trunk.model.stage3
    hook = place.register_forward_hook(lambda m, a, out: kept.append(out), prepend=True)
    images = MANY.flip(0)[predictions.subset.samples]
    scores = network.eval()(images.clone().requires_grad_())
    hook.remove()
    own = scores[torch.arange(len(images)), predictions.subset.labels].sum()
    (gradient,) = torch.autograd.grad(own, kept[0])
    wanted = (gradient.relu() * kept[0]).sum(1).detach()
    torch.testing.assert_close(predictions.student.maps, wanted, atol=1e-5, rtol=1e-4)
    pixels = predictions.subset.pixels(torch.tensor([3, 0]))
    torch.testing.assert_close(pixels, (255 * images[[3, 0]]).to(torch.uint8))


def test_collecting_does_not_change_the_network() -> None:
    network = headed().train()
    network.trunk.model.stem.eval()
    modes = [part.training for part in network.modules()]
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    before = state_hash(network)
    first = collect_with_subset(student=network).student
    assert state_hash(network) == before
    assert [part.training for part in network.modules()] == modes
    assert hooks == [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in network.modules()]
    assert all(p.grad is None for p in network.parameters()) and torch.is_grad_enabled()
    again = collect_with_subset(student=network).student
    assert torch.equal(first.logits, again.logits) and not first.logits.requires_grad
    assert first.nearest is not None and again.nearest is not None
    assert torch.equal(first.nearest, again.nearest)


def test_without_embeddings_and_features_there_are_no_neighbours() -> None:
    make_multilabel = Ensemble([headed(), headed()])
    predictions = collect_with_subset(teacher=make_multilabel, control=Pooled(), student=headed())
    teacher, control, student = predictions.outputs
    assert teacher.nearest is None and teacher.maps is None and not teacher.labelwise
    assert control.nearest is None and student.nearest is not None


# ------------------------------------------------------------------------------------- failures


class Failing(nn.Module):
    """A network whose forward raises an error."""

    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError("no memory")


def test_a_network_that_fails_is_named_and_the_others_are_collected() -> None:
    networks = {
        "teacher": Failing(),
        "control": Failing(),
        "student": small.small_resnet("tiny", 5, 3),
    }
    predictions = collect_predictions(networks, TASK, batches, "abcde", lambda key: IMAGES[key])
    assert [one.name for one in predictions.outputs] == ["student"]
    assert [*predictions.missing] == ["teacher", "control"]
    assert predictions.missing["control"] == (
        "The outputs of control could not be collected: RuntimeError: no memory; run `stillhouse "
        "explain RUN --debug` for the traceback."
    )


def test_a_student_that_fails_raises_its_error() -> None:
    networks = {"teacher": small.small_resnet("tiny", 5, 3), "student": Failing()}
    with pytest.raises(RuntimeError, match="no memory"):
        collect_predictions(networks, TASK, batches, "abcde", lambda key: IMAGES[key])


def test_features_that_cannot_be_tapped_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small.small_resnet("tiny", 5, 3)
    monkeypatch.setattr(collect, "find_aliases", lambda *_: {"penultimate": "no.such.module"})
    outputs = collect_outputs("student", network, TASK, batches())
    assert outputs.features is None and outputs.logits.shape == (10, 5)
    assert not [m for m in network.modules() if m._forward_hooks or m._forward_pre_hooks]


def test_images_without_labels_are_an_error() -> None:
    keys = torch.arange(4)
    batch = Batch(IMAGES[keys], None, keys, torch.zeros_like(keys))
    for task in (TASK, SEVERAL):
        with pytest.raises(UserError, match="the images have no labels"):
            task.collect_target(batch)


def test_the_task_defines_what_is_collected() -> None:
    class Doubled(Classification):
        def collect(self, trace: Trace) -> Tensor:
            return 2 * super().collect(trace)

        def collect_target(self, batch: Batch[Tensor]) -> Tensor:
            return 4 - super().collect_target(batch)

    network = small.small_resnet("tiny", 5, 3)
    one, two = (
        collect_predictions({"student": network}, task, batches, "abcde", IMAGES.__getitem__)
        for task in (TASK, Doubled(5))
    )
    torch.testing.assert_close(two.student.logits, 2 * one.student.logits)
    assert torch.equal(two.labels, 4 - one.labels)
