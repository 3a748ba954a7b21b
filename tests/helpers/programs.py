"""Programs that tests run in processes of their own."""

import itertools
import json
import logging
import os
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import mpc.provider.meetings
import mpc.provider.service
import nn
import nn.shared.fit
from mpc.core.correlation import MaskRef, Part
from mpc.launch import HELPERS
from mpc.protocols import product, range_check
from mpc.protocols.b2a import RandomBits
from mpc.protocols.product import ProductTerm
from mpc.provider.dealer import Provider
from mpc.transport import waiting
from mpc.transport.connection import Connection
from nn.layers import Add, BatchNorm, Concat, Dense, Dropout, Graph, ReLU, Take
from nn.layers.activations import Sigmoid, Tanh
from nn.layers.convolution import Convolution
from nn.layers.pooling import AveragePool, MaxPool
from nn.layers.shaping import Flatten, Reshape
from nn.models.heads import Head, HeadsModel
from nn.models.predictors import Classifier, Regressor
from ring import SottoError
from ring.bits import unpack_bits
from tests.helpers.processes import in_child, stop


def many_requests(s):
    """Products, bits and views of masks, by every kind of index; to be planned."""
    x = s.share(None, owner="bob", shape=(6, 4))
    w = s.share(None, owner="alice", shape=(4, 5))
    y = (x @ w).relu()
    range_check.verdict(range_check.bilinear(x[[0, 2]], y[:2, :4], product.multiply, 1))
    z = (y[[2, 0, 1], :3].T * y[:3, ::2][:, :3].T) * (x[:3, :3] > 0)
    return (z @ y[1:4][:, np.array([True, False, True, True, False])]).argmax(axis=1).reveal()


def network():
    rng = np.random.default_rng(0)
    sizes = [(64, 32), (32,), (32, 10), (10,)]
    return nn.MLP.from_parameters([rng.normal(0, 0.2, s) for s in sizes])


def save_where_the_disk_is_full(session, folder, full):
    """Save twice: first where no file may grow, then where there is room. Returns what was told."""
    shared = network().share(session, owner="alice", low=0, high=1)
    folder, told = Path(folder) / session.me, []
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    if full:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    for _ in range(2):
        try:
            nn.save_shares(shared, folder)
        except mpc.DataError as error:
            told.append(str(error))
        told.append(sorted(path.name for path in folder.iterdir()))
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    again = nn.load_shares(session, folder)
    rows = again.share_rows(np.ones((1, 64)) if session.me == "bob" else None, owner="bob", rows=1)
    return told, again.predict(rows)


def save_where_a_file_is(session, folder):
    """Save where one party has a file already, which stays."""
    shared = network().share(session, owner="alice", low=0, high=1)
    folder = Path(folder) / session.me
    if session.me == "alice":
        folder.mkdir()
        (folder / "alice.npz").write_text("mine")
    with pytest.raises(mpc.DataError) as caught:
        nn.save_shares(shared, folder)
    return str(caught.value), sorted(path.name for path in folder.iterdir())


def picture_network():
    """Layers of every kind, on 8x8 pixels."""
    rng = np.random.default_rng(3)

    def parameters(*shape):
        return rng.normal(0, 0.3, shape), rng.normal(0, 0.3, shape[-1])

    layers = [
        Reshape(8, 8, 1), Convolution(*parameters(3, 3, 1, 4), padding="same"), MaxPool(2), ReLU(),
        Convolution(*parameters(3, 3, 4, 6), stride=(1, 1), padding=1), AveragePool((2, 2)), Tanh(),
        Flatten(), Dense(*parameters(24, 12)), Sigmoid(), Dense(*parameters(12, 3)),
    ]  # fmt: skip
    return nn.Sequential.from_layers(layers, 64, classes=["cat", "dog", "emu"])


def flower_network():
    """A classifier of labels that are objects, with features of very different sizes."""
    rng = np.random.default_rng(4)
    layers = [
        Dense(rng.normal(size=(3, 6)) * FLOWER_SCALE[:, None], rng.normal(size=6)), ReLU(),
        Dense(rng.normal(size=(6, 3)), rng.normal(size=3)),
    ]  # fmt: skip
    labels = np.array(["iris", "rose", "tulip"], object)
    made = Classifier(layers, labels, 3, (flower_rows().min(axis=0), flower_rows().max(axis=0)))
    made.feature_names_in_ = np.array(["length", "width", "height"], object)
    return made


