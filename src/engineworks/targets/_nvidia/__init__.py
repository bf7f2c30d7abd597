"""What NVIDIA's targets share: one way from an ONNX graph to a plan through any TensorRT.

Every file here takes the vendor's module `trt` (tensorrt 8.6, 10, 11 or tensorrt_rtx) from its
caller and imports none. What a version has is asked of the module, never looked up by number.
"""
