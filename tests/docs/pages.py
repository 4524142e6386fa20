"""Pages of the built site, read without a browser: their links, anchors and the numbers of their tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit


@dataclass
class Number:
    """A cell with a number: ``"published"`` or ``"obtained"``, or ``"text"`` in a table of text; and where it leads."""

    kind: str
    value: float
    link: str = ""


@dataclass
class Page:
    """A page: addresses in it as written, its anchors, and its numbers."""

    path: Path
    links: list[str] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    numbers: list[Number] = field(default_factory=list)
    text: str = ""


class _Reader(HTMLParser):
    def __init__(self, page: Page) -> None:
        super().__init__()
        self.page, self.cell = page, None
        self.feed(page.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            self.page.anchors.add(found["id"])
        if tag == "a" and found.get("href"):
            self.page.links.append(found["href"])
            if self.cell is not None:
                self.cell.link = self.cell.link or found["href"]
        loads = {"img": "src", "script": "src", "link": "href", "iframe": "src", "source": "src"}
        if tag in loads and found.get(loads[tag]):
            self.page.loads.append(found[loads[tag]])
        if tag in ("td", "th"):
            kind = found.get("class", "").removeprefix("part-")
            self.cell = None
            if tag == "td" and kind in ("published", "obtained", "") and "data-value" in found:
                self.cell = Number(kind or "text", float(found["data-value"]))
                self.page.numbers.append(self.cell)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.cell = None
            self.page.text += " "

    def handle_data(self, data: str) -> None:
        self.page.text += data


def target(page: Page, address: str) -> tuple[Path, str] | None:
    """The file and the anchor that an address leads to; None for another host."""
    if urlsplit(address).scheme or address.startswith("//"):
        return None
    path, anchor = urldefrag(address)
    file = page.path if not path else (page.path.parent / unquote(path.split("?")[0])).resolve()
    return (file / "index.html" if file.is_dir() else file), unquote(anchor)


def read(site: Path) -> dict[str, Page]:
    """Every page that links lead to from the start page, in the order of the clicks that it takes."""
    site = site.resolve()
    found: dict[str, Page] = {}
    todo = [site / "index.html"]
    while todo:
        path = todo.pop(0)
        name = path.relative_to(site).as_posix()
        if name in found:
            continue
        page = found[name] = Page(path)
        _Reader(page)
        for address in page.links:
            to = target(page, address)
            if to is not None and to[0].suffix == ".html" and to[0].exists():
                todo.append(to[0])
    return found


def clicks(pages: dict[str, Page], site: Path) -> dict[str, int]:
    """How many clicks each page is away from the start page."""
    site = site.resolve()
    distance = {"index.html": 0}
    todo = ["index.html"]
    while todo:
        name = todo.pop(0)
        for address in pages[name].links:
            to = target(pages[name], address)
            if to is None or to[0].suffix != ".html" or not to[0].exists():
                continue
            other = to[0].relative_to(site).as_posix()
            if other not in distance:
                distance[other] = distance[name] + 1
                todo.append(other)
    return distance
