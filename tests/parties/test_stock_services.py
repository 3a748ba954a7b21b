"""``sotto prepare``, and services that take from what it has made."""

import re
import threading

import numpy as np
import pytest

import nn
from mpc.parties import configuration
from nn.command import main
from nn.serving.stocks import stock_of
from tests.helpers.programs import network
from tests.helpers.services import MODELS, PARTIES, Services

X = np.random.default_rng(18).random((60, 64))
WITHIN = 60


def prepare(path, folder, rows, together, parties=PARTIES):
    """Run the command at both parties; return the exit codes."""
    codes = {}

    def run(me):
        codes[me] = main(
            ["prepare", str(path), "--me", me, "--model", f"network={folder}", "--rows", str(rows),
             "--together", str(together)]
        )  # fmt: skip

    threads = [threading.Thread(target=run, args=(me,), daemon=True) for me in parties]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
        assert not thread.is_alive()
    return [codes[me] for me in parties]


class Prepared(Services):
    """Services that start with a stock for twelve requests of five rows."""

    codes = None

    def start(self, name, **options):
        if self.codes is None:
            self.codes = prepare(self.path, self.folder / "network", 60, 5)
        super().start(name, **options)

    def requests(self, count, name="alice"):
        """Return the rounds of each of `count` requests since the start."""
        lines = self.wait_for(name, "request", count=count)
        assert len(lines) == count
        return [int(re.search(r" rounds=(\d+)", line)[1]) for line in lines]


def asked(services, first, requests):
    with nn.Client(services.path, me="carol", model="network", patience=WITHIN) as client:
        for k in range(first, first + requests):
            rows = X[5 * k % 60 :][:5]
            np.testing.assert_array_equal(client.predict(rows), network().predict(rows))


def test_services_take_from_their_stock(tmp_path):
    services = Prepared(tmp_path, {"network": MODELS["network"]}, provider=False)
    try:
        assert services.codes == [0, 0]
        paths = [stock_of(tmp_path / "network", me) for me in PARTIES]
        assert [path.stat().st_mode & 0o777 for path in paths] == [0o600] * 2
        old = paths[0].read_bytes()
        asked(services, 0, 3)
        online, *others = services.requests(3)
        assert others == [online] * 2
        assert all(len(services.lines(me, "stock")) == 1 for me in PARTIES)
        # Lost without a word, and started again: they go on behind what was taken.
        services.kill("alice")
        services.start("alice")
        asked(services, 3, 2)
        assert services.requests(2) == [online] * 2
        # The last requests take more than there is left.
        asked(services, 5, 9)
        *_, last = services.requests(11)
        assert last > online
        # An old file is not used; predictions go on without.
        for me in PARTIES:
            services.kill(me)
        paths[0].write_bytes(old)
        for me in PARTIES:
            services.start(me)
        asked(services, 0, 1)
        (line,) = services.lines("alice", "stock")
        assert "an old file was put back" in line and "model=network" in line
        assert services.requests(1) > [online]
    finally:
        assert not services.stop()


def test_what_cannot_be_prepared_is_refused(tmp_path, capsys):
    alone = configuration.write_example(tmp_path / "alone", provider=False)
    usual = configuration.write_example(tmp_path / "usual")

    def told(path, *more):
        assert main(["prepare", str(path), "--me", "alice", *more]) != 0
        return capsys.readouterr().err

    rows = ("--model", "digits", "--rows", "10")
    assert "has a provider" in told(usual, *rows)
    assert "has no 'digits'" in told(alone, *rows)
    assert "--rows must be at least 1" in told(alone, "--model", "digits", "--rows", "0")
    assert "--together must be" in told(alone, *rows, "--together", "-2")
    with pytest.raises(SystemExit):
        told(alone, "--model", "digits")
