// Plots with lines: values under the pointer, or by arrow keys, and lines switched by their names in
// the legend. Without scripts the plots are there as they are.
"use strict";

(() => {
  const number = (value) => String(Number(value.toPrecision(4)));

  // from values to places along an axis, as [value, place, value, place]
  const scale = ([first, from, last, to]) => (value) => from + ((value - first) * (to - from)) / (last - first);

  function press(part, action) {
    part.addEventListener("click", action);
    part.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      event.stopPropagation();
      action();
    });
  }

  for (const svg of document.querySelectorAll("svg[data-traces]")) {
    const traces = JSON.parse(svg.dataset.traces);
    const name = svg.dataset.name;
    const across = scale(traces.x_scale);
    const off = new Set();
    const places = [...new Set(traces.lines.flatMap(({ x }) => x))].sort((a, b) => a - b);
    let at = null; // the value that is shown

    const said = document.createElement("p");
    said.className = "soft values";
    said.setAttribute("role", "status");
    said.style.minHeight = traces.lines.length > 3 ? "4.5em" : "1.5em"; // the page doesn't move
    svg.after(said);
    const cursor = document.createElementNS(svg.namespaceURI, "line");
    cursor.setAttribute("class", "cursor");
    const [, bottom, , top] = traces.y_scale;
    cursor.setAttribute("y1", bottom);
    cursor.setAttribute("y2", top);
    cursor.style.visibility = "hidden";
    svg.append(cursor);

    function show(value) {
      at = value;
      cursor.style.visibility = value === null ? "hidden" : "visible";
      if (value === null) {
        said.textContent = "";
        return;
      }
      cursor.setAttribute("x1", across(value));
      cursor.setAttribute("x2", across(value));
      const words = traces.lines.flatMap((line, place) => {
        const found = line.x.indexOf(value);
        if (found < 0 || off.has(place)) return [];
        const range = line.low ? ` (${number(line.low[found])} to ${number(line.high[found])})` : "";
        return [`${line.name} ${number(line.y[found])}${range}`];
      });
      said.textContent = `${traces.label} ${value}: ${words.join(", ") || "nothing is switched on"}`;
    }

    function nearest(event) {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
      const distance = (value) => Math.abs(across(value) - point.x);
      return places.reduce((best, value) => (distance(value) < distance(best) ? value : best));
    }

    svg.setAttribute("role", "group");
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("aria-label", `${svg.getAttribute("aria-label")}: arrow keys show values`);
    svg.addEventListener("pointermove", (event) => show(nearest(event)));
    svg.addEventListener("pointerleave", () => show(null));
    svg.addEventListener("blur", () => show(null));
    svg.addEventListener("keydown", (event) => {
      const last = places.length - 1;
      const now = places.indexOf(at);
      const next = { ArrowLeft: now < 0 ? last : now - 1, ArrowRight: now + 1, Home: 0, End: last, Escape: null };
      if (!(event.key in next) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const place = next[event.key];
      show(place === null ? null : places[Math.max(0, Math.min(last, place))]);
    });

    if (traces.lines.length < 2) continue;
    traces.lines.forEach((line, place) => {
      const parts = (kind) => [...svg.querySelectorAll(`[id^="${name}-${kind}-${place}-"]`)];
      const key = svg.querySelector(`[id="${name}-key-${place}-0"]`); // the words, not the line
      if (!key) return;
      key.setAttribute("role", "button");
      key.setAttribute("tabindex", "0");
      key.setAttribute("aria-pressed", "true");
      key.setAttribute("aria-label", line.name);
      key.classList.add("key");
      press(key, () => {
        off[off.has(place) ? "delete" : "add"](place);
        key.setAttribute("aria-pressed", String(!off.has(place)));
        for (const part of parts("series")) part.style.visibility = off.has(place) ? "hidden" : "";
        for (const part of parts("key")) part.style.opacity = off.has(place) ? "0.4" : "";
        if (at !== null) show(at);
      });
    });
  }
})();
