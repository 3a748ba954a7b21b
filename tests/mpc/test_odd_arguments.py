"""Arguments that nobody should give: each is an error of Sotto's own or is taken, and the session lives on.

Python's own TypeError for a missing argument is no case.
"""

import inspect

import numpy as np
import pytest

import mpc
import ring

ODD = (
    None, "x", -1, 10**30, 2.5, float("nan"), True, [], {}, object, np.zeros((0, 3)),
    np.array([1, "a"], dtype=object), [1, [2, 3]], 1j, slice(None), np.zeros(3), ["alice", "alice"],
)  # fmt: skip
WORDS = np.zeros((2, 2), np.uint64)
PLAIN = {
    "Session": (mpc.Session, {}),
    "Network": (mpc.Network, {"round_trip": 0.1, "megabits": 1.0}),
    "split": (mpc.split, {"x": 5}),
    "join": (mpc.join, {"shares": WORDS}),
    "encode": (ring.encode, {"x": [1.0]}),
    "decode": (ring.decode, {"x": WORDS}),
    "FixedPoint": (ring.FixedPoint, {}),
    "matmul": (ring.matmul, {"a": WORDS, "b": WORDS}),
    "pack_bits": (ring.pack_bits, {"bits": [1, 0]}),
    "unpack_bits": (ring.unpack_bits, {"words": WORDS, "count": 3}),
    "Stream": (ring.Stream, {"key": ring.fresh_key()}),
}

METHODS = {
    "activation": {"name": "silu"},
    "diagonal": {},
    "divided_by": {},
    "gate": {},
    "power": {},
    "repeat": {"repeats": 2},
    "reshape": {},
    "reveal": {},
    "transpose": {},
    "with_bound": {},
}


def odd_calls(function, usual):
    """Call `function` with each argument odd, and the others as usual."""
    for name, parameter in inspect.signature(function).parameters.items():
        for odd in ODD:
            try:
                if parameter.kind == parameter.VAR_POSITIONAL:
                    function(odd)
                else:
                    function(**{**usual, name: odd})
            except mpc.SottoError:
                pass
            except Exception as error:
                pytest.fail(f"{function.__qualname__}({name}={odd!r}): {error!r}")


@pytest.mark.parametrize("name", PLAIN)
def test_of_functions(name):
    odd_calls(*PLAIN[name])


@pytest.mark.parametrize("provider", ["crypto", None])
def test_of_a_sessions_methods(provider):
    with mpc.Session(provider=provider) as s:

        def program(planned):
            return planned.share([1.0], owner="alice") * 2

        x = s.share([1.0], owner="alice")
        odd_calls(s.share, {"x": [1.0], "owner": "alice"})
        odd_calls(s.reveal, {"x": x})
        odd_calls(s.twin, {"x": x})
        odd_calls(s.layer, {"name": "a"})
        odd_calls(lambda path: s.use_stock(path, program), {})
        for step in (s.plan, s.prepare):
            with pytest.raises(mpc.DtypeError, match="program must take a session"):
                step(3)
        for method, usual in METHODS.items():
            odd_calls(getattr(x, method), usual)
        np.testing.assert_allclose((x * x).relu().reveal(), [1], atol=1e-3)
