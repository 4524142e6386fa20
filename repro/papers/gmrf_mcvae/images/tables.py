"""GMRF MCVAE's Tables II and III, and what its latents hold with settings changed, from records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from repro.datasets.card import load_card
from repro.experiment import Results, Rows, artifact
from repro.papers import paper
from repro.papers.gmrf_mcvae.copula.experiment import LABELS, METHODS
from repro.papers.gmrf_mcvae.copula.tables import lowest_note
from repro.papers.gmrf_mcvae.images.experiment import image_spec
from repro.papers.gmrf_mcvae.images.settings import (
    CONSTRUCTIONS,
    EXPERIMENTS,
    LONGER,
    PILOTS,
    RECONSTRUCTIONS,
    SHARPEST,
    SLOWER,
    VARIANTS,
)
from repro.records import Metric, Record, RunSpec, of_profile, provenance
from repro.report.cells import Cell
from repro.report.plain_tables import make_command
from repro.report.tables import Column, Row, RowGroup, Table

__all__ = [
    "ABLATIONS",
    "ablations",
    "agreement",
    "image_runs",
    "record_cells",
    "settings_note",
    "sweep",
    "table2",
    "table3",
]

Metrics = Mapping[str, str | None]  # column to the metric's name after "test/"

UNCONDITIONAL, CONDITIONAL, CEILING = "Unconditional", "Conditional", "All modalities observed"
PROTOCOLS = {
    "one component at a time, eq. 9": "conditional-componentwise",
    "the same, z_j's variance as its scale (released code)": "conditional-covariance-as-scale",
}
# Shown where they were measured: the first records are of before they were there.
LATER_PROTOCOLS = {
    "at the conditional's mean, none is drawn": "conditional-mean",
    "together, at half the conditional's deviation (temperature 0.5)": "conditional-temperature-0.5",
}
TOGETHER, ONE_AT_A_TIME = "together, from the prior's conditional", next(iter(PROTOCOLS))
NOT_IN_ROW = "not part of this row"
PILOT = ", pilot"

TABLE2: dict[str, tuple[Column, str]] = {
    "uncond_fid": (Column("uncond_fid", "FID", "lower", group=UNCONDITIONAL), "unconditional/fid"),
    "uncond_frechet": (
        Column("uncond_frechet", "Fréchet, classifier", "lower", group=UNCONDITIONAL),
        "unconditional/frechet-classifier",
    ),
    "uncond_coherence": (
        Column("uncond_coherence", "Coherence", "higher", 3, UNCONDITIONAL),
        "unconditional/coherence",
    ),
    "cond_fid": (Column("cond_fid", "FID", "lower", group=CONDITIONAL), "conditional/fid"),
    "cond_frechet": (
        Column("cond_frechet", "Fréchet, classifier", "lower", group=CONDITIONAL),
        "conditional/frechet-classifier",
    ),
    "cond_coherence": (Column("cond_coherence", "Coherence", "higher", 3, CONDITIONAL), "conditional/coherence"),
    "cond_ssim_unit": (Column("cond_ssim_unit", "SSIM", "higher", 3, CONDITIONAL), "conditional/ssim"),
    "cond_ssim": (Column("cond_ssim", "SSIM read with range 255", "higher", 3, CONDITIONAL), "conditional/ssim/byte"),
    "ceiling": (Column("ceiling", "Right digits in reconstructions", None, 3, CEILING), "reconstruction/coherence"),
}
TABLE3: dict[str, tuple[Column, str]] = {
    "uncond_component_fid": (
        Column("uncond_component_fid", "FID, components", "lower", group=UNCONDITIONAL),
        "unconditional/fid",
    ),
    "uncond_full_fid": (
        Column("uncond_full_fid", "FID, whole", "lower", group=UNCONDITIONAL),
        "unconditional/fid/whole",
    ),
    "uncond_frechet": (
        Column("uncond_frechet", "Fréchet of pixels, components", "lower", group=UNCONDITIONAL),
        "unconditional/frechet-pixels",
    ),
    "uncond_frechet_whole": (
        Column("uncond_frechet_whole", "Fréchet of pixels, whole", "lower", group=UNCONDITIONAL),
        "unconditional/frechet-pixels/whole",
    ),
    "cond_component_fid": (
        Column("cond_component_fid", "FID, components", "lower", group=CONDITIONAL),
        "conditional/fid",
    ),
    "cond_full_fid": (Column("cond_full_fid", "FID, whole", "lower", group=CONDITIONAL), "conditional/fid/whole"),
    "cond_frechet": (
        Column("cond_frechet", "Fréchet of pixels, components", "lower", group=CONDITIONAL),
        "conditional/frechet-pixels",
    ),
    "cond_frechet_whole": (
        Column("cond_frechet_whole", "Fréchet of pixels, whole", "lower", group=CONDITIONAL),
        "conditional/frechet-pixels/whole",
    ),
    "cond_component_ssim": (
        Column("cond_component_ssim", "SSIM, components", "higher", 3, CONDITIONAL),
        "conditional/ssim",
    ),
    "cond_full_ssim": (Column("cond_full_ssim", "SSIM, whole", "higher", 3, CONDITIONAL), "conditional/ssim/whole"),
    "cond_ws": (Column("cond_ws", "Centres of mass (pixels)", "lower", group=CONDITIONAL), "conditional/centres"),
    "cond_ws_joint": (
        Column("cond_ws_joint", "Centres, all together (pixels)", "lower", group=CONDITIONAL),
        "conditional/centres/joint",
    ),
    "ceiling": (Column("ceiling", "SSIM of reconstructions", None, 3, CEILING), "reconstruction/ssim"),
}

ABLATIONS: dict[str, tuple[Column, str]] = {
    "reconstruction": (Column("reconstruction", "Reconstructions", "higher", 3), "reconstruction/coherence"),
    "nearest": (Column("nearest", "Latents of the nearest training sample", "higher", 3), "latents-nearest/coherence"),
    "mean": (Column("mean", "mean", "higher", 3, "Gaussian of the aggregate posterior"), "latents-mean/coherence"),
    "sample": (
        Column("sample", "sample", "higher", 3, "Gaussian of the aggregate posterior"),
        "latents-sample/coherence",
    ),
    "conditional": (Column("conditional", "conditional", "higher", 3, "Learned prior"), "conditional/coherence"),
    "prior_mean": (
        Column("prior_mean", "its conditional's mean", "higher", 3, "Learned prior"),
        "conditional-mean/coherence",
    ),
    "tempered": (
        Column("tempered", "temperature 0.5", "higher", 3, "Learned prior"),
        "conditional-temperature-0.5/coherence",
    ),
    "unconditional": (
        Column("unconditional", "unconditional", "higher", 3, "Learned prior"),
        "unconditional/coherence",
    ),
}


def image_runs(profile: str, seeds: int | None, *, dataset: str) -> Rows:
    """Each method on a dataset."""
    number = of_profile(EXPERIMENTS[dataset].profiles, profile)["seeds"] if seeds is None else seeds
    return {m: [image_spec(dataset, m, s, profile) for s in range(number)] for m in METHODS}


def ablation_runs(profile: str, seeds: int | None) -> Rows:
    """GMRF MCVAE on PolyMNIST as in Table II, and with settings changed."""
    number = of_profile(EXPERIMENTS["polymnist"].profiles, profile)["seeds"] if seeds is None else seeds
    own = partial(image_spec, "polymnist", "gmrf_mcvae", profile=profile)
    rows = {"as in Table II": [own(seed=s) for s in range(number)]}
    for i, (name, changes) in enumerate(VARIANTS.items()):
        longer = LONGER if profile in ("quick", "smoke") and i == len(VARIANTS) - 1 else 1
        row = name if longer == 1 else f"{name}, {longer} times the epochs"
        rows[row] = [own(seed=s, longer=longer, **changes) for s in range(number)]
    if profile in ("paper", "overnight"):
        for row, changes in ((SHARPEST if profile == "overnight" else {}) | CONSTRUCTIONS).items():
            rows[row] = [own(seed=s, **changes) for s in range(number)]
    if profile == "overnight":
        row = f"as in Table II, beta {SLOWER['beta']:g}, {_stepped(SLOWER['constant_rate'])}"
        rows[row] = [own(seed=s, **SLOWER) for s in range(number)]
    return rows


def constant_rate_runs(profile: str, seeds: int | None) -> Rows:
    """Each method on PolyMNIST at a learning rate that stays, as all profiles but ``overnight`` have it in Table II.

    In ``overnight`` it is what that profile planned before its rate decayed, with the variants and the pilots.
    """
    number = of_profile(EXPERIMENTS["polymnist"].profiles, profile)["seeds"] if seeds is None else seeds
    own = partial(image_spec, "polymnist", profile=profile)
    if profile != "overnight":
        return {LABELS[m]: [own(method=m, seed=s) for s in range(number)] for m in METHODS}
    changes = {m: SLOWER if m == "gmrf_mcvae" else {"constant_rate": SLOWER["constant_rate"]} for m in METHODS}
    rows = {LABELS[m]: [own(method=m, seed=s, **c) for s in range(number)] for m, c in changes.items()}
    for row, c in (VARIANTS | CONSTRUCTIONS).items():
        rows[row] = [own(method="gmrf_mcvae", seed=s, **(SLOWER | c)) for s in range(number)]
    for row, c in PILOTS.items():
        rows[f"{row}{PILOT}"] = [own(method="gmrf_mcvae", seed=0, pilot=True, **(SLOWER | c))]
    return rows


def sweep_runs(profile: str, seeds: int | None) -> Rows:
    """Pilots on held-out training images."""
    of_profile(EXPERIMENTS["polymnist"].profiles, profile)
    return {name: [image_spec("polymnist", "gmrf_mcvae", 0, profile, pilot=True, **c)] for name, c in PILOTS.items()}


def _published(table: str) -> Mapping[str, Any]:
    return paper("gmrf_mcvae").published[table]


def _values(records: Sequence[Record], name: str) -> list[float]:
    return [m.value for r in records for m in r.metrics if m.name == name]


def _reason(records: Sequence[Record], metric: str, missing: str, split: str = "test") -> str:
    """Why a record lacks a metric, as the record says; ``missing`` where there is no record."""
    if not records:
        return missing
    if "/fid" in metric:
        said = [m.protocol for r in records for m in r.metrics if m.name == "test/fid/available"]
        return said[0] if said else "not measured"
    task, centres, _ = metric.partition("/centres")
    known = {m.name for r in records for m in r.metrics}
    if centres and f"{split}/{task}/ssim" in known and f"{split}/{task}/centres" not in known:
        return "no generated image of a component has ink"  # for which alone a task that was measured has no centres
    return "not measured"


def record_cells(
    records: Sequence[Record],
    metrics: Metrics,
    published: Mapping[str, float] | None = None,
    split: str = "test",
    missing: str = "not run",
) -> dict[str, Cell]:
    cells = {}
    for key, metric in metrics.items():
        known = None if published is None else published.get(key)
        values = [] if metric is None else _values(records, f"{split}/{metric}")
        reason = NOT_IN_ROW if metric is None else _reason(records, metric, missing, split)
        cells[key] = Cell(known, values) if values else Cell(known, (), reason)
    return cells


def _floor_metric(metric: str) -> str:
    return "floor/" + metric.split("/", 1)[1]


def _floors(records: Sequence[Record], floor: Metrics, metrics: Metrics) -> list[Row]:
    """What true images score, and what the nearest training samples reach in a model's place: of no run's model."""
    near = {
        k: m.replace("conditional/", "nearest/") if m and m.startswith("conditional/") and "byte" not in m else None
        for k, m in metrics.items()
    }
    near = {k: None if m and "/fid" in m else m for k, m in near.items()}
    measured = [r for r in records if _values([r], "test/nearest/ssim")] or records
    return [
        Row("True images (see notes)", record_cells(records[:1], floor)),
        Row("Nearest training sample, in a model's place", record_cells(measured[:1], near)),
    ]


def _rows(results: Results, metrics: Metrics, table: str) -> list[Row]:
    prints, found = _published(table), []
    for m in METHODS:
        published = dict(zip(prints["columns"], prints["rows"][LABELS[m]], strict=True))
        cells = record_cells(results.records(m), metrics, published, missing=_missing(results))
        found.append(Row(LABELS[m], cells))
    return found


def _missing(results: Results) -> str:
    """What a row without records says."""
    return f"not run: {make_command(f'gmrf-{results.id}', results.profile)}"


def _protocol_rows(records: Sequence[Record], metrics: Metrics) -> list[Row]:
    """GMRF MCVAE's further protocols of conditional sampling."""
    found = []
    for label, name in (PROTOCOLS | LATER_PROTOCOLS).items():
        own = {
            k: m.replace("conditional/", f"{name}/") if m and m.startswith("conditional/") else None
            for k, m in metrics.items()
        }
        own = {k: None if m and ("/fid" in m or "/byte" in m) else m for k, m in own.items()}
        row = Row(label, record_cells(records, own))
        if label in PROTOCOLS or any(cell.n for cell in row.cells.values()):
            found.append(row)
    return found


