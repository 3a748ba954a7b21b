"""ONNX graphs of learned models, as skl2onnx writes them: trees, support vectors and what stands before.

Values are affine maps of rows, layers and leaves, as in the conversion of scikit-learn's estimators, whose
parts convert here, too. So that trees are exact, each column keeps what was done to it since the input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nn.convert.conversion import Conversion, Scores
from nn.convert.expressions import Builder
from nn.convert.from_sklearn import KINDS
from nn.convert.learned_operators import operators
from nn.convert.learned_values import Context, Labelled, Lost, Numbers, Odds
from nn.convert.problems import ConversionError
from nn.convert.public_columns import Columns
from nn.models.predictors import Classifier, Regressor
from ring.errors import SottoError
from ring.real_arrays import plain_array

__all__ = ["learned_model", "needed_nodes"]

# ONNX's number of float64.
_DOUBLE = 11
# Operators whose outputs behind the first one are of no use to a prediction.
_FURTHER_OUTPUTS = ("LayerNormalization", "MaxPool")


@dataclass(frozen=True)
class _Walk:
    """What the conversion of a node takes."""

    onnx: Any
    opsets: Any
    evaluate: Callable[[Any, Any, Any, Any], Any]
    context: Context


def needed_nodes(graph: Any, outputs: Sequence[str]) -> list[Any]:
    """Return the nodes that outputs depend on, in their order, without further outputs that none takes."""
    needed, found = set(outputs), []
    for node in reversed(list(graph.node)):
        if needed & set(node.output):
            needed |= _taken(node)
            if node.op_type in _FURTHER_OUTPUTS and not needed & set(node.output[1:]):
                lean = type(node)()
                lean.CopyFrom(node)
                del lean.output[1:]
                node = lean
            found.append(node)
    return found[::-1]


def _taken(node: Any) -> set[str]:
    """Return the names that a node takes, those that its subgraphs take included."""
    taken = {name for name in node.input if name}
    for attribute in node.attribute:
        for inner in (attribute.g, *attribute.graphs):
            taken |= {output.name for output in inner.output}
            taken = taken.union(*map(_taken, inner.node))
    return taken


def learned_model(
    onnx: Any,
    graph: Any,
    opsets: Any,
    shapes: Mapping[str, Sequence[int]],
    classes: ArrayLike | None,
    evaluate: Callable[[Any, Any, Any, Any], Any],
    *,
    secret_features: bool,
) -> Classifier | Regressor:
    """Return the model of a graph with operators of ONNX-ML; arguments as of ``graph_model``.

    Raises
    ------
    ConversionError
        That names the first node that cannot be converted, and why.
    """
    if any(len(shape) != 2 for shape in shapes.values()):
        raise ConversionError(f"rows must be vectors, got inputs of shapes {dict(shapes)}")
    sizes = {name: prod(shape[1:]) for name, shape in shapes.items()}
    features = sum(sizes.values())
    build = Builder(features, secret_features)
    double = {
        value.name for value in graph.input if value.type.tensor_type.elem_type == _DOUBLE
    } & set(sizes)
    if double and double != set(sizes):
        raise ConversionError("inputs must be all of float64, or none")
    context = Context(Conversion(build, KINDS, Columns(features, False), None), bool(double))
    walk = _Walk(onnx, opsets, evaluate, context)
    values: dict[str, Any] = {a.name: onnx.numpy_helper.to_array(a) for a in graph.initializer}
    start = 0
    for name, size in sizes.items():
        columns = range(start, start + size)
        values[name] = Numbers(build.input.take(columns), tuple((k, ()) for k in columns))
        start += size
    names = [output.name for output in graph.output if output.name]
    for node in needed_nodes(graph, names):
        _run(walk, node, values)
    made = _model(build, {name: values.get(name) for name in names}, features, classes)
    made.inputs_ = dict(sizes) if len(sizes) > 1 else None
    return made


def _run(walk: _Walk, node: Any, values: dict[str, Any]) -> None:
    """Convert a node, or compute it if its inputs are constants; add its outputs to `values`."""
    where = f"{node.op_type} (node {node.name!r}, output {', '.join(node.output)})"
    missing = [name for name in node.input if name and name not in values]
    if missing:
        raise ConversionError(
            f"{where} has an input that is no output of a node before it: {', '.join(missing)}"
        )
    inputs = [values[name] if name else None for name in node.input]
    for value in inputs:
        if isinstance(value, Lost):
            raise ConversionError(f"{where} takes {value.reason}")
    if all(value is None or isinstance(value, np.ndarray) for value in inputs):
        given = {n: v for n, v in zip(node.input, inputs, strict=True) if n}
        try:
            found = walk.evaluate(walk.onnx, walk.opsets, node, given)
        except Exception as error:  # of whatever kind the evaluator has
            raise ConversionError(f"{where} cannot be computed: {error}") from None
        values.update(zip(node.output, [np.asarray(v) for v in found], strict=True))
        return
    table = operators()
    if node.op_type not in table or node.domain not in ("", "ai.onnx", "ai.onnx.ml"):
        domain = f"{node.domain}." if node.domain else ""
        raise ConversionError(
            f"{domain}{where} cannot be converted in a graph of learned models; operators that can be: "
            f"{', '.join(sorted(table))}"
        )
    convert, taken = table[node.op_type]
    attributes = {a.name: walk.onnx.helper.get_attribute_value(a) for a in node.attribute}
    unknown = sorted(set(attributes) - set(taken))
    if unknown:
        raise ConversionError(f"{where}: must not have the attribute {', '.join(unknown)}")
    try:
        made = convert(walk.context, attributes, *inputs)
    except ConversionError as error:
        raise ConversionError(f"{where}: {error}") from None
    except (
        AttributeError, IndexError, KeyError, TypeError, ValueError, SottoError
    ) as error:  # fmt: skip
        raise ConversionError(
            f"{where} is used in a way that cannot be converted: {error}"
        ) from None
    values.update(zip(node.output, made if isinstance(made, tuple) else (made,), strict=False))


def _model(
    build: Builder, outputs: Mapping[str, Any], features: int, classes: ArrayLike | None
) -> Classifier | Regressor:
    """Return the model of a graph's outputs, which are one result, or labels with their scores."""
    labels = next((v for v in outputs.values() if isinstance(v, Labelled)), None)
    odds = next((v for v in outputs.values() if isinstance(v, Odds)), None)
    plain = next((v for v in outputs.values() if isinstance(v, Numbers)), None)
    found = labels or odds or plain
    if found is None:
        raise ConversionError("the graph's outputs must depend on its input")
    values = found.affine if isinstance(found, Numbers) else found.scores.values
    for name, value in outputs.items():
        theirs = value.scores.values if isinstance(value, (Labelled, Odds)) else value
        theirs = theirs.affine if isinstance(theirs, Numbers) else theirs
        if theirs is not values:
            why = f" ({value.reason})" if isinstance(value, Lost) else ""
            raise ConversionError(
                f"the graph must have one result, or labels with their scores, got the outputs"
                f" {', '.join(outputs)}, of which {name} is another{why}; name those that count, as by"
                f" from_onnx(..., outputs=[{next(iter(outputs))!r}])"
            )
    if isinstance(found, Numbers) and classes is None:
        return Regressor(build.finish(values), features, flat=False)
    scores = Scores(values, np.arange(values.size), "softmax")
    if not isinstance(found, Numbers):
        scores = (odds or found).scores
    link = scores.link if odds is not None or plain is not None else None
    if link == "sigmoids":
        raise ConversionError(
            "the graph's probabilities must sum to 1, got sigmoids of the scores as they are: put a"
            " Normalizer with norm L1 behind the LinearClassifier, or name the output of its labels"
            " alone, outputs=[...]"
        )
    names: NDArray[Any] = np.asarray(labels.scores.classes if labels else scores.classes)
    if labels is not None and odds is not None and not np.array_equal(names, odds.scores.classes):
        raise ConversionError(
            "labels and columns of probabilities must be in the same order, got"
            f" {names.tolist()} and {odds.scores.classes.tolist()}"
        )
    if classes is not None:
        names = plain_array(classes, "classes")
    return Classifier(build.finish(values), names, features, link=link)
