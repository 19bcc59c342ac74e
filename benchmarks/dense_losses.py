"""What losses of dense logits cost, forward and backward, beside their plain formula in torch.

`.venv/bin/python benchmarks/dense_losses.py` prints a table and writes
benchmarks/results/dense_losses.csv. A loss and its plain formula are timed in turn, again and
again, and the median of the ratios is given. Memory is the most that is allocated at a time, in
tensors of the size of the logits, the gradient among them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from rows import Row, options, write
from stillhouse.functional.focal import focal
from stillhouse.objectives.presets.binary import BCD, MLD, TLD
from stillhouse.objectives.presets.relation import DIST
from stillhouse.objectives.presets.softmax import KD, MSE

SHAPE = (88000, 80)  # the anchors of eight images at 1333 x 800, by class
ROUNDS, WARMUP = 15, 2
Loss = Callable[[Tensor, Tensor], Tensor]


class Pair(NamedTuple):
    """A loss and the formula that anybody would write."""

    ours: Loss
    plain: Loss


def plain_tld(student: Tensor, teacher: Tensor) -> Tensor:
    """Binary cross-entropy with tempered targets."""
    q = (teacher / 0.5).sigmoid()
    return F.binary_cross_entropy_with_logits(student / 0.5, q, reduction="sum") / len(q) / 4


def plain_mld(student: Tensor, teacher: Tensor) -> Tensor:
    """Binary cross-entropy minus the teacher's entropy."""
    loss = F.binary_cross_entropy_with_logits
    entropy = loss(teacher, teacher.sigmoid(), reduction="sum")
    return (loss(student, teacher.sigmoid(), reduction="sum") - entropy) / len(student)


def plain_bcd(student: Tensor, teacher: Tensor) -> Tensor:
    """Binary cross-entropy times the difference of the probabilities."""
    q = teacher.sigmoid()
    losses = F.binary_cross_entropy_with_logits(student, q, reduction="none")
    return ((q - student.sigmoid()).abs() * losses).sum() / len(student)


def plain_kd(student: Tensor, teacher: Tensor) -> Tensor:
    """KL of tempered softmaxes."""
    s, t = F.log_softmax(student / 4, 1), F.softmax(teacher / 4, 1)
    return F.kl_div(s, t, reduction="batchmean") * 16


def plain_dist(student: Tensor, teacher: Tensor) -> Tensor:
    """Correlations of softmax probabilities along rows and along columns."""
    s, t = student.softmax(1), teacher.softmax(1)
    total = student.new_zeros(())
    for x, y in ((s, t), (s.mT, t.mT)):
        x, y = (z - z.mean(1, keepdim=True) for z in (x, y))
        total = total + 1 - F.cosine_similarity(x, y, dim=1).mean()
    return total


def classes(count: int) -> Tensor:
    """The class of every 200th row, -1 for the others: -> (N,)."""
    labels = torch.full((count,), -1)
    labels[::200] = 3
    return labels


def our_focal(student: Tensor, teacher: Tensor) -> Tensor:
    """The focal loss of a detector, which has no teacher."""
    return focal(student, classes(len(student)), student.new_ones(len(student)))


def plain_focal(student: Tensor, teacher: Tensor) -> Tensor:
    """The focal loss with a one-hot target."""
    hot = F.one_hot(classes(len(student)) + 1, student.shape[1] + 1)[:, 1:].to(student.dtype)
    p = student.sigmoid()
    losses = F.binary_cross_entropy_with_logits(student, hot, reduction="none")
    wrong = p * (1 - hot) + (1 - p) * hot
    return ((0.25 * hot + 0.75 * (1 - hot)) * wrong**2 * losses).sum()


PAIRS = {
    "tld": Pair(TLD(), plain_tld),
    "mld": Pair(MLD(), plain_mld),
    "bcd": Pair(BCD(), plain_bcd),
    "kd": Pair(KD(), plain_kd),
    "mse": Pair(MSE(), F.mse_loss),
    "dist": Pair(DIST(beta=1.0, gamma=1.0), plain_dist),
    "focal": Pair(our_focal, plain_focal),
}


def logits(shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Mostly background, as a detector has them: -> (N, C), (N, C)."""
    torch.manual_seed(0)
    student, teacher = (2 * torch.randn(shape) - 3 for _ in range(2))
    return student.requires_grad_(), teacher


def seconds(loss: Loss, student: Tensor, teacher: Tensor) -> float:
    """Processor time of one forward and backward."""
    student.grad = None
    since = time.process_time()
    loss(student, teacher).backward()
    return time.process_time() - since


def peak_bytes(function: Callable[[], object]) -> int:
    """The most bytes of tensors that a function has allocated at a time on a CPU."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        function()
    assert found.profiler is not None
    events = found.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = peak = 0
    for _, change in changes:
        now += change
        peak = max(peak, now)
    return peak


def copies(loss: Loss, student: Tensor, teacher: Tensor) -> float:
    """Peak of forward and backward, in tensors of the size of the logits."""
    student.grad = None
    peak = peak_bytes(lambda: loss(student, teacher).backward())
    return peak / (student.numel() * student.element_size())


def measure(pair: Pair, shape: tuple[int, int], rounds: int, warmup: int) -> Row:
    """The ratio of times, its range, and the memory of both."""
    at = logits(shape)
    ratios = []
    for number in range(warmup + rounds):
        ours, plain = (seconds(loss, *at) for loss in pair)
        if number >= warmup:
            ratios.append(ours / plain)
    return {
        "ratio_to_plain": f"{statistics.median(ratios):.3f}",
        "range": f"{min(ratios):.3f}-{max(ratios):.3f}",
        "copies": f"{copies(pair.ours, *at):.2f}",
        "copies_of_plain": f"{copies(pair.plain, *at):.2f}",
        "rounds": rounds,
    }


def main(argv: Sequence[str] | None = None, shape: tuple[int, int] = SHAPE) -> None:
    chosen = options(argv, __doc__, "dense_losses", rounds=ROUNDS, warmup=WARMUP)
    torch.set_num_threads(1)
    rows: list[Row] = []
    for name, pair in PAIRS.items():
        found = measure(pair, shape, chosen.rounds, chosen.warmup)
        rows.append({"loss": name, "rows": shape[0], "classes": shape[1], **found})
        print(f"{name:<8}" + "".join(f"{value!s:>14}" for value in found.values()))
    write(chosen.out, rows)
    print(f"written to {chosen.out}")


if __name__ == "__main__":
    main()