def _nearest_reading(records: Sequence[Record], published: float) -> list[str]:
    """Which way to draw the unobserved latents gives the conditional coherence nearest to the published one.

    Those that are equal in law are one reading here, and readings within two standard errors of one another are not
    told apart; of the several pairs of modalities that a test sample gives only one counts.
    """
    tasks = {TOGETHER: "conditional"} | PROTOCOLS | LATER_PROTOCOLS
    means = {k: fmean(v) for k, n in tasks.items() if (v := _values(records, f"test/{n}/coherence"))}
    if len(means) < 2:
        return []
    listed = "; ".join(f"{label} {value:.3f}" for label, value in means.items())
    if ONE_AT_A_TIME in means:
        equal = fmean([means.pop(TOGETHER), means.pop(ONE_AT_A_TIME)])
        means = {f"{TOGETHER}, or {ONE_AT_A_TIME} (equal in law)": equal} | means
    best = min(means.values(), key=lambda v: abs(v - published))
    number = sum(m.num_samples for r in records for m in r.metrics if m.name == "test/conditional/coherence")
    error = math.sqrt(2 * max(0.0, best * (1 - best)) / max(1, number))
    nearest = [k for k, v in means.items() if abs(v - best) <= 2 * error]
    apart = "" if len(nearest) == 1 else ", within two standard errors of one another"
    return [
        f"GMRF MCVAE's conditional coherence by how the unobserved latents are drawn: {listed}. Nearest to the "
        f"published {published:g}{apart}: {'; '.join(nearest)}."
    ]


