"""Weights as training programs write them: found in the file, held against the network, loaded.

They lie under `state_dict`, `model`, `ema.module`, `params` ... or at the top, with `module.`,
`model.` or `_orig_mod.` before every name. The set whose names and shapes are those of the network
is taken; of two different ones the user chooses, one with more tensors among its names included,
since what is more may be the other set. Knows the file, and the network's own names.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engineworks.errors import ModelError, said

#: How deep sets of weights are looked for.
DEPTH = 4

#: What torch.compile puts before the names of a network, or of any part of it.
COMPILED = "_orig_mod."

#: A word in a name that means averaged weights.
AVERAGED = re.compile(r"(^|[._])(ema|shadow|swa|averaged?)([._]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class Weights:
    """One set of weights in a file."""

    path: tuple[str, ...]
    tensors: Mapping[str, Any]
    """By the names of the network."""
    prefix: str
    """What stood before every name."""
    others: int
    """Tensors beside them that the network has no place for."""
    within: bool = False
    """Whether some of those have its prefix: it fits only beside another set that fits whole."""

    @property
    def key(self) -> str:
        """The words of `model.weights_key` for it."""
        return ".".join((*self.path, *filter(None, (self.prefix.rstrip("."),)))) or "the top"

    @property
    def said(self) -> str:
        """Where it was found, for people; "" when the file is a plain state_dict."""
        if not self.path and not self.prefix and not self.others:
            return ""
        text = f"weights from {self.key}"
        plural = "s" if self.others > 1 else ""
        return text + (f", {self.others} other tensor{plural} left aside" if self.others else "")


def load(module: Any, path: Path, *, trust: bool, key: str, source: str) -> str:
    """Fill a network with the weights of a file.

    Args:
        module: A torch.nn.Module.
        path: The file.
        trust: Whether pickled code in it may run.
        key: `model.weights_key`: which set; "": the only one that fits.
        source: `model.source`, for messages.

    Returns:
        Which weights were taken, when the file holds more than a plain state_dict.

    Raises:
        ModelError: No weights, none that fit, or several that differ.
    """
    state = _read(path, trust=trust)
    if not isinstance(state, Mapping) and not hasattr(state, "state_dict"):
        raise ModelError(
            f"model.weights: {path.name} holds a {type(state).__name__}, not a state_dict",
            hint="save it with torch.save(model.state_dict(), ...)",
        )
    wanted = module.state_dict()
    sets = list(_sets(state))
    if not sets and wanted:
        keys = ", ".join(map(str, list(state)[:8])) if isinstance(state, Mapping) else "none"
        raise ModelError(
            f"model.weights: {path.name} holds no tensors by name (its keys: {keys})",
            hint="save it with torch.save(model.state_dict(), ...)",
        )
    fitting = [weights for where, tensors in sets for weights in _fits(where, tensors, wanted)]
    if all(weights.within for weights in fitting):
        fitting = []  # more layers than the network has: another network
    chosen = _chosen(fitting, path, key)
    if chosen is None:
        raise _misfit(module, path, source, sets, wanted)
    _reject_other_kinds(chosen, path, wanted)
    try:
        module.load_state_dict(dict(chosen.tensors), strict=True)
    except (RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"model.weights: PyTorch cannot copy the weights of {path.name}: {said(error, 300)}",
            hint="save plain, dense tensors: torch.save(model.state_dict(), ...)",
        ) from error
    return "; ".join(filter(None, (chosen.said, _left_average(state, fitting))))


def _reject_other_kinds(chosen: Weights, path: Path, wanted: Mapping[str, Any]) -> None:
    """Refuse numbers that PyTorch would turn into others without a word."""
    for name, value in chosen.tensors.items():
        here, there = (str(dtype).split(".")[-1] for dtype in (value.dtype, wanted[name].dtype))
        told = f"model.weights: {name!r} in {path.name} is {here}, the network's is {there}: "
        if value.is_complex() and not wanted[name].is_complex():
            raise ModelError(
                told + "its imaginary part would be lost",
                hint="save real weights: those that the network was trained with",
            )
        if wanted[name].is_floating_point() and not value.is_floating_point():
            raise ModelError(
                told + "whole numbers without the scale that they stand for",
                hint="save the floating-point weights; INT8 is made of them (docs/int8.md)",
            )


def _left_average(state: Any, fitting: list[Weights]) -> str:
    """Words on averaged weights that cannot be held against the network's names, or ""."""
    # Of one average among several, and of its counters, nothing new is to be said.
    if any(AVERAGED.search(weights.key) for weights in fitting):
        return ""
    place = next((place for place in _tensor_places(state) if AVERAGED.search(place)), "")
    return (
        f"averaged weights (EMA) at {place} were left aside: they cannot be matched by name"
        if place
        else ""
    )


