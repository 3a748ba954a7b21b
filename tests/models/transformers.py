"""Transformers and mixers, on tokens and on images."""

import torch
from parts import Apply, architecture
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision.models.vision_transformer import VisionTransformer


class Encoder(nn.Module):
    def __init__(self, width, heads, wide, layers, tokens, **options):
        super().__init__()
        self.place = nn.Parameter(torch.randn(tokens, width) / 4)
        layer = nn.TransformerEncoderLayer(width, heads, wide, batch_first=True, **options)
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.body(x + self.place).mean(1))


@architecture((8, 16))
def transformer_encoder():
    return Encoder(16, 2, 32, 2, 8)


@architecture((8, 16))
def transformer_norm_first():
    return Encoder(16, 4, 32, 2, 8, activation="gelu", norm_first=True)


@architecture((8, 16))
def transformer_causal():
    def run(m, x):
        q, k, v = m.qkv(m.norm(x)).view(-1, 8, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1)) / 8**0.5
        scores = scores.masked_fill(m.mask == 0, -1e4)
        x = x + m.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 8, 16))
        x = x + m.down(F.gelu(m.up(m.norm2(x)), approximate="tanh"))
        return m.head(x[:, -1])

    made = Apply(
        run,
        norm=nn.LayerNorm(16),
        qkv=nn.Linear(16, 48),
        out=nn.Linear(16, 16),
        norm2=nn.LayerNorm(16),
        up=nn.Linear(16, 32),
        down=nn.Linear(32, 16),
        head=nn.Linear(16, 5),
    )
    made.register_buffer("mask", torch.tril(torch.ones(8, 8)))
    return made


@architecture((6, 16))
def attention_fused():
    def run(m, x):
        q, k, v = (a.view(-1, 6, 2, 8).transpose(1, 2) for a in m.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return m.head((x + m.out(y)).flatten(1))

    return Apply(run, qkv=nn.Linear(16, 48), out=nn.Linear(16, 16), head=nn.Linear(96, 5))


@architecture((6, 16))
def gated_transformer():
    """RMS norms, rotary places and gated feed-forward, as of Llama."""
    angle = torch.outer(torch.arange(6.0), 100 ** -(torch.arange(0, 8, 2) / 8))

    def norm(x, w):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * w

    def turn(m, x):
        a, b = x.chunk(2, -1)
        return x * m.cos + torch.cat((-b, a), -1) * m.sin

    def run(m, x):
        y = norm(x, m.w1)
        q, k, v = (f(y).view(-1, 6, 2, 8).transpose(1, 2) for f in (m.q, m.k, m.v))
        scores = turn(m, q) @ turn(m, k).transpose(2, 3) * 8**-0.5
        x = x + m.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, 6, 16))
        y = norm(x, m.w2)
        x = x + m.down(F.silu(m.gate(y)) * m.up(y))
        return m.head(x.mean(1))

    made = Apply(
        run,
        q=nn.Linear(16, 16, bias=False),
        k=nn.Linear(16, 16, bias=False),
        v=nn.Linear(16, 16, bias=False),
        out=nn.Linear(16, 16, bias=False),
        gate=nn.Linear(16, 24),
        up=nn.Linear(16, 24),
        down=nn.Linear(24, 16),
        head=nn.Linear(16, 5),
        w1=nn.Parameter(torch.ones(16)),
        w2=nn.Parameter(torch.ones(16)),
    )
    made.register_buffer("cos", torch.cat([angle, angle], 1).cos())
    made.register_buffer("sin", torch.cat([angle, angle], 1).sin())
    return made


@architecture((3, 16, 16))
def vit():
    return VisionTransformer(16, 4, 2, 2, 16, 32, num_classes=10)


@architecture((3, 16, 16))
def mlp_mixer():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.n1, self.n2 = nn.LayerNorm(12), nn.LayerNorm(12)
            self.tokens = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16))
            self.channels = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))

        def forward(self, x):
            x = x + self.tokens(self.n1(x).transpose(1, 2)).transpose(1, 2)
            return x + self.channels(self.n2(x))

    def run(m, x):
        x = m.patches(x).flatten(2).transpose(1, 2)
        return m.head(m.norm(m.blocks(x)).mean(1))

    return Apply(
        run,
        patches=nn.Conv2d(3, 12, 4, 4),
        blocks=nn.Sequential(Block(), Block()),
        norm=nn.LayerNorm(12),
        head=nn.Linear(12, 10),
    )


@architecture((3, 16, 16))
def swin():
    from torchvision.models.swin_transformer import SwinTransformer

    return SwinTransformer([2, 2], 8, [2], [2], [4, 4], num_classes=10, stochastic_depth_prob=0.0)


@architecture((12,), (8, 12))
def cross_attention():
    def run(m, query, memory):
        return m.head(m.attention(query.unsqueeze(1), memory, memory)[0].squeeze(1))

    return Apply(
        run, attention=nn.MultiheadAttention(12, 2, batch_first=True), head=nn.Linear(12, 5)
    )