def _scales(records: Sequence[Record]) -> str:
    """The scales of the models' likelihoods in words."""
    found: dict[float, list[str]] = {}
    for r in records:
        models = found.setdefault(r.spec.params["model"]["scale"], [])
        if LABELS[r.spec.method] not in models:
            models.append(LABELS[r.spec.method])
    if len(found) == 1:
        return f" of scale {next(iter(found)):g}"
    return " of scale " + ", ".join(f"{scale:g} ({', '.join(models)})" for scale, models in found.items())


def _stated(name: str) -> dict[str, Any]:
    """What a paper states of its runs on PolyMNIST."""
    table = _published("polymnist_settings")
    return dict(zip(table["columns"], table["rows"][name], strict=True))


def _epochs(stated: Mapping[str, Any]) -> str:
    return ("at most " if stated["most"] == "at most" else "") + f"{stated['epochs']:,} epochs"


def _trained(spec: RunSpec) -> str:
    """How long and on what a run was trained, without the samples that it holds out."""
    training, data = spec.params["training"], spec.params["data"]
    whole, held_out = load_card(spec.dataset).splits["train"].count, data.get("held_out", 0)
    number, patience = data["train_samples"] or whole, training.get("patience")
    samples = "all" if data["train_samples"] is None else f"{number:,}"
    if number is not None and whole is not None and number - held_out < whole:
        samples = f"{number - held_out:,} of the {whole:,}"
    text = f"{training['epochs']} epochs on {samples} training samples"
    if patience is None:
        return text
    loss = f"loss of the {held_out:,} that are held out" if held_out else "validation loss"
    return f"At most {text}, ended once the {loss} has not improved for {patience} epochs"


