"""The claims that the papers make of their experiments, and what the recorded runs say of each.

A paper states its claims in its paper.toml: in own words, with the place in the paper, the artifact whose runs bear on
it, and a rule. The verdict is computed from records, never typed in:

- reproduced or contradicted, where runs of the paper profile settle it, or runs of the overnight profile that have
  converged, or trained no shorter in the stages that had not than those of the paper profile, and whose reconstructions
  are good enough to show what the claim is about; runs of any profile, where it is about what a step or a sample costs;
  no runs, where it can be computed;
- inconclusive, with the reasons: other runs, a difference within two standard errors, one seed, models of the paper
  that were not run, trainings that diverged, chains that do not mix, narrow networks where size could matter;
- not run, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any

from repro.artifacts.inventory import find, nearest
from repro.artifacts.render import LEAST_CEILING, Sources, plan, renamed
from repro.artifacts.training_length import no_shorter
from repro.datasets.card import not_available
from repro.datasets.former import changes_of
from repro.errors import NotOfferedError, RecordError, UsageError
from repro.papers import paper as paper_of
from repro.papers import papers
from repro.records import SHOWN, Record, RunSpec
from repro.report.evidence import MOST_R_HAT, Comparison, Evidence
from repro.report.markdown import escaped
from repro.report.names import named
from repro.report.plain_tables import make_command

__all__ = ["VERDICTS", "Claim", "Verdict", "all_verdicts", "assess", "claims", "counts", "to_markdown"]

VERDICTS = ("reproduced", "contradicted", "inconclusive", "not run")
RULES = ("best", "worst", "compare", "computed")


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, as its paper.toml states it.

    Arguments:
        paper: The paper's package.
        id: Unique within the paper.
        text: The claim in own words.
        place: Where the paper makes it.
        artifact: Name of the artifact whose runs bear on it.
        rule: What has to hold, see :func:`assess`.
        headline: Whether it is one of the paper's main claims.
        beside: Another artifact whose runs of the same profile the rule needs too.
        stand_in: An artifact on other data, shown where the artifact's own data cannot be had; it settles nothing.
        ceiling: Name of the metric that bounds what a model can reach, such as the share of right reconstructions.
        ceiling_rows: The rows that it is asked of; the rule's own row if empty.
        chains: Row whose Markov chains have to mix; empty for none.
        caveat: Why its runs, not being of what the paper speaks of, settle nothing; empty where they are of that.
        profile_caveats: The same of the runs of one profile, by profile.
        size_matters: Whether narrow networks could be what decides it, so that only the paper profile may contradict.
        training_matters: Whether it is about trained models, and not about what a step or a sample costs.
        published: Table, row and column of the published value, or table and key.
        asked: Whether no paper makes it: a question that a comparison asks of the models of all papers.
    """

    paper: str
    id: str
    text: str
    place: str
    artifact: str
    rule: Mapping[str, Any]
    headline: bool = False
    beside: str = ""
    stand_in: str = ""
    ceiling: str = ""
    ceiling_rows: tuple[str, ...] = ()
    chains: str = ""
    caveat: str = ""
    profile_caveats: Mapping[str, str] = field(default_factory=dict)
    size_matters: bool = True
    training_matters: bool = True
    published: tuple[str, ...] = ()
    asked: bool = False

    @property
    def name(self) -> str:
        """``<paper>/<id>``."""
        return f"{self.paper}/{self.id}"


@dataclass(frozen=True)
class Verdict:
    """What the records say of a claim.

    Arguments:
        claim: The claim.
        verdict: One of ``VERDICTS``.
        reasons: Why it is not settled, or not run.
        evidence: What was compared, with values.
        profile: Of the runs; empty without any.
        artifact: Whose runs they are.
    """

    claim: Claim
    verdict: str
    reasons: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    profile: str = ""
    artifact: str = ""
    seeds: int = 0
    published: str = ""


