"""A double of TensorRT 8.6, 10.13, 11.4 or -RTX that has exactly the API of the real bindings.

Names, parameters, properties and enumerations come from `trt_*.json`, which `dump.py` reads from
NVIDIA's own wheels. An attribute or a parameter that the generation lacks is refused as the real
bindings refuse it. Behind the API stands a small builder: enough of a parser to know layers and
types, and a plan that is JSON of what was asked. It says nothing of what a GPU would do.
"""

from __future__ import annotations

import base64
import ctypes
import enum
import json
from functools import cache
from pathlib import Path
from typing import Any

GENERATIONS = ("8_6", "10_13", "11_4")
#: TensorRT-RTX, which has its own module.
RTX = "rtx_1_7"

LAYERS = {
    "Conv": "CONVOLUTION", "ConvTranspose": "DECONVOLUTION", "MatMul": "MATRIX_MULTIPLY",
    "Gemm": "MATRIX_MULTIPLY", "QuantizeLinear": "QUANTIZE", "DequantizeLinear": "DEQUANTIZE",
    "Relu": "ACTIVATION", "Sigmoid": "ACTIVATION", "LeakyRelu": "ACTIVATION",
    "MaxPool": "POOLING", "ReduceMean": "REDUCE", "GlobalAveragePool": "POOLING",
    "Cast": "CAST", "Concat": "CONCATENATION",
}  # fmt: skip

#: ONNX's numbers of types -> TensorRT's names.
TYPES = {1: "FLOAT", 10: "HALF", 16: "BF16", 3: "INT8", 2: "UINT8", 6: "INT32", 7: "INT64"}


class PybindEnum(enum.Enum):
    """An enumeration of pybind11: members have a name and become numbers by `int`."""

    def __int__(self) -> int:
        return self.value


def load(generation: str) -> Any:
    """A fresh module-like object of one generation."""
    return Module(generation)


@cache
def _dump(generation: str) -> dict[str, Any]:
    path = Path(__file__).with_name(f"trt_{generation}.json")
    return json.loads(path.read_text(encoding="utf-8"))


class Module:
    """What `import tensorrt` would give."""

    def __init__(self, generation: str) -> None:
        dump = _dump(generation)
        self.__version__ = dump["version"]
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        """Every call of a method in order, for tests to look at."""
        for name, members in dump["enums"].items():
            setattr(self, name, PybindEnum(name, members))
        made: dict[str, type] = {}
        for name in dump["classes"]:
            self._make(name, dump["classes"], made)
        for name, kind in made.items():
            setattr(self, name, kind)

    def _make(self, name: str, classes: dict[str, Any], made: dict[str, type]) -> type:
        if name in made:
            return made[name]
        spec = classes[name]
        bases = tuple(self._make(b, classes, made) for b in spec["bases"] if b in classes)
        members: dict[str, Any] = {"_module": self, "_api": name}
        for method, signatures in spec["methods"].items():
            members[method] = _method(self, name, method, signatures)
        for prop, writable in spec["properties"].items():
            members[prop] = _property(prop, writable)
        for nested, numbers in spec["enums"].items():
            members[nested] = PybindEnum(nested, numbers)
        made[name] = type(name, bases or (_Instance,), members)
        return made[name]


class _Instance:
    """Refuses attributes that the class does not declare, as pybind11 does."""

    _module: Any = None
    _api = ""

    def __setattr__(self, name: str, value: Any) -> None:
        subclassed = "_api" not in vars(type(self))  # a Python class derived from the vendor's
        known = any(name in vars(kind) for kind in type(self).__mro__)
        if name.startswith("_d_") or subclassed or known:
            object.__setattr__(self, name, value)
            return
        raise AttributeError(f"'{self._api}' object has no attribute '{name}'")


def _property(name: str, writable: bool) -> property:
    def get(self: Any) -> Any:
        found = getattr(Behaviour, f"get_{name}", None)
        if found is not None:
            return found(self)
        return vars(self).get(f"_d_{name}")

    def put(self: Any, value: Any) -> None:
        object.__setattr__(self, f"_d_{name}", value)

    return property(get, put if writable else None)


