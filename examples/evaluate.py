"""Alice has a model, bob has images: how many does it get right? All parties in this process.

python examples/evaluate.py
    trains alice's model in the clear, evaluates it on shares, and prints the two accuracies, which
    are the same, and what the evaluation cost.
"""

import mpc
import nn


def main():
    """Evaluate a model that stays secret on images that stay secret."""
    X_train, X_test, y_train, y_test = nn.load_digits_8x8()
    model = nn.MLP((64, 32, 10), random_state=0)
    model.fit(X_train, y_train, epochs=15, progress=False)  # plain NumPy, at alice's

    with mpc.Session() as session:  # alice, bob and a crypto provider
        # The range of a pixel is public: the model is checked to have room for all such images.
        secret_model = model.share(session, owner="alice", low=0, high=1)
        images = secret_model.share_rows(X_test, owner="bob")
        targets = session.share(nn.one_hot(y_test), owner="bob", bound=1)
        # Scores and predictions stay secret: a party has shares of them, which are random numbers.
        predicted = secret_model(images).argmax(axis=1, one_hot=True)
        hits = (predicted * targets).sum().reveal()  # the only thing that anybody learns

        print(f"encrypted: {hits / len(y_test):.1%}")
        print(f"plain:     {model.score(X_test, y_test):.1%}")
        print(session.cost())


if __name__ == "__main__":
    main()
