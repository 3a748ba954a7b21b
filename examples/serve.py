"""A service that predicts on images which it does not see, and a client of it, on this machine.

python examples/serve.py FOLDER [--no-provider]
    writes keys and shares of a model into FOLDER, which must be new, starts `sotto provider` and
    `sotto serve` for alice and bob, asks them as the client carol, prints the predictions beside
    the true labels, and stops them. Between machines each does its part: docs/deployment.md.
    With --no-provider alice and bob do without one.
"""

import subprocess
import sys
from pathlib import Path

import mpc
import nn

SOTTO = (sys.executable, "-m", "sotto_mpc_command")


def main(folder, *options):
    """Write what the services need, run them, and ask them; options are those of `sotto init`."""
    X, X_test, y, y_test = nn.load_digits_8x8()
    # Configuration, keys and certificates of everybody: in one folder, for a trial only.
    subprocess.run([*SOTTO, "init", folder, *options], check=True)
    configuration = Path(folder) / "parties.toml"

    model = nn.MLP((64, 32, 10), random_state=0).fit(X, y, epochs=15, progress=False)
    with mpc.Session() as session:
        secret_model = model.share(session, owner="alice", low=0, high=1)
        nn.save_shares(secret_model, Path(folder) / "shares")  # a file for each party

    services = [] if "--no-provider" in options else [[*SOTTO, "provider", configuration]]
    for me in ("alice", "bob"):
        model_at = f"--model=digits={folder}/shares"
        services.append([*SOTTO, "serve", configuration, "--me", me, model_at])
    running = [subprocess.Popen(service) for service in services]
    try:
        # Waits until they are ready; images go out as shares, one to each party.
        with nn.Client(configuration) as client:
            print("predicted:", *client.predict(X_test[:10]))
        print("true:     ", *y_test[:10])
    finally:
        for service in running:
            service.terminate()
        for service in running:
            service.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
