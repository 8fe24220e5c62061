"use strict";
// Sorts tables by a column's heading and shows only the rows that hold a text; without this script they are complete.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const headings = Array.from(table.tHead.rows[0].cells);

  const key = (row, column, kind) => {
    const cell = row.cells[column];
    if (kind === "text") return cell.textContent.trim();
    return cell.dataset.key === "" ? null : Number(cell.dataset.key);
  };

  const sort = (heading, column) => {
    const falling = heading.getAttribute("aria-sort") === "ascending";
    for (const other of headings) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
    const kind = heading.dataset.sort;
    const keyed = rows.map((row, index) => ({ row, index, value: key(row, column, kind) }));
    keyed.sort((a, b) => {
      // What is unknown comes last, whichever way the rest goes.
      const missing = (v) => v === null || v === "";
      if (missing(a.value) || missing(b.value)) return missing(a.value) - missing(b.value) || a.index - b.index;
      const order = kind === "text" ? a.value.localeCompare(b.value) : a.value - b.value;
      return (falling ? -order : order) || a.index - b.index;
    });
    body.append(...keyed.map((item) => item.row));
  };

  headings.forEach((heading, column) => {
    if (!heading.dataset.sort) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => sort(heading, column));
  });

  const field = document.getElementById(`filter-${table.id}`);
  const count = document.getElementById(`count-${table.id}`);
  field?.addEventListener("input", () => {
    const wanted = field.value.toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = wanted === "" ? "" : `${shown} of ${rows.length} rows`;
  });
}
