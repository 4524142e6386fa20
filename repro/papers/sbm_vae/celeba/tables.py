"""SBM-VAE's Tables 1, 2, 3 and 11, on CelebAMask-HQ, from records; without records every cell says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from repro.datasets.card import not_available
from repro.experiment import Results, Rows, artifact
from repro.papers.sbm_vae.celeba.experiment import CELEBA, FACE_PROFILES, FACE_ROWS, MISSING, celeba_spec
from repro.papers.sbm_vae.polymnist.tables import SETTINGS_COLUMNS, metric_values
from repro.papers.sbm_vae.settings import SUPERVISED
from repro.records import Record, of_profile, provenance
from repro.report.cells import Cell
from repro.report.plain_tables import PlainTable, make_command
from repro.report.tables import Column, Row, RowGroup, Table

__all__ = ["absent", "face_runs", "face_table", "published_cells", "table10"]

ATTRIBUTES, IMAGE, MASK = "Attributes F1", "Image FID", "Mask F1"
PIXELS = "Image, Fréchet, pixels at 16 x 16"
# Key to the column and the metric that it shows; keys without a published column are this package's own.
TABLE1: Mapping[str, tuple[Column, str]] = {
    "attr_f1_both": (Column("attr_f1_both", "given both", "higher", 3, ATTRIBUTES), "both/{how}/f1/attributes"),
    "attr_f1_img": (Column("attr_f1_img", "given image", "higher", 3, ATTRIBUTES), "image/{how}/f1/attributes"),
    "img_fid_both": (Column("img_fid_both", "given both", "lower", 2, IMAGE), "both/{how}/fid/image"),
    "img_fid_mask": (Column("img_fid_mask", "given mask", "lower", 2, IMAGE), "mask/{how}/fid/image"),
    "img_fid_attr": (Column("img_fid_attr", "given attributes", "lower", 2, IMAGE), "attributes/{how}/fid/image"),
    "mask_f1_both": (Column("mask_f1_both", "given both", "higher", 3, MASK), "both/{how}/f1/mask"),
    "mask_f1_img": (Column("mask_f1_img", "given image", "higher", 3, MASK), "image/{how}/f1/mask"),
    "pixels_both": (Column("pixels_both", "given both", "lower", 3, PIXELS), "both/{how}/frechet/image"),
    "pixels_mask": (Column("pixels_mask", "given mask", "lower", 3, PIXELS), "mask/{how}/frechet/image"),
    "pixels_attr": (Column("pixels_attr", "given attributes", "lower", 3, PIXELS), "attributes/{how}/frechet/image"),
}
TABLE2: Mapping[str, tuple[Column, str]] = {
    "fid": (Column("fid", "FID", "lower", 2), "nothing/plain/fid/image"),
    "pixels": (Column("pixels", "Fréchet, pixels at 16 x 16", "lower", 3), "nothing/plain/frechet/image"),
}
TABLE3: Mapping[str, tuple[Column, str]] = {
    "f1_adversarial": (Column("f1_adversarial", "F1, adversarial", "higher", 3), "attacked/{how}/f1/attributes"),
    "percent_drop": (Column("percent_drop", "drop, %", "lower", 1), "attacked/{how}/drop/attributes"),
    "f1_clean": (Column("f1_clean", "F1, true images", "higher", 3), "image/{how}/f1/attributes"),
}
TABLE11: Mapping[str, tuple[Column, str]] = {
    "mask_f1": (Column("mask_f1", "Mask F1", "higher", 3), "both/{how}/f1/mask"),
    "attr_f1": (Column("attr_f1", "Attributes F1", "higher", 3), "both/{how}/f1/attributes"),
    "img_fid": (Column("img_fid", "Image FID", "lower", 2), "both/{how}/fid/image"),
    "pixels": (Column("pixels", PIXELS, "lower", 3), "both/{how}/frechet/image"),
}
COLUMNS = {"table1": TABLE1, "table2": TABLE2, "table3": TABLE3, "table11": TABLE11}
CAPTIONS = {
    "table1": "Table 1. CelebAMask-HQ: one modality given the two others or one of them",
    "table2": "Table 2. CelebAMask-HQ: joint samples",
    "table3": "Table 3. CelebAMask-HQ: attributes given adversarial images",
    "table11": f"Table 11. CelebAMask-HQ: {MISSING:.0%} of each modality missing in training",
}
FLOORS = {
    **dict.fromkeys(("attr_f1_both", "attr_f1_img", "attr_f1", "f1_clean"), "floor/f1/attributes"),
    **dict.fromkeys(("mask_f1_both", "mask_f1_img", "mask_f1"), "floor/f1/mask"),
    **dict.fromkeys(("img_fid_both", "img_fid_mask", "img_fid_attr", "img_fid", "fid"), "floor/fid/image"),
    **dict.fromkeys(("pixels_both", "pixels_mask", "pixels_attr", "pixels"), "floor/frechet/image"),
}
FLOOR = "No model: the training split's most common values; true validation and test images"
SUPERVISED_ONLY = "predicts attributes and masks from images alone"


def face_runs(profile: str, seeds: int | None, *, rows: Sequence[str], missing: float = 0.0) -> Rows:
    """The runs of some of Table 1's rows, those that the profile has.

    Arguments:
        profile: The profile.
        seeds: How many seeds, from 0 on; the profile's number if None.
        rows: Of ``FACE_ROWS``.
        missing: Share of each modality's samples that are missing in training.
    """
    p = of_profile(FACE_PROFILES, profile)
    number = p["seeds"] if seeds is None else seeds
    return {
        row: [celeba_spec(FACE_ROWS[row][0], s, profile, missing=missing) for s in range(number)]
        for row in rows
        if row in p["rows"]
    }


def absent(dataset: str, artifact: str, profile: str, *, recorded: bool) -> str:
    """What a cell says where its run has no record.

    Arguments:
        dataset: The dataset's name.
        artifact: The artifact's id, for the command.
        profile: The profile, for the command.
        recorded: Whether other runs of the artifact have records, so that the data cannot be what lacks.
    """
    command = f"`{make_command(f'sbm-{artifact}', profile)}`"
    if recorded:
        return f"not run: {command}"
    return f"{not_available(dataset)} Then {command}"


def published_cells(printed: Mapping[str, Any], row: str) -> dict[str, float]:
    """Column to the published mean of a row, of those that the table has."""
    values = printed["rows"].get(row)
    return {} if values is None else {k: v[0] for k, v in zip(printed["columns"], values, strict=True) if v}


def _cell(records: Sequence[Record], metric: str, known: float | None, missing: str) -> Cell:
    if not records:
        return Cell(known, (), missing)
    if values := metric_values(records, f"test/{metric}"):
        return Cell(known, values)
    if "/drop/" in metric and metric_values(records, f"test/{metric.replace('/drop/', '/f1/')}"):
        return Cell(known, (), "no drop: the F1 without the attack is 0")
    said = [m.protocol for r in records for m in r.metrics if m.name == "test/fid/available"]
    return Cell(known, (), said[0] if "/fid/" in metric and said else "not measured")


def _row(results: Results, row: str, records: Sequence[Record], missing: str) -> Row:
    known, (method, how) = published_cells(results.published, row), FACE_ROWS[row]
    cells = {}
    for key, (_, metric) in COLUMNS[results.id].items():
        if method == SUPERVISED and not metric.startswith(("image/", "attacked/")):
            cells[key] = Cell(known.get(key), (), SUPERVISED_ONLY)
        else:
            cells[key] = _cell(records, metric.format(how=how), known.get(key), missing)
    return Row(row, cells)


def _floor(table: str, records: Sequence[Record], missing: str) -> Row:
    cells = {
        key: _cell(records[:1], FLOORS[key], None, missing)
        if key in FLOORS
        else Cell(None, (), "nothing to attack without a model")
        for key in COLUMNS[table]
    }
    return Row(FLOOR, cells)


def _notes(table: str, records: Sequence[Record]) -> list[str]:
    notes = [
        "F1: of each sample over its 18 attributes or its pixels, then averaged over samples; decoders' means over 0.5 "
        "count as 1. Distances are from the true test images."
    ]
    if table == "table3":
        notes.append(
            "FGSM, epsilon 0.05 of images in [0, 1], clipped to it, on a supervised classifier trained beside each "
            "model; no model sees it. The drop is that of the F1 given true images. Nothing is published of the "
            "classifier itself."
        )
    if table == "table11":
        notes.append(
            "Each modality lacks its own random fifth of the training samples; about half of them lack something. "
            "Baselines train by the library's masks."
        )
    if table == "table1":
        notes.append(
            "One energy network serves all pairs of modalities (the paper trains three). MMVAE+ has the residual "
            "networks of the others and Gaussian latents (the paper: its authors' own networks, Laplace ones)."
        )
    if records:
        params, number = records[0].spec.params, records[0].metric("test/floor/f1/mask").num_samples
        data, sampling = params["data"], params["evaluation"]["sampling"]
        size = "all" if data["train_samples"] is None else f"{data['train_samples']:,}"
        notes.append(
            f"{size} training faces, {number:,} test faces; score-based models sample with {sampling['sampler']}, "
            f"{sampling['num_steps']} steps."
        )
        if records[0].spec.profile != "paper":
            notes.append("The published values are of all faces: a reduced profile's are no attempt at them.")
    return notes


@artifact("table1", runs=partial(face_runs, rows=tuple(FACE_ROWS)))
@artifact("table2", runs=partial(face_runs, rows=("SBM-VAE", "SBM-RAE", "MLD", "MoPoE", "MVTCAE", "MMVAE+")))
@artifact("table3", runs=partial(face_runs, rows=("MoPoE", "MVTCAE", "MMVAE+", "SBM-RAE-T", "SBM-VAE-C", "Supervised")))
@artifact("table11", runs=partial(face_runs, rows=("SBM-VAE", "MoPoE", "MVTCAE"), missing=MISSING))
def face_table(results: Results) -> Table:
    """Table 1, 2, 3 or 11 beside its published values.

    Where nothing is recorded, every cell says how the data is to be had.

    Source: SBM-VAE, Tables 1, 2, 3 and 11.
    """
    table, rows = results.id, dict(results)
    columns = [column for column, _ in COLUMNS[table].values()]
    records = results.all_records()
    missing = absent("celebamask_hq", table, results.profile, recorded=bool(records))
    body = {row: _row(results, row, found, missing) for row, found in rows.items()}
    apart = [row for row in body if table == "table3" and FACE_ROWS[row][0] == SUPERVISED]
    return Table(
        caption=CAPTIONS[table],
        provenance=provenance(records),
        columns=columns,
        rows=[row for label, row in body.items() if label not in apart],
        floors=[_floor(table, records, missing)],
        groups=[RowGroup("The attacked classifier itself", [body[label] for label in apart])] if apart else [],
        notes=_notes(table, records),
        published_seeds=3,
    )


@artifact("table10")
def table10(results: Results) -> PlainTable:
    """Table 10 as the specifications of the paper profile have it."""
    row = ("SBM", *(f"{v:g}" for v in CELEBA["sde"]), str(CELEBA["sampling"]["num_steps"]), "1")
    batch, gamma = CELEBA["batch_size"], CELEBA["gamma"]
    rows = [(*row, f"{gamma * batch:g}", str(batch), f"{gamma:.2f}")]
    return PlainTable("Table 10. Score hyper-parameters, CelebAMask-HQ", SETTINGS_COLUMNS, tuple(rows))
