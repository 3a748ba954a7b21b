"""What is no sequence, no session, no model, or a folder for a file, is an error that says so."""

import numpy as np
import pytest

import mpc
import nn
from nn.layers import Embedding, Graph, Pad, Resize

MODEL = nn.MLP.from_parameters([np.eye(2), np.zeros(2)])

CASES = {
    "parameters": (lambda _: nn.MLP.from_parameters(3), "parameters must be a sequence, got 3"),
    "nodes": (lambda _: Graph(3), "nodes must be a sequence, got 3"),
    "text": (lambda _: Graph("x"), "nodes must be a sequence, got 'x'"),
    "a node": (lambda _: Graph([3]), "node 1 must be a layer and numbers of values, got 3"),
    "widths": (lambda _: Pad(2), "widths must be a sequence, got 2"),
    "three widths": (lambda _: Pad([(1, 2, 3)]), "widths must be pairs"),
    "a value": (lambda _: Pad([(1, 2)], "x"), "value must be a number, got 'x'"),
    "size": (lambda _: Resize(size=3), "size must be a sequence, got 3"),
    "a table": (lambda _: Embedding([["a"]]), "table must hold real numbers"),
    "no session": (lambda _: MODEL.share(None, "alice", low=0, high=1), "must be an mpc.Session"),
    "no session to load": (lambda path: nn.load_shares("x", path), "must be an mpc.Session"),
    "no model": (lambda path: nn.save_shares(MODEL, path), "must be a model on shares"),
    "a folder to load": (nn.load, "cannot be read: Is a directory"),
    "a folder to save": (MODEL.save, "cannot be written: it is a folder"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case, tmp_path):
    call, message = CASES[case]
    with pytest.raises(mpc.SottoError, match=message):
        call(tmp_path)


def test_columns_of_nothing():
    with mpc.Session() as s:
        secret_model = MODEL.share(s, owner="alice", low=0, high=1)
        with pytest.raises(mpc.DtypeError, match="parts must be a sequence, got None"):
            secret_model.join_columns(None)
        rows = secret_model.share_rows([[0.25, 0.5]], owner="bob")
        assert secret_model.predict(rows).tolist() == [1]


def test_a_table_may_be_a_list():
    assert Embedding([[1.0, 2.0]])(np.array([[0]])).tolist() == [[[1.0, 2.0]]]
