"""Bob has labelled images; a model is trained on them that nobody has seen. All parties in this process.

python examples/train.py
    trains on shares for some seconds, prints how many of bob's other images the secret model gets
    right, and how many a model trained in the clear from the same start: about as many.
"""

import mpc
import nn


def main():
    """Train and evaluate on shares."""
    X_train, X_test, y_train, y_test = nn.load_digits_8x8()
    settings = {"epochs": 5, "batch_size": 64, "learning_rate": 0.125, "progress": False}
    model = nn.MLP((64, 32, 10), random_state=0)  # sizes, and public weights to start from

    with mpc.Session() as session:
        X = session.share(X_train, owner="bob", bound=1)
        y = session.share(nn.one_hot(y_train), owner="bob", bound=1)
        secret_model = model.fit(X, y, **settings)  # rows, labels and weights stay secret
        predicted = secret_model.predict(secret_model.share_rows(X_test, owner="bob"), to="bob")
        print(f"trained on shares:    {(predicted == y_test).mean():.1%}")
        # To give the weights to one party: secret_model.reveal(to="alice").

    model.fit(X_train, y_train, **settings)
    print(f"trained in the clear: {model.score(X_test, y_test):.1%}")


if __name__ == "__main__":
    main()
