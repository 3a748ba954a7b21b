"""Several inputs or outputs, gates, experts, sets and graphs."""

import torch
from parts import Apply, architecture, conv
from torch import nn
from torch.nn import functional as F  # noqa: N812


@architecture((1, 12, 12), (1, 12, 12))
def siamese():
    def run(m, a, b):
        return torch.sigmoid(m.head(torch.abs(m.body(a) - m.body(b))))

    body = nn.Sequential(conv(1, 6, stride=2), conv(6, 8, stride=2), nn.Flatten(), nn.Linear(72, 8))
    return Apply(run, body=body, head=nn.Linear(8, 1))


@architecture((16,), (12,))
def two_towers():
    def run(m, a, b):
        return F.cosine_similarity(m.a(a), m.b(b), dim=1, eps=1e-3)

    return Apply(
        run,
        a=nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8)),
        b=nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 8)),
    )


@architecture((16,), (12,))
def bilinear():
    return nn.Bilinear(16, 12, 3)


@architecture((24,))
def wide_and_deep():
    def run(m, x):
        return m.wide(x) + m.deep(x)

    deep = nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3))
    return Apply(run, wide=nn.Linear(24, 3), deep=deep)


@architecture((8, 6))
def factorisation_machine():
    def run(m, x):
        both = (x.sum(1).pow(2) - x.pow(2).sum(1)).sum(1, keepdim=True)
        return torch.sigmoid(0.05 * both + m.deep(x.flatten(1)))

    return Apply(run, deep=nn.Sequential(nn.Linear(48, 12), nn.ReLU(), nn.Linear(12, 1)))


@architecture((24,))
def highway():
    def run(m, x):
        for plain, gate in zip(m.plain, m.gate, strict=True):
            t = torch.sigmoid(gate(x))
            x = t * F.relu(plain(x)) + (1 - t) * x
        return m.head(x)

    def linears():
        return nn.ModuleList(nn.Linear(24, 24) for _ in range(2))

    return Apply(run, plain=linears(), gate=linears(), head=nn.Linear(24, 5))


@architecture((16,))
def maxout():
    def run(m, x):
        return m.head(m.body(x).view(-1, 12, 3).amax(2))

    return Apply(run, body=nn.Linear(16, 36), head=nn.Linear(12, 5))


@architecture((16,))
def gated_linear():
    return nn.Sequential(nn.Linear(16, 24), nn.GLU(), nn.LayerNorm(12), nn.Linear(12, 5))


@architecture((16,))
def normalised_embedding():
    def run(m, x):
        return F.linear(F.normalize(m.body(x)), F.normalize(m.centres)) * 8

    return Apply(
        run,
        body=nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8)),
        centres=nn.Parameter(torch.randn(5, 8)),
    )


@architecture((10, 4))
def graph_convolutions():
    def run(m, x):
        x = F.relu(m.one(m.adjacency @ x))
        return m.head((m.adjacency @ m.two(x)).amax(1))

    made = Apply(run, one=nn.Linear(4, 8), two=nn.Linear(8, 8), head=nn.Linear(8, 4))
    made.register_buffer("adjacency", torch.softmax(torch.randn(10, 10), 1))
    return made


@architecture((24,))
def mixture_of_experts():
    def run(m, x):
        weights = F.softmax(m.gate(x), 1)
        parts = torch.stack([e(x) for e in m.experts], 2)
        return (parts * weights.unsqueeze(1)).sum(2)

    experts = nn.ModuleList(
        nn.Sequential(nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 4)) for _ in range(3)
    )
    return Apply(run, gate=nn.Linear(24, 3), experts=experts)


@architecture((24,))
def multi_task():
    def run(m, x):
        y = m.body(x)
        return m.one(y).softmax(1), m.two(y).squeeze(1)

    body = nn.Sequential(nn.Linear(24, 16), nn.ReLU())
    return Apply(run, body=body, one=nn.Linear(16, 4), two=nn.Linear(16, 1))


@architecture((8, 3))
def deep_sets():
    def run(m, x):
        return m.rho(m.phi(x).sum(1))

    return Apply(
        run,
        phi=nn.Sequential(nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 8)),
        rho=nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4)),
    )


@architecture((3, 16))
def point_net():
    def run(m, x):
        return m.head(m.body(x).max(2)[0])

    body = nn.Sequential(
        nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8), nn.ReLU(), nn.Conv1d(8, 16, 1), nn.BatchNorm1d(16)
    )
    return Apply(run, body=body, head=nn.Linear(16, 5))
