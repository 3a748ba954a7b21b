"""The usual architectures in small, in PyTorch: what make.py exports.

Each entry of ARCHITECTURES is a function of no arguments that returns the module, and the shapes of a row
of its inputs. Widths are those that keep files of a few kilobytes; the operators and their order are the
architecture's own.
"""

import chains  # noqa: F401  (for their entries in the list)
import image_networks  # noqa: F401
import others  # noqa: F401
import sequences  # noqa: F401
import to_images  # noqa: F401
import transformers  # noqa: F401
from parts import ARCHITECTURES

__all__ = ["ARCHITECTURES"]
