"""What the benchmarks call their data."""

import pytest


@pytest.fixture
def loaded(monkeypatch):
    monkeypatch.syspath_prepend("benchmarks")
    import encrypted_mnist

    monkeypatch.setattr(encrypted_mnist.nn, "load_mnist", lambda *folder: ("data", *folder))
    return lambda name: encrypted_mnist.load(str(name), print)


def test_a_folder_of_idx_files_is_called_after_itself(tmp_path, loaded, monkeypatch):
    folder = tmp_path / "fashion"
    folder.mkdir()
    # A data home, from which scikit-learn gives MNIST itself.
    assert loaded(folder)[0] == "mnist"
    monkeypatch.setattr("encrypted_mnist.has_idx", lambda path: path == folder)
    assert loaded(folder) == ("the folder fashion", ("data", folder))
    assert loaded("mnist")[0] == "mnist"
