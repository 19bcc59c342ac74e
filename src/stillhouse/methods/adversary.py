"""A critic that tells the class maps of two networks apart, and the student's loss against it."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from stillhouse.functional.adversarial import gradient_penalty, hinge_critic, wasserstein_critic
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.functional.resize import resize_maps
from stillhouse.methods.draws import image_draws, step_generator
from stillhouse.methods.setting import Setting
from stillhouse.models.critic import Critic
from stillhouse.models.segmenters.output import read_segmentation
from stillhouse.types import Lesson

IMAGES = "@input"  # the tap of what a network is given
Form = Literal["hinge", "wgan"]


class Adversary(nn.Module):
    """The losses of both players; each has a gradient to its own player only.

    The critic sees the softmax of the class logits and the image at their size (Liu Y. et al.,
    2020). The student raises its score; the critic lowers that of the student and raises that of
    the teacher, with the hinge loss or as a Wasserstein critic with gradient penalty.
    """

    def __init__(self, critic: Critic, form: Form, penalty: float, seed: int) -> None:
        super().__init__()
        self.critic, self.form, self.penalty, self.seed = critic, form, penalty, seed

    def forward(self, lesson: Lesson) -> tuple[Tensor, Tensor]:
        """The loss of the student and that of the critic for each image: -> (N,), (N,)."""
        images = upcast(lesson.student.taps[IMAGES].detach())
        with full_precision(images):
            student, teacher, images = class_maps(lesson, images)
            fixed = {name: p.detach() for name, p in self.critic.named_parameters()}
            score = functional_call(self.critic, fixed, (torch.cat((student, images), 1),))
            critic = self.critic_losses(student.detach(), teacher, images, lesson)
        return -score, critic

    def critic_losses(
        self, student: Tensor, teacher: Tensor, images: Tensor, lesson: Lesson
    ) -> Tensor:
        """(N, C, h, w), (N, C, h, w), (N, 3, h, w) -> (N,)."""
        number = len(student)
        maps = torch.cat((student, teacher))
        scores = self.critic(torch.cat((maps, images.repeat(2, 1, 1, 1)), 1))
        pair = scores[:number], scores[number:]
        if self.form == "hinge":
            return hinge_critic(*pair)
        share = self.shares(student, lesson)[:, None, None, None]
        penalty = gradient_penalty(
            lambda mixed: self.critic(torch.cat((mixed, images), 1)),
            share * teacher + (1 - share) * student,
        )
        return wasserstein_critic(*pair) + self.penalty * penalty

    def shares(self, maps: Tensor, lesson: Lesson) -> Tensor:
        """The random share of the teacher's map at which the penalty is taken: -> (N,)."""
        generator = step_generator(lesson.clock, self.seed, maps.device)
        return image_draws((), len(maps), lesson.weight, generator).to(maps.dtype)


def class_maps(lesson: Lesson, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The softmax of both networks' logits and the images, at the size of the student's logits."""
    student = upcast(read_segmentation(lesson.student.out).logits)
    teacher = upcast(read_segmentation(lesson.teacher.out).logits.detach())
    size = (student.shape[2], student.shape[3])
    return (
        student.softmax(1),
        resize_maps(teacher, size).softmax(1),
        resize_maps(images, size).to(student.dtype),
    )


def make_adversary(setting: Setting, form: Form, penalty: float, seed: int) -> Adversary:
    """An adversary for the class maps of the student; raises UserError for other outputs."""
    logits = read_segmentation(setting.student_output()).logits
    channels = logits.shape[1] + setting.example.shape[1]
    critic = Critic(channels, (logits.shape[2], logits.shape[3]))
    return Adversary(critic, form, penalty, seed)