def _fits(names: list[str], args: tuple[Any, ...], keywords: dict[str, Any]) -> bool:
    plain = [name.rstrip("?") for name in names]
    needed = [name for name in names if not name.endswith("?")]
    given = set(plain[: len(args)]) | set(keywords)
    return len(args) <= len(names) and set(keywords) <= set(plain) and set(needed) <= given


def _method(module: Any, kind: str, name: str, signatures: list[list[str]]) -> Any:
    def call(self: Any, *args: Any, **keywords: Any) -> Any:
        if signatures and not any(_fits(names, args, keywords) for names in signatures):
            raise TypeError(
                f"{name}(): incompatible function arguments for TensorRT {module.__version__}: "
                f"takes {signatures}, got {len(args)} and {sorted(keywords)}"
            )
        module.calls.append((f"{kind}.{name}", args))
        behaviour = getattr(Behaviour, f"{kind}_{name.strip('_')}", None)
        return behaviour(self, *args, **keywords) if behaviour else None

    call.__name__ = name
    return call


def _new(module: Any, kind: str, **state: Any) -> Any:
    made = object.__new__(getattr(module, kind))
    for name, value in state.items():
        object.__setattr__(made, f"_d_{name}", value)
    return made


def _log(instance: Any, level: str, text: str) -> None:
    logger = instance._d_logger
    logger.log(getattr(type(logger).__mro__[1].Severity, level), text)


class Memory(bytearray):
    """IHostMemory: a buffer."""

    @property
    def nbytes(self) -> int:
        return len(self)


