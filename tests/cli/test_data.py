"""The commands `repro data`: what is available, fetched, checked, built, drawn, and pushed to a local server."""

from __future__ import annotations

import hashlib
import io
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import constants
from PIL import Image

from repro.cli.main import main
from repro.datasets import load_card, load_dataset
from repro.datasets.card import card_names, card_text
from repro.datasets.sheet import contact_sheet
from repro.datasets.states import BASES, IN_MEMORY, prepared_folder
from tests.support import miniatures

if TYPE_CHECKING:
    from tests.support.hub import Hub
    from tests.support.server import Server

pytest_plugins = ["tests.support.hub"]

Capture = pytest.CaptureFixture[str]
Place = Callable[[str], None]

WITHOUT_TORCH = """
import sys
from repro.cli.main import main
for arguments in (["list"], ["card", "mnist"], ["card", "copula", "--bibtex"], ["fetch", "copula"], ["verify", "mhd"]):
    print(main(["data", *arguments]))
heavy = {"torch", "numpy", "datasets", "huggingface_hub", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


def call(capsys: Capture, *arguments: str) -> tuple[int, str, str]:
    """Exit code and what was printed to stdout and stderr."""
    capsys.readouterr()
    try:
        code = main(["data", *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    return code, *capsys.readouterr()


def done(capsys: Capture, *arguments: str) -> list[str]:
    """The lines that a successful call prints."""
    code, out, error = call(capsys, *arguments)
    assert code == 0, error
    return out.splitlines()


def failed(capsys: Capture, *arguments: str) -> str:
    """The last line that a failed call prints, which alone is the program's own."""
    code, _, error = call(capsys, *arguments)
    assert code == 1
    assert error.count("repro: ") == 1
    return error.splitlines()[-1]


def rows(capsys: Capture) -> dict[str, list[str]]:
    """The cells of `repro data list` by dataset."""
    table = [re.split(r" {2,}", line) for line in done(capsys, "list")]
    assert table[0] == ["dataset", "state", "prepared", "on disk", "download", "licence", "may be passed on"]
    assert {len(row) for row in table} == {7}
    return {row[0]: row[1:] for row in table[1:]}


def test_light_commands_import_no_torch(cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    assert [line for line in answer.stdout.splitlines() if line.isdigit()] == ["0", "0", "0", "0", "1"]
    assert not cache.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lsit"], "repro data: unknown choice 'lsit'; did you mean list?"),
        ([], "repro data: the following arguments are required: ACTION"),
        (["build"], "repro data build: the following arguments are required: name"),
        (["fetch", "polymnits"], "unknown dataset 'polymnits'; did you mean polymnist or "),
        (["verify", "zzz"], "unknown dataset 'zzz'; one of biked, biked_rendered, "),
        (["card", "mnits"], "unknown dataset 'mnits'; did you mean mnist"),
        (["build", "copula", "--split", "tset"], "unknown split 'tset' of copula; did you mean test?"),
        (["build", "copula", "--option", "sede=1"], "unknown option 'sede' of copula; did you mean seed?"),
        (["build", "mnist", "--option", "seed=1"], "unknown option 'seed' of mnist; it has none"),
        (["build", "copula", "--option", "seed"], "--option 'seed' is not KEY=VALUE"),
        (["build", "copula", "--option", "seed=one"], "--option seed=one: 'one' is not of type int"),
        (["build", "mhd", "--option", "trajectory=2"], "--option trajectory=2: '2' is not true or false"),
        (["show", "copula", "--samples", "1;2"], "--samples is '1;2', must be numbers such as 0,5,12"),
        (["show", "copula", "--samples", "9,10000"], "copula test has 10000 samples, there is no sample 10000"),
        (["show", "copula", "--columns", "0"], "--columns is 0, must be at least 1"),
        (["show", "copula", "--output", "a.jpg"], "--output is 'a.jpg', must end in .png"),
        (["push", "copula", "name"], "the repository is 'name', must be such as user/name"),
        (["push", "copula", "a/b/c"], "the repository is 'a/b/c', must be such as user/name"),
    ],
)
def test_wrong_calls(arguments: list[str], message: str, capsys: Capture) -> None:
    code, out, error = call(capsys, *arguments)
    assert (code, out) == (2, "")
    lines = [line for line in error.splitlines() if not line.startswith("loading ")]
    assert len(lines) == 1
    assert message in lines[0]


