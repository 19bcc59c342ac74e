"""Asking networks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from stillhouse.batches import Labelled
from stillhouse.errors import UserError
from stillhouse.explain.hear import hear, known, listen
from stillhouse.models import small
from stillhouse.models.weights import state_hash
from stillhouse.tasks.classification import Classification

TASK = Classification(5)
IMAGES = torch.arange(10.0)[:, None, None, None] * torch.ones(1, 3, 8, 8) / 10


def batches() -> Iterator[Labelled]:
    """Ten samples in an order of their own: 9, 8, .. 0."""
    for keys in torch.arange(9, -1, -1).split(4):
        yield Labelled(IMAGES[keys], keys % 5, keys, torch.zeros_like(keys))


def test_a_voice_is_what_the_network_says_in_eval_mode() -> None:
    network = small.build("tiny", 5, 3).train()
    before = state_hash(network)
    voice = hear("student", network, TASK, batches())
    assert state_hash(network) == before and network.training
    assert not [m for m in network.modules() if m._forward_hooks or m._forward_pre_hooks]
    with torch.no_grad():
        network.eval()
        logits = network(IMAGES.flip(0))
        features = nn.Sequential(*list(network)[:-1])(IMAGES.flip(0))
    torch.testing.assert_close(voice.logits, logits)
    assert voice.features is not None
    torch.testing.assert_close(voice.features, features)
    assert voice.logits.dtype == torch.float32 and not voice.logits.requires_grad


def test_no_more_is_asked_than_the_limit() -> None:
    asked = []

    def counted() -> Iterator[Labelled]:
        for given in batches():
            asked.append(len(given.label))
            yield given

    voice = hear("student", small.build("tiny", 5, 3), TASK, counted(), limit=6)
    assert voice.logits.shape == (6, 5) and asked == [4, 4]
    labels, keys = known(batches(), 6)
    assert keys.tolist() == [9, 8, 7, 6, 5, 4] and labels.tolist() == [4, 3, 2, 1, 0, 4]


class Pooled(nn.Module):
    """Class maps whose mean is the answer: no vector stands before a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 5, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.maps(image).mean((2, 3))


def test_a_network_without_a_vector_has_no_features() -> None:
    voice = hear("student", Pooled(), TASK, batches())
    assert voice.features is None and voice.logits.shape == (10, 5)


def test_a_hearing_keeps_order_labels_and_pictures_together() -> None:
    networks = {name: small.build("tiny", 5, 3) for name in ("teacher", "control", "kd")}
    pixels = (IMAGES * 100).to(torch.uint8)
    heard = listen(networks, TASK, batches, "abcde", lambda key: pixels[key], limit=7)
    assert [v.name for v in heard.voices] == ["teacher", "control", "kd"]
    assert heard.labels.tolist() == [4, 3, 2, 1, 0, 4, 3] and heard.classes == tuple("abcde")
    assert int(heard.picture(0)[0, 0, 0]) == 90 and int(heard.picture(6)[0, 0, 0]) == 30
    assert heard.teacher is heard.voices[0] and heard.student.name == "kd"


def test_an_empty_split_is_a_sentence() -> None:
    with pytest.raises(UserError, match="no sample for student"):
        hear("student", small.build("tiny", 5, 3), TASK, [])
