"""ONNX graphs of feed-forward networks and linear models as plain models.

The nodes are converted one by one, in the order of the graph. ONNX's own reference evaluator computes
the values that do not depend on the graph's input. The others are represented by
:mod:`nn.convert.onnx_values`: layers that end in an affine map, into which scalers, biases and reshapes
are folded, and probabilities or labels made from them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nn.convert.from_sklearn import ConversionError
from nn.convert.graph_whole import BOOL, FLOATS
from nn.convert.knowing_rows import knowing
from nn.convert.learned_graphs import learned_model, needed_nodes
from nn.convert.onnx_graph import RANDOM, check_reals, graph_model
from nn.convert.onnx_operators import operators
from nn.convert.onnx_values import Images, Labels, Probabilities, Rows, Sizes, Value, as_rows
from nn.core.checks import integer, side_by_side
from nn.layers import Trees
from nn.layers.activations import Sigmoid
from nn.models.heads import HeadsModel
from nn.models.predictors import Classifier, Regressor
from ring.errors import ArgumentError, DataError, DtypeError, ShapeError
from ring.real_arrays import plain_array, real_array

__all__ = ["from_onnx"]

Model = TypeVar("Model", Classifier, Regressor, HeadsModel, Classifier | Regressor | HeadsModel)

# The oldest version of the standard operators that has the meaning of nn.convert.onnx_operators.
_OLDEST_OPSET = 9
# Operators that move elements of their first input (Concat: of all inputs) and compute nothing.
_PLACING = ("Cast", "Concat", "Gather", "Identity", "Slice", "Squeeze", "Unsqueeze")
# ONNX numbers of the types of integers; and the operators that take integers and return floats.
_INTEGERS = (2, 3, 4, 5, 6, 7, 12, 13)
_FROM_INTEGERS = (
    "Cast",
    "Equal",
    "Gather",
    "LinearClassifier",
    "LinearRegressor",
    "Scaler",
    "Shape",
    "TreeEnsemble",
    "TreeEnsembleClassifier",
    "TreeEnsembleRegressor",
)
_MOVING = (
    "Concat", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose",
    "Unsqueeze",
)  # fmt: skip


def from_onnx(
    model: Any,
    X: Any = None,
    *,
    classes: ArrayLike | None = None,
    shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] | None = None,
    secret_features: bool = False,
) -> Classifier | Regressor | HeadsModel:
    """Read a network, a linear model or trees from ONNX, as skl2onnx and PyTorch export them.

    Needs the extra ``sotto-mpc[onnx]``.

    Parameters
    ----------
    model : path or onnx.ModelProto
        The first axis of each input and output counts rows. A row of the model has the elements of
        a row of the input, flattened in row-major order, of several inputs one after the other.
    X : array_like of shape (rows, features) or (rows, ...), or dict of str to array_like, optional
        Rows like those to predict, for the range of the inputs, as for :func:`nn.from_sklearn`, and
        for a deep network's limits, as by ``calibrate``; of several inputs by their names. Images
        have one range a channel.
    classes : array_like of shape (classes,), optional
        The labels in ascending order, for a graph that ends in scores, without softmax or argmax.
        Without any of the three the model is a regressor. With two classes, one output behind a
        sigmoid is the probability of the second.
    shape : sequence of int, or mapping of str to it, optional
        Sizes of a row of the input, without the axis of the rows, where the graph leaves some open;
        of several inputs by their names.
    outputs : sequence of str, optional
        Names of the graph's outputs that count, such as the labels of a support vector machine without
        its scores. Default: all.
    secret_features : bool, default=False
        Whether trees hide which feature each node compares, as for :func:`nn.from_sklearn`.

    Returns
    -------
    Classifier, Regressor or HeadsModel
        In float64. With several outputs a HeadsModel, which gives them by name. A softmax at the
        end, also one spelled out in several nodes, is its ``predict_proba``, a log-softmax its
        ``predict_log_proba``.

    Raises
    ------
    ConversionError
        If operators, uses of them or a version cannot be converted; the message names every such
        node and why.
    DataError
        If the file is no ONNX model.
    DtypeError
        If `model` is neither a path nor a ModelProto, `X` is no array of reals, or `secret_features` is
        not True or False.
    ShapeError, RangeError
        If `X` does not fit the model.
    ArgumentError
        If `outputs` names none of the graph's outputs, or another one.
    ImportError
        If onnx is not installed.

    Examples
    --------
    >>> import nn, numpy as np
    >>> from onnx import TensorProto, helper, numpy_helper
    >>> weights = numpy_helper.from_array(np.array([[1.0, -1.0]], np.float32), "weights")
    >>> node = helper.make_node("MatMul", ["x", "weights"], ["scores"])
    >>> x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 1])
    >>> scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["rows", 2])
    >>> graph = helper.make_graph([node], "linear", [x], [scores], [weights])
    >>> opset = helper.make_opsetid("", 18)
    >>> model = nn.from_onnx(helper.make_model(graph, opset_imports=[opset]), classes=["down", "up"])
    >>> model.predict([[2.0], [-1.0]]).tolist()
    ['down', 'up']
    """
    if not isinstance(secret_features, (bool, np.bool_)):
        raise DtypeError(f"secret_features must be True or False, got {secret_features!r}")
    onnx = _onnx()
    graph, opsets = _load(onnx, model)
    graph = _with_outputs(graph, outputs)
    arrays = {a.name: onnx.numpy_helper.to_array(a) for a in graph.initializer}
    inputs = [value for value in graph.input if value.name not in arrays]
    if not inputs:
        raise ConversionError("the graph must have an input, got none")
    check_reals(graph, [value.name for value in inputs])
    given = shape if isinstance(shape, Mapping) else {inputs[0].name: shape}
    shapes = _input_shapes(inputs, given)
    made: Classifier | Regressor | HeadsModel
    try:
        for value in inputs:
            _check_integers(graph, value)
        made = _chain(onnx, graph, opsets, shapes, arrays, classes)
    except ConversionError as error:
        if any(node.domain == "ai.onnx.ml" for node in graph.node):
            for value in inputs:
                _check_integers(graph, value)
            made = learned_model(
                onnx, graph, opsets, shapes, classes, _constants, secret_features=secret_features
            )
            return _with_rows(made, X)
        try:
            made = graph_model(onnx, graph, opsets, shapes, classes, _constants)
        except ConversionError as other:
            raise other from error
    return _with_rows(made, X)


def _with_rows(made: Model, X: Any) -> Model:
    """Return a model that knows of rows like those to predict, if there are any."""
    if X is not None:
        flat = {n: _as_matrix(v) for n, v in X.items()} if isinstance(X, dict) else _as_matrix(X)
        made.take_rows(flat)
        if any(isinstance(layer, Trees) for layer in made.layers):
            rows = side_by_side(flat, made.inputs_) if isinstance(flat, dict) else flat
            made.layers = knowing(made.layers, np.asarray(real_array(rows, "X"), np.float64))
    return made


def _with_outputs(graph: Any, outputs: Sequence[str] | None) -> Any:
    """Return a graph with some of its outputs or all, and the nodes that they need."""
    named = {output.name: output for output in graph.output}
    wanted = [outputs] if isinstance(outputs, str) else list(named if outputs is None else outputs)
    unknown = [name for name in wanted if name not in named]
    if outputs is not None and (unknown or not wanted):
        raise ArgumentError(f"outputs must be among {', '.join(named)}, got {outputs!r}")
    nodes = needed_nodes(graph, wanted)
    made, needed = (sum(len(node.output) for node in all_) for all_ in (graph.node, nodes))
    if wanted == list(named) and made == needed:
        return graph
    found = type(graph)()
    found.CopyFrom(graph)
    del found.output[:], found.node[:]
    found.output.extend(named[name] for name in wanted)
    found.node.extend(nodes)
    return found


def _as_matrix(X: Any) -> Any:
    """Return an array of rows with several axes as a matrix."""
    return X.reshape((len(X), -1)) if len(getattr(X, "shape", ())) > 2 and len(X) else X


def _chain(
    onnx: Any,
    graph: Any,
    opsets: Any,
    shapes: dict[str, tuple[int, ...]],
    values: dict[str, Value],
    classes: ArrayLike | None,
) -> Classifier | Regressor:
    """Return the model of a graph in which every layer takes the output of the one before it."""
    if len(shapes) != 1:
        raise ConversionError(f"the graph must have one input, got {list(shapes)}")
    ((name, shape),) = shapes.items()
    size = prod(shape[1:])
    rows = Rows((), size, None, np.zeros(size), tuple(shape[1:]), shape[0] or -1)
    values[name] = rows
    for node in graph.node:
        _run(onnx, opsets, node, values)
    names = [output.name for output in graph.output if output.name]
    lost = [name for name in names if name not in values]
    if lost:
        raise ConversionError(
            f"the graph must have no outputs that are not converted, got {', '.join(lost)}; keep the"
            " others, as by onnx.utils.extract_model"
        )
    return _model_of({name: values[name] for name in names}, rows.width, classes)


def _onnx() -> Any:
    try:
        import onnx
        import onnx.numpy_helper
        import onnx.reference
    except ImportError:
        raise ImportError(
            "reading ONNX models needs the onnx package: pip install 'sotto-mpc[onnx]'"
        ) from None
    return onnx


def _load(onnx: Any, model: Any) -> tuple[Any, Any]:
    """Return the checked graph of a model, and the versions of its operators."""
    if isinstance(model, (str, os.PathLike)):
        from google.protobuf.message import DecodeError

        try:
            model = onnx.load(model)
        except (DecodeError, ValueError) as error:
            raise DataError(f"{os.fspath(model)} is no ONNX model: {error}") from None
    if not isinstance(model, onnx.ModelProto):
        raise DtypeError(f"model must be a path or an onnx.ModelProto, got {type(model).__name__}")
    newest = onnx.defs.onnx_opset_version()
    for opset in model.opset_import:
        if opset.domain in ("", "ai.onnx") and not _OLDEST_OPSET <= opset.version <= newest:
            raise ConversionError(
                f"operators must be of a version from {_OLDEST_OPSET} to {newest}, the newest that "
                f"the installed onnx knows, got {opset.version}"
            )
    if model.functions:
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    if not model.graph.output:
        raise DataError("the ONNX model has no output: not a model, or cut short")
    return model.graph, model.opset_import


def _check_integers(graph: Any, value: Any) -> None:
    """Raise ConversionError for an input of integers that more is done with than a chain of layers does."""
    if value.type.tensor_type.elem_type in FLOATS:
        return
    # Division and overflow of integers differ from those of floats; the outputs of these operators are
    # floats.
    other = _takers_of_integers(graph, value.name)
    if other:
        raise ConversionError(
            f"input {value.name!r} must hold floats, or whole numbers that go into"
            f" {', '.join(_FROM_INTEGERS)} alone, got {other[0]}"
        )


def _input_shapes(
    inputs: Sequence[Any], given: Mapping[str, Sequence[int] | None]
) -> dict[str, tuple[int, ...]]:
    """Return the sizes of the inputs by name; an error names all that cannot be converted."""
    shapes, problems = {}, []
    for value in inputs:
        try:
            shapes[value.name] = _input_shape(value, given.get(value.name))
        except ConversionError as error:
            problems.append(str(error))
    if problems:
        raise ConversionError("; ".join(problems))
    return shapes


def _input_shape(value: Any, row: Sequence[int] | None) -> tuple[int, ...]:
    """Return the sizes of an input, 0 for an open number of rows, after checking them and its type."""
    kind = value.type.tensor_type.elem_type
    if kind not in (*FLOATS, *_INTEGERS, BOOL):
        raise ConversionError(
            f"input {value.name!r} must hold floats, whole numbers or truth values, got element type {kind}"
        )
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if row is not None:
        wanted = [integer(f"shape[{k}]", n, 1) for k, n in enumerate(row)]
        # Where the graph leaves open how many axes there are, too, rows are counted by the first.
        shape = shape or [0] * (len(wanted) + 1)
        fits = [n in (0, size) for n, size in zip(shape[1:], wanted, strict=False)]
        if len(wanted) != len(shape) - 1 or not all(fits):
            raise ShapeError(
                f"shape must fit the input {value.name!r}, whose rows have the shape {shape[1:]} with 0"
                f" for open sizes, got {tuple(row)}"
            )
        shape[1:] = wanted
    if len(shape) < 2 or min(shape[1:]) < 1:
        raise ConversionError(
            f"input {value.name!r} must have a first axis of rows and known sizes behind it, got "
            f"{[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]}; shape= gives"
            " those that are open"
        )
    return tuple(shape)


def _takers_of_integers(graph: Any, name: str) -> list[str]:
    """Return the operators that compute with an input of integers, other than those that may."""
    whole, other = {name}, []
    for node in graph.node:
        if not whole & set(node.input):
            continue
        if node.op_type in _MOVING:
            whole |= set(node.output)
        elif node.op_type not in _FROM_INTEGERS:
            other.append(node.op_type)
    return other


def _model_of(
    named: dict[str, Value], features: int, classes: ArrayLike | None
) -> Classifier | Regressor:
    """Return the model of a graph's outputs, given by name."""
    outputs = {n: as_rows(v) if isinstance(v, Images) else v for n, v in named.items()}
    labels = next((v for v in outputs.values() if isinstance(v, Labels)), None)
    odds = next((v for v in outputs.values() if isinstance(v, Probabilities)), None)
    plain = next((v for v in outputs.values() if isinstance(v, Rows)), None)
    found = labels or odds or plain
    if found is None:
        raise ConversionError("the graph's outputs must depend on its input")
    rows = found if isinstance(found, Rows) else found.rows
    link = odds.link if odds is not None else None
    # One model must have all outputs: labels, probabilities and scores made from the same Rows.
    for name, value in outputs.items():
        theirs = value.rows if isinstance(value, (Labels, Probabilities)) else value
        kind = next(v for v in (labels, odds, plain, value) if type(v) is type(value))
        if theirs is not rows or not _alike(value, kind):
            raise ConversionError(
                f"the graph must have one result, or labels with their scores, got the outputs"
                f" {', '.join(outputs)}, of which {name} is another; keep one of them, as by"
                " onnx.utils.extract_model"
            )
    if link == "sigmoids":
        raise ConversionError(
            "the graph's probabilities must sum to 1, got sigmoids of the scores as they are: put a"
            " Normalizer with norm L1 behind the LinearClassifier, or keep its labels alone, as by"
            " onnx.utils.extract_model"
        )
    one = labels is None and odds is None and classes is not None and np.size(classes) == 2
    rows, sigmoid = _without_sigmoid(rows, one)
    link = "softmax" if sigmoid else link
    layers = rows.layers()
    if not layers:
        raise ConversionError("the graph must have a layer between its input and its output")
    names = labels.classes if labels is not None else None
    columns = odds.classes if odds is not None else None
    if names is not None and columns is not None and not np.array_equal(names, columns):
        if set(names.tolist()) == set(columns.tolist()):
            raise ConversionError(
                "labels and columns of probabilities must be in the same order, got"
                f" {names.tolist()} and {columns.tolist()}"
            )
    if labels is None and odds is not None:
        names = odds.classes
    if labels is None and odds is None and classes is None:
        return Regressor(layers, features, flat=rows.shape == ())
    if classes is not None:
        names = plain_array(classes, "classes")
        link = "softmax" if labels is None and odds is None else link
    if names is None:
        names = np.arange(prod(rows.shape))
    return Classifier(layers, names, features, link=link)