FLOWER_SCALE = np.array([1e-4, 1.0, 1e3])


def flower_rows():
    return (np.random.default_rng(5).random((50, 3)) - 0.2) / FLOWER_SCALE


def price_network(outputs=1):
    """A regressor on the same features."""
    rng = np.random.default_rng(6)
    weights = rng.normal(size=(3, outputs)) * FLOWER_SCALE[:, None]
    ends = flower_rows().min(axis=0), flower_rows().max(axis=0)
    return Regressor([Dense(weights, rng.normal(size=outputs))], 3, ends)


def branched_network():
    """A graph with two inputs, a value that is used three times, and two outputs."""
    rng = np.random.default_rng(8)

    def dense(inputs, outputs):
        return Dense(rng.normal(size=(inputs, outputs)) / inputs, rng.normal(size=outputs) / 4)

    graph = Graph(
        [
            (Take(0, range(4)), 0), (dense(4, 5), 1), (ReLU(), 2), (Take(0, range(4, 6)), 0),
            (dense(2, 5), 4), (Add(), (3, 5)), (dense(5, 3), 6), (dense(5, 2), 6),
            (Concat(), (7, 8)),
        ]
    )  # fmt: skip
    heads = [Head("kind", 0, 3, (3,), "labels"), Head("size", 3, 5, (2,), "values")]
    model = HeadsModel(graph, 6, heads, (-1.0, 1.0))
    model.inputs_ = {"left": 4, "right": 2}
    return model


def classify(session, x, rows):
    """Alice's network on the last party's rows; what it took by the books, by the socket and by plan."""
    model = network() if session.me == "alice" else network().outline()
    secret = model.share(session, owner="alice", low=0, high=1)
    images = secret.share_rows(x, owner=session.parties[-1], rows=rows)
    plan = session.plan(lambda planned: secret.twin(planned).predict(planned.twin(images)))
    before, wire = session.cost(), session.bytes_on_the_wire
    labels = secret.predict(images)
    spent, now = session.cost() - before, session.bytes_on_the_wire
    # Nobody sends what comes next before the last party has counted.
    session.share([0], owner=session.parties[-1]).reveal(to=session.parties[0])
    return labels, spent, [b - a for a, b in zip(wire, now, strict=True)], plan.cost


def classify_again(session, batches, x=None):
    """Classify the first rows of `x`, as many as each batch has."""
    return [classify(session, None if x is None else x[:rows], rows) for rows in batches]


class OverAKnownNetwork:
    """The parties' configuration states a network so slow that two rounds pay for every ReLU."""

    def __init__(self, rows):
        self.rows = rows

    def __call__(self, place):
        own = place.path.with_name(f"{place.me}.toml")
        text = place.path.read_text()
        own.write_text(f"{text}\n[network]\nround_trip = 1\nmegabits = 1000\n")
        place = replace(place, path=own)
        if place.me == "provider":
            return place.provide()
        with place.session() as session:
            mine = self.rows if place.me == session.parties[-1] else None
            return classify(session, mine, len(self.rows))


def several(session, x):
    """What the local session cannot show: who learns what, and large openings both ways."""
    first, last = session.parties[0], session.parties[-1]
    s = session.share(x, owner="alice", shape=(2,))
    big = session.share(np.arange(3_000_000), owner=first)
    other = session.share(np.arange(3_000_000), owner=last)
    opened = (big + other).reveal()
    return (
        session.me,
        float((s * s).sum().reveal()),
        s.reveal(to=last),
        bool((opened == 2 * np.arange(3_000_000)).all()),
        repr(session),
    )


def divides(session):
    if session.me == "bob":
        raise ZeroDivisionError("12345 is a secret")
    return session.share([1.0], owner="alice").relu().reveal()


def other_shape(session):
    n = 3 if session.me == "bob" else 2
    return session.share(np.ones(n), owner="alice").reveal()


def other_format(session):
    x = [1, 2] if session.me == "alice" else None
    return (session.share(x, owner="alice", shape=(2,)) * 2).reveal()


def work(session, times):
    """Compute round after round, as often at every party."""
    x = session.share(np.ones(1000), owner="alice")
    for _ in range(times):
        with session.layer("1 again"):
            x = x.relu()
    return float(x.sum().reveal())