class Behaviour:
    """What happens behind the API. A method that is not here does nothing."""

    recording: list[Any] | None = None
    """Runs in the order in which they were queued, while a device records."""
    clock_ms = 0.0
    """What events are recorded with: a copy takes 1 ms, a run as long as its plan says."""

    # Builder and network ----------------------------------------------------------------------

    def Builder_init(self: Any, logger: Any) -> None:  # noqa: N802
        object.__setattr__(self, "_d_logger", logger)

    def Builder_create_network(self: Any, flags: int = 0) -> Any:  # noqa: N802
        return _new(self._module, "INetworkDefinition", flags=flags, layers=[], inputs=[],
                    outputs=[], logger=self._d_logger, floats=None)  # fmt: skip

    def Builder_create_builder_config(self: Any) -> Any:  # noqa: N802
        return _new(self._module, "IBuilderConfig", set={"TF32"}, limits={}, profiles=[],
                    timing=b"", logger=self._d_logger)  # fmt: skip

    def Builder_create_optimization_profile(self: Any) -> Any:  # noqa: N802
        return _new(self._module, "IOptimizationProfile", shapes={})

    def Builder_build_serialized_network(  # noqa: N802
        self: Any, network: Any, config: Any, kernel_text: Any = None
    ) -> Any:
        calibrator = vars(config).get("_d_int8_calibrator")
        dynamic = any(-1 in tensor.shape for tensor in network._d_inputs)
        if dynamic and not config._d_profiles:
            _log(self, "ERROR", "4: Network has dynamic or shape inputs, but no optimization "
                 "profile has been defined.")  # fmt: skip
            return None
        quantized = any(layer.type.name == "QUANTIZE" for layer in network._d_layers)
        strong = _strong(self._module, network)
        ranges = _ranges(network)
        if "INT8" in config._d_set and not quantized and calibrator is None and not ranges:
            _log(self, "ERROR", "4: Calibration failure occurred with no scaling factors")
            return None
        if strong and {"FP16", "INT8", "BF16"} & config._d_set:
            _log(self, "ERROR", "3: a strongly typed network takes no precision flag")
            return None
        cached = calibrator.read_calibration_cache() if calibrator is not None else b""
        plan = {
            "trt": self._module.__version__,
            "flags": sorted(config._d_set),
            "limits": config._d_limits,
            "profile": config._d_profiles[0]._d_shapes if config._d_profiles else {},
            "inputs": [[t.name, t.dtype.name, list(t.shape)] for t in network._d_inputs],
            "outputs": [[t.name, t.dtype.name, list(t.shape)] for t in network._d_outputs],
            "calibration": cached.decode(),
            "ranges": ranges,
            "timing": config._d_timing.decode(),
            "onnx": network._d_path,
            "model": base64.b64encode(Path(network._d_path).read_bytes()).decode(),
            "layers": [_decide(layer, config._d_set, bool(cached or ranges), strong)
                       for layer in network._d_layers],
            "ms": 1.5 if "VERSION_COMPATIBLE" in config._d_set else 1.0,
        }  # fmt: skip
        device = vars(config).get("_d_default_device_type")
        if device is not None and device.name == "DLA":
            plan["times"] = _place(self, config, network)
            plan["ms"] = sum(plan["times"].values())
        config._d_timing = config._d_timing or b"measured"
        return Memory(json.dumps(plan).encode())

    def get_num_inputs(self: Any) -> int:
        return len(self._d_inputs)

    def get_num_outputs(self: Any) -> int:
        return len(self._d_outputs)

    def get_num_layers(self: Any) -> int:
        return len(self._d_layers)

    def INetworkDefinition_get_input(self: Any, index: int) -> Any:  # noqa: N802
        return self._d_inputs[index]

    def INetworkDefinition_get_output(self: Any, index: int) -> Any:  # noqa: N802
        return self._d_outputs[index]

    def INetworkDefinition_get_layer(self: Any, index: int) -> Any:  # noqa: N802
        return self._d_layers[index]

    def ITensor_set_dynamic_range(self: Any, min: float, max: float) -> bool:  # noqa: N802
        object.__setattr__(self, "_d_range", [min, max])
        return True

    def ILayer_get_input(self: Any, index: int) -> Any:  # noqa: N802
        return self._d_inputs[index]

    def ILayer_get_output(self: Any, index: int) -> Any:  # noqa: N802
        return self._d_outputs[index]

    def IBuilderConfig_can_run_on_DLA(self: Any, layer: Any) -> bool:  # noqa: N802
        return layer.type.name == "CONVOLUTION"

    # Configuration ----------------------------------------------------------------------------

    def IBuilderConfig_set_flag(self: Any, flag: Any) -> None:  # noqa: N802
        assert isinstance(flag, self._module.BuilderFlag), flag
        self._d_set.add(flag.name)

    def IBuilderConfig_clear_flag(self: Any, flag: Any) -> None:  # noqa: N802
        assert isinstance(flag, self._module.BuilderFlag), flag
        self._d_set.discard(flag.name)

    def IBuilderConfig_set_memory_pool_limit(self: Any, pool: Any, size: int) -> None:  # noqa: N802
        self._d_limits[pool.name] = size

    def IBuilderConfig_add_optimization_profile(self: Any, profile: Any) -> int:  # noqa: N802
        self._d_profiles.append(profile)
        return len(self._d_profiles) - 1

    def IBuilderConfig_create_timing_cache(self: Any, data: bytes) -> Any:  # noqa: N802
        return _new(self._module, "ITimingCache", data=bytes(data))

    def IBuilderConfig_set_timing_cache(  # noqa: N802
        self: Any, cache: Any, ignore_mismatch: bool
    ) -> bool:
        self._d_timing = cache._d_data
        return not cache._d_data.startswith(b"alien")

    def IBuilderConfig_get_timing_cache(self: Any) -> Any:  # noqa: N802
        return _new(self._module, "ITimingCache", data=self._d_timing)

    def ITimingCache_serialize(self: Any) -> Any:  # noqa: N802
        return Memory(self._d_data)

    def IOptimizationProfile_set_shape(  # noqa: N802
        self: Any, input: str, min: Any, opt: Any, max: Any
    ) -> None:
        self._d_shapes[input] = [list(min), list(opt), list(max)]

    # Parser -----------------------------------------------------------------------------------

    def OnnxParser_init(self: Any, network: Any, logger: Any) -> None:  # noqa: N802
        object.__setattr__(self, "_d_network", network)
        object.__setattr__(self, "_d_errors", [])

    def OnnxParser_supports_operator(self: Any, op_name: str) -> bool:  # noqa: N802
        return op_name != "Frobnicate"

    def OnnxParser_parse_from_file(self: Any, model: str) -> bool:  # noqa: N802
        return _parse(self, model)

    def get_num_errors(self: Any) -> int:
        return len(self._d_errors)

    def OnnxParser_get_error(self: Any, index: int) -> Any:  # noqa: N802
        return self._d_errors[index]

    def ParserError_desc(self: Any) -> str:  # noqa: N802
        return "no importer registered for this operator"

    def ParserError_node(self: Any) -> int:  # noqa: N802
        return self._d_position

    def ParserError_node_name(self: Any) -> str:  # noqa: N802
        return self._d_node.name

    def ParserError_node_operator(self: Any) -> str:  # noqa: N802
        return self._d_node.op_type

    # Reading back -----------------------------------------------------------------------------

    def Runtime_init(self: Any, logger: Any) -> None:  # noqa: N802
        object.__setattr__(self, "_d_logger", logger)

    def Runtime_deserialize_cuda_engine(self: Any, serialized_engine: Any) -> Any:  # noqa: N802
        plan = json.loads(bytes(serialized_engine))
        if plan["trt"] != self._module.__version__:
            _log(self, "ERROR", "6: The engine plan file is not compatible with this version")
            return None
        return _new(self._module, "ICudaEngine", plan=plan, logger=self._d_logger, contexts=[])

    def ICudaEngine_create_engine_inspector(self: Any) -> Any:  # noqa: N802
        return _new(self._module, "EngineInspector", plan=self._d_plan)

    def EngineInspector_get_engine_information(self: Any, format: Any) -> str:  # noqa: N802
        return json.dumps({"Layers": self._d_plan["layers"], "Bindings": []})

    # Running ----------------------------------------------------------------------------------

    def ICudaEngine_create_runtime_config(self: Any) -> Any:  # noqa: N802
        return _new(self._module, "IRuntimeConfig")

    def ICudaEngine_create_execution_context(  # noqa: N802
        self: Any, *_: Any, runtime_config: Any = None
    ) -> Any:
        import onnxruntime as ort

        self._d_contexts.append(1)
        runner = ort.InferenceSession(
            base64.b64decode(self._d_plan["model"]), providers=["CPUExecutionProvider"]
        )
        return _new(self._module, "IExecutionContext", plan=self._d_plan, shapes={},
                    addresses={}, runner=runner, fresh=True, logger=self._d_logger,
                    config=runtime_config, first=len(self._d_contexts) == 1)  # fmt: skip

    def ICudaEngine_get_tensor_shape(self: Any, name: str) -> list[int]:  # noqa: N802
        return _shape(self._d_plan, name)

    def ICudaEngine_get_tensor_profile_shape(  # noqa: N802
        self: Any, name: str, profile_index: int
    ) -> list[list[int]]:
        return self._d_plan["profile"][name]

    def IExecutionContext_set_input_shape(self: Any, name: str, shape: Any) -> bool:  # noqa: N802
        low, _, high = self._d_plan["profile"].get(name, [shape] * 3)
        if not all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True)):
            return False
        self._d_shapes[name] = list(shape)
        object.__setattr__(self, "_d_fresh", True)
        return True

    def IExecutionContext_get_tensor_shape(self: Any, name: str) -> list[int]:  # noqa: N802
        shape = self._d_shapes.get(name) or _shape(self._d_plan, name)
        batches = [found[0] for found in self._d_shapes.values()]
        return [batches[0] if size == -1 and batches else size for size in shape]

    def IExecutionContext_set_tensor_address(  # noqa: N802
        self: Any, name: str, memory: int
    ) -> bool:
        self._d_addresses[name] = memory
        return True

    def IExecutionContext_execute_async_v3(self: Any, stream_handle: int) -> bool:  # noqa: N802
        if self._d_plan["profile"] and not self._d_first:
            # The only optimization profile belongs to the first context.
            _log(self, "ERROR", "3: Profile 0 has been chosen by another IExecutionContext")
            return False
        if Behaviour.recording is not None:
            if self._d_fresh:
                _log(self, "ERROR", "1: operation not permitted when stream is capturing")
                return False
            Behaviour.recording.append(lambda: Behaviour.run(self))
            return True
        object.__setattr__(self, "_d_fresh", False)
        return Behaviour.run(self)

    def run(self: Any) -> bool:
        """Compute what lies in the context's addresses."""
        feeds = {
            name: _memory(self._d_addresses[name], kind, self._d_shapes[name])
            for name, kind, _ in self._d_plan["inputs"]
        }
        Behaviour.clock_ms += self._d_plan["ms"]
        profiler = vars(self).get("_d_profiler")
        if profiler is not None:
            whole = {layer["Name"]: 0.1 for layer in self._d_plan["layers"]}
            for name, ms in self._d_plan.get("times", whole).items():
                profiler.report_layer_time(name, ms)
        names = [name for name, _, _ in self._d_plan["outputs"]]
        for name, value in zip(names, self._d_runner.run(names, feeds), strict=True):
            kind = next(kind for n, kind, _ in self._d_plan["outputs"] if n == name)
            _memory(self._d_addresses[name], kind, value.shape)[:] = value
        return True


