"""What the target `coreml` is made of: ONNX to MIL, and MIL back to something a CPU can run."""