def fit(session, X, y, *, network, folder=None, columns=10, **how):
    """Train on alice's rows and the last party's labels, and reveal all that came of it."""
    last = session.parties[-1]
    rows = session.share(X, owner="alice", shape=(DIGITS, 64), bound=1)
    kind = np.int64 if columns > 1 else np.float64
    targets = session.share(y, owner=last, shape=(DIGITS, columns), dtype=kind, bound=1)
    held_out = rows[:50], targets[:50]
    model = network().fit(rows, targets, validation=held_out, checkpoint=folder, **how)
    parameters = [p.reveal() for layer in model.layers for p in layer.parameters]
    return parameters, model.validation_scores_, model.validation_losses_


DIGITS = 256


def digits():
    X, _, y, _ = nn.load_digits_8x8()
    return X[:DIGITS], nn.one_hot(y[:DIGITS], 10)


def numbers():
    """Rows of digits, and a number for each: how bright it is."""
    X, _ = digits()
    return X, X.mean(axis=1, keepdims=True) * 2


def one_output():
    return nn.MLP((64, 16, 1), random_state=3)


def normalised():
    layers = [
        Dense.untrained(64, 16), BatchNorm.untrained(16), ReLU(), Dropout(0.25), Dense.untrained(16, 1)
    ]  # fmt: skip
    return nn.Sequential(layers, 64, random_state=3)


def small_mlp():
    return nn.MLP((64, 16, 10), random_state=3)


def small_convolutions():
    layers = [
        Reshape(8, 8, 1), Convolution.untrained(1, 4, kernel=3), BatchNorm.untrained(4), MaxPool(2),
        ReLU(), Flatten(), Dropout(0.25), Dense.untrained(36, 10),
    ]  # fmt: skip
    return nn.Sequential(layers, 64, random_state=3)


