"""What each logit preset costs, forward and backward, beside plain KD in four lines of torch.

`.venv/bin/python benchmarks/losses.py` prints a table and writes benchmarks/results/losses.csv. All
rows of a shape are timed in turn, again and again, and the median of the ratios to plain KD of the
same round is given: this says what a preset costs whatever else the machine is doing.
"""

from __future__ import annotations

import csv
import datetime
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.objectives.presets import LogitPresetSpec
from stillhouse.spec import members

SHAPES = ((64, 100), (256, 1000), (4096, 80))
ROUNDS = 31
RESULTS = Path(__file__).parent / "results" / "losses.csv"
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


def measure(shape: tuple[int, int]) -> dict[str, float]:
    """Median ratio to plain KD of the same round, by loss."""
    torch.manual_seed(0)
    student, teacher = (3 * torch.randn(shape) for _ in range(2))
    student.requires_grad_()
    target = torch.randint(shape[1], (shape[0],))
    ratios: dict[str, list[float]] = {}
    for number in range(ROUNDS + 3):
        spent = {name: seconds(loss, student, teacher, target) for name, loss in losses().items()}
        if number >= 3:  # the first rounds warm caches up
            for name, value in spent.items():
                ratios.setdefault(name, []).append(value / spent["plain"])
    return {name: statistics.median(values) for name, values in ratios.items()}


def main() -> None:
    torch.set_num_threads(1)
    where = f"{platform.machine()} {platform.system()}, one thread"
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    table = {shape: measure(shape) for shape in SHAPES}
    names = list(table[SHAPES[0]])
    print("loss      " + "".join(f"{f'{n} x {c}':>14}" for n, c in SHAPES))
    for name in names:
        print(f"{name:<10}" + "".join(f"{table[shape][name]:>14.2f}" for shape in SHAPES))
    with RESULTS.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["loss", "rows", "classes", "ratio_to_plain_kd", "rounds", "date", "torch", "machine"]
        )
        for (rows, classes), found in table.items():
            for name, ratio in found.items():
                line = [name, rows, classes, f"{ratio:.3f}", ROUNDS, day, torch.__version__, where]
                writer.writerow(line)
    print(f"written to {RESULTS}")


if __name__ == "__main__":
    main()
