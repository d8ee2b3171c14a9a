"""One training in several processes: who does what, and what they tell each other.

`Crew` is the interface with the training loop, and the crew of one process: it does nothing. `Ranks` share each batch
and average gradients; `Shards` keep parameters and the optimiser's state in pieces as well. `launch.py` starts them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import pyro
import torch
import torch.nn as nn
from torch import Tensor

from ..data import Dataset
from ..data.dataset import share_of
from ..objectives import Estimate, Objective
from ..program import evaluating, home

T = TypeVar("T")
LISTEN = 20  # steps between two looks for a Ctrl-C on another rank


class Crew:
    """One process: all data are its own, and nobody has to be told.

    Attributes:
        rank, size: which of how many processes.
        device: where this one computes.
        order: the generator of permutations, equal on all ranks; None is torch's global one.
        seed: of the noise of this rank.
    """

    rank, size = 0, 1
    capturable = True  # whether the step may be a captured graph
    order: torch.Generator | None = None

    def __init__(self, device: torch.device, seed: int) -> None:
        self.device, self.given_seed, self.seed = device, seed, seed

    @property
    def main(self) -> bool:
        """Whether this process writes, prints and shows a bar."""
        return self.rank == 0

    # Data

    def weight(self, n: int, batch_size: int, step: int) -> float:
        """The share of this rank in a batch of an epoch of n data, b_r / B; 0 for a batch with no row for it."""
        return 1.0

    def check_shares(self, vae: Any, objective: Objective, data: Dataset, batch_size: int) -> None:
        """The objective on the smallest shares that there will be, so that it is refused on all ranks or on none."""

    # A step

    def set_up(self, vae: Any, objective: Objective, autocast: bool = False) -> None:
        """Equal starts on all ranks; to be called before the optimiser is made."""
        self.vae, self.objective, self.autocast = vae, objective, autocast

    def step(self, gradient: Callable[[], Tensor], x: Tensor, weight: float) -> Tensor:
        """The gradient of the mean over the whole batch, in .grad of the parameters.

        Args:
            gradient: puts that of the mean over x into .grad, and returns the sum of the bounds.
            x: this rank's share of the batch.
            weight: of the share.

        Returns:
            The sum of the bounds of this rank's share.
        """
        return gradient()

    def estimate(self, x: Tensor) -> Estimate:
        """The objective without gradient."""
        return self.objective(self.vae, x)

    def listen(self, step: int = 0) -> None:
        """Raises KeyboardInterrupt on every rank at the same step, if any was interrupted."""

    def listening(self) -> AbstractContextManager[Any]:
        """Ctrl-C is noted inside, for `listen`; a second one interrupts at once."""
        return nullcontext()

    # Agreement

    def total(self, value: Tensor) -> Tensor:
        """The sum over ranks."""
        return value

    def first(self, act: Callable[[], T]) -> T:
        """What rank 0 finds by acting, on all ranks; its error is raised on all of them."""
        return act()

    def agree(self, act: Callable[[], T], key: Callable[[Exception], Any] | None = None) -> T:
        """Everyone acts; an error on any rank is raised on all: the first, or the smallest by `key`."""
        return act()

    def in_turn(self, act: Callable[[], T]) -> T:
        """Everyone acts, one process of each node before the others (downloads). Errors are raised on all."""
        return act()

    def sound(self, ok: bool, tensors: list[Tensor]) -> bool:
        """Whether all is well on every rank. Raises RuntimeError if the weights have drifted apart."""
        return ok

    def barrier(self) -> None:
        """Waits for all."""

    # State

    def local(self, value: Tensor) -> Tensor:
        """The part of a tensor that is held here."""
        return value

    def whole(self) -> AbstractContextManager[Any]:
        """The parameters of the model are whole inside, to be used without the function that `set_up` made."""
        return nullcontext()

    def capture(self) -> dict[str, Any]:
        """What the crew must remember to be continued."""
        return {}

    def put_back(self, captured: dict[str, Any]) -> None:
        """The crew as it was when it was captured."""

    def gathered(self, state: Any) -> Any:
        """A captured state of this rank as that of the run: whole tensors, and the random streams of all ranks."""
        return state

    def distributed(self, saved: dict[str, Any], vae: Any, objective: Objective, optimizer: Any) -> dict[str, Any]:
        """The reverse, for this rank.

        With as many ranks as before all streams go on. With another number the order of the data goes on as it was,
        and the noise is drawn anew from seed, rank and epoch.
        """
        if "ranks" not in saved:
            return saved
        return saved | {"rng": [saved["order"], *self._fresh(saved)[1:]]}

    def disband(self, *modules: nn.Module) -> None:
        """Leaves ordinary modules with whole parameters behind."""

    def _fresh(self, saved: dict[str, Any]) -> list[Tensor]:
        """Random states of a noise that was not drawn before."""
        seed = mixed(self.given_seed, self.rank, len(saved["progress"]["rows"]))
        devices = [torch.device("cpu"), *([self.device] if self.device.type == "cuda" else [])]
        return [torch.Generator(d).manual_seed(seed).get_state() for d in devices]


class Ranks(Crew):
    """Several processes, each with the whole model: replicas whose gradients are averaged after every backward pass.

    Gradients, and the changes of buffers (running means), travel in one flat tensor, weighted by b_r / B. Not torch's
    DistributedDataParallel: that averages inside the forward pass of one module, with equal weights, and does not see
    gradients that a captured graph has filled in.
    """

    def __init__(self, fabric: Any, seed: int) -> None:
        super().__init__(fabric.device, seed)
        self.fabric, self.rank, self.size = fabric, fabric.global_rank, fabric.world_size
        self.seed = mixed(seed, self.rank)
        self.order = torch.Generator().manual_seed(seed)
        self.parameters: list[nn.Parameter] = []
        self.buffers: list[Tensor] = []
        self.interrupted = False

    def weight(self, n: int, batch_size: int, step: int) -> float:
        """b_r / B."""
        rows = min(batch_size, n - step * batch_size)
        mine = share_of(rows, self.rank, self.size)
        return (mine.stop - mine.start) / rows

    def check_shares(self, vae: Any, objective: Objective, data: Dataset, batch_size: int) -> None:
        """Raises what the objective raises."""
        x = next(data.batches("train", batch_size, shuffle=False, device=self.device)).to(home(vae)[1])
        n = data.size("train")
        for rows in {min(batch_size, n), n % batch_size} - {0}:
            with evaluating(vae), torch.enable_grad(), pyro.validation_enabled(False):
                objective(vae, x[: max(1, rows // self.size)])

    def set_up(self, vae: Any, objective: Objective, autocast: bool = False) -> None:
        """Raises ValueError where the ranks have built different models."""
        super().set_up(vae, objective, autocast)
        states = {**vae.state_dict(prefix="model."), **objective.state_dict(prefix="objective.")}
        shapes = {k: (tuple(v.shape), v.dtype) for k, v in states.items()}
        theirs = self.first(lambda: shapes)

        def compare() -> None:
            if shapes != theirs:
                raise ValueError(f"rank {self.rank} has built another model than rank 0; build the same on all ranks")

        self.agree(compare)
        for value in states.values():
            torch.distributed.broadcast(value.detach(), 0)
        self.parameters = [p for m in (vae, objective) for p in m.parameters() if p.requires_grad]
        self.buffers = [b for m in (vae, objective) for b in m.buffers() if b.is_floating_point()]

    def step(self, gradient: Callable[[], Tensor], x: Tensor, weight: float) -> Tensor:
        """The gradient, then one all-reduce."""
        before = [b.clone() for b in self.buffers]
        bound = gradient()
        self._average(before, weight)
        return bound if weight else torch.zeros_like(bound)

    def _average(self, before: list[Tensor], weight: float) -> None:
        """Σ_r b_r/B of the gradients, and of what was added to the buffers: whoever did not change stays bit-equal."""
        with torch.no_grad():
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters]
            pairs = list(zip(before, self.buffers, strict=True))
            added = [torch.where(b == a, 0, b - a) for a, b in pairs]  # a mask may hold infinities
            pieces = [*grads, *added]
            flat = torch.cat([t.reshape(-1) for t in pieces])
            flat = flat.mul_(weight) if weight else flat.zero_()
            torch.distributed.all_reduce(flat)  # Fabric's all_reduce waits at a barrier first: twice the latency
            sums = [f.view_as(t) for f, t in zip(flat.split([t.numel() for t in pieces]), pieces, strict=True)]
            for p, g in zip(self.parameters, sums, strict=False):
                if p.grad is not None:
                    p.grad = g.to(p.dtype)  # what is there may be a view that cannot be written to
            for (a, b), d in zip(pairs, sums[len(grads) :], strict=True):
                b.copy_(a + d)

    def listen(self, step: int = 0) -> None:
        """A sum of one number, every so many steps."""
        if step % LISTEN == 0 and self.total(torch.tensor(float(self.interrupted), device=self.device)) > 0:
            raise KeyboardInterrupt

    @contextmanager
    def listening(self) -> Generator[None]:
        """In the main thread alone: no other has signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(*_: Any) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, signal.default_int_handler)

        before = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def total(self, value: Tensor) -> Tensor:
        """The sum over ranks."""
        value = value.detach().clone()
        torch.distributed.all_reduce(value)
        return value

    def _all(self, value: Any) -> list[Any]:
        values = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def first(self, act: Callable[[], T]) -> T:
        """Acts on rank 0 alone."""
        result, error = _tried(act) if self.main else (None, None)
        result, told = self.fabric.broadcast((result, _portable(error)))
        if told is not None:
            raise error or told
        return result

    def agree(self, act: Callable[[], T], key: Callable[[Exception], Any] | None = None) -> T:
        """Acts on all ranks, whatever becomes of the others."""
        result, error = _tried(act)
        errors = [e for e in self._all(_portable(error)) if e is not None]
        if errors:
            chosen = min(errors, key=key) if key else errors[0]
            raise error if error is not None and str(error) == str(chosen) else chosen
        return result

    def in_turn(self, act: Callable[[], T]) -> T:
        """Local rank 0 acts before the others of its node."""
        leads = self.fabric.local_rank == 0
        before, after = [self.agree(act if leads is now else _nothing) for now in (True, False)]
        return before if leads else after

    def sound(self, ok: bool, tensors: list[Tensor]) -> bool:
        """All ranks must be well, and have the same weights."""
        checksum = float(sum(t.double().sum() for t in tensors))
        known = self._all((ok, checksum))
        if not all(well for well, _ in known):
            return False
        if any(abs(c - known[0][1]) > 1e-9 * abs(known[0][1]) for _, c in known):
            raise RuntimeError(
                "the ranks have drifted apart: their weights are no longer equal. A parameter may have a gradient on "
                "some ranks alone, or the model may change its own weights"
            )
        return True

    def barrier(self) -> None:
        """Waits for all."""
        self.fabric.barrier()

    def capture(self) -> dict[str, Any]:
        """The order of the data."""
        assert self.order is not None
        return {"order": self.order.get_state()}

    def put_back(self, captured: dict[str, Any]) -> None:
        """The order of the data."""
        assert self.order is not None
        self.order.set_state(captured["order"])

    def gathered(self, state: Any) -> Any:
        """The random streams of all ranks beside it."""
        return state | {"ranks": self._all(state["rng"])} if "rng" in state else state

    def distributed(self, saved: dict[str, Any], vae: Any, objective: Objective, optimizer: Any) -> dict[str, Any]:
        """The streams of this rank; with another number of ranks the order of the data goes on and the noise is new."""
        if len(saved.get("ranks", ())) == self.size:
            return saved | {"rng": saved["ranks"][self.rank]}
        return saved | {"rng": self._fresh(saved), "order": saved.get("order", saved["rng"][0])}


