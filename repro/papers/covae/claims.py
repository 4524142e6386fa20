"""Evidence for claims of CoVAE's paper that one comparison does not hold."""

from __future__ import annotations

from itertools import pairwise
from statistics import fmean

from repro.report.evidence import Comparison, Evidence
from repro.report.names import named

__all__ = [
    "cross_diagonal_alike",
    "mopoe_classifies",
    "no_weakness",
    "pays_in_likelihood",
    "recovers_conditional",
    "recovers_joint",
    "shared_latents_collapse",
    "tells_missing_from_observed",
    "trainable_prior_degrades",
    "uncertainty_falls",
]

NEAR = 0.1  # of a correlation or a deviation
SHARED = ("mvae", "mvtcae", "mmvae", "mopoe", "jmvae")  # one latent vector for all modalities
SPEARMAN = ("joint/mrna", "joint/mirna", "mrna-to-mirna", "mirna-to-mrna")


def _levels(evidence: Evidence) -> dict[float, list[str]]:
    """True correlation to the models that were trained at it."""
    found: dict[float, list[str]] = {}
    for row in evidence.rows:
        model, *parts = row.split(", ")
        if len(parts) == 1 and parts[0].startswith("rho "):
            found.setdefault(float(parts[0].removeprefix("rho ")), []).append(model)
    return dict(sorted(found.items()))


def _seeds(evidence: Evidence) -> int:
    return min(len(r) for r in evidence.rows.values())


def _recovers(evidence: Evidence, metric: str) -> list[Comparison]:
    own, others = [], {}
    levels = _levels(evidence)
    for rho, models in levels.items():
        for model in models:
            error = abs(fmean(evidence.values(f"{model}, rho {rho:g}", metric)) - rho)
            if model == "covae":
                own.append(error)
            else:
                others[model] = max(others.get(model, 0.0), error)
    best = min(others, key=others.__getitem__)
    seeds = _seeds(evidence)
    listed = ", ".join(f"{rho:g}" for rho in levels)
    return [
        Comparison(f"CoVAE off by at most {max(own):.3f} at rho {listed} (at most {NEAR})", max(own) <= NEAR, seeds),
        Comparison(
            f"every other model run is off by more somewhere, {named(best)} by {others[best]:.3f}",
            others[best] > NEAR,
            seeds,
        ),
    ]


def recovers_joint(evidence: Evidence) -> list[Comparison]:
    """Largest error of the correlation of joint samples, CoVAE's and the best other model's."""
    return _recovers(evidence, "test/correlation/joint")


def recovers_conditional(evidence: Evidence) -> list[Comparison]:
    """The same of conditional samples."""
    return _recovers(evidence, "test/correlation/conditional")


def shared_latents_collapse(evidence: Evidence) -> list[Comparison]:
    """Smallest correlation of joint samples of models that share one latent vector."""
    found = {}
    for rho, models in _levels(evidence).items():
        for model in (m for m in models if m in SHARED):
            found[model, rho] = fmean(evidence.values(f"{model}, rho {rho:g}", "test/correlation/joint"))
    (model, rho), value = min(found.items(), key=lambda x: x[1])
    return [Comparison(f"at least {value:.3f} ({named(model)} at rho {rho:g})", value >= 1 - NEAR, _seeds(evidence))]


def tells_missing_from_observed(evidence: Evidence) -> list[Comparison]:
    """Ratio of the missing modality's predicted deviation to the observed one's, at the smallest correlation."""
    rho, models = next(iter(_levels(evidence).items()))
    ratios = {}
    for model in models:
        row = f"{model}, rho {rho:g}"
        ratios[model] = fmean(evidence.values(row, "test/deviation/missing")) / fmean(
            evidence.values(row, "test/deviation/conditioning")
        )
    own = ratios.pop("covae")
    other = max(ratios, key=ratios.__getitem__)
    seeds = _seeds(evidence)
    return [
        Comparison(f"CoVAE's deviation, missing over observed, at rho {rho:g}: {own:.2f} > 1.05", own > 1.05, seeds),
        Comparison(
            f"the largest of the others: {named(other)} {ratios[other]:.2f} <= 1.05", ratios[other] <= 1.05, seeds
        ),
    ]


