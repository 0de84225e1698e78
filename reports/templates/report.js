"use strict";
(() => {
  // The page is complete without this script: it makes tables sortable and replaces the drawn chart by a live one.

  function sortKey(row, column) {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    return text === "—" || cell.classList.contains("failed") ? null : text;
  }

  function compare(a, b) {
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function sort(table, column) {
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: sortKey(row, column) }));
    const heads = [...table.tHead.rows[0].cells];
    const before = heads[column].getAttribute("aria-sort");
    // Numbers start with the highest, names with A.
    const first = rows.some((entry) => typeof entry.key === "number") ? "descending" : "ascending";
    const second = first === "descending" ? "ascending" : "descending";
    const direction = before === first ? second : first;
    for (const head of heads) head.setAttribute("aria-sort", "none");
    heads[column].setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    // What was not measured stays last in both directions: it is neither good nor bad.
    rows.sort((a, b) => (a.key === null) - (b.key === null) || (a.key === null ? 0 : sign * compare(a.key, b.key)));
    table.tBodies[0].append(...rows.map((entry) => entry.row));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, column));
      head.append(button);
      head.setAttribute("aria-sort", "none");
    });
  }

  const live = document.getElementById("chart-live");
  const drawn = document.getElementById("chart-drawn");
  const figure = live.dataset.figure;

  function coloured() {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(`--${name}`).trim();
    const { data, layout } = JSON.parse(figure);
    for (const trace of data) {
      const own = colour(`series-${trace.meta.series}`);
      trace.fillcolor = own;
      if (trace.line) trace.line.color = own;
      if (trace.marker || trace.type === "bar") trace.marker = { ...trace.marker, color: own };
      if (trace.error_x) trace.error_x.color = colour("ink");
    }
    for (const axis of [layout.xaxis, layout.yaxis]) {
      Object.assign(axis, { gridcolor: colour("line"), zerolinecolor: colour("line"), linecolor: colour("line") });
    }
    for (const shape of layout.shapes) shape.line.color = colour("muted");
    layout.paper_bgcolor = layout.plot_bgcolor = "rgba(0,0,0,0)";
    layout.font = { color: colour("muted"), family: getComputedStyle(document.body).fontFamily, size: 13 };
    layout.hoverlabel = { ...layout.hoverlabel, bgcolor: colour("surface"), bordercolor: colour("line"), font: { color: colour("ink") } };
    return { data, layout };
  }

  async function draw() {
    const { data, layout } = coloured();
    await Plotly.react(live, data, layout, { responsive: true, displayModeBar: false });
  }

  live.hidden = false;
  draw().then(
    () => {
      drawn.style.display = "none";
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    },
    (error) => {
      live.hidden = true;
      console.error("the live chart could not be drawn; the drawn one stays", error);
    },
  );
})();
