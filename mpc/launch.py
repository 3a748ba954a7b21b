"""Starting all parties, and the provider and its auditor if there are, as processes of this machine."""

from __future__ import annotations

import functools
import hashlib
import inspect
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait as wait_for
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mpc.core.errors import ArgumentError, LaunchError, PartyError, PeerError, SottoError
from mpc.core.own_process import tune_memory
from mpc.core.runtime import MEMORY_LIMIT
from mpc.core.watching import MALICIOUS, SECURITY, SEMI_HONEST
from mpc.parties import configuration
from mpc.parties.configuration import Timeouts
from mpc.parties.without_provider import RATE, check_rate, check_two
from mpc.session_setup import PROVIDER, check_watched
from mpc.two_party.joint import check_transfers
from ring import FixedPoint, set_num_threads

if TYPE_CHECKING:
    from mpc.session import Session

__all__ = ["HELPERS", "Place", "fingerprint", "launch", "start"]

HELPERS = ("provider", "auditor")
"""Processes of a launch that are no parties."""
_WAY_OUT = (
    "write what a notebook or an interactive session defines into a file of its own, and import it"
    " from there"
)
_UNGUARDED = (
    "what it has printed says why. A script must call mpc.launch below `if __name__ == "
    '"__main__":`, since each process imports it first'
)
# How long the other processes may take to report after one has failed.
_GRACE_SECONDS = 5.0
# Errors that say that another process failed; they are reported after the errors of that process.
_CONSEQUENCES = (PeerError,)


def fingerprint(program: Callable[..., object]) -> str:
    """Return a name for `program` that changes with its source."""
    while isinstance(program, functools.partial):
        program = program.func  # what it is called with may be a secret
    named = program if hasattr(program, "__qualname__") else type(program)
    name = f"{named.__module__}.{named.__qualname__}"
    try:
        source = inspect.getsource(named)
    except (OSError, TypeError):
        return name
    return f"{name} {hashlib.sha256(source.encode()).hexdigest()[:16]}"


@dataclass
class Place:
    """One process of a launch, passed to the function that runs in it.

    Attributes
    ----------
    me : str
        A computing party, "provider" or "auditor".
    path : Path
        Of the configuration.
    sock : socket
        Listens at the address of `me`.
    threads : int
        How many threads kernels may use.
    pipe : Connection
        To the process that has started this one.
    """

    me: str
    path: Path
    sock: socket.socket
    threads: int
    pipe: Pipe

    def session(
        self,
        program: str | None = None,
        memory_limit: int = MEMORY_LIMIT,
        format: FixedPoint | None = None,
        ranges: str = "warn",
    ) -> Session:
        """Join a new session. All parties must call this with the same arguments, in the same order."""
        from mpc.parties.joining import join_parties
        from mpc.session import Session
        from mpc.session_setup import agreed

        read = configuration.load(self.path)
        if format is not None:
            read = replace(read, format=format)
        named = agreed(program, ranges)
        links = join_parties(read, self.me, named, self.sock.dup(), memory_limit)
        return Session.from_links(read, self.me, links, ranges)

    def provide(self, evidence: Path | None = None) -> None:
        """Be the provider, or its auditor, until the launch is over.

        Parameters
        ----------
        evidence : Path, optional
            A folder where the auditor writes what shows a cheat.
        """
        from mpc.provider.auditor import AuditorService
        from mpc.provider.service import ProviderService

        read = configuration.load(self.path)
        service: AuditorService | ProviderService
        if self.me == "auditor":
            service = AuditorService(read, sock=self.sock, evidence=evidence)
        else:
            service = ProviderService(read, sock=self.sock)
        try:
            self.pipe.recv()  # nothing is ever sent: waits until the parent closes it or is gone
        except (EOFError, OSError):
            pass
        service.close(grace=0.5)


@dataclass(frozen=True)
class _Program:
    """The function that :func:`launch` runs in each process."""

    program: Callable[..., Any]
    inputs: Mapping[str, tuple[Any, ...]]
    prepare: bool
    memory_limit: int
    ranges: str
    evidence: Path | None = None

    def only_for(self, name: str) -> _Program:
        """Return a copy with the inputs of `name` alone, so that no others reach its process."""
        inputs = {name: self.inputs[name]} if name in self.inputs else {}
        return replace(self, inputs=inputs)

    def __call__(self, place: Place) -> Any:
        if place.me in HELPERS:
            return place.provide(self.evidence)
        inputs = self.inputs.get(place.me, ())
        program = fingerprint(self.program)
        with place.session(program, self.memory_limit, ranges=self.ranges) as session:
            if self.prepare:
                session.prepare(lambda planned: self.program(planned, *inputs))
            return self.program(session, *inputs)


