"""Whether runs trained for long enough to say something of what a paper claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from repro.engine.cost import train_samples
from repro.records import Record, RunSpec

__all__ = ["Length", "no_shorter", "planned_length"]


@dataclass(frozen=True)
class Length:
    """What a stage of training sees at most.

    Arguments:
        epochs: Passes over the training split.
        samples: Samples in all passes.
        steps: Steps of the optimiser.
    """

    epochs: int
    samples: int
    steps: int

    def __ge__(self, other: Length) -> bool:
        return self.epochs >= other.epochs and self.samples >= other.samples and self.steps >= other.steps


def planned_length(spec: RunSpec, stage: str) -> Length | None:
    """What a stage of a run sees unless a rule ends it before; None where nothing tells how many samples there are.

    Arguments:
        spec: The run.
        stage: The stage's name; one without settings of its own has those of the run.
    """
    training, samples = spec.params["training"], train_samples(spec)
    if samples is None:
        return None
    own = {**training, **training.get("stages", {}).get(stage, {})}
    epochs, size = own["epochs"], own["batch_size"]
    return Length(epochs, epochs * samples, epochs * -(-samples // size))


def no_shorter(record: Record, published: Sequence[RunSpec]) -> bool:
    """Whether each stage that no stopping rule ended had at least the length that the paper profile gives it.

    Such a run has not converged, but nor has it to: a paper that trains for 30 epochs (CoVAE, appendix B) claims
    something of models after 30 epochs. No shorter is no fewer epochs, no fewer samples in all and no fewer steps.
    Stages without a rule, as CoVAE's Deep CCA, are asked as well: what they make, as its prior, rests on their length.

    Arguments:
        record: A run of which a stage has a stopping rule.
        published: What the paper profile has in its place, a run a seed; none where it has nothing there.
    """
    stages = dict.fromkeys([*record.ended, *record.spec.params["training"].get("stages", {})])
    for stage in (name for name in stages if not record.ended.get(name)):
        own = planned_length(record.spec, stage)
        theirs = [planned_length(spec, stage) for spec in published]
        if own is None or not theirs or any(x is None or not own >= x for x in theirs):
            return False
    return True