def _shape(plan: dict[str, Any], name: str) -> list[int]:
    return next(shape for n, _, shape in (*plan["inputs"], *plan["outputs"]) if n == name)


def _memory(address: int, kind: str, shape: Any) -> Any:
    """An array over "device" memory, which `NumpyDevice` takes from this process."""
    import numpy as np

    dtype = np.dtype({"FLOAT": "float32", "HALF": "float16", "INT32": "int32"}[kind])
    size = int(np.prod(shape)) * dtype.itemsize
    raw = (ctypes.c_uint8 * size).from_address(address)
    return np.ctypeslib.as_array(raw).view(dtype).reshape(shape)


def _place(builder: Any, config: Any, network: Any) -> dict[str, float]:
    """Say where layers run, as the builder does; name of a part -> ms, twice as long on DLA."""
    times: dict[str, float] = {}
    able: list[str] = []

    def flush() -> None:
        if able:
            name = f"{{ForeignNode[{able[0]}...{able[-1]}]}}"
            _log(builder, "INFO", f"[DlaLayer] {name}")
            times[name] = 2.0 * len(able)
            able.clear()

    for layer in network._d_layers:
        if layer.type.name == "CONSTANT":
            continue
        if config.can_run_on_DLA(layer):
            able.append(layer.name)
            continue
        flush()
        _log(builder, "INFO", f"[GpuLayer] {layer.type.name}: {layer.name}")
        times[layer.name] = 1.0
    flush()
    return times


