"""Models in parties.toml: what is read, what is refused, and what a change leaves alone."""

import fcntl
import os
import stat
import threading
import time
import tomllib

import pytest

import mpc
from mpc.parties import configuration
from mpc.parties.model_table import set_folder
from mpc.parties.toml_text import replace_file


@pytest.fixture
def path(tmp_path):
    return configuration.write_example(tmp_path / "trial", ("alice", "bob"), ("carol", "dora"))


def folders(path, party="alice"):
    return dict(configuration.load(path).parties[party].folders)


def test_each_party_has_its_own_models(path):
    place, elsewhere = path.parent, path.parent.parent / "x y"
    assert folders(path) == {}
    set_folder(path, "alice", "network", place / "shares")
    set_folder(path, "alice", 'a "b" [c] # d', elsewhere)
    set_folder(path, "bob", "network", elsewhere)
    assert folders(path) == {"network": place / "shares", 'a "b" [c] # d': elsewhere}
    assert folders(path, "bob") == {"network": elsewhere}
    # From its own place, so that the whole folder can be moved.
    assert 'network" = "shares"' in path.read_text()
    set_folder(path, "alice", "network", elsewhere)
    assert folders(path)["network"] == elsewhere
    set_folder(path, "alice", 'a "b" [c] # d', None)
    set_folder(path, "alice", "network", None)
    assert folders(path) == {} and folders(path, "bob") == {"network": elsewhere}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("last", ["", "\n", "\n# the end"])
def test_comments_and_layout_stay_and_undo_gives_every_byte_back(path, end, mark, last):
    text = (
        mark + path.read_text() + "\n[parties.alice.models]\n# ours\nold = 'o'  # kept\n"
    ).rstrip()
    before = (text + last).replace("\n", end).encode()
    path.write_bytes(before)
    path.chmod(0o640)
    undo = set_folder(path, "alice", "new", path.parent / "n")
    after = path.read_bytes()
    assert folders(path) == {"old": path.parent / "o", "new": path.parent / "n"}
    added = b'"new" = "n"' + end.encode()
    assert after.count(added) == 1
    assert after.replace(added, b"").strip() == before.strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    undo()
    assert path.read_bytes() == before
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert not [p for p in path.parent.iterdir() if p.name.endswith(".part")]


@pytest.mark.parametrize(
    "layout",
    ['models = {network = "a"}', 'models.network = "a"', 'models.network = """\na"""'],
)
def test_a_layout_that_cannot_be_changed_is_left_and_said(path, layout):
    text = path.read_text().replace("[parties.alice]", f"[parties.alice]\n{layout}")
    path.write_text(text)
    for name, folder in (("network", path.parent / "b"), ("other", path.parent), ("network", None)):
        with pytest.raises(mpc.ConfigurationError, match="laid out in a way.*yourself"):
            set_folder(path, "alice", name, folder)
        assert path.read_text() == text


def test_what_is_not_there_cannot_be_taken_out(path):
    before = path.read_bytes()
    with pytest.raises(mpc.ConfigurationError, match="has no 'network', only no model"):
        set_folder(path, "alice", "network", None)
    assert path.read_bytes() == before


def test_undo_overwrites_nobody_elses_change(path):
    undo = set_folder(path, "alice", "network", path.parent)
    changed = path.read_text() + "# by somebody else\n"
    path.write_text(changed)
    with pytest.raises(mpc.ConfigurationError, match="has changed meanwhile"):
        undo()
    assert path.read_text() == changed


def test_a_file_that_cannot_be_written_is_as_it_was(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(mpc.ConfigurationError, match="cannot be written: No space left"):
        set_folder(path, "alice", "network", path.parent)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert not [p for p in path.parent.iterdir() if p.name.endswith(".part")]


@pytest.mark.parametrize(
    ("table", "value", "told"),
    [
        ("parties.alice", 'models = ["a"]', "models of a party must be a table of folders"),
        ("parties.alice", "models = {a = 1}", "a must be a folder, a string, got 1"),
        ("parties.alice", 'models = {a = ""}', "a must be a folder, a string, got ''"),
        ("parties.alice", 'models = {"a=b" = "x"}', "a model's name must have"),
        ("parties.alice", 'models = {"" = "x"}', "a model's name must have"),
        ("clients.carol", 'models = "a"', "models must be a list of names, got 'a'"),
        ("clients.carol", "models = [1]", "models must be a list of names"),
        ("clients.carol", 'models = ["a\\nb"]', "a model's name must have"),
        ("clients.carol", 'models = {a = "x"}', "models must be a list of names"),
        ("provider", 'models = ["a"]', "no 'models' goes here"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(path, table, value, told):
    text = path.read_text().replace(f"[{table}]", f"[{table}]\n{value}")
    path.write_text(text)
    with pytest.raises(mpc.ConfigurationError, match=told) as caught:
        configuration.load(path)
    assert f"line {text.splitlines().index(value) + 1}:" in str(caught.value)


def test_what_is_wrong_in_a_table_of_its_own_is_named_with_its_line(path):
    text = path.read_text() + "\n[parties.alice.models]\na = 'x'\nb = 1\n"
    path.write_text(text)
    with pytest.raises(mpc.ConfigurationError, match=f"line {len(text.splitlines())}: b must be a"):
        configuration.load(path)


def test_a_client_may_ask_for_all_models_unless_there_is_a_list(path):
    path.write_text(
        path.read_text().replace("[clients.dora]", '[clients.dora]\nmodels = ["a", "b"]')
    )
    read = configuration.load(path)
    assert read.clients["carol"].models is None
    assert read.clients["dora"].models == ("a", "b")
    assert tomllib.loads(path.read_text())


def test_two_commands_at_once_do_not_lose_what_the_other_wrote(tmp_path):
    """The second one compares only after the first has let go of the folder, and is refused."""
    path, problems = tmp_path / "parties.toml", []
    path.write_bytes(b"before")

    def second():
        try:
            replace_file(path, b"before", b"second")
        except mpc.ConfigurationError as error:
            problems.append(str(error))

    thread = threading.Thread(target=second)
    folder = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    try:
        thread.start()
        # It is ready to replace the file, and waits; one that did not would end.
        while thread.is_alive() and not list(tmp_path.glob("*.part")):
            time.sleep(0.01)
        thread.join(0.3)
        path.write_bytes(b"first")
    finally:
        os.close(folder)
    thread.join()
    assert problems == [f"{path} has changed meanwhile: try again"]
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]
