"""Networks for sequences of a fixed length, [T, D]: time first.

Decoders give every step from the code alone: p(x | z) of such a likelihood has its steps independent given z. One that
feeds a distribution with P parameters per element returns [P·T, D], parameter p of step t in row p·T + t.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn as nn
from torch import Tensor

from ..arguments import check_whole
from ..config import Configured
from .base import Network, Shape, as_activation, as_sizes, check_kind, linear


def _sequence(shape: Shape, who: str) -> tuple[int, int]:
    check_kind(who, "sequences [T, D]", shape, 2)
    t, d = (int(n) for n in shape)
    return t, d


def _parameters(network: Network, steps: int | None) -> tuple[int, int]:
    """The number of steps T, and of parameters P per element, of outputs [P·T, D]. Raises ValueError."""
    who, rows = type(network).__name__, network.outputs[0]
    steps = rows if steps is None else check_whole(who, "steps", steps)
    if rows % steps:
        raise ValueError(
            f"{who} expects outputs [P · steps, D] with P parameters per element, got {list(network.outputs)} and "
            f"steps={steps}; give the length of the data as steps"
        )
    return steps, rows // steps


def _widths(network: nn.Module, hidden: Sequence[int]) -> tuple[int, ...]:
    if not (widths := as_sizes(network, "hidden", hidden)):
        raise ValueError(f"{type(network).__name__} expects hidden as at least one width, got []; give [64]")
    return widths


class StepLinear(nn.Module):
    """Every step's features to its rows of the output: [N, T, H] -> [N, P·T, D]."""

    def __init__(self, width: int, parameters: int, features: int) -> None:
        super().__init__()
        self.split = (parameters, features)
        self.linear = linear(width, parameters * features)

    def forward(self, h: Tensor) -> Tensor:
        """Parameter p of step t, feature d, at [p·T + t, d]."""
        y = self.linear(h).unflatten(-1, self.split)  # [N, T, P, D]
        return y.transpose(1, 2).flatten(1, 2)  # [N, P, T, D] -> [N, P·T, D]


class Last(nn.Module):
    """The last step: [N, T, H] -> [N, H]."""

    def forward(self, h: Tensor) -> Tensor:
        """h_T."""
        return h[:, -1]


class Mean(nn.Module):
    """The mean over the steps: [N, T, H] -> [N, H]."""

    def forward(self, h: Tensor) -> Tensor:
        """Σ_t h_t / T."""
        return h.mean(1)


class Repeat(nn.Module):
    """The same at every step: [N, *] -> [N, T, H]."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, z: Tensor) -> Tensor:
        """z, z, ..., z."""
        return z.flatten(1)[:, None].expand(-1, self.steps, -1)


class GRULayer(Configured, nn.Module):
    """A gated recurrent unit over all steps, [N, T, D] -> [N, T, H], from a state of zeros: torch's nn.GRU.

        r = σ(W_r x_t + U_r h),  u = σ(W_u x_t + U_u h),  n = tanh(W_n x_t + r ⊙ U_n h),  h ← n + u ⊙ (h − n)

    Written out, as nn.GRU keeps its weights in a second place, where a graph that is captured does not look.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(features, 3 * width)  # W_r, W_u, W_n
        self.state = nn.Linear(width, 3 * width)  # U_r, U_u, U_n
        for each in (self.inputs, self.state):
            nn.init.zeros_(each.bias)
        for w, u in zip(self.inputs.weight.detach().chunk(3), self.state.weight.detach().chunk(3), strict=True):
            nn.init.xavier_uniform_(w)
            nn.init.orthogonal_(u)  # from torch's own start a decoder may learn nothing for 1,000 steps
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        """The states after every step."""
        h, states = x.new_zeros(len(x), self.width), []
        for from_x in self.inputs(x).unbind(1):
            x_r, x_u, x_n = from_x.chunk(3, -1)  # [N, 3H] -> [N, H] each
            h_r, h_u, h_n = self.state(h).chunk(3, -1)
            new = torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n)
            h = torch.lerp(new, h, torch.sigmoid(x_u + h_u))
            states.append(h)
        return torch.stack(states, 1)


class GRU(Network):
    """An encoder for sequences [T, D]: gated recurrent units over time, then a linear layer from the last state.

    A graph of a training step holds every time step: encoder and decoder together take about 3 s to capture for
    T = 20 and 12 s for T = 100, and minutes to compile, for a step that is hardly faster than in Python on a CPU.

    Args:
        inputs: [T, D].
        outputs: event shape of the output.
        hidden: widths of the recurrent layers, one above the other.

    Reference: Cho et al., "Learning phrase representations using RNN encoder-decoder", 2014.

    >>> import torch
    >>> GRU([20, 8], [6], hidden=[32])(torch.zeros(5, 3, 20, 8)).shape
    torch.Size([5, 3, 6])
    """

    def __init__(self, inputs: Shape, outputs: Shape, hidden: Sequence[int] = (128,)) -> None:
        super().__init__(inputs, outputs)
        _, features = _sequence(inputs, "GRU")
        widths = [features, *_widths(self, hidden)]
        layers: list[nn.Module] = [GRULayer(n, m) for n, m in itertools.pairwise(widths)]
        layers += [Last(), linear(widths[-1], math.prod(outputs)), nn.Unflatten(1, self.outputs)]
        self.body = nn.Sequential(*layers)


