"""Extended transfers: rows, pads, positions."""

from hashlib import sha256

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy.special import chdtrc

from mpc.core.errors import ArgumentError, FrameError, PeerClosedError, ProcessError
from mpc.two_party import base_ot, seeds
from mpc.two_party import extension as extension_module
from mpc.two_party.channel import LockStep
from mpc.two_party.extension import TREE_BITS, Extension, message_words
from ring import processes, unpack_bits


@pytest.fixture(scope="module")
def session():
    return base_ot.agree(LockStep())


@pytest.fixture(scope="module", params=[(k, s) for k in TREE_BITS for s in (0, 1)], ids=str)
def extension(request, session):
    k, sender = request.param
    return Extension(LockStep(), session, sender, k)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(extension_module, "CHUNK", 24)
    monkeypatch.setattr(extension_module, "SMALLEST", 8)


def check(extension, transfers):
    """Every row is that of the sender, moved by the secret where the choice is 1."""
    choices = unpack_bits(transfers.choices, len(transfers.t)).astype(bool)
    moved = transfers.q ^ extension.secret
    assert np.array_equal(np.where(choices[:, None], moved, transfers.q), transfers.t)
    return choices


class TestTrees:
    @pytest.mark.parametrize("k", TREE_BITS)
    @pytest.mark.parametrize("secret", [0, 1, 2**128 - 1, 0x0123456789ABCDEF0F1E2D3C4B5A6978])
    def test_all_leaves_but_one(self, session, k, secret):
        leaves = seeds.grow(LockStep(), session, 0, k, secret)
        mine, theirs = leaves[0], leaves[1]
        assert mine.shape == theirs.shape == (128 // k, 1 << k, 2)
        for i in range(128 // k):
            d = secret >> k * i & (1 << k) - 1
            assert not mine[i, 0].any()
            for y in range(1, 1 << k):
                assert mine[i, y].tolist() == theirs[i, y ^ d].tolist()
            assert theirs[i, d].any()
        assert len({tuple(leaf) for tree in theirs.tolist() for leaf in map(tuple, tree)}) == (
            128 // k << k
        )

    def test_another_session_or_direction_has_other_children(self, session):
        nodes = np.arange(8, dtype=np.uint64).reshape(2, 2, 2)
        found = [
            seeds._children(nodes, s, sender, level).tobytes()
            for s in (session, bytes(32))
            for sender in (0, 1)
            for level in (0, 1)
        ]
        assert len(set(found)) == len(found)


class TestRows:
    @pytest.mark.parametrize("count", [0, 64, 128, 64 * 9, 64 * 300])
    def test_each(self, extension, count):
        transfers = extension.draw(count)
        assert len(transfers.q) == len(transfers.t) == count
        check(extension, transfers)

    def test_choices_and_rows_are_uniform(self, extension):
        n = 1 << 14
        transfers = extension.draw(n)
        choices = unpack_bits(transfers.choices, n)
        statistic = 4 * (choices.sum() - n / 2) ** 2 / n
        for rows in (transfers.q, transfers.t):
            ones = np.array([(rows[:, p // 64] >> np.uint64(p % 64) & 1).sum() for p in range(128)])
            statistic += (4 * (ones - n / 2.0) ** 2 / n).sum()
        assert chdtrc(257, statistic) > 1e-9

    @pytest.mark.usefixtures("small_chunks")
    def test_draws_of_any_size_follow_one_another(self, extension):
        last, made = None, 0
        for words in (1, 3, 8, 9, 24, 25, 50, 2, 1):
            transfers = extension.draw(64 * words)
            check(extension, transfers)
            if last is not None:
                assert transfers.start == last
            last = transfers.start + 64 * words
            made += words
        extension.expect(64 * 40)
        for _ in range(20):
            check(extension, extension.draw(128))

    @pytest.mark.usefixtures("small_chunks")
    def test_what_is_expected_is_made_at_once(self, session):
        channel = LockStep()
        extension = Extension(channel, session, 0)
        before = channel.rounds
        extension.expect(64 * 48)
        for _ in range(48):
            extension.draw(64)
        assert channel.rounds - before == 2

    def test_bytes(self, session):
        for k in TREE_BITS:
            channel = LockStep()
            extension = Extension(channel, session, 1, k)
            assert channel.sent == [64 + 4096, 128 * 128] and channel.rounds == 2
            before = list(channel.sent)
            extension.draw(64 * extension_module.SMALLEST * 3)
            sent = [a - b for a, b in zip(channel.sent, before, strict=True)]
            words = extension_module.SMALLEST * 3
            assert sent == [8 * message_words(words, k), 0]
            assert message_words(words, k) == 1 + (128 // k - 1) * words

    def test_two_extensions_have_nothing_in_common(self, session):
        """Not even with one session's id: seeds are fresh."""
        first, second = (Extension(LockStep(), session, 0).draw(64 * 8) for _ in range(2))
        assert not np.any(first.choices == second.choices)
        assert not np.any(first.q == second.q)


class TestPads:
    def test_one_of_two(self, extension):
        n = 64 * 50
        transfers = extension.draw(n)
        choices = check(extension, transfers)
        for blocks in (1, 3):
            pads = extension.pads(transfers, blocks)
            assert pads.sender.shape == (2, blocks, n, 2) and pads.receiver.shape == (blocks, n, 2)
            for block in range(blocks):
                zero, one = pads.sender[:, block]
                chosen = np.where(choices[:, None], one, zero)
                assert np.array_equal(chosen, pads.receiver[block])
                assert not np.any(np.where(choices[:, None], zero, one) == pads.receiver[block])
        # No pad serves twice: neither among blocks nor among transfers.
        rows = pads.sender.reshape(-1, 2)
        assert len(np.unique(rows, axis=0)) == len(rows)

    def test_a_part_has_the_pads_of_the_whole_if_it_starts_a_tile(self, extension):
        transfers = extension.draw(4 * extension_module.TILE)
        first = extension_module.TILE
        whole, part = extension.pads(transfers), extension.pads(transfers.part(first, 4 * first))
        assert np.array_equal(whole.sender[:, :, first:], part.sender)

    def test_the_key_follows_from_session_direction_position_and_block(self, session, monkeypatch):
        seen = []

        hashed = extension_module.sha256

        def listen(data):
            seen.append(data)
            return hashed(data)

        extensions = [Extension(LockStep(), session, sender) for sender in (0, 1)]
        extensions.append(Extension(LockStep(), bytes(32), 0))
        monkeypatch.setattr(extension_module, "sha256", listen)
        for extension in extensions:
            transfers = extension.draw(3 * extension_module.TILE)
            extension.pads(transfers, 2)
        # Two ends each, three tiles, two blocks: each key twice, for both ends.
        assert len(seen) == 3 * 2 * 6 and len(set(seen)) == 3 * 6

    def test_is_the_hash_that_it_says(self, session):
        extension = Extension(LockStep(), session, 1)
        transfers = extension.draw(64)
        data = b"sotto ot hash" + session + b"\1" + bytes(8) + bytes(4)
        aes = Cipher(algorithms.AES(sha256(data).digest()[:16]), modes.ECB()).encryptor()
        q = transfers.q.tobytes()
        hidden = aes.update(q)
        expected = bytes(a ^ b for a, b in zip(hidden, q, strict=True))
        assert extension.pads(transfers).sender[0].tobytes() == expected


class TestPositions:
    def test_none_serves_twice_after_a_failure(self, session):
        """The message is lost on its way: what it was for is never made again."""
        channel = LockStep()
        extension = Extension(channel, session, 0)
        streams = []
        fill = extension_module.Stream.fill

        def listen(self, out, id, start=0):
            streams.append((self, start, out.size))
            fill(self, out, id, start)

        def fail(messages, counts, *, continued=False):
            raise PeerClosedError("bob closed the connection")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(extension_module.Stream, "fill", listen)
            patch.setattr(channel, "swap", fail, raising=False)
            with pytest.raises(PeerClosedError):
                extension.draw(64 * 200)
            patch.undo()
            patch.setattr(extension_module.Stream, "fill", listen)
            check(extension, extension.draw(64 * 200))
        read = {}
        for stream, start, size in streams:
            for first, last in read.setdefault(stream, []):
                assert start >= last or start + size <= first
            read[stream].append((start, start + size))
        # Both ends expand before the message, so all have read twice.
        assert {len(places) for places in read.values()} == {2}

    def test_no_party_is_beyond_what_anybody_makes(self, session):
        """A position that the other one says: nobody gets there, and nothing can count from there."""
        channel = LockStep()
        extension = Extension(channel, session, 0)
        extension.draw(64)
        before = extension._position
        told = np.uint64(1 << 59)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(channel, "swap", lambda *_, **__: [np.array([told])] * 2, raising=False)
            with pytest.raises(
                FrameError, match=f"bob says that .* position {told}, beyond the last"
            ):
                extension.resume()
            told = np.uint64(1)
            extension.resume()
        assert extension._position == before
        check(extension, extension.draw(64))

    def test_a_forked_child_draws_nothing(self, session, monkeypatch):
        extension = Extension(LockStep(), session, 0)
        extension.draw(64)
        with monkeypatch.context() as patch:
            patch.setattr(processes, "generation", processes.generation + 1)
            with pytest.raises(ProcessError, match="transfers: made by the process"):
                extension.draw(64)
        check(extension, extension.draw(64))

    def test_parties_that_differ_say_so_and_resume(self, ends, run_both, session):
        alice, bob = ends
        one, other = run_both(
            [lambda: Extension(alice, session, 0), lambda: Extension(bob, session, 0)]
        )
        run_both([lambda: one.draw(64), lambda: other.draw(64)])
        # Bob's call fails before it has sent, alice's has not begun.
        bob.fail_after = 0
        with pytest.raises(PeerClosedError):
            other.draw(64 * 1000)
        bob.fail_after = None
        one._left = None
        with pytest.raises(
            FrameError, match="bob makes transfers from position 1001, alice from 128"
        ):
            run_both([lambda: one.draw(64 * 1000), lambda: other.draw(64 * 1000)])
        run_both([one.resume, other.resume])
        q, t = run_both([lambda: one.draw(640), lambda: other.draw(640)])
        assert q.start == t.start
        choices = unpack_bits(t.choices, 640).astype(bool)
        assert np.array_equal(np.where(choices[:, None], q.q ^ one.secret, q.q), t.t)


class TestApart:
    @pytest.mark.parametrize("kind", ["ends", "sockets"])
    def test_both_directions(self, request, run_both, kind):
        alice, bob = request.getfixturevalue(kind)

        def program(channel):
            session = base_ot.agree(channel)
            both = [Extension(channel, session, sender) for sender in (0, 1)]
            drawn = [extension.draw(64 * 150) for extension in both]
            return both, drawn, [e.pads(t) for e, t in zip(both, drawn, strict=True)]

        results = run_both([lambda: program(alice), lambda: program(bob)])
        for sender in (0, 1):
            (mine, _, pads), (_, theirs, others) = results[sender], results[1 - sender]
            transfers = theirs[sender]
            choices = unpack_bits(transfers.choices, 64 * 150).astype(bool)
            q = results[sender][1][sender].q
            assert results[sender][1][sender].t is None and transfers.q is None
            moved = q ^ mine[sender].secret
            assert np.array_equal(np.where(choices[:, None], moved, q), transfers.t)
            zero, one = pads[sender].sender[:, 0]
            chosen = np.where(choices[:, None], one, zero)
            assert np.array_equal(chosen, others[sender].receiver[0])


def test_arguments(session):
    for k in (0, 3, 5, 16):
        with pytest.raises(ArgumentError, match="k must be one of"):
            Extension(LockStep(), session, 0, k)
    with pytest.raises(ArgumentError, match="sender must be 0 or 1"):
        Extension(LockStep(), session, 2)
    extension = Extension(LockStep(), session, 0)
    for count in (-64, 1, 63):
        with pytest.raises(ArgumentError, match="count must be a multiple of 64"):
            extension.draw(count)
    assert repr(extension) == "Extension(alice sends, k = 4)"