def _stepped(training: Mapping[str, Any]) -> str:
    """Batch size and learning rate in words."""
    falls = f", times {training['decay']:g} after each epoch" if "decay" in training else ""
    return f"batch {training['batch_size']}, Adam at {training['learning_rate']:g}{falls}"


def _by_row(values: Sequence[str]) -> str:
    """One value, or those that rows differ in."""
    return values[0] if len(values) == 1 else f"{', '.join(values[:-1])} or {values[-1]}, by row"


def _ramped(records: Sequence[Record]) -> str:
    """How long runs whose beta rises train at each, in words; nothing where none does."""
    found = []
    for r in records:
        model, training = r.spec.params["model"], r.spec.params["training"]
        if betas := model.get("ramp"):
            epochs = [*(training["stages"][f"beta {b:g}"]["epochs"] for b in betas), training["epochs"]]
            parts = [f"{e} at {b:g}" for e, b in zip(epochs, [*betas, model["beta"]], strict=True)]
            found += [f"; where beta rises, {', '.join(parts)}"]
    return "".join(dict.fromkeys(found))


def _widths(network: Mapping[str, Any]) -> str:
    return (
        f"{network['channels']} channels at the images' resolution, at most {network['encoder_max_channels']:,} "
        f"(encoder) and {network['decoder_max_channels']:,} (decoder)"
    )


