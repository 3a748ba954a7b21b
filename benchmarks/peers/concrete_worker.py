"""Concrete ML: models of scikit-learn, quantised and evaluated by homomorphic encryption, row by row.

Prints a line of JSON for each model. A row is encrypted, evaluated and decrypted; keys are made before. The
answers of all other rows are those of the quantised model in the clear, which the encrypted one repeats.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from importlib import metadata
from typing import Any

import fitted
import numpy as np


def compiled(model: fitted.Fitted, estimator: Any, rows: fitted.Rows) -> tuple[Any, Any, Any]:
    """Return the predictions in the clear and encrypted, both as functions of rows, and the circuit."""
    if model.concrete == "torch":
        return _network(model, estimator, rows)
    import concrete.ml.sklearn

    kind = getattr(concrete.ml.sklearn, model.concrete)
    quantised = kind.from_sklearn_model(estimator, rows, n_bits=model.bits)
    circuit = quantised.compile(rows)
    return quantised.predict, lambda x: quantised.predict(x, fhe="execute"), circuit


def _network(model: fitted.Fitted, estimator: Any, rows: fitted.Rows) -> tuple[Any, Any, Any]:
    import torch
    from concrete.ml.torch.compile import compile_torch_model

    layers: list[Any] = []
    for weights, own in zip(estimator.coefs_, estimator.intercepts_, strict=True):
        layer = torch.nn.Linear(*weights.shape)
        layer.weight.data = torch.tensor(weights.T, dtype=torch.float32)
        layer.bias.data = torch.tensor(own, dtype=torch.float32)
        layers += [layer, torch.nn.ReLU()]
    network = torch.nn.Sequential(*layers[:-1])
    module = compile_torch_model(
        network, rows, n_bits=model.bits, rounding_threshold_bits=model.bits
    )
    classes = estimator.classes_

    def predict(x: fitted.Rows, fhe: str = "disable") -> Any:
        return classes[np.asarray(module.forward(x, fhe=fhe)).argmax(1)]

    return predict, lambda x: predict(x, "execute"), module.fhe_circuit


def measure(model: fitted.Fitted) -> dict[str, Any]:
    """Fit, compile, and predict."""
    estimator, rows, test, wanted = fitted.fitted(model)
    (clear, encrypted, circuit), compiling = fitted.timed(
        lambda: compiled(model, estimator, rows), 1
    )
    _, keys = fitted.timed(lambda: circuit.client.keygen(force=True), 1)
    answers = np.asarray(clear(test)).reshape(-1)
    seconds, same = [], 0
    for k in range(model.rows):
        found, taken = fitted.timed(lambda k=k: encrypted(test[k : k + 1]), 1)  # type: ignore[misc]
        seconds += taken
        same += bool(np.allclose(np.asarray(found).reshape(-1), answers[k], rtol=1e-6))
    return {
        "plain": np.asarray(estimator.predict(test)).tolist(),
        "plain_quality": fitted.quality(model, estimator.predict(test), wanted),
        "quality": fitted.quality(model, answers, wanted),
        "seconds_compiling": compiling[0],
        "seconds_keys": keys[0],
        "seconds_row": seconds,
        "rows_as_in_the_clear": same,
        "bits": model.bits,
    }


def main() -> None:
    """Measure the models that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", choices=fitted.MODELS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    versions = {
        name: metadata.version(name) for name in ("concrete-ml", "concrete-python", "scikit-learn")
    }
    for name in options.models:
        try:
            found = measure(fitted.MODELS[name])
        except Exception as error:  # what a library cannot do is a result
            said = str(error).strip().splitlines() or [type(error).__name__]
            found = {"error": said[0][:300]}
        print(json.dumps({"model": name, "versions": versions, **found}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
