"""Results from the committed records: a page a paper, a page for each group of records, and the files beside them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from errata import rows as errata_rows
from PIL import Image

from repro.artifacts.claims import Verdict, all_verdicts, counts
from repro.artifacts.inventory import Artifact, artifacts
from repro.artifacts.pages import Entry, entries, group_of, records_behind
from repro.artifacts.render import Sources, left_out, results, state
from repro.papers import papers
from repro.papers.compare.priors.advice import advice, dependence
from repro.papers.compare.priors.tables import by_data
from repro.records import PROFILES, Record
from repro.report.cells import Cell
from repro.report.html import Place, badge, inline, page, table_html
from repro.report.names import titled
from repro.report.plain_tables import PlainTable, make_command
from repro.report.tables import Column, Row, Table

LINES = {
    "gmrf_mcvae": "A Gaussian Markov random field as prior and posterior over the components' latents.",
    "mrf_mvae": "Markov random fields between modalities: Gaussian, asymmetric Laplace, and neural.",
    "sbm_vae": "Single-modality autoencoders whose latents a score-based model joins.",
    "covae": "A joint prior with correlated latents, so that what is generated is as correlated as the data.",
    "pretrained": "The networks that the experiments take as given, trained here.",
    "compare": "What no paper shows: the papers' models on the same data.",
}
KINDS = {"reproduced": "good", "contradicted": "bad", "inconclusive": "open", "not run": "none"}
PROFILE_WORDS = {
    "paper": "the papers' settings",
    "overnight": "a night on two cores, reduced",
    "quick": "minutes on two cores, reduced",
}


def raw(html: str) -> str:
    """HTML as a block of a Markdown page."""
    return f"````{{raw}} html\n{html}\n````\n"


def _label(artifact: Artifact) -> str:
    if match := re.fullmatch(r"(table|fig)(\d+)", artifact.id):
        number = int(match[2])
        roman = ("", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX")
        named = roman[number] if artifact.paper == "gmrf_mcvae" and match[1] == "table" else number
        return f"{'Table' if match[1] == 'table' else 'Figure'} {named}"
    return artifact.id


def _anchor(artifact: Artifact) -> str:
    return f"{papers()[artifact.paper].prefix}-{artifact.id}".lower()


class Records:
    """The pages of records, and which of them a set of records is shown on."""

    def __init__(self) -> None:
        self.groups: dict[str, dict[str, Record]] = {}
        self.sets: dict[str, list[str]] = {}
        self.commands: dict[str, set[str]] = {}

    def page(self, records: Sequence[Record], entry: Entry) -> str:
        """The address of a set of records, from a paper's page."""
        names = []
        for record in records:
            name = group_of(record)
            self.groups.setdefault(name, {})[record.spec.key] = record
            self.commands.setdefault(name, set()).add(make_command(entry.artifact.target, entry.profile))
            names.append(name)
        names = list(dict.fromkeys(names))
        if len(names) == 1:
            return f"records/{names[0]}.html"
        key = "set-" + hashlib.sha256("".join(sorted(names)).encode()).hexdigest()[:12]
        self.sets[key] = names
        return f"records/{key}.html"


def pages(root: Path, records: Records) -> Iterator[tuple[str, str]]:
    """The name and the text of every page but those of records, which are collected on the way."""
    figures = root / "figures"
    found = [*entries(Sources(None, figures))]
    verdicts = all_verdicts(figures)
    errata = errata_rows(root)
    for paper in papers():
        own = [e for e in found if e.artifact.paper == paper]
        yield f"results/{paper}", _paper_page(paper, own, verdicts, records, errata, figures)
    yield "results/structures", _structures_page([e for e in found if e.artifact.paper == "compare"])
    yield "results/index", _index(verdicts)
    yield "results/claims", _claims_page(verdicts, errata)
    yield "_claims", _glance(verdicts)


def write_files(root: Path, out: Path, records: Records) -> None:
    """Writes the pages of records into the built site, and copies figures, PDFs and records as they are committed.

    The pages of records are many and alike, and stand outside the theme: it would take most of the time of a build.
    """
    folder = out / "generated" / "results" / "records"
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {f"{n}.html": _group_page(g, sorted(records.commands[n])) for n, g in records.groups.items()}
    wanted |= {f"{n}.html": _set_page([records.groups[x] for x in names], names) for n, names in records.sets.items()}
    for path in folder.glob("*.html"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")
    figures = root / "figures"
    for path in figures.rglob("*"):
        if path.suffix in (".png", ".pdf") or (path.suffix == ".json" and path.parent.name == "records"):
            to = out / "_files" / path.relative_to(figures)
            if not to.exists() or to.stat().st_mtime < path.stat().st_mtime:
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, to)


