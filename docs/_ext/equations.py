"""Equations with the numbers of the papers, each with links to the code that implements it and to the errata on it."""

from __future__ import annotations

from typing import Any, ClassVar

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective


def _words(argument: str | None) -> list[str]:
    return (argument or "").split()


class Equation(SphinxDirective):
    """An equation: its number in the paper as argument, LaTeX as content, names of code and of errata as options.

    Names of code are those of the API without ``repro.`` before them. A name or an erratum that the site does not have
    is a warning of the build.
    """

    optional_arguments = 1
    final_argument_whitespace = True
    has_content = True
    option_spec: ClassVar[dict[str, Any]] = {"code": _words, "errata": _words}

    def run(self) -> list[nodes.Node]:
        """The equation with its number, and the line of links under it."""
        latex = "\n".join(line for line in self.content if line.strip())
        shown = nodes.math_block(latex, latex, nowrap=False, number=None, label=None, docname=self.env.docname)
        self.set_source_info(shown)
        box = nodes.container("", shown, classes=["equation"])
        if self.arguments:
            number = self.arguments[0]
            box["ids"].append("eq-" + number.replace(" ", "-").lower())
            mark = nodes.reference("", f"({number})", refuri=f"#{box['ids'][0]}", internal=True)
            box.append(nodes.paragraph("", "", mark, classes=["equation-number"]))
        parts: list[nodes.Node] = []
        for name in self.options.get("code", []):
            short = ".".join(name.split(".")[-2:]) if name.split(".")[-2][0].isupper() else name.split(".")[-1]
            parts += [
                nodes.Text(", " if parts else "Code: "),
                self._link("py", "obj", "repro." + name, nodes.literal, short),
            ]
        errata = self.options.get("errata", [])
        for k, number in enumerate(errata):
            lead = ("Errata " if len(errata) > 1 else "Erratum ") if k == 0 else ", "
            parts += [nodes.Text((". " if parts else "") + lead if k == 0 else lead)]
            parts += [self._link("std", "ref", number.lower(), nodes.inline, number)]
        found: list[nodes.Node] = [box]
        if parts:
            found.append(nodes.paragraph("", "", *parts, nodes.Text("."), classes=["equation-links"]))
        return found

    def _link(self, domain: str, kind: str, target: str, shape: type[nodes.Element], text: str) -> pending_xref:
        options = {"refdomain": domain, "reftype": kind, "reftarget": target, "refexplicit": True, "refwarn": True}
        link = pending_xref("", shape(text, text), refdoc=self.env.docname, **options)
        self.set_source_info(link)
        return link


def setup(app: Sphinx) -> dict[str, Any]:
    """Registers the directive ``equation``."""
    app.add_directive("equation", Equation)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
