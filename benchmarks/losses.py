"""What each logit preset costs, forward and backward, beside plain KD in four lines of torch.

`.venv/bin/python benchmarks/losses.py` prints a table and writes benchmarks/results/losses.csv. All
rows of a shape are timed in turn, again and again, and the median of the ratios to plain KD of the
same round is given: this says what a preset costs whatever else the machine is doing.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rows import Row, options, write
from stillhouse.objectives.presets import LogitPresetSpec
from stillhouse.spec import members

SHAPES = ((64, 100), (256, 1000), (4096, 80))
ROUNDS, WARMUP = 31, 3
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain_kd(student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
    """KD at temperature 4 as everybody writes it."""
    s, t = F.log_softmax(student / 4, 1), F.softmax(teacher / 4, 1)
    return F.kl_div(s, t, reduction="batchmean") * 16


def losses() -> dict[str, Loss]:
    """Plain KD, then every logit preset at its defaults."""
    made = {preset.name: preset() for preset in members(LogitPresetSpec)}  # type: ignore[attr-defined]
    return {"plain": plain_kd} | made


def seconds(loss: Loss, student: Tensor, teacher: Tensor, target: Tensor) -> float:
    """Processor time of one forward and backward."""
    student.grad = None
    since = time.process_time()
    loss(student, teacher, target).backward()
    return time.process_time() - since


def measure(shape: tuple[int, int], rounds: int, warmup: int) -> dict[str, float]:
    """Median ratio to plain KD of the same round, by loss."""
    torch.manual_seed(0)
    student, teacher = (3 * torch.randn(shape) for _ in range(2))
    student.requires_grad_()
    target = torch.randint(shape[1], (shape[0],))
    ratios: dict[str, list[float]] = {}
    for number in range(warmup + rounds):
        spent = {name: seconds(loss, student, teacher, target) for name, loss in losses().items()}
        if number >= warmup:
            for name, value in spent.items():
                ratios.setdefault(name, []).append(value / spent["plain"])
    return {name: statistics.median(values) for name, values in ratios.items()}


def main(argv: Sequence[str] | None = None) -> None:
    chosen = options(argv, __doc__, "losses", rounds=ROUNDS, warmup=WARMUP)
    torch.set_num_threads(1)
    table = {shape: measure(shape, chosen.rounds, chosen.warmup) for shape in SHAPES}
    names = list(table[SHAPES[0]])
    print("loss      " + "".join(f"{f'{n} x {c}':>14}" for n, c in SHAPES))
    for name in names:
        print(f"{name:<10}" + "".join(f"{table[shape][name]:>14.2f}" for shape in SHAPES))
    rows: list[Row] = [
        {
            "loss": name,
            "rows": rows,
            "classes": classes,
            "ratio_to_plain_kd": f"{ratio:.3f}",
            "rounds": chosen.rounds,
        }
        for (rows, classes), found in table.items()
        for name, ratio in found.items()
    ]
    write(chosen.out, rows)
    print(f"written to {chosen.out}")


if __name__ == "__main__":
    main()
