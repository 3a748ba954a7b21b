"""The program at the end of the tour: every party runs it, each with what is its own.

It is a file because the parties' processes import it.
"""

import mpc
import nn


def count_hits(session, model, images, targets, rows):
    """Count the images that alice's model gets right, on shares.

    Who does not own the model passes its outline, who does not own the data passes None.
    """
    secret_model = model.share(session, owner="alice")
    secret_images = secret_model.share_rows(images, owner="client", rows=rows)
    secret_targets = session.share(targets, owner="client", shape=(rows, 10), dtype=int, bound=1)
    predicted = secret_model(secret_images).argmax(axis=1, one_hot=True)
    return int((predicted * secret_targets).sum().reveal())


# --8<-- [start:launch]
def run_apart(model, images, targets):
    """Start client, alice, bob and the provider as four processes; return what each learns."""
    rows, outline = len(images), model.outline()
    return mpc.launch(
        count_hits,
        parties=("alice", "bob", "client"),
        inputs={
            "alice": (model, None, None, rows),
            "bob": (outline, None, None, rows),
            "client": (outline, images, nn.one_hot(targets), rows),
        },
    )


# --8<-- [end:launch]
