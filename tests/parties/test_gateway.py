"""`sotto gateway` before parties that serve: programs and a browser ask over HTTP."""

import contextlib
import http.client
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib import resources

import numpy as np
import pyarrow
import pytest

import nn
from mpc.parties import configuration
from nn.command import main
from tests.helpers.programs import branched_network, flower_network, flower_rows, network
from tests.helpers.services import MODELS, ROOT, Services

X = np.random.default_rng(5).random((40, 64))
LIMITS = ["--largest-body", "300000", "--largest-rows", "50", "--seconds", "20", "--at-once", "2"]
SERVED = {name: MODELS[name] for name in ("network", "pictures", "flowers", "prices", "branched")}


class Gateway:
    """A gateway as a process, and requests to it."""

    def __init__(self, path, me="carol", more=(), listen="127.0.0.1:0"):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nn.command", "gateway", str(path), "--me", me, "--verbose",
             "--listen", listen, *(more or LIMITS)],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.told = [self.process.stdout.readline() for _ in range(3)]
        self.port = int(re.search(r":(\d+)$", self.told[0].strip())[1])

    def ask(self, method, path, body=None, headers=()):
        """Return status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def get(self, path):
        status, _, body = self.ask("GET", path)
        assert status == 200, body
        return json.loads(body)

    def predict(self, model, rows, query=""):
        body = json.dumps({"rows": rows.tolist()})
        path = f"/v1/models/{model}/predict{query}"
        status, headers, body = self.ask("POST", path, body, {"Content-Type": "application/json"})
        return status, headers, json.loads(body)

    def end(self):
        """Tell it to end; return its exit code and what it wrote to standard error."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        _, log = self.process.communicate(timeout=30)
        return self.process.returncode, log


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    running = Services(tmp_path_factory.mktemp("gateway"), SERVED, workers=1, answer=6)
    yield running
    assert not running.stop()


@pytest.fixture(scope="module")
def gateway(services):
    made = Gateway(services.path)
    while made.ask("GET", "/v1/health/ready")[0] != 200:
        time.sleep(0.2)
    yield made
    made.process.kill()
    made.process.communicate()


@pytest.fixture(scope="module")
def other(services):
    """Another client's, which is not patient."""
    made = Gateway(services.path, "dora", ["--seconds", "1", "--at-once", "1"], "0.0.0.0:0")
    yield made
    made.process.kill()
    made.process.communicate()


def test_it_says_at_its_start_what_it_sees(gateway):
    assert gateway.told[0] == f"gateway of carol at http://127.0.0.1:{gateway.port}\n"
    assert "sees carol's rows and answers in the clear" in gateway.told[1]


def test_labels_scores_and_probabilities(gateway):
    plain = network()
    status, _, told = gateway.predict("network", X)
    assert (status, told["answer"], told["rows"]) == (200, "labels", 40)
    assert told["result"] == plain.predict(X).tolist()
    assert "details" not in told
    for kind, expected in (
        ("scores", plain.decision_function(X)), ("probabilities", plain.predict_proba(X)),
    ):  # fmt: skip
        _, _, told = gateway.predict("network", X, f"?answer={kind}")
        np.testing.assert_allclose(told["result"], expected, atol=1e-3)
        assert told["classes"] == plain.classes_.tolist()
    _, _, told = gateway.predict("prices", flower_rows())
    assert told["answer"] == "values" and np.shape(told["result"]) == (len(flower_rows()),)
    _, _, told = gateway.predict("network", X[:0].reshape(0, 64), "?details=true")
    assert told["result"] == []


