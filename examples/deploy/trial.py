"""What compose.yaml needs for a trial: a folder for each service, with its own key and shares alone.

python examples/deploy/trial.py FOLDER [PORT] [--no-provider]
    writes FOLDER/provider, alice, bob and carol. Services find each other by these names, or at
    PORT and the next ones of this machine. With --no-provider alice and bob do without one.

All keys are made in one place here, which is for a trial: see "Between organisations".
"""

import shutil
import sys
import tempfile
from pathlib import Path

import mpc
import nn
from mpc.parties import configuration

PARTIES = ("alice", "bob")
ALONE = "--no-provider"


def main(folder, *options):
    """Write the folders."""
    folder, provider = Path(folder), ALONE not in options
    port = next((option for option in options if option != ALONE), None)
    listen = (*PARTIES, *(["provider"] if provider else []))
    names = (*listen, "carol")
    X, _, y, _ = nn.load_digits_8x8()
    model = nn.MLP((64, 32, 10), random_state=0).fit(X, y, epochs=20, progress=False)
    with tempfile.TemporaryDirectory() as made:
        ports = range(int(port or 9001), int(port or 9001) + 3)
        path = configuration.write_example(
            Path(made) / "all", PARTIES, ["carol"], ports=ports, provider=provider
        )
        text = path.read_text()
        if port is None:
            for name, number in zip(listen, ports, strict=False):
                text = text.replace(f"127.0.0.1:{number}", f"{name}:{number}")
        with mpc.Session(PARTIES) as session:
            nn.save_shares(
                model.share(session, owner="alice", low=0, high=1), Path(made) / "shares"
            )
        for name in names:
            own = folder / name
            own.mkdir(parents=True)
            (own / "parties.toml").write_text(text)
            for certificate in path.parent.glob("*.crt"):
                shutil.copy(certificate, own)
            shutil.copy(path.with_name(f"{name}.key"), own)
            (own / "shares").mkdir()
            if name in PARTIES:
                shutil.copy(Path(made) / "shares" / f"{name}.npz", own / "shares")
    print(f"wrote {folder}: {', '.join(names)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
