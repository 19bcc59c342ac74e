"""Deliberate bugs, one at a time, and whether the tests of their place notice them.

`.venv/bin/python benchmarks/mutations.py` copies the package, breaks one line of the copy, and runs
the named test files against it. A bug is caught if a test fails. With `--only NAME ...` it runs
these alone.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from rows import RESULTS, Row, write

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "stillhouse"
FAILED = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
TEST_FAILED = 1  # pytest's exit code; others mean that it could not run the tests


class Mutation(NamedTuple):
    """A line of the package, what replaces it, and the test files that should fail."""

    name: str
    file: str  # in src/stillhouse
    old: str
    new: str
    tests: str  # in tests, separated by spaces


MUTATIONS = (
    # --- losses over ranks
    Mutation(
        "mass_of_one_rank",
        "distributed.py",
        "        dist.all_reduce(mass)\n",
        "        pass\n",
        "test_ranks.py",
    ),
    Mutation(
        "gather_without_factor",
        "distributed.py",
        "grad.narrow(0, *ctx.span) * world_size()",
        "grad.narrow(0, *ctx.span)",
        "test_ranks.py",
    ),
    Mutation(
        "shared_mass_counted_by_each_rank",
        "distributed.py",
        "return mass / world_size() if term.shared else mass",
        "return mass",
        "test_ranks.py test_ranks_methods.py",
    ),
    Mutation(
        "total_without_mass_accepted",
        "distributed.py",
        "        if size > 0:\n",
        "        if size > 1e9:\n",
        "test_ranks.py tasks/test_classification.py engine/test_train.py",
    ),
    # --- objectives and functions
    Mutation(
        "mean_for_a_sum",
        "objectives/reduction.py",
        "return Term((self.flatten(losses) * weight).sum(), weight.sum())",
        "return Term((self.flatten(losses) * weight).mean(), weight.sum())",
        "objectives/test_golden.py",
    ),
    Mutation(
        "unnormalised_weight",
        "functional/distance.py",
        "(x * weight).sum(-1, keepdim=True) / weight.sum().clamp(min=1e-12)",
        "(x * weight).sum(-1, keepdim=True)",
        "functional/test_distance.py",
    ),
    Mutation(
        "softmax_over_the_wrong_axis",
        "objectives/activation.py",
        "F.log_softmax(logits.mT / temperature, -1)",
        "F.log_softmax(logits.mT / temperature, -2)",
        "objectives/test_presets.py objectives/test_contract.py",
    ),
    Mutation(
        "half_precision_kept",
        "functional/dtype.py",
        "return x.to(torch.promote_types(x.dtype, torch.float32))",
        "return x",
        "functional/test_losses.py objectives/test_contract.py",
    ),
    Mutation(
        "mask_after_the_product",
        "functional/divergence.py",
        "(log_probability.exp() * values.masked_fill(impossible, 0)).sum(-1)",
        "(log_probability.exp() * values).masked_fill(impossible, 0).sum(-1)",
        "functional/test_divergence.py objectives/test_contract.py",
    ),
    Mutation(
        "temperature_not_squared",
        "objectives/logit.py",
        "factor = tau**2 if square else 1.0",
        "factor = tau if square else 1.0",
        "objectives/test_golden.py",
    ),
    Mutation(
        "gradient_reaches_the_teacher",
        "objectives/logit.py",
        "upcast(site.teacher.detach())",
        "upcast(site.teacher)",
        "objectives/test_contract.py",
    ),
    Mutation(
        "kl_in_the_other_direction",
        "functional/divergence.py",
        "return expectation(teacher, teacher - student)",
        "return expectation(student, student - teacher)",
        "functional/test_divergence.py",
    ),
    Mutation(
        "standardise_without_ddof",
        "objectives/preprocess.py",
        "correction = min(self.ddof, logits.shape[-1] - 1)",
        "correction = 0",
        "objectives/test_golden.py",
    ),
    Mutation(
        "pair_distances_over_all_entries",
        "functional/relation.py",
        "(len(rows) * (len(rows) - 1))",
        "(len(rows) * len(rows))",
        "functional/test_relation.py",
    ),
    # --- methods
    Mutation(
        "student_and_teacher_swapped",
        "tasks/images.py",
        "Site(logits(student), logits(teacher), target)",
        "Site(logits(teacher), logits(student), target)",
        "tasks/test_classification.py methods/test_contract.py",
    ),
    Mutation(
        "adversary_helps",
        "functional/gradient.py",
        "return -ctx.strength * grad, None",
        "return ctx.strength * grad, None",
        "functional/test_tensors.py methods/test_ctkd.py",
    ),
    Mutation(
        "feature_gradient_reaches_the_teacher",
        "methods/paired.py",
        "taps[self.teacher_taps[index]].detach()",
        "taps[self.teacher_taps[index]]",
        "methods/test_contract.py",
    ),
    Mutation(
        "acclimation_trains_the_student",
        "methods/acclimation.py",
        "student=site.teacher, teacher=site.student.detach()",
        "student=site.student, teacher=site.teacher.detach()",
        "methods/test_acclimation.py",
    ),
    Mutation(
        "row_weight_ignored_in_the_mass",
        "methods/terms.py",
        "Term((losses * counted).sum(), counted.sum(), factor)",
        "Term((losses * counted).sum(), counted.sum() * 0 + len(losses), factor)",
        "methods/test_contract.py methods/test_combined.py",
    ),
    Mutation(
        "label_share_ignored",
        "engine/pupil.py",
        "weight=share * value.weight",
        "weight=value.weight",
        "engine/test_pupil.py methods/test_build.py test_distiller_methods.py",
    ),
    Mutation(
        "trained_teacher_not_detached",
        "engine/pupil.py",
        "trace.detached() if trained else trace",
        "trace",
        "engine/test_pupil.py methods/test_acclimation.py",
    ),
    # --- engine
    Mutation(
        "average_of_weights_moves_by_the_decay",
        "engine/average.py",
        "1 - self.decay_at(step)",
        "self.decay_at(step)",
        "engine/test_average.py",
    ),
    Mutation(
        "random_state_not_restored",
        "engine/state.py",
        '    checkpoints.restore_random_state(saved["random"][rank()])\n',
        "",
        "engine/test_train.py runs/test_execute.py",
    ),
    Mutation(
        "tested_on_validation",
        "runs/training.py",
        "measure(session.task, network, session.measured(), session.hardware",
        "measure(session.task, network, session.val(), session.hardware",
        "runs/test_execute.py",
    ),
    Mutation(
        "accumulation_sums",
        "engine/train.py",
        "parts.sum() / run.accumulate",
        "parts.sum()",
        "engine/test_train.py",
    ),
    Mutation(
        "resume_without_the_optimiser",
        "engine/state.py",
        'group.optimiser.load_state_dict(saved["groups"][name])',
        "pass",
        "test_kill.py engine/test_train.py",
    ),
    Mutation(
        "resume_one_step_late",
        "engine/state.py",
        'int(saved["step"])',
        'int(saved["step"]) + 1',
        "engine/test_train.py test_kill.py",
    ),
    Mutation(
        "student_keeps_the_averaged_weights",
        "engine/average.py",
        "            _copy(before, tensors)\n",
        "            pass\n",
        "engine/test_average.py",
    ),
    Mutation(
        "milestone_one_step_late",
        "engine/schedules.py",
        "step >= round(epoch * steps_per_epoch)",
        "step > round(epoch * steps_per_epoch)",
        "engine/test_schedules.py",
    ),
    # --- teachers
    Mutation(
        "teacher_in_train_mode",
        "teachers/frozen.py",
        "        self.network.eval()  # the caller may have set train mode\n",
        "",
        "teachers/test_frozen.py",
    ),
    Mutation(
        "store_reads_another_view",
        "teachers/store/cached.py",
        "batch.views * self.store.identity.samples + batch.keys",
        "batch.keys",
        "teachers/store/test_cached.py",
    ),
    Mutation(
        "gate_open_at_chance",
        "tasks/images.py",
        "summary[self.headline] >= needed",
        "summary[self.headline] >= chance",
        "runs/test_gate.py tasks/test_classification.py",
    ),
    # --- data
    Mutation(
        "last_sample_left_out",
        "data/sampler.py",
        "samples = len(range(self.rank, self.samples, self.world))",
        "samples = len(range(self.rank, self.samples - 1, self.world))",
        "data/test_loader.py",
    ),
    Mutation(
        "order_of_seeds_ignored",
        "data/random.py",
        "state = _finalise((state ^ (number & _MASK)) + _GOLDEN)",
        "state ^= _finalise((number & _MASK) + _GOLDEN)",
        "data/test_random.py",
    ),
    Mutation(
        "same_order_each_epoch",
        "data/sampler.py",
        "derive_seed(self.seed, epoch)",
        "derive_seed(self.seed, 0)",
        "data/test_loader.py",
    ),
    Mutation(
        "ranks_share_samples",
        "data/sampler.py",
        "positions = torch.arange(self.rank, self.samples, self.world)",
        "positions = torch.arange(0, self.samples, self.world)",
        "data/test_loader.py",
    ),
    Mutation(
        "mean_not_divided_by_deviation",
        "data/transforms/chain.py",
        "sub_((mean / std)[:, None, None])",
        "sub_(mean[:, None, None])",
        "data/test_loader.py data/test_transforms.py",
    ),
    Mutation(
        "validation_images_stay_in_training",
        "data/holdout.py",
        "        kept[chosen] = False\n",
        "",
        "data/test_source.py data/test_stratify.py",
    ),
    # --- scores and what they mean
    Mutation(
        "ties_ranked_apart",
        "functional/ranking.py",
        "last[:-1] = ranked[1:] != ranked[:-1]",
        "last[:-1] = True",
        "functional/test_ranking.py",
    ),
    Mutation(
        "unlabelled_images_counted",
        "tasks/meters/accuracy.py",
        "images=known.sum()",
        "images=known.sum() * 0 + len(known)",
        "tasks/test_classification.py tasks/test_unlabelled.py",
    ),
    Mutation(
        "interval_without_root",
        "study/statistics.py",
        "* stdev(gains) / len(gains) ** 0.5\n",
        "* stdev(gains) / len(gains)\n",
        "study/test_statistics.py",
    ),
    Mutation(
        "holm_not_monotone",
        "study/statistics.py",
        "largest = max(largest, min(1.0, (len(ordered) - position) * p_values[name]))",
        "largest = min(1.0, (len(ordered) - position) * p_values[name])",
        "study/test_statistics.py",
    ),
    Mutation(
        "control_distils",
        "runs/execute.py",
        'control_recipe, folder / "control", session, None, resume=True',
        'recipe, folder / "control", session, loaded, resume=True',
        "runs/test_execute.py",
    ),
    # --- recipes
    Mutation(
        "digest_without_the_training",
        "recipes/load.py",
        "text = json.dumps(content, sort_keys=True)",
        'text = json.dumps({**content, "train": None}, sort_keys=True)',
        "recipes/test_load.py",
    ),
    Mutation(
        "digest_depends_on_the_engine",
        "recipes/load.py",
        'NOT_IN_DIGEST = ("engine", "title", "paper", "control", "study")',
        'NOT_IN_DIGEST = ("title", "paper", "control", "study")',
        "recipes/test_load.py",
    ),
    Mutation(
        "options_of_the_replaced_method_kept",
        "recipes/load.py",
        "            kept[key] = {}\n",
        "            kept[key] = old\n",
        "recipes/test_load.py",
    ),
)


def apply(mutation: Mutation, package: Path) -> None:
    """Break the place of a mutation in a copy of the package; ValueError unless there is one."""
    path = package / mutation.file
    text = path.read_text(encoding="utf-8")
    if (found := text.count(mutation.old)) != 1:
        raise ValueError(f"{mutation.name}: {mutation.file} has {found} places of {mutation.old!r}")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")


def check(mutation: Mutation | None, tests: Sequence[str]) -> tuple[str, float]:
    """The first test that fails with a mutation, or "" if all pass, and the seconds it took."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / PACKAGE.name
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
        if mutation is not None:
            apply(mutation, package)
        started = perf_counter()
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-p", "no:cacheprovider"]
        environment = {**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, *(f"tests/{name}" for name in tests)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    seconds = perf_counter() - started
    if done.returncode == 0:
        return "", seconds
    failed = FAILED.search(done.stdout)
    if done.returncode != TEST_FAILED or failed is None:
        raise RuntimeError(f"pytest could not run: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return failed[1], seconds


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [mutation.name for mutation in MUTATIONS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", default=names)
    parser.add_argument("--out", type=Path, default=RESULTS / "mutations.csv", help="the table")
    words = parser.parse_args(argv)
    chosen = [mutation for mutation in MUTATIONS if mutation.name in words.only]
    tests = sorted({name for mutation in chosen for name in mutation.tests.split()})
    if failed := check(None, tests)[0]:
        parser.exit(1, f"{failed} fails without a mutation\n")
    rows: list[Row] = []
    for mutation in chosen:
        failed, seconds = check(mutation, mutation.tests.split())
        rows.append(
            {
                "mutation": mutation.name,
                "file": mutation.file,
                "caught": "yes" if failed else "no",
                "first_failure": failed,
                "seconds": round(seconds, 1),
            }
        )
        print(f"{mutation.name:<40} {failed or 'NOT CAUGHT'}", flush=True)
    write(words.out, rows)
    caught = sum(row["caught"] == "yes" for row in rows)
    print(f"{caught} of {len(rows)} caught")


if __name__ == "__main__":
    main()
