// The case browser: shows one slice of a case at a time, with labels coloured on a canvas above the
// image. Everything comes from the page: JSON beside it holds images and labels of each case.
"use strict";

(() => {
  const viewer = document.getElementById("viewer");
  if (!viewer || typeof DecompressionStream === "undefined") return;

  const about = JSON.parse(document.getElementById("browser-about").textContent);
  const part = (name) => viewer.querySelector(`[data-part="${name}"]`);
  const stage = part("stage");
  const names = [...part("case").options].map((option) => option.value);
  const sources = [...document.querySelectorAll("script.browser-case")];
  const ERRORS = [null, "#ff3b30", "#ffcc00", "#ff2df7"]; // missed, too much, another organ
  const DEFAULTS = { truth: "contour", prediction: "fill", coarse: "off", fine: "off", error: "off" };
  // which pixels of an outline are drawn, so that outlines of one colour can be told apart
  const DOTS = {
    truth: () => true,
    prediction: (x, y) => (x + y) % 2 === 0,
    coarse: (x, y) => (x + y) % 4 === 0,
    fine: (x, y) => (x + y) % 4 < 2,
    error: () => true,
  };
  const BARS_MM = [100, 50, 20, 10, 5, 2, 1, 0.5];

  const state = {
    case: null,
    place: 0, // among the slices that are here
    layers: Object.fromEntries([...about.layers, "error"].map((name) => [name, DEFAULTS[name]])),
    hidden: new Set(), // labels of organs
    opacity: 45,
    window: 0,
    apart: false,
    model: 0, // among about.models
    beside: about.models.length > 1 ? 1 : -1, // the same, -1: none
    zoom: 1,
    x: 0.5, // the middle of what is shown, as shares of the whole slice
    y: 0.5,
  };
  const OWN = ["coarse", "fine"]; // stages: of the first model alone
  let current = null; // the value of the case that is shown
  let turn = 0; // counts drawings: a late one gives way to the next

  // ---- values of a case

  function open(name) {
    if (state.case === name) return;
    current = JSON.parse(sources[names.indexOf(name)].textContent);
    state.case = name;
    part("slice").max = Math.max(0, current.slices.length - 1);
  }

  function nearest(index) {
    let best = 0;
    current.slices.forEach((slice, place) => {
      if (Math.abs(slice.index - index) < Math.abs(current.slices[best].index - index)) best = place;
    });
    return best;
  }

  async function combinationOfPixels(slice) {
    const packed = Uint8Array.from(atob(slice.labels), (letter) => letter.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
    const bytes = await new Response(stream).arrayBuffer();
    return slice.combinations.length > 256 ? new Uint16Array(bytes) : new Uint8Array(bytes);
  }

  // combination to label of a layer of a model, without the organs that are switched off
  function labelsOf(slice, layer, model) {
    const shown = (label) => (state.hidden.has(label) ? 0 : label);
    const column = (name) =>
      current.layers.indexOf(name === "prediction" ? about.models[model].layer : name);
    if (layer !== "error") {
      return slice.combinations.map((labels) => shown(labels[column(layer)] || 0));
    }
    return slice.combinations.map((labels) => {
      const truth = shown(labels[column("truth")]);
      const predicted = shown(labels[column("prediction")]);
      if (truth === predicted) return 0;
      return predicted === 0 ? 1 : truth === 0 ? 2 : 3;
    });
  }

  // ---- drawing

  function rgb(colour) {
    const value = parseInt(colour.slice(1), 16);
    return [value >> 16, (value >> 8) & 255, value & 255];
  }

  function fill(context, pixels, labels, colours, scale) {
    const { rows, columns } = current;
    const image = new ImageData(columns, rows);
    const shades = labels.map((label) => (label ? rgb(colours[label]) : null));
    const alpha = Math.round(2.55 * state.opacity);
    for (let place = 0; place < pixels.length; place += 1) {
      const shade = shades[pixels[place]];
      if (shade) image.data.set([...shade, alpha], 4 * place);
    }
    const small = document.createElement("canvas");
    small.width = columns;
    small.height = rows;
    small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, 0, 0, columns * scale, rows * scale);
  }

  function outline(context, pixels, labels, colours, scale, drawn) {
    const { rows, columns } = current;
    const width = Math.max(1, Math.round(scale / 2));
    const at = (x, y) =>
      x < 0 || y < 0 || x >= columns || y >= rows ? 0 : labels[pixels[y * columns + x]];
    for (let y = 0; y < rows; y += 1) {
      for (let x = 0; x < columns; x += 1) {
        const label = labels[pixels[y * columns + x]];
        if (!label || !drawn(x, y)) continue;
        context.fillStyle = colours[label];
        const [left, top] = [x * scale, y * scale];
        if (at(x - 1, y) !== label) context.fillRect(left, top, width, scale);
        if (at(x + 1, y) !== label) context.fillRect(left + scale - width, top, width, scale);
        if (at(x, y - 1) !== label) context.fillRect(left, top, scale, width);
        if (at(x, y + 1) !== label) context.fillRect(left, top + scale - width, scale, width);
      }
    }
  }

  function element(tag, className, text) {
    const made = document.createElement(tag);
    made.className = className;
    if (text) made.textContent = text;
    return made;
  }

  function pane(slice, pixels, { layers, model, title }) {
    const box = element("div", "pane");
    const zoomed = element("div", "zoomed");
    const image = element("img", "");
    image.src = `data:image/webp;base64,${slice.image}`;
    const words = [title, layers.join(", ")].filter(Boolean).join(": ");
    image.alt = `${state.case}, slice ${slice.index}${words ? `: ${words}` : ""}`;
    const canvas = element("canvas", "");
    const scale = Math.max(1, Math.min(6, Math.round(1024 / Math.max(current.rows, current.columns))));
    canvas.width = current.columns * scale;
    canvas.height = current.rows * scale;
    const context = canvas.getContext("2d");
    const colours = [null, ...about.organs.map((organ) => organ.colour)];
    // fills first, so that no outline is covered
    for (const how of ["fill", "contour"]) {
      for (const layer of layers.filter((name) => state.layers[name] === how)) {
        const palette = layer === "error" ? ERRORS : colours;
        const labels = labelsOf(slice, layer, model);
        if (how === "fill") fill(context, pixels, labels, palette, scale);
        else outline(context, pixels, labels, palette, scale, DOTS[layer]);
      }
    }
    box.style.aspectRatio = `${current.width_mm} / ${current.height_mm}`;
    box.style.setProperty("--ratio", current.width_mm / current.height_mm);
    zoomed.append(image, canvas);
    box.append(zoomed);
    const letters = { left: about.sides[0], right: about.sides[1], top: about.ends[0], bottom: about.ends[1] };
    for (const [side, letter] of Object.entries(letters)) box.append(element("span", `edge ${side}`, letter));
    box.append(element("span", "ruler"));
    if (title) box.append(element("span", "title", title));
    return box;
  }

  function shownModels() {
    return state.beside < 0 ? [state.model] : [state.model, state.beside];
  }

  // what each pane shows: a model each, and, where they are asked for, a layer each
  function panes() {
    const on = Object.keys(state.layers).filter((name) => state.layers[name] !== "off");
    const models = shownModels();
    const name = (model) => (about.models.length > 1 ? about.models[model].name : "");
    if (!state.apart || !on.length) {
      return models.map((model) => ({
        layers: on.filter((layer) => model === 0 || !OWN.includes(layer)),
        model,
        title: name(model),
      }));
    }
    return on.flatMap((layer) => {
      if (!["prediction", "error"].includes(layer)) return [{ layers: [layer], model: 0, title: layer }];
      return models.map((model) => ({
        layers: [layer],
        model,
        title: layer === "prediction" ? name(model) || layer : `${name(model)} ${layer}`.trim(),
      }));
    });
  }

  // all panes show the same part of the slice
  function zoom() {
    const half = 0.5 / state.zoom;
    for (const axis of ["x", "y"]) {
      state[axis] = Math.max(half, Math.min(1 - half, state[axis]));
      stage.style.setProperty(`--${axis}`, state[axis]);
    }
    stage.style.setProperty("--zoom", state.zoom);
    stage.classList.toggle("large", state.zoom > 1);
    part("zoom").value = state.zoom;
    const width = current.width_mm / state.zoom;
    const bar = BARS_MM.find((length) => length <= width / 3) || BARS_MM.at(-1);
    for (const ruler of stage.querySelectorAll(".ruler")) {
      ruler.textContent = `${bar} mm`;
      ruler.style.width = `${(100 * bar) / width}%`;
    }
  }

  async function draw() {
    const mine = (turn += 1);
    const slice = current.slices[state.place];
    showControls();
    stage.setAttribute("aria-busy", "true");
    if (!slice) {
      stage.replaceChildren();
      part("dice").replaceChildren();
      stage.setAttribute("aria-busy", "false");
      part("said").textContent = "No slice of this case found room in the page (report.budget_mib).";
      return;
    }
    const picture = new Image();
    picture.src = `data:image/webp;base64,${slice.image}`;
    const [pixels] = await Promise.all([combinationOfPixels(slice), picture.decode()]);
    if (mine !== turn) return;
    const shown = panes();
    stage.classList.toggle("apart", shown.length > 1);
    stage.style.setProperty("--panes", shown.length);
    stage.replaceChildren(...shown.map((what) => pane(slice, pixels, what)));
    zoom();
    const scores = shownModels().map((model) => score(slice, pixels, model));
    part("said").textContent = describe(slice, scores);
    part("drawn").textContent = drawnLayers();
    part("dice").replaceChildren(diceTable(scores));
    viewer.dataset.shown = `${state.case}/${slice.index}`;
    stage.setAttribute("aria-busy", "false");
  }

  // ---- words and controls

  // a model on a slice: Dice of each organ, and what it misses and adds, cm²
  function score(slice, pixels, model) {
    const counts = new Array(slice.combinations.length).fill(0);
    for (const combination of pixels) counts[combination] += 1;
    const [truth, predicted] = ["truth", "prediction"].map((layer) => labelsOf(slice, layer, model));
    const sums = new Map();
    let [missed, added] = [0, 0];
    counts.forEach((count, index) => {
      for (const label of new Set([truth[index], predicted[index]])) {
        if (!label) continue;
        const found = sums.get(label) || [0, 0];
        found[0] += 2 * count * (truth[index] === predicted[index]);
        found[1] += count * ((truth[index] === label) + (predicted[index] === label));
        sums.set(label, found);
      }
      if (truth[index] !== predicted[index]) {
        if (truth[index]) missed += count;
        if (predicted[index]) added += count;
      }
    });
    const area = (current.width_mm * current.height_mm) / (current.rows * current.columns) / 100;
    const organs = new Map([...sums].map(([label, [shared, both]]) => [label, shared / both]));
    return { model, organs, missed: missed * area, added: added * area };
  }

  function describe(slice, scores) {
    const words = scores.map(({ model, organs, missed, added }) => {
      const dice = [...organs.values()].reduce((sum, value) => sum + value, 0) / organs.size;
      const text = organs.size
        ? `Dice ${dice.toFixed(3)} over ${organs.size} organ${organs.size > 1 ? "s" : ""}, ` +
          `${missed.toFixed(1)} cm² missed, ${added.toFixed(1)} cm² too much`
        : "none of the organs that are switched on";
      return about.models.length > 1 ? `${about.models[model].name} ${text}` : text;
    });
    const thinned = current.slices.length < current.total ? ` (${current.slices.length} are here)` : "";
    return `${state.case}, slice ${slice.index} of ${current.total}${thinned}: ${words.join("; ")}.`;
  }

  // for paper, which has no controls to tell it
  function drawnLayers() {
    const on = Object.entries(state.layers).filter(([, how]) => how !== "off");
    const words = on.map(([name, how]) => `${name} as ${how}`).join(", ") || "no labels";
    part("errors").classList.toggle("screen", state.layers.error === "off");
    return `Drawn: ${words}; window: ${about.windows[state.window].name}.`;
  }

  function diceTable(scores) {
    const table = element("table", "");
    const row = (place, words, scope) => {
      const line = place.insertRow();
      words.forEach((text, column) => {
        const cell = element(scope === "col" || column === 0 ? "th" : "td", "", text);
        if (cell.tagName === "TH") cell.scope = scope;
        line.append(cell);
      });
    };
    const name = (model) => (about.models.length > 1 ? `${about.models[model].name}, ` : "");
    const columns = scores.flatMap(({ model }) => [`${name(model)}case`, `${name(model)}slice`]);
    row(table.createTHead(), ["organ", ...columns], "col");
    const body = table.createTBody();
    const shown = (value) => (value === null || value === undefined ? "–" : value.toFixed(3));
    about.organs.forEach((organ, at) => {
      if (state.hidden.has(at + 1)) return;
      const cells = scores.flatMap(({ model, organs }) => [current.dice[model][at], organs.get(at + 1)]);
      row(body, [organ.name, ...cells.map(shown)], "row");
    });
    return table;
  }

  function showControls() {
    part("case").value = state.case;
    const slider = part("slice");
    slider.value = state.place;
    const slice = current.slices[state.place];
    slider.setAttribute("aria-valuetext", slice ? `slice ${slice.index}` : "none");
    for (const select of viewer.querySelectorAll("[data-layer]")) {
      select.value = state.layers[select.dataset.layer];
    }
    for (const tick of viewer.querySelectorAll("[data-organ]")) {
      tick.checked = !state.hidden.has(Number(tick.dataset.organ));
    }
    part("opacity").value = state.opacity;
    part("window").value = state.window;
    part("apart").checked = state.apart;
    for (const name of ["model", "beside"]) if (part(name)) part(name).value = state[name];
    const { low, high } = about.windows[state.window];
    for (const channel of viewer.querySelectorAll("feComponentTransfer > *")) {
      channel.setAttribute("slope", 1 / (high - low));
      channel.setAttribute("intercept", -low / (high - low));
    }
  }

  // ---- the address

  function write() {
    const slice = current.slices[state.place];
    const words = new URLSearchParams({ case: state.case });
    if (slice) words.set("slice", slice.index);
    for (const [name, how] of Object.entries(state.layers)) {
      if (how !== DEFAULTS[name]) words.set(name, how);
    }
    const off = [...state.hidden].map((label) => about.organs[label - 1].name);
    if (off.length) words.set("off", off.join("|"));
    if (state.opacity !== 45) words.set("opacity", state.opacity);
    if (state.window) words.set("window", state.window);
    if (state.apart) words.set("apart", 1);
    if (about.models.length > 1) {
      words.set("model", about.models[state.model].name);
      words.set("beside", state.beside < 0 ? "none" : about.models[state.beside].name);
    }
    if (state.zoom > 1) {
      words.set("zoom", state.zoom);
      words.set("at", `${state.x.toFixed(3)},${state.y.toFixed(3)}`);
    }
    try {
      history.replaceState(null, "", `#${words}`);
    } catch {
      // a page without an address of its own, as in another page's frame, has none to change
    }
  }

  function read() {
    const words = new URLSearchParams(location.hash.slice(1));
    if (!names.includes(words.get("case"))) return false;
    open(words.get("case"));
    const organ = about.organs.findIndex(({ name }) => name === words.get("organ"));
    const wanted = words.get("slice") ?? current.organs[organ] ?? current.worst;
    state.place = nearest(Number(wanted));
    for (const name of Object.keys(state.layers)) {
      if (["off", "contour", "fill"].includes(words.get(name))) state.layers[name] = words.get(name);
    }
    if (words.has("off")) {
      const off = words.get("off").split("|");
      state.hidden = new Set(about.organs.flatMap(({ name }, at) => (off.includes(name) ? [at + 1] : [])));
    }
    const opacity = Number(words.get("opacity"));
    if (opacity >= 10 && opacity <= 100) state.opacity = opacity;
    if (about.windows[words.get("window")]) state.window = Number(words.get("window"));
    if (words.has("apart")) state.apart = words.get("apart") === "1";
    const found = (name) => about.models.findIndex((model) => model.name === words.get(name));
    if (found("model") >= 0) state.model = found("model");
    if (words.has("beside")) state.beside = found("beside");
    const zoomed = Number(words.get("zoom"));
    if (zoomed >= 1 && zoomed <= 8) state.zoom = zoomed;
    const [x, y] = (words.get("at") || "").split(",").map(Number);
    if (x >= 0 && x <= 1 && y >= 0 && y <= 1) [state.x, state.y] = [x, y];
    return true;
  }

  function follow() {
    if (!read()) return;
    draw();
    viewer.scrollIntoView({ block: "start" });
    stage.focus({ preventScroll: true });
  }

  // ---- what people do

  function changed() {
    write();
    draw();
  }

  function go(place) {
    const last = current.slices.length - 1;
    const next = Math.max(0, Math.min(last, place));
    if (next === state.place) return false;
    state.place = next;
    changed();
    return true;
  }

  part("case").addEventListener("change", (event) => {
    open(event.target.value);
    state.place = nearest(current.worst);
    changed();
  });
  part("slice").addEventListener("input", (event) => go(Number(event.target.value)));
  part("opacity").addEventListener("input", (event) => {
    state.opacity = Number(event.target.value);
    changed();
  });
  part("window").addEventListener("change", (event) => {
    state.window = Number(event.target.value);
    changed();
  });
  for (const name of ["model", "beside"]) {
    part(name)?.addEventListener("change", (event) => {
      state[name] = Number(event.target.value);
      changed();
    });
  }
  function zoomTo(factor, x = state.x, y = state.y) {
    state.zoom = Math.max(1, Math.min(8, factor));
    [state.x, state.y] = [x, y];
    zoom();
    write();
  }
  part("zoom").addEventListener("input", (event) => zoomTo(Number(event.target.value)));
  part("apart").addEventListener("change", (event) => {
    state.apart = event.target.checked;
    changed();
  });
  for (const select of viewer.querySelectorAll("[data-layer]")) {
    select.addEventListener("change", () => {
      state.layers[select.dataset.layer] = select.value;
      changed();
    });
  }
  for (const tick of viewer.querySelectorAll("[data-organ]")) {
    tick.addEventListener("change", () => {
      state.hidden[tick.checked ? "delete" : "add"](Number(tick.dataset.organ));
      changed();
    });
  }
  part("none").addEventListener("click", () => {
    state.hidden = new Set(about.organs.map((organ, at) => at + 1));
    changed();
  });
  part("all").addEventListener("click", () => {
    state.hidden = new Set();
    changed();
  });
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const factors = { "+": 2 * state.zoom, "-": state.zoom / 2, 0: 1 };
    const [right, down] =
      { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [];
    if (event.key in factors) {
      event.preventDefault();
      zoomTo(factors[event.key]);
      return;
    }
    if (event.shiftKey && right !== undefined) {
      event.preventDefault();
      const step = 0.1 / state.zoom;
      zoomTo(state.zoom, state.x + step * right, state.y + step * down);
      return;
    }
    const last = current.slices.length - 1;
    const places = {
      ArrowUp: state.place + 1,
      ArrowRight: state.place + 1,
      ArrowDown: state.place - 1,
      ArrowLeft: state.place - 1,
      PageUp: state.place + 10,
      PageDown: state.place - 10,
      Home: 0,
      End: last,
    };
    if (!(event.key in places)) return;
    event.preventDefault();
    go(places[event.key]);
  });
  // only after a click: a reader who scrolls past isn't held up
  stage.addEventListener("pointerdown", (event) => {
    stage.focus({ preventScroll: true });
    const box = event.target.closest(".pane");
    if (!box || state.zoom === 1 || event.button) return;
    event.preventDefault();
    const { width, height } = box.getBoundingClientRect();
    const begun = { left: event.clientX, top: event.clientY, x: state.x, y: state.y };
    const drag = ({ clientX, clientY }) =>
      zoomTo(
        state.zoom,
        begun.x - (clientX - begun.left) / width / state.zoom,
        begun.y - (clientY - begun.top) / height / state.zoom,
      );
    const end = () => {
      window.removeEventListener("pointermove", drag);
      window.removeEventListener("pointerup", end);
      window.removeEventListener("pointercancel", end);
    };
    window.addEventListener("pointermove", drag);
    window.addEventListener("pointerup", end);
    window.addEventListener("pointercancel", end);
  });
  stage.addEventListener(
    "wheel",
    (event) => {
      if (document.activeElement !== stage || event.deltaY === 0) return;
      if (go(state.place + (event.deltaY < 0 ? 1 : -1))) event.preventDefault();
    },
    { passive: false },
  );
  window.addEventListener("hashchange", follow);
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#case="]');
    if (link && link.getAttribute("href") === location.hash) follow();
  });

  document.documentElement.classList.add("scripted");
  viewer.hidden = false;
  open(names[0]);
  state.place = nearest(current.worst);
  if (location.hash) follow();
  if (turn === 0) draw();
})();
