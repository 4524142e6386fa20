"""The comparison of the three variants on MNIST triples: what is run (MRF MVAE, appendix D.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from repro import datasets
from repro.experiment import Cost, Experiment, Rows
from repro.papers import paper
from repro.papers.mrf_mvae.triples.readings import ALIKE, reading
from repro.records import Metric, RunSpec, of_profile
from repro.report.names import NAMES

if TYPE_CHECKING:
    from torch import Tensor

    from repro.datasets import Dataset
    from repro.model import MultimodalModel

__all__ = [
    "BETAS",
    "EXTRA",
    "FIGURE9",
    "LABELS",
    "NN_BETAS",
    "Triples",
    "ablation_runs",
    "chosen_betas",
    "figure9_runs",
    "reading_rows",
    "readings",
    "spec",
    "sweep_betas",
    "sweep_profile",
    "sweep_runs",
    "table4_runs",
]

DATASET = "mnist_triples"

# Table 4's rows, in its order.
LABELS = {m: NAMES[m] for m in ("nnmrf", "almrf", "gmrf")}
NN_BETAS = (0.0078, 0.0085)  # appendix D.2: of Table 4, and of Figure 9

# The readings of a profile, that of its table's own rows first; "quick" was recorded before the first was there.
READINGS: dict[str, tuple[str, ...]] = {"quick": ("digit",)}

# Rows under Table 4, one seed each: the variant, and what differs from its row of the table.
FIGURE9 = "NN-MRF MVAE, beta 0.0085 (Figure 9)"
EXTRA: dict[str, tuple[str, dict[str, Any]]] = {
    FIGURE9: ("nnmrf", {"beta": NN_BETAS[1]}),
    "ALMRF MVAE, with a location (erratum E2)": ("almrf", {"location": True}),
    "GMRF MVAE, four times as many epochs": ("gmrf", {"longer": 4}),
}
# Where training ends by a rule, an earlier end instead of a later one: the whole loss is some 2,190 nats, of which
# 2,161 are the Gaussian's constant, so that 0.05% of it is 1.1 nats, and the loss still falls when it ends so.
EARLIER = "GMRF MVAE, ended when five epochs gained less than 0.05% of the loss"
EXTRA_OVERNIGHT = {k: v for k, v in EXTRA.items() if "longer" not in v[1]} | {
    EARLIER: ("gmrf", {"min_improvement": 5e-4})
}

# What is tried for the two variants whose betas the paper does not name; the latter's weighs a penalty of at most ln 3.
# The reading "digit" was swept in the other profiles before "overnight" was there, over fewer values.
BETAS = {"gmrf": (0.03, 0.1, 0.3, 1.0), "almrf": (3.0, 10.0, 30.0, 100.0)}
FORMER_BETAS = {"gmrf": (0.1, 0.3, 1.0), "almrf": (10.0, 30.0, 100.0)}

# "paper": four layers of 1024, latent 8, 60,000 triples, 100 epochs, three seeds (appendices C and D.2). The batch, the
# optimiser and the numbers of samples are this package's, the paper has none. "overnight": the networks of "quick" on
# all triples but the held-out ones, until their loss has stopped improving; the epochs are the most that it takes.
PROFILES: dict[str, dict[str, Any]] = {
    "paper": {"width": 1024, "epochs": 100, "train_samples": 60_000, "num_samples": 10_000, "seeds": 3, "sweep": 20},
    "overnight": {"width": 256, "epochs": 100, "train_samples": 60_000, "num_samples": 10_000, "seeds": 3, "sweep": 20},
    "quick": {"width": 256, "epochs": 7, "train_samples": 60_000, "num_samples": 2_000, "seeds": 3, "sweep": 4},
    "smoke": {"width": 16, "epochs": 1, "train_samples": 500, "num_samples": 200, "seeds": 2, "sweep": 1},
}
CHAINS: dict[str, dict[str, Any]] = {
    "paper": {"num_chains": 1000, "burn_in": 600, "thinning": 100, "num_kept": 4},
    "overnight": {"num_chains": 1000, "burn_in": 600, "thinning": 100, "num_kept": 4},
    "quick": {"num_chains": 1000, "burn_in": 400, "thinning": 50, "num_kept": 4},
    "smoke": {"num_chains": 100, "burn_in": 20, "thinning": 5, "num_kept": 4},
}
BATCH_SIZE, LEARNING_RATE, LATENT_DIM = 128, 1e-3, 8
OVERNIGHT_TRAINING = {"batch_size": 256, "patience": 5, "min_improvement": 1e-5}  # of some 2,190 nats: 0.02
HELD_OUT = 5_000  # the last training triples, on which beta is chosen and overnight training ends

# Seconds of an epoch of 60,000 triples on one of two busy cores by profile and variant, and of the rest of a run.
EPOCH_SECONDS = {
    "paper": {"gmrf": 150.0, "almrf": 150.0, "nnmrf": 320.0},
    "overnight": {"gmrf": 20.0, "almrf": 20.0, "nnmrf": 40.0},
    "quick": {"gmrf": 24.0, "almrf": 24.0, "nnmrf": 45.0},
    "smoke": {"gmrf": 20.0, "almrf": 20.0, "nnmrf": 40.0},
}
OVERHEAD_SECONDS = {"paper": {"nnmrf": 1500.0}, "overnight": {"nnmrf": 300.0}, "quick": {"nnmrf": 60.0}, "smoke": {}}
PEAK_MEGABYTES = 1500


def chosen_betas(profile: str, alike: str = "image") -> Mapping[str, float]:
    """Variant to the beta that the sweep chose on held-out triples (paper.toml; ``table4-sweep`` shows how).

    Arguments:
        profile: The profile. The sweep of ``"overnight"`` speaks for all of them but for the reading ``"digit"``, whose
            other profiles have a sweep of their own.
        alike: The reading, one of ``ALIKE``.
    """
    return paper("mrf_mvae").betas["mnist_triples" if _former(profile, alike) else f"mnist_triples_{alike}"]


def sweep_betas(profile: str, alike: str) -> Mapping[str, Sequence[float]]:
    """Variant to the betas that are tried."""
    return FORMER_BETAS if _former(profile, alike) else BETAS


def sweep_profile(profile: str, alike: str) -> str:
    """The profile whose sweep speaks for the betas of a profile's runs."""
    return profile if _former(profile, alike) else "overnight"