def _departures(records: Sequence[Record], name: str) -> str:
    """What the paper states otherwise, then what the profile of its settings has where it states nothing."""
    own, planned = records[0].spec.params, {}
    for r in records:
        planned[r.spec.method] = image_spec(r.spec.dataset, r.spec.method, 0, "paper").params
    whole, digits = planned[records[0].spec.method], records[0].spec.dataset == "polymnist"
    said = _stated(name) if digits else {"epochs": whole["training"]["epochs"], "most": "", "masked": None}
    stated = [] if own["training"]["epochs"] == said["epochs"] else [_epochs(said)]
    chosen = [
        f"{words} {whole['training'][key]:g}"
        for key, words in {"batch_size": "batch", "learning_rate": "Adam at"}.items()
        if whole["training"][key] != own["training"][key]
    ]
    if own["data"]["size"] != (size := whole["data"]["size"]):
        stated.append(f"images of {size} × {size}")
    if (widths := _widths(whole["model"]["network"])) != _widths(own["model"]["network"]):
        (stated if name == LABELS["gmrf_mcvae"] else chosen).append(widths)
    different: dict[tuple[str, float, bool], list[str]] = {}
    for r in records:
        for key in ("latent_dim", "beta"):
            value = planned[r.spec.method]["model"][key]
            if r.spec.params["model"][key] != value:
                found = different.setdefault((key, value, key == "latent_dim" or r.spec.method == "gmrf_mcvae"), [])
                found += [LABELS[r.spec.method]] * (LABELS[r.spec.method] not in found)
    for (key, value, is_stated), models in different.items():
        words = f"{value:g} latents" if key == "latent_dim" else f"beta {value:g}"
        (stated if is_stated else chosen).append(f"{words} ({', '.join(models)})")
    kept = next((r.spec.params["model"]["kept"] for r in records if r.spec.method == "gmrf_mcvae"), None)
    if kept is not None and said["masked"] not in (None, 1 - kept):
        stated.append(f"{said['masked']:.0%} of the off-diagonal entries masked")
    text = f" The paper: {'; '.join(stated)}." if stated else ""
    return text + (f" Of what it does not state, the profile paper has: {'; '.join(chosen)}." if chosen else "")


def settings_note(records: Sequence[Record], name: str = LABELS["gmrf_mcvae"]) -> str:
    """The settings of a table's runs, and where they depart from the paper's.

    Arguments:
        records: Of all models that the table shows.
        name: What the paper whose table it is calls its model.
    """
    spec = records[0].spec.params
    training, network, data = spec["training"], spec["model"]["network"], spec["data"]
    latents = {
        LABELS[r.spec.method]: f"{r.spec.params['model']['latent_dim']}"
        + (f" + {r.spec.params['model']['specific_dim']}" if r.spec.params["model"].get("specific_dim") else "")
        for r in records
    }
    betas: dict[str, dict[str, None]] = {}
    for r in records:
        betas.setdefault(LABELS[r.spec.method], {})[f"{r.spec.params['model']['beta']:g}"] = None
    own = [r.spec.params["model"] for r in records if r.spec.method == "gmrf_mcvae"]
    kept = {model["kept"]: None for model in own}
    masks = [f"{1 - k:.0%} of its off-diagonal entries masked" if k < 1 else "no mask" for k in kept]
    mask = "" if [*kept] in ([], [1]) else f", {_by_row(masks)}"
    if own and all(model["posterior"] == "cholesky" for model in own):  # where rows differ, their names say how
        mask += ", posterior and prior with Cholesky factors"
    start = network.get("background")
    white = "" if start is None else f"; the bias of the decoders' outputs starts at {start:g}, the background"
    return (
        f"{_trained(records[0].spec)}, {_stepped(training)}{_ramped(records)}; images "
        f"of {data['size']} × {data['size']}; residual networks of {_widths(network)}{white}. Latents: "
        f"{', '.join(f'{m} {n}' for m, n in latents.items())} (GMRF MCVAE's for each modality{mask}). "
        f"{spec['model']['likelihood'].capitalize()} likelihood{_scales(records)}; beta: "
        f"{', '.join(f'{m} {_by_row([*b])}' for m, b in betas.items())} (GMRF MCVAE's relative to a mean over pixels)."
        f"{_departures(records, name)}"
    )


def _number(records: Sequence[Record], name: str) -> str:
    """The samples that a metric of the test split rests on, in every record that has it."""
    found = sorted({m.num_samples for r in records for m in r.metrics if m.name == f"test/{name}"})
    return " or ".join(f"{n:,}" for n in found) or "not measured"


def _numbers(records: Sequence[Record], name: str, what: str) -> str:
    """The samples that a metric rests on, and those of SSIM where it rests on others."""
    number, ssim = _number(records, name), _number(records, "conditional/ssim")
    return f"{number} {what}" + ("" if ssim == number else f"; of SSIM {ssim}")


