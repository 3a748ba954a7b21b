"""``MLP.fit`` on shared arrays: the same arguments, what it reveals, checkpoints, mistakes."""

import errno
import json
import os
import stat

import numpy as np
import pytest

import mpc
import nn
import nn.shared.fit
from nn.training.optimizers import SGD, Adam

NAMES = ("alice", "bob", "carol")


@pytest.fixture(params=[2, 3], ids=["two", "three"])
def session(request):
    with mpc.Session(NAMES[: request.param]) as s:
        yield s


@pytest.fixture(scope="module")
def digits():
    X, X_test, y, y_test = nn.load_digits_8x8()
    return X[:512], X_test[:200], y[:512], y_test[:200]


def network():
    return nn.MLP((64, 16, 10), random_state=3)


def wide_network():
    return nn.MLP((64, 64, 10), random_state=3)


def share(s, X, y):
    return (
        s.share(X, owner="alice", bound=1),
        s.share(nn.one_hot(y, 10), owner=s.parties[-1], bound=1),
    )


def plainly(secret):
    """Parameters of a secret model, as floats."""
    return secret.reveal().parameters


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("schedule", ["cosine", "halving"])
def test_it_follows_plain_training(session, digits, loss, schedule):
    X, X_test, y, y_test = digits
    # With the squared error, narrow networks learn nothing.
    rate = 0.02 if loss == "squared_error" else 0.1
    how = {"epochs": 5, "batch_size": 64, "loss": loss, "schedule": schedule, "learning_rate": rate}
    plain = wide_network().fit(X, y, validation=(X_test, y_test), **how)
    data, test = share(session, X, y), share(session, X_test, y_test)
    untouched = wide_network()
    secret = untouched.fit(*data, validation=test, **how)
    with pytest.raises(nn.models.trainable.NotFittedError):
        untouched.parameters  # noqa: B018
    for found, expected in zip(plainly(secret), plain.parameters, strict=True):
        # Where rounding moves a score across a ReLU's corner, that row's gradient differs.
        error = np.abs(found - expected)
        assert error.max() < 0.03
        assert error.mean() < 1e-3
    difference = np.subtract(secret.validation_scores_, plain.validation_scores_)
    # One of the 200 images is half a point.
    assert np.abs(difference).max() <= 0.0051
    assert secret.validation_scores_[-1] > (0.5 if loss == "squared_error" else 0.8)
    # The secret model serves private inference as any other.
    assert np.mean(secret.predict(test[0]) == plain.predict(X_test)) > 0.98
    # And the loss that was revealed is that of the model.
    value = nn.losses.LOSSES[loss].value(
        secret.reveal().decision_function(X_test), nn.one_hot(y_test, 10).astype(float)
    )
    assert secret.validation_losses_[-1] == pytest.approx(value, abs=2e-3)


def test_nothing_is_revealed_unless_asked(digits, monkeypatch):
    """Without validation, no reveal; with it, two numbers an epoch."""
    X, X_test, y, y_test = digits
    revealed = []
    with mpc.Session() as s:
        reveal = s.reveal
        monkeypatch.setattr(
            s, "reveal", lambda x, to=None: revealed.append(x.shape) or reveal(x, to)
        )
        data, test = share(s, X, y), share(s, X_test, y_test)
        # The range of the model's inputs, in the end.
        network().fit(*data, epochs=2, check_range=False)
        assert revealed == [()]
        revealed.clear()
        network().fit(*data, epochs=2, validation=test, check_range=False)
        assert revealed == [(), ()] * 2 + [()]
        revealed.clear()
        # A bit more for each epoch, and for each validation.
        network().fit(*data, epochs=3)
        assert revealed == [()] * 3 + [()]
        revealed.clear()
        network().fit(*data, epochs=3, validation=test)
        assert revealed == [(), (), (), ()] * 3 + [()]


