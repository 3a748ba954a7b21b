"""Requests: the same bytes wherever in the streams a program stands, and the same correlations back."""

import numpy as np
import pytest

import mpc
from mpc.core import wire
from mpc.core.correlation import MaskRef, Part
from mpc.core.errors import ShapeError
from mpc.core.watching import input_id
from mpc.protocols.product import ProductTerm
from mpc.protocols.truncation import TruncationPair
from mpc.provider.audit import runs_of
from mpc.provider.requests import Block, Request, read
from ring.streams import OWN_IDS

OLDER = 3


def program(base):
    """What a program asks for behind id `base`: a mask of its own, and one that is older."""
    own = MaskRef(base + 1, Part((4,)), views=(("reshape", (2, 2)),))
    older = MaskRef(OLDER, Part((2, 2)), without=1)
    kept = [MaskRef(OWN_IDS + id, Part((2, 2))) for id in (base + 3, OLDER)]
    return [
        (base + 2, ProductTerm("multiply", own, older, (2, 2))),
        (base + 4, TruncationPair(4, 16)),
        (base + 5, ProductTerm("matmul", own, own, (2, 2))),
        (base + 6, TruncationPair(4, 16, ProductTerm("matmul", older, own, (2, 2)))),
        (base + 7, ProductTerm("matmul", *kept, (2, 2))),
    ]


def frames(base):
    return list(Block.of(program(base), base, base + 7).frames(base))


@pytest.mark.parametrize("base", [OLDER, 100, 2**40])
def test_correlations_come_back_as_they_were_asked_for(base):
    block = Block.of(program(base), base, base + 7)
    assert list(block.at(base)) == program(base)
    assert block.ids == 7
    got = [request for frame in block.frames(base) for request in read(frame)]
    assert [(request.id, request.correlation(1 << 10)) for request in got] == program(base)


def test_a_block_serves_wherever_the_program_stands():
    block = Block.of(program(OLDER), OLDER, OLDER + 7)
    assert list(block.at(77)) == program(77)
    assert list(block.frames(77)) == frames(77)
    (first,), (second,) = frames(50), frames(60)
    assert wire.decode(first)[1] == wire.decode(second)[1]


def on_inputs(base, old):
    """What watched parties ask for: an input of just before, one of just behind, and an old one."""
    inputs = [MaskRef(input_id(2, id), Part((2, 2))) for id in (base, base + 1, old)]
    new, own, old_one = inputs
    term = ProductTerm("matmul", new, old_one, (2, 2))
    return [
        (base + 2, ProductTerm("matmul", own, new, (2, 2))),
        (base + 3, TruncationPair(4, 16, term)),
    ]


@pytest.mark.parametrize("base", [1, 5, 100, 2**40])
def test_an_input_just_before_a_program_is_asked_for_by_the_same_bytes(base):
    block = Block.of(on_inputs(base, 1), base, base + 3)
    assert list(block.at(base)) == on_inputs(base, 1)
    (frame,) = block.frames(base)
    got = [(request.id, request.correlation(1 << 10)) for request in read(frame)]
    assert got == on_inputs(base, 1)
    if base >= 100:
        assert list(block.at(base + 50)) == on_inputs(base + 50, 1)
    for (_, asked), (_, later) in zip(on_inputs(base, 1), on_inputs(base + 50, 1), strict=True):
        # Equal outlines, equal requests.
        alike = asked.outline(base) == later.outline(base + 50)
        assert alike == (asked.counted_from(base) == later.counted_from(base + 50))
        assert alike or base < 100
    other = asked.outline(base), on_inputs(base, 2)[1][1].outline(base)
    assert other[0] != other[1]


@pytest.mark.parametrize("together", [True, False])
def test_a_block_that_is_repeated_asks_for_what_its_runs_ask_for(together):
    block = Block.of(program(100), 100, 107)
    assert block.repeats == 512 // 5
    parts = list(block.repeated(100, 3, 9, together=together))
    assert [part.runs for part in parts] == ([3] if together else [1, 1, 1])
    assert sum(part.requests for part in parts) == 15 and parts[-1].last == 125
    got = [request for part in parts for request in read(part.frame)]
    wanted = [each for base in (100, 109, 118) for each in program(base)]
    # A mask from before all runs stays where it is; own ones are those of each run.
    assert [(request.id, request.correlation(1 << 10)) for request in got] == wanted


def test_what_is_too_large_is_not_asked_for_ahead():
    assert Block.of([(1, TruncationPair(1 << 22, 16))], 0, 1).repeats == 0
    assert Block.of([(1, TruncationPair(1 << 20, 16))], 0, 1).repeats == 1
    assert Block.of([], 0, 1).repeats == 0
    many = Block.of([(k, TruncationPair(k, 16)) for k in range(1, 301)], 0, 300)
    assert many.repeats == 1
    assert [part.runs for part in many.repeated(0, 2, 300)] == [1] * 6