def _sides(records: Sequence[Record], features: str) -> str:
    """What the row of true images compares, and what follows where the models have another number of samples."""
    floor: Metric | None = next((m for r in records[:1] for m in r.metrics if m.name == f"test/floor/{features}"), None)
    if floor is None:
        return "not measured"
    held_out = records[0].spec.params["data"].get("held_out")
    text = f"{floor.protocol.partition(';')[0]}, {floor.num_samples:,} a side"
    if held_out and "validation" in text:
        text += f" (the validation images are the {held_out:,} training images that are held out)"
    models = _number(records, f"unconditional/{features}")
    if models == f"{floor.num_samples:,}":
        return text
    return (
        f"{text}. The models' distances have {models} a side, and a Fréchet distance is biased upwards, the more the "
        "fewer the samples are: true images and models are not strictly comparable"
    )


@artifact("table2", runs=partial(image_runs, dataset="polymnist"))
def table2(results: Results) -> list[Table]:
    """Table II, and the share of samples in which at least k modalities agree.

    Source: GMRF MCVAE, Table II (MRF MVAE, Table 1); errata, "SSIM .993 to .995".
    """
    rows = dict(results)
    records = [r for found in rows.values() for r in found]
    metrics = {k: name for k, (_, name) in TABLE2.items()}
    floor = {k: _floor_metric(name) for k, name in metrics.items() if k.startswith("cond_")}
    floor |= {"uncond_coherence": "floor/coherence"} | dict.fromkeys(("cond_coherence", "ceiling"), "floor/accuracy")
    floor |= {"uncond_frechet": "floor/frechet-classifier", "uncond_fid": "floor/fid"}
    prints = _published("table2")
    printed = dict(zip(prints["columns"], prints["rows"][LABELS["gmrf_mcvae"]], strict=True))
    main = Table(
        caption="Table II. PolyMNIST",
        provenance=provenance(records),
        columns=[c for c, _ in TABLE2.values()],
        rows=_rows(results, metrics, "table2"),
        floors=_floors(records, floor, metrics),
        groups=[
            RowGroup("GMRF MCVAE, how unobserved components are drawn", _protocol_rows(rows["gmrf_mcvae"], metrics))
        ],
        notes=[
            settings_note(records, results.rename.get(LABELS["gmrf_mcvae"], LABELS["gmrf_mcvae"])),
            "Samples of PolyMNIST generated by the published recipe, with the classifiers that ship with this package. "
            f"N = {_numbers(records, 'conditional/coherence', 'test samples')}.",
            "The published SSIM is set beside the reading with data_range = 255, which gives two unrelated images "
            "0.99; SSIM without a further word has data_range = 1, that of the images.",
            "True images: coherence as the classifiers see the test images (conditional: their accuracy); SSIM of "
            f"unrelated images, and Fréchet distances, of {_sides(records, 'frechet-classifier')}.",
            "Drawn together or one at a time, one component has the same distribution given another, so that these "
            "metrics differ by the draw alone.",
            *_text_notes(),
            *_latents_notes(results),
            *_nearest_reading(rows["gmrf_mcvae"], printed["cond_coherence"]),
            *_without_mask_note(results),
        ],
        published_seeds=3,
    )
    return [main, agreement(results)]


def _text_notes() -> list[str]:
    """Where the papers' texts and their printed numbers differ (errata M10 and M11)."""
    papers = {name: _stated(name) for name in _published("polymnist_settings")["rows"]}
    listed = "; ".join(f"{p}: {_epochs(s)}, {s['masked']:.0%} masked, {s['covariance']}" for p, s in papers.items())
    text = "The papers say that MVAE has the lowest FID"
    return [
        f"{' and '.join(papers)} print these numbers alike under unequal settings ({listed}); one run of each "
        "model serves both tables here.",
        *lowest_note(_published("table2"), ["uncond_fid", "cond_fid"], "MVAE", text),
    ]


def _own_encoders_note(rows: Mapping[str, Sequence[Record]], split: str = "test") -> list[str]:
    """Which rows of the Gaussian field have reconstructions of runs from before erratum E19."""
    name, former = f"{split}/reconstruction/coherence", []
    for label, records in rows.items():
        texts = [m.protocol for r in records for m in r.metrics if m.name == name]
        if not all(RECONSTRUCTIONS in text for text in texts):
            former.append(label)
    if not former:
        return []
    some = "" if former == [k for k, records in rows.items() if records] else f" ({'; '.join(former)})"
    text = "GMRF MCVAE's reconstructions here are from each modality's own encoder, not the joint one (erratum E19)"
    return [f"{text}{some}."]


