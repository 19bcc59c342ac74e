"""Methods that read the predictions of dense detectors: loops apart, and what each must keep."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from detectors import FAMILIES, small_detector, some_batch
from stillhouse.batches import Batch, Objects
from stillhouse.distributed import combine
from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError
from stillhouse.methods.build import make_method
from stillhouse.methods.catalogue import composed_methods
from stillhouse.methods.ranking import log_softmax_in_groups
from stillhouse.methods.setting import Setting
from stillhouse.models.detectors.output import Dense
from stillhouse.models.taps import Tapped
from stillhouse.objectives import presets
from stillhouse.tasks.classification import Classification
from stillhouse.tasks.dense_sites import SITES, dense_sites
from stillhouse.tasks.detection import Detection
from stillhouse.types import Clock, Lesson, Term, Terms, Trace

CLOCK = Clock(0, 10, 5)
# those that read predictions only; crosskd runs a head of the teacher
DENSE = {
    name: spec
    for name, spec in composed_methods().items()
    if "boxes" in spec.card.needs and "features" not in spec.card.needs
}
EXAMPLE = torch.zeros(1, 3, 48, 64, dtype=torch.double)
NOWHERE = Setting(torch.nn.Identity(), torch.nn.Identity(), EXAMPLE)  # methods that tap nothing
every = pytest.mark.parametrize("name", DENSE)
Box = list[float]
SHIFTS = {"fcos": 1.5, "reppoints": torch.tensor([-1.0, -1.0, 1.0, 1.0])}


def outputs(family: str, batch: Batch[Objects], seed: int = 0) -> Dense:
    """Predictions far from those of the start, as a leaf for gradients."""
    random = torch.Generator().manual_seed(seed)
    out = small_detector(family).double().eval()(batch.images)

    def noisy(part: Tensor | None, spread: float) -> Any:
        if part is None:
            return None
        noise = torch.randn(part.shape, generator=random, dtype=part.dtype)
        return (part + spread * noise).detach().requires_grad_()

    return replace(
        out,
        scores=noisy(out.scores + 3, 1.0),
        # RepPoints has boxes themselves, which noise must not turn over
        boxes=noisy(out.boxes + SHIFTS.get(family, 0), 0.1 if family == "reppoints" else 0.5),
        quality=noisy(out.quality, 1.0),
    )


def lesson_of(family: str = "gfocal", counts: tuple[int, ...] = (2, 0, 3)) -> Lesson:
    batch = some_batch(*counts)
    student, teacher = outputs(family, batch, 1), outputs(family, batch, 2)
    task = Detection(5)
    assigned = task.assign(Trace(student), batch)
    return task.lesson(Trace(student), Trace(teacher).detached(), batch, CLOCK, assigned)


def terms_of(method: Any, lesson: Lesson) -> Terms:
    return method.build(NOWHERE)(lesson)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def overlaps(a: Box, b: Box) -> tuple[float, float]:
    """IoU and GIoU."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(
        0.0, min(a[3], b[3]) - max(a[1], b[1])
    )
    union = sum((x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)) - shared
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return shared / union, shared / union - (hull - union) / hull


class Loop:
    """Both networks' predictions as lists."""

    def __init__(self, lesson: Lesson) -> None:
        student, teacher, assigned = lesson.student.out, lesson.teacher.out, lesson.assigned
        self.scores = student.scores.tolist(), teacher.scores.tolist()
        self.decoded = student.decoded.tolist(), teacher.decoded.tolist()
        self.raw = student.boxes.tolist(), teacher.boxes.tolist()
        self.index, self.labels = assigned.index.tolist(), assigned.labels.tolist()
        self.priors = student.priors
        self.objects = lesson.objects
        self.mass = sum(max(1, sum(x >= 0 for x in row)) for row in self.index)
        self.all = [(n, p) for n in range(len(self.index)) for p in range(len(self.priors))]
        starts = [0]
        for count in self.priors.counts:
            starts.append(starts[-1] + count)
        self.level = [sum(p >= s for s in starts[1:]) for p in range(len(self.priors))]
        self.opened = {
            self.level[p] for n, p in self.all if self.index[n][p] >= 0
        }  # levels with a positive

    def weight(self, n: int, p: int) -> float:
        """max_c |p_t - p_s|."""
        pair = zip(self.scores[0][n][p], self.scores[1][n][p], strict=True)
        return max(abs(sigmoid(t) - sigmoid(s)) for s, t in pair)

    def kept(self, n: int, p: int, gated: bool) -> bool:
        return self.index[n][p] != -2 and (self.level[p] in self.opened or not gated)