def claims(paper: str = "") -> tuple[Claim, ...]:
    """Every claim, or those of one paper, in the order in which they are stated.

    Raises:
        UsageError: If there is no such paper.
    """
    stated = {p.name: p for p in papers().values() if "claim" in p.stated}
    chosen = [p for p in stated.values() if paper in ("", p.name, p.prefix)]
    if not chosen and paper in {x for p in papers().values() for x in (p.name, p.prefix)}:
        raise UsageError(f"{paper} states no claims; {', '.join(stated)} do")
    if not chosen:
        names = [*stated, *(p.prefix for p in stated.values())]
        raise UsageError(f"unknown paper {paper!r}{nearest(paper, names)}")
    found = []
    for one in chosen:
        for entry in one.stated["claim"]:
            lists = {k: tuple(entry[k]) for k in ("published", "ceiling_rows") if k in entry}
            found.append(Claim(one.name, **{**entry, **lists}))
    return tuple(found)


def _best(evidence: Evidence, rule: Mapping[str, Any]) -> list[Comparison]:
    """The rule's rows against each other row, in every metric."""
    better = "<" if (rule["better"] == "lower") == (rule["kind"] == "best") else ">"
    own = [rule["row"]] if isinstance(rule["row"], str) else list(rule["row"])
    others = [r for r in rule.get("among", evidence.rows) if r not in own and r in evidence.rows]
    found = []
    for metric in rule["metrics"]:
        means = {r: fmean(evidence.values(r, metric)) for r in own}
        champion = (min if better == "<" else max)(means, key=means.__getitem__)
        rivals = {r: fmean(evidence.values(r, metric)) for r in others if not evidence.unmixed(r, metric)}
        if not rivals:
            found.append(Comparison(f"{named(champion)} {better} no other row whose chains mix", None))
            continue
        rival = (min if better == "<" else max)(rivals, key=rivals.__getitem__)
        comparison = evidence.compare((champion, metric), better, (rival, metric))
        found.append(replace(comparison, text=f"{comparison.text} ({evidence.named(champion, metric)})"))
    return found


def _compare(evidence: Evidence, rule: Mapping[str, Any]) -> list[Comparison]:
    found = []
    for left, op, right, *by in rule["all"]:
        other = right if isinstance(right, int | float) else tuple(right)
        comparison = evidence.compare(tuple(left), op, other, *by)
        named = evidence.named(*left)
        if isinstance(other, tuple) and other[1] != left[1]:
            named += f" {op} {evidence.named(*other)}"
        found.append(replace(comparison, text=f"{comparison.text} ({named})"))
    return found


def _computed(evidence: Evidence | None, rule: Mapping[str, Any], paper: str) -> list[Comparison]:
    module = import_module(f"{paper_of(paper).package}.claims")
    function = getattr(module, rule["function"])
    return function() if evidence is None else function(evidence)


def _compared(evidence: Evidence, claim: Claim) -> list[Comparison]:
    if claim.rule["kind"] == "computed":
        return _computed(evidence, claim.rule, claim.paper)
    return (_compare if claim.rule["kind"] == "compare" else _best)(evidence, claim.rule)


def _found(claim: Claim, artifact: str, sources: Sources) -> Evidence | None:
    """The best profile's evidence, None where no profile has run a seed of all rows that the rule needs.

    Of an artifact that is drawn once all its rows have a seed, the seeds before the first that one of them lacks.
    """
    for profile in SHOWN:  # the best evidence first; smoke runs are none
        try:
            rows = _planned(claim, artifact, profile)
        except (NotOfferedError, UsageError):
            continue
        needed = _needed(claim, rows)
        asked = [s for r in needed for s in rows.get(r, ())]
        gone = {s for s in asked if sources.record(s) is None and sources.diverged(s)}
        absent = [s.seed for s in asked if sources.record(s) is None and s not in gone]
        end = math.inf if find(artifact).partial else min(absent, default=math.inf)
        records = {
            r: [x for s in specs if s.seed < end and (x := sources.record(s)) is not None] for r, specs in rows.items()
        }
        lost = {f"{named(r)}, seed {s.seed}": s for r in needed for s in rows.get(r, ()) if s in gone and s.seed < end}
        if needed and all(records.get(r) or any(s in gone for s in rows.get(r, ())) for r in needed):
            return Evidence(artifact, profile, {r: v for r, v in records.items() if v}, lost)
    return None


