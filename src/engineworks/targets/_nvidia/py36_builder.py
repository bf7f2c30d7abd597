"""Builds a plan with the TensorRT of a system whose Python is old: 3.6 of JetPack 4, 3.8 of 5.

Run by the system's interpreter, with the system's TensorRT and nothing else:
`/usr/bin/python3 py36_builder.py request.json`. Standard library only, and no syntax newer than
Python 3.6. Takes the weak route (TensorRT 8 has no other); reads `request.json`, writes the
files that it names, and `result.json` beside it.
"""

import json
import os
import sys

SEVERITIES = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")


class BuildRefused(Exception):
    """Something that the request asks for is not possible; the message is for people."""


def make_logger(trt, lines):
    """A logger that keeps what the builder says."""

    class Logger(trt.ILogger):
        """Appends (level, text)."""

        def __init__(self):
            trt.ILogger.__init__(self)

        def log(self, severity, message):
            """Called by the vendor."""
            lines.append((str(severity).rpartition(".")[2], message))

    return Logger()


def make_calibrator(trt, kind, path):
    """A calibrator of the vendor's class that answers from a cache."""
    base = {"entropy2": "IInt8EntropyCalibrator2", "minmax": "IInt8MinMaxCalibrator"}[kind]
    with open(path, "rb") as stream:
        cache = stream.read()

    class FromCache(getattr(trt, base)):
        """Gives no batch."""

        def __init__(self):
            getattr(trt, base).__init__(self)

        def get_batch_size(self):
            """Called by the vendor."""
            return 1

        def get_batch(self, names, *more):
            """Called by the vendor."""
            return

        def read_calibration_cache(self, *more):
            """Called by the vendor."""
            return cache

        def write_calibration_cache(self, cache):
            """Called by the vendor."""
            return

    return FromCache()


def parse(trt, builder, logger, path):
    """The network of an ONNX file."""
    flags = trt.NetworkDefinitionCreationFlag
    bits = 1 << int(flags.EXPLICIT_BATCH) if hasattr(flags, "EXPLICIT_BATCH") else 0
    network = builder.create_network(bits)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        error = parser.get_error(0)
        raise BuildRefused("the parser refused node number %d: %s" % (error.node(), error.desc()))
    return network


def add_profile(builder, network, config, profile):
    """The optimization profile, if an input has open dimensions."""
    if not profile:
        return
    optimization_profile = builder.create_optimization_profile()
    for name in sorted(profile):
        low, best, high = profile[name]
        optimization_profile.set_shape(name, low, best, high)
    config.add_optimization_profile(optimization_profile)


def set_workspace(trt, config, mib):
    """The most scratch memory, by whichever name this version has."""
    if mib is None:
        return
    if hasattr(config, "set_memory_pool_limit"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, mib * 2**20)
    else:
        config.max_workspace_size = mib * 2**20


def set_precision(trt, network, config, request):
    """Allow a precision, and give the integer ranges; the calibrator must be kept alive."""
    names = {"fp32": (), "fp16": ("FP16",), "int8": ("INT8", "FP16")}[request["precision"]]
    for name in names:
        if not hasattr(trt.BuilderFlag, name):
            raise BuildRefused("this TensorRT has no %s" % name)
        config.set_flag(getattr(trt.BuilderFlag, name))
    if not request.get("tf32") and hasattr(trt.BuilderFlag, "TF32"):
        config.clear_flag(trt.BuilderFlag.TF32)
    if request.get("floats"):
        strict = "OBEY_PRECISION_CONSTRAINTS"
        if not hasattr(trt.BuilderFlag, strict):
            strict = "STRICT_TYPES"  # its name before TensorRT 8.2
        config.set_flag(getattr(trt.BuilderFlag, strict))
        floats = set(request["floats"])
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            if layer.name in floats:
                layer.precision = trt.DataType.FLOAT
    if request.get("ranges"):
        set_ranges(network, request["ranges"])
    if request.get("calibration"):
        kept = make_calibrator(trt, request.get("calibrator", "entropy2"), request["calibration"])
        config.int8_calibrator = kept
        return kept
    return None


def set_ranges(network, scales):
    """Integer ranges on the tensors themselves: tensor -> size of one of 127 steps."""
    tensors = [network.get_input(n) for n in range(network.num_inputs)]
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        tensors += [layer.get_output(n) for n in range(layer.num_outputs)]
    known = {tensor.name: tensor for tensor in tensors}
    for name in sorted(scales):
        size = 127 * scales[name]
        if name not in known or not known[name].set_dynamic_range(-size, size):
            raise BuildRefused("TensorRT takes no range for the tensor %r" % name)


def set_dla(trt, builder, network, config, request, result):
    """Prefer a DLA core, with the GPU for what it cannot run; count that beforehand."""
    core = request.get("dla")
    if core is None:
        return
    if builder.num_DLA_cores <= core:
        raise BuildRefused(
            "DLA core %d was asked for, this device has %d" % (core, builder.num_DLA_cores)
        )
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    result["dla"] = [layer.name for layer in layers if config.can_run_on_DLA(layer)]
    result["gpu"] = [layer.name for layer in layers if not config.can_run_on_DLA(layer)]


def build(trt, request, result):
    """Build as the request says; fills `result`."""
    lines = []
    try:
        logger = make_logger(trt, lines)
        builder = trt.Builder(logger)
        network = parse(trt, builder, logger, request["onnx"])
        config = builder.create_builder_config()
        result["layers"] = [network.get_layer(n).name for n in range(network.num_layers)]
        set_workspace(trt, config, request.get("workspace_mib"))
        add_profile(builder, network, config, request.get("profile"))
        calibrator = set_precision(trt, network, config, request)
        set_dla(trt, builder, network, config, request, result)
        if hasattr(trt, "ProfilingVerbosity") and hasattr(trt.ProfilingVerbosity, "DETAILED"):
            config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        share = len(result.get("dla", ())) / float(max(1, len(result["layers"])))
        if request.get("dla") is not None and share < request.get("dla_share", 0.0):
            return  # the caller says why
        plan = builder.build_serialized_network(network, config)
        del calibrator
        if plan is None:
            errors = [text for level, text in lines if "ERROR" in level]
            raise BuildRefused("TensorRT built nothing: %s" % "; ".join(errors))
        with open(request["plan"], "wb") as stream:
            stream.write(memoryview(plan))
        inspect(trt, logger, request)
    finally:
        with open(request["log"], "w") as stream:
            for level, text in lines:
                stream.write("%s: %s\n" % (level, text))


def inspect(trt, logger, request):
    """The engine as the inspector sees it, where this version has one."""
    if not hasattr(trt, "EngineInspector"):
        return
    with open(request["plan"], "rb") as stream:
        engine = trt.Runtime(logger).deserialize_cuda_engine(stream.read())
    if engine is None:
        raise BuildRefused("the engine that was built cannot be opened")
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    with open(request["inspected"], "w") as stream:
        stream.write(text)


def main(path):
    """Read a request, build, and write the result whole or not at all."""
    with open(path) as stream:
        request = json.load(stream)
    result = {"python": sys.version.split()[0]}
    try:
        import tensorrt as trt

        result["version"] = trt.__version__
        build(trt, request, result)
    except ImportError as error:
        result["error"] = "the system's Python has no TensorRT: %s" % error
    except BuildRefused as error:
        result["error"] = str(error)
    partial = os.path.join(os.path.dirname(path), "result.json.part")
    with open(partial, "w") as stream:
        json.dump(result, stream)
    os.rename(partial, partial[: -len(".part")])
    return 1 if "error" in result else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
