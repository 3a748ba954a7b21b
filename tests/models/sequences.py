"""Networks on sequences: recurrent and convolutional ones."""

import torch
from parts import Apply, architecture
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Last(nn.Module):
    """The last step of a recurrent network, and a Linear."""

    def __init__(self, net, width):
        super().__init__()
        self.net, self.head = net, nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.net(x)[0][:, -1])


@architecture((12, 4))
def lstm():
    return Last(nn.LSTM(4, 12, batch_first=True), 12)


@architecture((10, 4))
def lstm_two_layers_both_ways():
    return Last(nn.LSTM(4, 6, num_layers=2, bidirectional=True, batch_first=True), 12)


@architecture((12, 4))
def gru():
    return Last(nn.GRU(4, 12, batch_first=True), 12)


@architecture((10, 4))
def gru_both_ways():
    return Last(nn.GRU(4, 6, bidirectional=True, batch_first=True), 12)


@architecture((12, 4))
def rnn():
    return Last(nn.RNN(4, 12, batch_first=True), 12)


@architecture((8, 4))
def rnn_relu_hidden():
    def run(m, x):
        return m.head(m.net(x)[1][-1])

    return Apply(
        run, net=nn.RNN(4, 12, nonlinearity="relu", batch_first=True), head=nn.Linear(12, 5)
    )


@architecture((8, 4))
def lstm_attention():
    def run(m, x):
        y, _ = m.net(x)
        weights = torch.softmax(m.score(torch.tanh(m.key(y))), 1)
        return m.head((weights * y).sum(1))

    return Apply(
        run,
        net=nn.LSTM(4, 8, batch_first=True),
        key=nn.Linear(8, 8),
        score=nn.Linear(8, 1),
        head=nn.Linear(8, 5),
    )


@architecture((2, 64))
def cnn_1d():
    return nn.Sequential(
        nn.Conv1d(2, 8, 5, 2, 2),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(8, 12, 3),
        nn.ReLU(),
        nn.AvgPool1d(2),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(12, 5),
    )


@architecture((2, 32))
def temporal_convolutions():
    class Block(nn.Module):
        def __init__(self, a, b, dilation):
            super().__init__()
            self.pad = nn.ConstantPad1d((2 * dilation, 0), 0.0)
            self.conv, self.way = nn.Conv1d(a, b, 3, dilation=dilation), nn.Conv1d(a, b, 1)

        def forward(self, x):
            return F.relu(F.relu(self.conv(self.pad(x))) + self.way(x))

    return nn.Sequential(
        Block(2, 8, 1),
        Block(8, 8, 2),
        Block(8, 8, 4),
        Apply(lambda m, x: m.head(x[:, :, -1]), head=nn.Linear(8, 5)),
    )


@architecture((2, 32))
def wavenet():
    def run(m, x):
        x, skips = m.first(x), 0
        for filters, gates, out in zip(m.filters, m.gates, m.outs, strict=True):
            y = out(torch.tanh(filters(x)) * torch.sigmoid(gates(x)))
            x, skips = x + y, skips + y
        return m.head(F.relu(skips).mean(2))

    def cells():
        return nn.ModuleList(nn.Conv1d(8, 8, 3, padding=d, dilation=d) for d in (1, 2, 4))

    return Apply(
        run,
        first=nn.Conv1d(2, 8, 1),
        filters=cells(),
        gates=cells(),
        outs=nn.ModuleList(nn.Conv1d(8, 8, 1) for _ in range(3)),
        head=nn.Linear(8, 5),
    )


@architecture((12, 8))
def text_convolutions():
    def run(m, x):
        x = x.transpose(1, 2)
        return m.head(torch.cat([F.relu(c(x)).max(2)[0] for c in m.convs], 1))

    convs = nn.ModuleList(nn.Conv1d(8, 6, n) for n in (2, 3, 4))
    return Apply(run, convs=convs, head=nn.Linear(18, 5))
