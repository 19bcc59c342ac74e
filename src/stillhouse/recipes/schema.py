"""The schema of recipes: options, their types and defaults, and checks between options."""

from __future__ import annotations

from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo

from stillhouse.data.mixing import Mix
from stillhouse.data.mosaic import Mosaic
from stillhouse.data.transforms import Transform
from stillhouse.engine.devices import DeviceName, Precision
from stillhouse.engine.optimisers import SGD, Optimiser
from stillhouse.engine.schedules import ConstantSchedule, Schedule
from stillhouse.methods.catalogue import MethodSpec
from stillhouse.methods.control import CONTROL
from stillhouse.models.labelwise import HeadSpec
from stillhouse.objectives import presets
from stillhouse.recipes.splits import SplitSpec, UnlabelledSpec
from stillhouse.spec import BY_KIND, BY_NAME, require, spec
from stillhouse.tasks.catalogue import TaskSpec
from stillhouse.tasks.classification import ClassificationSpec

# ------------------------------------------------------------------------------- data and networks


@spec
class Data:
    """A data set, the transforms of its images, and the batch size."""

    name: str
    path: Path | None = None
    options: dict[str, Any] = field(
        default_factory=dict
    )  # of all splits; a split may override them
    train: SplitSpec = SplitSpec()
    val: SplitSpec = SplitSpec()
    test: SplitSpec = SplitSpec()
    # number or share of the samples of train that are used as val, and as many as test where the
    # data set has neither
    holdout: int | float = 0
    unlabelled: UnlabelledSpec | None = None  # training images without labels
    transforms: tuple[Transform, ...] = ()
    evaluation: tuple[Transform, ...] = ()
    # of the second view, for methods that need two; empty: `transforms`, RandAugment and Cutout
    strong: tuple[Transform, ...] = ()
    mix: Mix | None = None  # Mixup or CutMix of training batches
    mosaic: Mosaic | None = None  # joins training images with boxes or masks by four
    broken: Literal["skip", "fail"] | None = None  # image files; None: as the reader does, to fail
    max_pixels: int | None = None  # of one image; None: 89,478,485, a larger one is broken
    pad: int = 1  # images with boxes or masks are padded to a multiple of it
    mean: tuple[float, ...] | None = None  # None: that of the data set
    std: tuple[float, ...] | None = None
    batch: int = 64  # images per rank
    # in evaluation; None: `batch` for images with boxes or masks, at least 64 for others
    evaluation_batch: int | None = None
    group_by_aspect: bool = False  # images wider than high and others in batches of their own
    # different augmentations of an image, the same for all seeds; None: a new one in each epoch
    views: int | None = None
    repeats: int = 1  # copies of a sample in a step, each with another augmentation

    def __post_init__(self) -> None:
        require(self.batch >= 1, "batch", "at least 1", self.batch)
        held = self.holdout
        share = 0 <= held < 1 if isinstance(held, float) else held >= 0
        require(share, "holdout", "a count of at least 0, or a share in [0, 1)", held)
        require(self.repeats >= 1, "repeats", "at least 1", self.repeats)
        require(self.pad >= 1, "pad", "at least 1", self.pad)
        largest = self.max_pixels
        require(largest is None or largest >= 1, "max_pixels", "at least 1", largest)
        measured = self.evaluation_batch
        require(measured is None or measured >= 1, "evaluation_batch", "at least 1", measured)
        joined = "mix" if self.mix else "mosaic" if self.mosaic else ""
        if self.unlabelled is not None and joined:
            raise ValueError(
                f"{joined} joins images with their labels, but those of unlabelled have none; "
                "leave one of them out"
            )
        if self.repeats > 1 and self.group_by_aspect:
            raise ValueError(
                "repeats and group_by_aspect both choose the images of a batch; leave one of them "
                "out"
            )
        if self.repeats > 1 and self.views is not None:
            raise ValueError(
                "repeats needs new augmentations, but views limits their number; leave one of "
                "them out"
            )


