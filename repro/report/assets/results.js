// Tables that sort, columns that can be hidden and a filter by profile; what was chosen is kept in the browser.
(() => {
  "use strict";
  const keep = (name, value) => { try { localStorage.setItem("repro." + name, value); } catch { /* not allowed here */ } };
  const kept = (name) => { try { return localStorage.getItem("repro." + name); } catch { return null; } };

  const spans = () => {
    for (const cell of document.querySelectorAll(".results-scroll [data-parts]")) {
      const shown = cell.dataset.parts.split(" ").filter((p) => state[p] !== "hidden").length;
      const span = shown + Number(cell.dataset.more || 0);
      cell.hidden = span === 0;
      if (span) cell.colSpan = span;
    }
  };
  const state = {};
  const show = (part, visible) => {
    state[part] = visible ? "shown" : "hidden";
    document.documentElement.classList.toggle("hide-" + part, !visible);
    for (const box of document.querySelectorAll(`input[data-part="${part}"]`)) box.checked = visible;
  };
  for (const part of ["published", "obtained", "difference"]) show(part, kept("part." + part) !== "hidden");
  spans();
  document.addEventListener("change", (event) => {
    const part = event.target.dataset && event.target.dataset.part;
    if (part) {
      show(part, event.target.checked);
      keep("part." + part, event.target.checked ? "shown" : "hidden");
      spans();
    }
  });

  const index = (th) => {  // of the column that a sorter heads, past cells that span several
    const row = th.parentElement;
    const first = row.parentElement.rows[0];
    if (row === first) return [...row.cells].indexOf(th);
    const offset = [...first.cells].filter((c) => c.rowSpan > 1).length;
    return offset + [...row.cells].indexOf(th);
  };
  const value = (cell) => {
    if (!cell) return null;
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim().replace(/−/g, "-").replace(/,/g, "");
    if (text === "" || text === "—") return null;
    const number = Number.parseFloat(text);
    return /^[-+]?[0-9.]/.test(text) && !Number.isNaN(number) ? number : text.toLowerCase();
  };
  const compare = (a, b) => (typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1);
  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("button.sorter");
    if (!button) return;
    const th = button.closest("th");
    const table = button.closest("table");
    const down = th.getAttribute("aria-sort") === "ascending";
    for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    th.setAttribute("aria-sort", down ? "descending" : "ascending");
    const column = index(th);
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((r) => !r.classList.contains("block"));
      rows.sort((x, y) => {
        const [a, b] = [value(x.cells[column]), value(y.cells[column])];
        if (a === null || b === null) return (a === null) - (b === null);
        return down ? compare(b, a) : compare(a, b);
      });
      body.append(...rows);
    }
  });

  // What scrolls sideways can be reached, and scrolled, with the keyboard.
  for (const box of document.querySelectorAll("pre, .table-wrapper")) box.tabIndex = 0;

  const filter = document.querySelector("select[data-filter]");
  if (filter) {
    const apply = () => {
      for (const block of document.querySelectorAll(".result[data-profile]")) {
        block.hidden = filter.value !== "" && block.dataset.profile !== filter.value;
      }
    };
    const before = kept("profile");
    if (before !== null && [...filter.options].some((o) => o.value === before)) filter.value = before;
    filter.addEventListener("change", () => { keep("profile", filter.value); apply(); });
    apply();
  }
})();
