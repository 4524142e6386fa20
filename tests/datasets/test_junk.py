"""What file managers leave is no data, a sample that occurs twice is an error, and a last line may be blank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from repro.datasets import load_dataset
from repro.datasets.base import Dataset
from repro.datasets.bike_table import read_table
from repro.datasets.celebamask_hq import read_attributes, read_mapping
from repro.datasets.omics import read_labels, read_matrix
from repro.datasets.omics_labels import read_samples
from repro.datasets.places import is_junk, listed
from tests.support import miniatures

PLACED: Mapping[str, Callable[[Path], object]] = {
    "polymnist": miniatures.write_poly_pictures,
    "celebamask_hq": miniatures.write_celeba,
    "biked": lambda mirror: miniatures.write_biked(mirror, "parts"),
    "mhd": lambda mirror: miniatures.write_mhd(mirror, blocks=True),
    "mlomics": miniatures.write_omics,
}


def plant(folder: Path) -> int:
    """Puts a shadow beside every file, what file managers leave into every folder, and an archive's second tree."""
    everything = [folder, *folder.rglob("*")]
    shadow = folder / "__MACOSX"
    for path in everything:
        if path.is_dir():
            for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._.DS_Store"):
                (path / name).write_bytes(b"\0junk")
            (shadow / path.relative_to(folder)).mkdir(parents=True, exist_ok=True)
        else:
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7junk")
            (shadow / path.relative_to(folder)).with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7junk")
    return len(everything)


@pytest.mark.parametrize("name", PLACED)
def test_files_of_a_file_manager_are_no_data(
    name: str,
    mirror: Path,
    miniature: Callable[[str], None],
    cards: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    miniature(name)
    if name == "polymnist":
        (mirror / "polymnist" / "PolyMNIST.zip").unlink()
    text = PLACED[name](mirror)
    if isinstance(text, str):
        cards(**{name: text})
    options = {"source": "archive"} if name == "polymnist" else {}

    def loaded() -> Dataset:
        return load_dataset(name, split="train", **options)

    clean = loaded()
    assert plant(mirror / name) > 2
    monkeypatch.setenv("REPRO_CACHE", str(mirror.parent / "another cache"))
    assert loaded().provenance["sha256"] == clean.provenance["sha256"]
    assert loaded() == clean


def test_junk_alone_is_no_dataset(mirror: Path, miniature: Callable[[str], None]) -> None:
    folder = mirror / "biked"
    folder.mkdir()
    (folder / "._frame 3.png").write_bytes(b"x")
    (folder / "Thumbs.db").write_bytes(b"x")
    with pytest.raises(OSError, match=r"placed by hand.*biked: empty"):
        load_dataset("biked", split="train")


def test_which_names_are_junk(tmp_path: Path) -> None:
    for name in ("._3.png", "Thumbs.db", "THUMBS.DB", ".DS_Store", "desktop.ini", "__MACOSX"):
        assert is_junk(tmp_path / name)
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "inside.png").write_text("")
    for name in ("3.png", "thumbs.db.png", "_3.png", ".hidden.png"):
        assert not is_junk(tmp_path / name)
    (tmp_path / "3.png").write_text("")
    assert [p.name for p in listed(tmp_path, below=True)] == ["3.png"]
    assert listed(tmp_path / "nowhere") == []


MATRIX, LABELS, SAMPLES = "sample,a,b\ng,1,2\n", "sample,Label\na,1\nb,0\n", "sample,cancer\na,x\nb,y\n"


@pytest.mark.parametrize("ending", ["", "\n", "\r\n\r\n", "  \n\t\n"])
def test_trailing_blank_lines_change_nothing(ending: str, tmp_path: Path) -> None:
    more = ending.encode()
    assert read_matrix(MATRIX.encode() + more, "m").values.tolist() == [[1.0], [2.0]]
    assert read_labels(LABELS.encode() + more, ["a", "b"], "l").classes.tolist() == [1, 0]
    assert read_labels(b"Label\n1\n0\n" + more, ["a", "b"], "l").classes.tolist() == [1, 0]
    assert read_samples(SAMPLES.encode() + more, "s") == {"a": "x", "b": "y"}
    assert read_table(b"bike,A|b\n1,2\n" + more, "t").columns == {"bike": ["1"], "A|b": ["2"]}
    path = tmp_path / "list.txt"
    path.write_bytes(b"2\nOne Two\n1.jpg 1 -1\n" + more)
    assert read_attributes(path, ["Two"]) == {1: [0.0]}
    path.write_bytes(b"idx orig_idx\n1 7\n" + more)
    assert read_mapping(path) == {1: 7}


def test_a_sample_that_occurs_twice_is_refused_by_name(tmp_path: Path) -> None:
    twice = "a,1\n"
    for read, content in (
        (lambda x: read_labels(x, ["a", "b"], "file"), LABELS + twice),
        (lambda x: read_samples(x, "file"), SAMPLES + twice),
        (lambda x: read_matrix(x, "file"), "sample,a,a\ng,1,2\n"),
    ):
        with pytest.raises(ValueError, match=r"^file: .*sample 'a' occurs twice$"):
            read(content.encode())
    path = tmp_path / "list.txt"
    path.write_text("2\nOne Two\n1.jpg 1 -1\n1.jpg 1 1\n")
    with pytest.raises(ValueError, match=r"^list\.txt: image 1 occurs twice$"):
        read_attributes(path, ["Two"])
    path.write_text("idx orig_idx\n1 7\n1 8\n")
    with pytest.raises(ValueError, match=r"^list\.txt: image 1 occurs twice$"):
        read_mapping(path)
