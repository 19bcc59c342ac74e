"""Which columns of a detector's logits are the classes of the data."""

from __future__ import annotations

from stillhouse.errors import UserError

COCO_IDS = 91  # the background and the ids 1 to 90 of COCO's categories
UNUSED = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # ids that COCO skips
COLUMNS = ("coco91", "background")


def read_columns(name: str, network: str, classes: int) -> tuple[int, tuple[int, ...]]:
    """The number of columns of a network, and the column of each class.

    `coco91`: the 80 classes of COCO in the order of their ids, among the 91 columns of
    torchvision's published weights. `background`: a first column that no object has, as in
    torchvision's examples for data of one's own.
    """
    if name == "background":
        return classes + 1, tuple(range(1, classes + 1))
    if name != "coco91":
        raise UserError(f"{network}: columns must be {' or '.join(COLUMNS)}, got {name!r}")
    columns = tuple(column for column in range(1, COCO_IDS) if column not in UNUSED)
    if classes != len(columns):
        raise UserError(
            f"{network}: columns=coco91 is for the {len(columns)} classes of COCO, but the data "
            f"have {classes}; leave it out, and train the network on these"
        )
    return COCO_IDS, columns
