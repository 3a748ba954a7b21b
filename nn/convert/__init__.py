"""Models of others: scikit-learn and ONNX."""