def _ranges(network: Any) -> dict[str, list[float]]:
    """Dynamic ranges that were set on tensors."""
    layers = network._d_layers
    tensors = [*network._d_inputs, *(t for layer in layers for t in layer._d_outputs)]
    return {t.name: t._d_range for t in tensors if "_d_range" in vars(t)}


def _strong(module: Any, network: Any) -> bool:
    if not hasattr(module.BuilderFlag, "FP16"):
        return True
    flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return flag is not None and bool(network._d_flags & (1 << int(flag)))


def _decide(layer: Any, flags: set[str], cached: bool, strong: bool) -> dict[str, Any]:
    """A layer as an inspector names it, with the type that the builder would choose."""
    words = {"FLOAT": "Float", "HALF": "Half", "INT8": "Int8", "BF16": "BFloat16"}
    kind = layer.type.name
    dtype = layer._d_outputs[0].dtype.name
    if kind in ("CONVOLUTION", "MATRIX_MULTIPLY"):
        sources = [tensor._d_maker for tensor in layer._d_inputs[:2]]
        pinned = vars(layer).get("_d_precision")
        if all(source == "DEQUANTIZE" for source in sources):
            dtype = "INT8"
        elif pinned is not None:
            dtype = pinned.name
        elif not strong:
            dtype = "INT8" if cached and "INT8" in flags else dtype
            dtype = "HALF" if dtype == "FLOAT" and "FP16" in flags else dtype
            dtype = "BF16" if dtype == "FLOAT" and "BF16" in flags else dtype
    return {
        "Name": layer.name,
        "LayerType": kind.title(),
        "ParameterType": {"CONVOLUTION": "Convolution", "MATRIX_MULTIPLY": "MatrixMultiply"}.get(
            kind, kind.title()
        ),
        "Weights": {"Type": words.get(dtype, "Float"), "Count": layer._d_count},
    }


