"""What the modules of architectures have in common, and the list of all."""

from torch import nn

__all__ = ["ARCHITECTURES", "Apply", "architecture", "conv", "head"]

ARCHITECTURES = {}


def architecture(*shapes):
    """Enter a function that makes a module into the list, with the shapes of a row of its inputs."""

    def enter(make):
        ARCHITECTURES[make.__name__] = (make, shapes)
        return make

    return enter


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *x):
        return self.function(self, *x)


def conv(a, b, size=3, stride=1, act=nn.ReLU, groups=1, norm=nn.BatchNorm2d):
    parts = [nn.Conv2d(a, b, size, stride, size // 2, groups=groups, bias=norm is None)]
    parts += [norm(b)] if norm is not None else []
    return nn.Sequential(*parts, *([act()] if act is not None else []))


def head(width, classes=10):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))