def test_data_of_several_owners(session, digits):
    """Rows of both, and columns of both, give what one owner's data give."""
    X, _, y, _ = digits
    targets = nn.one_hot(y, 10)
    alone = plainly(network().fit(*share(session, X, y), epochs=1))
    rows = np.concatenate(
        [
            session.share(X[:200], owner="alice", bound=1),
            session.share(X[200:], owner="bob", bound=1),
        ]
    )
    labels = np.concatenate(
        [session.share(targets[:200], owner="bob"), session.share(targets[200:], owner="alice")]
    )
    columns = np.concatenate(
        [
            session.share(X[:, :40], owner="bob", bound=1),
            session.share(X[:, 40:], owner="alice", bound=1),
        ],
        axis=1,
    )
    for data in ((rows, labels), (columns, session.share(targets, owner="alice"))):
        for found, expected in zip(plainly(network().fit(*data, epochs=1)), alone, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_memory_and_costs_do_not_grow_with_epochs(digits):
    X, _, y, _ = digits
    with mpc.Session() as s:
        # What the check of the range costs has a part for each epoch, see below.
        how = {"check_range": False}
        secret = network().fit(*share(s, X, y), epochs=4, **how)
        costs = [(c.rounds, c.sent[0], c.correction_bytes) for c in secret.epoch_costs_]
        # The first opens the images and the initial weights under their masks.
        assert len(set(costs[1:])) == 1
        weights = 64 * 16 + 16 + 16 * 10 + 10
        assert costs[0][1] - costs[1][1] == 8 * (X.size + weights)
        assert s.source.provider._cache.room >= 0
        two = share(s, np.concatenate([X, X]), np.concatenate([y, y]))
        twice = network().fit(*two, epochs=2, **how)
        assert twice.epoch_costs_[1].sent[0] == 2 * costs[1][1]
        assert twice.epoch_costs_[1].rounds == 2 * costs[1][0]
        watched = network().fit(*share(s, X, y), epochs=3).epoch_costs_
        assert watched[1].rounds - costs[1][0] == watched[2].rounds - costs[2][0]
        assert watched[1].rounds < 1.2 * costs[1][0]


def test_plan_says_what_a_run_costs(session, digits):
    X, X_test, y, y_test = digits

    def program(s):
        test = share(s, X_test, y_test)
        network().fit(*share(s, X, y), epochs=2, validation=test, check_range=True)

    planned = session.plan(program)
    before = session.cost()
    program(session)
    assert (session.cost() - before).total == planned.cost.total


def test_early_stopping(digits, monkeypatch):
    X, X_test, y, y_test = digits
    # Nothing is learned at this rate, so the second epoch does not improve on the first.
    how = {"epochs": 9, "optimizer": SGD(1e-5), "schedule": "constant", "patience": 2}
    plain = network().fit(X, y, validation=(X_test, y_test), **how)
    assert len(plain.validation_scores_) == 3
    with mpc.Session() as s:
        secret = network().fit(*share(s, X, y), validation=share(s, X_test, y_test), **how)
        assert secret.validation_scores_ == plain.validation_scores_
    with pytest.raises(mpc.ArgumentError, match="patience needs validation"):
        network().fit(X, y, patience=2)


class CrashError(Exception):
    """Stands for a crash."""


@pytest.mark.parametrize("rule", [SGD(0.1), Adam(0.01)], ids=["sgd", "adam"])
def test_a_resumed_run_goes_on_as_the_uninterrupted_one(
    session, digits, tmp_path, monkeypatch, rule
):
    X, X_test, y, y_test = digits
    how = {"epochs": 4, "optimizer": rule, "validation": share(session, X_test, y_test)}
    data = share(session, X, y)
    whole = network().fit(*data, **how)
    save = nn.shared.fit.save

    def crash(*arguments):
        save(*arguments)
        if arguments[-1].epoch == 2:
            raise CrashError

    orders = []
    step = nn.shared.training.SharedTrainer.step

    def listen(self, x, targets, scale, weights=None):
        orders.append((x.mask.ref.views[0][1][0].tolist(), scale))
        step(self, x, targets, scale, weights)

    monkeypatch.setattr(nn.shared.training.SharedTrainer, "step", listen)
    monkeypatch.setattr(nn.shared.fit, "save", crash)
    with pytest.raises(CrashError):
        network().fit(*data, checkpoint=tmp_path, **how)
    monkeypatch.setattr(nn.shared.fit, "save", save)
    resumed = network().fit(*data, checkpoint=tmp_path, resume=True, **how)
    interrupted = orders.copy()
    orders.clear()
    network().fit(*data, **how)
    # Same order, same schedule; weights up to the truncations' coins.
    assert orders == interrupted
    for found, expected in zip(plainly(resumed), plainly(whole), strict=True):
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=2e-2 if rule.learning_rate < 0.1 else 2e-3
        )
    assert resumed.validation_scores_[:2] == pytest.approx(whole.validation_scores_[:2], abs=0.006)
    assert len(resumed.validation_scores_) == 4
    # A finished run resumed is the finished run.
    again = network().fit(*data, checkpoint=tmp_path, resume=True, **how)
    assert again.validation_scores_ == resumed.validation_scores_


