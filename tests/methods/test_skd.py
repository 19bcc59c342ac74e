"""SKD: similarities of cells in plain loops, and what each player of the critic learns from."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segment_room import CLASSES, EXAMPLE, SIZE, SegmentRoom, leaves, rows
from stillhouse.distributed import combine
from stillhouse.errors import UserError
from stillhouse.functional.adversarial import gradient_penalty
from stillhouse.functional.pairwise import cell_maxima, cosine_matrix, pairwise_difference
from stillhouse.methods.setting import Setting
from stillhouse.methods.skd import SKD
from stillhouse.models.critic import Critic, SelfAttention
from stillhouse.types import Clock, Lesson, Terms, Trace
from tiny import Net

FORMS = ("hinge", "wgan")
each_form = pytest.mark.parametrize("form", FORMS)


def adversarial(form: Any, **options: Any) -> SegmentRoom:
    """With a critic whose attention does something."""
    room = SegmentRoom(SKD(adversarial=form, **options))
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in room.method.adversary.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=random, dtype=p.dtype))
    return room


def slopes(module: nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters()]


# -------------------------------------------------------------------------------- the cells of maps


def test_the_golden_value_of_all_pairs() -> None:
    student = torch.tensor([[[[0.0, 1], [2, 3]], [[1, -1], [0, 2]]]], dtype=torch.double)
    teacher = torch.tensor([[[[1.0, 1], [0, 2]], [[-1, 3], [2, 0]]]], dtype=torch.double)
    for grid in (2, 0.5):
        cells = (cell_maxima(maps, grid) for maps in (student, teacher))
        assert float(pairwise_difference(*cells)) == pytest.approx(0.1694832, abs=5e-8)


def by_hand(student: Any, teacher: Any, cells: list[tuple[range, range]]) -> float:
    """For one image."""

    def vectors(maps: Any) -> list[list[float]]:
        return [[max(c[y][x] for y in ys for x in xs) for c in maps] for ys, xs in cells]

    def cosines(maps: Any) -> list[float]:
        found = vectors(maps)
        lengths = [math.sqrt(sum(v * v for v in f)) for f in found]
        return [
            sum(p * q for p, q in zip(f, g, strict=True)) / a / b
            for f, a in zip(found, lengths, strict=True)
            for g, b in zip(found, lengths, strict=True)
        ]

    pairs = zip(cosines(student), cosines(teacher), strict=True)
    return sum((s - t) ** 2 for s, t in pairs) / len(cells) ** 2


@pytest.mark.parametrize("variant", ["paper", "reference"])
@pytest.mark.parametrize(("grid", "height", "width"), [(2, 2, 3), (0.5, 2, 3), (0.25, 1, 1)])
def test_values_are_those_of_the_formula(
    variant: Any, grid: float, height: int, width: int
) -> None:
    room = SegmentRoom(SKD(3.0, grid, variant))
    lesson = room.lesson()
    cells = [
        (range(y, y + height), range(x, x + width))
        for y in range(0, SIZE[0], height)
        for x in range(0, SIZE[1], width)
    ]
    pair = [trace.taps["last"].tolist() for trace in (lesson.student, lesson.teacher)]
    want = sum(by_hand(s, t, cells) for s, t in zip(*pair, strict=True)) / 3
    term = room.terms(lesson)["last"]
    assert float(term.mean().detach()) == pytest.approx(want, rel=1e-9)
    assert term.weight == 3 and float(term.mass) == 3 and want > 0.01


def test_a_share_leaves_a_rest_of_smaller_cells() -> None:
    maps = torch.arange(35.0).view(1, 1, 5, 7)
    assert cell_maxima(maps, 0.5).tolist() == [[[9, 12, 13, 23, 26, 27, 30, 33, 34]]]
    assert cell_maxima(maps, 3).shape == (1, 1, 9)
    assert cell_maxima(maps, 9).shape == (1, 1, 81)


def test_the_norm_has_a_gradient_in_the_paper_only() -> None:
    maps = torch.randn(1, 3, 4, dtype=torch.double, requires_grad=True)
    found = [cosine_matrix(maps, constant_norm=flag) for flag in (False, True)]
    torch.testing.assert_close(found[0], found[1])
    free, fixed = (torch.autograd.grad(x[0, 0, 1:].sum(), maps)[0] for x in found)
    # the gradient of a cosine has no component along the vector itself
    assert abs(float((free[0, :, 0] * maps.detach()[0, :, 0]).sum())) < 1e-12
    assert abs(float((fixed[0, :, 0] * maps.detach()[0, :, 0]).sum())) > 0.1
    length = maps.detach().norm(dim=1, keepdim=True)
    plain = maps / length
    (want,) = torch.autograd.grad((plain.mT @ plain)[0, 0, 1:].sum(), maps)
    torch.testing.assert_close(fixed, want)


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_empty_cells_have_finite_gradients(variant: Any) -> None:
    room = SegmentRoom(SKD(variant=variant))
    lesson = room.lesson(size=0.0)
    combine(room.terms(lesson)).backward()
    assert float(lesson.student.taps["last"].grad.abs().sum()) == 0


def test_images_count_by_their_weight() -> None:
    room = SegmentRoom(SKD())
    weight = torch.tensor([1.0, 0.0, 2.0], dtype=torch.double)
    lesson = room.lesson(weight=weight)
    first, last = (room.terms(rows(lesson, [n]))["last"].mean() for n in (0, 2))
    torch.testing.assert_close(room.terms(lesson)["last"].mean(), (first + 2 * last) / 3)


# --------------------------------------------------------------------------------------- the critic


def parts_of(room: SegmentRoom, lesson: Lesson) -> tuple[Tensor, Tensor]:
    """Class maps of student and teacher with the image, resized by hand."""
    images = F.interpolate(lesson.student.taps["@input"], SIZE, mode="bilinear", align_corners=True)
    student, teacher = (
        torch.cat((trace.out.logits.softmax(1), images), 1)
        for trace in (lesson.student, lesson.teacher)
    )
    return student, teacher.detach()


@each_form
def test_both_losses_are_those_of_the_formula(form: str) -> None:
    room = adversarial(form, adversarial_weight=0.5, critic_weight=0.25, penalty=3.0)
    room.method.eval()  # whose spectral norms stand still
    lesson = room.lesson(clock=Clock(0, 100, 50))
    terms = room.terms(lesson)
    critic: Critic = room.method.adversary.critic
    student, teacher = parts_of(room, lesson)
    fake, real = critic(student.detach()), critic(teacher)
    want = (1 - real).relu() + (1 + fake).relu()
    if form == "wgan":
        share = torch.rand(3, generator=torch.Generator().manual_seed(0)).double()
        penalties = []
        for n in range(3):
            mixed = share[n] * teacher[n] + (1 - share[n]) * student[n]
            leaf = mixed.detach()[None].requires_grad_()
            (slope,) = torch.autograd.grad(critic(leaf).sum(), leaf)
            penalties.append((slope[0, :CLASSES].norm() - 1) ** 2)
        want = fake - real + 3 * torch.stack(penalties)
    torch.testing.assert_close(terms["critic"].mean(), want.mean(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(terms["holistic"].mean(), -critic(student).mean())
    assert [terms[name].weight for name in ("holistic", "critic")] == [0.5, 0.25]
    assert list(terms) == ["last", "holistic", "critic"]


@each_form
def test_each_player_has_the_gradient_of_its_own_loss(form: str) -> None:
    room = adversarial(form)
    critic = room.method.adversary.critic
    lesson = room.lesson()
    terms = room.terms(lesson)
    terms["holistic"].total.backward()
    logits = lesson.student.out.logits
    assert float(logits.grad.abs().sum()) > 0
    assert all(p.grad is None for p in critic.parameters())
    logits.grad = None
    room.terms(lesson)["critic"].total.backward()
    assert logits.grad is None and lesson.teacher.out.logits.grad is None
    for name, p in critic.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
        # a constant adds nothing to a difference of scores, nor to a slope
        assert p.grad.abs().sum() > 0 or form == "wgan" or "bias" in name, name


def test_the_penalty_is_differentiated_twice() -> None:
    """Its gradient to the critic is that of finite differences."""
    torch.manual_seed(0)
    critic = Critic(3, (8, 8), width=2).double().eval()
    nn.init.constant_(critic.layers[-2].factor, 0.5)
    maps = torch.randn(2, 3, 8, 8, dtype=torch.double)
    names, values = zip(*critic.named_parameters(), strict=True)

    def loss(*parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        return gradient_penalty(
            lambda x: torch.func.functional_call(critic, given, (x,)), maps
        ).sum()

    found = torch.autograd.grad(loss(*values), values, allow_unused=True)
    random = torch.Generator().manual_seed(1)
    for index, (value, slope) in enumerate(zip(values, found, strict=True)):
        way = torch.randn(value.shape, generator=random, dtype=torch.double)
        moved = [
            [v.detach() + (1e-5 * sign * way if k == index else 0) for k, v in enumerate(values)]
            for sign in (1, -1)
        ]
        want = float((loss(*moved[0]) - loss(*moved[1])).detach()) / 2e-5
        got = 0.0 if slope is None else float((slope * way).sum())
        assert got == pytest.approx(want, rel=1e-5, abs=1e-7), names[index]
    with torch.no_grad():
        assert gradient_penalty(critic, maps).isfinite().all()


@each_form
def test_the_critic_learns_to_tell_them_apart(form: str) -> None:
    room = adversarial(form, weight=0.0, penalty=1.0)
    lesson = room.lesson(size=3.0)
    optimiser = torch.optim.Adam(room.method.parameters(), 2e-3)
    scores = []
    for _ in range(30):
        optimiser.zero_grad()
        terms = room.terms(lesson)
        terms["critic"].mean().backward()
        optimiser.step()
        scores.append(float(terms["critic"].mean().detach()))
    assert scores[-1] < scores[0] - 0.1


@each_form
def test_images_are_scored_apart(form: str) -> None:
    """Also with weights; the random points of the penalty are those of the images that count."""
    weight = torch.tensor([1.0, 0.0, 2.0], dtype=torch.double)
    room = adversarial(form)
    room.method.eval()
    lesson = room.lesson(weight=weight)
    whole, kept = room.terms(lesson), room.terms(rows(lesson, [0, 2]))
    for name in whole:
        torch.testing.assert_close(whole[name].mean(), kept[name].mean(), rtol=1e-9, atol=1e-12)


@each_form
def test_no_images_at_all(form: str) -> None:
    room = adversarial(form)
    lesson = room.lesson(0)
    terms = room.terms(lesson)
    assert all(float(t.total.detach()) == float(t.mass) == 0 for t in terms.values())
    combine(terms).backward()
    assert all(slope.isfinite().all() for slope in slopes(room.method))
    assert all(leaf.grad is not None for leaf in leaves(lesson))


def test_the_ramp_is_of_the_student_s_terms() -> None:
    room = SegmentRoom(SKD(adversarial="hinge", warmup=4.0))
    terms = room.terms(room.lesson(clock=Clock(0, 100, 10)))
    assert terms["last"].weight == 2.5 and terms["critic"].weight == 0.1
    assert terms["holistic"].weight == pytest.approx(0.001 / 4)


def test_the_critic_has_a_group_of_its_own_and_is_saved() -> None:
    room, other = adversarial("hinge"), SegmentRoom(SKD(adversarial="hinge"))
    assert SegmentRoom(SKD()).method.groups() == {}
    assert set(room.method.groups()) == {"critic"}
    assert [*room.method.groups()["critic"]] == [*room.method.parameters()]
    lesson = room.lesson()
    for _ in range(3):
        room.terms(lesson)  # the vectors of spectral norms move on
    other.method.load_state_dict(room.method.state_dict())

    def values(terms: Terms) -> list[float]:
        return [float(term.mean().detach()) for term in terms.values()]

    assert values(room.terms(lesson)) == values(other.terms(lesson))


def test_the_networks_themselves_give_the_taps() -> None:
    room = SegmentRoom(SKD(adversarial="wgan"))
    assert room.method.student_taps == ("last", "@input") and room.method.teacher_taps == ("last",)
    from stillhouse.models.taps import Tapped

    images = torch.randn(2, 3, 16, 24, dtype=torch.double)
    student = Tapped(room.student, room.method.student_taps, (EXAMPLE,))(images)
    teacher = Tapped(room.teacher, room.method.teacher_taps, (EXAMPLE,))(images)
    assert torch.equal(student.taps["@input"], images)
    lesson = Lesson(student, teacher, {}, Clock(0, 10, 5))
    combine(room.terms(lesson)).backward()
    assert all(p.grad is not None for p in room.student.parameters())
    assert all(p.grad is None for p in room.teacher.parameters())


# ----------------------------------------------------------------------------- the critic's network


def test_a_critic_is_as_deep_as_its_maps_allow() -> None:
    depths = {(65, 65): 4, (32, 40): 4, (31, 40): 3, (8, 6): 1, (9, 8): 2, (2, 9): 1}
    for size, depth in depths.items():
        critic = Critic(5, size, width=2)
        assert sum(isinstance(layer, nn.LeakyReLU) for layer in critic.layers) == depth
        attentions = sum(isinstance(layer, SelfAttention) for layer in critic.layers)
        assert attentions == min(2, depth)
        assert critic(torch.randn(3, 5, *size)).shape == (3,)
    with pytest.raises(UserError, match="class maps of 2 x 2 pixels or more, got 1 x 7"):
        Critic(5, (1, 7))


def test_attention_starts_as_an_identity_and_mixes_all_places() -> None:
    torch.manual_seed(0)
    block = SelfAttention(8)
    maps = torch.randn(2, 8, 3, 4)
    assert torch.equal(block(maps), maps)
    nn.init.ones_(block.factor)
    found = block(maps)
    query, key, value = (layer(maps).flatten(2) for layer in (block.query, block.key, block.value))
    n, p = 1, 5
    scores = [float((query[n, :, p] * key[n, :, q]).sum().detach()) for q in range(12)]
    shares = torch.tensor(scores).softmax(0)
    want = maps.flatten(2)[n, :, p] + sum(shares[q] * value[n, :, q] for q in range(12))
    torch.testing.assert_close(found.flatten(2)[n, :, p], want)


def test_layers_have_a_spectral_norm_of_1() -> None:
    critic = Critic(4, (8, 8), width=4)
    for _ in range(50):
        critic(torch.randn(1, 4, 8, 8))
    weight = critic.layers[0].weight.flatten(1)
    assert float(torch.linalg.matrix_norm(weight, 2).detach()) == pytest.approx(1, abs=1e-3)


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": 1.0}, "`grid` must be a whole number of 2 or more cells, or a share"),
        ({"grid": 2.5}, "`grid` must be a whole number"),
        ({"grid": 0.0}, "`grid` must be a whole number"),
        ({"penalty": -1.0}, "`penalty` must be non-negative"),
        ({"adversarial_weight": -1.0}, "`adversarial_weight` must be non-negative"),
        ({"weight": 0.0}, "`weight` is 0 without a critic; set adversarial, or a weight above 0"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SKD(**options)


def test_a_critic_needs_class_maps() -> None:
    student, teacher = Net(4), Net(8)
    setting = Setting(student, teacher, torch.zeros(2, 3, 12, 12))
    spec = SKD(pairs=(("body", "body"),))
    assert spec.build(setting).student_taps == ("body",)
    with pytest.raises(UserError, match="segmentation needs"):
        replace(spec, adversarial="hinge").build(setting)


def test_a_share_needs_maps_of_like_sizes() -> None:
    room = SegmentRoom(SKD())
    teacher = copy.deepcopy(room.teacher)
    teacher.body.stride = (1, 1)
    setting = Setting(room.student, teacher, torch.zeros(1, 3, 14, 20, dtype=torch.double))
    with pytest.raises(UserError, match=r"into 2 x 3 cells and the teacher's 'last' into 3 x 2; "):
        SKD(grid=0.5).build(setting)
    SKD(grid=2).build(setting)


def test_maps_of_other_sizes_have_the_same_cells() -> None:
    room = SegmentRoom(SKD(grid=3))
    lesson = room.lesson()
    larger = F.interpolate(lesson.teacher.taps["last"].detach(), scale_factor=2, mode="nearest")
    found = room.terms(replace(lesson, teacher=Trace(None, {"last": larger})))["last"]
    assert found.total.isfinite() and float(found.total.detach()) > 0
