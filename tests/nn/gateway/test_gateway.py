"""The gateway without parties: what it reads, whom it answers, and how much it takes."""

import asyncio
import io
import json
import re
import struct
import threading
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mpc
from nn.command import main
from nn.gateway import openapi
from nn.gateway.application import Limits, application
from nn.gateway.bodies import ARROW, CSV, JSON, MEDIA_TYPES, NPY, read_rows, write_npy
from nn.gateway.guard import check_origin
from nn.gateway.problems import HttpError, as_problem
from nn.gateway.turnstile import Turnstile

X = np.array([[1.5, -2.0, 3.0], [0.25, 0.0, 4.0]])
NAMES = ("a", "b", "c")


def arrow(table, **options):
    out = io.BytesIO()
    how = pyarrow.ipc.IpcWriteOptions(**options)
    with pyarrow.ipc.new_stream(out, table.schema, options=how) as writer:
        writer.write_table(table)
    return out.getvalue()


def npy(array, **how):
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=True, **how)
    return out.getvalue()


TABLE = pyarrow.table({name: X[:, j] for j, name in enumerate(NAMES)})
BODIES = {
    JSON: json.dumps({"columns": NAMES, "rows": X.tolist()}).encode(),
    CSV: b"\xef\xbb\xbfa, b ,c\r\n1.5,-2,3\r\n\r\n0.25,0e3,4.0\r\n",
    NPY: npy(X),
    ARROW: arrow(TABLE, allow_64bit=True),
}
assert set(BODIES) == set(MEDIA_TYPES)


@pytest.mark.parametrize("kind", BODIES)
def test_each_form_holds_the_rows(kind):
    table = read_rows(kind, BODIES[kind], 2)
    np.testing.assert_array_equal(table, X)
    assert table.columns == (None if kind == NPY else NAMES)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (JSON, b'{"rows": [[1, 2], [3, 4]]}'),
        (CSV, b"1,2\n3,4"),
        (NPY, npy(np.array([[1, 2], [3, 4]], ">i4", order="F"))),
        (ARROW, arrow(pyarrow.table({"x": [1, 3], "y": pyarrow.array([2, 4], "float32")}))),
        (ARROW, arrow(pyarrow.concat_tables([pyarrow.table({"x": [k], "y": [k + 1]}) for k in (1, 3)]))),
    ],
)  # fmt: skip
def test_other_spellings(kind, body):
    np.testing.assert_array_equal(read_rows(kind, body, 2), [[1, 2], [3, 4]])


def test_rows_by_the_names_of_inputs():
    table = read_rows(JSON, b'{"inputs": {"a": [[1, 2], [3, 4]], "b": [[5], [6]]}}', 4)
    assert len(table) == 2 and list(table.inputs) == ["a", "b"]
    np.testing.assert_array_equal(table.inputs["b"], [[5], [6]])
    with pytest.raises(HttpError, match="413"):
        read_rows(JSON, b'{"inputs": {"a": [[1, 2], [3, 4]], "b": [[5], [6]]}}', 3)
    lists = b'{"inputs": {"a": [' + b"[]," * 1_000_000 + b"[]]}}"
    tracemalloc.start()
    try:
        with pytest.raises(HttpError, match="413"):
            read_rows(JSON, lists, 1000)
        assert tracemalloc.get_traced_memory()[1] < len(lists)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", BODIES)
def test_no_rows(kind):
    empty = {
        JSON: b'{"columns": ["a", "b", "c"], "rows": []}', CSV: b"a,b,c\n", NPY: npy(X[:0]),
        ARROW: arrow(TABLE[:0]),
    }[kind]  # fmt: skip
    assert read_rows(kind, empty, 2).rows.shape == (0, 3)