def _index(verdicts: Sequence[Verdict]) -> str:
    lines = ["# Results", "", "Everything here is made from the committed records when the site is built.", ""]
    for paper in papers():
        lines.append(f"- [{titled(paper)}]({paper}.md). {LINES.get(paper, papers()[paper].title)}")
    lines += ["- [All claims](claims.md), with their evidence and their verdicts.", ""]
    lines += ["- [Which structure to take](structures.md) for which kind of dependence.", ""]
    lines += ["```{toctree}", ":hidden:", "", *papers(), "claims", "structures", "```"]
    return "\n".join(lines) + "\n"


def _structures_page(own: Sequence[Entry]) -> str:
    """Which latent structure to take for which kind of dependence, each sentence beside the table that it follows from.

    Arguments:
        own: What is recorded of the comparisons.
    """
    lines = ["# Which structure to take", ""]
    lines += ["Each structure is fitted to the encodings of the same autoencoders, so that nothing else differs. Among"]
    lines += ["the structures that no other beats by more than two standard errors over the seeds, the one that draws"]
    lines += ["fastest is recommended, by the one measure that is named; how good images look, fits, settings and the"]
    lines += ["nearest-neighbour oracle are in the tables. Of runs of one seed the best is named, and nothing is"]
    lines += ["recommended.", ""]
    found: dict[str, tuple[int, Entry, Mapping[str, Sequence[Record]]]] = {}
    for entry in (e for e in own if e.artifact.id.startswith("priors-") and e.artifact.kind == "T"):
        known = results(entry.artifact, entry.profile, entry.sources.record, entry.sources.samples, entry.seeds)
        for records in by_data(known):
            first = next(rs[0] for rs in records.values() if rs)
            kind, rank = dependence(first.spec.params["data"]), PROFILES.index(entry.profile)
            if kind not in found or rank < found[kind][0]:
                found[kind] = rank, entry, records
    for kind, (_, entry, records) in found.items():
        first = next(rs[0] for rs in records.values() if rs)
        table = f"[{make_command(entry.artifact.target, entry.profile)}](compare.md#{_anchor(entry.artifact)})"
        lines += [f"## {kind}", "", *(f"- {text}" for text in advice(first.spec.dataset, records)), ""]
        lines += [f"From {table}: {PROFILE_WORDS[entry.profile]}.", ""]
    shown = {e.artifact.name for _, e, _ in found.values()}
    planned = [a for a in artifacts().values() if a.name.startswith("compare/priors-") and a.kind == "T"]
    if missing := [f"`{a.target}`" for a in planned if a.name not in shown]:
        lines += [f"Not run yet: {', '.join(missing)}.", ""]
    return "\n".join(lines)


def _related(artifact: str, errata: Sequence[tuple[str, str, str]]) -> list[str]:
    """The errata that name an artifact's table or figure, or its target."""
    found = artifacts()[artifact]
    paper = re.escape(titled(found.paper))
    label = re.escape(_label(found))
    target = re.compile(rf"`{re.escape(found.target)}`")
    place = re.compile(rf"{paper}[^;]*?{label}\b") if " " in _label(found) else None
    return [n for n, where, text in errata if target.search(text) or (place is not None and place.search(where))]


def _errata_links(names: Sequence[str], up: str) -> str:
    return ", ".join(f'<a href="{up}errata.html#{n.lower()}">{n}</a>' for n in names)