# ---------------------------------------------------------------------------------- plain formulas


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("variant", ["reference", "paper"])
def test_ild_is_its_formula(family: str, variant: str) -> None:
    lesson = lesson_of(family)
    found = terms_of(DENSE["ild"](variant=variant), lesson)["box/ild"]
    loop, gated = Loop(lesson), variant == "reference"
    total = 0.0
    for n, p in loop.all:
        if loop.kept(n, p, gated):
            pair = overlaps(loop.decoded[0][n][p], loop.decoded[1][n][p])
            total += loop.weight(n, p) * (1 - pair[int(gated)])
    assert float(found.mean().detach()) == pytest.approx(total / loop.mass, rel=1e-9)
    assert found.weight == 4.0


@pytest.mark.parametrize("family", ["gfocal", "retinanet"])
@pytest.mark.parametrize("variant", ["reference", "paper"])
def test_bckd_is_bcd_and_ild(family: str, variant: str) -> None:
    lesson = lesson_of(family)
    found = terms_of(DENSE["bckd"](variant=variant), lesson)
    assert set(found) == {next(n for n in found if n.startswith("bcd/")), "ild/box/ild"}
    loop, gated = Loop(lesson), variant == "reference"
    total = 0.0
    for n, p in loop.all:
        if loop.kept(n, p, gated):
            for s, t in zip(loop.scores[0][n][p], loop.scores[1][n][p], strict=True):
                a, b = sigmoid(s), sigmoid(t)
                total += abs(b - a) * -(b * math.log(a) + (1 - b) * math.log(1 - a))
    bcd = next(term for name, term in found.items() if name.startswith("bcd/"))
    assert float(bcd.mean().detach()) == pytest.approx(total / loop.mass, rel=1e-9)
    alone = terms_of(DENSE["ild"](variant=variant), lesson)["box/ild"]
    assert torch.equal(found["ild/box/ild"].total, alone.total)


def closeness(a: Box, prior: Box, released: bool) -> float:
    shared = max(0.0, min(a[2], prior[2]) - max(a[0], prior[0])) * max(
        0.0, min(a[3], prior[3]) - max(a[1], prior[1])
    )
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, prior)]
    part = shared / (areas[1] if released else sum(areas) - shared)
    away = sum((a[k] + a[k + 2] - prior[k] - prior[k + 2]) ** 2 / 4 for k in (0, 1))
    hull = (max(a[2], prior[2]) - min(a[0], prior[0])) ** 2 + (
        max(a[3], prior[3]) - min(a[1], prior[1])
    ) ** 2
    return part - away / hull


def valuable(loop: Loop, released: bool) -> dict[tuple[int, int], float]:
    """The IoU of priors in the valuable region."""
    priors, found = loop.priors.boxes.tolist(), {}
    for box, image in zip(loop.objects.boxes.tolist(), loop.objects.image.tolist(), strict=True):
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        chosen, start = [], 0
        for count in loop.priors.counts:
            level = range(start, start + count)
            places = loop.priors.centres.tolist()
            chosen += sorted(level, key=lambda p: math.dist(places[p], centre))[:9]
            start += count
        values = [overlaps(box, priors[p])[0] for p in chosen]
        mean = sum(values) / len(values)
        bound = mean + math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
        for p, prior in enumerate(priors):
            if bound / 4 <= closeness(box, prior, released) < bound:
                value = overlaps(box, prior)[0]
                found[image, p] = max(found.get((image, p), 0.0), value)
    return found


@pytest.mark.parametrize("variant", ["reference", "paper"])
def test_ld_is_its_formula(variant: str) -> None:
    lesson = lesson_of("gfocal")
    found = terms_of(DENSE["ld"](variant=variant), lesson)
    loop, reference = Loop(lesson), variant == "reference"

    def divergence(n: int, p: int) -> float:
        total = 0.0
        for side in range(4):
            rows = [raw[n][p][17 * side : 17 * side + 17] for raw in loop.raw]
            logs = []
            for row in rows:
                norm = math.log(sum(math.exp(z / 10) for z in row))
                logs.append([z / 10 - norm for z in row])
            total += sum(math.exp(t) * (t - s) for s, t in zip(*logs, strict=True))
        return 100 * total / (17 if reference else 1)

    main = {
        (n, p): sigmoid(max(loop.scores[0][n][p])) for n, p in loop.all if loop.index[n][p] >= 0
    }
    regions = {"main": (main, 4), "rest": (valuable(loop, reference), 16)}
    assert all(len(weights) > 5 for weights, _ in regions.values())
    for name, (weights, mass) in regions.items():
        total = sum(w * divergence(n, p) for (n, p), w in weights.items())
        mean = total / (mass if reference else 4 * sum(weights.values()))
        assert float(found[name].mean().detach()) == pytest.approx(mean, rel=1e-9), name


