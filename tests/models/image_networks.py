"""Image classifiers: residual, dense, squeezed, separable and gated ones."""

import functools

import torch
from parts import Apply, architecture, conv, head
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision.models import efficientnet, mobilenetv2, mobilenetv3, shufflenetv2
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.densenet import DenseNet
from torchvision.models.googlenet import Inception
from torchvision.models.squeezenet import Fire


class Basic(nn.Module):
    def __init__(self, a, b, stride=1, attention=None):
        super().__init__()
        self.body = nn.Sequential(conv(a, b, stride=stride), conv(b, b, act=None))
        self.attention = attention or nn.Identity()
        self.way = nn.Identity() if a == b and stride == 1 else conv(a, b, 1, stride, act=None)

    def forward(self, x):
        return F.relu(self.attention(self.body(x)) + self.way(x))


class Bottleneck(nn.Module):
    def __init__(self, a, middle, b, stride=1, groups=1):
        super().__init__()
        self.body = nn.Sequential(
            conv(a, middle, 1),
            conv(middle, middle, 3, stride, groups=groups),
            conv(middle, b, 1, act=None),
        )
        self.way = nn.Identity() if a == b and stride == 1 else conv(a, b, 1, stride, act=None)

    def forward(self, x):
        return F.relu(self.body(x) + self.way(x))


class Squeeze(nn.Module):
    def __init__(self, width, reduced, gate=torch.sigmoid):
        super().__init__()
        self.down, self.up, self.gate = (
            nn.Conv2d(width, reduced, 1),
            nn.Conv2d(reduced, width, 1),
            gate,
        )

    def forward(self, x):
        return x * self.gate(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))


@architecture((3, 32, 32))
def resnet20():
    widths = [
        (4, 4, 1),
        (4, 4, 1),
        (4, 4, 1),
        (4, 6, 2),
        (6, 6, 1),
        (6, 6, 1),
        (6, 8, 2),
        (8, 8, 1),
        (8, 8, 1),
    ]
    return nn.Sequential(conv(3, 4), *(Basic(*w) for w in widths), head(8))


@architecture((3, 32, 32))
def resnet18_stem():
    return nn.Sequential(
        conv(3, 6, 7, 2),
        nn.MaxPool2d(3, 2, 1),
        Basic(6, 6),
        Basic(6, 6),
        Basic(6, 8, 2),
        Basic(8, 8),
        head(8),
    )


@architecture((3, 32, 32))
def resnext():
    return nn.Sequential(
        conv(3, 8, stride=2),
        Bottleneck(8, 8, 16, groups=4),
        Bottleneck(16, 8, 16, groups=4),
        Bottleneck(16, 8, 16, 2, groups=2),
        head(16),
    )


@architecture((3, 16, 16))
def preactivation_resnet():
    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.body = nn.Sequential(
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, width, 3, padding=1),
            )

        def forward(self, x):
            return x + self.body(x)

    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), Block(8), Block(8), nn.BatchNorm2d(8), nn.ReLU(), head(8)
    )


@architecture((3, 16, 16))
def squeeze_excite_resnet():
    return nn.Sequential(
        conv(3, 8), Basic(8, 8, attention=Squeeze(8, 4)), Basic(8, 8, 2, Squeeze(8, 4)), head(8)
    )


@architecture((3, 32, 32))
def densenet_small():
    return DenseNet(4, (2, 2, 2), 8, bn_size=2, num_classes=10)


@architecture((3, 32, 32))
def squeezenet_small():
    fire = Fire
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        fire(8, 4, 8, 8),
        fire(16, 4, 8, 8),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        fire(16, 6, 12, 12),
        nn.Dropout(),
        nn.Conv2d(24, 10, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((1, 1)),
        nn.Flatten(),
    )


