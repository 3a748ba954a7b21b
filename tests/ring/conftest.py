"""What the tests of the kernels share."""

import pytest


@pytest.fixture(scope="module", params=[1, 3], ids=["one-thread", "three-threads"])
def threads(request):
    """Run kernels on so many threads, whatever the size of the work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ring.threads._threads", request.param)
        patch.setattr("ring.threads.WORTHWHILE", 1)
        yield request.param
