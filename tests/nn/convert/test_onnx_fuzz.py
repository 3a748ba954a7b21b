"""Random ONNX graphs: each agrees with the reference evaluator, in the clear and on shares, or is refused.

A graph has up to twelve nodes, drawn from operators with several inputs, with axes that move, and with
layers, and from functions that are spelled out along any axis. A few graphs are made in every run;
SOTTO_GRAPHS says how many, SOTTO_SEED draws others.
"""

import os

import numpy as np
import pytest

import mpc
import nn
from nn.convert.from_sklearn import ConversionError
from ring.errors import RangeError

onnx = pytest.importorskip("onnx", reason="needs the onnx package, of the extra sotto-mpc[onnx]")

from tests.nn.convert.test_onnx_graphs import build, reference  # noqa: E402

GRAPHS = int(os.environ.get("SOTTO_GRAPHS", 24))
SEED = int(os.environ.get("SOTTO_SEED", 0))


class Drawn:
    """A random graph: lines for `build`, constants, and the shape of a row of every value."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)
        self.lines, self.constants = [], {}
        self.shapes = {
            "x": tuple(int(n) for n in self.random.integers(2, 5, self.random.integers(1, 4)))
        }
        self.input = self.shapes["x"]
        for _ in range(self.random.integers(3, 13)):
            self.draw()

    def constant(self, values):
        name = f"c{len(self.constants)}"
        self.constants[name] = values
        return name

    def normal(self, *shape):
        return self.constant((self.random.normal(size=shape) / 2).astype(np.float32))

    def pick(self, *fits):
        """Return the name of a value, a late one more likely than an early one."""
        names = [n for n, s in self.shapes.items() if all(fit(s) for fit in fits)]
        return (
            names[min(len(names) - 1, int(len(names) * self.random.random() ** 0.5))]
            if names
            else None
        )

    def add(self, line, shape, **attributes):
        name = f"v{len(self.lines)}"
        self.lines.append((f"{line} -> {name}", attributes))
        self.shapes[name] = tuple(shape)

    def draw(self):
        kinds = [getattr(self, name) for name in dir(self) if name.startswith("draw_")]
        kinds[self.random.integers(len(kinds))]()

    def draw_layer(self):
        x = self.pick()
        shape, outputs = self.shapes[x], int(self.random.integers(2, 5))
        self.add(f"MatMul {x} {self.normal(shape[-1], outputs)}", (*shape[:-1], outputs))

    def draw_activation(self):
        x = self.pick()
        self.add(f"{self.random.choice(['Relu', 'Tanh', 'Sigmoid', 'Neg'])} {x}", self.shapes[x])

    def draw_scale(self):
        x = self.pick()
        shape = [n if self.random.random() < 0.6 else 1 for n in self.shapes[x]]
        other = self.normal(*shape[self.random.integers(len(shape)) :])
        self.add(f"{self.random.choice(['Mul', 'Add', 'Sub'])} {x} {other}", self.shapes[x])

    def draw_pair(self):
        x = self.pick()
        y = self.pick(lambda s: len(s) == len(self.shapes[x]), lambda s: all(
            a == b or 1 in (a, b) for a, b in zip(s, self.shapes[x], strict=True)
        ))  # fmt: skip
        shape = np.broadcast_shapes(self.shapes[x], self.shapes[y])
        op = self.random.choice(["Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean"])
        if op == "Mean" and self.shapes[x] != shape:  # the evaluator's does not broadcast its first
            op = "Sum"
        self.add(f"{op} {x} {y}", shape)

    def draw_concat(self):
        x = self.pick()
        shape = self.shapes[x]
        axis = int(self.random.integers(len(shape)))
        rest = (*shape[:axis], *shape[axis + 1 :])
        y = self.pick(lambda s: len(s) == len(shape) and (*s[:axis], *s[axis + 1 :]) == rest)
        whole = (*shape[:axis], shape[axis] + self.shapes[y][axis], *shape[axis + 1 :])
        self.add(f"Concat {x} {y}", whole, axis=axis + 1)

    def draw_transpose(self):
        x = self.pick()
        order = [int(k) for k in self.random.permutation(len(self.shapes[x]))]
        self.add(
            f"Transpose {x}", [self.shapes[x][k] for k in order], perm=[0, *(k + 1 for k in order)]
        )

    def draw_reshape(self):
        x = self.pick()
        size, shape = int(np.prod(self.shapes[x])), []
        while size > 1 and len(shape) < 3:
            factors = [n for n in range(2, size + 1) if size % n == 0]
            shape.append(int(self.random.choice(factors)))
            size //= shape[-1]
        shape = [*shape, size] if size > 1 or not shape else shape
        self.add(f"Reshape {x} {self.constant(np.array([-1, *shape]))}", shape)

    def draw_slice(self):
        x = self.pick(lambda s: max(s) > 1)
        if x is None:
            return
        shape = list(self.shapes[x])
        axis = int(np.argmax(shape))
        taken = range(shape[axis])[:: int(self.random.choice([-1, 2]))]
        shape[axis] = len(taken)
        indices = self.constant(np.array(list(taken)))
        self.add(f"Gather {x} {indices}", shape, axis=axis + 1)

    def node(self, line, **attributes):
        """Add a node whose output nothing else takes; return its name."""
        name = f"i{len(self.lines)}"
        self.lines.append((f"{line} -> {name}", attributes))
        return name

    def reduced(self, op, x, axis):
        """Reduce an axis that stays, with size 1, by one of the ways of exporters."""
        axes = self.constant(np.array([axis]))
        if self.random.random() < 0.5:
            return self.node(f"{op} {x} {axes}", keepdims=1)
        return self.node(f"Unsqueeze {self.node(f'{op} {x} {axes}', keepdims=0)} {axes}")

    def draw_softmax(self):
        x = self.pick()
        axis, other = (int(k) + 1 for k in self.random.integers(len(self.shapes[x]), size=2))
        axis_of_sum = axis if self.random.random() < 0.8 else other
        most = self.reduced("ReduceMax", x, axis)
        power = self.node(f"Exp {self.node(f'Sub {x} {most}')}")
        self.add(f"Div {power} {self.reduced('ReduceSum', power, axis_of_sum)}", self.shapes[x])

    def draw_norm(self):
        x = self.pick()
        axis, other = (int(k) + 1 for k in self.random.integers(len(self.shapes[x]), size=2))
        axis_of_squares = axis if self.random.random() < 0.8 else other
        apart = self.node(f"Sub {x} {self.reduced('ReduceMean', x, axis)}")
        squares = self.reduced("ReduceMean", self.node(f"Mul {apart} {apart}"), axis_of_squares)
        least = self.constant(np.float32(0.1))
        root = self.node(f"Sqrt {self.node(f'Add {squares} {least}')}")
        self.add(f"Div {apart} {root}", self.shapes[x])

    def draw_product(self):
        x = self.pick(lambda s: len(s) >= 2)
        if x is None:
            return
        shape = self.shapes[x]
        y = self.pick(
            lambda s: len(s) == len(shape) and s[:-2] == shape[:-2] and s[-2] == shape[-1]
        )
        if y is not None:
            self.add(f"MatMul {x} {y}", (*shape[:-1], self.shapes[y][-1]))

    def draw_diagonal(self):
        x = self.pick(lambda s: len(s) >= 2, lambda s: s[-1] == s[-2])
        if x is not None:
            shape = self.shapes[x]
            equation = "...ii->...i" if len(shape) > 2 else "bii->bi"
            self.add(f"Einsum {x}", shape[:-1], equation=equation)

    def draw_triangle(self):
        x = self.pick(lambda s: len(s) >= 2)
        if x is not None:
            shift = self.constant(np.array(int(self.random.integers(-1, 2))))
            self.add(f"Trilu {x} {shift}", self.shapes[x], upper=int(self.random.integers(2)))

    def draw_reduction(self):
        x = self.pick()
        axis = int(self.random.integers(len(self.shapes[x])))
        op = self.random.choice(["ReduceProd", "ReduceLogSumExp", "ReduceMin", "ReduceSumSquare"])
        shape = list(self.shapes[x])
        shape[axis] = 1
        self.add(f"{op} {x} {self.constant(np.array([axis + 1]))}", shape, keepdims=1)

    def draw_function(self):
        x = self.pick()
        op, options = [
            ("Sin", {}), ("Cos", {}), ("Elu", {"alpha": 0.03}), ("Selu", {"alpha": 0.5, "gamma": 1.5}),
            ("Softplus", {}),
        ][self.random.integers(5)]  # fmt: skip
        self.add(f"{op} {x}", self.shapes[x], **options)

    def model(self):
        last = list(self.shapes)[-1]
        model = build(self.lines, last, {"x": ("n", *self.input)}, **self.constants)
        # Without what the last value does not depend on.
        needed, kept = {last}, []
        for node in reversed(model.graph.node):
            if needed & set(node.output):
                needed |= set(node.input)
                kept.insert(0, node)
        del model.graph.node[:]
        model.graph.node.extend(kept)
        constants = [c for c in model.graph.initializer if c.name in needed]
        del model.graph.initializer[:]
        model.graph.initializer.extend(constants)
        return model


def agrees(seed):
    """Compare a random graph; return "agrees" or why it is refused."""
    drawn = Drawn(seed)
    if not drawn.lines:
        return "empty"
    model = drawn.model()
    x = drawn.random.uniform(-1, 1, size=(3, *drawn.input)).astype(np.float32)
    (want,) = reference.ReferenceEvaluator(model).run(None, {"x": x})
    try:
        made = nn.from_onnx(model)
    except ConversionError as error:
        return "no layer" if "must have a layer" in str(error) else f"seed {seed}: {error}"
    X, scale = x.reshape(3, -1).astype(np.float64), max(1.0, float(np.abs(want).max()))
    ends_in_softmax = hasattr(made, "classes_")
    plain = (made.predict_proba if ends_in_softmax else made.predict)(X).reshape(want.shape)
    np.testing.assert_allclose(plain, want, atol=1e-4 * scale, err_msg=f"seed {seed}")
    made.input_range_ = (-1.0, 1.0)
    with mpc.Session(frac_bits=20) as s:
        try:
            secret = made.share(s, owner="alice")
        except RangeError:
            return "range"
        found = secret(secret.share_rows(X, owner="bob")).reveal().reshape(want.shape)
    if ends_in_softmax:
        plain = made.decision_function(X)
    np.testing.assert_allclose(found, plain, atol=2e-3 * scale, err_msg=f"seed {seed}")
    return "agrees"


def test_random_graphs_agree_or_are_refused():
    found = [agrees(seed) for seed in range(SEED, SEED + GRAPHS)]
    print({kind: found.count(kind) for kind in sorted(set(found))})
    assert set(found) <= {"agrees", "empty", "no layer", "range"}
    assert found.count("agrees") > GRAPHS // 2