class Shards(Ranks):
    """Several processes, each with a piece of every parameter, of its gradient and of the optimiser's state (FSDP2).

    The model is whole inside the forward and backward pass: objectives call its two methods, look its parameters up
    and run its guide twice. What is saved is what is kept between steps.
    """

    capturable = False
    module: Any = None
    hooks: list[tuple[nn.Module, str, dict[int, Any]]]

    def set_up(self, vae: Any, objective: Objective, autocast: bool = False) -> None:
        """Shards the parameters."""
        super().set_up(vae, objective, autocast)
        modules = [*vae.modules(), *objective.modules()]
        self.hooks = [(m, name, dict(getattr(m, name))) for m in modules for name in _HOOKS]
        self.module = self.fabric.setup_module(_Loss(vae, objective), move_to_device=False)
        self.parameters = []  # torch reduces their gradients

    def estimate(self, x: Tensor) -> Estimate:
        """The objective, with the model put together for it."""
        found = Estimate(*self.module(x))
        if not torch.is_grad_enabled():  # a backward pass would take it apart
            self._inner.reshard()
        return found

    @property
    def _inner(self) -> Any:
        """The sharded module inside Fabric's."""
        return self.module._forward_module

    def step(self, gradient: Callable[[], Tensor], x: Tensor, weight: float) -> Tensor:
        """A forward and a backward pass of its own; torch takes the plain mean over ranks."""
        before = [b.clone() for b in self.buffers]
        for p in self.module.parameters():
            p.grad = None
        with torch.autocast(x.device.type, torch.bfloat16) if self.autocast else nullcontext():
            found = self.estimate(x)
        (-found.surrogate.mean() * (weight * self.size)).backward()
        if self.buffers:
            self._average(before, weight)
        bound = found.bound.sum()
        return bound if weight else torch.zeros_like(bound)

    @contextmanager
    def whole(self) -> Generator[None]:
        """Every rank must come here."""
        self._inner.unshard()
        try:
            yield
        finally:
            self._inner.reshard()

    def local(self, value: Any) -> Tensor:
        """This rank's piece."""
        return value.to_local() if _in_pieces(value) else value

    def sound(self, ok: bool, tensors: list[Tensor]) -> bool:
        """Pieces are not equal; those that are whole are not looked at."""
        return super().sound(ok, [])

    def gathered(self, state: Any) -> Any:
        """Whole tensors. Every rank must come here."""
        return super().gathered(_mapped(state, _whole))

    def distributed(self, saved: dict[str, Any], vae: Any, objective: Objective, optimizer: Any) -> dict[str, Any]:
        """Pieces like those of the parameters."""
        saved = super().distributed(saved, vae, objective, optimizer)
        parts = {}
        for part, module in (("model", vae), ("objective", objective)):
            own = module.state_dict()
            parts[part] = {k: _like(v, own.get(k)) for k, v in saved[part].items()}
        parameters = [p for g in optimizer.param_groups for p in g["params"]]
        kept = saved["optimizer"]["state"].items()
        known = {i: parameters[i] if i < len(parameters) else None for i, _ in kept}
        state = {i: {k: _like(v, known[i]) for k, v in values.items()} for i, values in kept}
        return saved | parts | {"optimizer": saved["optimizer"] | {"state": state}}

    def disband(self, *modules: nn.Module) -> None:
        """Whole parameters in the places of the pieces."""
        self._inner.reshard()
        made: dict[int, nn.Parameter] = {}
        for module in (m for top in modules for m in top.modules()):
            for name, p in module._parameters.items():
                if p is not None and _in_pieces(p):
                    if id(p) not in made:
                        made[id(p)] = nn.Parameter(_whole(p.detach()).clone(), p.requires_grad)
                    module._parameters[name] = made[id(p)]
        for m, name, before in self.hooks:  # torch's own would look for the pieces
            getattr(m, name).clear()
            getattr(m, name).update(before)


