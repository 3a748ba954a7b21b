"""``sotto prepare``: two parties alone make ahead what predictions by their services will take."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mpc import ConfigurationError, Session, StockError
from mpc.command.command_line import add_command, check_positive
from mpc.command.terminal import paint
from mpc.core.errors import ArgumentError
from mpc.core.events import record
from mpc.parties import configuration
from mpc.parties.model_table import check_model_name
from nn.core.progress import progress_bar
from nn.models.saved_shares import load_shares
from nn.serving.answers import answer_of, checked_answer
from nn.serving.model_description import answers_of
from nn.shared.model import SharedModel

__all__ = ["add_stock_command", "stock_of", "use_stocks"]

_TOGETHER = 1000


def stock_of(folder: Path, me: str) -> Path:
    """Return where a party's stock of a model is: beside its shares."""
    return folder / f"{me}.stock"


def _program(model: SharedModel, rows: int, checked: bool) -> Callable[[Any], object]:
    """Return what answers so many rows, `checked` as a client's who is not trusted, to be planned."""
    evaluate = checked_answer if checked else answer_of

    def run(planned: Any) -> object:
        twin = model.twin(planned)
        x = twin.rows_from_shares(np.empty((0, rows, model.n_features_in_), np.uint64))
        return evaluate(twin, x, answers_of(model)[0])

    return run


def use_stocks(
    session: Session,
    models: Mapping[str, SharedModel],
    folders: Mapping[str, Path],
    checked: bool,
) -> None:
    """Take from the stocks of models of which both parties have one; log why if one will not do.

    All parties call it with models of the same names in the same order. `checked` says whether rows are
    checked of any client.
    """
    if session.pair is None:
        return
    assert session.me is not None
    for name, model in models.items():
        path = stock_of(folders[name], session.me)
        found = session.tell([np.array([path.exists()], np.uint64)])
        if not all(int(each[0]) for each in found):
            continue
        try:
            session.use_stock(path, _program(model, 1, checked))
            record("stock", me=session.me, model=name, path=str(path))
        except StockError as error:
            record("stock", warning=True, me=session.me, model=name, problem=str(error))


def add_stock_command(commands: Any) -> None:
    """Add the command to what ``add_subparsers`` has returned."""
    prepare = add_command(
        commands, "prepare", "make ahead what predictions without a provider take",
        "Make ahead, with the other party, what predictions of a model will take where nobody plays\n"
        "the provider: both parties run it at the same time, while their services do not. Each gets\n"
        "a file beside its shares of the model, NAME.stock, which its service uses when it starts\n"
        "next. Keep it like a key, and do not copy it. What is used up is made within the\n"
        "predictions again.",
    )  # fmt: skip
    prepare.add_argument("configuration", type=Path, help="the path of parties.toml")
    prepare.add_argument(
        "--me", required=True, metavar="NAME", help="which computing party this is"
    )
    prepare.add_argument(
        "--model", required=True, metavar="NAME",
        help="a model of [parties.NAME.models] in parties.toml (sotto put), or NAME=FOLDER with where"
        " this party's shares of it are",
    )  # fmt: skip
    prepare.add_argument(
        "--rows", required=True, type=int, metavar="N", help="how many rows it is to serve"
    )
    prepare.add_argument(
        "--together", type=int, metavar="N",
        help=f"how many rows a request has (default: {_TOGETHER}, or all); requests of fewer take more of"
        " it for each row",
    )  # fmt: skip
    prepare.set_defaults(run=_prepare)


def _prepare(options: argparse.Namespace) -> int:
    me, rows = options.me, options.rows
    name, _, given = options.model.partition("=")
    check_model_name(name)
    together = min(rows, _TOGETHER) if options.together is None else options.together
    for option, value in (("--rows", rows), ("--together", together)):
        check_positive(option, value)
    read = configuration.load(options.configuration)
    if me not in read.parties:
        raise ArgumentError(f"--me must be one of {', '.join(read.names)}, got {me!r}")
    if read.provider is not None:
        raise ConfigurationError(
            f"{read.path} has a provider, who deals what predictions take: sotto prepare is for two"
            " parties alone"
        )
    folder = Path(given) if given else read.parties[me].folders.get(name)
    if folder is None:
        raise ConfigurationError(
            f"[parties.{me}.models] in {read.path} has no {name!r}, only"
            f" {', '.join(read.parties[me].folders) or 'no model'}"
        )
    path, times = stock_of(folder, me), -(-rows // together)
    program = f"sotto prepare {name}, {times} times {together} rows"
    with Session(read.path, me=me, program=program) as session:
        model = load_shares(session, folder)
        with progress_bar(times * together, f"stock of {name}", "row", None) as bar:
            session.prepare_ahead(
                _program(model, together, read.checks_rows), times, path=path,
                progress=lambda made: bar.update(made * together),
            )  # fmt: skip
    size = path.stat().st_size
    print(
        f"{paint('Made', 'green')} {path} for {times * together} rows of {name}:"
        f" {size / 1e6:.1f} MB"
    )
    return 0
