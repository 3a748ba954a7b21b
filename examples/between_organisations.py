"""Alice has a model, bob has images: how good is the one on the other?

python between_organisations.py train
    alice trains: model.npz stays hers, outline.npz (sizes and labels, no weights) is for everybody.
python between_organisations.py score ME PARTIES.TOML MODEL.NPZ [SHARES]
    both parties run this, alice with model.npz, bob with outline.npz. With a folder SHARES each
    keeps its own shares of the model, for `sotto serve`.
python between_organisations.py ask PARTIES.TOML
    a client asks the parties that serve the model.
"""

import sys

import mpc
import nn


def train():
    """Train in the clear, at alice's."""
    X, _, y, _ = nn.load_digits_8x8()
    model = nn.MLP((64, 32, 10), random_state=0).fit(X, y, epochs=20, progress=False)
    model.save("model.npz")
    model.outline().save("outline.npz")
    print("wrote model.npz and outline.npz")


# --8<-- [start:score]
def score(me, parties, model_file, shares=None):
    """Run one party."""
    model = nn.load(model_file)
    with mpc.Session(parties, me=me, program="score 1") as session:
        secret_model = model.share(session, owner="alice", low=0, high=1)
        # Only bob has data; the others know how much of it there is.
        X, y = None, None
        if me == "bob":
            _, X, _, labels = nn.load_digits_8x8()
            y = nn.one_hot(labels)
        images = secret_model.share_rows(X, owner="bob", rows=450)
        targets = session.share(y, owner="bob", shape=(450, 10), dtype=int, bound=1)
        predicted = secret_model(images).argmax(axis=1, one_hot=True)
        hits = (predicted * targets).sum().reveal()
        if shares is not None:
            nn.save_shares(secret_model, shares)
    print(f"{me}: {hits} of 450 right")


# --8<-- [end:score]


def ask(parties):
    """Ask for predictions as a client, who computes nothing."""
    _, X, _, y = nn.load_digits_8x8()
    with nn.Client(parties) as client:
        print("predicted:", client.predict(X[:5]), "true:", y[:5])


if __name__ == "__main__":
    {"train": train, "score": score, "ask": ask}[sys.argv[1]](*sys.argv[2:])
