"""No test of processes leaves any behind: neither its own nor those that these have started."""

import gc
import os
import sys
import uuid

import pytest

from mpc.core import joblib_processes
from tests.helpers.processes import gone, marked
from tests.helpers.services import MARK

# All processes that descend from here inherit it, however often their parents have died.
RUN = f"SOTTO_TEST_RUN={uuid.uuid4().hex}"
os.environ.update([RUN.split("=")])


def _kept_by_python(process):
    """Whether it is the process by which multiprocessing or joblib tidies up, once, at the end."""
    return process.parent == os.getpid() and "resource_tracker" in process.command


def _of_the_module(process):
    """Whether it outlives a test on purpose: of services, or what joblib keeps for later calls."""
    pool = process.parent == os.getpid() and "popen_loky_posix" in process.command
    return pool or MARK in process.environment


def _left():
    return [process for process in marked(RUN) if not _kept_by_python(process)]


@pytest.fixture(autouse=True)
def garbage_is_collected_as_before():
    """Commands of services, run here, have garbage collected seldom for the rest of the process."""
    before = gc.get_threshold()
    yield
    if gc.get_threshold() != before:
        gc.set_threshold(*before)
        gc.unfreeze()


@pytest.fixture(autouse=True, scope="module")
def nothing_is_left_over_by_the_module():
    """Checks after the module's own fixtures have ended what they had started."""
    yield
    if "joblib.externals.loky" in sys.modules:
        joblib_processes.shut_down()
    assert not (left := gone(_left)), left


@pytest.fixture(autouse=True)
def nothing_is_left_over(nothing_is_left_over_by_the_module):
    """Checks after each test."""
    before = {process.pid for process in _left()}
    yield

    def new():
        return [p for p in _left() if p.pid not in before and not _of_the_module(p)]

    assert not (left := gone(new)), left
