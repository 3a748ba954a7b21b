"""Neural networks: training in plain NumPy, the data sets to train on, and models of others."""

from typing import TYPE_CHECKING, Any

from nn.comparison import compare
from nn.datasets import load_digits_8x8, load_idx, load_mnist, one_hot
from nn.files import load
from nn.mlp import MLP
from nn.onnx_import import from_onnx
from nn.sklearn_import import from_sklearn

if TYPE_CHECKING:
    from nn.estimators import SecureMLPClassifier, SecureMLPRegressor

__all__ = [
    "MLP",
    "SecureMLPClassifier",
    "SecureMLPRegressor",
    "compare",
    "from_onnx",
    "from_sklearn",
    "load",
    "load_digits_8x8",
    "load_idx",
    "load_mnist",
    "one_hot",
]


def __getattr__(name: str) -> Any:
    # These two import scikit-learn, which takes a second.
    if name in ("SecureMLPClassifier", "SecureMLPRegressor"):
        from nn import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
