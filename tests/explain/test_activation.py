"""Activation maps: LayerCAM against its formula, and the similarity of maps."""

from __future__ import annotations

import base64
import io
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import stats
from synthetic import all_text, make_multilabel, row, three_networks, with_subset
from torch import Tensor, nn

from stillhouse.explain import activation
from stillhouse.explain.catalogue import run_diagnoses
from stillhouse.explain.layer_cam import layer_cam
from stillhouse.explain.predictions import Outputs, Predictions
from stillhouse.explain.section import ImageGrid
from stillhouse.models import small
from stillhouse.models.ensemble import Ensemble
from stillhouse.models.labelwise import LabelwiseHead, labelwise
from stillhouse.models.places import Places
from stillhouse.models.teacher_wrapper import TeacherWrapper
from stillhouse.tasks.classification import Classification

NAMES = ("teacher", "control", "student")
IMAGES = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
CLASSES = torch.tensor([1, 4, 0])
HEAD = LabelwiseHead(width=16, heads=2, hidden=32)


def plain() -> nn.Module:
    return small.small_resnet("small", 5, 3)


def headed() -> nn.Module:
    return labelwise(plain(), 5, IMAGES[:2], HEAD)


def fitted() -> nn.Module:
    around = ((0.5,) * 3, (0.2,) * 3)
    return TeacherWrapper(headed(), data=around, teacher=((0.4,) * 3, (0.3,) * 3), size=(32, 32))


class Overwriting(nn.Module):
    """Its last map is written over, as DenseNet does it; the classifier reads what became of it."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2)
        )
        self.classifier = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = F.relu(self.features(images), inplace=True)
        scores: Tensor = self.classifier(features.mean((2, 3)))
        return scores


def maps_of(network: nn.Module, images: Tensor = IMAGES) -> Tensor | None:
    with torch.no_grad(), layer_cam(network.eval(), images[:2]) as compute:
        with torch.no_grad():
            logits = network(images)
        with torch.enable_grad():
            scores = Classification(5).select(logits, CLASSES)
        return compute(scores)


def by_formula(network: nn.Module, place: nn.Module) -> Tensor:
    """relu(sum of relu(gradient) times activation over channels), by the definition."""
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: object, out: Tensor) -> Tensor:
        kept.append(out)
        return out.clone()

    hook = place.register_forward_hook(keep)
    scores = network.eval()(IMAGES.clone().requires_grad_())
    hook.remove()
    total = scores[torch.arange(3), CLASSES].sum()
    (gradient,) = torch.autograd.grad(total, kept[0])
    return (gradient.relu() * kept[0]).sum(1).relu().detach()


# -------------------------------------------------------------------------------------- the maps


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (plain, "stage3"),
        (headed, "trunk.model.stage3"),
        (fitted, "model.trunk.model.stage3"),
        (Overwriting, "features"),
    ],
    ids=["plain", "labelwise", "fitted", "overwriting"],
)
def test_maps_are_those_of_the_formula(make: Callable[[], nn.Module], path: str) -> None:
    network = make().eval()
    found = maps_of(network)
    wanted = by_formula(network, network.get_submodule(path))
    assert found is not None and found.shape == wanted.shape and float(wanted.max()) > 0
    torch.testing.assert_close(found, wanted)


def test_a_frozen_network_has_maps_and_is_not_changed() -> None:
    network = headed().requires_grad_(False).eval()
    hooks = [len(m._forward_hooks) for m in network.modules()]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert maps_of(network) is not None
    assert [len(m._forward_hooks) for m in network.modules()] == hooks
    assert all(p.grad is None for p in network.parameters())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_grad_mode_is_restored() -> None:
    network = plain().eval()
    with torch.no_grad(), layer_cam(network, IMAGES[:2]):
        with torch.no_grad():
            assert network(IMAGES).requires_grad
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


class Shut(nn.Module):
    """It lets no gradient through."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = plain()

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.inner(images).detach()
        return scores


class Besides(Shut):
    """Its scores do not come from its last map."""

    def forward(self, images: Tensor) -> Tensor:
        self.inner(images)
        return images.mean((2, 3)).repeat(1, 2)[:, :5] * self.inner.head.weight.sum()