def test_list_tells_what_is_at_hand(miniature: Place, cache: Path, capsys: Capture) -> None:
    before = rows(capsys)
    assert set(before) == set(card_names())
    assert before["copula"] == ["generated", "-", "-", "-", "mit", "yes"]
    assert before["mnist"] == ["missing", "0/2", "-", "unstated", "cc-by-sa-3.0", "yes"]
    assert before["mnist_triples"][0] == "missing"
    assert before["celebamask_hq"] == ["by hand", "0/3", "-", "-", "celebamask-hq-non-commercial", "no"]
    assert before["tcga_brca"][0] == "by hand"
    stated = sum(s.bytes or 0 for s in load_card("extended_polymnist").sources if s.urls)
    assert before["extended_polymnist"][:4] == ["missing", "0/3", "-", f"over {stated / 1e6:.1f} MB"]

    miniature("mhd")
    after = rows(capsys)
    assert after["mnist"][:3] == ["downloaded", "0/2", "-"]
    assert after["mnist_triples"][0] == "generated"
    assert after["mhd"][0] == "downloaded"
    done(capsys, "build", "mnist", "--split", "test")
    assert rows(capsys)["mnist"][:2] == ["downloaded", "1/2"]
    done(capsys, "build", "mnist")
    done(capsys, "build", "mhd")
    folders = [prepared_folder(load_card("mnist"), split, {}) for split in ("train", "test")]
    held = sum(path.stat().st_size for folder in folders for path in folder.iterdir())
    assert rows(capsys)["mnist"][:3] == ["prepared", "2/2", f"{held / 1e3:.1f} kB"]
    assert rows(capsys)["mhd"][:2] == ["prepared", "2/2"]
    (folders[0] / "image.bin").write_bytes(b"cut")
    assert rows(capsys)["mnist"][:2] == ["downloaded", "1/2"]


def test_placed_files_are_seen(miniature: Place, mirror: Path, capsys: Capture) -> None:
    for name in ("tcga_brca", "celebamask_hq", "extended_polymnist", "biked_rendered", "mlomics", "polymnist"):
        miniature(name)
    found = rows(capsys)
    states = {name: row[0] for name, row in found.items() if row[0] != "downloaded"}
    generated = dict.fromkeys(
        ("copula", "correlated_mnist", "correlated_mnist3", "mnist_triples", "skewed_copula"), "generated"
    )
    assert states == {**generated, "biked": "by hand", "mhd": "by hand"}
    (substitute,) = load_card("extended_polymnist").sources_of("substitute")
    (mirror / substitute.filename.replace(".substitute.", ".")).unlink(missing_ok=True)
    assert rows(capsys)["extended_polymnist"][0] == "downloaded"
    (mirror / substitute.filename).unlink()
    assert rows(capsys)["extended_polymnist"][0] == "missing"


def test_tables_of_loaders_are_those_of_their_code() -> None:
    code = {n: Path(find_spec(f"repro.datasets.{load_card(n).loader}").origin).read_text() for n in card_names()}
    assert {n for n, text in code.items() if re.search(r"from repro.datasets.mnist import .*digits", text)} == set(
        BASES
    )
    assert {n for n, text in code.items() if not re.search(r"\b(prepared|generated)\(", text)} == set(IN_MEMORY)