def test_several_inputs_and_outputs_by_name(gateway):
    plain, rng = branched_network(), np.random.default_rng(3)
    rows = {"left": rng.uniform(-1, 1, (3, 4)), "right": rng.uniform(-1, 1, (3, 2))}
    wanted = plain.predict(rows)
    path, json_of = "/v1/models/branched/predict", {"Content-Type": "application/json"}
    both = np.hstack(list(rows.values()))

    def ask(body, query="", **more):
        status, _, told = gateway.ask("POST", path + query, json.dumps(body), {**json_of, **more})
        return status, json.loads(told)

    for body in ({"inputs": {k: v.tolist() for k, v in rows.items()}}, {"rows": both.tolist()}):
        for query in ("", "?answer=outputs&details=true"):
            status, told = ask(body, query)
            assert (status, told["answer"], told["rows"]) == (200, "outputs", 3), told
            assert told["result"]["kind"] == wanted["kind"].tolist()
            np.testing.assert_allclose(told["result"]["size"], wanted["size"], atol=1e-3)
    status, told = ask({"inputs": {"left": [], "right": []}})
    assert (status, told["rows"], told["result"]) == (200, 0, {"kind": [], "size": []})
    described = gateway.get("/v1/models/branched")
    assert described["answers"] == ["outputs"] and described["inputs"] == {"left": 4, "right": 2}
    assert described["outputs"]["size"] == {"kind": "values", "shape": [2]}
    left = rows["left"].tolist()
    for body, query, more, code, rule in (
        ({"inputs": {"left": left}}, "", {}, 422, "none called 'right'"),
        ({"inputs": {"left": left, "more": left}}, "", {}, 422, "left, right, got 'more'"),
        ({"inputs": {"left": left, "right": left}}, "", {}, 422, "2 features"),
        ({"rows": both.tolist()}, "?answer=scores", {}, 403, "outputs alone"),
        ({"rows": both.tolist()}, "", {"Accept": "application/x-npy"}, 406, "JSON alone"),
    ):
        status, told = ask(body, query, **more)
        assert status == code and rule in told["detail"], told
    status, _, told = gateway.ask(
        "POST", "/v1/models/network/predict", json.dumps({"inputs": {"left": left}}), json_of
    )
    assert status == 422 and b"inputs, none" in told


def test_every_form_of_body_and_of_answer(gateway):
    rows = flower_rows()[:9]
    names = gateway.get("/v1/models/flowers")["feature_names"]
    stream, npy = io.BytesIO(), io.BytesIO()
    table = pyarrow.table({name: rows[:, j] for j, name in enumerate(names)})
    with pyarrow.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    np.save(npy, rows)
    lines = [names, *([repr(float(v)) for v in row] for row in rows)]
    bodies = {
        "application/json": json.dumps({"columns": names, "rows": rows.tolist()}).encode(),
        "text/csv; charset=utf-8": "\n".join(",".join(line) for line in lines).encode(),
        "application/x-npy": npy.getvalue(),
        "application/vnd.apache.arrow.stream": stream.getvalue(),
    }
    for kind, body in bodies.items():
        for wanted in ("application/json", "application/x-npy"):
            status, headers, told = gateway.ask(
                "POST", "/v1/models/flowers/predict", body, {"Content-Type": kind, "Accept": wanted}
            )
            assert (status, headers["Content-Type"]) == (200, wanted), told
            if wanted == "application/json":
                labels = json.loads(told)["result"]
            else:
                labels = np.load(io.BytesIO(told), allow_pickle=False).tolist()
            assert labels == flower_network().predict(rows).tolist()


def test_what_each_party_saw_is_what_was_sent_and_adds_up_to_the_row(gateway, services):
    _, _, told = gateway.predict("network", X[:2], "?details=true")
    parties = told["details"]["parties"]
    assert [(each["name"], each["got"]) for each in parties] == [
        ("alice", "a seed"), ("bob", "words"),
    ]  # fmt: skip
    shares = [np.array([int(word, 16) for word in each["share"]], np.uint64) for each in parties]
    read = configuration.load(services.path)
    total = (shares[0] + shares[1]).astype(np.int64) / 2**read.format.frac_bits
    np.testing.assert_allclose(total, X[0], atol=2**-read.format.frac_bits)
    # A seed is short whatever the rows are; of words there are 8 bytes for every number.
    assert parties[0]["bytes_sent"] < 512 < 2 * 64 * 8 < parties[1]["bytes_sent"]
    assert min(each["bytes_received"] for each in parties) > 0
    # As the parties' own logs have it.
    rounds, sent = (told["details"][name] for name in ("rounds", "bytes_between_parties"))
    services.wait_for(
        "bob",
        "request",
        f"model=network answer=class shape=2x64 together=1 rounds={rounds} bytes={sent} ",
    )