def _claim_rows(verdicts: Sequence[Verdict], errata: Sequence[tuple[str, str, str]]) -> str:
    lines = []
    for v in verdicts:
        name = v.artifact or v.claim.artifact
        artifact = artifacts()[name]
        where = f"{artifact.paper}.html#{_anchor(artifact)}"
        runs = f"{v.profile}, {v.seeds or 'no'} seed{'s' * (v.seeds != 1)}" if v.profile else "no runs"
        names = _related(name, errata)
        links = f'<a href="{where}">{escape(_label(artifact))}</a>'
        if names:
            links += f"; errata {_errata_links(names, '../../')}"
        reasons = f'<div class="reasons">{inline("; ".join(v.reasons))}</div>' if v.reasons else ""
        evidence = f'<div class="reasons">{inline("; ".join(v.evidence))}</div>' if v.evidence else ""
        published = f'<div class="reasons">published: {inline(v.published)}</div>' if v.published else ""
        lines.append(
            f'<tr id="claim-{v.claim.name.replace("/", "-")}"><th scope="row">{inline(v.claim.text)}'
            f'<div class="reasons">{inline(v.claim.place)}</div></th>'
            f"<td>{badge(v.verdict, KINDS[v.verdict])}{reasons}</td><td>{evidence}{published}</td>"
            f"<td>{links}<div class=reasons>{escape(runs)}</div></td></tr>"
        )
    head = "".join(f'<th scope="col">{t}</th>' for t in ("claim", "verdict", "evidence", "table, records, errata"))
    return (
        '<div class="results-scroll claims" role="region" tabindex="0" aria-label="Claims">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _claims_page(verdicts: Sequence[Verdict], errata: Sequence[tuple[str, str, str]]) -> str:
    lines = ["# All claims", "", f"{counts(verdicts)}.", ""]
    lines += ["A verdict is computed from records: *reproduced* and *contradicted* need runs of the paper profile, or"]
    lines += ["of the overnight profile that have converged; a reduced run never contradicts a claim that the size of"]
    lines += ["networks could decide.", ""]
    for paper in (name for name, p in papers().items() if p.title):
        own = [v for v in verdicts if v.claim.paper == paper]
        lines += [f"## {titled(paper)}", "", f"{counts(own)}.", "", raw(_claim_rows(own, errata))]
    return "\n".join(lines)


def _glance(verdicts: Sequence[Verdict]) -> str:
    """How the papers' claims stand, and the main ones, for the start page."""
    lines = []
    for v in (v for v in verdicts if v.claim.headline):
        address = f"generated/results/{v.claim.paper}.html#claim-{v.claim.name.replace('/', '-')}"
        lines.append(
            f'<li>{badge(v.verdict, KINDS[v.verdict])} <a href="{address}">{inline(v.claim.text)}</a> '
            f'<span class="of">{titled(v.claim.paper)}</span></li>'
        )
    return f"{counts(verdicts)}. The main ones:\n\n" + raw(f'<ul class="glance">{"".join(lines)}</ul>')


def _paper_page(
    paper: str,
    own: Sequence[Entry],
    verdicts: Sequence[Verdict],
    records: Records,
    errata: Sequence[tuple[str, str, str]],
    figures: Path,
) -> str:
    lines = [f"# {titled(paper)}", "", LINES.get(paper, papers()[paper].title), ""]
    claimed = [v for v in verdicts if v.claim.paper == paper]
    if claimed:
        lines += ["## Claims", "", f"{counts(claimed)}.", "", raw(_claim_rows(claimed, errata))]
    profiles = [p for p in PROFILE_WORDS if any(e.profile == p for e in own)]
    options = "".join(f'<option value="{p}">{p}: {PROFILE_WORDS[p]}</option>' for p in profiles)
    if len(profiles) > 1:
        lines += [
            raw(
                '<div class="results-filter"><label for="profile-filter">Runs of the profile</label>'
                f'<select id="profile-filter" data-filter><option value="">any</option>{options}</select></div>'
            )
        ]
    shown: dict[str, list[Entry]] = {}
    for entry in own:
        shown.setdefault(entry.artifact.id, []).append(entry)
    kinds = "TFQS"  # measured tables first, what is printed from the code last
    listed = [a for a in artifacts().values() if a.paper == paper and a.id in shown]
    for artifact in sorted(listed, key=lambda a: kinds.index(a.kind)):
        title = re.sub(r"([*_<])", r"\\\1", artifact.title)
        lines += [f"({_anchor(artifact)})=", f"## {_label(artifact)}: {title}", ""]
        lines += [raw("\n".join(_result(e, records, errata) for e in shown[artifact.id]))]
    if unmet := [*_unmet(paper, own)]:
        lines += ["## Published, not measured yet", "", raw("\n".join(table_html(t) for t in unmet))]
    left = [a for a in artifacts().values() if a.paper == paper and a.id not in shown]
    if left:
        items = "".join(
            f'<li id="{_anchor(x)}">{inline(_label(x))}, {inline(x.title)}: {inline(state(x, figures))}.</li>'
            for x in left
        )
        lines += ["## Not shown", "", raw(f"<ul>{items}</ul>")]
    return "\n".join(lines) + "\n"


def _unmet(paper: str, own: Sequence[Entry]) -> Iterator[Table]:
    """What the paper prints in its tables and no table of the page sets a value beside: the rows as printed."""
    tables = [t for e in own for t in e.tables]
    shown = {n.cell.published for t in tables if isinstance(t, Table) for n in t.numbers()}
    text = {str(c) for t in tables if isinstance(t, PlainTable) for row in t.rows for c in row}
    for name, printed in papers()[paper].published.items():
        rows = {}
        for label, cells in printed.get("rows", {}).items() if "caption" in printed else ():
            values = [c[0] if isinstance(c, list) and c else None if isinstance(c, list) else c for c in cells]
            if any(isinstance(v, int | float) and v not in shown and str(v) not in text for v in values):
                rows[label] = values
        if rows:
            keys = printed["columns"]
            columns = [Column(k, k.replace("_", " ")) for k in keys]
            left = [
                Row(label, {k: _printed(v) for k, v in zip(keys, values, strict=False)})
                for label, values in rows.items()
            ]
            found = artifacts().get(f"{paper}/{name}")
            said = (
                f"`{make_command(found.target, 'paper')}` measures it"
                if found and found.built
                else "it is not computed here"
            )
            yield Table(
                f"{printed['caption']}, as printed", f"Nothing is recorded to compare it with; {said}", columns, left
            )


def _printed(value: object) -> Cell:
    if isinstance(value, int | float):
        return Cell(value, (), "not run")
    return Cell(None, (), "not printed")


def _result(entry: Entry, records: Records, errata: Sequence[tuple[str, str, str]]) -> str:
    behind = records_behind(entry)
    measured = {n.place for t in entry.tables for n in t.numbers() if n.cell.n}

    def link(place: Place) -> str:
        found = behind.get(place) or (entry.records if place in measured else ())
        return records.page(found, entry) if found else ""

    said = [f"Profile {entry.profile} ({PROFILE_WORDS[entry.profile]})"]
    if without := left_out(entry.artifact, entry.profile):
        said.append(without)
    if entry.records:
        count = len(entry.records)
        said.append(f'<a href="{records.page(entry.records, entry)}">{count} record{"s" * (count > 1)}</a>')
    if entry.profile == "paper" or entry.records:
        said.append(f"<code>{escape(make_command(entry.artifact.target, entry.profile))}</code>")
    if names := _related(entry.artifact.name, errata):
        said.append(f"errata {_errata_links(names, '../../')}")
    parts = [f'<p class="profile">{"; ".join(said)}</p>']
    parts += [table_html(table, link) for table in entry.tables]
    if "png" in entry.files:
        base = "../../_files/" + entry.files["png"].relative_to(entry.sources.figures).as_posix()
        alt = escape(f"{_label(entry.artifact)}: {entry.artifact.title}", quote=True)
        with Image.open(entry.files["png"]) as picture:
            width, height = picture.size  # so that nothing moves when it has been loaded
        pdf = ""
        if "pdf" in entry.files:
            pdf = f'<figcaption><a href="{base[:-4]}.pdf">PDF</a></figcaption>'
        parts.append(
            f'<figure class="result-figure"><a href="{base}"><img loading="lazy" alt="{alt}" src="{base}"'
            f' width="{width}" height="{height}"></a>'
            f"{pdf}</figure>"
        )
    elif not entry.tables and "md" in entry.files:
        parts.append(f"<pre>{escape(entry.files['md'].read_text(encoding='utf-8'))}</pre>")
    return f'<section class="result" data-profile="{entry.profile}">{"".join(parts)}</section>'


def _title(group: dict[str, Record]) -> str:
    spec = next(iter(group.values())).spec
    seeds = sorted(r.spec.seed for r in group.values())
    return f"{spec.method} on {spec.dataset}, profile {spec.profile}, seed{'s' * (len(seeds) > 1)} " + ", ".join(
        map(str, seeds)
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], label: str) -> str:
    top = "".join(f'<th scope="col"><button type="button" class="sorter">{escape(h)}</button></th>' for h in head)
    body = "".join(
        "<tr>" + f'<th scope="row">{row[0]}</th>' + "".join(f"<td>{c}</td>" for c in row[1:]) + "</tr>" for row in rows
    )
    return (
        f'<div class="results-scroll" role="region" tabindex="0" aria-label="{label}">'
        f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.1f} min"


