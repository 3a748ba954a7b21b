"""The README's example runs and prints what the README says; its figures come from the files."""

import re
import statistics
import warnings
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import mpc
import nn

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
MNIST = ROOT.parent / "shared" / "mnist"


def section(name):
    """Return the code block behind a marker."""
    text = README.read_text()
    found = re.search(rf"<!-- {name} -->\n```\w*\n(.*?)```\n<!-- end -->", text, re.DOTALL)
    assert found, f"README.md has no {name}"
    return found[1]


def test_example_with_digits(capsys):
    code = section("example")
    small = code.replace("load_mnist", "load_digits_8x8").replace("784, 128", "64, 64")
    assert small.count("digits") == 1
    assert small.count("64, 64") == 1
    names = {}
    exec(small, names)
    printed = float(capsys.readouterr().out)
    plain = names["model"].score(names["X_test"], names["y_test"])
    assert printed == plain
    assert printed > 0.9


def test_example_without_a_provider(capsys):
    code = section("example").replace("load_mnist", "load_digits_8x8").replace("784, 128", "64, 64")
    # As its comment says.
    assert "mpc.Session()" in code and "with provider=None alice and bob alone" in code
    names = {}
    exec(code.replace("mpc.Session()", "mpc.Session(provider=None)"), names)
    assert names["s"].source.own_shares
    printed = float(capsys.readouterr().out)
    assert printed == names["model"].score(names["X_test"], names["y_test"])


def test_example_with_mnist(capsys, monkeypatch):
    if not MNIST.is_dir():
        pytest.skip("needs the four MNIST files in ../shared/mnist")
    data = nn.load_mnist(MNIST)
    monkeypatch.setattr(nn, "load_mnist", lambda: data)
    names = {}
    exec(section("example"), names)
    printed = float(capsys.readouterr().out)
    assert printed == pytest.approx(float(section("output")), abs=0.004)
    assert printed >= 0.975
    # Within 0.1 percentage points of plain, on all 10,000 images.
    assert abs(printed - names["model"].score(data[1], data[3])) <= 0.001