def _alike(value: Any, other: Any) -> bool:
    """Return whether two outputs that are made from the same Rows are equal."""
    if isinstance(value, Rows):
        return value is other
    names = value.classes is other.classes or np.array_equal(value.classes, other.classes)
    return names and getattr(value, "link", None) == getattr(other, "link", None)


def _without_sigmoid(rows: Rows, one: bool) -> tuple[Rows, bool]:
    """Return scores (0, z) for probabilities (1 - p, p) with p = sigmoid(z), and whether they were.

    With `one` also for p alone.
    """
    last = rows.core[-1] if rows.core else None
    both = rows.weights is not None and np.array_equal(rows.weights, [[-1.0, 1.0]])
    both = both and np.array_equal(rows.bias, [1.0, 0.0])
    alone = one and rows.weights is None and rows.width == 1 and not rows.bias.any()
    if not isinstance(last, Sigmoid) or not (both or alone):
        return rows, False
    core = rows.core[:-1]
    before = Rows(core, 1, None, np.zeros(1), (1,))
    if core and core[-1].parameters:
        weights, bias = core[-1].parameters
        before = Rows(core[:-1], weights.shape[0], weights, bias, (1,))
    return before.then(np.array([[0.0, 1.0]]), np.zeros(2)), True


def _constants(onnx: Any, opsets: Any, node: Any, given: dict[str, Any]) -> Any:
    """Return the outputs of a node, given the arrays of all its inputs."""
    helper = onnx.helper
    if node.op_type == "DequantizeLinear":  # of weights; the evaluator has no version before this
        version = max(19, next(o.version for o in opsets if o.domain in ("", "ai.onnx")))
        opsets = [helper.make_opsetid("", version)]
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in given.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    model = helper.make_model(
        helper.make_graph([node], "constant", inputs, outputs), opset_imports=opsets
    )
    return onnx.reference.ReferenceEvaluator(model).run(None, given)


