"""What operators rely on: ready means ready, metrics, logs as JSON, health for a probe."""

import contextlib
import io
import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

import nn
from mpc.parties import configuration, metrics
from mpc.transport.certificates import make_certificate
from nn.command import main
from tests.helpers.services import MODELS, PARTIES, ROOT, Services

X = np.random.default_rng(7).random((300, 64))
COMMAND = "from tests.helpers.programs import counting_kernels as run; run()"
OBSERVED = ["--metrics", "127.0.0.1:0", "--log", "json"]


class Observed(Services):
    """Services that write their log as JSON and have metrics."""

    def start(self, name):
        super().start(name, program=("-c", COMMAND), verbose=False)

    def _run(self, arguments, **options):
        return super()._run([*arguments, *OBSERVED], **options)

    def events(self, name):
        return [json.loads(line) for line in self.told(name).splitlines()]

    def metrics(self, name):
        """Return the values of a service's metrics, by name and labels."""
        (at,) = [each["at"] for each in self.events(name) if each["event"] == "metrics"]
        with urllib.request.urlopen(f"http://{at}/metrics", timeout=20) as answer:
            text = answer.read().decode()
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


def health(services, *more, me="alice"):
    """Return the exit code of `sotto health --json`, and what it writes."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = main(["health", str(services.path), "--me", me, "--json", *more])
    return code, json.loads(out.getvalue()) if code < 2 else out.getvalue()


def until(condition, patience=120):
    deadline = time.monotonic() + patience
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert condition()


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    folder = tmp_path_factory.mktemp("running")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOTTO_TEST_KERNELS", str(folder / "kernels"))
        models = {name: MODELS[name] for name in ("network", "pictures")}
        running = Observed(folder, models, workers=1)
        yield running
        assert not running.stop()


def test_no_kernel_is_wanted_for_the_first_time_after_ready(services):
    """They are compiled, or read from the cache, by then."""
    until(lambda: health(services)[0] == 0)
    _, told = health(services)
    assert (told["live"], told["ready"]) == (True, True)
    kernels = services.folder / "kernels"
    before = kernels.read_text().splitlines()
    assert {line.partition(" ")[0] for line in before} == {"provider", "alice", "bob"}
    for name in services.models:
        plain = MODELS[name][0]
        with nn.Client(services.path, me="carol", model=name) as client:
            for rows in (1, 2, 300):
                np.testing.assert_array_equal(client.predict(X[:rows]), plain.predict(X[:rows]))
                client.predict_one_hot(X[:rows])
                if "scores" in client.answers_:
                    client.decision_function(X[:rows])
    assert kernels.read_text().splitlines()[len(before) :] == []


def test_metrics_count_what_was_asked(services):
    with nn.Client(services.path, me="dora", model="network") as client:
        before = {name: services.metrics(name) for name in services.logs}
        for rows in (3, 4):
            client.predict(X[:rows])
        rounds, sent = client.last_cost()
        during = services.metrics("alice")
        assert during["sotto_clients",] == before["alice"]["sotto_clients",] >= 1
    after = dict(before)

    def grown(name, *key):
        which = key[0], *sorted(key[1:])
        return after[name].get(which, 0) - before[name].get(which, 0)

    def counted(name):
        """Whether both are counted, which is done after the answer; seconds of waiting come last."""
        after[name] = services.metrics(name)
        return grown(name, "sotto_request_seconds_count", "network", "waiting") == 2

    for name in PARTIES:
        until(lambda name=name: counted(name))
    after["provider"] = services.metrics("provider")
    for name in PARTIES:
        assert grown(name, "sotto_requests_total", "class", "dora", "network") == 2
        assert grown(name, "sotto_rows_total", "class", "dora", "network") == 7
        assert grown(name, "sotto_rounds_total", "network") == 2 * rounds
        assert sent < grown(name, "sotto_sent_bytes_total", "network") < 2 * sent
        for stage in ("computing", "waiting"):
            assert grown(name, "sotto_request_seconds_count", "network", stage) == 2
        assert grown(name, "sotto_requests_total", "class", "carol", "network") == 0
        assert after[name]["sotto_waiting",] == 0
    assert grown("provider", "sotto_corrections_total") > 2
    assert grown("provider", "sotto_correction_bytes_total") > 1000
    assert after["provider"]["sotto_sessions",] == 1
    for told in after.values():
        assert told["sotto_ready",] == 1
        assert told["process_resident_memory_bytes",] > 1e7
        for name in ("provider", *PARTIES, "carol"):
            assert 300 < told["sotto_certificate_days", name] < 10_000
    until(lambda: services.metrics("alice")["sotto_clients",] == 0)


def test_a_refusal_is_counted_by_its_kind(services):
    """Somebody without TLS is a warning, and so one of the errors."""
    before = services.metrics("alice").get(("sotto_errors_total", "refused"), 0)
    host, port = configuration.load(services.path).parties["alice"].address
    with socket.create_connection((host, port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
    key = "sotto_errors_total", "refused"
    until(lambda: services.metrics("alice").get(key) == before + 1)


def test_the_log_as_json_is_an_audit_trail_without_values(services):
    row = np.full((1, 64), 0.8125)
    with nn.Client(services.path, me="erin", model="pictures") as client:
        client.predict(row)
    for name in PARTIES:
        until(lambda name=name: any(e.get("client") == "erin" for e in services.events(name)))
        (line,) = [each for each in services.events(name) if each.get("client") == "erin"]
        assert (line["event"], line["model"], line["answer"]) == ("request", "pictures", "class")
        assert line["shape"] == "1x64" and line["level"] == "info"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", line["time"])
        # Names, counts and seconds; of the row nothing.
        assert set(line) == {
            "time", "level", "event", "id", "client", "model", "answer", "shape", "together",
            "rounds", "bytes", "waited", "seconds",
        }  # fmt: skip
        assert "0.8125" not in services.told(name)


def test_other_libraries_errors_are_told_by_their_type_alone(capsys):
    code = "import logging; from mpc.core.events import start_log; start_log(False, 'json')\n"
    code += "try: raise ValueError('secret')\n"
    code += "except ValueError: logging.getLogger('other').exception('it failed')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    (line,) = map(json.loads, done.stderr.splitlines())
    assert (line["event"], line["logger"], line["error"]) == ("message", "other", "ValueError")
    assert "secret" not in done.stderr


def test_what_is_computed_together_is_counted_once():
    registry = CollectorRegistry()
    counted = metrics.EventCounters(registry)
    for client in ("carol", "dora", "carol"):
        fields = {"model": "m", "answer": "class", "shape": "2x64", "client": client, "rounds": 12}
        counted.hear("request", False, {**fields, "together": 3, "bytes": 600, "seconds": 0.5})
    counted.hear("lost", True, {})
    counted.hear("unanswered", False, {})
    counted.hear("session", False, {})

    def value(name, **labels):
        return registry.get_sample_value(f"sotto_{name}_total", labels)

    assert value("rounds", model="m") == pytest.approx(12)
    assert value("sent_bytes", model="m") == pytest.approx(600)
    assert value("rows", model="m", answer="class", client="carol") == 4
    assert (value("errors", kind="lost"), value("errors", kind="unanswered")) == (1, 1)
    assert value("errors", kind="session") is None


@pytest.mark.parametrize(
    ("where", "told"), [("9100", "--metrics must be"), ("127.0.0.1:70000", "--metrics must be")]
)
def test_mistakes(services, capsys, where, told):
    assert main(["provider", str(services.path), "--metrics", where]) == 78
    assert told in capsys.readouterr().err


def test_a_place_for_metrics_that_is_taken(services, capsys):
    host, port = configuration.load(services.path).parties["alice"].address
    assert main(["provider", str(services.path), "--metrics", f"{host}:{port}"]) == 75
    assert f"cannot listen for metrics at {host}:{port}" in capsys.readouterr().err


def test_without_the_extra_the_command_says_so(services, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert main(["provider", str(services.path), "--metrics", "127.0.0.1:0"]) == 78
    assert "pip install 'sotto-mpc[metrics]'" in capsys.readouterr().err


def test_certificates_days_are_those_of_the_configuration_in_use(services):
    """Of a member's certificate and its successor the later; another file counts after SIGHUP."""
    text, trial = services.path.read_text(), services.path.parent
    make_certificate("carol", trial / "carol-2.crt", trial / "carol-2.key", days=1000)
    line = 'certificate = "carol.crt"'
    services.path.write_text(text.replace(line, f'{line}\nsuccessor = "carol-2.crt"'))
    for name in services.logs:
        assert services.metrics(name)["sotto_certificate_days", "carol"] < 400
        services.processes[name].send_signal(signal.SIGHUP)
        until(lambda name=name: services.metrics(name)["sotto_certificate_days", "carol"] > 900)
        assert services.metrics(name)["sotto_certificate_days", "bob"] < 400


def test_live_and_ready_are_two_things(services):
    assert health(services, "--of", "bob", me="carol")[1]["services"][0]["name"] == "bob"
    code, told = health(services, me="carol")
    assert code == 0 and told["services"][0]["live"] is None  # the provider answers no client
    code, told = health(services, "--of", "nobody")
    assert code == 2 and "--of must be one of provider, alice, bob" in told
    for name in services.logs:
        services.kill(name)
    services.start("alice")
    until(lambda: health(services, "--of", "alice", "--live", me="bob")[0] == 0)
    # It waits for bob: to start it again would help nobody.
    code, told = health(services, "--of", "alice", me="bob")
    assert (code, told["live"], told["ready"]) == (1, True, False)
    code, told = health(services, "--live", "--timeout", "5", me="bob")
    assert (code, told["live"], told["ready"]) == (1, False, False)
    assert {each["name"]: each["live"] for each in told["services"]} == {
        "provider": False, "alice": True, "bob": False,
    }  # fmt: skip