def _latents_notes(results: Results) -> list[str]:
    """What GMRF MCVAE's latents hold, whatever the prior, and whether its reconstructions are of before erratum E19."""
    rows = dict(results)
    if not any(_values(records, "test/reconstruction/coherence") for records in rows.values()):
        return []
    notes = _own_encoders_note({"gmrf_mcvae": rows["gmrf_mcvae"]})
    places = {
        "nearest": "those of the training sample whose observed latents are nearest",
        "mean": "the conditional mean of a Gaussian with the moments of all encodings",
        "sample": "a draw from that conditional",
    }
    own = {where: _values(rows["gmrf_mcvae"], f"test/latents-{how}/coherence") for how, where in places.items()}
    if all(own.values()):
        learned = fmean(_values(rows["gmrf_mcvae"], "test/conditional/coherence"))
        listed = "; ".join(f"{where} {fmean(v):.3f}" for where, v in own.items())
        notes.append(
            f"GMRF MCVAE's conditional coherence by what gives the unobserved latents: {listed}; the learned prior "
            f"{learned:.3f}. More: `{make_command('gmrf-table2-ablations', results.profile)}`."
        )
    return notes


def _without_mask_note(results: Results) -> list[str]:
    """What GMRF MCVAE's conditional coherence comes to without a mask, where that is on record."""
    specs = ablation_runs(results.profile, None)["no mask"]
    records = [r for s in specs if (r := results.record(s)) is not None]
    tasks = {TOGETHER: "conditional"} | LATER_PROTOCOLS
    found = {k: v for k, n in tasks.items() if (v := _values(records, f"test/{n}/coherence"))}
    if len(records) < len(specs) or len(found) < 2:
        return []
    listed = "; ".join(f"{label} {fmean(values):.3f}" for label, values in found.items())
    return [f"Without the mask, all else equal, GMRF MCVAE's conditional coherence is: {listed}."]


def agreement(results: Results) -> Table:
    """Share of unconditional samples in which at least k of the five modalities show one digit."""
    records, missing = results.all_records(), _missing(results)
    names = {str(k): f"unconditional/coherence/at_least_{k}" for k in range(2, 6)} | {"digits": "unconditional/digits"}
    floor = {k: _floor_metric(name) for k, name in names.items()}
    columns = [Column(str(k), f"At least {k} agree", "higher", 3) for k in range(2, 6)]
    return Table(
        caption="Table II, coherence of unconditional samples by the number of modalities that agree",
        provenance=provenance(records),
        columns=[*columns, Column("digits", "Different digits", None, 0)],
        rows=[Row(LABELS[m], record_cells(results.records(m), names, missing=missing)) for m in METHODS],
        floors=[Row("True images", record_cells(records[:1], floor))],
    )


def _indifferent_notes(rows: Mapping[str, Sequence[Record]]) -> list[str]:
    """The models whose conditional samples are no nearer to true images than unconditional ones, and by what."""
    found: dict[tuple[str, ...], list[str]] = {}
    for m, records in rows.items():
        parts = []
        for part, ending in {"components": "", "whole bicycles": "/whole"}.items():
            given, joint, floor = (
                fmean(_values(records, f"test/{task}/frechet-pixels{ending}") or [0.0])
                for task in ("conditional", "unconditional", "floor")
            )
            if given > 0.95 * joint and given > 5 * floor > 0:
                parts.append(part)
        if parts:
            found.setdefault(tuple(parts), []).append(LABELS[m])
    return [
        f"By the distances of {' and of '.join(parts)}{' alone' if len(parts) == 1 else ''}, averaged over which "
        "component is observed, conditional samples are no nearer to true images than unconditional ones: "
        f"{', '.join(models)}."
        for parts, models in found.items()
    ]


@artifact("table3", runs=partial(image_runs, dataset="biked_rendered"))
@artifact("table3-biked", runs=partial(image_runs, dataset="biked"))
def table3(results: Results) -> Table:
    """Table III on one of its two datasets, the rendered bicycles or BIKED's own images.

    Source: GMRF MCVAE, Table III.
    """
    rows = dict(results)
    records = [r for found in rows.values() for r in found]
    metrics = {k: name for k, (_, name) in TABLE3.items()}
    rendered = results.id == "table3"
    what = "bicycles rendered from BIKED's parameters (biked_rendered)" if rendered else "BIKED's segmented images"
    other = (
        "Published values are those of BIKED's own images, another dataset: only the order of the models compares. "
        "With these images placed by hand, make gmrf-table3-biked prints their own table."
        if rendered
        else "The images are shrunk and made grey as the dataset's card says; the split is this package's."
    )
    return Table(
        caption=f"Table III. {what[0].upper()}{what[1:]}",
        provenance=provenance(records),
        columns=[c for c, _ in TABLE3.values()],
        rows=_rows(results, metrics, "table3"),
        floors=_floors(records, {k: _floor_metric(m) for k, m in metrics.items()} | {"ceiling": None}, metrics),
        groups=[
            RowGroup("GMRF MCVAE, how unobserved components are drawn", _protocol_rows(rows["gmrf_mcvae"], metrics))
        ],
        notes=[
            settings_note(records),
            other,
            "Whole: the darkest of the components at every pixel; of a conditional sample, with the observed component "
            "as it is. Components: mean over the components that are generated.",
            f"N = {_numbers(records, 'conditional/frechet-pixels', 'test bicycles and as many generated ones')}. That "
            "is fewer than features, so that Fréchet distances read against the row of true images alone. Its "
            "distances, and its SSIM, which is that of unrelated bicycles, are of "
            f"{_sides(records, 'frechet-pixels')}.",
            "Centres of mass: exact 1-Wasserstein distance between true and generated centres of a component, in "
            "pixels of these images; all together, between the vectors of all components' centres. The paper gives "
            "neither formula nor unit.",
            *_indifferent_notes(rows),
        ],
        published_seeds=3,
    )