REFUSED = [
    (JSON, b"", "no JSON"),
    (JSON, b"\xff", "no JSON"),
    (JSON, b"[" * 4, "no JSON"),
    (JSON, b"[[1]]", "must be an object"),
    (JSON, b'{"rows": ' + b'{"a":' * 100_000, "one object"),
    (JSON, b'{"rows": [[NaN]]}', "NaN is no number"),
    (JSON, b'{"rows": [[1e999]]}', None),
    (JSON, b'{"rows": [[%s]]}' % (b"9" * 400), "a double can hold"),
    (JSON, b'{"rows": [[%s]]}' % (b"9" * 5000), "no JSON"),
    (JSON, b'{"rows": [[1], [2, 3]]}', "row 0 has 1, row 1 2"),
    (JSON, b'{"rows": [["1"]]}', "row 0, column 0"),
    (JSON, b'{"rows": [[true]]}', "row 0, column 0"),
    (JSON, b'{"rows": [[[1]]]}', "row 0, column 0"),
    (JSON, b'{"rows": 3}', "list of lists"),
    (JSON, b'{"rows": [], "more": 1}', "an object with rows"),
    (JSON, b'{"inputs": []}', "inputs must be an object"),
    (JSON, b'{"inputs": {}}', "inputs must be an object"),
    (JSON, b'{"inputs": {"a": [[1]]}, "rows": [[1]]}', "an object with rows"),
    (JSON, b'{"inputs": {"a": [[1]], "b": []}}', "as many rows"),
    (JSON, b'{"inputs": {"a": {"b": [[1]]}}}', "one object"),
    (JSON, b'{"inputs": {"a": [["x"]]}}', r"inputs\['a'\] must hold numbers alone"),
    (JSON, b'{"rows": [[1]], "columns": [1]}', "list of strings"),
    (JSON, b'{"rows": [[1]], "columns": ["a", "b"]}', "names 2 columns"),
    (CSV, b"\xff", "UTF-8"),
    (CSV, b"1,2\n3\n", "line 2 has 1 cells"),
    (CSV, b"a,b\n1,x\n", "line 2, cell 2"),
    (CSV, b"1" * 200_000 + b",x", "no CSV"),
    (CSV, b"a,b\n1\n", "names 2 columns"),
    (NPY, b"", "no .npy"),
    (NPY, b"PK\x03\x04" + bytes(100), "no .npy"),
    (NPY, npy(X)[:-1], "47"),
    (NPY, npy(X) + b"1", "49"),
    (NPY, npy(X[0]), "two axes"),
    (NPY, npy(np.array([["1"]])), "numbers"),
    (NPY, npy(np.array([[1j]])), "numbers"),
    (NPY, npy(np.array([[{}]])), "numbers"),
    (NPY, npy(X).replace(b"(2, 3)", b"(1<<60, 3)"), "no .npy"),
    (ARROW, b"", "no Arrow"),
    (ARROW, BODIES[ARROW][:-40], "no Arrow"),
    (ARROW, BODIES[ARROW].replace(struct.pack("<q", 2), struct.pack("<q", -1)), "must have rows"),
    # pyarrow alone would end the process here.
    (ARROW, BODIES[ARROW][BODIES[ARROW].index(b"\xff" * 4, 1) :], "must have a schema here"),
    (ARROW, arrow(pyarrow.table({"name": [1]})).replace(b"name\0", b"nam\xff\0"), "no Arrow"),
    (ARROW, arrow(TABLE, compression="zstd"), "compressed"),
    (ARROW, arrow(TABLE, compression="lz4"), "compressed"),
    (ARROW, arrow(pyarrow.table({"a": ["x"]})), "column 'a' must hold numbers"),
    (ARROW, arrow(pyarrow.table({"a": [True]})), "column 'a' must hold numbers"),
    (ARROW, arrow(pyarrow.table({"a": [1.0, None]})), "in every row"),
]


@pytest.mark.parametrize(("kind", "body", "rule"), REFUSED)
def test_what_is_refused(kind, body, rule):
    if rule is None:  # an infinity, which the model's range refuses
        assert np.isinf(read_rows(kind, body, 5).rows).all()
        return
    with pytest.raises(HttpError) as caught:
        read_rows(kind, body, 5)
    assert caught.value.status == 400
    assert re.search(rule, caught.value.detail)


@pytest.mark.parametrize("kind", BODIES)
def test_more_rows_than_allowed(kind):
    with pytest.raises(HttpError, match="413"):
        read_rows(kind, BODIES[kind], 1)