@architecture((3, 32, 32))
def inception():
    block = Inception
    return nn.Sequential(
        conv(3, 8, 5, 2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        block(8, 4, 4, 6, 2, 4, 2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        block(16, 4, 4, 6, 2, 4, 4),
        head(18),
    )


@architecture((3, 35, 35))
def inception_v3():
    from torchvision.models.inception import BasicConv2d, InceptionA

    def block(a, n, pool):
        made = InceptionA(a, pool)
        cells = {
            "branch1x1": (a, n, 1, 0),
            "branch5x5_1": (a, n, 1, 0),
            "branch5x5_2": (n, n, 5, 2),
            "branch3x3dbl_1": (a, n, 1, 0),
            "branch3x3dbl_2": (n, n, 3, 1),
            "branch3x3dbl_3": (n, n, 3, 1),
            "branch_pool": (a, pool, 1, 0),
        }
        for name, (i, o, size, pad) in cells.items():
            setattr(made, name, BasicConv2d(i, o, kernel_size=size, padding=pad))
        return made

    return nn.Sequential(
        BasicConv2d(3, 6, kernel_size=3, stride=2),
        nn.MaxPool2d(3, 2),
        block(6, 4, 2),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        block(14, 3, 3),
        head(12),
    )


@architecture((3, 32, 32))
def mobilenet_v1():
    def both(a, b, stride=1):
        return nn.Sequential(conv(a, a, 3, stride, groups=a), conv(a, b, 1))

    return nn.Sequential(conv(3, 6, stride=2), both(6, 8), both(8, 12, 2), both(12, 12), head(12))


@architecture((3, 32, 32))
def mobilenet_v2():
    block = mobilenetv2.InvertedResidual
    return nn.Sequential(
        conv(3, 6, stride=2, act=nn.ReLU6),
        block(6, 4, 1, 1),
        block(4, 6, 2, 4),
        block(6, 6, 1, 4),
        block(6, 8, 2, 4),
        block(8, 8, 1, 4),
        conv(8, 24, 1, act=nn.ReLU6),
        head(24),
    )


@architecture((3, 32, 32))
def mobilenet_v3():
    cell = functools.partial(mobilenetv3.InvertedResidualConfig, width_mult=1.0)
    rows = [
        cell(8, 3, 8, 8, True, "RE", 2, 1),
        cell(8, 3, 16, 8, False, "RE", 2, 1),
        cell(8, 5, 16, 8, True, "HS", 1, 1),
        cell(8, 5, 16, 8, True, "HS", 1, 2),
    ]
    return mobilenetv3.MobileNetV3(rows, last_channel=16, num_classes=10)


@architecture((3, 32, 32))
def efficientnet_small():
    cell = functools.partial(efficientnet.MBConvConfig, width_mult=1.0, depth_mult=1.0)
    rows = [cell(1, 3, 1, 8, 8, 1), cell(2, 3, 2, 8, 8, 2), cell(2, 5, 2, 8, 8, 1)]
    return efficientnet.EfficientNet(rows, dropout=0.2, last_channel=16, num_classes=10)


@architecture((3, 32, 32))
def efficientnet_v2():
    fused = efficientnet.FusedMBConvConfig(2, 3, 2, 8, 8, 1)
    rows = [fused, efficientnet.MBConvConfig(2, 3, 1, 8, 8, 1)]
    norm = functools.partial(nn.BatchNorm2d, eps=1e-3)
    return efficientnet.EfficientNet(
        rows, dropout=0.2, last_channel=16, num_classes=10, norm_layer=norm
    )


@architecture((3, 32, 32))
def shufflenet():
    block = shufflenetv2.InvertedResidual
    return nn.Sequential(
        conv(3, 8, stride=2),
        nn.MaxPool2d(3, 2, 1),
        block(8, 12, 2),
        block(12, 12, 1),
        block(12, 12, 1),
        Apply(lambda m, x: m.head(x.mean([2, 3])), head=nn.Linear(12, 10)),
    )


@architecture((3, 16, 16))
def ghostnet():
    class Ghost(nn.Module):
        def __init__(self, a, b):
            super().__init__()
            self.first, self.cheap = conv(a, b // 2, 1), conv(b // 2, b // 2, 3, groups=b // 2)

        def forward(self, x):
            y = self.first(x)
            return torch.cat([y, self.cheap(y)], 1)

    return nn.Sequential(
        conv(3, 8, stride=2), Ghost(8, 12), Squeeze(12, 4, F.hardsigmoid), Ghost(12, 8), head(8)
    )


@architecture((3, 16, 16))
def attention_cbam():
    def run(m, x):
        x = F.relu(m.stem(x))
        pooled = m.shared(F.adaptive_avg_pool2d(x, 1)) + m.shared(F.adaptive_max_pool2d(x, 1))
        x = x * torch.sigmoid(pooled)
        maps = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return m.head(x * torch.sigmoid(m.place(maps)))

    shared = nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))
    return Apply(
        run,
        stem=nn.Conv2d(3, 8, 3, 2, 1),
        shared=shared,
        place=nn.Conv2d(2, 1, 7, padding=3),
        head=head(8),
    )


@architecture((3, 32, 32))
def convnext():
    rows = [CNBlockConfig(8, 12, 1), CNBlockConfig(12, None, 2)]
    return ConvNeXt(rows, num_classes=10, layer_scale=0.5)


@architecture((3, 16, 16))
def group_norms():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.GroupNorm(4, 8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.InstanceNorm2d(8, affine=True),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.GroupNorm(1, 8),
        nn.SiLU(),
        head(8),
    )