class GRUDecoder(Network):
    """A decoder to sequences [T, D]: the code is the input of every step; each state gives its step by a linear layer.

    Args:
        inputs: event shape of the input, e.g. [20].
        outputs: [T, D]; or [P·T, D], P parameters per element one after the other, as `chunk` takes them apart.
        hidden: widths of the recurrent layers, from the code on.
        steps: T, where P > 1.

    >>> import torch
    >>> GRUDecoder([6], [20, 8], hidden=[32])(torch.zeros(5, 3, 6)).shape
    torch.Size([5, 3, 20, 8])
    """

    def __init__(self, inputs: Shape, outputs: Shape, hidden: Sequence[int] = (128,), steps: int | None = None) -> None:
        super().__init__(inputs, outputs)
        _, features = _sequence(outputs, "GRUDecoder")
        length, parameters = _parameters(self, steps)
        widths = [math.prod(inputs), *_widths(self, hidden)]
        layers: list[nn.Module] = [Repeat(length), *(GRULayer(n, m) for n, m in itertools.pairwise(widths))]
        self.body = nn.Sequential(*layers, StepLinear(widths[-1], parameters, features))


class Attention(nn.Module):
    """Self-attention over the steps with several heads: softmax(Q Kᵀ / √d) V in each, then a linear layer.

    Written out, as torch's fused kernels have no second derivatives, nor forward ones.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)  # a key's bias is the same for all steps: without effect
        self.out = linear(width, width)
        nn.init.xavier_uniform_(self.qkv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, H], unchanged in shape."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # [N, heads, T, d] each
        weights = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)  # [N, heads, T, T]
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """h ← h + attention(norm(h)), then h ← h + f(norm(h)), f two linear layers with four times the width between."""

    def __init__(self, width: int, heads: int, activation: str) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), Attention(width, heads))
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), linear(width, 4 * width), as_activation(activation), linear(4 * width, width)
        )

    def forward(self, h: Tensor) -> Tensor:
        """[N, T, H], unchanged in shape."""
        h = h + self.attention(h)
        return h + self.feed_forward(h)


class Positions(nn.Module):
    """Adds a learned vector for each step: [N, T, H], unchanged in shape."""

    def __init__(self, steps: int, width: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(0.5 * torch.randn(steps, width))  # from small ones a decoder may learn nothing

    def forward(self, h: Tensor) -> Tensor:
        """h_t + p_t."""
        return h + self.positions


def _blocks(network: nn.Module, hidden: Sequence[int], heads: int, activation: str) -> tuple[int, list[nn.Module]]:
    """The width, and a block of it for each entry of `hidden`, with the norm that ends them. Raises ValueError."""
    who, widths = type(network).__name__, _widths(network, hidden)
    heads = check_whole(who, "heads", heads)
    if len(set(widths)) > 1:
        raise ValueError(f"{who} expects one width for all of its blocks, got {list(widths)}; give {[widths[0]] * 2}")
    if (width := widths[0]) % heads:
        raise ValueError(
            f"{who} expects a width that its {heads} heads divide, got {width}; give hidden as multiples of {heads}"
        )
    return width, [*(TransformerBlock(width, heads, activation) for _ in widths), nn.LayerNorm(width)]


class Transformer(Network):
    """An encoder for sequences [T, D]: self-attention blocks with learned positions, then the mean over the steps.

        h_t = W x_t + p_t;    h ← h + attention(norm(h)),    h ← h + f(norm(h)) in each block    ("pre-norm")

    There is no dropout: an objective that runs the posterior twice has to see it twice.

    Args:
        inputs: [T, D].
        outputs: event shape of the output.
        hidden: a width for each block, the same for all.
        heads: attention heads; a divisor of the width.
        activation: as in `MLP`.

    References: Vaswani et al., "Attention is all you need", 2017; Xiong et al., "On layer normalization in the
    transformer architecture", 2020.

    >>> import torch
    >>> Transformer([20, 8], [6], hidden=[32, 32])(torch.zeros(5, 3, 20, 8)).shape
    torch.Size([5, 3, 6])
    """

    def __init__(
        self,
        inputs: Shape,
        outputs: Shape,
        hidden: Sequence[int] = (64, 64),
        heads: int = 4,
        activation: str = "gelu",
    ) -> None:
        super().__init__(inputs, outputs)
        steps, features = _sequence(inputs, "Transformer")
        width, blocks = _blocks(self, hidden, heads, activation)
        end = [Mean(), linear(width, math.prod(outputs)), nn.Unflatten(1, self.outputs)]
        self.body = nn.Sequential(linear(features, width), Positions(steps, width), *blocks, *end)


class TransformerDecoder(Network):
    """A decoder to sequences [T, D]: the code at every step, with learned positions, through self-attention blocks.

    Every step attends to all others; nothing is masked, as none is predicted from those before it.

    Args:
        inputs: event shape of the input, e.g. [20].
        outputs: [T, D], or [P·T, D], as in `GRUDecoder`.
        hidden: as in `Transformer`.
        heads: as in `Transformer`.
        activation: as in `MLP`.
        steps: T, where P > 1.

    >>> import torch
    >>> TransformerDecoder([6], [20, 8], hidden=[32, 32])(torch.zeros(5, 3, 6)).shape
    torch.Size([5, 3, 20, 8])
    """

    def __init__(
        self,
        inputs: Shape,
        outputs: Shape,
        hidden: Sequence[int] = (64, 64),
        heads: int = 4,
        activation: str = "gelu",
        steps: int | None = None,
    ) -> None:
        super().__init__(inputs, outputs)
        _, features = _sequence(outputs, "TransformerDecoder")
        length, parameters = _parameters(self, steps)
        width, blocks = _blocks(self, hidden, heads, activation)
        start = [nn.Flatten(), linear(math.prod(inputs), width), Repeat(length), Positions(length, width)]
        self.body = nn.Sequential(*start, *blocks, StepLinear(width, parameters, features))