@pytest.mark.parametrize("score", ["class", "iou"])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_rm_is_its_formula(score: str, temperature: float) -> None:
    lesson = lesson_of("atss")
    found = terms_of(DENSE["rm"](score=score, temperature=temperature), lesson)["rank"]
    loop, total, counted = Loop(lesson), 0.0, 0
    for number, box in enumerate(loop.objects.boxes.tolist()):
        places = [(n, p) for n, p in loop.all if loop.index[n][p] == number]
        if not places:
            continue
        counted += 1
        label = int(loop.objects.labels[number])
        logs = []
        for side in range(2):
            values = [
                sigmoid(loop.scores[side][n][p][label])
                if score == "class"
                else overlaps(loop.decoded[side][n][p], box)[0]
                for n, p in places
            ]
            norm = math.log(sum(math.exp(v / temperature) for v in values))
            logs.append([v / temperature - norm for v in values])
        total += sum(math.exp(t) * (t - s) for s, t in zip(*logs, strict=True))
    assert counted > 2
    assert float(found.mean().detach()) == pytest.approx(total / counted, rel=1e-9)


def test_golden_values() -> None:
    """methods 7.2: RM of two softmaxes, LD of one side of four bins."""
    s, t = (
        log_softmax_in_groups(torch.tensor(x, dtype=torch.double), torch.ones(3).long(), 1)
        for x in ([0.2, 0.6, 0.4], [0.9, 0.5, 0.1])
    )
    assert float((t.exp() * (t - s)).sum()) == pytest.approx(0.0956754, rel=1e-6)


# -------------------------------------------------------------------------------------- properties


def fitting(name: str) -> str:
    return "gfocal" if name in ("ld",) else "atss"


@every
def test_equal_networks_have_no_loss(name: str) -> None:
    lesson = lesson_of(fitting(name))
    out = lesson.teacher.out
    same = replace(
        out, scores=out.scores.clone().requires_grad_(), boxes=out.boxes.clone().requires_grad_()
    )
    sites = dense_sites(same, out, lesson.assigned, lesson.objects)
    equal = replace(lesson, student=Trace(same), sites=sites)
    terms = terms_of(DENSE[name](), equal)
    for key, term in terms.items():
        assert abs(float(term.total.detach())) < 1e-12, key
    combine(terms).backward()
    for leaf in (same.scores, same.boxes):
        assert leaf.grad is None or float(leaf.grad.abs().max()) < 1e-12


@pytest.mark.parametrize("name", ["ild", "bckd", "ld"])
@pytest.mark.parametrize("variant", ["reference", "paper"])
def test_losses_of_priors_add_up_to_the_terms(name: str, variant: str) -> None:
    """They are what maps of a loss show."""
    lesson, method = lesson_of(fitting(name)), DENSE[name](variant=variant)
    terms = {key.split("/")[-1]: term for key, term in terms_of(method, lesson).items()}
    for key, losses in method.prior_losses().items():
        rows = losses(lesson.sites)
        assert rows.shape == (lesson.student.out.scores.flatten(0, 1).shape[0],)
        torch.testing.assert_close(rows.sum(), terms.pop(key).total)
    assert not terms


@every
def test_only_the_student_has_a_gradient(name: str) -> None:
    lesson = lesson_of(fitting(name))
    loss = combine(terms_of(DENSE[name](), lesson))
    loss.backward()
    out = lesson.student.out
    slopes = [leaf.grad for leaf in (out.scores, out.boxes) if leaf.grad is not None]
    assert slopes and all(slope.isfinite().all() for slope in slopes) and float(loss.detach()) > 0
    assert lesson.teacher.out.scores.grad is None


@every
@pytest.mark.parametrize("counts", [(0, 0), (1,), (0, 2)])
def test_images_without_boxes(name: str, counts: tuple[int, ...]) -> None:
    lesson = lesson_of(fitting(name), counts)
    terms = terms_of(DENSE[name](), lesson)
    combine(terms).backward()
    for leaf in (lesson.student.out.scores, lesson.student.out.boxes):
        assert leaf.grad is None or leaf.grad.isfinite().all()
    assert all(term.total.isfinite() for term in terms.values())


