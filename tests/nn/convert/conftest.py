"""The same weights in each run, whichever files a process has run before."""

import pytest

from tests.helpers import weights


@pytest.fixture(autouse=True, scope="module")
def same_weights():
    weights.begin_anew()