def _planned(claim: Claim, artifact: str, profile: str) -> dict[str, list[RunSpec]]:
    """The runs of an artifact, and of what the claim has beside it, by row."""
    beside = plan(find(claim.beside), profile) if claim.beside else {}
    return {**beside, **plan(find(artifact), profile)}


def _spec(run: RunSpec | Record) -> RunSpec:
    return run.spec if isinstance(run, Record) else run


def _needed(claim: Claim, rows: Mapping[str, Any]) -> list[str]:
    rule = claim.rule
    if rule["kind"] in ("best", "worst"):
        own = [rule["row"]] if isinstance(rule["row"], str) else list(rule["row"])
        own = [r for r in own if r in rows] or own
        return [*own, *(r for r in rule.get("among", rows) if r not in own and r in rows)]
    if rule["kind"] == "compare":
        sides = [side[0] for left, _, right, *_ in rule["all"] for side in (left, right) if isinstance(side, list)]
        return list(dict.fromkeys(sides))
    if "methods" in rule:
        return [r for r, runs in rows.items() if any(_spec(x).method in rule["methods"] for x in runs)]
    return list(rule.get("rows", rows))


def _unconverged(claim: Claim, evidence: Evidence, *, longer: bool) -> list[Record]:
    """The runs that a claim needs and no stopping rule ended: those of at least the paper's length, or the shorter."""
    stated = paper_of(find(evidence.artifact).paper).title  # a comparison's lengths are no paper's
    theirs = _planned(claim, evidence.artifact, "paper") if stated else {}
    runs = [(r, row) for row in _needed(claim, evidence.rows) for r in evidence.rows.get(row, ())]
    return [r for r, row in runs if r.converged is False and no_shorter(r, theirs.get(row, ())) == longer]


def _gates(claim: Claim, evidence: Evidence, comparisons: Sequence[Comparison]) -> list[str]:
    """Why evidence cannot settle a claim, whatever it says."""
    caveats = (claim.caveat, claim.profile_caveats.get(evidence.profile, ""))
    reasons = [text for text in caveats if text]
    records = [r for row in _needed(claim, evidence.rows) for r in evidence.rows.get(row, ())]
    if evidence.profile == "quick" and claim.training_matters:
        reasons.append("trained for minutes (profile quick)")
    elif evidence.profile == "overnight" and claim.training_matters:
        if short := len(_unconverged(claim, evidence, longer=False)):
            reasons.append(f"not converged ({short} of {len(records)} runs)")
        if fixed := sum(r.converged is None for r in records):
            reasons.append(f"no rule says whether they converged ({fixed} of {len(records)} runs)")
    if changed := changes_of(r.data for r in records):
        reasons.append(changed)
    if any(c.seeds == 1 for c in comparisons):
        reasons.append("one seed")
    if absent := _absent(claim, evidence):
        reasons.append(f"without {', '.join(map(named, absent))}, which the profile {evidence.profile} leaves out")
    if evidence.diverged:
        reasons.append(f"diverged: {', '.join(evidence.diverged)}")
    if claim.ceiling:
        asked = claim.ceiling_rows or ((claim.rule["row"],) if isinstance(claim.rule.get("row"), str) else ())
        for row in (r for r in asked if r in evidence.rows):
            value = fmean(evidence.values(row, claim.ceiling))
            if value < LEAST_CEILING:
                reasons.append(f"reconstruction ceiling of {named(row)} {value:.2f}, under {LEAST_CEILING}")
    if claim.chains and claim.chains in evidence.rows:
        worst = max(evidence.values(claim.chains, "test/unconditional/r_hat"))
        if worst > MOST_R_HAT:
            reasons.append(f"chains of {named(claim.chains)} do not mix (split R-hat {worst:.2f})")
    return reasons