Part = Literal["backbone", "neck", "head"]  # of a network


def split_parts(value: Any) -> Any:
    """The parts in a text such as `neck+head`; anything else as it is."""
    return tuple(part.strip() for part in value.split("+")) if isinstance(value, str) else value


@spec
class Network:
    """A network by name, and its weights."""

    name: str
    weights: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    head: Annotated[HeadSpec | None, BY_KIND] = None  # replaces its own classifier
    pretrained: Path | None = None  # pretrained weights, without those of another classifier
    # parts that start with the teacher's weights where names and shapes agree: neck+head
    inherit: Annotated[tuple[Part, ...], BeforeValidator(split_parts)] = ()


# --------------------------------------------------------------------------- training and teachers


@spec
class Training:
    """The length of a training, its optimisers and their schedule."""

    epochs: float = 10
    optimiser: Annotated[Optimiser, BY_KIND] = SGD(0.1)
    # optimisers of other parameters: method, critic, teacher, ...
    groups: dict[str, Annotated[Optimiser, BY_KIND]] = field(default_factory=dict)
    schedule: Annotated[Schedule, BY_KIND] = ConstantSchedule()
    # length of the schedule in epochs, if training stops before its end; None: `epochs`
    schedule_epochs: float | None = None
    accumulate: int = 1  # batches per optimiser step
    clip: float = 0.0  # largest norm of the gradient; 0: no clipping
    ema_decay: float = 0.0  # decay of the moving average of weights; 0: no average
    sync_norms: bool = False  # whether batch norms take the statistics of all ranks

    def __post_init__(self) -> None:
        require(self.epochs > 0, "epochs", "positive", self.epochs)
        course = self.schedule_epochs
        least = f"at least `epochs`, {self.epochs:g}"
        require(course is None or course >= self.epochs, "schedule_epochs", least, course)
        require(self.accumulate >= 1, "accumulate", "at least 1", self.accumulate)
        require(0 <= self.ema_decay < 1, "ema_decay", "in [0, 1)", self.ema_decay)


def as_options(value: Any) -> Any:
    """The value of an option that `true` turns on with its defaults, and `false` off."""
    return {} if value is True else None if value is False else value


@spec
class StoreSpec:
    """The cache of the teacher's logits on disk, which runs and processes share."""

    precision: Literal["half", "full"] = "half"
    top: int | None = None  # the highest classes only, and the sum of the others; None: all
    path: Path | None = None  # None: in the cache folder, named by a hash of all dependencies

    def __post_init__(self) -> None:
        require(self.top is None or self.top >= 1, "top", "at least 1", self.top)


def as_names(value: Any) -> Any:
    """Names of classes in a list, where YAML reads some of them as integers: [0, 1]."""
    if not isinstance(value, list | tuple):
        return value
    return tuple(str(name) if type(name) is int else name for name in value)


@spec
class TeacherMember:
    """A teacher network; without weights it is trained first, by the options of `train`."""

    name: str
    weights: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    head: Annotated[HeadSpec | None, BY_KIND] = None  # replaces its own classifier
    pretrained: Path | None = None  # pretrained weights for `train`, without their classifier
    train: Training | None = None
    seed: int = 0
    mean: tuple[float, ...] | None = None  # that it was trained with; None: that of the data
    std: tuple[float, ...] | None = None
    size: tuple[int, int] | None = None  # height and width that it was trained with
    # of its outputs, in their order: names, a file of names, or a number; None: those of the data
    classes: Annotated[tuple[str, ...] | int | Path | None, BeforeValidator(as_names)] = None

    def __post_init__(self) -> None:
        require(min(self.size or (1,)) >= 1, "size", "two lengths of at least 1", self.size)