def test_a_call_of_many_rows_is_several_requests(services):
    with nn.Client(services.path, me="erin", model="network") as client:
        assert client.last_exchange_ is None and client.last_cost() == (0, 0)
        client.predict(X[:1])
        one, alone = client.last_exchange_, client.last_cost()
        client.predict(np.zeros((4097, 64)))
        exchange, cost = client.last_exchange_, client.last_cost()
    assert (exchange.rows, len(exchange.ids), one.rows, len(one.ids)) == (4097, 2, 1, 1)
    for each, small in zip(exchange.parties, one.parties, strict=True):
        assert each.received > small.received and "first_row" not in repr(each)
    # The second request is like the one before, but that one has opened the weights.
    assert cost[0] > alone[0] / 2 and cost[1] > 4096 * 64 * 8


REFUSED = [
    ("GET", "/v2", b"", {}, 404),
    ("GET", "/v1/models/network/predict", b"", {}, 405),
    ("GET", "/v1/models/other", b"", {}, 404),
    ("POST", "/v1/models/other/predict", b'{"rows": [[1]]}', {}, 404),
    ("POST", "/v1/models/network/predict?answer=weights", b"", {}, 400),
    ("POST", "/v1/models/network/predict?secret=1", b"", {}, 400),
    ("POST", "/v1/models/network/predict?details=maybe", b"", {}, 400),
    ("POST", "/v1/models/network/predict?answer=values", b'{"rows": [[1]]}', {}, 403),
    ("POST", "/v1/models/pictures/predict?answer=scores", b'{"rows": [[1]]}', {}, 403),
    ("POST", "/v1/models/network/predict", b"{", {}, 400),
    ("POST", "/v1/models/network/predict", b'{"rows": [[1]]}', {}, 422),
    ("POST", "/v1/models/network/predict", json.dumps({"rows": [[7.25] * 64]}).encode(), {}, 422),
    ("POST", "/v1/models/network/predict", b" " * 300_001, {}, 413),
    ("POST", "/v1/models/network/predict", json.dumps({"rows": [[0] * 64] * 51}).encode(), {}, 413),
    ("POST", "/v1/models/network/predict", b"x", {"Content-Type": "text/plain"}, 415),
    ("POST", "/v1/models/network/predict", b"{}", {"Accept": "text/html"}, 406),
    ("GET", "/v1/models", b"", {"Host": "evil.example"}, 421),
    ("GET", "/", b"", {"Host": "evil.example"}, 421),
    ("POST", "/v1/models/network/predict", b"{}", {"Origin": "https://evil.example"}, 403),
]


@pytest.mark.parametrize(("method", "path", "body", "headers", "status"), REFUSED)
def test_what_is_refused_is_told_as_a_problem(gateway, method, path, body, headers, status):
    headers = {"Content-Type": "application/json", **headers}
    got, told, body = gateway.ask(method, path, body or None, headers)
    problem = json.loads(body)
    assert (got, problem["status"]) == (status, status)
    assert told["Content-Type"] == "application/problem+json"
    assert set(problem) == {"type", "title", "status", "detail", "error"}
    assert told["Access-Control-Allow-Origin"] is None


def test_a_body_without_a_length_is_cut_off_too(gateway):
    head = "POST /v1/models/network/predict HTTP/1.1\r\nHost: localhost\r\n"
    head += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port)) as sock:
        sock.settimeout(60)
        sock.sendall(head.encode())
        # It may be cut off before the last piece has left.
        with contextlib.suppress(ConnectionError):
            for _ in range(4):
                sock.sendall(b"%x\r\n" % 100_000 + b" " * 100_000 + b"\r\n")
            sock.sendall(b"0\r\n\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 413 ")


