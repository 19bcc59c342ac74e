"""Image classifiers of transformers with small random configurations, as factories for recipes."""

from __future__ import annotations

from torch import nn


def convnext(classes: int, channels: int = 3) -> nn.Module:
    from transformers import ConvNextConfig, ConvNextForImageClassification

    sizes = {"patch_size": 2, "num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]}
    config = ConvNextConfig(num_channels=channels, num_labels=classes, **sizes)
    network: nn.Module = ConvNextForImageClassification(config)
    return network


def vit(classes: int, channels: int = 3) -> nn.Module:
    from transformers import ViTConfig, ViTForImageClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 32, "image_size": 8, "patch_size": 2}
    network: nn.Module = ViTForImageClassification(
        ViTConfig(num_channels=channels, num_labels=classes, **sizes)
    )
    return network
