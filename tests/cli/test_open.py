"""`repro open`: a page of the reader's own results, and what it says where there is nothing to open."""

from __future__ import annotations

import shutil
import webbrowser
from html.parser import HTMLParser
from pathlib import Path

import pytest

from repro.cli import open as command
from repro.cli.main import main

FIGURES = Path(__file__).resolve().parents[2] / "figures"


class _Links(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tables = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tables += tag == "table"
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Recorded runs in the place of a reader's own."""
    folder = tmp_path / "results"
    (folder / "mrf_mvae" / "records").mkdir(parents=True)
    for path in (FIGURES / "mrf_mvae").glob("tails*.*"):
        shutil.copy(path, folder / "mrf_mvae")
    for path in (FIGURES / "mrf_mvae" / "records").iterdir():
        shutil.copy(path, folder / "mrf_mvae" / "records")
    return folder


def _call(results: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(["open", *words, "--results", str(results), "--runs", str(results / "none")])
    out = capsys.readouterr()
    return code, out.out.strip(), out.err.strip()


def test_own_results_are_one_page_that_needs_no_other_file(results, capsys, monkeypatch):
    monkeypatch.setattr(command, "_has_window", lambda: False)
    monkeypatch.setattr(webbrowser, "open", lambda address: pytest.fail(f"opened {address} without a window"))
    code, out, _ = _call(results, capsys)
    assert code == 0
    assert out == str(results / "index.html")
    text = Path(out).read_text()
    links = _Links(text)
    assert links.tables >= 2
    assert "ALMRF" in text
    assert links.addresses
    assert all(a.startswith("data:image/png;base64,") for a in links.addresses)


def test_own_methods_are_on_the_page_with_their_rows(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "_has_window", lambda: False)
    folder = tmp_path / "results"
    (folder / "own" / "mine" / "gmrf_mcvae").mkdir(parents=True)
    shutil.copy(FIGURES / "gmrf_mcvae" / "table1.md", folder / "own" / "mine" / "gmrf_mcvae")
    code, out, _ = _call(folder, capsys)
    assert code == 0
    text = Path(out).read_text(encoding="utf-8")
    assert "mine/gmrf_mcvae/table1" in text
    assert _Links(text).tables == (FIGURES / "gmrf_mcvae" / "table1.md").read_text(encoding="utf-8").count("\n|:--")
    assert text.count('<th scope="row">MoPoE-VAE</th>') > 2  # of obtained and of published values


def test_it_is_opened_where_there_is_a_window(results, capsys, monkeypatch):
    opened: list[str] = []
    monkeypatch.setattr(command, "_has_window", lambda: True)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assert _call(results, capsys, "results")[0] == 0
    assert opened == [(results / "index.html").as_uri()]


def test_without_results_it_says_what_makes_some(tmp_path, capsys):
    code, out, err = _call(tmp_path / "none", capsys)
    assert (code, out) == (2, "")
    assert "no results in" in err
    assert "repro run" in err
    assert not (tmp_path / "none").exists()


def test_a_damaged_record_is_refused_and_no_page_is_left(results, capsys):
    path = next(p for p in (results / "mrf_mvae" / "records").glob("*.json") if "skewed" in p.read_text())
    path.write_text(path.read_text().replace('"value": ', '"value": 1', 1))
    code, _, err = _call(results, capsys)
    assert code == 2
    assert path.name in err
    assert not (results / "index.html").exists()


def test_no_display_is_no_window(monkeypatch):
    monkeypatch.setattr(command.sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    assert not command._has_window()