def test_three_lines_from_a_fitted_network_to_a_private_prediction():
    code = section("scikit-learn")
    assert len(code.strip().splitlines()) == 3
    X, y = datasets.load_digits(return_X_y=True)
    X_train, X_test, y_train, _ = train_test_split(X, y, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier = MLPClassifier((32,), max_iter=40, random_state=0).fit(X_train, y_train)
    names = {"mpc": mpc, "nn": nn, "classifier": classifier, "X_train": X_train, "X_test": X_test}
    exec(code, names)
    assert (names["predicted"] == classifier.predict(X_test)).mean() >= 0.995


def test_each_party_runs_the_program_in_a_process_of_its_own(tmp_path, shell):
    commands = re.findall("`(sotto [^`]+)`", README.read_text())
    assert {"sotto init trial", "sotto provider"} <= set(commands)
    code = section("parties")
    (printed,) = re.findall(r"# (\S+), at both$", code, re.MULTILINE)
    (tmp_path / "program.py").write_text(code)
    done = shell("sotto init trial")
    assert done.returncode == 0, done.stderr
    shell("sotto provider trial/parties.toml &")
    done = shell(
        "cd trial; python ../program.py alice > alice.txt & python ../program.py bob > bob.txt; wait"
    )
    for party in ("alice", "bob"):
        assert (tmp_path / "trial" / f"{party}.txt").read_text() == f"{printed}\n", done.stderr


def test_figures_are_those_of_the_result_files(benchmark):
    publish = benchmark("publish")
    text = README.read_text()
    assert publish.with_figures(text) == text
    assert (ROOT / "benchmarks" / "RESULTS.md").read_text() == publish.results()
    text = (ROOT / "docs" / "scaling.md").read_text()
    assert publish.with_paper(text) == text
    text = (ROOT / "docs" / "running.md").read_text()
    assert publish.with_sizing(text) == text
    text = (ROOT / "docs" / "security-models.md").read_text()
    assert publish.with_security(text) == text


def test_training_reaches_what_is_asked_of_it(benchmark):
    training = benchmark("publish").read("training")
    assert training["images"] == 60_000
    assert training["layers"] == [784, 128, 128, 10]
    epochs = training["epochs"]
    assert len(epochs) <= 10
    assert max(e["encrypted_accuracy"] for e in epochs) >= 0.978
    for e in epochs:
        assert abs(e["plain_accuracy"] - e["encrypted_accuracy"]) <= 0.003
    text = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    for e in epochs:
        assert (
            f"| {e['epoch']} | {e['plain_accuracy']:.2%} | {e['encrypted_accuracy']:.2%} |" in text
        )
    assert "SecureNN | 15 | 93.4%" in text


def test_networks_reach_what_is_asked_of_them(benchmark):
    networks = benchmark("publish").read("networks")["networks"]
    asked = {  # accuracy, bytes that all parties send for an image
        "A": (0.978, 24e3), "B": (0.988, 450e3), "C": (0.990, 650e3), "D": (0.978, 60e3),
    }  # fmt: skip
    assert [n["network"] for n in networks] == list(asked)
    for n in networks:
        accuracy, sent = asked[n["network"]]
        assert n["images"] == 10_000
        assert n["plain_accuracy"] >= accuracy
        assert abs(n["plain_accuracy"] - n["encrypted_accuracy"]) <= 0.001
        assert n["single"]["bytes_sent"] <= sent
        assert n["batch"]["rows"] == n["memory"]["rows"] == 128
        assert n["memory"]["peak_bytes"] < 2e9
        if n["network"] == "A":
            continue
        assert n["training"]["rows"] == 6000
        for run in n["training"]["runs"]:
            assert abs(run["plain_accuracy"] - run["encrypted_accuracy"]) <= 0.005


def check_right_without_a_provider(found):
    assert found["provider"] is None
    assert found["agreement"] >= 0.999
    assert abs(found["plain_accuracy"] - found["encrypted_accuracy"]) <= 0.001


def test_the_digits_without_a_provider_are_right(benchmark):
    digits = benchmark("publish").read("main_alone")
    assert digits["data"] == "digits"
    check_right_without_a_provider(digits)


def test_networks_without_a_provider_are_right(benchmark):
    publish = benchmark("publish")
    if not (publish.FILES / "networks_alone.json").exists():
        pytest.skip("not measured: publish.py --run --only networks_alone")
    networks = publish.read("networks_alone")["networks"]
    assert [n["network"] for n in networks] == ["A", "B", "C", "D"]
    for network in networks:
        check_right_without_a_provider(network)


def test_a_stock_brings_two_parties_close_to_a_provider(benchmark):
    ratios = {
        batch["rows"]: statistics.median(batch["ratios"])
        for batch in benchmark("publish").read("stock")["batches"]
    }
    assert list(ratios) == [1, 128, 1000]
    assert ratios[1] <= 2.5
    assert ratios[1000] <= 1.5


def test_every_benchmark_can_be_published(benchmark):
    publish = benchmark("publish")
    for name in publish.BENCHMARKS:
        _, script, *options = publish.command(name, "somewhere", "elsewhere")
        if name in publish.PEERS_RUN:
            text = Path(script).read_text()
            for option in options:
                assert not option.startswith("--") or f'"{option}"' in text, option
        else:
            # Exits where an option is not known.
            assert benchmark(Path(script).stem).arguments(options).json
        assert ("somewhere" in options) == (
            name in ("main", "training", "training_seeds", "networks", "networks_alone")
        )
    with pytest.raises(KeyError):
        publish.command("other", "somewhere", None)


def test_commands_make_their_own_environments():
    for name in ("main command", "test command"):
        command = section(name).strip()
        assert "\n" not in command
        folder = re.match(r"python3 -m venv (\.venv\S*) && ", command)[1]
        assert command.count(f"{folder}/bin/") == 2


def test_it_is_three_screens_in_the_order_of_a_readers_questions():
    text = README.read_text()
    titles = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert titles == [
        "Try it", "What is protected, and from whom", "How fast", "On your own model",
        "Between two organisations", "More",
    ]  # fmt: skip
    # Markers are not seen; a screen has fifty lines.
    assert len([x for x in text.splitlines() if not x.startswith("<!--")]) <= 150
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / target).exists(), target


def test_fixed_names_are_there():
    import mpc
    import ring

    for module, names in (
        (ring, ("matmul", "encode", "decode")),
        (mpc, ("Session", "SharedArray", "split", "join")),
        (nn, ("MLP", "load_mnist", "one_hot")),
    ):
        for name in names:
            assert callable(getattr(module, name))
    product = ring.matmul(np.eye(2, dtype=np.uint64), np.ones((2, 1), np.uint64))
    assert product.tolist() == [[1], [1]]
