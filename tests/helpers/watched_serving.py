"""What services of watched parties compute, without the services: for tests that change their messages."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

import nn
from mpc.core.limits import Limits
from nn.serving.agreement import Book, Request
from nn.serving.model_files import ModelFiles
from nn.serving.parcels import Contents, answer_masks, pack
from nn.serving.turns import Turns, Wishes
from ring import decode, encode

FEATURES, CLASSES = 5, 3
_DRAWN = np.random.default_rng(3)
MODEL = nn.MLP.from_parameters(
    [_DRAWN.normal(0, 1, shape) for shape in ((FEATURES, 4), (4,), (4, CLASSES), (CLASSES,))]
)
ROWS = np.random.default_rng(4).random((3, FEATURES))


class Asked:
    """A client's request: the same parcels for so many parties in every run, so that answers compare."""

    def __init__(self, client, rows, answer, trusted=False):
        self.client, self.answer, self.trusted, self.id = client, answer, trusted, client * 16
        self.rows = encode(rows, 16, int_bits=15)
        self._packed = {}

    def packed(self, parties=3):
        """Return the parcels for so many parties, and the keys."""
        if parties not in self._packed:
            self._packed[parties] = pack(self.rows, parties, watched=True)
        return self._packed[parties]

    def read(self, answers, parties=3):
        """Return what the client makes of the parties' words: the first ones, as an honest run has them."""
        masks = answer_masks(self.packed(parties)[1], answers[0].shape).sum(axis=0, dtype=np.uint64)
        return decode(answers[0] - masks, 0 if self.answer == "class" else 16)

    def at(self, party, version, kinds, parties=3):
        """Return the request as one party has it."""
        parcel = self.packed(parties)[0][party]
        contents = Contents(parcel.said, party, parties, watched=True)
        shares = contents.shares(self.rows.shape, parcel.share)
        return Request(
            self.client, self.id.encode(), "m", version, self.answer, len(shares[0]), shares,
            lambda: None, (kinds, self.answer, self.trusted), self.trusted, contents,
        )  # fmt: skip


ASKED = [
    Asked("d", ROWS[:2], "class"),
    Asked("e", 9 * ROWS[2:], "class"),
    Asked("f", ROWS[:1], "scores", trusted=True),
]


def turns_of(session, folder):
    """Return the turns of a party, with a model that all have saved."""
    secret = MODEL.share(session, owner="alice", low=0, high=1, scores=True)
    nn.save_shares(secret, folder)
    number = session.parties.index(session.me)
    read = SimpleNamespace(
        names=session.parties, format=session.format, security=session.security,
        parties={session.me: SimpleNamespace(folders={})},
    )  # fmt: skip
    book = Book(number, len(session.parties), 60.0)
    turns = Turns(
        session,
        "provider",
        book,
        ModelFiles(read, session.me, {"m": folder}),
        Wishes(),
        False,
        True,
    )
    turns.agree_on_models()
    return turns, book


def answered(turns, book, asked):
    """Take turns until the requests are answered; return them."""
    number, parties = turns.session.here[0], turns.session.size
    requests = [each.at(number, turns.sets["m"], turns.kinds["m"], parties) for each in asked]
    book.open()
    for request in requests:
        book.add(request, Limits())
    for other in range(parties - 1):
        book.heard(other, [request.key for request in requests], [])
    while not all(request.done for request in requests):
        turns._turn()
    return requests


def serving(session, asked=ASKED):
    """A program: agree on models, and answer requests. Returns what each client is told."""
    # A folder for each run, with a file of each party.
    folder = vars(session.transport.network).setdefault("folder", tempfile.TemporaryDirectory())
    turns, book = turns_of(session, Path(folder.name))
    return [
        each.read([request.result], session.size) if request.problem == "" else None
        for each, request in zip(asked, answered(turns, book, asked), strict=True)
    ]
