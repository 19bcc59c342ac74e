"""How sentences write numbers, networks and lists of names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stillhouse.explain.roles import CONTROL, STUDENT, TEACHER

if TYPE_CHECKING:
    from stillhouse.explain.compared import Compared, NetworkOutputs

NO_VALUE = "undefined"
METRICS = {
    "top1": "Top-1 accuracy",
    "top5": "Top-5 accuracy",
    "loss": "Loss",
    "calibration_error": "ECE",
    "map": "mAP",
    "of1": "OF1",
    "cf1": "CF1",
    "macro_f1": "Macro F1",
    "classes_without_positives": "Classes without positives",
    "ap": "AP",
    "ap50": "AP50",
    "ap75": "AP75",
    "ap_small": "AP small",
    "ap_medium": "AP medium",
    "ap_large": "AP large",
    "ar1": "AR1",
    "ar10": "AR10",
    "ar100": "AR100",
    "box_ap": "Box AP",
    "boundary_ap": "Boundary AP",
    "miou": "mIoU",
    "accuracy": "Pixel accuracy",
    "mean_accuracy": "Mean accuracy of classes",
    "boundary_iou": "Boundary IoU",
    "classes": "Classes that occur",
    "images": "Images",
    "objects": "Objects",
    "detections": "Detections",
}
COUNTS = (
    "classes_without_positives",
    "classes",
    "images",
    "objects",
    "detections",
)  # metrics that are whole numbers
PROTOCOLS = {"_oracle": ", oracle top-k", "_top3": ", top 3"}


def without_float_error(value: float) -> float:
    """A number with twelve digits, so that 100 * 0.07005 and 7.005 are rounded to the same text."""
    return float(f"{value:.12g}")


def percent(share: float | None) -> str:
    """0.8312 as `83.1 %`."""
    return NO_VALUE if share is None else f"{without_float_error(100 * share):.1f} %"


def signed_points(share: float) -> str:
    """A difference of shares in percentage points: 0.0312 as `+3.1`."""
    return f"{without_float_error(100 * share):+.1f}"


def decimal(value: float | None, digits: int = 2) -> str:
    """A number with a fixed number of digits after the point."""
    if value is None:
        return NO_VALUE
    return f"{round(value, digits) + 0.0:.{digits}f}"  # 0.0 removes the sign of -0.0


def to_percent(share: float | None) -> float | None:
    """A share in percent, for a cell of a table."""
    return None if share is None else 100 * share


def metric_name(key: str) -> str:
    """The name of a metric in a title: `top1` as `Top-1 accuracy`; an unknown key as it is."""
    for suffix, protocol in PROTOCOLS.items():
        if key.endswith(suffix) and key.removesuffix(suffix) in METRICS:
            return METRICS[key.removesuffix(suffix)] + protocol
    return METRICS.get(key, key)


def count_of(number: int, noun: str) -> str:
    """A number with its noun: `1 image`, `1,500 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def with_article(outputs: NetworkOutputs) -> str:
    """`the student`; the name of a method or run as it is."""
    name = outputs.name
    return f"the {name}" if name in (TEACHER, CONTROL, STUDENT) else name


def baseline_name(predictions: Compared[Any]) -> str:
    """The network that the student is compared with: `the control`; empty without one."""
    return "" if predictions.control is None else with_article(predictions.control)


def sentence_start(text: str) -> str:
    """`The student` for `the student`; the name of a method keeps its case."""
    return f"T{text[1:]}" if text.startswith("the ") else text


def join_names(names: Sequence[str], most: int = 5) -> str:
    """The first few names and the number of the others; `none` for an empty list."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"


def with_control(predictions: Compared[Any], values: Mapping[str, str], unit: str = "") -> str:
    """The student's value with the control's in brackets: `83.1 % of images (control 74.0 %)`."""
    student, control = predictions.student.name, predictions.control
    if control is None or control.name == student or control.name not in values:
        return f"{values[student]}{unit}"
    return f"{values[student]}{unit} ({control.name} {values[control.name]})"
