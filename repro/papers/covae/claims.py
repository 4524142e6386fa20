"""Evidence for claims of CoVAE's paper that one comparison does not hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from statistics import fmean

from repro.report.evidence import Comparison, Evidence, compare_values, spread
from repro.report.names import named

__all__ = [
    "correlation_constant",
    "cross_diagonal_alike",
    "fewer_latents",
    "latent_geometry",
    "likelihood_improves",
    "mopoe_classifies",
    "no_weakness",
    "observed_uncertainty_falls",
    "others_uncertainty_constant",
    "pays_in_likelihood",
    "recovers_conditional",
    "recovers_joint",
    "recovers_with_flow",
    "shared_latents_collapse",
    "tells_missing_from_observed",
    "trainable_prior_degrades",
    "trained_prior_overestimates",
    "uncertainty_falls",
]

# Of a correlation, and of a deviation in units of the prior's. The paper states none: it tells correlations of 0.6 and
# 0.7 apart, of which a value that is off by less than half their difference is nearer to its own.
TOLERANCE = 0.05
WIDER = 1.05  # ratio of two deviations that are taken to differ
SHARED = ("mvae", "mvtcae", "mmvae", "mopoe", "jmvae")  # one latent vector for all modalities
PRIVATE = ("dmvae", "mmvae_plus")  # some latents for each modality alone
STRONG = ("covae", "mopoe", "jmvae")  # without a weakness, by the paper
SPEARMAN = ("joint/mrna", "joint/mirna", "mrna-to-mirna", "mirna-to-mrna")
JOINT, CONDITIONAL = "test/correlation/joint", "test/correlation/conditional"
OBSERVED, MISSING = "test/deviation/conditioning", "test/deviation/missing"

Curve = Mapping[float, Sequence[float]]  # true correlation to a value of each seed


def _levels(evidence: Evidence) -> dict[float, list[str]]:
    """True correlation to the models that were trained at it."""
    found: dict[float, list[str]] = {}
    for row in evidence.rows:
        model, *parts = row.split(", ")
        if len(parts) == 1 and parts[0].startswith("rho "):
            found.setdefault(float(parts[0].removeprefix("rho ")), []).append(model)
    return dict(sorted(found.items()))


def _models(evidence: Evidence) -> list[str]:
    """Every model but CoVAE."""
    return list(dict.fromkeys(m for models in _levels(evidence).values() for m in models if m != "covae"))


def _curve(evidence: Evidence, model: str, metric: str, variant: str = "") -> dict[float, list[float]]:
    levels = _levels(evidence)
    return {r: evidence.values(f"{model}, rho {r:g}{variant}", metric) for r in levels if model in levels[r]}


def _errors(evidence: Evidence, model: str, metric: str, variant: str = "") -> dict[float, list[float]]:
    """Distance of a correlation to that of the data, which appendix B.1 measures on their latents in the same way."""
    truth = _curve(evidence, model, "test/correlation/true", variant)
    return {r: _apart(v, truth[r]) for r, v in _curve(evidence, model, metric, variant).items()}


def _apart(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """Absolute difference of each seed."""
    return [abs(x - y) for x, y in zip(a, b, strict=False)]  # as many as both have, where some seeds have diverged


def _mean(curves: Sequence[Sequence[float]]) -> list[float]:
    """Mean over several quantities of each seed."""
    return [fmean(values) for values in zip(*curves, strict=False)]


def _rounded(value: float, digits: int = 3, bound: float | None = None) -> str:
    """A number to so many digits, or to as many more as tell it from the bound that it is set against."""
    while bound is not None and value != bound and f"{value:.{digits}f}" == f"{bound:.{digits}f}":
        digits += 1
    return f"{value:.{digits}f}"


def _said(values: Sequence[float], digits: int = 3, bound: float | None = None) -> str:
    return f"{_rounded(fmean(values), digits, bound)}{spread(values)}"


def _listed(curve: Curve, digits: int = 3, between: str = ", ", bound: float | None = None) -> str:
    return between.join(_said(v, digits, bound) for v in curve.values())


def _at(curve: Curve) -> str:
    return "at rho " + ", ".join(f"{r:g}" for r in curve)


def _compare(text: str, left: Sequence[float], op: str, right: Sequence[float] | float, by: float = 0.0) -> Comparison:
    """:func:`~repro.report.evidence.compare_values` of two quantities under a text of its own."""
    other = right if isinstance(right, int | float) else ("", right)
    return replace(compare_values(("", left), op, other, by), text=text)


def _all(found: Sequence[Comparison]) -> Comparison:
    """Several comparisons as one, which holds where all do: the first of those that hold least."""
    weakest = min(found, key=lambda c: (False, None, True).index(c.holds))
    return replace(weakest, seeds=min(c.seeds for c in found))


def _near(text: str, a: Sequence[float], b: Sequence[float]) -> Comparison:
    """Whether two quantities differ by less than the tolerance, beyond two standard errors of their difference."""
    high, low = sorted((a, b), key=fmean, reverse=True)
    return _compare(text, high, "<", low, -TOLERANCE)


def _constant(curve: Curve, what: str) -> Comparison:
    """Whether the largest value of a curve is near the smallest."""
    high, low = max(curve.values(), key=fmean), min(curve.values(), key=fmean)
    size = _rounded(fmean(high) - fmean(low), bound=TOLERANCE)
    text = f"{what} {_listed(curve)} {_at(curve)}: range {size} < {TOLERANCE}"
    return _near(text, high, low)


def _falls(curve: Curve, what: str) -> Comparison:
    """Whether every value of a curve is below the one before."""
    text = f"{what} {_listed(curve, between=' > ')} {_at(curve)}"
    return _all([_compare(text, a, ">", b) for a, b in pairwise(curve.values())])


def _recovers(evidence: Evidence, metric: str) -> list[Comparison]:
    which = metric.rpartition("/")[2]
    errors, own = _errors(evidence, "covae", metric), _curve(evidence, "covae", metric)
    truth = _curve(evidence, "covae", "test/correlation/true")
    text = (
        f"CoVAE's {which} correlation {_listed(own)} {_at(own)}, the data's {_listed(truth)}: "
        f"error {_listed(errors, bound=TOLERANCE)} < {TOLERANCE}"
    )
    others = []
    for model in _models(evidence):
        rho, error = max(_errors(evidence, model, metric).items(), key=lambda x: fmean(x[1]))
        said = f"least of the others' largest errors, {named(model)}'s at rho {rho:g}, "
        said += f"{_said(error, bound=TOLERANCE)} > {TOLERANCE}"
        others.append((fmean(error), _compare(said, error, ">", TOLERANCE)))
    return [
        _all([_compare(text, e, "<", TOLERANCE) for e in errors.values()]),
        _all([c for _, c in sorted(others, key=lambda x: x[0])]),
    ]


def recovers_joint(evidence: Evidence) -> list[Comparison]:
    """CoVAE's error of the correlation of joint samples at each rho, and the largest of every other model."""
    return _recovers(evidence, JOINT)