def _computed(
    onnx: Any, opsets: Any, node: Any, given: dict[str, Any]
) -> dict[str, NDArray[Any] | Sizes]:
    """Return a node's outputs by name, as Sizes where they depend on the number of rows."""
    arrays = {n: v.array if isinstance(v, Sizes) else v for n, v in given.items()}
    results = [np.asarray(v) for v in _constants(onnx, opsets, node, arrays)]
    sizes = {n: v for n, v in given.items() if isinstance(v, Sizes)}
    if not sizes:
        return dict(zip(node.output, results, strict=True))
    moved = set(node.input if node.op_type == "Concat" else node.input[:1])
    if node.op_type in _PLACING and set(sizes) <= moved:
        # The node moves the marks `of_rows` as it moves the elements.
        marks = {
            n: sizes[n].of_rows.astype(v.dtype)
            if n in sizes
            else np.zeros_like(v)
            if n in moved
            else v
            for n, v in arrays.items()
        }
        of_rows = [np.asarray(v) != 0 for v in _constants(onnx, opsets, node, marks)]
    else:
        of_rows = [np.ones(v.shape, bool) for v in results]
    return {
        name: Sizes(v, marked) if marked.any() else v
        for name, v, marked in zip(node.output, results, of_rows, strict=True)
    }


