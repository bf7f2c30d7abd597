"""From an ONNX graph to a TensorRT network with its optimization profile.

Refusals name the node and the operator in the parser's own words.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engineworks.errors import BuildError
from engineworks.targets._base import GRAPH_REFUSED
from engineworks.targets._nvidia.api import Api
from engineworks.targets._nvidia.log import BuildLog, plain
from engineworks.targets._nvidia.settings import BuilderSettings, Shapes


def parse(api: Api, builder: Any, onnx: Path, route: str, log: BuildLog) -> Any:
    """The network of a graph.

    Raises:
        BuildError: The parser refused it.
    """
    network = builder.create_network(api.network_flags(route))
    parser = api.trt.OnnxParser(network, log.logger)
    if parser.parse_from_file(str(onnx)):
        if network.num_outputs == 0:  # it takes a damaged file for an empty graph
            raise BuildError(
                "the TensorRT parser found no outputs in the graph",
                hint="the ONNX file is damaged or empty: export it anew",
            )
        return network
    problems = [_words(parser.get_error(n), onnx) for n in range(parser.num_errors)]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    raise BuildError(
        f"the TensorRT parser refused {problems[0] if problems else 'the graph'}{more}",
        hint=GRAPH_REFUSED,
    )


def _words(error: Any, onnx: Path) -> str:
    """One parser error: operator, node and reason."""
    if hasattr(error, "node_operator"):
        operator, name = error.node_operator(), error.node_name()
    else:  # older parsers tell the node's position only
        operator, name = _node(onnx, error.node())
    subject = f"{operator} {name!r}" if operator else f"node {name!r}"
    reason = plain(error.desc().removeprefix(f"Invalid Node - {name}").strip())
    return f"{subject}: {reason or error.code().name}"


def _node(onnx: Path, position: int) -> tuple[str, str]:
    import onnx as onnx_package

    nodes = onnx_package.load(str(onnx), load_external_data=False).graph.node
    if not 0 <= position < len(nodes):
        return "", f"number {position}"
    return nodes[position].op_type, nodes[position].name or nodes[position].output[0]


def unsupported_operators(api: Api, onnx: Path) -> tuple[str, ...]:
    """Operators of a graph that this parser does not know."""
    import onnx as onnx_package

    log = BuildLog(api.trt)
    builder = api.trt.Builder(log.logger)
    network = builder.create_network(api.network_flags(api.route()))
    parser = api.trt.OnnxParser(network, log.logger)
    model = onnx_package.load(str(onnx), load_external_data=False)
    local = {function.name for function in model.functions}
    wanted = {node.op_type for node in model.graph.node} - local
    return tuple(sorted(name for name in wanted if not parser.supports_operator(name)))


def profile(network: Any, builder: Any, settings: BuilderSettings) -> tuple[Any, dict[str, Shapes]]:
    """The optimization profile over all open dimensions.

    Returns:
        (profile, or None when every dimension is fixed; input -> min, opt and max shape).

    Raises:
        BuildError: An open dimension that the options do not bound, or shapes that do not fit.
    """
    shapes: dict[str, Shapes] = {}
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    unknown = sorted(set(settings.shapes) - {tensor.name for tensor in inputs})
    if unknown:
        raise BuildError(
            f"options.shapes: the graph has no input {unknown[0]!r}",
            hint=f"its inputs are: {', '.join(tensor.name for tensor in inputs)}",
        )
    for tensor in inputs:
        shape = tuple(tensor.shape)
        if -1 in shape:
            shapes[tensor.name] = settings.shapes.get(tensor.name) or _by_batch(tensor, settings)
            _fit(tensor, shapes[tensor.name])
    if not shapes:
        return None, {}
    optimization_profile = builder.create_optimization_profile()
    for name, (low, best, high) in shapes.items():
        optimization_profile.set_shape(name, low, best, high)
    return optimization_profile, shapes


def _by_batch(tensor: Any, settings: BuilderSettings) -> Shapes:
    """Shapes of a tensor whose only open dimension is the batch."""
    first, *rest = tuple(tensor.shape)
    if first != -1 or -1 in rest:
        raise BuildError(
            f"input {tensor.name!r} has open dimensions beside the batch: {list(tensor.shape)}; "
            "TensorRT must know their limits",
            hint=f"write options: {{shapes: {{{tensor.name}: [min, opt, max]}}}}, each a whole "
            "shape",
        )
    low, best, high = ((size, *rest) for size in settings.batch)
    return low, best, high


def _fit(tensor: Any, shapes: Shapes) -> None:
    """Refuse shapes that are not the tensor's."""
    for shape in shapes:
        same = len(shape) == len(tensor.shape) and all(
            want in (-1, got) for want, got in zip(tuple(tensor.shape), shape, strict=True)
        )
        if not same:
            raise BuildError(
                f"options.shapes.{tensor.name}: {list(shape)} does not fit the input, which is "
                f"{list(tensor.shape)} (-1: open)",
                hint="give whole shapes with the fixed dimensions as they are",
            )
