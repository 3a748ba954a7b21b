"""Networks to start from: those of papers on encrypted inference, residual networks, transformers.

A, B, C and D take rows of 784 pixels, images of 28x28, and are not trained: they predict after ``fit``.
The deep ones predict at once, with initial weights; ``network.from_parameters(arrays)`` returns them with
weights that were trained elsewhere, and ``fit`` trains them from initial weights. All have ten classes.

======================================= ======== ============ =========================================
network                                 features  parameters  kind
======================================= ======== ============ =========================================
:func:`A`, :func:`B`, :func:`C`,             784   see there  dense and convolutional, of the papers
:func:`D`
:func:`ResNet20`                           3,072     270,410  residual, images of 32x32x3
:func:`ResNet18`                           3,072  11,178,762  residual, images of 32x32x3
:func:`MobileNetV2`                        3,072     709,762  depthwise convolutions, images of 32x32x3
:func:`TransformerEncoder`                 4,096     798,730  four layers, sequences of 32 x 128
:func:`ViT`                                3,072     821,386  the same encoder on patches of an image
======================================= ======== ============ =========================================
"""

from nn.networks.images import MobileNetV2, ResNet18, ResNet20
from nn.networks.papers import A, B, C, D
from nn.networks.transformers import TransformerEncoder, ViT

__all__ = ["A", "B", "C", "D", "MobileNetV2", "ResNet18", "ResNet20", "TransformerEncoder", "ViT"]