def checkpointed(folder, digits, **how):
    X, _, y, _ = digits
    with mpc.Session() as s:
        return network().fit(*share(s, X, y), epochs=1, checkpoint=folder, **how).reveal()


def test_checkpoints_are_each_partys_own_shares(tmp_path, digits):
    model = checkpointed(tmp_path, digits)
    files = sorted(os.listdir(tmp_path))
    assert files == ["checkpoint-alice.npz", "checkpoint-bob.npz"]
    shares = []
    for name in files:
        path = tmp_path / name
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(file["header"].tobytes())
            assert header["version"] == 4
            assert header["party"] in name
            (words,) = file["weights"]
            shares.append(words)
    total = (shares[0] + shares[1]).view(np.int64) * 2.0**-24
    flat = np.concatenate([p.ravel() for p in model.parameters])
    assert np.abs(total - flat).max() < 2.0**-15
    # One party's share alone is uniform: its top bits are as often set as not.
    for share_ in shares:
        assert abs((share_ >> np.uint64(63)).mean() - 0.5) < 0.1


def spoil(path, **changes):
    with np.load(path) as file:
        arrays = dict(file)
    header = json.loads(arrays.pop("header").tobytes()) | changes
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)


def test_checkpoints_that_do_not_fit(tmp_path, digits):
    def resume(**how):
        checkpointed(tmp_path, digits, resume=True, **how)

    checkpointed(tmp_path, digits)
    resume()
    with pytest.raises(
        mpc.ArgumentError, match="batch_size must be as in the run that is resumed, 128"
    ):
        resume(batch_size=64)
    with pytest.raises(mpc.ArgumentError, match="optimizer must be as in"):
        resume(learning_rate=0.2)
    bob = tmp_path / "checkpoint-bob.npz"
    good = bob.read_bytes()
    spoil(bob, epoch=7)
    none = "no checkpoint of the same run and epoch: alice has epoch 1, bob has "
    with pytest.raises(mpc.DataError, match=f"{none}epoch 7; without resume"):
        resume()
    spoil(bob, epoch="7")
    with pytest.raises(mpc.DataError, match="bob.npz must have an epoch of 1 or more, got '7'"):
        resume()
    spoil(bob, version=3)
    with pytest.raises(mpc.DataError, match="version 3, this program reads version 4"):
        resume()
    bob.write_bytes(good)
    spoil(bob, security="malicious")
    with pytest.raises(
        mpc.DataError, match="security 'semi-honest', as the session, got 'malicious'"
    ):
        resume()
    bob.write_bytes(good[:1000])
    with pytest.raises(mpc.DataError, match="bob.npz is damaged"):
        resume()
    bob.write_bytes((tmp_path / "checkpoint-alice.npz").read_bytes())
    with pytest.raises(mpc.DataError, match="must be bob's, but is alice's"):
        resume()
    bob.unlink()
    with pytest.raises(mpc.DataError, match=f"{none}none"):
        resume()
    (tmp_path / "checkpoint-alice.npz").unlink()
    resume()


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, digits, monkeypatch):
    checkpointed(tmp_path, digits)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}

    def full(*arguments):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(mpc.DataError, match=r"alice\.npz cannot be written: no space left"):
        checkpointed(tmp_path, digits)
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def run(folder, digits, monkeypatch, until=None, epochs=3, **how):
    """Train, up to the moment when a party is about to write its checkpoint of an epoch."""
    X, _, y, _ = digits

    def write(path, words, **options):
        header = json.loads(words["header"].tobytes())
        if until == (header["party"], header["epoch"]):
            raise CrashError
        archives_write(path, words, **options)

    archives_write = nn.shared.checkpoint.archives.write
    with monkeypatch.context() as patch, mpc.Session() as s:
        patch.setattr(nn.shared.checkpoint.archives, "write", write)
        model = network().fit(*share(s, X, y), epochs=epochs, checkpoint=folder, **how)
        return model.epoch_costs_, model.reveal().parameters


