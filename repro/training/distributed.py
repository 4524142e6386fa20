r"""Several processes that train one model on the same batches.

Every batch of :math:`N` samples is divided into :math:`S` shards in order. The gradient of a step is that of

.. math:: \sum_{s=1}^S \frac{n_s}{N} L_s,

where :math:`L_s` is the model's loss on shard :math:`s` of :math:`n_s` samples, with noise from a stream of its own,
seeded by run, epoch, step and shard. Processes share the shards out, so that the result depends on their number S, not
on the number of processes, up to the order of floating-point sums. For a loss that is a mean over samples the sum is
the loss of the whole batch. Terms of a batch as a whole (a maximum mean discrepancy, a partition function estimated
from the batch, batch normalisation) are those of a shard, averaged over shards: for them S is like the batch size a
setting of the method, and a record says which S it was measured with.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from repro.model import Loss, Stage, TrainableModel, isolated_rng

__all__ = ["ALONE", "Parallel", "ShardedLoss", "gathered", "shard_seed"]

Result = TypeVar("Result")


def shard_seed(seed: int, shard: int) -> int:
    """The seed of one shard's noise, a hash of the seed that all shards share and the shard's index."""
    return int.from_bytes(hashlib.sha256(f"{seed}/shard/{shard}".encode()).digest()[:8], "big") >> 2


@dataclass(frozen=True)
class Parallel:
    """The processes that train together.

    Arguments:
        rank: This process, from 0 on; the first one writes.
        world: Number of processes; over one, torch.distributed must be initialised.
        shards: Parts that every batch is divided into.

    Raises:
        ValueError: If the rank is not one of the processes, or the shards cannot be shared out evenly.
    """

    rank: int = 0
    world: int = 1
    shards: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank is {self.rank}, must be from 0 to {self.world - 1}")
        if self.shards < 1 or self.shards % self.world:
            raise ValueError(
                f"{self.shards} shards cannot be shared out evenly among {self.world} processes; "
                f"--shards must be a multiple of {self.world}"
            )

    @property
    def own(self) -> range:
        """The shards of this process."""
        each = self.shards // self.world
        return range(self.rank * each, (self.rank + 1) * each)

    def slices(self, size: int) -> list[slice]:
        """Rows of every shard of so many samples; the first shards are larger by one where it does not divide."""
        bounds = [size // self.shards * s + min(s, size % self.shards) for s in range(self.shards + 1)]
        return [slice(a, b) for a, b in itertools.pairwise(bounds)]

    def loss(self, model: TrainableModel, stage: Stage) -> ShardedLoss | None:
        """What computes gradients by shards; None where a batch is one piece."""
        return None if self.shards == 1 else ShardedLoss(model, stage, self)

    def any(self, flag: bool) -> bool:
        """Whether the flag is true in some process."""
        if self.world == 1:
            return flag
        return bool(self._reduced(torch.tensor(float(flag))).item() > 0)

    def sum(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Sums over processes, by name; a process without a value of that name adds nothing."""
        if self.world == 1:
            return dict(values)
        names = list(dict.fromkeys(n for part in self.gather(list(values)) for n in part))
        zero = torch.zeros((), device=next((v.device for v in values.values()), None))
        stacked = torch.stack([values.get(n, zero).to(torch.float64) for n in names]) if names else zero[None]
        found = self._reduced(stacked)
        return {n: found[i] for i, n in enumerate(names)}

    def gather(self, value: Any) -> list[Any]:
        """The value of every process, in their order."""
        if self.world == 1:
            return [value]
        out: list[Any] = [None] * self.world
        dist.all_gather_object(out, value)
        return out

    def share(self, compute: Callable[[], Result]) -> Result:
        """What the first process computes, in all of them; an error that it raises is raised in all of them."""
        if self.world == 1:
            return compute()
        box: list[Any] = [None, None]
        if self.rank == 0:
            try:
                box[0] = compute()
            except Exception as error:
                box[1] = error
        dist.broadcast_object_list(box, src=0)
        if box[1] is not None:
            raise box[1]
        return box[0]

    def first_then_others(self, compute: Callable[[], Result]) -> Result:
        """What each process computes, the first one before the others."""
        if self.rank == 0:
            found = compute()
            self.barrier()
            return found
        self.barrier()
        return compute()

    def barrier(self) -> None:
        """Waits until every process is here."""
        if self.world > 1:
            dist.barrier()

    def _reduced(self, value: Tensor) -> Tensor:
        if dist.get_backend() == "nccl":
            value = value.cuda()
        dist.all_reduce(value)
        return value


ALONE = Parallel()