class TwoSessions:
    """Two sessions of the same parties and provider, used at once."""

    def __call__(self, place):
        if place.me == "provider":
            return place.provide()
        found = {}

        def use(session, number):
            for k in range(30):
                x = session.share(np.arange(200) + number, owner=session.parties[k % 2])
                found[number, k] = float((x * x).relu().sum().reveal())

        with place.session() as one, place.session() as other:
            threads = [threading.Thread(target=use, args=a) for a in ((one, 0), (other, 1))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        return found


class Forking:
    """A party forks while the session runs; its children try to go on with it, and end it."""

    def __call__(self, place):
        if place.me == "provider":
            return place.provide()
        with place.session() as session:
            x = session.share(np.arange(50.0), owner=session.parties[0])
            y = (x * x).relu()

            def end():
                with session:
                    raise ArithmeticError("in the child")

            said = [in_child(y.reveal), in_child(session.close), in_child(end)]
            return said, y.reveal()


class Forging:
    """The last party asks for a product that it knows, under the id of alice's next mask.

    It says what the mask would be if shares of corrections were masks, and what alice's secret.
    """

    SECRET = np.arange(40, dtype=np.int64) * 1000 - 7

    def __call__(self, place):
        if place.me == "provider":
            return place.provide()
        with place.session() as session:
            shape = self.SECRET.shape
            x = session.share(
                self.SECRET if place.me == "alice" else None, "alice", shape=shape, dtype=int
            )
            y = session.share(
                np.ones(shape, int) if place.me == "bob" else None, "bob", shape=shape, dtype=int
            )
            lam = None
            if place.me == "bob":
                known = MaskRef(10**6, Part(shape), owner=1)
                asked = ProductTerm("multiply", known, known, shape)
                own = np.empty(shape, np.uint64)
                session.streams[1].masks.fill(own, known.id)
                session.source.masks(session.last_id + 1, asked)
                (correction,) = session.source.corrected(session.last_id + 1, asked)
                lam = own * own - correction
            z = x * y
            result = z.reveal()
            if lam is None:
                return result
            # The words that it took for alice's mask, behind which delta hides the secret.
            return result, (x.mask.delta[0] + lam).view(np.int64)


class Fit:
    """One party's part of `fit`, with keys that a local session can have too.

    All are killed after their checkpoint of the epoch `crash_after`, or the last party alone before
    its checkpoint of the epoch `crash_before`, when all others have theirs.
    """

    def __init__(self, me, names, how, crash_after=None, crash_before=None):
        X, y = digits()
        self.data = (X if me == names[0] else None, y if me == names[-1] else None)
        self.how, self.crash_after = how, crash_after
        self.crash_before = crash_before if me == names[-1] else None
        self.others = names[:-1]

    def __call__(self, place):
        import mpc.parties.joining
        from tests.helpers.bodies import fixed_key

        mpc.parties.joining.pair_key = mpc.provider.meetings.pair_key = fixed_key
        if place.me == "provider":
            return place.provide()
        save = nn.shared.fit.save

        def crash(folder, *arguments):
            epoch = arguments[-1].epoch
            if epoch == self.crash_before:
                while not all(_has_epoch(folder, name, epoch) for name in self.others):
                    time.sleep(0.05)
                os.kill(os.getpid(), signal.SIGKILL)
            save(folder, *arguments)
            if epoch == self.crash_after:
                os.kill(os.getpid(), signal.SIGKILL)

        nn.shared.fit.save = crash
        with place.session() as session:
            return self.train(session, **self.how)

    def train(self, session, **how):
        found = fit(session, *self.data, **how)
        return *found, session.cost().total.rounds


def epoch_of(path):
    """Return the epoch of a checkpoint."""
    with np.load(path) as file:
        return json.loads(file["header"].tobytes())["epoch"]


def _has_epoch(folder, name, epoch):
    path = folder / f"checkpoint-{name}.npz"
    return path.exists() and epoch_of(path) == epoch


class Struck:
    """Every process works; one gets a signal after a while, and all tell how it ended for them.

    With `warm`, the while begins when all have done some rounds.
    """

    def __init__(self, victim, number, after, folder, warm=False):
        self.victim, self.number, self.after = victim, number, after
        self.folder, self.warm = folder, warm

    def __call__(self, place):
        (self.folder / f"{place.me}.pid").write_text(str(os.getpid()))
        self.started(place.me)
        if place.me == "provider":
            return place.provide()
        try:
            with place.session() as session:
                if self.warm:
                    work(session, 3)
                    if session.me == next(n for n in session.parties if n != self.victim):
                        self.strike_later()
                return self.run(session)
        except SottoError as error:
            (self.folder / place.me).write_text(f"{type(error).__name__}: {error}")
            raise

    def started(self, me):
        if me == self.victim and not self.warm:
            self.strike_later()

    def run(self, session):
        work(session, 10**9)
        return "finished"

    def strike_later(self):
        victim = int((self.folder / f"{self.victim}.pid").read_text())
        threading.Timer(self.after, os.kill, (victim, self.number)).start()


class StruckBetween(Struck):
    """One process ends after an opening, before the last party has the correction that goes with it."""

    def __init__(self, victim, folder):
        super().__init__(victim, KILL, 0, folder)

    def started(self, me):
        if me == self.victim == "provider":
            # Not by a signal from outside, which takes effect while the provider still deals.
            RandomBits.deal = self._end_at_the_opening

    def _end_at_the_opening(self, *_):
        while not (self.folder / "opened").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), KILL)

    def run(self, session):
        work(session, 1)
        shares = session.correlated(RandomBits(1, 100))
        session.open((shares.masks[0], "xor"))
        if session.me == self.victim:
            os.kill(os.getpid(), KILL)
        if session.me == session.parties[-1]:
            (self.folder / "opened").touch()
        session.open((shares.corrected[0], "sum"))
        return "finished"


def takes_corrections_in_another_order(session):
    """Three correlations in use at once, of which one is of no use after all."""
    session.prepare(lambda planned: [planned.correlated(RandomBits(1, n)) for n in (3, 70, 5)])
    first, _, third = (session.correlated(RandomBits(1, n)) for n in (3, 70, 5))
    found = []
    for shares, n in ((third, 5), (first, 3)):
        bits, numbers = session.open((shares.masks[0], "xor"), (shares.corrected[0], "sum"))
        found.append((unpack_bits(bits[0, 0], n).tolist(), numbers[0, 0].tolist()))
    x = session.share([1.5, -2.0], owner="alice")
    return found, (x * 2).relu().reveal().tolist()


