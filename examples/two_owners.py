"""Alice and bob have labelled images each; together they train a model on all of them.

python examples/two_owners.py
    starts alice, bob and the provider as processes of this machine, for some seconds. Alice's images
    are of the digits 0 to 4, bob's of 5 to 9: alone, neither's model could know half of the digits.
    Prints how many images of all digits the common model gets right, as both parties say.
"""

import numpy as np

import mpc
import nn


def program(session):
    """Run one party: the same program at both, each with its own rows."""
    X_train, X_test, y_train, y_test = nn.load_digits_8x8()
    rows = {"alice": y_train < 5, "bob": y_train >= 5}
    images, labels = [], []
    for owner, chosen in rows.items():
        # Who does not own rows passes None, and how many there are, which is public.
        X, y = None, None
        if session.me == owner:
            X, y = X_train[chosen], nn.one_hot(y_train[chosen], 10)
        count = int(chosen.sum())
        images.append(session.share(X, owner=owner, shape=(count, 64), bound=1))
        labels.append(session.share(y, owner=owner, shape=(count, 10), dtype=int, bound=1))
    model = nn.MLP((64, 32, 10), random_state=0)
    secret_model = model.fit(
        np.concatenate(images),
        np.concatenate(labels),
        epochs=5,
        learning_rate=0.125,
        progress=False,
    )
    # Bob's test images; both learn the predictions.
    tests = X_test if session.me == "bob" else None
    predicted = secret_model.predict(secret_model.share_rows(tests, owner="bob", rows=len(y_test)))
    return float((predicted == y_test).mean())


if __name__ == "__main__":
    for party, accuracy in mpc.launch(program).items():
        print(f"{party}: {accuracy:.1%}")