def launch(
    program: Callable[..., Any],
    parties: Sequence[str] = ("alice", "bob"),
    *,
    inputs: Mapping[str, Any] | None = None,
    frac_bits: int = 16,
    int_bits: int = 15,
    memory_limit: int = MEMORY_LIMIT,
    ranges: str = "warn",
    prepare: bool = False,
    timeout: float = 600.0,
    answer_timeout: float = 60.0,
    threads: int | None = None,
    provider: str | None = PROVIDER,
    transfers: str = "softspoken",
    auditor: bool = False,
    audit_rate: float = RATE,
    audit_signed: bool = False,
    evidence: str | Path | None = None,
    security: str = SEMI_HONEST,
) -> dict[str, Any]:
    """Run `program` with every party and the provider in a process of its own.

    The processes are spawned on this machine and talk over TLS on the loopback interface, with
    keys and certificates made for this one run: for tests, benchmarks and first contact.

    Parameters
    ----------
    program : callable
        Called in each party's process as ``program(session)``, or ``program(session, *inputs)``.
        It must be importable: no lambda, and not defined in a notebook but in a file of its own.
        ``session.me`` says which party it is.
    parties : sequence of str, default=("alice", "bob")
    inputs : dict of str to tuple, optional
        Further arguments for each party's call. Only that party's process gets them.
    frac_bits, int_bits, memory_limit : int
        As for :class:`mpc.Session`.
    ranges : {"warn", "error", "check"}
        As for :class:`mpc.Session`.
    prepare : bool, default=False
        Plan the program first, see :meth:`mpc.Session.prepare`, so that the provider can deal ahead of
        need. The program is then called twice in each process, and must have no side effects.
    timeout : float, default=600
        Seconds after which all processes are ended.
    answer_timeout : float, default=60
        Seconds a process waits for another's answer.
    threads : int, optional
        Threads of each process. Default: the cores of this machine, divided by the parties.
    provider : {"crypto", None}
        As for :class:`mpc.Session`; None for two parties alone.
    transfers : {"softspoken", "ferret"}
        As for :class:`mpc.Session`.
    auditor : bool, default=False
        Whether an auditor, in one more process, checks what the provider deals.
    audit_rate : float, default=0.1
        Which part of it.
    audit_signed : bool, default=False
        Whether the provider signs what it deals, so that a cheat can be shown to others.
    evidence : path, optional
        With ``audit_signed=True``: an existing folder, where the auditor writes what shows a cheat.
    security : {"semi-honest", "malicious"}
        As for :class:`mpc.Session`; "malicious" is for three parties or more.

    Returns
    -------
    dict of str to object
        What each party's program has returned.

    Raises
    ------
    ArgumentError
        A program that other processes cannot import, or inputs that cannot be sent to them.
    LaunchError
        If a process has failed or the time is over; the message says which party and why. No
        process is left over.

    Examples
    --------
    >>> import mpc
    >>> def program(session, x=None):
    ...     secret = session.share(x, owner="alice", shape=(2,))
    ...     return (secret * secret).sum().reveal()
    >>> mpc.launch(program, inputs={"alice": ([3.0, 4.0],)})  # doctest: +SKIP
    {'alice': 25.0, 'bob': 25.0}
    """
    names = tuple(parties)
    given = dict(inputs or {})
    for name in given:
        if name not in names:
            raise PartyError(f"inputs must be for {', '.join(names)}, got {name!r}")
        if not isinstance(given[name], (tuple, list)):
            kind = type(given[name]).__name__
            raise ArgumentError(
                f"inputs[{name!r}] must be a tuple of the program's arguments, got {kind}"
            )
    if ranges not in ("warn", "error", "check"):
        raise ArgumentError(f"ranges must be one of warn, error, check, got {ranges!r}")
    if provider not in (None, PROVIDER):
        raise ArgumentError(
            f"provider must be {PROVIDER!r}, or None for two parties alone, got {provider!r}"
        )
    check_transfers(transfers)
    if not isinstance(auditor, bool):
        raise ArgumentError(
            f"auditor must be True or False, got {auditor!r}; audit_rate= says which part it checks"
        )
    if auditor and provider is None:
        raise ArgumentError(
            "auditor=True is for provider='crypto': it checks what a provider deals"
        )
    if not isinstance(audit_signed, bool):
        raise ArgumentError(f"audit_signed must be True or False, got {audit_signed!r}")
    if audit_signed and not auditor:
        raise ArgumentError(
            "audit_signed=True is for auditor=True: the auditor shows what is signed"
        )
    if evidence is not None:
        if not audit_signed:
            raise ArgumentError(
                "evidence is of what the provider has signed: say audit_signed=True"
            )
        evidence = Path(evidence).resolve()
        if not evidence.is_dir():
            raise ArgumentError(f"evidence must be a folder that exists, got {str(evidence)!r}")
    if not isinstance(security, str) or security not in SECURITY:
        raise ArgumentError(f"security must be one of {', '.join(SECURITY)}, got {security!r}")
    if security == MALICIOUS:
        check_watched(names, provider)
    if transfers != "softspoken" and provider is not None:
        raise ArgumentError(f"transfers is for provider=None, got {transfers!r}")
    _check_program(program)
    run = _Program(
        program,
        {name: tuple(value) for name, value in given.items()},
        prepare,
        memory_limit,
        ranges,
        evidence,
    )
    return start(
        run.only_for,
        names,
        format=FixedPoint(frac_bits, int_bits),
        timeout=timeout,
        answer_timeout=answer_timeout,
        threads=threads,
        provider=provider is not None,
        transfers=transfers,
        auditor=auditor,
        audit_rate=check_rate(audit_rate),
        audit_signed=audit_signed,
        security=security,
    )