def recovers_conditional(evidence: Evidence) -> list[Comparison]:
    """The same of conditional samples."""
    return _recovers(evidence, CONDITIONAL)


def recovers_with_flow(evidence: Evidence) -> list[Comparison]:
    """The same of both, of the models whose samples need not be fully correlated."""
    return [*_recovers(evidence, JOINT), *_recovers(evidence, CONDITIONAL)]


def shared_latents_collapse(evidence: Evidence) -> list[Comparison]:
    """Smallest correlation of joint and of conditional samples of models that share one latent vector."""
    found = []
    for metric in (JOINT, CONDITIONAL):
        which, least = metric.rpartition("/")[2], 1 - TOLERANCE
        curves = {m: _curve(evidence, m, metric) for m in _models(evidence) if m in SHARED}
        values = sorted(((v, m, r) for m, c in curves.items() for r, v in c.items()), key=lambda x: fmean(x[0]))
        text = f"smallest {which} correlation, {{}}'s at rho {{:g}}, {{}} > {least:g}"
        found.append(
            _all([_compare(text.format(named(m), r, _said(v, bound=least)), v, ">", least) for v, m, r in values])
        )
    return found


def correlation_constant(evidence: Evidence) -> list[Comparison]:
    """Range over rho of the correlations of models that have latents of each modality's own beside shared ones."""
    return [
        _constant(_curve(evidence, m, metric), f"{named(m)}'s {metric.rpartition('/')[2]} correlation")
        for m in _models(evidence)
        if m in PRIVATE
        for metric in (JOINT, CONDITIONAL)
    ]


