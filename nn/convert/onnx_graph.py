"""ONNX graphs of any shape as graph models: the nodes in their order, and all that hinders a conversion.

ONNX's own reference evaluator computes what does not depend on the graph's inputs; shape arithmetic it
computes twice, for two numbers of rows, so that what depends on the number shows. The other nodes are
converted by the table of :mod:`nn.convert.graph_table`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nn.convert import graph_arithmetic as _arithmetic  # noqa: F401  (for their entries in the table)
from nn.convert import graph_axes as _axes  # noqa: F401
from nn.convert import graph_einsum as _einsum  # noqa: F401
from nn.convert import graph_exponents as _exponents  # noqa: F401
from nn.convert import graph_images as _images  # noqa: F401
from nn.convert import graph_recurrent as _recurrent  # noqa: F401
from nn.convert import graph_shaping as _shaping  # noqa: F401
from nn.convert.from_sklearn import ConversionError
from nn.convert.graph_builder import Builder
from nn.convert.graph_choosing import only_softmaxes_take
from nn.convert.graph_folding import simplified
from nn.convert.graph_fusing import fused
from nn.convert.graph_sizes import OPEN, Sizes, computed
from nn.convert.graph_table import known_operators
from nn.convert.graph_values import ROWS, Labels, Scores, Tensor
from nn.convert.graph_whole import BOOL, FLOATS
from nn.layers.activations import Sigmoid
from nn.layers.dense import Dense
from nn.layers.graph import Graph
from nn.layers.joining import Concat
from nn.layers.selecting import Take
from nn.layers.softmax import LogSoftmax, Softmax
from nn.models.heads import Head, HeadsModel
from nn.models.predictors import Classifier, Regressor
from ring.errors import SottoError
from ring.real_arrays import plain_array

__all__ = ["check_reals", "graph_model"]

Evaluate = Callable[[Any, Any, Any, Any], Any]
RANDOM = (
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
)  # fmt: skip

# Of operators that are not in the table; behind all blockers, the message lists those that are.
_UNKNOWN = " cannot be converted"
# Why not, where there is no hope.
_WHY = {
    **dict.fromkeys(
        ("Compress", "NonMaxSuppression", "NonZero", "Unique"),
        "how many elements it gives depends on secret values; keep an output ahead of it, by outputs=",
    ),
    **dict.fromkeys(
        ("BitShift", "BitwiseAnd", "BitwiseOr", "Ceil", "Floor", "Mod", "Round"),
        "it rounds, or computes with bits, and numbers on shares are off in the last place",
    ),
    **dict.fromkeys(
        ("If", "Loop", "Scan", "SequenceMap"),
        "what is computed must not depend on secret values: export the graph unrolled",
    ),
}
# Operators that compute with whole numbers in the place of reals, without "quantize" in their names.
_WHOLE = re.compile(
    r"QLinear\w+|\w+Integer|MatMulIntegerToFloat|QGemm|Q\w*Attention|QEmbed\w+|QMoE|\w+NBits|\w+BnB4|\w+Bnb4"
)


class _Lost:
    """An output of a node that cannot be converted."""


def check_reals(graph: Any, inputs: Iterable[str]) -> None:
    """Raise ConversionError if the graph is quantised: if it computes with whole numbers for reals."""
    reached, found = set(inputs), []
    for node in graph.node:
        if reached & set(node.input):
            reached |= set(node.output)
            if "quantize" in node.op_type.lower() or _WHOLE.fullmatch(node.op_type):
                found.append(
                    f"{node.op_type} (node {node.name!r}, output {', '.join(node.output)})"
                )
    if found:
        raise ConversionError(
            "the graph is quantised, which is not converted: take the model before it was, in floats;"
            f" what computes with whole numbers in the place of reals: {', '.join(found)}"
        )


def graph_model(
    onnx: Any,
    graph: Any,
    opsets: Any,
    shapes: Mapping[str, Sequence[int]],
    classes: ArrayLike | None,
    evaluate: Evaluate,
) -> Classifier | Regressor | HeadsModel:
    """Return the model of an ONNX graph.

    Parameters
    ----------
    onnx : module
    graph : onnx.GraphProto
    opsets
        Versions of the operators.
    shapes : mapping of str to sequence of int
        The sizes of each input; the first is the number of rows, 0 if it is open.
    classes : array_like, optional
        As for :func:`nn.from_onnx`.
    evaluate : callable
        ``evaluate(onnx, opsets, node, arrays)`` returns the outputs of a node whose inputs are
        constants.

    Raises
    ------
    ConversionError
        That names every node that cannot be converted, and why.
    """
    made = _graph_model(onnx, graph, opsets, shapes, classes, evaluate, exact=False)
    if made is None:  # what stands for masks there is no mask
        made = _graph_model(onnx, graph, opsets, shapes, classes, evaluate, exact=True)
    assert made is not None
    return made


def _graph_model(
    onnx: Any,
    graph: Any,
    opsets: Any,
    shapes: Mapping[str, Sequence[int]],
    classes: ArrayLike | None,
    evaluate: Evaluate,
    *,
    exact: bool,
) -> Classifier | Regressor | HeadsModel | None:
    """Return the model; None if constants have to be taken as they are, and are not with `exact`."""
    values: dict[str, Any] = {a.name: onnx.numpy_helper.to_array(a) for a in graph.initializer}
    given = {shape[0] for shape in shapes.values()}
    if len(given) > 1:
        raise ConversionError(f"all inputs must have as many rows, got shapes {dict(shapes)}")
    batch = given.pop()
    builder = Builder((batch or OPEN[0], OPEN[1]), exact=exact)
    for value in graph.input:
        if value.name in shapes and value.type.tensor_type.elem_type not in FLOATS:
            builder.whole.enter(value.name, value.type.tensor_type.elem_type)
    columns = {name: prod(shape[1:]) for name, shape in shapes.items()}
    builder.sizes.append((sum(columns.values()),))
    start = 0
    for name, shape in shapes.items():
        value, stop = 0, start + columns[name]
        if len(shapes) > 1:
            value = builder.add(Take(0, range(start, stop)), 0)
        values[name] = builder.from_rows(builder.reshaped(value, tuple(shape[1:])))
        start = stop
    taken = {name for node in graph.node for name in node.input} | {o.name for o in graph.output}
    idle = [name for name in shapes if name not in taken]
    if idle and len(shapes) > 1:
        raise ConversionError(
            f"every input must be used, but no output depends on the input {idle[0]}: export without it"
        )
    version = next(o.version for o in opsets if o.domain in ("", "ai.onnx"))
    blockers = [
        blocker
        for node in graph.node
        for blocker in [_run(onnx, opsets, version, builder, node, values, evaluate)]
        if blocker
    ]
    if blockers:
        whole = "; ".join(blockers)
        if _UNKNOWN in whole:
            whole += f"; operators that can be: {', '.join(sorted(known_operators()))}"
        many = f"{len(blockers)} nodes cannot be converted: " if len(blockers) > 1 else ""
        raise ConversionError(many + whole)
    outputs = {o.name: values.get(o.name) for o in graph.output if o.name}
    lost = [name for name, value in outputs.items() if value is None]
    if lost:
        raise ConversionError(
            f"the graph must have no outputs that are not converted, got {', '.join(lost)}; keep the"
            " others, as by onnx.utils.extract_model"
        )
    return _model(builder, outputs, columns, classes)


def _run(
    onnx: Any,
    opsets: Any,
    version: int,
    builder: Builder,
    node: Any,
    values: dict[str, Any],
    evaluate: Evaluate,
) -> str | None:
    """Convert a node, or compute it if its inputs are constants; return why that cannot be, if so."""
    where = f"{node.op_type} (node {node.name!r}, output {', '.join(node.output)})"
    inputs = [values.get(name, _Lost()) if name else None for name in node.input]
    if node.op_type == "If" and isinstance(inputs[0], np.ndarray):
        return _branch(
            onnx, opsets, version, builder, node, bool(inputs[0].all()), values, evaluate
        )
    for name in node.output:
        values[name] = _Lost()
    missing = [name for name in node.input if name and name not in values]
    if missing:
        return f"{where} has an input that is no output of a node before it: {', '.join(missing)}"
    public = all(x is None or isinstance(x, (np.ndarray, Sizes)) for x in inputs)
    if public:
        try:
            if node.op_type in RANDOM:
                return f"{where} is random: export the model for inference"
            named = {n: v for n, v in zip(node.input, inputs, strict=True) if n}
            values.update(
                computed(
                    node.op_type,
                    named,
                    list(node.output),
                    lambda a: evaluate(onnx, opsets, node, a),
                )
            )
        except Exception as error:  # of whatever kind the evaluator has
            return f"{where} cannot be computed: {error}"
        return None
    known = known_operators()
    if node.op_type not in known or node.domain not in ("", "ai.onnx"):
        domain = f"{node.domain}." if node.domain else ""
        why = _WHY.get(node.op_type) if not node.domain else None
        return f"{domain}{where}{_UNKNOWN}" + (f": {why}" if why else "")
    if any(isinstance(x, _Lost) for x in inputs):
        return None  # what made it is named
    entry = known[node.op_type]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    unknown = sorted(set(attributes) - set(entry.attributes))
    if unknown:
        return f"{where}: must not have the attribute {', '.join(unknown)}"
    attributes |= {"opset": version, "outputs": len([name for name in node.output if name])}
    attributes["whole"] = [name in builder.whole.valued for name in node.input]
    attributes["truth"] = builder.whole.types.get(node.input[0]) == BOOL
    try:
        builder.whole.follow(node, attributes, inputs)
        made = entry.convert(builder, attributes, *inputs)
    except ConversionError as error:
        return f"{where}: {error}"
    except (
        AttributeError, IndexError, KeyError, TypeError, ValueError, SottoError
    ) as error:  # fmt: skip
        return f"{where} is used in a way that cannot be converted: {error}"
    results = made if isinstance(made, tuple) else (made,)
    for name in node.output:
        values.pop(name, None)
    values.update(zip(node.output, results, strict=False))
    return None


def _branch(
    onnx: Any, opsets: Any, version: int, builder: Builder, node: Any, chosen: bool,
    values: dict[str, Any], evaluate: Evaluate,
) -> str | None:  # fmt: skip
    """Convert the branch that a public condition chooses; return why that cannot be, if so."""
    name = "then_branch" if chosen else "else_branch"
    graph = next(a.g for a in node.attribute if a.name == name)
    inner = values | {a.name: onnx.numpy_helper.to_array(a) for a in graph.initializer}
    blockers = [_run(onnx, opsets, version, builder, one, inner, evaluate) for one in graph.node]
    for out, made in zip(node.output, graph.output, strict=True):
        values[out] = inner[made.name]
        builder.whole.rename(made.name, out)
    return "; ".join(filter(None, blockers)) or None


@dataclass(frozen=True)
class _Result:
    """An output of the model: a value with its role."""

    name: str
    tensor: Tensor
    role: str  # "labels", "probabilities", "values"


def _model(
    builder: Builder,
    outputs: dict[str, Any],
    columns: dict[str, int],
    classes: ArrayLike | None,
) -> Classifier | Regressor | HeadsModel | None:
    results = []
    for name, value in outputs.items():
        if isinstance(value, Labels):
            results.append(_Result(name, value.scores, "labels"))
        elif isinstance(value, Scores) and value.axis == 1 and len(value.scores.axes) == 2:
            results.append(_Result(name, value.scores, "probabilities"))
        elif isinstance(value, (Tensor, Scores)):
            results.append(_Result(name, builder.tensor(value), "values"))
        else:
            raise ConversionError(
                f"the graph's outputs must depend on its inputs, got the constant {name}"
            )
        ranked = isinstance(value, Labels) or (
            results[-1].role == "probabilities" and not value.log
        )
        tensor = results[-1].tensor
        if not builder.exact and not only_softmaxes_take(
            builder, tensor.value, then_softmax=ranked
        ):
            return None
    flat, shapes = [], []
    for result in results:
        if builder.counts[0] == 1:
            result = replace(result, tensor=_rows_first(result.tensor))
        axes = result.tensor.axes
        if not axes or axes[0] != (ROWS,):
            raise ConversionError(
                f"the output {result.name} must have rows along its first axis: what is computed for"
                " several rows together cannot be an answer"
            )
        shapes.append(result.tensor.shape)
        whole = builder.arranged(result.tensor, [tuple(a for g in axes[1:] for a in g)])
        flat.append(whole)
    inputs = dict(columns) if len(columns) > 1 else None
    features = sum(columns.values())
    same = len(set(flat)) == 1
    roles = {result.role for result in results}
    if same:
        graph = _network(builder, flat[0])
        if len(shapes[0]) == 1 and len(graph) > 1 and isinstance(graph[-1], (LogSoftmax, Softmax)):
            # One that is spelled out is one at the end, as an operator's is.
            graph = _without_last(graph)
            roles = roles - {"values"} | {"probabilities"}
        if roles == {"values"} and classes is None:
            made: Classifier | Regressor = Regressor(graph, features, flat=shapes[0] == ())
        else:
            graph, names, link = _classes(graph, classes, roles, prod(shapes[0]), features)
            made = Classifier(graph, names, features, link=link)
        made.inputs_ = inputs
        return made
    if classes is not None:
        raise ConversionError(
            f"classes are for a graph with one result, got the outputs {', '.join(outputs)}"
        )
    parts = list(dict.fromkeys(flat))
    joined = builder.add(Concat(0), *parts)
    stops = np.cumsum([builder.sizes[k][0] for k in parts]).tolist()
    heads = []
    for result, value, shape in zip(results, flat, shapes, strict=True):
        place = parts.index(value)
        stop, size = stops[place], builder.sizes[value][0]
        heads.append(Head(result.name, stop - size, stop, shape, result.role))
    model = HeadsModel(_network(builder, joined), features, heads)
    model.inputs_ = inputs
    return model


def _rows_first(x: Tensor) -> Tensor:
    """Return what a graph that is made for one row gives, with the axis of rows first.

    The elements of a row stay in the graph's order, in which that axis has one element.
    """
    if x.axes and x.axes[0] == (ROWS,):
        return x
    axes = tuple(tuple(a for a in group if a != ROWS) for group in x.axes if group != (ROWS,))
    return replace(x, axes=((ROWS,), *axes))


def _network(builder: Builder, value: int) -> Any:
    """Return the simplified graph of a value, as a list if every layer takes the one before it."""
    if not value:
        raise ConversionError("the graph must have a layer between its input and its output")
    features = builder.sizes[0][0]
    graph = simplified(fused(builder.graph(value), features), features)
    chain = all(node.inputs == (k,) for k, node in enumerate(graph.nodes))
    return [node.layer for node in graph.nodes] if chain else graph


def _without_last(layers: Any) -> Any:
    """Return layers without the last one."""
    if isinstance(layers, Graph):
        return Graph([(node.layer, node.inputs) for node in layers.nodes[:-1]])
    return layers[:-1]


def _classes(
    layers: Any, classes: ArrayLike | None, roles: set[str], size: int, features: int
) -> tuple[Any, NDArray[Any], str | None]:
    """Return layers, labels and link of a classifier."""
    link = "softmax" if "probabilities" in roles or roles == {"values"} else None
    names = np.arange(size) if classes is None else plain_array(classes, "classes")
    last = layers[-1]
    if size == 1 and len(names) == 2 and isinstance(last, Sigmoid) and roles == {"values"}:
        # Scores (0, z), whose softmax is (1 - sigmoid(z), sigmoid(z)).
        two = Dense(np.array([[0.0, 1.0]]), np.zeros(2))
        if isinstance(layers, Graph):
            nodes = [(node.layer, node.inputs) for node in layers.nodes]
            graph = Graph([*nodes[:-1], (two, nodes[-1][1])])
            return simplified(graph, features), names, "softmax"
        pairs = [(layer, k) for k, layer in enumerate([*layers[:-1], two])]
        return list(simplified(Graph(pairs), features)), names, "softmax"
    return layers, names, link