def _group_page(group: dict[str, Record], commands: Sequence[str]) -> str:
    ordered = sorted(group.values(), key=lambda r: r.spec.seed)
    spec = ordered[0].spec
    runs = []
    for r in ordered:
        e = r.environment
        commit = str(e.get("commit") or "unknown")[:12] + (" with changes" if e.get("dirty") else "")
        versions = ", ".join(f"{k} {v}" for k, v in e.get("versions", {}).items())
        address = f"../../../_files/{spec.paper}/records/{r.spec.key}.json"
        ended = {True: "yes", False: "no", None: "—"}[r.converged]
        runs.append(
            [
                str(r.spec.seed),
                f'<a href="{address}"><code>{r.spec.key}</code></a>',
                f"<code>{commit}</code>",
                escape(f"{e.get('device_name')} ({e.get('device')})"),
                _seconds(r.training_seconds),
                _seconds(r.evaluation_seconds),
                ended,
                f"<code>{r.weights_sha256[:16]}…</code>",
                escape(versions),
            ]
        )
    head = ["seed", "key", "commit", "device", "training", "evaluation", "converged", "weights SHA-256", "versions"]
    names = list(dict.fromkeys(m.name for r in ordered for m in r.metrics))
    measured = []
    for name in names:
        values = [next((m for m in r.metrics if m.name == name), None) for r in ordered]
        first = next(m for m in values if m is not None)
        shown = ["—" if m is None else f"{m.value:.6g}".replace("-", "−") for m in values]
        measured.append([f"<code>{escape(name)}</code>", *shown, escape(first.unit), str(first.num_samples)])
        measured[-1].append(escape(first.protocol))
    columns = ["metric", *(f"seed {r.spec.seed}" for r in ordered), "unit", "samples", "protocol"]
    data = sorted({(k, v) for r in ordered for k, v in r.data.items()})
    hashes = "".join(f"<li>{escape(name)}: <code>{value}</code></li>" for name, value in data) or "<li>none</li>"
    them = "it" if len(ordered) == 1 else "them"
    said = "\n".join(escape(command) for command in commands)
    return _page(
        spec.paper,
        _title(group),
        f'<p>What repeats {them}:</p><pre tabindex="0">{said}</pre><h2>Runs</h2>{_table(head, runs, "Runs")}'
        f"<h2>Data</h2><ul>{hashes}</ul>"
        f'<h2>Settings</h2><pre tabindex="0">{escape(json.dumps(spec.to_dict()["params"], indent=1))}</pre>'
        f"<h2>What was measured</h2>{_table(columns, measured, 'Metrics')}",
    )