def tells_missing_from_observed(evidence: Evidence) -> list[Comparison]:
    """Ratio of the missing modality's predicted deviation to the observed one's.

    CoVAE's at the smallest rho, where it should be largest: the two are one at a rho of 1. The others' at every rho.
    """
    ratios = {}
    for model in ("covae", *_models(evidence)):
        missing, observed = _curve(evidence, model, MISSING), _curve(evidence, model, OBSERVED)
        for rho, values in missing.items():
            ratios[model, rho] = [a / b for a, b in zip(values, observed[rho], strict=True)]
    first = min(_levels(evidence))
    own = ratios["covae", first]
    text = f"deviation, missing over observed: CoVAE at rho {first:g} {_said(own, bound=WIDER)} > {WIDER}"
    others = []
    for (m, r), v in sorted(ratios.items(), key=lambda x: -fmean(x[1])):
        if m != "covae":
            said = f"the largest other's, {named(m)} at rho {r:g} {_said(v, bound=WIDER)} < {WIDER}"
            others.append(_compare(said, v, "<", WIDER))
    return [_compare(text, own, ">", WIDER), _all(others)]


def uncertainty_falls(evidence: Evidence) -> list[Comparison]:
    """CoVAE's deviation of the missing modality at each rho against the one before, and the first against 1."""
    curve = _curve(evidence, "covae", MISSING)
    rho, first = next(iter(curve.items()))
    away = _apart(first, [1.0] * len(first))
    text = f"distance of the one at rho {rho:g} to the prior's 1, {_said(away, bound=TOLERANCE)} < {TOLERANCE}"
    return [_falls(curve, "deviation of the missing modality"), _compare(text, away, "<", TOLERANCE)]


def observed_uncertainty_falls(evidence: Evidence) -> list[Comparison]:
    """CoVAE's deviation of the observed modality at each rho against the one before, and its fall in all.

    The fall from the smallest to the largest rho is set against that of the missing modality.
    """
    falls = []
    for metric in (MISSING, OBSERVED):
        first, *_, last = _curve(evidence, "covae", metric).values()
        falls.append([a - b for a, b in zip(first, last, strict=False)])
    missing, observed = falls
    text = f"fall in all, of the missing one {_said(missing)} > of the observed one {_said(observed)}"
    return [
        _falls(_curve(evidence, "covae", OBSERVED), "deviation of the observed modality"),
        _compare(text, missing, ">", observed),
    ]


def others_uncertainty_constant(evidence: Evidence) -> list[Comparison]:
    """Range over rho of the other models' deviations of the observed and of the missing modality."""
    found = []
    for metric, which in ((OBSERVED, "observed"), (MISSING, "missing")):
        curves = {m: _curve(evidence, m, metric) for m in _models(evidence)}
        ranges = {m: max(map(fmean, c.values())) - min(map(fmean, c.values())) for m, c in curves.items()}
        ordered = sorted(curves, key=lambda m: -ranges[m])
        text = f"deviation of the {which} modality, the widest range {{}}'s"
        found.append(_all([_constant(curves[m], text.format(named(m))) for m in ordered]))
    return found


