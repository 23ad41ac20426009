// Tables with a head: sorted by a click on a column's name, filtered where they are long, and copied
// as CSV or LaTeX. Without scripts they are there as they are.
"use strict";

(() => {
  const LONG = 12; // rows from which a table has a filter
  const NUMBER = /^[-−+]?[\d,]*\.?\d+/;

  const text = (cell) => cell.innerText.replace(/\s+/g, " ").trim();

  function element(tag, className, words) {
    const made = document.createElement(tag);
    made.className = className;
    if (words) made.textContent = words;
    if (tag === "button") made.type = "button";
    return made;
  }

  // a cell's own value, or the number at its beginning; null without one
  function value(cell) {
    if (cell.dataset.value) return parseFloat(cell.dataset.value);
    const found = text(cell).match(NUMBER);
    return found ? Number(found[0].replace("−", "-").replaceAll(",", "")) : null;
  }

  // rows of a total stay last
  function parts(table) {
    const rows = [...table.tBodies[0].rows];
    const last = rows.at(-1);
    return last && last.classList.contains("total") ? [rows.slice(0, -1), [last]] : [rows, []];
  }

  function sort(table, column, falling) {
    const [rows, totals] = parts(table);
    const keyed = rows.map((row) => {
      const cell = row.cells[column];
      return { row, words: text(cell), number: value(cell) };
    });
    const numbers = keyed.some(({ number }) => number !== null);
    const sign = falling ? -1 : 1;
    keyed.sort((a, b) => {
      if (!numbers) return sign * a.words.localeCompare(b.words, "en", { numeric: true });
      if (a.number === null || b.number === null) return (a.number === null) - (b.number === null);
      return sign * (a.number - b.number);
    });
    table.tBodies[0].append(...keyed.map(({ row }) => row), ...totals);
  }

  function makeSortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (head.classList.contains("bar")) return;
      const button = element("button", "sort");
      button.append(...head.childNodes);
      button.title = "sort";
      head.append(button);
      button.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        sort(table, column, falling);
      });
    });
  }

  function cells(table) {
    const shown = [...table.tHead.rows[0].cells].map((head) => !head.classList.contains("bar"));
    const rows = [table.tHead.rows[0], ...table.tBodies[0].rows].filter((row) => !row.hidden);
    return rows.map((row) => [...row.cells].filter((cell, column) => shown[column]).map(text));
  }

  function csv(table) {
    const quoted = (words) => (/[",\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words);
    return cells(table).map((row) => row.map(quoted).join(",") + "\n").join("");
  }

  function latex(table) {
    const escaped = (words) =>
      words
        .replace(/[&%$#_{}\\]/g, (found) => (found === "\\" ? "\\textbackslash{}" : `\\${found}`))
        .replaceAll("~", "\\textasciitilde{}")
        .replaceAll("^", "\\textasciicircum{}")
        .replaceAll("<", "$<$")
        .replaceAll(">", "$>$")
        .replaceAll("±", "$\\pm$")
        .replaceAll("λ", "$\\lambda$")
        .replaceAll("²", "$^2$")
        .replaceAll("✓", "$\\checkmark$")
        .replaceAll("✗", "$\\times$")
        .replaceAll("–", "--");
    const [head, ...body] = cells(table).map((row) => `${row.map(escaped).join(" & ")} \\\\\n`);
    const columns = "l" + "r".repeat(cells(table)[0].length - 1);
    const needs = body.some((row) => row.includes("\\checkmark")) ? "% needs amssymb\n" : "";
    return `${needs}\\begin{tabular}{${columns}}\n\\hline\n${head}\\hline\n${body.join("")}\\hline\n\\end{tabular}\n`;
  }

  async function copy(words) {
    try {
      await navigator.clipboard.writeText(words);
    } catch {
      // where a page may not write to the clipboard, a copied selection still may
      const area = element("textarea", "");
      area.value = words;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  }

  function tools(table) {
    const bar = element("div", "tools");
    const rows = [...table.tBodies[0].rows];
    if (rows.length >= LONG) {
      const label = element("label", "", "filter ");
      const input = element("input", "");
      input.type = "search";
      input.addEventListener("input", () => {
        const words = input.value.toLowerCase().split(" ").filter(Boolean);
        for (const row of rows) {
          const content = row.textContent.toLowerCase();
          row.hidden = !words.every((word) => content.includes(word));
        }
      });
      label.append(input);
      bar.append(label);
    }
    const said = element("span", "soft");
    said.setAttribute("role", "status");
    for (const [name, made] of [["CSV", csv], ["LaTeX", latex]]) {
      const button = element("button", "", `copy as ${name}`);
      button.addEventListener("click", async () => {
        await copy(made(table));
        said.textContent = `${name} is on the clipboard`;
      });
      bar.append(button);
    }
    bar.append(said);
    return bar;
  }

  for (const table of document.querySelectorAll("main table")) {
    if (!table.tHead || !table.tBodies.length) continue;
    makeSortable(table);
    const frame = table.closest(".scroll") || table;
    frame.before(tools(table));
  }
  // what is wider than the page can be scrolled with the keyboard too
  const titles = [...document.querySelectorAll("main h1, main h2, main h3")];
  [...document.querySelectorAll(".scroll, .plots figure, .wide")].forEach((frame, place) => {
    frame.tabIndex = 0;
    frame.setAttribute("role", "region");
    const before = (part) => part.compareDocumentPosition(frame) & Node.DOCUMENT_POSITION_FOLLOWING;
    const title = frame.querySelector("h3") || titles.filter(before).at(-1);
    frame.setAttribute("aria-label", `Part ${place + 1}: ${title ? title.textContent : "table"}`);
  });
})();