def _absent(claim: Claim, evidence: Evidence) -> list[str]:
    """The models that a claim sets others against in the paper profile, or names, and that the runs have none of."""
    asked = list(claim.rule.get("models", ()))
    if claim.rule["kind"] in ("best", "worst"):
        rows = plan(find(evidence.artifact), "paper")
        asked = list(dict.fromkeys(s.method for r in _needed(claim, rows) for s in rows.get(r, ())))
    run = {r.spec.method for records in evidence.rows.values() for r in records}
    run |= {s.method for s in evidence.diverged.values()}
    return [m for m in asked if m not in run]


def _lacking(claim: Claim, sources: Sources) -> str:
    """Where a profile has some of the runs that a claim needs: how many, and which is the first that is missing."""
    for profile in SHOWN:  # the best evidence first; smoke runs are none
        try:
            rows = _planned(claim, claim.artifact, profile)
        except (NotOfferedError, UsageError):
            continue
        asked = [(r, s) for r in _needed(claim, rows) for s in rows.get(r, ())]
        missing = [(r, s) for r, s in asked if sources.record(s) is None]
        if missing and len(missing) < len(asked):
            row, spec = missing[0]
            number = f"{len(asked) - len(missing)} of {len(asked)}"
            return f"{number} runs of the profile {profile} are recorded, {named(row)} of seed {spec.seed} is not: "
    return ""


def _not_run(claim: Claim) -> str:
    artifact = find(claim.artifact)
    if artifact.unrecorded or "biked" in artifact.data:
        return "; ".join(not_available(d) for d in artifact.data)
    if artifact.kind == "X":
        return artifact.reason
    try:
        plan(artifact, "overnight")
    except NotOfferedError:
        return f"`make {artifact.target}`"
    return f"`{make_command(artifact.target, 'overnight')}`, or a GPU"


def _published(claim: Claim) -> str:
    """The published value that a claim rests on, read from paper.toml."""
    if not claim.published:
        return ""
    table = paper_of(claim.paper).published[claim.published[0]]
    if len(claim.published) == 2:
        return _printed(table[claim.published[1]])
    _, row, column = claim.published
    if "same_as" in table:
        other, key = table["same_as"].split(".")
        row = {new: old for old, new in table.get("rename", {}).items()}.get(row, row)
        table = paper_of(other).published[key]
    return _printed(table["rows"][row][table["columns"].index(column)])


