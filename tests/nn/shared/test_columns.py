"""Features of several owners for one model, and tables wherever rows are taken."""

import re

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import mpc
import nn
from mpc import ArgumentError, DtypeError, RangeError, SessionError, ShapeError

pd = pytest.importorskip("pandas")

NAMES = ["age", "dose", "smoker", "bmi"]


def rows(count=40):
    random = np.random.default_rng(5)
    return pd.DataFrame(
        {
            "age": random.integers(20, 90, count),
            "dose": random.uniform(-1e-3, 1e-3, count),
            "smoker": random.integers(0, 2, count).astype(bool),
            "bmi": random.normal(25, 3, count),
        }
    )


@pytest.fixture(scope="module", params=["a range for each feature", "one range"])
def model(request):
    X = rows()
    y = np.where(X.age > 50, "old", "young")
    # An untrained-looking model would agree by chance; a trained one has scores that differ.
    scaled = (X.astype(float) - X.mean()) / X.std()
    made = nn.MLP((4, 6, 2), random_state=1).fit(scaled, y, epochs=20)
    if request.param == "one range":
        return made, scaled
    return nn.from_sklearn(_logistic(X), X), X


def _logistic(X):
    return LogisticRegression(max_iter=2000).fit(
        X.astype(float), np.where(X.age > 50, "old", "young")
    )


@pytest.mark.parametrize("named", [False, True])
def test_columns_of_two_owners_are_the_rows(model, named):
    plain, X = model
    first, second = ["bmi", "age"], ["smoker", "dose"]
    columns = [[NAMES.index(c) for c in part] if not named else part for part in (first, second)]
    with mpc.Session(["alice", "bob"]) as session:
        secret = plain.share(session, owner="alice")
        before = session.cost()
        parts = [
            secret.share_rows(X[part], owner, columns=chosen)
            for part, owner, chosen in zip((first, second), ("alice", "bob"), columns, strict=True)
        ]
        joined = secret.join_columns(parts)
        assert (session.cost() - before).rounds == 0
        whole = secret.share_rows(X, "bob")
        assert type(joined) is type(whole)
        found, expected = secret(joined).reveal(), secret(whole).reveal()
        assert np.abs(found - expected).max() < 1e-3
        assert np.abs(expected).max() > 0.1
        assert secret.predict(joined).tolist() == plain.predict(X).tolist()


def test_wrong_columns_are_refused(model):
    plain, X = model
    with mpc.Session(["alice", "bob"]) as session:
        secret = plain.share(session, owner="alice")

        def part(columns, owner="bob", of=secret, count=40):
            return of.share_rows(X[[NAMES[c] for c in columns]][:count], owner, columns=columns)

        for columns, error, text in [
            ([0, 0], ArgumentError, "must not repeat, got 0 twice"),
            ([], ArgumentError, "at least one feature"),
            (["weight"], ArgumentError, "which has age, dose, smoker, bmi: 'weight'"),
            ("age", DtypeError, "sequence of numbers or names, got 'age'"),
            (3, DtypeError, "sequence of numbers or names, got 3"),
            ([4], ArgumentError, "columns must be below 4, got 4"),
            ([-1], ArgumentError, "at least 0, got -1"),
            ([True], DtypeError, "got True"),
        ]:
            with pytest.raises(error, match=re.escape(text)):
                secret.share_rows(np.zeros((2, 1)), "bob", columns=columns)
        with pytest.raises(ShapeError, match=re.escape("the shape (rows, 2), got (40, 4)")):
            secret.share_rows(X.to_numpy(float), "bob", columns=[0, 1])
        with pytest.raises(ArgumentError, match="column 0 must be 'dose', got 'age'"):
            secret.share_rows(X[["age", "dose"]], "bob", columns=["dose", "age"])
        with pytest.raises(RangeError, match="must lie in"):
            secret.share_rows(np.full((2, 1), 1e9), "bob", columns=["smoker"])
        with pytest.raises(ArgumentError, match="missing: dose, bmi"):
            secret.join_columns([part([0, 2])])
        with pytest.raises(ArgumentError, match="missing: age, dose, smoker, bmi"):
            secret.join_columns([])
        with pytest.raises(ArgumentError, match="more than once: smoker"):
            secret.join_columns([part([0, 2]), part([1, 2, 3], "alice")])
        with pytest.raises(ShapeError, match="as many rows"):
            secret.join_columns([part([0, 2]), part([1, 3], "alice", count=39)])
        with pytest.raises(DtypeError, match="got SharedArray|got ScaledRows"):
            secret.join_columns([secret.share_rows(X, "bob")])
        with pytest.raises(DtypeError, match="join_columns"):
            np.concatenate([part([0, 1]), part([2, 3])], axis=1)
        with pytest.raises(DtypeError, match="X must be"):
            secret(part([0, 1, 2, 3]))
        if secret.inputs is not None:
            doubled = nn.from_sklearn(_logistic(X.astype(float) * 2), X.astype(float) * 2).share(
                session, owner="alice"
            )
            with pytest.raises(SessionError, match="same model"):
                secret.join_columns([part([0, 1]), part([2, 3], of=doubled)])


def test_names_come_from_the_table(model):
    plain, X = model
    assert plain.feature_names_in_.tolist() == NAMES
    with pytest.raises(ArgumentError, match="column 0 must be 'age', got 'bmi'"):
        plain.predict(X[NAMES[::-1]])
    if isinstance(plain, nn.MLP):
        y = np.arange(len(X)) % 2
        assert nn.MLP((4, 2)).fit(X.to_numpy(float), y, epochs=1).feature_names_in_ is None
        with pytest.raises(ArgumentError, match="column 0 must be 'age', got 'bmi'"):
            nn.MLP((4, 2)).fit(X, y, epochs=1, validation=(X[NAMES[::-1]], y))


def test_dummies_train_and_predict():
    X = rows().assign(city=np.tile(["Bern", "Rome"], 20))
    table = pd.get_dummies(X).convert_dtypes()
    y = X.city == "Rome"
    model = nn.MLP((6, 2), random_state=0).fit(table, y, epochs=2, learning_rate=1e-4)
    assert model.predict(table).dtype == bool
    with pytest.raises(DtypeError, match="'city'"):
        nn.MLP((5, 2)).fit(X, y)


def test_a_session_and_from_sklearn_take_tables_of_any_numbers():
    table = rows()
    nullable = table.convert_dtypes()
    with mpc.Session(["alice", "bob"]) as session:
        for X in (table, nullable):
            found = session.share(X, owner="bob").reveal()
            np.testing.assert_allclose(found, table.to_numpy(float), atol=2**-16)
        with pytest.raises(DtypeError, match="'city'"):
            session.share(table.assign(city="Bern"), owner="bob")
    original = _logistic(table)
    made = nn.from_sklearn(original, nullable)
    assert made.predict(nullable).tolist() == original.predict(table.astype(float)).tolist()