def epochs_held(folder):
    """Return the epochs of the files by name."""
    found = {}
    for path in sorted(folder.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        with np.load(path) as file:
            found[path.name] = json.loads(file["header"].tobytes())["epoch"]
    return found


def held(alice, bob):
    """Return what `epochs_held` gives for so many of each party's, the last first."""
    names = ("checkpoint-{}.npz", "previous-checkpoint-{}.npz")
    return {
        name.format(party): epoch
        for party, epochs in (("alice", alice), ("bob", bob))
        for name, epoch in zip(names, epochs, strict=False)
    }


def test_a_crash_between_two_parties_checkpoints(tmp_path, digits, monkeypatch):
    with pytest.raises(CrashError):
        run(tmp_path, digits, monkeypatch, until=("bob", 3))
    assert epochs_held(tmp_path) == held((3, 2), (2, 1))
    # Twice in a row, at either party, and with a file that was never finished.
    with pytest.raises(CrashError):
        run(tmp_path, digits, monkeypatch, until=("alice", 3), resume=True)
    assert epochs_held(tmp_path) == held((2,), (2, 1))
    (tmp_path / "checkpoint-bob.npz.abcd.part").touch(0o600)
    costs, resumed = run(tmp_path, digits, monkeypatch, resume=True)
    assert len(costs) == 1
    assert epochs_held(tmp_path) == held((3, 2), (3, 2))
    # Of what all hold it is the last.
    assert run(tmp_path, digits, monkeypatch, resume=True)[0] == []
    _, whole = run(tmp_path / "whole", digits, monkeypatch)
    for found, expected in zip(resumed, whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)


def test_a_crash_while_a_checkpoint_takes_the_place_of_the_last(tmp_path, digits, monkeypatch):
    replaced = []

    def replace(source, target):
        replaced.append(target)
        if len(replaced) == 5:  # one for each party's first, two for alice's second
            raise CrashError
        real(source, target)

    real = os.replace
    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(CrashError):
        run(tmp_path, digits, monkeypatch)
    monkeypatch.setattr(os, "replace", real)
    # Bob's first is kept; nothing has its place yet.
    assert len(replaced) == 5 and "bob" in str(replaced[-1])
    costs, _ = run(tmp_path, digits, monkeypatch, resume=True)
    assert len(costs) == 2


def test_epochs_of_two_runs_do_not_belong_together(tmp_path, digits, monkeypatch):
    """The same setting, seed and epochs: the shares do not add up to weights all the same."""
    with pytest.raises(CrashError):
        run(tmp_path, digits, monkeypatch, until=("bob", 3))
    stale = (tmp_path / "checkpoint-alice.npz").read_bytes()
    # Resumed from epoch 2, alice's third is another one.
    run(tmp_path, digits, monkeypatch, resume=True)
    (tmp_path / "checkpoint-alice.npz").write_bytes(stale)
    costs, _ = run(tmp_path, digits, monkeypatch, resume=True)
    assert len(costs) == 1
    # A run from the beginning does not go on with what another one has left.
    with pytest.raises(CrashError):
        run(tmp_path, digits, monkeypatch, until=("bob", 1))
    assert epochs_held(tmp_path) == held((1,), (3,))
    with pytest.raises(mpc.DataError, match="alice has epoch 1, bob has epoch 3; without resume"):
        run(tmp_path, digits, monkeypatch, resume=True)
    run(tmp_path, digits, monkeypatch)
    (tmp_path / "other").mkdir()
    run(tmp_path / "other", digits, monkeypatch)
    for path in (tmp_path / "other").glob("*alice*"):
        path.replace(tmp_path / path.name)
    text = "alice has epoch 3 and epoch 2, bob has epoch 3 and epoch 2; without resume"
    with pytest.raises(mpc.DataError, match=text):
        run(tmp_path, digits, monkeypatch, resume=True)


def test_divergence_is_noticed(digits):
    X, _, y, _ = digits
    with mpc.Session() as s:
        data = share(s, X, y)
        how = {"epochs": 3, "learning_rate": 60.0, "loss": "squared_error", "schedule": "constant"}
        with pytest.raises(mpc.RangeError, match="in epoch 1.*a lower learning_rate may help"):
            network().fit(*data, **how)
        network().fit(*data, epochs=1)


def test_mistakes(digits):
    X, _, y, _ = digits
    with mpc.Session() as s, mpc.Session() as other:
        x, targets = share(s, X, y)
        cases = [
            ((x, y), {}, mpc.DtypeError, r"y must be a SharedArray too.*one_hot"),
            ((X, targets), {}, mpc.DtypeError, r"X must be a SharedArray too"),
            ((x, share(other, X, y)[1]), {}, mpc.SessionError, "different sessions"),
            ((x[:, :60], targets), {}, mpc.ShapeError, r"X must have the shape \(rows, 64\)"),
            (
                (x, targets[:, :9]),
                {},
                mpc.ShapeError,
                r"one-hot rows or numbers, of shape \(512, 10\)",
            ),
            ((x[:0], targets[:0]), {}, mpc.ShapeError, "X must have the shape"),
            ((x, targets), {"epochs": 0}, mpc.ArgumentError, "epochs must be at least 1"),
            ((x, targets), {"loss": "hinge"}, mpc.ArgumentError, "loss must be one of"),
            ((x, targets), {"resume": True}, mpc.ArgumentError, "resume needs checkpoint"),
            ((x, targets), {"validation": x}, mpc.ArgumentError, "validation must be a pair"),
            ((x, targets), {"validation": (x, y)}, mpc.DtypeError, "validation y must be"),
            (
                (x, targets),
                {"batch_size": 1 << 30},
                mpc.RangeError,
                "batch_size times the rows' bound",
            ),
            (
                (x, targets),
                {"validation": (s.share(X, "bob"), targets)},
                mpc.RangeError,
                r"validation X must have a public bound of at most that of X, 1, got 32768",
            ),
        ]
        for data, how, kind, said in cases:
            with pytest.raises(kind, match=said):
                network().fit(*data, **how)
    # Labels out of range are found at their owner, before anything is shared.
    with pytest.raises(mpc.RangeError, match="y must be from 0 to 9, got 10 in row 1"):
        nn.one_hot([3, 10], 10)


@pytest.mark.parametrize("epsilon", [1e6, 1.0, 1e-3, 1e-7, 1e-12])
def test_another_epsilon_is_refused(digits, epsilon):
    X, _, y, _ = digits
    with mpc.Session() as s:
        data = share(s, X, y)
        before = s.cost().rounds
        with pytest.raises(mpc.ArgumentError, match=r"epsilon must be left at 1e-08.*2\^-22"):
            network().fit(*data, optimizer=Adam(0.01, epsilon=epsilon))
        assert s.cost().rounds == before


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (SGD(2.0**-18), r"learning_rate must be at least 2\^-24 times the 128 rows of a batch"),
        (SGD(1e-9), r"learning_rate must be at least 2\^-24 times the 128 rows"),
        (SGD(0.1, momentum=1 - 1e-7), r"momentum must be at most 1 - 2\^-16"),
        (Adam(1e-9), r"learning_rate must be at least 2\^-28 in this"),
        (Adam(beta_1=1 - 1e-7), r"beta_1 must be at most 1 - 2\^-16"),
        (Adam(beta_2=1 - 1e-7), r"beta_2 must be at most 1 - 2\^-16"),
    ],
)
def test_what_rounds_to_nothing_is_refused(digits, optimizer, message):
    X, _, y, _ = digits
    with mpc.Session() as s:
        with pytest.raises(mpc.RangeError, match=message):
            network().fit(*share(s, X, y), optimizer=optimizer)