def _page(paper: str, title: str, body: str) -> str:
    nav = '<a href="../../../index.html">repro</a> › <a href="../index.html">Results</a> › '
    nav += f'<a href="../{paper}.html">{titled(paper)}</a>'
    return page(title, f'<nav aria-label="Where this is">{nav}</nav><h1>{escape(title)}</h1>{body}')


def _set_page(groups: Sequence[dict[str, Record]], names: Sequence[str]) -> str:
    paper = next(iter(groups[0].values())).spec.paper
    rows = []
    for group, name in zip(groups, names, strict=True):
        ordered = sorted(group.values(), key=lambda r: r.spec.seed)
        spec = ordered[0].spec
        commit = ", ".join(sorted({str(r.environment.get("commit"))[:12] for r in ordered}))
        settings = json.dumps(spec.to_dict()["params"].get("model", {}), sort_keys=True)
        rows.append(
            [
                f'<a href="{name}.html">{escape(spec.method)}</a>',
                escape(spec.dataset),
                spec.profile,
                ", ".join(str(r.spec.seed) for r in ordered),
                f"<code>{commit}</code>",
                " ".join(f"<code>{r.spec.key}</code>" for r in ordered),
                escape(settings[:160] + ("…" if len(settings) > 160 else "")),
            ]
        )
    head = ["method", "dataset", "profile", "seeds", "commit", "keys", "model's settings"]
    said = f"<p>The value follows from the runs of {len(groups)} settings.</p>"
    return _page(paper, "Records behind a value", said + _table(head, rows, "Groups of records"))
