"""Programs for tests of workers."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np

import mpc
from mpc.workers import spread
from tests.parties.programs import network


def shared(session, x, rows):
    model = network() if session.me == "alice" else network().outline()
    secret = model.share(session, owner="alice", low=0, high=1, scores=True)
    return secret, secret.share_rows(x, owner=session.parties[-1], rows=rows)


def classify(session, x, rows, n_jobs):
    secret, images = shared(session, x, rows)
    begin = time.perf_counter()
    labels = secret.predict(images, n_jobs=n_jobs)
    took = time.perf_counter() - begin
    again = time.perf_counter()
    labels = secret.predict(images, n_jobs=n_jobs)
    return labels, took, time.perf_counter() - again