def pays_in_likelihood(evidence: Evidence) -> list[Comparison]:
    """CoVAE's joint negative log-likelihood against every other model's, at each rho.

    Without DMVAE, of which the paper reports none: its library's was orders of magnitude too high.
    """
    found = []
    for rho, models in _levels(evidence).items():
        values = {m: evidence.values(f"{m}, rho {rho:g}", "test/nll/joint") for m in models if m != "dmvae"}
        own = values.pop("covae")
        compared = []
        for m in sorted(values, key=lambda m: -fmean(values[m])):
            text = f"joint NLL at rho {rho:g}, CoVAE {_said(own, 1)} > {named(m)} {_said(values[m], 1)}"
            compared.append(_compare(text, own, ">", values[m]))
        found.append(_all(compared))
    return found


def likelihood_improves(evidence: Evidence) -> list[Comparison]:
    """CoVAE's joint and conditional negative log-likelihoods, largest against smallest rho, and which falls by more.

    The conditional one is the mean of both modalities given the other, as Figure 8 has it.
    """
    joint = _curve(evidence, "covae", "test/nll/joint")
    names = [f"test/nll/{x}/posterior-predictive" for x in ("m1-given-m0", "m0-given-m1")]
    both = [_curve(evidence, "covae", name) for name in names]
    conditional = {r: _mean([c[r] for c in both]) for r in joint}
    found, falls = [], []
    for which, curve in (("joint", joint), ("conditional", conditional)):
        first, *_, last = curve.values()
        falls.append([a - b for a, b in zip(first, last, strict=False)])
        text = f"{which} NLL {_listed(curve, 1)} {_at(curve)}: the last < the first"
        found.append(_compare(text, last, "<", first))
    text = f"fall of the joint one {_said(falls[0], 1)} > of the conditional one {_said(falls[1], 1)}"
    return [*found, _compare(text, falls[0], ">", falls[1])]


def trainable_prior_degrades(evidence: Evidence) -> list[Comparison]:
    """Error of the correlations, its mean over rho, with a prior that is trained on against one that is frozen."""
    found = []
    for metric in (JOINT, CONDITIONAL):
        frozen, trained = (
            _mean(list(_errors(evidence, "covae", metric, variant).values())) for variant in ("", ", trainable prior")
        )
        which = metric.rpartition("/")[2]
        text = f"mean error of the {which} correlation, prior trained {_said(trained)} > frozen {_said(frozen)}"
        found.append(_compare(text, trained, ">", frozen))
    return found


def trained_prior_overestimates(evidence: Evidence) -> list[Comparison]:
    """Mean correlation of a prior that is trained on, against that of the latents which the data were drawn from."""
    trained = _curve(evidence, "covae", "prior/correlation", ", trainable prior")
    frozen = _curve(evidence, "covae", "prior/correlation")
    text = f"correlation of the trained prior (frozen {_listed(frozen)}) {_listed(trained)} > rho "
    text += ", ".join(f"{r:g}" for r in trained)
    return [_all([_compare(text, v, ">", r) for r, v in trained.items()])]


def cross_diagonal_alike(evidence: Evidence) -> list[Comparison]:
    """Largest difference of the correlations between the two posteriors."""
    found = []
    for metric in (JOINT, CONDITIONAL):
        own = _curve(evidence, "covae", metric)
        other = _curve(evidence, "covae", metric, ", cross-diagonal posterior")
        most = _rounded(max(abs(fmean(own[r]) - fmean(other[r])) for r in own), bound=TOLERANCE)
        text = f"largest difference of the {metric.rpartition('/')[2]} correlation {most} < {TOLERANCE}"
        found.append(_all([_near(text, own[r], other[r]) for r in own]))
    return found


