"""Networks of transformers by name."""

from __future__ import annotations

import pytest
import torch

from stillhouse.errors import UserError
from stillhouse.models import transformers_networks, zoo
from stillhouse.models.segmenters.output import read_segmentation

pytest.importorskip("transformers", reason="transformers is optional, and not installed")

SEGFORMER = "transformers/SegformerForSemanticSegmentation"
TINY = {
    "hidden_sizes": [8, 8, 16, 16],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
    "decoder_hidden_size": 16,
}


def test_a_segformer_has_the_classes_and_channels_of_the_data() -> None:
    network = zoo.create(SEGFORMER, 5, 2, **TINY)
    found = read_segmentation(network(torch.randn(2, 2, 64, 96)))
    assert found.logits.shape == (2, 5, 16, 24)
    assert zoo.is_segmenter(SEGFORMER)


def test_a_classifier_of_images() -> None:
    name = "transformers/ViTForImageClassification"
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16}
    network = zoo.create(name, 7, **sizes, patch_size=8, intermediate_size=16)
    assert network(torch.randn(3, 3, 16, 16)).logits.shape == (3, 7)
    assert name in zoo.list_models("vitforimage") and not zoo.is_segmenter(name)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        (SEGFORMER, {"depth": [1]}, "has no option 'depth'; did you mean 'depths'"),
        (SEGFORMER, {"num_labels": 3}, "has no option 'num_labels'"),
        ("transformers/SegformerForSemanticSegmentatio", {}, "did you mean"),
        ("transformers/BertModel", {}, "transformers has no network"),
    ],
)
def test_wrong_names_and_options(name: str, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        zoo.create(name, 5, **options)


def test_without_transformers_the_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transformers_networks, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs transformers, which is not installed: pip install"):
        zoo.create(SEGFORMER, 5)
    assert zoo.list_models("transformers/") == []