def _called(artifact: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Texts with the names that a paper which repeats another's artifact has for that one's models."""
    for old, new in renamed(find(artifact)).items():
        texts = [text.replace(old, new) for text in texts]
    return tuple(texts)


def _printed(value: object) -> str:
    """A published value as text, with its deviation where one is printed."""
    return " ± ".join(map(str, value)) if isinstance(value, list) else str(value)


def assess(claim: Claim, sources: Sources) -> Verdict:
    """The verdict on a claim.

    Rules, by ``kind``: ``best`` and ``worst`` set the best of the rule's ``row`` or rows against the best of all other
    rows (or those ``among``) in each of its ``metrics``; ``compare`` wants every triple of ``all`` to hold, each a row
    and metric, ``<`` or ``>``, and a row and metric or a number, by at least a fourth entry where there is one;
    ``computed`` asks a function of the paper's claims.py, without any records where ``evidence = false``, of the
    ``rows`` that are named, or of those of ``methods``, else of all; ``models`` are those that the claim speaks of.

    Arguments:
        claim: The claim.
        sources: Where records are.

    Raises:
        RecordError: If a rule names a row or a metric that its records lack.
    """
    try:
        return _assessed(claim, sources)
    except KeyError as error:
        raise RecordError(
            f"the records of {claim.artifact} do not have what claim {claim.name} needs: {error}"
        ) from None


def _assessed(claim: Claim, sources: Sources) -> Verdict:
    published = _published(claim)
    if claim.rule["kind"] == "computed" and not claim.rule.get("evidence", True):
        comparisons = _computed(None, claim.rule, claim.paper)
        verdict = _weigh(comparisons)
        return Verdict(claim, verdict, (), tuple(c.text for c in comparisons), published=published)
    evidence, stand_in = _found(claim, claim.artifact, sources), False
    if evidence is None and claim.stand_in:
        evidence, stand_in = _found(claim, claim.stand_in, sources), True
    if evidence is None:
        why = _lacking(claim, sources) + _not_run(claim)
        return Verdict(claim, "not run", (why,), artifact=claim.artifact, published=published)
    needed = _needed(claim, _planned(claim, evidence.artifact, evidence.profile))
    whole = all(r in evidence.rows for r in needed)  # not where all runs of a row have diverged
    comparisons = _compared(evidence, claim) if whole else []
    reasons = _gates(claim, evidence, comparisons)
    if stand_in:
        reasons.insert(0, f"on other data than the paper's ({', '.join(find(claim.stand_in).data)})")
    verdict = _weigh(comparisons)
    if verdict == "contradicted" and evidence.profile != "paper" and claim.size_matters:
        reasons.append("narrow networks, where size could matter")
    if verdict == "inconclusive":
        reasons.append("differences within two standard errors" if comparisons else "nothing to compare")
    if reasons:
        verdict = "inconclusive"
    seeds = min((c.seeds for c in comparisons if c.seeds), default=0)
    ends = {True: "", False: " does not hold", None: " is open"}
    said = [c.text + ends[c.holds] for c in comparisons]
    asked = evidence.profile == "overnight" and claim.training_matters
    if asked and (longer := len(_unconverged(claim, evidence, longer=True))):
        runs = sum(len(evidence.rows.get(row, ())) for row in needed)
        said.append(f"not converged, but trained no shorter than in the paper profile: {longer} of {runs} runs")
    texts = _called(evidence.artifact, said)
    why = _called(evidence.artifact, reasons)
    return Verdict(claim, verdict, why, texts, evidence.profile, evidence.artifact, seeds, published)


def _weigh(comparisons: Sequence[Comparison]) -> str:
    if any(c.holds is False for c in comparisons):
        return "contradicted"
    return "reproduced" if comparisons and all(c.holds for c in comparisons) else "inconclusive"


def counts(verdicts: Sequence[Verdict]) -> str:
    """How many claims have each verdict, in one line: those of the papers' own experiments, and what comparisons add.

    Comparisons try further claims of the papers on data that these do not have, and ask questions that no paper does.
    """
    own, tried, asked = "claims of the papers", "claims tried in comparisons", "questions of the comparisons"
    groups: dict[str, list[str]] = {own: [], tried: [], asked: []}
    for x in verdicts:
        groups[asked if x.claim.asked else own if paper_of(x.claim.paper).title else tried].append(x.verdict)
    return "; ".join(
        f"{len(found)} {what}: " + ", ".join(f"{found.count(v)} {v}" for v in VERDICTS)
        for what, found in groups.items()
        if found
    )


def to_markdown(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as a Markdown table.

    Arguments:
        verdicts: In order.
    """
    lines = ["| claim | place | evidence | published | runs | verdict |", "|:--|:--|:--|:--|:--|:--|"]
    for v in verdicts:
        runs = f"{v.artifact} ({v.profile}, {v.seeds or 'no'} seed{'s' * (v.seeds != 1)})" if v.profile else "—"
        why = f": {'; '.join(v.reasons)}" if v.reasons else ""
        texts = (
            v.claim.text,
            v.claim.place,
            "; ".join(v.evidence) or "—",
            v.published or "—",
            runs,
            f"**{v.verdict}**{escaped(why)}",
        )
        lines.append("| " + " | ".join([*(escaped(t) for t in texts[:-1]), texts[-1]]) + " |")
    return "\n".join(lines) + "\n"


def all_verdicts(figures: Path, paper: str = "") -> list[Verdict]:
    """The verdict on every claim, from recorded runs."""
    sources = Sources(None, figures)
    return [assess(claim, sources) for claim in claims(paper)]