def latent_geometry(evidence: Evidence) -> list[Comparison]:
    """What CoVAE's prior and posterior terms fall short of another model's, and the reconstruction terms' difference.

    The first has to be larger: only then is a likelihood that is lower due to the latents.
    """

    def terms(row: str) -> tuple[list[float], list[float]]:
        first, *others = (evidence.values(row, f"test/terms/{x}") for x in ("reconstruction", "prior", "posterior"))
        return first, [a + b for a, b in zip(*others, strict=True)]

    found = []
    for rho, models in _levels(evidence).items():
        reconstruction, latent = terms(f"covae, rho {rho:g}")
        for m in (m for m in models if m != "covae"):
            other, other_latent = terms(f"{m}, rho {rho:g}")
            better = [a - b for a, b in zip(reconstruction, other, strict=False)]
            short = [b - a for a, b in zip(latent, other_latent, strict=False)]
            size = [abs(x) for x in better]
            text = (
                f"CoVAE less {named(m)} at rho {rho:g}, prior and posterior terms lower by {_said(short, 1)} > size of "
                f"the reconstruction term's difference {_said(size, 1)} ({fmean(better):+.1f})"
            )
            found.append(_compare(text, short, ">", size))
    return found


def fewer_latents(evidence: Evidence) -> list[Comparison]:
    """Posterior term of models of ten latents: whether it is nearer to CoVAE's than to their own of twenty."""
    metric, found = "test/terms/posterior", []
    rho = max(_levels(evidence))
    own = evidence.values(f"covae, rho {rho:g}", metric)
    for m in _models(evidence):
        ten, twenty = (evidence.values(f"{m}, rho {rho:g}{x}", metric) for x in (", 10 latents", ""))
        near, far = _apart(ten, own), _apart(ten, twenty)
        text = (
            f"posterior term of {named(m)} with 10 latents {_said(ten, 1)}, from CoVAE's {_said(own, 1)} by "
            f"{_said(near, 1)} < from its own with 20 latents {_said(twenty, 1)} by {_said(far, 1)}"
        )
        found.append(_compare(text, near, "<", far))
    return found


def _omics(evidence: Evidence) -> list[str]:
    """The eight models, without CoVAE's other configurations."""
    return [r for r in evidence.rows if "," not in r and " " not in r]


def mopoe_classifies(evidence: Evidence) -> list[Comparison]:
    """MoPoE's three measures of classes against the best other ones, and its likelihood against the worst other one."""
    others, found = [r for r in _omics(evidence) if r != "mopoe"], []
    for metric in ("classes/accuracy", "classes/nmi", "classes/ari", "nll/joint"):
        rival = max(others, key=lambda r: fmean(evidence.values(r, f"test/{metric}")))
        compared = evidence.compare(("mopoe", f"test/{metric}"), ">", (rival, f"test/{metric}"))
        found.append(replace(compared, text=f"{compared.text} ({metric})"))
    return found


def no_weakness(evidence: Evidence) -> list[Comparison]:
    """How far a model's mean Spearman coefficient is under the best model's, where it is furthest of four settings.

    CoVAE's, MoPoE's and JMVAE's each against the least of the other models. By the values that the paper prints the
    three fall short by at most 0.026, 0.033 and 0.035, the others by 0.048 and more; the coefficients themselves do
    not tell them apart, MMVAE's smallest being 0.685 and JMVAE's 0.668.
    """
    models = _omics(evidence)
    values = {(m, s): evidence.values(m, f"test/spearman/{s}") for m in models for s in SPEARMAN}
    best = {s: max((values[m, s] for m in models), key=fmean) for s in SPEARMAN}
    short = {k: [b - a for a, b in zip(v, best[k[1]], strict=False)] for k, v in values.items()}
    worst = {m: max(SPEARMAN, key=lambda s, m=m: fmean(short[m, s])) for m in models}

    def said(m: str) -> str:
        return f"{named(m)}'s {_said(short[m, worst[m]])} ({worst[m]}, {fmean(values[m, worst[m]]):.3f})"

    others = sorted((m for m in models if m not in STRONG), key=lambda m: fmean(short[m, worst[m]]))
    found = []
    for own in STRONG:
        text = f"largest shortfall under the best model's coefficient, {said(own)} < "
        found.append(_all([_compare(text + said(m), short[own, worst[own]], "<", short[m, worst[m]]) for m in others]))
    return found