def _check_program(program: Callable[..., Any]) -> None:
    """Raise ArgumentError if another process could not import the program by its name."""
    try:
        ForkingPickler.dumps(program)
    except Exception:
        raise ArgumentError(
            f"program must be a function that other processes can import, got {program!r}"
        ) from None
    main = sys.modules["__main__"]
    found = getattr(main, "__spec__", None) or Path(getattr(main, "__file__", None) or "").is_file()
    if getattr(program, "__module__", "") == "__main__" and not found:
        raise ArgumentError(
            f"program must be a function that other processes can import, got {program!r}:"
            f" {_WAY_OUT}"
        )


def start(
    call_of: Callable[[str], Callable[[Place], Any]],
    parties: Sequence[str],
    *,
    format: FixedPoint | None = None,
    timeout: float = 600.0,
    answer_timeout: float = 60.0,
    threads: int | None = None,
    sockets: Mapping[str, socket.socket] | None = None,
    provider: bool = True,
    transfers: str = "softspoken",
    auditor: bool = False,
    audit_rate: float = RATE,
    audit_signed: bool = False,
    security: str = SEMI_HONEST,
) -> dict[str, Any]:
    """Start a process for each party and the provider, which call ``call_of(name)(place)``.

    The general form of :func:`launch`; it returns and raises the same. `sockets`, if given, listen at
    the members' addresses already; they are closed at the end.
    """
    names = tuple(parties)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    each = threads if threads is not None else max(1, (cores or 1) // len(names))
    members = (*names, *(["provider"] if provider else []), *(["auditor"] if auditor else []))
    if not provider:
        check_two(names)
    if sockets is None:
        sockets = {name: socket.create_server(("127.0.0.1", 0), backlog=128) for name in members}
    try:
        with tempfile.TemporaryDirectory(prefix="sotto-") as folder:
            path = configuration.write_example(
                Path(folder) / "parties",
                names,
                (),
                ports=[sockets[name].getsockname()[1] for name in members],
                format=format,
                timeouts=Timeouts(connect=min(timeout, 120.0), answer=answer_timeout),
                provider=provider,
                transfers=transfers,
                auditor=auditor,
                audit_rate=audit_rate,
                audit_signed=audit_signed,
                security=security,
            )
            tasks = [
                (name, path, sockets[name], each, _packed(name, call_of(name))) for name in members
            ]
            results = _Processes(tasks).results(timeout)
            return {name: results[name] for name in names}
    finally:
        for sock in sockets.values():
            sock.close()


def _packed(name: str, call: Callable[[Place], Any]) -> bytes:
    """Pickle the call for a process, which unpickles it itself and so can report a failure."""
    try:
        return bytes(ForkingPickler.dumps(call))
    except Exception as error:
        raise ArgumentError(
            f"what {name} is given cannot be sent to its process: {type(error).__name__}: {error}"
        ) from None


class _Processes:
    """The processes of one launch, from their start to their end."""

    def __init__(self, tasks: Sequence[tuple[str, Path, socket.socket, int, bytes]]) -> None:
        context = multiprocessing.get_context("spawn")
        self._began: set[str] = set()
        self._pipes: dict[str, Pipe] = {}
        self._processes: dict[str, Any] = {}
        for name, path, sock, threads, call in tasks:
            mine, theirs = context.Pipe()
            process = context.Process(
                target=_main,
                args=(name, path, sock, threads, theirs, call),
                name=f"sotto {name}",
            )
            self._pipes[name], self._processes[name] = mine, process
            try:
                process.start()
            except Exception:
                self._end()
                raise
            theirs.close()

    def results(self, timeout: float) -> dict[str, Any]:
        """Wait for all parties, end every process, and return their results or raise their errors."""
        try:
            results, errors = self._collect(time.monotonic() + timeout)
        finally:
            self._end()
        if errors:
            # First processes that failed by themselves, then those that lost another one.
            order = sorted(errors, key=lambda name: errors[name][0])
            text = {name: errors[name][1] for name in order}
            first = order[0]
            others = "".join(f"\n  {name}: {text[name]}" for name in order[1:])
            raise LaunchError(f"{first}: {text[first]}{others}", text)
        return results

    def _collect(self, deadline: float) -> tuple[dict[str, Any], dict[str, tuple[int, str]]]:
        results: dict[str, Any] = {}
        errors: dict[str, tuple[int, str]] = {}
        names = [name for name in self._pipes if name not in HELPERS]
        waiting = dict(self._pipes)
        while any(name in waiting for name in names):
            left = deadline - time.monotonic()
            ready = wait_for(list(waiting.values()), timeout=max(0.0, left)) if left > 0 else []
            if not ready:
                for name in waiting:
                    if name in names and (not errors or name not in errors):
                        rank = 1 if not errors else 3
                        errors[name] = (rank, "did not finish in time")
                break
            for name in [n for n, pipe in waiting.items() if pipe in ready]:
                try:
                    kind, value = self._pipes[name].recv()
                except (EOFError, OSError):
                    self._processes[name].join(1.0)
                    code = self._processes[name].exitcode
                    kind, value = "lost", f"the process ended with exit code {code}"
                    if name not in self._began:
                        value += f" before it began; {_UNGUARDED}"
                if kind == "began":
                    self._began.add(name)
                    continue
                del waiting[name]
                if kind == "result":
                    results[name] = value
                else:
                    errors[name] = ({"error": 1, "lost": 0, "consequence": 2}[kind], value)
                    deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
        return results, errors

    def _end(self) -> None:
        for pipe in self._pipes.values():
            pipe.close()
        started = [p for p in self._processes.values() if p.pid is not None]
        deadline = time.monotonic() + 5.0
        for process in started:
            # A process ends when its pipe is closed; wait a moment for that.
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
        for process in started:
            process.join()


def _main(
    me: str,
    path: Path,
    sock: socket.socket,
    threads: int,
    pipe: Pipe,
    packed: bytes,
) -> None:
    """Run one process."""
    pipe.send(("began", None))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_num_threads(threads)
    tune_memory()
    finished = threading.Event()
    if me not in HELPERS:
        threading.Thread(target=_end_with_parent, args=(pipe, finished), daemon=True).start()
    try:
        report = ("result", _call_of(packed)(Place(me, path, sock, threads, pipe)))
    except SottoError as error:
        kind = "consequence" if isinstance(error, _CONSEQUENCES) else "error"
        report = (kind, f"{type(error).__name__}: {error}")
    except Exception as error:
        report = ("error", f"{type(error).__name__}: {error}")
    # Set before the report: the parent may close the pipe then, and that must not end this process.
    finished.set()
    try:
        pipe.send(report)
    except (OSError, ValueError):
        pass
    except Exception as error:  # a result that cannot be pickled
        pipe.send(("error", f"the result cannot be sent back: {type(error).__name__}: {error}"))
    # The parent can still read what was sent.
    pipe.close()


def _call_of(packed: bytes) -> Callable[[Place], Any]:
    try:
        call: Callable[[Place], Any] = ForkingPickler.loads(packed)
    except Exception as error:
        raise ArgumentError(
            f"the process cannot import what it was given: {type(error).__name__}: {error};"
            f" {_WAY_OUT}"
        ) from None
    return call


def _end_with_parent(pipe: Pipe, finished: threading.Event) -> None:
    """End this process if its parent is gone before it has finished."""
    try:
        wait_for([pipe])
    finally:
        if not finished.is_set():
            os._exit(1)