def _tensor_places(state: Any, place: str = "", depth: int = 0) -> Iterator[str]:
    """Where tensors of more than one number lie: mappings by full name, lists as a whole."""
    import torch

    if isinstance(state, list | tuple):
        if any(isinstance(value, torch.Tensor) and value.numel() > 1 for value in state):
            yield place
    elif isinstance(state, Mapping):
        for name, value in state.items():
            inner = f"{place}.{name}" if place else str(name)
            if isinstance(value, torch.Tensor):
                if value.numel() > 1:
                    yield inner
            elif depth < DEPTH:
                yield from _tensor_places(value, inner, depth + 1)


def _read(path: Path, *, trust: bool) -> Any:
    import torch

    if path.suffix == ".safetensors":
        raise ModelError(
            f"model.weights: {path.name} is a safetensors file, which is not read here",
            hint="turn it into weights.pt once: torch.save(safetensors.torch.load_file("
            f"{path.name!r}), 'weights.pt')",
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust)
    except pickle.UnpicklingError as error:
        # torch advises weights_only=False for any broken file; only these words mean code.
        if "GLOBAL" in str(error) or "unrecognized function" in str(error):
            raise ModelError(
                f"model.weights: {path.name} holds pickled Python code, which can run anything "
                f"({_what_code(str(error))})",
                hint="save a plain state_dict with torch.save(model.state_dict(), ...), or set "
                "model.trust: true if you made this file yourself",
            ) from error
        raise _broken(path, error) from error
    except Exception as error:
        if "TorchScript" in str(error):
            raise ModelError(
                f"model.weights: {path.name} is a TorchScript file: a whole network, not weights",
                hint=f"name it {path.stem}.torchscript and give it as model.source, without "
                "model.weights",
            ) from error
        raise _broken(path, error) from error


def _what_code(message: str) -> str:
    """The name that torch refused, out of its long advice."""
    culprit = re.search(r"GLOBAL ([\w.]+)|function ([^\n]{1,80})", message)
    return culprit[0] if culprit else "not a plain state_dict"


def _broken(path: Path, error: Exception) -> ModelError:
    detail = "" if "weights_only" in str(error) else f": {said(error, 200)}"
    return ModelError(
        f"model.weights: {path.name} ({path.stat().st_size} bytes) cannot be read as torch "
        f"weights ({type(error).__name__}{detail})",
        hint="the file is cut or damaged: copy it again",
    )