@spec
class TeacherSpec(TeacherMember):
    """The teacher: one network, or several `members`.

    With `ensemble` "mean", the logits of members are averaged; with "separate",
    the method is applied to each member, and the terms are averaged over members.
    """

    members: tuple[Annotated[TeacherMember, BY_NAME], ...] = ()
    ensemble: Literal["mean", "separate"] = "mean"
    gate: bool = True  # refuse a teacher that is not better than chance
    remember: bool = False  # cache its logits in memory; needs finitely many views
    # cache its logits on disk; needs finitely many views
    store: Annotated[StoreSpec | None, BeforeValidator(as_options)] = None

    @property
    def networks(self) -> tuple[TeacherMember, ...]:
        """The networks: the members, or the teacher itself."""
        return self.members or (self,)

    def __post_init__(self) -> None:
        super().__post_init__()
        options = (self.weights, self.train, self.options, self.head, self.pretrained)
        if self.members and any(options):
            raise ValueError(
                "a teacher with members has no weights, train, options, head or pretrained itself; "
                "set them for each member"
            )
        if self.ensemble == "separate" and not self.members:
            raise ValueError("ensemble=separate needs several teachers; list them under members")
        if self.remember and self.store:
            raise ValueError(
                "remember caches outputs in memory and store on disk; set one of them to false"
            )
        if self.ensemble == "separate" and (self.remember or self.store):
            raise ValueError(
                "outputs of members cannot be cached with ensemble=separate; set remember and "
                "store to false"
            )


@spec
class Engine:
    """The hardware and logging of a run; these options are not part of what is compared."""

    device: DeviceName = "auto"
    precision: Precision = "float32"
    channels_last: bool = False
    compile: bool = False
    deterministic: bool = False
    workers: int = 0
    threads: int | None = None
    log_every: int = 50  # steps
    evaluate_every: float = 1.0  # epochs
    save_every: float = 1.0  # epochs
    tensorboard: bool = True


# ----------------------------------------------------------------------------- recipes and studies


def as_list(value: Any) -> Any:
    """A list of methods, also for a single one."""
    return list(value) if isinstance(value, list | tuple) else [value]


Methods = Annotated[tuple[MethodSpec, ...], BeforeValidator(as_list)]


@spec
class Searched:
    """The search by which the options of a method were chosen, on the validation split."""

    trials: int  # number of trials, including pruned ones
    seeds: int = 1  # trainings per trial, with different seeds
    pruned: int = 0  # trials that were stopped early
    epochs: float | None = None  # of a complete trial
    space: dict[str, str] = field(default_factory=dict)  # option -> the range that was searched
    score: float | None = None  # of the best trial
    edges: tuple[str, ...] = ()  # options whose best value is at the edge of their range
    images: str = ""  # the fingerprint of the validation split


@spec
class StudyPair:
    """A student and its teacher, with the options of a study that differ for them."""

    student: Annotated[Network, BY_NAME]
    teacher: Annotated[TeacherSpec, BY_NAME]
    methods: dict[str, Methods] = field(default_factory=dict)  # replace the study's, by label
    changes: tuple[str, ...] = ()  # overrides of the recipe: train.optimiser.lr=0.01
    paper: dict[str, float] = field(default_factory=dict)  # by label of the method, none or teacher