def test_garbage_on_the_socket_and_silence_end_nothing(other):
    silent = [socket.create_connection(("127.0.0.1", other.port)) for _ in range(20)]
    # Heads and bodies that never end.
    silent[0].sendall(b"GET /v1/health/live HTTP/1.1\r\n")
    head = "POST /v1/models/network/predict HTTP/1.1\r\nHost: localhost\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    silent[1].sendall(head.encode())
    for garbage in (
        b"\x00" * 5000,
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"A" * 100_000,
    ):
        with socket.create_connection(("127.0.0.1", other.port)) as sock:
            sock.settimeout(30)
            try:
                sock.sendall(garbage)
                assert b"400 Bad Request" in sock.recv(100)
            except ConnectionError:
                pass
    assert other.get("/v1/health/live") == {"live": True, "me": "dora"}
    for k, sock in enumerate(silent):
        sock.settimeout(30)
        assert (b" 408 " in sock.recv(100)) if k == 1 else sock.recv(100) == b""
        sock.close()


def test_many_at_once_are_all_answered(gateway):
    wrong = []

    def ask(first):
        for k in range(5):
            rows = X[first + k : first + k + 2]
            status, _, told = gateway.predict("network" if k % 2 else "pictures", rows)
            if status != 200 or (k % 2 and told["result"] != network().predict(rows).tolist()):
                wrong.append((status, told))

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_page_needs_nothing_from_elsewhere(gateway):
    status, headers, page = gateway.ask("GET", "/")
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy and "http" not in policy and "frame-ancestors 'none'" in policy
    links = re.findall(r'(?:src|href)="([^"]+)"', page.decode())
    assert {"page.js", "page.css", "icon.svg"} <= set(links)
    for link in links:
        assert gateway.ask("GET", f"/{link}")[0] == 200
    for file in (resources.files("nn.gateway") / "page").iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|//\w+\.\w|innerHTML|eval\(|style=|\son\w+=\"", text), file


def test_the_description_has_every_path(gateway):
    from nn.gateway.application import Limits, application

    made = application(None, Limits(), "127.0.0.1")
    paths = {route.path for route in made._inner.routes if route.path.startswith("/v1")}
    described = gateway.get("/v1/openapi.json")
    assert set(described["paths"]) == paths - {"/v1/openapi.json"}
    told = described["paths"]["/v1/models/{model}/predict"]["post"]["responses"]
    for *_, path, _, _, status in REFUSED:
        assert str(status) in told or "predict" not in path or status == 405


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--me", "alice"], "me must be one of carol, dora, erin"),
        (["--me", "carol", "--listen", "8080"], "--listen must be"),
        (["--me", "carol", "--listen", "127.0.0.1:99999"], "--listen must be"),
        (["--me", "carol", "--largest-rows", "0"], "--largest-rows must be at least 1"),
    ],
)
def test_mistakes(services, capsys, arguments, told):
    assert main(["gateway", str(services.path), *arguments]) in (2, 78)
    assert told in capsys.readouterr().err


def test_parties_that_are_away_are_a_503_and_the_gateway_lives(services, gateway):
    for name in ("alice", "bob", "provider"):
        services.kill(name)
    for method, path, body in (
        ("POST", "/v1/models/network/predict", json.dumps({"rows": X.tolist()})),
        ("GET", "/v1/health/ready", None),
    ):
        kind = {"Content-Type": "application/json"}
        status, headers, body = gateway.ask(method, path, body, kind)
        assert (status, headers["Retry-After"]) == (503, "5"), body
    assert gateway.get("/v1/health/live")["live"]
    for name in services.logs:
        services.start(name)
    deadline = time.monotonic() + 60
    while gateway.ask("GET", "/v1/health/ready")[0] != 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    status, _, told = gateway.predict("network", X)
    assert (status, told["result"]) == (200, network().predict(X).tolist())


def test_it_ends_when_it_is_told_to_and_its_log_has_no_values(gateway, other):
    code, log = gateway.end()
    assert code == 0
    assert "event=problem" in log and "7.25" not in log and "must lie" not in log
    assert "event=stop role=gateway me=carol" in log
    code, log = other.end()
    assert code == 0 and "0.0.0.0 is no loopback address" in log