def _sets(state: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Mappings that hold tensors by name, with their place in the file; outermost first."""
    import torch

    if not isinstance(state, Mapping) and callable(getattr(state, "state_dict", None)):
        state = state.state_dict()  # a whole network, which only a trusted file holds
    if not isinstance(state, Mapping):
        return
    named = {
        name: value
        for name, value in state.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }
    tensors = {name.replace(COMPILED, ""): value for name, value in named.items()}
    if len(tensors) < len(named):  # the network and its compiled copy, side by side
        compiled = {name: value for name, value in named.items() if COMPILED in name}
        yield path, {name: value for name, value in named.items() if name not in compiled}
        tensors = {name.replace(COMPILED, ""): value for name, value in compiled.items()}
        yield (*path, COMPILED.rstrip(".")), tensors
    elif tensors:
        yield path, tensors
    if len(path) < DEPTH:
        for name, value in state.items():
            if isinstance(name, str) and not isinstance(value, torch.Tensor):
                yield from _sets(value, (*path, name))


def _fits(
    path: tuple[str, ...], tensors: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Iterator[Weights]:
    """What a mapping gives the network when a prefix is taken off its names."""
    for prefix in _prefixes(tensors, wanted):
        inside = {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            if name.startswith(prefix)
        }
        if inside.keys() >= wanted.keys() and all(
            inside[name].shape == wanted[name].shape for name in wanted
        ):
            exact = {name: inside[name] for name in wanted}
            yield Weights(path, exact, prefix, len(tensors) - len(exact), len(inside) > len(exact))


def _prefixes(tensors: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What stands before the network's first name; nothing, or whole words."""
    first = next(iter(wanted), None)
    if first is None:
        return [""]
    before = [name.removesuffix(first) for name in tensors if name.endswith(first)]
    return list(dict.fromkeys(p for p in before if not p or p.endswith(".")))


def _chosen(fitting: list[Weights], path: Path, key: str) -> Weights | None:
    named = [weights for weights in fitting if key in ("", weights.key)] or [
        weights for weights in fitting if key == ".".join(weights.path)
    ]
    if key and not named and fitting:
        raise ModelError(
            f"model.weights_key: {path.name} has no weights of this network under {key!r}",
            hint=f"it has them under: {', '.join(weights.key for weights in fitting)}",
        )
    different = [weights for weights in named[1:] if not _equal(weights, named[0])]
    if different:
        names = ", ".join(repr(weights.key) for weights in (named[0], *different))
        keys = [weights.key for weights in (named[0], *different)]
        averaged = next((name for name in reversed(keys) if AVERAGED.search(name)), "")
        raise ModelError(
            f"model.weights: {path.name} holds {len(keys)} different sets of weights for "
            f"this network: {names}",
            hint=f"name one: model.weights_key: {averaged} (the averaged one, ema, is "
            "what training programs usually score and publish)"
            if averaged
            else f"name the one that was trained for this: model.weights_key: {' or '.join(keys)}",
        )
    return named[0] if named else None


def _equal(weights: Weights, other: Weights) -> bool:
    return all(
        bool((weights.tensors[name] == other.tensors[name]).all()) for name in weights.tensors
    )


def _misfit(
    module: Any, path: Path, source: str, sets: list[Any], wanted: Mapping[str, Any]
) -> ModelError:
    """What the nearest set of weights lacks, or has too many of."""

    def nearness(entry: tuple[tuple[str, ...], Mapping[str, Any], str]) -> int:
        _, tensors, prefix = entry
        return sum(prefix + name in tensors for name in wanted)

    tries = [
        (where, tensors, prefix)
        for where, tensors in sets
        for prefix in {"", *_near_prefixes(tensors, wanted)}
    ]
    where, tensors, prefix = max(tries, key=nearness, default=((), {}, ""))
    inside = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
    place = ".".join((*where, *filter(None, (prefix.rstrip("."),))))
    difference = _differences(inside, wanted)
    try:
        module.load_state_dict(inside, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        difference = said(" ".join(lines) or error)
    return ModelError(
        f"model.weights: {path.name}{f' ({place})' if place else ''} does not fit {source}: "
        f"{difference}",
        hint="use the weights of this network, or pass the network's options in model.arguments",
    )


def _differences(inside: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """What PyTorch forgives and this does not: it would leave a layer as it was made."""
    missing = [name for name in wanted if name not in inside]
    if missing:
        return f"it lacks {', '.join(map(repr, missing[:3]))} ({len(missing)} in all)"
    shapes = [
        f"{name!r} is {list(inside[name].shape)}, not {list(wanted[name].shape)}"
        for name in wanted
        if inside[name].shape != wanted[name].shape
    ]
    return "; ".join(shapes[:3]) or "its names and shapes differ"


def _near_prefixes(tensors: Mapping[str, Any], wanted: Mapping[str, Any]) -> set[str]:
    """Prefixes by which any of the network's names is there."""
    return {
        name.removesuffix(last) for name in tensors for last in wanted if name.endswith("." + last)
    }