@spec
class Comparison:
    """What a study compares: methods and teachers by label, each with the same number of seeds.

    `pairs` are several students, each with its own teacher and control; `teachers` are several
    teachers of one student.
    """

    methods: dict[str, Methods] = field(default_factory=dict)
    teachers: dict[str, Annotated[TeacherSpec, BY_NAME]] = field(default_factory=dict)
    pairs: dict[str, StudyPair] = field(default_factory=dict)
    seeds: int = 3
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # key -> values, all combined
    changes: dict[str, tuple[str, ...]] = field(default_factory=dict)  # as a pair's, by label
    searched: dict[str, Searched] = field(default_factory=dict)  # by the method's label

    def __post_init__(self) -> None:
        require(self.seeds >= 1, "seeds", "at least 1", self.seeds)
        for key, labels in (("searched", self.searched), ("changes", self.changes)):
            for label in labels:
                if label not in self.methods:
                    raise ValueError(
                        f"{key}.{label}: there is no such method; set the label of one of methods"
                    )
        for label, changes in self.changes.items():
            if not all(change.startswith("train.") and "=" in change for change in changes):
                raise ValueError(f"changes.{label}: each change must be train.KEY=VALUE")
        if self.pairs and self.teachers:
            raise ValueError("each of pairs has its teacher; set either pairs or teachers")
        for name, pair in self.pairs.items():
            for label in (*pair.methods, *pair.paper):
                if label not in (*self.methods, CONTROL, "teacher"):
                    raise ValueError(
                        f"pairs.{name}: there is no method {label}; set the label of one of methods"
                    )


def check_inherit(teacher: TeacherSpec | None, info: ValidationInfo) -> TeacherSpec | None:
    """Refuse a student that inherits without one teacher network to inherit from."""
    student = info.data.get("student")
    if not getattr(student, "inherit", ()):
        return teacher
    if teacher is None:
        raise ValueError(
            "student.inherit takes weights of the teacher, but there is none; add a teacher, or "
            "leave inherit out"
        )
    if teacher.members:
        raise ValueError(
            "student.inherit takes weights of one network, but this teacher has members; set one "
            "network as the teacher"
        )
    return teacher


@spec
class Recipe:
    """All options of one run."""

    data: Annotated[Data, BY_NAME]
    student: Annotated[Network, BY_NAME]
    method: Methods = (presets.kd(),)
    teacher: Annotated[
        TeacherSpec | None, BY_NAME, AfterValidator(check_inherit), Field(validate_default=True)
    ] = None
    task: TaskSpec = ClassificationSpec()
    train: Training = Training()
    engine: Engine = Engine()
    control: bool = False  # also train the same student without a teacher
    seed: int = 0
    title: str = ""
    paper: dict[str, float] = field(default_factory=dict)  # published scores, for the report
    study: Comparison | None = None  # what `stillhouse study` compares

    def __post_init__(self) -> None:
        if self.teacher is None and self.student.inherit:  # the control of such a student
            object.__setattr__(self, "student", replace(self.student, inherit=()))
        if not self.method:
            raise ValueError("method is an empty list; set method=none to train on labels only")
        if self.distils and self.teacher is None:
            raise ValueError(
                f"method {self.method[0].name} needs a teacher; add a teacher, or set method=none"
            )
        if self.student.inherit and not self.distils:
            raise ValueError(
                "student.inherit needs a method that uses the teacher; with method=none, set "
                "student.pretrained to the teacher's weights"
            )
        if self.data.unlabelled is not None and self.data.unlabelled.alone:
            self.check_without_labels()
        if len(self.method) > 1 and not self.distils:
            raise ValueError("method none cannot be combined with others; set method=none alone")
        trains_teacher = any(method.moves_teacher for method in self.method)
        if trains_teacher and self.teacher is not None and self.teacher.members:
            raise ValueError(
                "acclimation trains one teacher network, but this teacher has members; set one "
                "network as the teacher"
            )

    def check_without_labels(self) -> None:
        """Refuse what trains on labels, where no training image has any."""
        networks = () if self.teacher is None else self.teacher.networks
        trained = any(network.weights is None for network in networks)
        for key, used in (("control", self.control), ("teacher.train", trained)):
            if used:
                raise ValueError(
                    f"{key} trains on labels, but with data.unlabelled.alone no training image has "
                    f"any; {'set teacher.weights' if trained else 'leave control out'}, or set "
                    "data.unlabelled.alone=false"
                )

    @property
    def distils(self) -> bool:
        """Whether there is a distillation method, and so a teacher."""
        return all(method.teaches for method in self.method)