def _parse(parser: Any, path: str) -> bool:
    import onnx

    module, network = parser._module, parser._d_network
    model = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=False)
    unknown = [(n, node) for n, node in enumerate(model.graph.node) if node.op_type == "Frobnicate"]
    for position, node in unknown:
        parser._d_errors.append(_new(module, "ParserError", position=position, node=node))
    if unknown:
        return False
    network._d_path = path
    tensors: dict[str, Any] = {}

    def tensor(name: str, number: int, shape: list[int], maker: str) -> Any:
        kind = getattr(module.DataType, TYPES.get(number, "INT32"), module.DataType.INT32)
        tensors[name] = _new(
            module, "ITensor", name=name, dtype=kind, shape=tuple(shape), maker=maker
        )
        return tensors[name]

    values = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    known = {value.name: value.type.tensor_type for value in values}
    constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    integers = {
        node.output[0]: node.input[0] for node in model.graph.node
        if node.op_type == "DequantizeLinear"
    }  # fmt: skip
    for value in model.graph.input:
        kind = value.type.tensor_type
        shape = [d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim]
        network._d_inputs.append(tensor(value.name, kind.elem_type, shape, "input"))
    for constant in model.graph.initializer:
        tensor(constant.name, constant.data_type, list(constant.dims), "CONSTANT")
        layer = _new(module, "ILayer", name=constant.name, type=module.LayerType.CONSTANT,
                     inputs=[], outputs=[tensors[constant.name]], num_inputs=0, num_outputs=1,
                     weights=constants[constant.name], count=0)  # fmt: skip
        network._d_layers.append(layer)
    for node in model.graph.node:
        kind = LAYERS.get(node.op_type, "ELEMENTWISE")
        kind = kind if hasattr(module.LayerType, kind) else "ELEMENTWISE"
        inputs = [tensors[name] for name in node.input if name in tensors]
        outputs = []
        for name in node.output:
            known_type = known.get(name)
            number = known_type.elem_type if known_type is not None else 1
            dims = known_type.shape.dim if known_type is not None else []
            shape = [d.dim_value if d.HasField("dim_value") else -1 for d in dims]
            outputs.append(tensor(name, number or 1, shape, kind))
        # Weights in integers are folded into their layer, as the real builder does.
        weight = node.input[1] if len(node.input) > 1 else ""
        count = constants[integers.get(weight, weight)].size if (
            integers.get(weight, weight) in constants) else 0  # fmt: skip
        network._d_layers.append(_new(
            module, "ILayer", name=node.name or node.output[0],
            type=getattr(module.LayerType, kind), inputs=inputs, outputs=outputs,
            num_inputs=len(inputs), num_outputs=len(outputs), count=count,
        ))  # fmt: skip
    network._d_outputs.extend(tensors[value.name] for value in model.graph.output)
    return True
