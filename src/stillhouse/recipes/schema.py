"""What a recipe says. A recipe that loads can be built; one that cannot says where it is wrong."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from stillhouse.data.mixing import Mix
from stillhouse.data.transforms import Transform
from stillhouse.engine.devices import DeviceName, Precision
from stillhouse.engine.optimisers import SGD, Optimiser
from stillhouse.engine.schedules import ConstantSchedule, Schedule
from stillhouse.methods.catalogue import MethodSpec
from stillhouse.methods.control import CONTROL
from stillhouse.models.labelwise import HeadSpec
from stillhouse.objectives import presets
from stillhouse.spec import BY_KIND, BY_NAME, require, spec
from stillhouse.tasks.catalogue import TaskSpec
from stillhouse.tasks.classification import ClassificationSpec

# ------------------------------------------------------------------------------------ what there is


@spec
class SplitSpec:
    """What is asked of one split of a data set."""

    count: int | None = None
    seed: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


@spec
class Data:
    """A data set, how its images are changed, and how many go into a step."""

    name: str
    path: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)  # of all splits; each may have its own
    train: SplitSpec = SplitSpec()
    val: SplitSpec = SplitSpec()
    test: SplitSpec = SplitSpec()
    holdout: int = 0  # samples of train that become val, where the data set has none
    transforms: tuple[Transform, ...] = ()
    evaluation: tuple[Transform, ...] = ()
    # of the second view, for methods that ask for two; none: `transforms`, RandAugment and Cutout
    strong: tuple[Transform, ...] = ()
    mix: Mix | None = None  # of the images of a training batch
    mean: tuple[float, ...] | None = None  # None: those of the data set
    std: tuple[float, ...] | None = None
    batch: int = 64
    # augmentations of an image, the same for every seed; None: a new one each epoch
    views: int | None = None
    repeats: int = 1  # copies of a sample in a step, each in another view

    def __post_init__(self) -> None:
        require(self.batch >= 1, "batch", "at least 1", self.batch)
        require(self.repeats >= 1, "repeats", "at least 1", self.repeats)
        if self.repeats > 1 and self.views is not None:
            raise ValueError(
                "repeats shows a sample in several new views, and views in one of a fixed few; "
                "leave one of them out"
            )


@spec
class Network:
    """A network by name, and the file that its weights are in."""

    name: str
    weights: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    head: Annotated[HeadSpec | None, BY_KIND] = None  # in place of its own classifier
    start: Path | None = None  # weights to begin from, those of another classifier left aside


# ------------------------------------------------------------------------------------- how it goes


@spec
class Training:
    """How long, how fast, and by which optimisers."""

    epochs: float = 10
    optimiser: Annotated[Optimiser, BY_KIND] = SGD(0.1)
    # of method, critic, teacher, ...
    groups: dict[str, Annotated[Optimiser, BY_KIND]] = field(default_factory=dict)
    schedule: Annotated[Schedule, BY_KIND] = ConstantSchedule()
    # epochs that the schedule is drawn for, where training stops before its end; None: all of them
    course: float | None = None
    accumulate: int = 1
    clip: float = 0.0
    average: float = 0.0  # decay of the moving average that is kept; 0: none

    def __post_init__(self) -> None:
        require(self.epochs > 0, "epochs", "positive", self.epochs)
        course = self.course
        least = f"at least `epochs`, {self.epochs:g}"
        require(course is None or course >= self.epochs, "course", least, course)
        require(self.accumulate >= 1, "accumulate", "at least 1", self.accumulate)
        require(0 <= self.average < 1, "average", "in [0, 1)", self.average)


def switched(value: Any) -> Any:
    """An option that `true` turns on as it is, and `false` off."""
    return {} if value is True else None if value is False else value


@spec
class StoreSpec:
    """How the teacher's logits are kept on the disk, for runs and processes to share."""

    precision: Literal["half", "full"] = "half"
    top: int | None = None  # classes that are kept, with the mass of the rest; None: all of them
    path: Path | None = None  # None: in the cache, under the hash of all that it depends on

    def __post_init__(self) -> None:
        require(self.top is None or self.top >= 1, "top", "at least 1", self.top)


@spec
class TeacherMember:
    """A network that is learnt from; without weights it is trained first, as `train` says."""

    name: str
    weights: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    head: Annotated[HeadSpec | None, BY_KIND] = None  # in place of its own classifier
    start: Path | None = None  # weights that `train` begins from, their classifier left aside
    train: Training | None = None
    seed: int = 0
    mean: tuple[float, ...] | None = None  # what it was trained with; None: as the data
    std: tuple[float, ...] | None = None
    size: tuple[int, int] | None = None  # height, width


