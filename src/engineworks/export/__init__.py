"""From a trained model to an ONNX graph that provably answers as the model does."""
