"use strict";
(() => {
  // The page is complete without this script: it sorts tables and gives them as CSV, filters rows and examples, copies
  // citations, and opens what is folded before the page is printed.

  function create(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  // Tables that a phone shows as cards are tables still for those who listen to them.
  const roles = { TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TD: "cell" };
  for (const part of document.querySelectorAll("table, thead, tbody, tr, td, th")) {
    part.setAttribute("role", roles[part.tagName] ?? (part.scope === "col" ? "columnheader" : "rowheader"));
  }

  // Sorting -------------------------------------------------------------------------------------------------------

  function sortKey(row, column) {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    return text === "—" || cell.classList.contains("missing") ? null : text;
  }

  function compare(a, b) {
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });
  }

  function sort(table, column) {
    // The rows of an earlier body (clean, worst case) stay on top.
    const body = table.tBodies[table.tBodies.length - 1];
    const rows = [...body.rows].map((row) => ({ row, key: sortKey(row, column) }));
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
    body.append(...rows.map((entry) => entry.row));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = create("button", { type: "button" }, ...head.childNodes);
      button.addEventListener("click", () => sort(table, column));
      head.append(button);
      head.setAttribute("aria-sort", "none");
    });
  }

  // CSV -----------------------------------------------------------------------------------------------------------

  // A number where one is given, else the text without its notes.
  function cellText(cell) {
    if (cell.dataset.value !== undefined) return cell.dataset.value;
    const copy = cell.cloneNode(true);
    for (const note of copy.querySelectorAll('span[class="note"], span[class="unseen"], span[class="mark"]')) note.remove();
    return copy.textContent.trim().replace(/\s+/g, " ");
  }

  // A spreadsheet takes what begins so for a formula, and carries it out.
  function harmless(text) {
    return /^[=+\-@]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
  }

  function csv(table) {
    const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    return [...table.rows].map((row) => [...row.cells].map((cell) => quoted(harmless(cellText(cell)))).join(",") + "\r\n").join("");
  }

  document.querySelectorAll("table").forEach((table, number) => {
    const button = create("button", { type: "button", textContent: "CSV of this table" });
    button.addEventListener("click", () => {
      const name = (table.id || table.caption?.id || `table-${number}`).replace(/-title$/, "");
      const href = URL.createObjectURL(new Blob(["\ufeff", csv(table)], { type: "text/csv" }));
      create("a", { href, download: `${name}.csv` }).click();
      setTimeout(() => URL.revokeObjectURL(href), 60_000);
    });
    (table.closest(".scroll") ?? table).after(create("p", { className: "csv" }, button));
  });

  // Filtering -----------------------------------------------------------------------------------------------------

  // Elements with the same data-key in a section are one thing in several tables; its facets stand on the first.
  function things(section, facets) {
    const found = new Map();
    for (const element of section.querySelectorAll("[data-key]")) {
      const key = element.dataset.key;
      if (!found.has(key)) {
        found.set(key, {
          elements: [],
          text: element.querySelector("th, h3").textContent.toLowerCase(),
          facets: Object.fromEntries(facets.map((facet) => [facet, element.dataset[facet]])),
        });
      }
      found.get(key).elements.push(element);
    }
    return [...found.values()];
  }

  function build(controls) {
    const section = controls.closest("section");
    const facets = controls.dataset.facets.split(" ");
    const all = things(section, facets);
    if (all.length < 2) return;
    const search = create("input", { type: "search" });
    controls.append(create("label", {}, "Name contains ", search));
    const chosen = [];
    for (const facet of facets) {
      const values = [...new Set(all.map((thing) => thing.facets[facet]))].sort();
      if (values.length < 2) continue;
      const select = create("select", {}, create("option", { value: "" }, "all"));
      values.forEach((value, place) => select.append(create("option", { value: String(place + 1) }, value)));
      controls.append(create("label", {}, `${facet[0].toUpperCase()}${facet.slice(1)} `, select));
      chosen.push({ facet, select, values });
    }
    const reset = create("button", { type: "button" }, "Show all");
    const status = create("p", {});
    status.setAttribute("role", "status");
    controls.append(reset, status);

    function apply() {
      const words = search.value.trim().toLowerCase();
      let shown = 0;
      for (const thing of all) {
        const fits = ({ facet, select, values }) => !select.value || values[select.value - 1] === thing.facets[facet];
        const visible = thing.text.includes(words) && chosen.every(fits);
        for (const element of thing.elements) element.hidden = !visible;
        shown += visible;
      }
      for (const room of section.querySelectorAll("details.room")) room.hidden = !room.querySelector("[data-key]:not([hidden])");
      status.textContent = shown === all.length ? "" : `${shown} of ${all.length} ${controls.dataset.noun} shown`;
    }

    for (const { select } of chosen) select.addEventListener("change", apply);
    search.addEventListener("input", apply);
    reset.addEventListener("click", () => {
      search.value = "";
      for (const { select } of chosen) select.value = "";
      apply();
    });
    controls.hidden = false;
  }

  for (const controls of document.querySelectorAll(".controls")) build(controls);

  // Copying -------------------------------------------------------------------------------------------------------

  for (const block of document.querySelectorAll("pre.copied")) {
    const button = create("button", { type: "button" }, "Copy");
    button.addEventListener("click", async () => {
      const selection = getSelection();
      selection.selectAllChildren(block);
      try {
        await navigator.clipboard.writeText(block.textContent);
        button.textContent = "Copied";
      } catch {
        // No clipboard for this page: the text is selected, ready for the reader's own keys.
        button.textContent = "Selected";
      }
    });
    block.before(button);
  }

  // Printing ------------------------------------------------------------------------------------------------------

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const details of opened) details.open = true;
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
  });
})();