class Slow:
    """The provider stops for a while; bob tells what was logged meanwhile."""

    def __init__(self, path, seconds):
        self.path, self.seconds = path, seconds

    def __call__(self, place):
        if place.me == "provider":
            self.path.write_text(str(os.getpid()))
            return place.provide()
        messages = []
        handler = logging.Handler()
        handler.emit = lambda entry: messages.append(entry.getMessage())
        logging.getLogger("sotto").addHandler(handler)
        waiting.REPORT_SECONDS = self.seconds / 4
        with place.session() as session:
            work(session, 2)
            stopped = self.path.with_suffix(".stopped")
            if session.me == "bob":
                provider = int(self.path.read_text())
                stop(provider)
                threading.Timer(self.seconds, os.kill, (provider, signal.SIGCONT)).start()
                stopped.touch()
            # What alice asks for earlier would be dealt before the provider stops.
            while not stopped.exists():
                time.sleep(0.01)
            return work(session, 2), messages


def ask(path, model, me):
    """Be a client that asks until it is killed, or loses a party."""
    rows, plain = np.random.default_rng(5).random((40, 64)), network()
    try:
        with nn.Client(path, me=me, model=model) as client:
            for k in range(10**9):
                found = client.predict(rows[k % 39 : k % 39 + 2])
                assert (found == plain.predict(rows[k % 39 : k % 39 + 2])).all(), "a wrong answer"
                if not k:
                    print("ready", flush=True)
    except SottoError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        sys.exit(3)


def load(path, model, me, clients):
    """Be several clients that ask until standard input ends; say what fails, and how much was asked."""
    rows, plain = np.random.default_rng(5).random((40, 64)), network()
    expected, over, counts = plain.predict(rows), threading.Event(), [0] * clients
    first = threading.Barrier(clients + 1)

    def one(number):
        with nn.Client(path, me=me, model=model, patience=60) as client:
            for k in itertools.count(number):
                try:
                    found = client.predict(rows[k % 39 : k % 39 + 2])
                except SottoError as error:
                    print(f"{type(error).__name__}: {error}", flush=True)
                    continue
                if (found != expected[k % 39 : k % 39 + 2]).any():
                    print("a wrong answer", flush=True)
                    os._exit(4)
                counts[number] += 1
                if counts[number] == 1:
                    first.wait()
                if over.is_set():
                    return

    threads = [threading.Thread(target=one, args=(k,)) for k in range(clients)]
    for thread in threads:
        thread.start()
    first.wait()
    print("ready", flush=True)
    sys.stdin.read()
    over.set()
    for thread in threads:
        thread.join()
    print(f"answered {sum(counts)}", flush=True)


def slowly():
    """Be `sotto`, with an evaluation that takes its time for every few rows."""
    from nn.command import main
    from nn.shared.model import SharedModel

    evaluate = SharedModel._evaluate

    def slow(model, x):
        if model.session.here:
            time.sleep(0.3)
        return evaluate(model, x)

    SharedModel._evaluate = slow
    SharedModel.rows_at_once = lambda model: 4
    sys.exit(main(sys.argv[1:]))


class Hoarding:
    """Ask for much more randomness than is ever taken; tell how much memory the provider has."""

    ROWS, TIMES = 1 << 18, 200

    def __init__(self, workers, path):
        self.workers, self.path = workers, path

    def __call__(self, place):
        if place.me == "provider":
            import joblib

            from mpc.provider.service import ProviderService

            def with_workers(*arguments, **options):
                # This process is a daemon of its parent's and may have no processes of its own.
                with joblib.parallel_config("threading"):
                    return ProviderService(*arguments, workers=self.workers, **options)

            mpc.provider.service.ProviderService = with_workers
            self.path.write_text(str(os.getpid()))
            return place.provide()
        with place.session() as session:
            x = session.share(np.ones(self.ROWS), owner="alice")
            x.relu().sum().reveal()
            if session.me == "alice":
                return float(x.relu().sum().reveal())
            before = resident(self.path)

            def much(planned):
                for _ in range(self.TIMES):
                    planned.twin(x).relu()

            session.prepare(much)
            largest = 0
            for _ in range(30):
                time.sleep(0.1)
                largest = max(largest, resident(self.path))
            # Of what was asked for ahead the first is used, and the rest dropped.
            return float(x.relu().sum().reveal()), largest - before