class _LossModule(nn.Module):
    """The loss as a forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, model: TrainableModel, stage: Stage) -> None:
        super().__init__()
        self.model, self.stage = model, stage

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        loss: Loss = self.model.loss(batch, self.stage)
        if loss.parts:
            raise ValueError(
                f"the loss of {type(self.model).__name__} has a part for each of {list(loss.parts)}, chosen by the "
                "whole batch; it is trained by one process, with one shard"
            )
        return loss.total, {name: value.detach() for name, value in loss.terms.items()}


class ShardedLoss:
    """The loss of a batch by shards, see this module's formula.

    Buffers that the loss changes (running statistics, moving averages) are those that the first shard leaves, so that
    they change once a step with any number of processes.

    Arguments:
        model: The model.
        stage: The stage that is trained.
        parallel: Processes and shards.
    """

    def __init__(self, model: TrainableModel, stage: Stage, parallel: Parallel) -> None:
        self.model, self.parallel = model, parallel
        self.module: nn.Module = _LossModule(model, stage)
        if parallel.world > 1:
            # A stage may leave parameters out of its graph; buffers are shared below.
            options: dict[str, Any] = {"find_unused_parameters": True, "broadcast_buffers": False}
            self.module = DistributedDataParallel(self.module, **options)

    def backward(self, batch: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
        """Adds the step's gradients, and returns the sums over this process's samples of the loss and its terms.

        Arguments:
            batch: The whole batch, the same in every process.
            seed: The step's seed.
        """
        size = len(next(iter(batch.values())))
        slices, own = self.parallel.slices(size), self.parallel.own
        before = self._buffers() if len(own) > 1 or self.parallel.world > 1 else {}
        versions = {n: b._version for n, b in self.model.named_buffers()}
        after: dict[str, Tensor] = {}
        sums: dict[str, Tensor] = {}
        for shard in own:
            rows = slices[shard]
            count = rows.stop - rows.start
            # A last batch smaller than the number of shards: the others compute along, with weight zero.
            part = {m: x[rows] if count else x[:1] for m, x in batch.items()}
            last = shard == own[-1]
            with self._synchronised(last), isolated_rng(shard_seed(seed, shard)):
                total, terms = self.module(part)
                (total * (count / size * self.parallel.world)).backward()
            for name, value in {"loss": total.detach(), **terms}.items():
                if count:
                    sums[name] = sums[name] + value * count if name in sums else value * count
            changed = [n for n, b in self.model.named_buffers() if b._version != versions[n]]
            if shard == 0:
                after = {n: b.clone() for n, b in self.model.named_buffers() if n in changed}
            self._restore({n: before[n] for n in changed if n in before})
            versions = {n: b._version for n, b in self.model.named_buffers()}
        self._restore(self._from_first(after, before))
        return sums

    def _buffers(self) -> dict[str, Tensor]:
        return {n: b.detach().clone() for n, b in self.model.named_buffers()}

    def _restore(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, buffer in self.model.named_buffers():
                if name in values:
                    buffer.copy_(values[name])

    def _from_first(self, after: dict[str, Tensor], before: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.parallel.world == 1 or not before:
            return after
        names = self.parallel.share(lambda: sorted(after))
        found = {n: after.get(n, before[n]) for n in names}
        for name in names:
            dist.broadcast(found[name], src=0)
        return found

    @contextlib.contextmanager
    def _synchronised(self, last: bool) -> Iterator[None]:
        if last or not isinstance(self.module, DistributedDataParallel):
            yield
        else:
            with self.module.no_sync():
                yield


@contextlib.contextmanager
def gathered(model: nn.Module, parallel: Parallel) -> Iterator[None]:
    """Within the block, the model's sampling and its log-likelihood are shared out and gathered.

    ``generate`` divides joint samples, or the points that it conditions on, into the shards, each with a generator of
    its own; ``log_likelihood`` divides its batch. Every process gets the whole result, so that all compute the same
    metrics from it; what is drawn depends on the number of shards, not of processes.

    Arguments:
        model: The model; untouched where there is one shard.
        parallel: Processes and shards.
    """
    if parallel.shards == 1:
        yield
        return
    names = [n for n in ("generate", "log_likelihood") if hasattr(model, n)]
    whole = {n: getattr(model, n) for n in names}

    def seeded(generator: torch.Generator | None) -> tuple[int, str]:
        device = "cpu" if generator is None else generator.device
        seed = int(torch.randint(2**62, (), generator=generator, device=device).item())
        return parallel.share(lambda: seed), str(device)

    def join(parts: dict[int, Any], dim: int) -> Any:
        device = next((x.device for p in parts.values() for x in ([p] if torch.is_tensor(p) else p.values())), None)
        everything = {s: p for found in parallel.gather(_on(parts, "cpu")) for s, p in found.items()}
        ordered = [_on(everything[s], device) for s in sorted(everything)]
        if torch.is_tensor(ordered[0]):
            return torch.cat(ordered, dim)
        return {m: torch.cat([p[m] for p in ordered], dim) for m in ordered[0]}

    def generate(
        num_samples: int = 1,
        *,
        given: Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> dict[str, Tensor]:
        seed, device = seeded(generator)
        size = num_samples if given is None else len(next(iter(given.values())))
        parts = {}
        for shard in parallel.own:
            rows = parallel.slices(size)[shard]
            if count := rows.stop - rows.start:
                own = torch.Generator(device).manual_seed(shard_seed(seed, shard))
                points = None if given is None else {m: x[rows] for m, x in given.items()}
                number = count if given is None else num_samples
                parts[shard] = whole["generate"](number, given=points, generator=own, **options)
        return join(parts, 0 if given is None else 1)

    def log_likelihood(
        batch: Mapping[str, Tensor],
        *,
        given: Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Tensor:
        seed, device = seeded(generator)
        parts = {}
        for shard in parallel.own:
            rows = parallel.slices(len(next(iter(batch.values()))))[shard]
            if rows.stop > rows.start:
                own = torch.Generator(device).manual_seed(shard_seed(seed, shard))
                points = None if given is None else {m: x[rows] for m, x in given.items()}
                piece = {m: x[rows] for m, x in batch.items()}
                parts[shard] = whole["log_likelihood"](piece, given=points, generator=own, **options)
        return join(parts, 0)

    replacements = {"generate": generate, "log_likelihood": log_likelihood}
    for name in names:
        setattr(model, name, replacements[name])
    try:
        yield
    finally:
        for name in names:
            delattr(model, name)


def _on(value: Any, device: Any) -> Any:
    if torch.is_tensor(value):
        return value.to(device)
    return {k: _on(v, device) for k, v in value.items()}