class Fused(nn.Module):
    """Its last map is the input of its classifier, and the output of no module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.classifier = nn.Conv2d(8, 5, 1)
        self.places = Places({"stage1": "classifier@input"}, classifier="classifier")

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.conv(images).relu()).mean((2, 3))
        return scores


@pytest.mark.parametrize(
    "network",
    [
        Fused(),
        Ensemble([plain(), plain()]),
        Shut(),
        Besides(),
        nn.Sequential(nn.Flatten(), nn.Linear(1728, 5)),
    ],
    ids=["input", "ensemble", "shut", "besides", "flat"],
)
def test_a_network_without_a_map_has_none(network: nn.Module) -> None:
    assert maps_of(network) is None


def test_a_map_of_one_pixel_is_none() -> None:
    assert maps_of(plain(), torch.rand(3, 3, 4, 4)) is None


# ----------------------------------------------------------------------------------- how alike


def maps(outputs: Outputs) -> Tensor:
    return torch.rand(11, 7, 7) if outputs.name == "teacher" else torch.rand(11, 4, 4)


def with_maps() -> Predictions:
    return with_subset(make_multilabel(*NAMES), maps=maps)


def test_maps_are_compared_place_by_place() -> None:
    predictions = with_maps()
    section = activation.section(predictions)
    assert section is not None
    large = {
        v.name: F.interpolate(v.maps[:, None], (56, 56), mode="bilinear")[:, 0].double().numpy()
        for v in predictions.outputs
        if v.maps is not None
    }
    for name in ("control", "student"):
        same, other, overlap = [], [], []
        for i in range(11):
            x, y = large[name][i], large["teacher"][i]
            far = large["teacher"][(i - 5) % 11]
            same.append(stats.pearsonr(x.ravel(), y.ravel()).statistic)
            other.append(stats.pearsonr(x.ravel(), far.ravel()).statistic)
            a, b = ((z - z.min()) / (z.max() - z.min()) > 0.5 for z in (x, y))
            overlap.append((a & b).sum() / (a | b).sum())
        means = [np.mean(each) for each in (same, other, overlap)]
        assert row(section.tables[0], name) == pytest.approx((*means, 0), abs=1e-5)


def test_equal_maps_have_correlation_and_overlap_1() -> None:
    one = torch.rand(11, 6, 6)
    section = activation.section(
        with_subset(make_multilabel("teacher", "student"), maps=lambda v: one)
    )
    assert section is not None
    correlation, other, overlap, skipped = row(section.tables[0], "student")
    assert correlation == pytest.approx(1) and overlap == pytest.approx(1) and skipped == 0
    assert isinstance(other, float) and other < 0.5
    assert "teacher's map over 11 images: 1.00;" in all_text(section)


def test_constant_maps_are_left_out_and_counted() -> None:
    def half(outputs: Outputs) -> Tensor:
        found = torch.rand(11, 6, 6)
        found[:4] = 0
        return found

    section = activation.section(with_subset(make_multilabel("teacher", "student"), maps=half))
    assert section is not None and row(section.tables[0], "student")[3] == 4


def test_normalised_maps_go_from_0_to_1_and_a_constant_one_is_0() -> None:
    found = activation.normalise_maps(
        torch.stack([torch.rand(3, 5) + 2, torch.ones(3, 5)]), (9, 20)
    )
    assert found.shape == (2, 9, 20)
    assert float(found[0].min()) == 0 and float(found[0].max()) == 1
    assert float(found[1].abs().max()) == 0


# --------------------------------------------------------------------------------- the pictures


def opened(code: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(code)))


def test_each_row_shows_the_image_and_the_map_of_every_network() -> None:
    predictions = with_maps()
    section = activation.section(predictions)
    assert section is not None and predictions.subset is not None
    (chart,) = section.charts
    assert isinstance(chart, ImageGrid) and chart.columns == 4
    classes = sorted({*predictions.subset.labels.tolist()})
    assert [p.caption for p in chart.pictures] == [
        caption for c in classes for caption in (f"c{c}", *NAMES)
    ]
    assert chart.pictures[1].alt == "Activation map of the teacher for class c0."
    assert {opened(p.png).size for p in chart.pictures} == {(64, 64)}


def test_an_overlay_is_coloured_where_the_map_is_high() -> None:
    heat = torch.zeros(64, 64)
    heat[:32] = 1
    grey = Image.fromarray(np.full((64, 64), 100, np.uint8))
    found = np.asarray(activation.overlay_map(grey, heat)).astype(int)
    high, low = found[8, 8], found[60, 60]
    assert high[0] > 180 and high[0] > high[2] and high.sum() > low.sum()
    assert (np.ptp(low) <= 3) and low.max() < 100


def test_a_network_without_maps_is_named_and_the_others_are_shown() -> None:
    predictions = with_maps()
    teacher, _, student = predictions.outputs
    section = activation.section(
        replace(predictions, outputs=(replace(teacher, maps=None), student))
    )
    assert section is not None and section.tables == ()
    assert section.sentences[-1].startswith("The teacher has no activation maps")
    assert isinstance(section.charts[0], ImageGrid) and section.charts[0].columns == 2
    blind = tuple(replace(v, maps=None) for v in predictions.outputs)
    section = activation.section(replace(predictions, outputs=blind))
    assert section is not None and len(section.sentences) == 3 and section.charts == ()
    assert activation.section(make_multilabel(*NAMES)) is None


def test_without_torchcam_the_section_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchcam", "torchcam.methods"):
        monkeypatch.setitem(sys.modules, name, None)
    assert maps_of(plain()) is None
    found = run_diagnoses(Classification(5).examine, with_subset(three_networks(n=12)))
    assert found[-1].name == "activation" and len(found) > 5  # the rest of the page stands
    assert "need torchcam; run `pip install 'stillhouse[explain]'`" in all_text(found[-1])
    assert found[-1].charts == () == found[-1].tables