def _run(onnx: Any, opsets: Any, node: Any, values: dict[str, Value]) -> None:
    """Convert a node, or compute it if its inputs are constants; add its outputs to `values`."""
    missing = [name for name in node.input if name and name not in values]
    where = f"{node.op_type} (node {node.name!r}, output {', '.join(node.output)})"
    if missing:
        raise ConversionError(
            f"{where} has an input that is no output of a node before it: {', '.join(missing)}"
        )
    inputs = [values[name] if name else None for name in node.input]
    if all(value is None or isinstance(value, (np.ndarray, Sizes)) for value in inputs):
        if node.op_type in RANDOM:
            raise ConversionError(f"{where} is random: export the model for inference")
        given = {n: v for n, v in zip(node.input, inputs, strict=True) if n}
        try:
            values.update(_computed(onnx, opsets, node, given))
        except Exception as error:  # of whatever kind the evaluator has
            raise ConversionError(f"{where} cannot be computed: {error}") from None
        return
    known = operators()
    if node.op_type not in known or node.domain not in ("", "ai.onnx", "ai.onnx.ml"):
        domain = f"{node.domain}." if node.domain else ""
        raise ConversionError(
            f"{domain}{where} cannot be converted; operators that can be: {', '.join(sorted(known))}"
        )
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    convert, taken = known[node.op_type]
    unknown = sorted(set(attributes) - set(taken))
    if unknown:
        raise ConversionError(f"{where}: must not have the attribute {', '.join(unknown)}")
    if node.op_type == "BatchNormalization" and any(node.output[1:]):
        raise ConversionError(f"{where}: needs one output: export the model for inference")
    try:
        made = convert(attributes, *inputs)
    except ConversionError as error:
        raise ConversionError(f"{where}: {error}") from None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ConversionError(
            f"{where} is used in a way that cannot be converted: {error}"
        ) from None
    values.update(zip(node.output, made if isinstance(made, tuple) else (made,), strict=False))
