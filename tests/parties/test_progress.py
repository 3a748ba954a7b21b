"""What `--verbose` shows of a long request: progress on a terminal, nothing of it elsewhere."""

import os
import pty
import signal
import termios
import threading

import numpy as np
import pytest

import nn
from tests.helpers.programs import network
from tests.helpers.services import MODELS, PARTIES, Services

SLOWLY = ("-c", "from tests.helpers.programs import slowly; slowly()")
X = np.random.default_rng(11).random((40, 64))


class Terminal:
    """What a process believes to be a terminal, and all that was written to it."""

    def __init__(self):
        self._ours, self.theirs = pty.openpty()
        termios.tcsetwinsize(self.theirs, (24, 100))
        self._text = b""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self):
        try:
            while some := os.read(self._ours, 4096):
                self._text += some
        except OSError:  # how Linux says that nobody is at the other end
            pass

    def close(self):
        """Return the text, once the processes that write to it are gone."""
        os.close(self.theirs)
        self._thread.join(20)
        os.close(self._ours)
        return self._text.decode()


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    running = Services(
        tmp_path_factory.mktemp("progress"), {"network": MODELS["network"]}, workers=1
    )
    yield running
    assert not running.stop()


def written(services, **how):
    """Answer one long request; return what each party has written to its terminal or its log."""
    terminals = {}
    for name in PARTIES:
        services.kill(name)
    for name in PARTIES:
        verbose, terminal = how[name]
        if terminal:
            terminals[name] = Terminal()
        stderr = terminals[name].theirs if terminal else None
        services.start(name, program=SLOWLY, verbose=verbose, stderr=stderr)
    with nn.Client(services.path, me="carol") as client:
        np.testing.assert_array_equal(client.predict(X), network().predict(X))
    for name in PARTIES:
        services.processes[name].send_signal(signal.SIGTERM)
        assert services.processes[name].wait(30) == 0
    return {n: terminals[n].close() if n in terminals else services.told(n) for n in PARTIES}


def test_progress_on_a_terminal_if_asked_for(services):
    found = written(services, alice=(True, True), bob=(False, True))
    assert "event=request" in found["alice"]
    # A bar that has moved, with how many of the 40 rows are done.
    assert "encrypted evaluation" in found["alice"]
    assert "32/40" in found["alice"]
    assert "encrypted evaluation" not in found["bob"] and "event=request" not in found["bob"]


def test_no_progress_in_a_file(services):
    found = written(services, alice=(True, False), bob=(False, False))
    assert "event=request" in found["alice"]
    assert "encrypted evaluation" not in found["alice"] + found["bob"]
    assert "event=request" not in found["bob"]
