"""A TensorRT 8.2 that fits the builder for old interpreters; Python 3.6 syntax.

Has only names that 8.2 has, and writes a plan of what was asked. Says nothing of a board.
"""

import json
import os

__version__ = os.environ.get("DOUBLE_VERSION", "8.2.1.8")


class _Member(object):
    def __init__(self, name, number):
        self.name, self.number = name, number

    def __int__(self):
        return self.number

    def __str__(self):
        return "Enum." + self.name


class _Enum(object):
    def __init__(self, *names):
        for number, name in enumerate(names):
            setattr(self, name, _Member(name, number))


BuilderFlag = _Enum(
    "FP16",
    "INT8",
    "DEBUG",
    "GPU_FALLBACK",
    "STRICT_TYPES",
    "REFIT",
    "DISABLE_TIMING_CACHE",
    "TF32",
    "SPARSE_WEIGHTS",
    "SAFETY_SCOPE",
    "OBEY_PRECISION_CONSTRAINTS",
    "PREFER_PRECISION_CONSTRAINTS",
)
NetworkDefinitionCreationFlag = _Enum("EXPLICIT_BATCH", "EXPLICIT_PRECISION")
DataType = _Enum("FLOAT", "HALF", "INT8", "INT32", "BOOL")
DeviceType = _Enum("GPU", "DLA")
ProfilingVerbosity = _Enum("LAYER_NAMES_ONLY", "DETAILED", "NONE")
LayerInformationFormat = _Enum("ONELINE", "JSON")


class ILogger(object):
    def __init__(self):
        pass


class _Strict(object):
    """Takes no attribute that the class does not declare, as pybind11."""

    allowed = ()

    def __setattr__(self, name, value):
        if not name.startswith("_") and name not in self.allowed:
            raise AttributeError(name)
        object.__setattr__(self, name, value)


class IInt8EntropyCalibrator2(object):
    def __init__(self):
        pass


class _Tensor(object):
    def __init__(self, name):
        self.name, self.range = name, None

    def set_dynamic_range(self, low, high):
        self.range = [low, high]
        return True


class _Layer(_Strict):
    allowed = ("precision", "name", "output")
    num_outputs = 1

    def get_output(self, index):
        return self.output


class _Network(object):
    def __init__(self, bits):
        self.bits, self.layers, self.input = bits, [], _Tensor("images")

    num_inputs = 1

    def get_input(self, index):
        return self.input

    @property
    def num_layers(self):
        return len(self.layers)

    def get_layer(self, index):
        return self.layers[index]


class _Error(object):
    def node(self):
        return 3

    def desc(self):
        return "No importer registered for op: Mod"


class OnnxParser(object):
    num_errors = 1

    def __init__(self, network, logger):
        self.network = network

    def parse_from_file(self, path):
        with open(path, "rb") as stream:
            content = stream.read()
        if b"Frobnicate" in content:
            return False
        for name in ("stem", "left", "deep", "soft"):
            layer = _Layer()
            layer.name = name
            layer.output = _Tensor({"stem": "act", "left": "pool"}.get(name, name))
            self.network.layers.append(layer)
        return True

    def get_error(self, index):
        return _Error()


class _Config(_Strict):
    allowed = (
        "max_workspace_size",
        "int8_calibrator",
        "default_device_type",
        "DLA_core",
        "profiling_verbosity",
    )

    def __init__(self):
        self._flags, self._profiles = {"TF32"}, []

    def set_flag(self, flag):
        self._flags.add(flag.name)

    def clear_flag(self, flag):
        self._flags.discard(flag.name)

    def add_optimization_profile(self, profile):
        self._profiles.append(profile)

    def can_run_on_DLA(self, layer):
        return layer.name != "soft"


class _Profile(object):
    def __init__(self):
        self.shapes = {}

    def set_shape(self, name, low, best, high):
        self.shapes[name] = [list(low), list(best), list(high)]


class Builder(object):
    num_DLA_cores = 2

    def __init__(self, logger):
        self.logger = logger

    def create_network(self, bits):
        return _Network(bits)

    def create_builder_config(self):
        return _Config()

    def create_optimization_profile(self):
        return _Profile()

    def build_serialized_network(self, network, config):
        calibrator = getattr(config, "int8_calibrator", None)
        log = self.logger.log
        log(_Member("INFO", 3), "---------- Layers Running on DLA ----------")
        if hasattr(config, "DLA_core"):
            log(_Member("INFO", 3), "[DlaLayer] {ForeignNode[stem...deep]}")
            log(_Member("INFO", 3), "[GpuLayer] SOFTMAX: soft")
        plan = {
            "workspace": getattr(config, "max_workspace_size", None),
            "flags": sorted(config._flags),
            "profile": config._profiles[0].shapes if config._profiles else {},
            "floats": [layer.name for layer in network.layers if hasattr(layer, "precision")],
            "calibration": calibrator.read_calibration_cache().decode() if calibrator else "",
            "ranges": {
                layer.output.name: layer.output.range
                for layer in network.layers
                if layer.output.range
            },
            "dla": getattr(config, "DLA_core", None),
            "explicit": network.bits,
        }
        return bytearray(json.dumps(plan).encode())


class _Inspector(object):
    def get_engine_information(self, form):
        names = ("stem", "left", "deep")
        kind = "Int8" if "INT8" in _Engine.flags else "Half" if "FP16" in _Engine.flags else "Float"
        layers = [
            {
                "Name": name,
                "LayerType": "CaskConvolution",
                "ParameterType": "Convolution",
                "Weights": {"Type": kind, "Count": 10},
            }
            for name in names
        ]
        return json.dumps({"Layers": layers, "Bindings": []})


class _Engine(object):
    flags = ()

    def create_engine_inspector(self):
        return _Inspector()


class EngineInspector(object):
    pass


class Runtime(object):
    def __init__(self, logger):
        pass

    def deserialize_cuda_engine(self, plan):
        _Engine.flags = json.loads(bytes(plan).decode())["flags"]
        return _Engine()