@spec
class TeacherSpec(TeacherMember):
    """The network that is learnt from, or `members`, several that teach together or apart.

    Together they are one teacher whose logits are the mean of theirs; apart, the method is applied
    to each, with terms of its own, and all count as much as one.
    """

    members: tuple[Annotated[TeacherMember, BY_NAME], ...] = ()
    teach: Literal["together", "apart"] = "together"
    gate: bool = True  # refuse a teacher that is no better than chance
    remember: bool = False  # keep its answers in memory; needs finitely many views
    store: Annotated[StoreSpec | None, BeforeValidator(switched)] = (
        None  # on the disk; needs them, too
    )

    @property
    def networks(self) -> tuple[TeacherMember, ...]:
        """The networks: the members, or the teacher itself."""
        return self.members or (self,)

    def __post_init__(self) -> None:
        own = (self.weights, self.train, self.options, self.head, self.start)
        if self.members and any(own):
            raise ValueError(
                "a teacher with members has no weights, train, options, head or start of its own; "
                "say them of each member"
            )
        if self.teach == "apart" and not self.members:
            raise ValueError("teach apart needs members, the teachers that teach apart")
        if self.remember and self.store:
            raise ValueError(
                "remember keeps the answers in memory and store on the disk; say false to one"
            )
        if self.teach == "apart" and (self.remember or self.store):
            raise ValueError(
                "teachers that teach apart are asked each time; say false to remember and store"
            )


@spec
class Engine:
    """Where and how it runs; nothing here changes what is being compared."""

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


# ------------------------------------------------------------------------------------- the whole


def listed(value: Any) -> Any:
    """One method for a list of one."""
    return list(value) if isinstance(value, list | tuple) else [value]


Methods = Annotated[tuple[MethodSpec, ...], BeforeValidator(listed)]


@spec
class Searched:
    """How the options of a method were chosen: on the validation split, never on test."""

    trials: int  # trainings that were begun
    seeds: int = 1  # trainings a trial, each with another seed
    pruned: int = 0  # trials that were given up early
    epochs: float | None = None  # of a whole trial
    space: dict[str, str] = field(default_factory=dict)  # option -> what was tried
    score: float | None = None  # of the best trial
    edges: tuple[str, ...] = ()  # options chosen where the search ended: better may lie beyond


@spec
class StudyPair:
    """A student and its teacher, with whatever a study does otherwise for them."""

    student: Annotated[Network, BY_NAME]
    teacher: Annotated[TeacherSpec, BY_NAME]
    methods: dict[str, Methods] = field(default_factory=dict)  # in place of the study's, by label
    changes: tuple[str, ...] = ()  # key=value words over the recipe: train.optimiser.lr=0.01
    paper: dict[str, float] = field(default_factory=dict)  # by the method's label, none or teacher


@spec
class Comparison:
    """What a study compares: methods and teachers by label, each over as many seeds.

    `pairs` are several students, each with a teacher and a control of its own; `teachers` several
    for one student.
    """

    methods: dict[str, Methods] = field(default_factory=dict)
    teachers: dict[str, Annotated[TeacherSpec, BY_NAME]] = field(default_factory=dict)
    pairs: dict[str, StudyPair] = field(default_factory=dict)
    seeds: int = 3
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # key -> values, all combined
    searched: dict[str, Searched] = field(default_factory=dict)  # by the method's label

    def __post_init__(self) -> None:
        require(self.seeds >= 1, "seeds", "at least 1", self.seeds)
        for label in self.searched:
            if label not in self.methods:
                raise ValueError(f"searched speaks of {label}, which is none of the methods")
        if self.pairs and self.teachers:
            raise ValueError("pairs name their teachers themselves; say either pairs or teachers")
        for name, pair in self.pairs.items():
            for label in (*pair.methods, *pair.paper):
                if label not in (*self.methods, CONTROL, "teacher"):
                    raise ValueError(f"pair {name} speaks of {label}, which is none of the methods")


@spec
class Recipe:
    """One run."""

    data: Annotated[Data, BY_NAME]
    student: Annotated[Network, BY_NAME]
    method: Methods = (presets.kd(),)
    teacher: Annotated[TeacherSpec | None, BY_NAME] = None
    task: TaskSpec = ClassificationSpec()
    train: Training = Training()
    engine: Engine = Engine()
    control: bool = False  # train the same student without a teacher beside it
    seed: int = 0
    title: str = ""
    paper: dict[str, float] = field(default_factory=dict)  # its numbers, to stand beside ours
    study: Comparison | None = None  # what `stillhouse study` compares

    def __post_init__(self) -> None:
        if not self.method:
            raise ValueError("method names no method; say none for a run without teaching")
        if self.distils and self.teacher is None:
            raise ValueError(
                f"method {self.method[0].name} needs a teacher; add a teacher, or say method=none"
            )
        if len(self.method) > 1 and not self.distils:
            raise ValueError("method none stands alone, and not in a list")
        moves = any(method.moves_teacher for method in self.method)
        if moves and self.teacher is not None and self.teacher.members:
            raise ValueError("acclimation moves one network, and this teacher has members")

    @property
    def distils(self) -> bool:
        """Whether there is a method, and so a teacher."""
        return all(method.teaches for method in self.method)
