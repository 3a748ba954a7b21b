"""Training in the clear: settings of ``fit``, optimizers, the parts of a step."""