@pytest.mark.parametrize(("frac_bits", "least"), [(24, r"2\^-8"), (28, "1"), (30, "1")])
def test_the_least_learning_rate_of_a_fine_format(frac_bits, least):
    with mpc.Session(frac_bits=frac_bits, int_bits=1) as s:
        data = (s.share(np.ones((2, 2)), owner=p, bound=1) for p in s.parties)
        with pytest.raises(
            mpc.RangeError, match=f"learning_rate must be at least {least} times the 2 rows"
        ):
            nn.MLP((2, 2)).fit(*data, learning_rate=0.001)


def test_the_largest_batch_of_adam_in_a_fine_format():
    with mpc.Session(frac_bits=28, int_bits=1) as s:
        X = s.share(np.full((17, 2), 0.25), owner="alice", bound=0.25)
        data = X, s.share(nn.one_hot([0] * 17, 2), owner="bob", bound=1)
        with pytest.raises(mpc.RangeError, match="batch_size must be at most 16 for Adam.*got 17"):
            nn.MLP((2, 2)).fit(*data, optimizer="adam", batch_size=17)


@pytest.mark.parametrize("checkpoint", [5, b"folder", ["folder"], True])
@pytest.mark.parametrize("resume", [False, True])
def test_a_checkpoint_is_a_path(digits, checkpoint, resume):
    X, _, y, _ = digits
    with mpc.Session() as s:
        with pytest.raises(mpc.DtypeError, match="checkpoint must be a path"):
            network().fit(*share(s, X, y), checkpoint=checkpoint, resume=resume)


