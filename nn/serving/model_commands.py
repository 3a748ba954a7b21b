"""``sotto put`` and ``sotto remove``: a party's operator adds, replaces and removes models."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpc.command.command_line import add_command
from mpc.command.terminal import paint
from mpc.core import wire
from mpc.core.errors import (
    ArgumentError,
    ConfigurationError,
    FrameError,
    PeerTimeoutError,
    ShapeError,
)
from mpc.core.frames import Kind
from mpc.parties import configuration
from mpc.parties.configuration import Configuration
from mpc.parties.handshake import RELOAD, send_hello
from mpc.parties.health import ask
from mpc.parties.model_table import check_model_name, set_folder
from mpc.parties.tls import connect, own_contexts
from mpc.transport.connection import exchange, printable
from nn.models.saved_shares import SharesFile

__all__ = ["add_model_commands"]

_LARGEST_ANSWER = 1 << 20
# Seconds that a service may take to accept a connection.
_REACH_SECONDS = 3.0
# Seconds to wait until the other parties have the same set of files.
_LOOK_SECONDS = 2.0


def add_model_commands(commands: Any) -> None:
    """Add the commands to what ``add_subparsers`` has returned."""
    put = add_command(
        commands, "put", "give a party that serves a model, or new shares of one",
        "Check this party's shares of a model, enter their folder into its parties.toml, and have\n"
        "its service take them without a stop. They are served as soon as every party has its\n"
        "shares of the same set; until then all go on with the ones they have. If the service\n"
        "refuses them, nothing changes. If it does not run, it takes them when it starts. Prints the\n"
        "model's digest, the same at all parties, by which clients may name it (model_digest).",
    )  # fmt: skip
    _add_common(put)
    put.add_argument("folder", type=Path, help="where this party's shares are (nn.save_shares)")
    put.set_defaults(run=_put)

    remove = add_command(
        commands, "remove", "take a model from a party that serves",
        "Take a model out of this party's parties.toml, and have its service stop serving it.\n"
        "Then no party serves it. Files of shares stay where they are.",
    )  # fmt: skip
    _add_common(remove)
    remove.set_defaults(run=_remove)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("configuration", type=Path, help="the path of parties.toml")
    parser.add_argument("--me", required=True, metavar="NAME", help="which computing party this is")
    parser.add_argument("name", metavar="model", help="the model's name")


def _put(options: argparse.Namespace) -> int:
    name, me = options.name, options.me
    check_model_name(name)
    read = _load(options)
    # Raises if the file is wrong, before anything is written.
    file = SharesFile(read.names, read.format, read.names.index(me), options.folder, read.security)
    runs = _change(read, me, name, options.folder)
    print(f"{paint('Put', 'green')} {name} from {options.folder} into {read.path}")
    print(f"Its digest, for clients' model_digest: {file.digest.hex()}")
    if runs:
        state = _pending(read, me, name)
        print(
            f"{me} has it; it is served when every party has its shares of the same set"
            if state
            else f"{me} and all other parties serve it now"
        )
    return 0


def _remove(options: argparse.Namespace) -> int:
    read = _load(options)
    runs = _change(read, options.me, options.name, None)
    print(f"{paint('Removed', 'green')} {options.name} from {read.path}; its files stay")
    if runs:
        print(f"{options.me} serves it no more, so nobody does: the others remove it in their turn")
    return 0


def _load(options: argparse.Namespace) -> Configuration:
    read = configuration.load(options.configuration)
    if options.me not in read.parties:
        raise ArgumentError(f"--me must be one of {', '.join(read.names)}, got {options.me!r}")
    own_contexts(read, options.me)
    return read


def _change(read: Configuration, me: str, name: str, folder: Path | None) -> bool:
    """Change the configuration and have the service read it, or neither; return whether it runs."""
    undo = set_folder(read.path, me, name, folder)
    try:
        names = _reload(read, me)
        if names is not None and (name in names) != (folder is not None):
            raise ConfigurationError(
                f"the service of {me} has {', '.join(names) or 'no model'}: it reads another file"
                f" than {read.path}, or was given the model by --model"
            )
    except BaseException as error:
        _undo(undo, error)
        raise
    if names is None:
        place = read.parties[me].place
        print(f"{place} cannot be reached from here: it reads this when it starts, or at SIGHUP")
    return names is not None


def _undo(undo: Callable[[], None], error: BaseException) -> None:
    try:
        undo()
    except ConfigurationError as other:
        error.add_note(str(other))


def _reload(read: Configuration, me: str) -> tuple[str, ...] | None:
    """Have a party's service read configuration and files again.

    Returns its models, or None if it does not run.
    """
    context, _ = own_contexts(read, me)
    try:
        connection = connect(read.parties[me], context, _REACH_SECONDS)
    except PeerTimeoutError:
        return None
    try:
        send_hello(connection, RELOAD, {}, b"")
        connection.expect_bytes([Kind.ANSWER], _LARGEST_ANSWER)
        exchange([connection], read.timeouts.answer)
        word, text, names = wire.decode(connection.take().data.data)
        if word not in ("ok", "error") or any(type(name) is not str for name in names):
            raise TypeError
    except (ShapeError, TypeError, ValueError):
        raise FrameError(f"{me} sent an answer that is malformed") from None
    finally:
        connection.close()
    if word == "error":
        raise ConfigurationError(f"{me} goes on as before: {printable(str(text).encode())}")
    return tuple(names)


def _pending(read: Configuration, me: str, name: str) -> bool:
    """Wait until all parties have the same set of files; return whether one still lacks it."""
    until = time.monotonic() + _LOOK_SECONDS
    while True:
        (found,) = ask(read, me, _REACH_SECONDS, of=me)
        told = found.told
        if found.ready and name in told.get("models", ()) and name not in told.get("pending", ()):
            return False
        if time.monotonic() > until:
            return True
        time.sleep(0.05)