def uncertainty_falls(evidence: Evidence) -> list[Comparison]:
    """CoVAE's deviation of the missing modality at each correlation, the first near 1."""
    values = [fmean(evidence.values(f"covae, rho {r:g}", "test/deviation/missing")) for r in _levels(evidence)]
    falls = all(a > b for a, b in pairwise(values))
    listed, seeds = " > ".join(f"{v:.3f}" for v in values), _seeds(evidence)
    near = f"{values[0]:.3f} at the smallest rho is within {NEAR} of 1"
    return [Comparison(listed, falls, seeds), Comparison(near, abs(values[0] - 1) <= NEAR, seeds)]


def pays_in_likelihood(evidence: Evidence) -> list[Comparison]:
    """CoVAE's joint negative log-likelihood against the lowest of the other models, at each correlation."""
    found = []
    for rho, models in _levels(evidence).items():
        means = {m: fmean(evidence.values(f"{m}, rho {rho:g}", "test/nll/joint")) for m in models if m != "covae"}
        best = min(means, key=means.__getitem__)
        found.append(
            evidence.compare((f"covae, rho {rho:g}", "test/nll/joint"), ">", (f"{best}, rho {rho:g}", "test/nll/joint"))
        )
    return found


def _errors(evidence: Evidence, suffix: str) -> list[float]:
    return [
        abs(fmean(evidence.values(f"covae, rho {r:g}{suffix}", "test/correlation/joint")) - r)
        for r in _levels(evidence)
    ]


def trainable_prior_degrades(evidence: Evidence) -> list[Comparison]:
    """Mean error of the joint correlation with a prior that is trained on, against one that is frozen."""
    frozen, trained = fmean(_errors(evidence, "")), fmean(_errors(evidence, ", trainable prior"))
    text = f"mean error of the correlation, trained on {trained:.3f} > frozen {frozen:.3f}"
    return [Comparison(text, trained > frozen, _seeds(evidence))]


def cross_diagonal_alike(evidence: Evidence) -> list[Comparison]:
    """Largest difference of the joint correlation between the two posteriors."""
    pairs = [
        abs(
            fmean(evidence.values(f"covae, rho {r:g}", "test/correlation/joint"))
            - fmean(evidence.values(f"covae, rho {r:g}, cross-diagonal posterior", "test/correlation/joint"))
        )
        for r in _levels(evidence)
    ]
    text = f"correlations differ by at most {max(pairs):.3f} (at most {NEAR})"
    return [Comparison(text, max(pairs) <= NEAR, _seeds(evidence))]


def mopoe_classifies(evidence: Evidence) -> list[Comparison]:
    """MoPoE's accuracy against the best other one, and its likelihood against the worst other one."""
    others = [r for r in evidence.rows if r != "mopoe" and "," not in r and " " not in r]
    accuracy, nll = "test/classes/accuracy", "test/nll/joint"
    best = max(others, key=lambda r: fmean(evidence.values(r, accuracy)))
    worst = max(others, key=lambda r: fmean(evidence.values(r, nll)))
    return [
        evidence.compare(("mopoe", accuracy), ">", (best, accuracy)),
        evidence.compare(("mopoe", nll), ">", (worst, nll)),
    ]


def no_weakness(evidence: Evidence) -> list[Comparison]:
    """The smallest of four mean Spearman coefficients: CoVAE's, MoPoE's and JMVAE's against the best other one."""
    models = [r for r in evidence.rows if "," not in r and " " not in r]
    least = {m: min(fmean(evidence.values(m, f"test/spearman/{s}")) for s in SPEARMAN) for m in models}
    chosen = {m: least.pop(m) for m in ("covae", "mopoe", "jmvae")}
    own, other = min(chosen, key=chosen.__getitem__), max(least, key=least.__getitem__)
    text = f"smallest of the four coefficients: {named(own)} {chosen[own]:.3f} > {named(other)} {least[other]:.3f}"
    return [Comparison(text, chosen[own] > least[other], _seeds(evidence))]