def _former(profile: str, alike: str) -> bool:
    return alike == "digit" and profile != "overnight"


def spec(
    variant: str,
    seed: int,
    profile: str,
    *,
    alike: str = "image",
    sweep: bool = False,
    longer: int = 1,
    min_improvement: float | None = None,
    **changes: Any,
) -> RunSpec:
    """The specification of one run, every hyper-parameter resolved.

    Arguments:
        variant: ``"gmrf"``, ``"almrf"`` or ``"nnmrf"``.
        seed: Seed of initialisation and training; the data's seed is always 0.
        profile: The profile.
        alike: ``"image"`` or ``"digit"``, what the first two modalities show (erratum M7).
        sweep: Whether it is one of the choice of beta: shorter, without the held-out triples, measured on them alone.
        longer: Factor of the number of epochs.
        min_improvement: Of the rule that ends overnight training; the profile's if None.
        changes: Model settings that differ from the table's.

    Raises:
        ValueError: If the variant, the reading or a setting is unknown.
    """
    if variant not in LABELS:
        raise ValueError(f"unknown variant {variant!r}; one of {', '.join(LABELS)}")
    if not isinstance(alike, str) or alike not in ALIKE:
        raise ValueError(f"alike is {alike!r}, must be one of {', '.join(ALIKE)}")
    settings = of_profile(PROFILES, profile)
    model: dict[str, Any] = {
        "variant": variant,
        "latent_dim": LATENT_DIM,
        "width": settings["width"],
        "layers": 4,
        "beta": NN_BETAS[0] if variant == "nnmrf" else chosen_betas(profile, alike)[variant],
        "likelihood": "gaussian",
        "scale": 1.0,
        "reduction": "sum",
        "output": "linear",
        "hidden_dtype": "float32",
    }
    if variant == "almrf":
        model |= {"bandwidth": "median", "unbiased": True, "penalty": "aggregated", "location": False}
    elif variant == "nnmrf":
        model |= {"potential_widths": [settings["width"]] * 3, "confinement": 1.0, "partition": "batch"}
        model |= {"num_samples": 1, "chains": {"sampler": "metropolis", **CHAINS[profile]}}
    if unknown := sorted(set(changes) - set(model)):
        raise ValueError(f"{variant} has no setting {unknown}; it has {sorted(model)}")
    held_out = min(HELD_OUT, settings["train_samples"] // 2) if sweep or profile == "overnight" else 0
    training: dict[str, Any] = {
        "epochs": longer * (settings["sweep"] if sweep else settings["epochs"]),
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
    }
    if profile == "overnight":
        training |= {"batch_size": OVERNIGHT_TRAINING["batch_size"]} if sweep else OVERNIGHT_TRAINING
    if min_improvement is not None:
        training["min_improvement"] = min_improvement
    data: dict[str, Any] = {"train_samples": settings["train_samples"], "held_out": held_out}
    params = {
        "model": model | changes,
        "training": training,
        "data": data if alike == "digit" else data | {"alike": alike},
        "evaluation": {
            "num_samples": min(settings["num_samples"], held_out) if sweep else settings["num_samples"],
            "seed": 0,
            "split": "validation" if sweep else "test",
        },
    }
    return RunSpec("mrf_mvae", DATASET, variant, seed, profile, params)


def table4_runs(profile: str, seeds: int | None = None) -> Rows:
    """Each variant; rows of a second reading follow those of the first, and :func:`reading_rows` tells them apart."""
    number = of_profile(PROFILES, profile)["seeds"] if seeds is None else seeds
    return {
        _row(v, alike, profile): [spec(v, s, profile, alike=alike) for s in range(number)]
        for alike in readings(profile)
        for v in LABELS
    }


def sweep_runs(profile: str, seeds: int | None = None) -> Rows:
    """Every beta of the two variants whose betas the paper does not name, on held-out triples, one seed."""
    of_profile(PROFILES, profile)
    return {
        f"{v} {b:g}, {ALIKE[alike]}": [spec(v, 0, profile, alike=alike, sweep=True, beta=b)]
        for alike in readings(profile)
        for v, betas in sweep_betas(profile, alike).items()
        for b in betas
    }


def ablation_runs(profile: str, seeds: int | None = None) -> Rows:
    """The variants with one setting changed, one seed."""
    return {
        _row(name, alike, profile): [_changed(name, profile, alike)]
        for alike in readings(profile)
        for name in _extra(profile)
    }


def figure9_runs(profile: str, seeds: int | None = None) -> Rows:
    """The neural variant with Figure 9's beta, of the first reading."""
    alike = readings(profile)[0]
    return {_row(FIGURE9, alike, profile): [_changed(FIGURE9, profile, alike)]}


def readings(profile: str) -> tuple[str, ...]:
    """The readings that a profile runs, that of the table's own rows first."""
    return READINGS.get(profile, tuple(ALIKE))


def _row(name: str, alike: str, profile: str) -> str:
    return name if alike == readings(profile)[0] else f"{name}, {ALIKE[alike]}"


def reading_rows(rows: Mapping[str, Sequence[RunSpec]], alike: str) -> dict[str, list[RunSpec]]:
    """The rows of a plan that belong to one reading, under their names without it."""
    ending = f", {ALIKE[alike]}"
    return {name.removesuffix(ending): list(s) for name, s in rows.items() if reading(s[0]) == alike}


def _extra(profile: str) -> Mapping[str, tuple[str, dict[str, Any]]]:
    return EXTRA_OVERNIGHT if profile == "overnight" else EXTRA


def _changed(name: str, profile: str, alike: str) -> RunSpec:
    variant, changes = _extra(profile)[name]
    return spec(variant, 0, profile, alike=alike, **changes)


class Triples(Experiment):
    """The three variants on triples of digits: Table 4 and Figures 6 to 9."""

    datasets = (DATASET,)

    def spec(self, method: str, seed: int, profile: str, **changes: Any) -> RunSpec:
        return spec(method, seed, profile, **changes)

    def load(self, spec: RunSpec) -> dict[str, Dataset]:
        """The training triples, the held-out ones where there are any, and the test split where it is measured on."""
        data, alike = spec.params["data"], reading(spec)
        train = datasets.load_dataset(DATASET, split="train", alike=alike).first(data["train_samples"])
        found = {"train": train}
        if data["held_out"]:
            found = dict(zip(("train", "validation"), datasets.hold_out(train, data["held_out"]), strict=True))
        if spec.params["evaluation"]["split"] == "test":
            found["test"] = datasets.load_dataset(DATASET, split="test", alike=alike)
        return found

    def build(self, spec: RunSpec) -> MultimodalModel:
        return self.code.build(spec)

    def evaluate(
        self, model: MultimodalModel, data: Mapping[str, Dataset], spec: RunSpec, device: str = "cpu"
    ) -> Sequence[Metric]:
        return self.code.evaluate(model, data, spec, device)

    def figure_samples(self, model: MultimodalModel, spec: RunSpec, device: str = "cpu") -> dict[str, Tensor]:
        return self.code.figure_samples(model, spec, device)

    def cost(self, spec: RunSpec) -> Cost:
        """From measured seconds an epoch."""
        share = (spec.params["data"]["train_samples"] - spec.params["data"]["held_out"]) / 60_000
        seconds = EPOCH_SECONDS[spec.profile][spec.method] * spec.params["training"]["epochs"] * share
        return Cost(seconds + OVERHEAD_SECONDS[spec.profile].get(spec.method, 20.0), PEAK_MEGABYTES)