_HOOKS = ("_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks")


class _Loss(nn.Module):
    """Model and objective as one module whose forward pass is what torch shards."""

    def __init__(self, vae: Any, objective: Objective) -> None:
        super().__init__()
        self.vae, self.objective = vae, objective

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Bound and surrogate."""
        e = self.objective(self.vae, x)
        return e.bound, e.surrogate


def mixed(seed: int, *others: int) -> int:
    """A seed of its own for every rank: neighbouring seeds and ranks share nothing."""
    words = [seed % 2**64, *others]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def _tried(act: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return act(), None
    except Exception as error:
        return None, error


def _portable(error: Exception | None) -> Exception | None:
    """An error that can be sent: of the same kind where that is one of ours or of Python's."""
    if error is None:
        return None
    kind = type(error)
    if kind.__module__.partition(".")[0] in ("builtins", "pyrovae") and error.args == (str(error),):
        return kind(str(error))
    return RuntimeError(f"{kind.__name__}: {error}")


def _nothing() -> Any:
    return None


def _in_pieces(value: Any) -> bool:
    """Whether a tensor is torch's DTensor, without the import of it."""
    return hasattr(value, "full_tensor")


def _whole(value: Any) -> Tensor:
    """Every rank must come here, with its piece."""
    return value.full_tensor() if _in_pieces(value) else value


def _mapped(value: Any, function: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {k: _mapped(v, function) for k, v in value.items()}
    return [_mapped(v, function) for v in value] if isinstance(value, list | tuple) else value


def _like(value: Any, own: Any) -> Any:
    """A whole tensor in pieces like one's own, where that is in pieces and of the same shape."""
    if not isinstance(value, Tensor) or not _in_pieces(own) or value.shape != own.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