@every
def test_extreme_logits_stay_finite(name: str) -> None:
    lesson = lesson_of(fitting(name))
    for size in (20.0, 60.0, 1e4):
        out = replace(lesson.student.out, scores=size * lesson.student.out.scores.sign())
        sites = dense_sites(out, lesson.teacher.out, lesson.assigned, lesson.objects)
        terms = terms_of(DENSE[name](), replace(lesson, student=Trace(out), sites=sites))
        assert all(term.total.isfinite() for term in terms.values())


@every
def test_a_dense_method_is_refused_for_images_of_one_class(name: str) -> None:
    method = DENSE[name]().build(NOWHERE)
    with pytest.raises(UserError, match="compares the networks at site"):
        Pupil(Tapped(torch.nn.Identity()), method, Classification(5))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_logit_method_speaks_at_the_class_scores(family: str) -> None:
    lesson = lesson_of(family)
    for preset in (
        presets.tld(),
        presets.kd(temperature=4),
        presets.mse(),
        presets.dist(),
        presets.lskd(),
        presets.bcd(),
        presets.mld(),
        presets.ps(),
        presets.ttm(),
        presets.dkd(),
        presets.ats(),
    ):
        for site in ("class", "class_main", "class_rest", "class_gated"):
            terms = make_method((replace(preset, sites=(site,)),), NOWHERE)(lesson)
            assert all(t.total.isfinite() for t in terms.values()), (preset.name, site)


def softmax(row: list[float]) -> list[float]:
    powers = [math.exp(z - max(row)) for z in row]
    return [power / sum(powers) for power in powers]


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("site", ["class", "class_main"])
def test_dkd_compares_priors_that_have_a_class(site: str) -> None:
    """Background has no target class to split from the others."""
    lesson = lesson_of("atss")
    loop, tau = Loop(lesson), 2.0
    target, rest = 0.0, 0.0
    for n, p in loop.all:
        if (label := loop.labels[n][p]) >= 0:
            rows = [[z / tau for z in scores[n][p]] for scores in loop.scores]
            hits = [softmax(row)[label] for row in rows]
            target += tau**2 * divergence(*[[hit, 1 - hit] for hit in hits[::-1]])
            others = [softmax([z for c, z in enumerate(row) if c != label]) for row in rows]
            rest += tau**2 * divergence(*others[::-1])
    assert target > 0 and rest > 0
    method = presets.dkd(temperature=tau, alpha=1, beta=8, sites=(site,))
    terms = make_method((method,), NOWHERE)(lesson)
    found = {name: (float(term.mean().detach()), term.weight) for name, term in terms.items()}
    assert found[f"{site}/target"] == (pytest.approx(target / loop.mass, rel=1e-9), 1)
    assert found[f"{site}/rest"] == (pytest.approx(rest / loop.mass, rel=1e-9), 8)


def test_sites_of_bins_need_bins() -> None:
    assert set(lesson_of("gfocal").sites) == set(SITES)
    assert not any(name.startswith("edge") for name in lesson_of("fcos").sites)


def test_class_site_against_a_loop() -> None:
    lesson = lesson_of("retinanet")
    loop, site = Loop(lesson), lesson.sites["class"]
    assert site.target is not None and site.weight is not None and site.mass is not None
    assert site.target.tolist() == [label for row in loop.labels for label in row]
    assert site.weight.tolist() == [float(i != -2) for row in loop.index for i in row]
    assert float(site.mass) == loop.mass
    main = lesson.sites["class_main"].weight
    assert main is not None and main.tolist() == [float(i >= 0) for row in loop.index for i in row]
    gates = lesson.sites["class_gated"].weight
    assert gates is not None
    assert gates.tolist() == [float(loop.kept(n, p, True)) for n, p in loop.all]


def test_images_without_labels_are_compared() -> None:
    batch = replace(some_batch(1, 2), target=None)
    student, teacher = outputs("gfocal", batch, 1), outputs("gfocal", batch, 2)
    lesson = Detection(5).lesson(Trace(student), Trace(teacher), batch, CLOCK, None)
    for name in ("bckd", "ld", "ild"):
        terms = terms_of(DENSE[name](), lesson)
        assert all(t.total.isfinite() for t in terms.values())
    whole = terms_of(DENSE["bckd"](variant="paper"), lesson)
    assert all(float(term.total.detach()) > 0 for term in whole.values())
    assert isinstance(next(iter(whole.values())), Term)