def test_a_size_that_is_only_stated_takes_no_memory():
    header = npy(X).replace(b"(2, 3)", b"(9999999999, 3)")
    with pytest.raises(HttpError, match="400"):
        read_rows(NPY, header, 10**12)
    lists = b'{"rows": [' + b"[]," * 1_000_000 + b"[]]}"
    tracemalloc.start()
    try:
        with pytest.raises(HttpError, match="413"):
            read_rows(JSON, lists, 1000)
        assert tracemalloc.get_traced_memory()[1] < len(lists)
    finally:
        tracemalloc.stop()


@settings(max_examples=1000, deadline=None)
@given(kind=st.sampled_from(MEDIA_TYPES), data=st.data())
def test_mutated_bodies_are_read_or_refused(kind, data):
    body = bytearray(BODIES[kind])
    for _ in range(data.draw(st.integers(1, 5))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    del body[data.draw(st.integers(0, len(body))) or len(body) :]
    try:
        table = read_rows(kind, bytes(body), 1000)
    except HttpError as error:
        status = error.status
    else:
        status = 400 if table.rows.ndim == 2 and table.rows.dtype.kind in "biuf" else 500
        for part in (table.inputs or {}).values():
            status = 400 if part.ndim == 2 and len(part) == len(table) else status + 500
    assert status in (400, 413)


@pytest.mark.parametrize("labels", [np.array(["a", 7], object), np.array([1.5]), np.array(["x"])])
def test_answers_as_npy_need_no_pickle(labels):
    read = np.load(io.BytesIO(write_npy(labels)), allow_pickle=False)
    assert [str(label) for label in labels] == [str(label) for label in read]


HOSTS = [
    # Host, Origin, other headers, where it listens, names; the status or None.
    ("127.0.0.1:8080", None, {}, "127.0.0.1", (), None),
    ("localhost:8080", "http://localhost:8080", {}, "127.0.0.1", (), None),
    ("[::1]:8080", "http://[::1]:8080", {}, "::1", (), None),
    ("evil.example:8080", None, {}, "127.0.0.1", (), 421),
    ("evil.example:8080", "http://evil.example:8080", {}, "127.0.0.1", (), 421),
    ("evil.example", None, {}, "0.0.0.0", (), 421),
    ("localhost.evil.example", None, {}, "127.0.0.1", (), 421),
    ("", None, {}, "127.0.0.1", (), 421),
    ("10.0.0.5:8080", None, {}, "127.0.0.1", (), 421),
    ("10.0.0.5:8080", None, {}, "0.0.0.0", (), None),
    ("Ask.Carol.example", None, {}, "0.0.0.0", ("ask.carol.example",), None),
    ("127.0.0.1:8080", "http://evil.example", {}, "127.0.0.1", (), 403),
    ("127.0.0.1:8080", "null", {}, "127.0.0.1", (), 403),
    ("127.0.0.1:8080", "http://127.0.0.1:9999", {}, "127.0.0.1", (), 403),
    ("127.0.0.1:8080", None, {"sec-fetch-site": "cross-site"}, "127.0.0.1", (), 403),
    ("127.0.0.1:8080", None, {"sec-fetch-site": "same-site"}, "127.0.0.1", (), 403),
    ("127.0.0.1:8080", None, {"sec-fetch-site": "same-origin"}, "127.0.0.1", (), None),
    ("127.0.0.1:8080", None, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"},
     "127.0.0.1", (), None),
]  # fmt: skip


@pytest.mark.parametrize(("host", "origin", "more", "listens", "names", "status"), HOSTS)
def test_pages_of_other_sites_get_no_answer(host, origin, more, listens, names, status):
    headers = {"host": host, **more, **({} if origin is None else {"origin": origin})}
    if status is None:
        check_origin(headers, listens, frozenset(names))
    else:
        with pytest.raises(HttpError, match=str(status)):
            check_origin(headers, listens, frozenset(names))


def test_so_many_at_once_so_many_that_wait_and_no_more():
    running, most, lock = 0, 0, threading.Lock()
    go = threading.Event()

    def work():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go.wait(60)
        with lock:
            running -= 1
        return "done"

    async def program():
        gate = Turnstile(2, 3, 60)
        tasks = [asyncio.ensure_future(gate.run(work)) for _ in range(7)]
        while running < 2:
            await asyncio.sleep(0.01)
        # Time for a third, if it were let in.
        await asyncio.sleep(0.05)
        go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        # Whoever comes later finds the places free.
        assert await gate.run(work) == "done"
        return found

    found = asyncio.run(program())
    assert found.count("done") == 5
    refused = [each for each in found if each != "done"]
    assert [(each.status, each.kind, each.retry) for each in refused] == [(503, "Busy", 1)] * 2
    assert most == 2


def test_who_waits_too_long_is_told_and_holds_no_place_for_good():
    go = threading.Event()

    async def program():
        gate = Turnstile(1, 1, 0.1)
        found = [asyncio.ensure_future(gate.run(go.wait)) for _ in range(2)]
        found = await asyncio.gather(*found, return_exceptions=True)
        # One thread runs still and holds its place; the other place is free again.
        found.append(*await asyncio.gather(gate.run(go.wait), return_exceptions=True))
        go.set()
        while gate.admitted:
            await asyncio.sleep(0.01)
        gate._seconds = 60.0
        found.append(await gate.run(lambda: "done"))
        return found

    first, second, third, last = asyncio.run(program())
    assert [each.status for each in (first, second, third)] == [504] * 3
    assert "parties" in first.detail and "no place" in second.detail and "no place" in third.detail
    assert last == "done"


def test_a_party_that_did_not_answer_is_named_though_nobody_here_waited_too_long():
    def work():
        raise mpc.PeerTimeoutError("bob did not answer")

    async def program():
        await Turnstile(1, 1, 20).run(work)

    with pytest.raises(mpc.PeerTimeoutError, match="bob did not answer") as caught:
        asyncio.run(program())
    assert as_problem(caught.value).status == 503


def test_all_bodies_together_are_bounded_too():
    asking = SimpleNamespace(me="carol")
    made = application(asking, Limits(body=1000, seconds=20), "127.0.0.1")
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "method": "POST", "path": "/v1/models/x/predict", "query_string": b"",
        "headers": headers, "raw_path": b"", "root_path": "", "scheme": "http",
    }  # fmt: skip

    async def program():
        go, told = asyncio.Event(), []

        async def post():
            pieces = [b" " * 999, b""]

            async def receive():
                if len(pieces) == 1:
                    await go.wait()
                return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

            async def send(message):
                if message["type"] == "http.response.start":
                    told.append(message["status"])

            await made(dict(scope), receive, send)

        tasks = [asyncio.ensure_future(post()) for _ in range(10)]
        while len(told) < 2:
            await asyncio.sleep(0.01)
        go.set()
        await asyncio.gather(*tasks)
        # What they held is free again.
        tasks = [asyncio.ensure_future(post()) for _ in range(8)]
        await asyncio.gather(*tasks)
        return told

    told = asyncio.run(program())
    # The others' bodies are read, and hold no JSON.
    assert told == [503] * 2 + [400] * 16


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (mpc.PeerClosedError("bob closed the connection"), 503, 5),
        (mpc.SessionError("the client is closed"), 503, 5),
        (mpc.RangeError("X must lie in [0, 1]"), 422, None),
        (mpc.ArgumentError("wrong"), 422, None),
        (MemoryError(), 503, 5),
        (RuntimeError("secret 7"), 500, None),
        (HttpError(404, "no", "UnknownModel"), 404, None),
    ],
)
def test_errors_as_status_codes(error, status, retry):
    problem = as_problem(error)
    assert (problem.status, problem.retry) == (status, retry)
    assert problem.body()["status"] == status and problem.body()["title"]
    # What an unforeseen error says could be anything.
    assert "secret" not in json.dumps(problem.body())


def test_without_the_extra_the_command_says_so(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    monkeypatch.delitem(__import__("sys").modules, "nn.gateway.server", raising=False)
    assert main(["gateway", "parties.toml", "--me", "carol"]) == 78
    assert "pip install 'sotto-mpc[gateway]'" in capsys.readouterr().err


def test_the_description_refers_to_nothing_that_is_missing():
    made = openapi.description(100, 10)
    for name in re.findall(r"#/components/schemas/(\w+)", json.dumps(made)):
        assert name in made["components"]["schemas"]
    for path, item in made["paths"].items():
        assert set(re.findall(r"{(\w+)}", path)) == {p["name"] for p in item.get("parameters", [])}