def children(word):
    """Return the numbers of this process's children with a word in their command lines."""
    listing = subprocess.run(
        ["ps", "-ww", "--ppid", str(os.getpid()), "-o", "pid=,args="],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [int(line.split()[0]) for line in listing.stdout.splitlines() if word in line]


def resident(path):
    """Return the bytes of memory of the process whose number is in a file."""
    with open(f"/proc/{path.read_text()}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Recorded:
    """Run `classify` in two sessions; the provider writes down all that it receives."""

    def __init__(self, path):
        self.path = path

    def __call__(self, place):
        if place.me != "provider":
            for seed in (0, 1):
                x = np.random.default_rng(seed).random((20, 64)) if place.me == "bob" else None
                with place.session() as session:
                    classify(session, x, 20)
            return None
        taken, take = [], Connection.take

        def taking(connection):
            incoming = take(connection)
            taken.append(
                (connection.peer, incoming.header.kind.name, incoming.data.tobytes().hex())
            )
            self.path.write_text(json.dumps(taken))
            return incoming

        Connection.take = taking
        return place.provide()


class Strangers:
    """While the parties meet, alice's address gets visitors; the session must not mind."""

    def __call__(self, place):
        if place.me == "provider":
            return place.provide()
        if place.me == "bob":
            address = place.sock.getsockname()  # not alice's: that one comes from the file
            assert address
            time.sleep(0.3)
        else:
            port = place.sock.getsockname()[1]
            threading.Thread(target=_visit, args=(port,), daemon=True).start()
        with place.session() as session:
            return work(session, 20)


def _visit(port):
    for greeting in (b"", b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000)):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(greeting)
    anonymous = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anonymous.check_hostname, anonymous.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            anonymous.wrap_socket(sock).recv(1)
    except OSError:
        pass


STOP, KILL = signal.SIGSTOP, signal.SIGKILL


def receives_ahead(session, there):
    """Alice waits until bob has three; return how many corrections are there when he has heard from her."""

    def program(x):
        y = x.relu()
        return [(y > limit).reveal() for limit in (0.25, 0.5, 0.75)]

    x = session.share(np.ones(100), owner="alice")
    session.prepare(lambda planned: program(planned.twin(x)))
    here, transport, source = [], session.transport, session.source
    deliver = transport.open

    def tell():
        while len(source.ahead) < 3:
            time.sleep(0.01)
        there.touch()

    if session.me == "bob":
        threading.Thread(target=tell, daemon=True).start()

    def listening(messages):
        if session.me == "alice" and not here:
            end = time.monotonic() + 60
            while not there.exists() and time.monotonic() < end:
                time.sleep(0.01)
        opened = deliver(messages)
        here.append(len(session.source.ahead) if session.me == "bob" else 0)
        return opened

    transport.open = listening
    assert np.all(program(x))
    return here


def prepares_for_a_product(session):
    """Prepare, twice alike, for what becomes of a product that is there already."""
    x = session.share([1.5, -2.0] if session.me == "alice" else None, owner="alice", shape=(2,))
    y = session.share([3.0, 4.0] if session.me == "bob" else None, owner="bob", shape=(2,))
    found = []
    for _ in range(2):
        z = x * y

        def program(product):
            return product.relu().reveal().tolist(), (product * 2).reveal().tolist()

        session.prepare(lambda planned, z=z, run=program: run(planned.twin(z)))
        found += program(z)
    return found


def counting_kernels():
    """Be `sotto`; write to the file SOTTO_TEST_KERNELS who gets which kernel, compiled or cached."""
    from numba.core.dispatcher import Dispatcher

    from nn.command import main

    get = Dispatcher.compile

    def counted(dispatcher, signature):
        with open(os.environ["SOTTO_TEST_KERNELS"], "a") as file:
            # ["provider", path, ...] or ["serve", path, "--me", name, ...]
            name = sys.argv[4] if sys.argv[1] == "serve" else sys.argv[1]
            file.write(f"{name} {dispatcher.py_func.__qualname__} {signature}\n")
        return get(dispatcher, signature)

    Dispatcher.compile = counted
    sys.exit(main(sys.argv[1:]))


def kind_of_transfers(session):
    """Return how the two parties of a session extend their transfers."""
    (kind,) = {type(each).__name__ for each in session.pair.extensions}
    return kind


class Cheat(Provider):
    """Deals every correction wrongly."""

    def correct(self, id, correlation, out):
        super().correct(id, correlation, out)
        out += np.uint64(1 << 40)


def audited(evidence, place):
    """Run one process of a launch whose provider cheats; `evidence` is the auditor's folder for it."""
    if place.me == "provider":
        mpc.provider.service.Provider = Cheat
    if place.me in HELPERS:
        return place.provide(evidence)
    with place.session() as session:
        x = session.share(np.ones(3) if session.me == "alice" else None, "alice", shape=(3,))
        return x.relu().reveal()
