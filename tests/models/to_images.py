"""Networks that give images: autoencoders, segmentation, super resolution, generators."""

import torch
from parts import Apply, architecture, conv
from torch import nn
from torch.nn import functional as F  # noqa: N812


@architecture((1, 16, 16))
def unet():
    def run(m, x):
        a = m.down(x)
        b = m.middle(F.max_pool2d(a, 2))
        return m.out(m.both(torch.cat([m.up(b), a], 1)))

    return Apply(
        run,
        down=conv(1, 6),
        middle=conv(6, 8),
        up=nn.ConvTranspose2d(8, 6, 2, 2),
        both=conv(12, 6),
        out=nn.Conv2d(6, 2, 1),
    )


@architecture((1, 16, 16))
def unet_resize():
    def run(m, x):
        a = m.down(x)
        b = m.middle(F.max_pool2d(a, 2))
        up = F.interpolate(b, scale_factor=2, mode="bilinear", align_corners=True)
        return torch.sigmoid(m.out(torch.cat([up, a], 1)))

    return Apply(run, down=conv(1, 4), middle=conv(4, 8), out=nn.Conv2d(12, 1, 3, padding=1))


@architecture((1, 16, 16))
def convolutional_autoencoder():
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 1, 4, 2, 1),
        nn.Sigmoid(),
    )


@architecture((3, 16, 16))
def resize_autoencoder():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1),
        nn.ReLU(),
        nn.Conv2d(6, 4, 3, 2, 1),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.ReLU(),
        nn.Upsample(size=(16, 16), mode="bilinear"),
        nn.Conv2d(6, 3, 3, padding=1),
        nn.Tanh(),
    )


@architecture((1, 12, 12))
def super_resolution():
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2), nn.Tanh(), nn.Conv2d(8, 4, 3, padding=1), nn.PixelShuffle(2)
    )


@architecture((3, 16, 16))
def segmentation_pyramid():
    def run(m, x):
        y = m.stem(x)
        pooled = F.interpolate(
            m.whole(F.adaptive_avg_pool2d(y, 1)), size=y.shape[2:], mode="bilinear"
        )
        y = m.out(torch.cat([m.near(y), m.far(y), pooled], 1))
        return F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False)

    return Apply(
        run,
        stem=conv(3, 6, stride=2),
        near=conv(6, 4, 1),
        far=nn.Conv2d(6, 4, 3, padding=2, dilation=2),
        whole=nn.Conv2d(6, 4, 1),
        out=nn.Conv2d(12, 3, 1),
    )


@architecture((3, 16, 16))
def feature_pyramid():
    def run(m, x):
        a = m.one(x)
        b = m.two(a)
        up = m.side(a) + F.interpolate(m.top(b), scale_factor=2, mode="nearest")
        return m.boxes(up).flatten(2).permute(0, 2, 1), m.scores(up).flatten(1)

    return Apply(
        run,
        one=conv(3, 6, stride=2),
        two=conv(6, 8, stride=2),
        side=nn.Conv2d(6, 6, 1),
        top=nn.Conv2d(8, 6, 1),
        boxes=nn.Conv2d(6, 4, 3, padding=1),
        scores=nn.Conv2d(6, 2, 3, padding=1),
    )


@architecture((16,))
def gan_generator():
    return nn.Sequential(
        nn.Linear(16, 8 * 4 * 4),
        nn.Unflatten(1, (8, 4, 4)),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 6, 4, 2, 1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 1, 4, 2, 1),
        nn.Tanh(),
    )


@architecture((1, 16, 16))
def gan_discriminator():
    return nn.Sequential(
        nn.Conv2d(1, 6, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(6, 8, 4, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.LeakyReLU(0.2),
        nn.Conv2d(8, 1, 4),
        nn.Flatten(),
        nn.Sigmoid(),
    )


@architecture((32,))
def autoencoder():
    return nn.Sequential(
        nn.Linear(32, 16),
        nn.ReLU(),
        nn.Linear(16, 4),
        nn.Linear(4, 16),
        nn.ReLU(),
        nn.Linear(16, 32),
        nn.Sigmoid(),
    )


@architecture((32,))
def variational_encoder():
    def run(m, x):
        y = torch.tanh(m.body(x))
        return m.mean(y), torch.exp(0.5 * m.log(y))

    return Apply(run, body=nn.Linear(32, 16), mean=nn.Linear(16, 4), log=nn.Linear(16, 4))