def test_many_requests_take_several_frames():
    pairs = [(k, TruncationPair(k, 16)) for k in range(1, 301)]
    sent = list(Block.of(pairs, 0, 300).frames(0))
    assert len(sent) == 3
    got = [request for frame in sent for request in read(frame)]
    assert [(request.id, request.correlation(1 << 10)) for request in got] == pairs


@pytest.mark.parametrize(
    "frame",
    [(), (1,), (-1, b""), (1, "x"), (1, 2), (1, wire.encode(5)), (1, wire.encode(((0, b""),))),
     (1, wire.encode(((1, 2),))), (1, wire.encode(((1, b"", 3),))), (True, wire.encode(()))],
    ids=repr,
)  # fmt: skip
def test_what_is_no_frame_of_requests(frame):
    with pytest.raises(ShapeError):
        list(read(wire.encode(frame)))


def test_a_request_must_be_for_a_correlation():
    for value in (5, MaskRef(1, Part((1,))), ()):
        with pytest.raises(ShapeError, match=r"^a request must be for a correlation, got "):
            Request(0, 1, wire.encode(value)).correlation(1 << 10)
    with pytest.raises(ShapeError, match="3 words"):
        Request(0, 1, wire.encode(TruncationPair(4, 16))).correlation(3)


def test_a_plan_is_made_once_for_equal_keys():
    with mpc.Session() as s:
        x, planned = s.share(np.ones(5), owner="bob"), []

        def relu(p):
            planned.append(p)
            return p.twin(x).relu()

        first = s._bundle(relu, ("relu", x.outline()), 10)
        assert s._bundle(relu, ("relu", x.outline()), 20) is first
        assert len(planned) == 1
        # Another outline is another plan; what cannot be a key is planned each time.
        other = s.share(np.ones(6), owner="bob")
        assert x.outline() != other.outline() != (x + x).outline()
        for key in (("relu", other.outline()), None, None, ("relu", [1]), ("relu", [1])):
            s._bundle(relu, key, 30)
        assert len(planned) == 6
        assert list(first.asked.at(10)) == [
            pair for pair in planned[0].source.asked if pair[1].corrected_words
        ]
        for k in range(400):
            s._bundle(relu, k, 40)
        assert len(s._bundles) < 300


def test_an_outline_has_all_that_a_plan_depends_on():
    with mpc.Session() as s:
        x = s.share(np.ones(5), owner="bob")
        masked = s.share(np.ones(5), owner="bob")
        (masked * masked).reveal()
        others = [
            s.share(np.ones(6), owner="bob"),
            s.share(np.ones(5), owner="alice"),
            s.share(np.ones(5), owner="bob", bound=2.0),
            s.share(np.ones(5, int), owner="bob"),
            x + 0,
            (x + 0) > 0,
            masked,
        ]
        outlines = [x.outline(), *(y.outline() for y in others)]
        assert len(set(outlines)) == len(outlines)
        assert s.share(np.zeros(5), owner="bob").outline() == x.outline()
        narrow = x + 0
        assert narrow.with_integer_bound(7).outline() != narrow.outline()


@pytest.mark.parametrize(
    ("times", "ids"), [(0, 9), (-1, 9), (3, 0), (103, 9), (1 << 40, 9), (2, b""), (b"", 9)]
)
def test_a_frame_cannot_be_repeated_without_end(times, ids):
    """What a provider, or an auditor, would have to do for a few bytes is bounded."""
    ((piece, *_),) = Block.of(program(100), 100, 107)._pieces
    with pytest.raises(ShapeError):
        list(read(wire.encode((100, piece, times, ids))))
    # Nothing, again and again.
    with pytest.raises(ShapeError):
        list(read(wire.encode((100, wire.encode(()), 1 << 40, 9))))


def test_ids_of_runs_that_overlap_are_refused():
    ((piece, *_),) = Block.of(program(100), 100, 107)._pieces
    with pytest.raises(ShapeError, match="ids must ascend"):
        runs_of(wire.encode((100, piece, 2, 3)), 1 << 10, 2, (0,))
    with pytest.raises(ShapeError, match="a part of 2 runs must have as many tags, got 3"):
        runs_of(wire.encode((100, piece, 2, 9)), 1 << 10, 3, (0,))
    assert runs_of(wire.encode((100, piece, 2, 9)), 1 << 10, 2, (1,)) == (102, 116, [program(109)])
