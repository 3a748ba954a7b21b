"""Neural networks: training in plain NumPy or on shares, prediction on shares, conversion, data sets."""

from typing import TYPE_CHECKING, Any

import sotto_mpc

sotto_mpc.check(__name__)

from nn import layers, losses, metrics, networks, plots
from nn.convert.from_booster import from_booster
from nn.convert.from_onnx import from_onnx
from nn.convert.from_sklearn import from_sklearn
from nn.core.labels import one_hot
from nn.data.datasets import load_digits_8x8, load_mnist
from nn.data.idx_files import load_idx
from nn.fixed_point.calibration import Bounds
from nn.models import revealing as _registered  # noqa: F401
from nn.models.files import load
from nn.models.mlp import MLP
from nn.models.saved_shares import load_shares, model_digest, save_shares
from nn.models.sequential import Sequential
from nn.serving.client import Client
from nn.shared.comparison import compare

if TYPE_CHECKING:
    from nn.estimators import SecureMLPClassifier, SecureMLPRegressor
    from nn.linear_estimators import SecureLinearRegression, SecureLogisticRegression, SecureRidge

__all__ = [
    "MLP", "Bounds", "Client", "SecureLinearRegression", "SecureLogisticRegression",
    "SecureMLPClassifier", "SecureMLPRegressor", "SecureRidge", "Sequential", "compare", "from_booster",
    "from_onnx", "from_sklearn", "layers", "load", "load_digits_8x8", "load_idx", "load_mnist",
    "load_shares", "losses", "metrics", "model_digest", "networks", "one_hot", "plots", "save_shares",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # Imported at the first use: their modules import scikit-learn, which takes a second.
    if name.startswith("Secure") and name in __all__:
        from nn import estimators, linear_estimators

        return getattr(estimators if "MLP" in name else linear_estimators, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