def source_card(url: str, content: bytes) -> str:
    """MNIST's card with one source."""
    source = {
        "filename": "mnist/one.gz", "group": "train", "urls": [url], "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }  # fmt: skip
    return miniatures.card_text("mnist", sources=[source])


def test_fetch_resumes(server: Server, cache: Path, cards: Callable[..., None], capsys: Capture) -> None:
    url = server.url("one.gz", "404")
    cards(mnist=source_card(url, server.content))
    line = failed(capsys, "fetch", "mnist")
    assert "mnist is not all there: cannot get mnist/one.gz" in line
    assert f"{url}: status 404" in line
    server.url("one.gz", "cut:100000", "ok")
    target = cache / "downloads" / "mnist" / "one.gz"
    assert done(capsys, "fetch", "mnist") == [f"mnist/one.gz  300.0 kB  {target}"]
    assert target.read_bytes() == server.content
    assert server.asked("one.gz")[-1].range == "bytes=100000-"
    count = len(server.requests)
    done(capsys, "fetch", "mnist_triples")
    assert len(server.requests) == count
    assert rows(capsys)["mnist"][:4] == ["downloaded", "0/2", "300.0 kB", "300.0 kB"]


def test_interrupt_ends_in_130(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(source: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("repro.cli.data.fetch", interrupt)
    assert call(capsys, "fetch", "mnist") == (130, "", "repro: interrupted; the same command continues\n")


def test_fetch_says_what_a_person_has_to_do(mirror: Path, miniature: Place, capsys: Capture) -> None:
    code, out, error = call(capsys, "fetch", "celebamask_hq")
    assert code == 1
    assert "after agreeing to its terms, and put it or its extracted folder there" in out
    assert error == "repro: celebamask_hq is not all there: it has to be placed by hand\n"
    code, out, error = call(capsys, "fetch", "tcga_brca")
    assert code == 1
    assert "Export breast.TCGA of the R package mixOmics" in out
    assert all(f"{s.filename} has to be placed by hand" in error for s in load_card("tcga_brca").sources)
    miniature("tcga_brca")
    miniature("celebamask_hq")
    assert len(done(capsys, "fetch", "tcga_brca")) == 3
    assert done(capsys, "fetch", "celebamask_hq") == [f"celebamask_hq  placed by hand  {mirror / 'celebamask_hq'}"]
    miniature("biked_rendered")  # its designs are an alternative, not available and not to be had offline
    line = failed(capsys, "fetch", "biked_rendered")
    assert "cannot get biked/DeCoDE-Bike-Projects.zip" in line
    assert "biked_parameters" not in line


def test_build_states_the_hash(miniature: Place, cards: Callable[..., None], capsys: Capture) -> None:
    miniature("mnist")
    lines = done(capsys, "build", "mnist")
    hashes = {s: load_dataset("mnist", s).provenance["sha256"] for s in ("train", "test")}
    assert [line.split("  ")[:3] for line in lines] == [
        ["mnist", "train", "60 samples"],
        ["mnist", "test", "20 samples"],
    ]
    assert all(re.fullmatch(r"[0-9]+\.[0-9] s", line.split("  ")[3]) for line in lines)
    assert [line.split("  ")[4] for line in lines] == [
        f"sha256 {hashes[s]}, the card states none for it" for s in ("train", "test")
    ]
    counts = miniatures.DIGITS
    sources = yaml.safe_load(card_text("mnist").split("---\n")[1])["repro"]["sources"]
    stated = {s: {"count": counts[s], "sha256": hashes[s]} for s in counts}
    cards(mnist=miniatures.card_text("mnist", sources=sources, splits=stated))
    assert all(line.endswith(", as the card states") for line in done(capsys, "build", "mnist"))
    assert done(capsys, "verify", "mnist")[-1].endswith(f"sound, sha256 {hashes['test']}")


def test_build_ends_in_1_where_the_card_states_another_hash(cards: Callable[..., None], capsys: Capture) -> None:
    splits = {"train": {"count": 30}, "test": {"count": 20, "sha256": "0" * 64}}
    cards(copula=miniatures.card_text("copula", splits=splits))
    code, out, error = call(capsys, "build", "copula")
    assert code == 1
    assert [line.split(", ")[-1] for line in out.splitlines()] == [
        "the card states none for it",
        "NOT what the card states",
    ]
    assert error.splitlines()[-1] == "repro: copula test: built, but not what the card states"
    assert "copula test: sha256 " in failed(capsys, "verify", "copula")
    assert "NOT what the card states; nothing was uploaded" in failed(capsys, "push", "copula", "user/copula")


def test_build_with_options(miniature: Place, capsys: Capture) -> None:
    (line,) = done(capsys, "build", "copula", "--split", "test", "--option", "num_samples=7", "--option", "seed=3")
    expected = load_dataset("copula", "test", num_samples=7, seed=3).provenance["sha256"]
    assert "  7 samples  " in line
    assert f"sha256 {expected}, the card states none for it" in line
    miniature("mhd")
    (line,) = done(capsys, "build", "mhd", "--split", "test", "--option", "trajectory=true")
    assert load_dataset("mhd", "test", trajectory=True).provenance["sha256"] in line
    miniature("polymnist")
    command = ["build", "polymnist", "--split", "test", "--option", "source=generated", "--option", "seed=4"]
    code, out, error = call(capsys, *command)
    assert code == 0
    assert load_dataset("polymnist", "test", source="generated", seed=4).provenance["sha256"] in out
    assert error == "loading polymnist test (source=generated, seed=4)\n"


def test_verify_names_what_is_wrong(miniature: Place, mirror: Path, capsys: Capture) -> None:
    line = failed(capsys, "verify", "mnist")
    assert "mnist: nothing available; `repro data build mnist`" in line
    miniature("mnist")
    done(capsys, "build", "mnist")
    lines = done(capsys, "verify", "mnist")
    assert len(lines) == 6
    assert all("  sound" in line for line in lines)
    assert sum(line.endswith("sound (raw_md5)") for line in lines) == 4
    folder = prepared_folder(load_card("mnist"), "test", {})
    content = bytearray((folder / "image.bin").read_bytes())
    content[1234] ^= 1
    (folder / "image.bin").write_bytes(content)
    line = failed(capsys, "verify", "mnist")
    assert "1 of 6 wrong" in line
    assert f"mnist test in {folder}: sha256 " in line
    assert "built as" in line
    (folder / "manifest.json").write_text('{"arrays": {}}')
    (mirror / "mnist" / "t10k-labels-idx1-ubyte.gz").write_bytes(b"no gzip")
    line = failed(capsys, "verify")
    assert "manifest.json cannot be read" in line
    assert "t10k-labels-idx1-ubyte.gz: raw_md5 cannot be computed" in line
    assert ": 2 of " in line


def test_verify_knows_what_an_earlier_card_described(
    miniature: Place, cards: Callable[..., None], capsys: Capture
) -> None:
    miniature("mnist")
    done(capsys, "build", "mnist", "--split", "test")
    cards(mnist=miniatures.card_text("mnist", generation={"changed": 1}))
    assert rows(capsys)["mnist"][1] == "0/2"
    (line,) = [line for line in call(capsys, "verify", "mnist")[1].splitlines() if line.startswith("mnist  test")]
    assert line.endswith(", of an earlier card, not used any more")


def test_show_writes_the_sheet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, miniature: Place, capsys: Capture
) -> None:
    miniature("mnist")
    monkeypatch.chdir(tmp_path)
    assert done(capsys, "show", "mnist", "--samples", "3,1") == ["mnist-test.png"]
    expected = np.asarray(contact_sheet(load_dataset("mnist", "test"), [3, 1]))
    assert np.array_equal(np.asarray(Image.open("mnist-test.png")), expected)
    target = tmp_path / "sheets" / "a.png"
    done(capsys, "show", "mnist", "--split", "train", "--columns", "5", "--output", str(target))
    expected = np.asarray(contact_sheet(load_dataset("mnist", "train"), columns=5))
    assert np.array_equal(np.asarray(Image.open(target)), expected)
    assert [p.name for p in target.parent.iterdir()] == ["a.png"]
    assert "cannot write" in failed(capsys, "show", "mnist", "--output", str(target / "b.png"))


def test_card(capsys: Capture) -> None:
    assert "\n".join(done(capsys, "card", "polymnist")) == card_text("polymnist").rstrip()
    out = "\n".join(done(capsys, "card", "copula", "--bibtex"))
    assert out == "\n\n".join(load_card("copula").citations.values())
    assert out.count("@article{oubari202") == 2


def test_push_uploads_once(hub: Hub, miniature: Place, cards: Callable[..., None], capsys: Capture) -> None:
    miniature("mnist")
    dry = done(capsys, "push", "mnist", "user/digits")
    assert hub.calls == []
    assert [line.split("  ")[:3] for line in dry[:2]] == [
        ["train", "60 samples", "data/train.parquet"], ["test", "20 samples", "data/test.parquet"],
    ]  # fmt: skip
    assert dry[2].startswith("README.md  ")
    assert dry[3:-1] == [f"    {line}" for line in card_text("mnist").splitlines()[:12]]
    assert dry[-1] == "nothing was uploaded; with --yes it goes to the dataset repository user/digits"

    code, out, error = call(capsys, "push", "mnist", "user/digits", "--yes")
    assert code == 0, error
    assert hub.token not in out + error
    assert out.splitlines()[:2] == dry[:2]
    assert out.splitlines()[-1] == f"{hub.url}/datasets/user/digits/commit/{hub.head}  uploaded"
    assert [commit["paths"] for commit in hub.commits] == [["README.md", "data/train.parquet", "data/test.parquet"]]
    assert hub.commits[0]["summary"] == "MNIST, as its card describes it"
    sizes = {p: len(content) for p, content in hub.files.items()}
    assert f"data/test.parquet  {sizes['data/test.parquet'] / 1e3:.1f} kB" in dry[1]

    (last,) = done(capsys, "push", "mnist", "user/digits", "--yes")[-1:]
    assert last == f"{hub.url}/datasets/user/digits/commit/{hub.head}  unchanged"
    assert len(hub.commits) == 1
    assert sum(c.startswith("PUT") for c in hub.calls) == 2
    cards(mnist=card_text("mnist") + "\nOne more sentence.\n")
    assert done(capsys, "push", "mnist", "user/digits", "--yes")[-1].endswith("  uploaded")
    assert [commit["paths"] for commit in hub.commits[1:]] == [["README.md"]]


def test_what_was_pushed_is_the_data(
    hub: Hub, miniature: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    miniature("mnist")
    done(capsys, "push", "mnist", "user/digits", "--yes")
    expected = load_dataset("mnist", "train")
    table = pq.read_table(io.BytesIO(hub.files["data/train.parquet"]))
    features = datasets.Features.from_arrow_schema(table.schema)
    assert isinstance(features["image"], datasets.Image)
    assert features["label"].names == [str(n) for n in range(10)]
    assert table["label"].to_pylist() == expected.labels.tolist()
    pictures = [np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["image"].to_pylist()]
    assert np.array_equal(np.stack(pictures), expected.data["image"][:, 0].numpy())
    for path, content in hub.files.items():
        target = tmp_path / "repository" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    loaded = datasets.load_dataset(str(tmp_path / "repository"), cache_dir=str(tmp_path / "loaded"))
    assert {split: len(rows) for split, rows in loaded.items()} == miniatures.DIGITS
    readme = hub.files["README.md"].decode()
    header = yaml.safe_load(readme.split("---\n")[1])
    assert header["configs"] == [
        {"config_name": "default", "data_files": [{"split": s, "path": f"data/{s}.parquet"} for s in ("train", "test")]}
    ]
    assert {k: v for k, v in header.items() if k != "configs"} == load_card("mnist").header
    assert load_card("mnist").body in readme
    assert load_card("mnist").citations["lecun1998gradient"] in readme


def test_push_refuses_and_fails_in_one_line(
    hub: Hub, miniature: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    miniature("mnist")
    line = failed(capsys, "push", "celebamask_hq", "user/faces", "--yes")
    assert line.endswith("celebamask_hq: its licence (celebamask-hq-non-commercial) does not allow to pass it on")
    line = failed(capsys, "push", "mnist", "user/digits_elsewhere", "--yes")
    assert f"upload to user/digits_elsewhere at {hub.url} failed: " in line
    assert "404" in line
    hub.refuse = True
    line = failed(capsys, "push", "mnist", "user/digits", "--yes")
    assert "who is Bearer ***?" in line
    assert hub.token not in line
    assert hub.commits == []
    hub.close()
    assert f"upload to user/digits at {hub.url} failed: " in failed(capsys, "push", "mnist", "user/digits", "--yes")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert failed(capsys, "push", "mnist", "user/digits", "--yes").startswith(
        "repro: no token for the Hub; set HF_TOKEN"
    )
