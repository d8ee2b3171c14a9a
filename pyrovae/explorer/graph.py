"""A decoder as a list of plain operations that a page can run: traced at one code, with all else worked out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

# The operations of assets/decoder.js, by torch's names, and the arguments that each of them takes beside its inputs.
NAMES = (
    "relu tanh sigmoid exp expm1 log log1p neg abs sqrt rsqrt reciprocal sin cos erf sign isnan logical_not "
    "add sub mul div maximum minimum pow where le lt ge gt eq ne logical_and logical_or mm addmm expand"
)
TAKES: dict[str, tuple[str, ...]] = dict.fromkeys(NAMES.split(), ()) | {
    "permute": ("dims",),
    "convolution": ("stride", "padding", "transposed"),
    "clamp": ("min", "max"),
    "cat": ("dim",),
    "slice": ("dim", "start", "end", "step"),
    "select": ("dim", "index"),
    "sum": ("dim", "keepdim"),
    "mean": ("dim", "keepdim"),
    "amax": ("dim", "keepdim"),
    "leaky_relu": ("negative_slope",),
    "elu": ("alpha", "scale", "input_scale"),
    "gelu": ("approximate",),
    "_softmax": ("dim",),
    "_log_softmax": ("dim",),
}
LIKE = {"full_like", "zeros_like", "ones_like"}  # which read a shape, and no value
RESHAPES = {"view", "_unsafe_view", "unsqueeze", "squeeze", "clone", "alias", "detach", "lift_fresh_copy", "_to_copy"}
PLAIN = {"alpha": 1, "beta": 1, "dilation": [1, 1], "groups": 1, "rounding_mode": None}  # all that a page can do
IDLE = {"dtype", "layout", "device", "pin_memory", "non_blocking", "memory_format", "half_to_float", "implicit"}
SYNONYMS = {"bitwise_not": "logical_not", "bitwise_and": "logical_and", "bitwise_or": "logical_or"}  # of truth values
KEPT = {"aten::addmm", "aten::_softmax", "aten::_log_softmax"}  # whole, where torch would take them apart
MOST = 20_000_000  # weights

Step = dict[str, Any]


@dataclass
class Weights:
    """Tensors that graphs have in common.

    Attributes:
        tensors: in float32, on the CPU.
    """

    tensors: list[Tensor] = field(default_factory=list)

    def index(self, tensor: Tensor) -> int:
        """Where it is; equal ones are kept once. Raises ValueError for NaN, infinity, and too much."""
        tensor = tensor.detach().to("cpu", torch.float32).contiguous()
        for i, known in enumerate(self.tensors):
            if known.shape == tensor.shape and torch.equal(known, tensor):
                return i
        if not torch.isfinite(tensor).all():
            raise ValueError("explore expects finite weights, got NaN or infinity; see whether training diverged")
        self.tensors.append(tensor)
        if sum(t.numel() for t in self.tensors) > MOST:
            raise ValueError(f"explore expects a decoder of at most {MOST:,} weights, got more; train a smaller one")
        return len(self.tensors) - 1


def export(function: Callable[[Tensor], Tensor], z: Tensor, weights: Weights) -> list[Step]:
    """The steps from z [1, L] to function(z), which the last of them gives.

    A step has an "op", the "shape" of what it gives, its inputs "in" and what else it takes. An input is {"v": i}, what
    the i-th step gave, or z for 0; {"w": i}, one of the weights; or a number. What does not depend on z is worked out
    here and now.

    Raises ValueError for an operation that the page does not know, and for a function that does not depend on z.
    """
    more: Any = [torch.ops.aten.native_batch_norm]
    table: dict[Any, Any] = dict(core_aten_decompositions().items()) | get_decompositions(more)
    table = {op: f for op, f in table.items() if op.name().split(".")[0] not in KEPT}
    with torch.no_grad():
        try:
            graph = make_fx(function, decomposition_table=table)(z)
        except Exception as error:  # whatever a model does with values that are not there yet
            raise ValueError(
                "explore expects a decoder that does the same operations for every z, to write them down, and this one "
                f"cannot be traced: {' '.join(str(error).split())[:120]}"
            ) from error
        return _Writer(weights).write(graph, z)


class _Writer:
    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.steps: list[Step] = []
        self.known: dict[Node, Any] = {}
        self.places: dict[Node, Any] = {}  # of what depends on z: a value, or one for each part of a split

    def write(self, graph: GraphModule, z: Tensor) -> list[Step]:
        output = next(n for n in graph.graph.nodes if n.op == "output")
        needed = _behind(output)
        for n in graph.graph.nodes:
            if n not in needed:
                continue
            if n.op == "placeholder":
                self.known[n], self.places[n] = z, 0
            elif n.op == "get_attr":
                self.known[n] = getattr(graph, n.target)
            elif n.op == "call_function":
                if torch.Tag.nondeterministic_seeded in getattr(n.target, "tags", ()):
                    raise ValueError(
                        f"explore expects E[x | z] without chance, and this decoder draws random numbers ({n.target}): "
                        "a latent that the guide does not give, or noise; name the latent to move: site=NAME"
                    )
                self.known[n] = n.target(*self._values(n.args), **self._values(n.kwargs))
                if _name(n) not in LIKE and any(source in self.places for source in n.all_input_nodes):
                    self.places[n] = self._place(n)
        (result,) = output.all_input_nodes
        if result not in self.places:
            raise ValueError("explore expects E[x | z] to depend on z, and it does not; move another latent: site=NAME")
        if self.places[result] != len(self.steps):  # the result is an input of something that was needed too
            self._add("reshape", self.known[result].shape, [{"v": self.places[result]}])
        return self.steps

    def _values(self, a: Any) -> Any:
        return map_arg(a, self.known.__getitem__)

    def _place(self, n: Node) -> Any:
        name, value = _name(n), self.known[n]
        if name == "getitem":
            source, index = cast(Any, n.args)
            return self.places[source][index]
        taken = _arguments(n)
        if name == "split_with_sizes":
            return self._parts(value, taken["dim"], self._input(n, taken["self"]))
        inputs = [taken.pop(key) for key in list(taken) if key in _inputs(n)]
        inputs = [a for source in inputs for a in (source if isinstance(source, list | tuple) else [source])]
        if not isinstance(value, Tensor):
            raise _unknown(n)
        sources = [self.known[a] for a in inputs if isinstance(a, Node)]
        truth = value.dtype == torch.bool
        if name in SYNONYMS and truth:
            name = SYNONYMS[name]
        rounds = name == "_to_copy" and sources[0].is_floating_point() and not value.is_floating_point()
        if rounds or (truth and name in ("add", "mul", "sub")) or (name == "convolution" and len(value) != 1):
            raise _unknown(n)
        given = [self._input(n, a) for a in inputs if a is not None]
        if name in RESHAPES:
            return self._add("reshape", value.shape, given)
        whole = all(taken.get(key, plain) == plain for key, plain in PLAIN.items() if key not in TAKES.get(name, ()))
        if name not in TAKES or not whole or set(TAKES[name]) - taken.keys() - {"dim", "keepdim"}:
            raise _unknown(n)
        return self._add(name.lstrip("_"), value.shape, given, **{key: taken.get(key) for key in TAKES[name]})

    def _parts(self, parts: Any, dim: int, source: Any) -> list[int]:
        ends = torch.tensor([part.shape[dim] for part in parts]).cumsum(0).tolist()
        cuts = zip([0, *ends], ends, parts, strict=False)
        return [self._add("slice", part.shape, [source], dim=dim, start=a, end=b, step=1) for a, b, part in cuts]

    def _input(self, n: Node, a: Any) -> Any:
        if isinstance(a, Node):
            return {"v": self.places[a]} if a in self.places else {"w": self.weights.index(self.known[a])}
        if isinstance(a, bool | int | float) and math.isfinite(a):
            return float(a)
        raise _unknown(n)

    def _add(self, op: str, shape: Any, inputs: list[Any], **more: Any) -> int:
        self.steps.append({"op": op, "shape": list(shape), "in": inputs} | more)
        return len(self.steps)


def _behind(output: Node) -> set[Node]:
    """A node and all that it depends on."""
    found, todo = set(), [output]
    while todo:
        if (n := todo.pop()) not in found:
            found.add(n)
            todo += n.all_input_nodes
    return found


def _name(n: Node) -> str:
    """view, of torch.ops.aten.view.default."""
    target: Any = n.target
    return str(getattr(target, "overloadpacket", target).__name__)


def _schema(n: Node) -> Any:
    target: Any = n.target
    return target._schema.arguments


def _inputs(n: Node) -> set[str]:
    """The names of those arguments that are tensors, or numbers in the place of one."""
    tensors = {a.name for a in _schema(n) if "Tensor" in str(a.type)}
    return tensors | {"other", "exponent", "self"}


def _arguments(n: Node) -> dict[str, Any]:
    """All arguments by name, defaults among them."""
    if _name(n) == "getitem":
        return {}
    names = [a.name for a in _schema(n)]
    given = dict(zip(names, n.args, strict=False)) | dict(n.kwargs)
    return {a.name: given.get(a.name, a.default_value) for a in _schema(n) if a.name not in IDLE}


def _unknown(n: Node) -> ValueError:
    return ValueError(
        f"explore expects a decoder of usual layers, and this one needs {n.target}, which a page cannot compute; use "
        "network='mlp' or 'conv'"
    )