AGGREGATE = (
    "Gaussian of the aggregate posterior: the full covariance of the encodings in the place of the learned prior's, "
    "the conditional's mean or a draw. Where that mean has the digits and the draw has not, the dependence is there "
    "but its scatter is wide; where the learned prior has less than the draw, the prior or its mask loses it."
)


def _measured(records: Sequence[Record], split: str) -> dict[str, tuple[Column, str]]:
    """The columns that some record has a value for: records of before a protocol was there lack it."""
    names = {m.name for r in records for m in r.metrics}
    return {k: v for k, v in ABLATIONS.items() if f"{split}/{v[1]}" in names}


def _latents_table(
    results: Results,
    caption: str,
    split: str,
    notes: Sequence[str],
    rows: Mapping[str, Sequence[Record]] | None = None,
) -> Table:
    rows = dict(results) if rows is None else rows
    records = [r for found in rows.values() for r in found]
    columns = _measured(records, split)
    metrics = {k: name for k, (_, name) in columns.items()}
    name = f"{split}/latents-nearest/coherence"
    models = [found[0] for label, found in rows.items() if found and label in LABELS.values()]
    number = next((m.protocol.removeprefix(f"{split}: ") for r in records for m in r.metrics if m.name == name), None)
    return Table(
        caption=caption,
        provenance=provenance(records),
        columns=[c for c, _ in columns.values()],
        rows=[
            Row(label, record_cells(found, metrics, split=split, missing=_missing(results)))
            for label, found in rows.items()
        ],
        notes=[
            settings_note(models or (records if split == "validation" else records[:1])),  # no row of pilots is first
            *notes,
            "Reconstructions: all modalities observed. The other columns but the last: one modality observed, its "
            "latents drawn from its own encoder, the other four generated, over all pairs. Unconditional: all five "
            "modalities agree.",
            *_own_encoders_note(rows, split),
            *([] if number is None else [f"Nearest: {number}. {AGGREGATE}"]),
        ],
    )


@artifact("table2-ablations", runs=ablation_runs)
def ablations(results: Results) -> Table:
    """What GMRF MCVAE's latents hold on PolyMNIST, and what its prior makes of it, with settings changed."""
    text = "Table II, GMRF MCVAE: share of right digits, by what gives the unobserved latents"
    return _latents_table(results, text, "test", [])


@artifact("table2-constant", runs=constant_rate_runs)
def constant_rate(results: Results) -> list[Table]:
    """The same of every model at a learning rate that stays, and of what ``overnight`` planned with one."""
    rows = dict(results)
    text = "Table II at a learning rate that stays: share of right digits"
    pilots = {row: found for row, found in rows.items() if row.endswith(PILOT)}
    tables = [_latents_table(results, text, "test", [], {r: f for r, f in rows.items() if r not in pilots})]
    if any(pilots.values()):
        tables.append(_latents_table(results, f"{text}, pilots on held-out images", "validation", [], pilots))
    return tables


@artifact("table2-sweep", runs=sweep_runs)
def sweep(results: Results) -> Table:
    """The same for other settings of GMRF MCVAE after a few epochs, on training images that were held out.

    Source: GMRF MCVAE, sections III-C5 and -C1; the settings of the author's later code.
    """
    held_out = next(iter(results.runs.values()))[0].params["data"]["held_out"]
    text = (
        f"Measured on the last {held_out:,} training images, which were not trained on. No test data enters. One seed."
    )
    unnamed = {s.params["model"]["beta"] for row in CONSTRUCTIONS for s in results.runs[row]}
    text += f" Rows that name no beta have {', '.join(f'{b:g}' for b in sorted(unnamed))}, and a mask."
    caption = "Table II, GMRF MCVAE: pilots on held-out images, share of right digits"
    return _latents_table(results, caption, "validation", [text])