def test_parties_apart_need_a_seed_they_agree_on(digits, monkeypatch):
    X, _, y, _ = digits
    with mpc.Session() as s:
        data = share(s, X, y)
        monkeypatch.setattr(s, "here", (0,))
        with pytest.raises(mpc.ArgumentError, match="random_state must be an int that all parties"):
            nn.MLP((64, 16, 10)).fit(*data)


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_the_loss_of_held_out_rows_is_proven_to_fit_without_a_warning(digits, loss, recwarn):
    X, _, y, _ = digits
    how = {"epochs": 1, "batch_size": 64, "loss": loss, "numbers": loss == "squared_error"}
    with mpc.Session(ranges="warn") as s:
        data = share(s, X[:128], y[:128])
        network().fit(*data, validation=share(s, X[128:192], y[128:192]), **how)
    assert not [w for w in recwarn if issubclass(w.category, mpc.RangeWarning)]


def test_the_loss_of_held_out_rows_that_does_not_fit_is_refused():
    X, y = np.random.default_rng(0).uniform(size=(64, 4)), np.ones((64, 1))
    how = {"epochs": 1, "batch_size": 64, "loss": "squared_error"}
    with mpc.Session(ranges="warn") as s:
        data = s.share(X, owner="alice"), s.share(y, owner="bob")
        # The squares are below 2^30, their sum is not.
        far = data[0], s.share(y * 32_000, owner="bob")
        with pytest.raises(mpc.RangeError, match="after epoch 1, .*below 2\\^30"):
            nn.MLP((4, 4, 1), random_state=0).fit(*data, validation=far, **how)
