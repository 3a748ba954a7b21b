"""Networks in a line: perceptrons, LeNet, VGG, AlexNet, and activations of all kinds."""

import torchvision
from parts import architecture, conv
from torch import nn


@architecture((64,))
def mlp():
    return nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 10)
    )


@architecture((32,))
def mlp_batch_norm():
    return nn.Sequential(
        nn.Linear(32, 32),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.Linear(32, 16),
        nn.BatchNorm1d(16),
        nn.Tanh(),
        nn.Linear(16, 10),
        nn.Softmax(dim=1),
    )


@architecture((1, 28, 28))
def lenet():
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(200, 24),
        nn.ReLU(),
        nn.Linear(24, 10),
    )


@architecture((1, 28, 28))
def lenet_tanh():
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 8, 5),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(200, 24),
        nn.Tanh(),
        nn.Linear(24, 10),
    )


def vgg(cfg, norm):
    layers = torchvision.models.vgg.make_layers(cfg, batch_norm=norm)
    width = [n for n in cfg if n != "M"][-1]
    return nn.Sequential(
        layers, nn.Flatten(), nn.Linear(width, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 10)
    )


@architecture((3, 32, 32))
def vgg11():
    return vgg([4, "M", 6, "M", 8, 8, "M", 8, 8, "M", 8, 8, "M"], norm=False)


@architecture((3, 32, 32))
def vgg16_bn():
    return vgg([3, 3, "M", 4, 4, "M", 6, 6, 6, "M", 8, 8, 8, "M", 8, 8, 8, "M"], norm=True)


@architecture((3, 32, 32))
def alexnet():
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, 2, 2),
        nn.ReLU(),
        nn.LocalResponseNorm(3),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(6, 8, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.LocalResponseNorm(3),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((3, 3)),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(72, 16),
        nn.ReLU(),
        nn.Linear(16, 10),
    )


@architecture((3, 16, 16))
def all_convolutional():
    return nn.Sequential(
        conv(3, 6, act=nn.ELU),
        conv(6, 8, stride=2, act=nn.LeakyReLU),
        conv(8, 8, act=nn.PReLU),
        conv(8, 8, 1, act=nn.CELU),
        nn.Conv2d(8, 10, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


@architecture((48,))
def self_normalising():
    return nn.Sequential(
        nn.Linear(48, 24),
        nn.SELU(),
        nn.AlphaDropout(),
        nn.Linear(24, 24),
        nn.SELU(),
        nn.Linear(24, 10),
    )


@architecture((32,))
def other_activations():
    return nn.Sequential(
        nn.Linear(32, 16),
        nn.Mish(),
        nn.Linear(16, 16),
        nn.Softplus(),
        nn.Linear(16, 16),
        nn.Hardtanh(),
        nn.Linear(16, 16),
        nn.Softsign(),
        nn.Linear(16, 16),
        nn.LogSigmoid(),
        nn.Linear(16, 16),
        nn.ReLU6(),
        nn.Linear(16, 10),
        nn.Hardsigmoid(),
    )


@architecture((32,))
def gelus():
    return nn.Sequential(
        nn.Linear(32, 16),
        nn.GELU(),
        nn.Linear(16, 16),
        nn.GELU("tanh"),
        nn.Linear(16, 16),
        nn.SiLU(),
        nn.Linear(16, 16),
        nn.Hardswish(),
        nn.Linear(16, 10),
    )


@architecture((32,))
def shrinks():
    return nn.Sequential(
        nn.Linear(32, 16),
        nn.Softshrink(0.1),
        nn.Linear(16, 16),
        nn.Tanhshrink(),
        nn.Linear(16, 16),
        nn.Hardtanh(-0.5, 0.75),
        nn.Linear(16, 10),
        nn.LogSoftmax(dim=-1),
    )
