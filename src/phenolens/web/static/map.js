"use strict";
// The map. plotly draws the points by WebGL. The point under the pointer and those in a lasso are found here in typed
// arrays, because plotly's own events create an object per point, too much for a million cells.

(() => {
  const root = document.getElementById("map");
  if (!root) return;
  const status = document.getElementById("status"), legend = document.getElementById("legend");
  const card = document.getElementById("card"), selectionBox = document.getElementById("selection");
  const MOST_MARKED = 2000, GALLERY = 24, COMPARED = 120, REACH = 14, MANY = 50000, AT_ONCE = 100000, FEW = 50, MOST = 120, GRID = 512;
  const query = new URLSearchParams(location.search);
  let by = root.dataset.by, names = false, x, y, n = 0, plotted = 0, codes, groups, hidden = new Set(), control = null;
  let grid = null, selection = null, lasso = [];

  const request = async (path, more = {}) => {
    const answer = await fetch(`${path}?${root.dataset.query}&${new URLSearchParams(more)}`);
    if (answer.ok) return answer;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    throw new Error(page.querySelector(".verdict")?.textContent || `The server answered ${answer.status}.`);
  };
  const numbers = async (path, kind, more) => new kind(await (await request(path, more)).arrayBuffer());
  const report = (error) => { status.textContent = `The map cannot be shown: ${error.message}`; status.className = "missing"; };
  const formatted = (number) => number.toLocaleString("en-US");
  const element = (tag, text = "", attributes = {}) => {
    const created = document.createElement(tag);
    created.textContent = text;
    for (const [name, value] of Object.entries(attributes)) created.setAttribute(name, value);
    return created;
  };
  const updateAddress = () => {  // the address always holds what is shown
    const state = new URLSearchParams(`${root.dataset.query}&by=${by}`);
    if (selection?.find) state.set("find", selection.find);
    if (selection?.group !== undefined) state.set("group", groups[selection.group].name);
    for (const g of hidden) state.append("hide", groups[g].name);
    if (lasso.length) state.set("lasso", lasso.map((at) => at.map((v) => +v.toPrecision(4)).join(",")).join(" "));
    const axes = root._fullLayout;
    if (axes && !axes.xaxis.autorange) {
      state.set("view", [...axes.xaxis.range, ...axes.yaxis.range].map((v) => +v.toPrecision(5)).join(","));
    }
    history.replaceState(null, "", `${location.pathname}?${state}`);
  };

  // traces of the first `plotted` points, which are in random order; in layers of all groups, so no group hides another
  function traces() {
    const layers = n > MANY ? Math.max(1, Math.floor((plotted < n ? FEW : MOST) / groups.length)) : 1, drawn = [];
    for (let layer = 0; layer < layers; layer++) {
      const from = Math.floor((layer * plotted) / layers), to = Math.floor(((layer + 1) * plotted) / layers);
      const sizes = new Uint32Array(groups.length), at = new Uint32Array(groups.length);
      for (let i = from; i < to; i++) sizes[codes[i]]++;
      const xs = groups.map((_, g) => new Float32Array(sizes[g])), ys = groups.map((_, g) => new Float32Array(sizes[g]));
      const labels = names ? groups.map((_, g) => new Array(sizes[g])) : null;
      for (let i = from; i < to; i++) {
        const g = codes[i], place = at[g]++;
        xs[g][place] = x[i];
        ys[g][place] = y[i];
        if (names) labels[g][place] = labelOf[i] || "";
      }
      groups.forEach((group, g) => drawn.push({
        type: "scattergl", mode: names ? "markers+text" : "markers", x: xs[g], y: ys[g], hoverinfo: "skip",
        visible: !hidden.has(g), meta: g, text: names ? labels[g] : undefined, textposition: "top center",
        textfont: { family: "sans-serif", size: 10, color: "#5f6b78" },  // WebGL cannot draw "inherit"
        marker: { size: n > MANY ? 2.5 : n > 1000 ? 5 : 9, color: group.color, symbol: n > MANY ? "circle" : group.symbol,
          opacity: n > MANY ? 0.7 : 0.85, line: { width: 0 } },
      }));
    }
    if (control) {
      drawn.push({ type: "scattergl", mode: "markers", x: [control[0]], y: [control[1]], hoverinfo: "skip",
        marker: { symbol: "cross-thin", size: 16, color: "#1f2933", line: { width: 2, color: "#1f2933" } } });
    }
    if (selection && !lasso.length) {
      const some = selection.numbers.slice(0, MOST_MARKED);
      drawn.push({ type: "scattergl", mode: "markers", x: some.map((i) => x[i]), y: some.map((i) => y[i]),
        hoverinfo: "skip", marker: { symbol: "circle-open", size: some.length > 60 ? 7 : 14, color: "#1f2933",
        line: { width: some.length > 60 ? 1 : 1.5 } } });
    }
    return drawn;
  }
  const outline = () => lasso.length ? [{ type: "path", path: `M${lasso.map((at) => at.join(",")).join("L")}Z`,
    line: { color: "#1f2933", width: 1.5 }, fillcolor: "rgba(31,41,51,.06)" }] : [];
  const axis = (title) => ({ title: { text: title, font: { size: 12 } }, zeroline: false, gridcolor: "#eef1f4",
    tickfont: { size: 10, color: "#5f6b78" } });
  function layout() {
    const axes = root._fullLayout, first = root.dataset.projection === "umap" ? "UMAP 1" : "first component";
    const shown = { margin: { l: 44, r: 8, t: 8, b: 38 }, showlegend: false, hovermode: false,
      dragmode: document.getElementById("lasso").getAttribute("aria-pressed") === "true" ? "drawclosedpath" : "pan",
      xaxis: axis(first), yaxis: { ...axis(root.dataset.projection === "umap" ? "UMAP 2" : "second component"), scaleanchor: "x" },
      shapes: outline(), newshape: { line: { color: "#1f2933", width: 1.5 } }, font: { family: "inherit" } };
    const view = (query.get("view") || "").split(",").map(Number);
    if (axes && !axes.xaxis.autorange) [shown.xaxis.range, shown.yaxis.range] = [axes.xaxis.range, axes.yaxis.range];
    else if (!axes && view.length === 4 && view.every(Number.isFinite)) {
      [shown.xaxis.range, shown.yaxis.range] = [view.slice(0, 2), view.slice(2)];
    }
    return shown;
  }
  const options = { displayModeBar: false, scrollZoom: true, responsive: true, doubleClick: "reset" };
  const draw = () => Plotly.react(root, traces(), layout(), options);

  // a grid over the points, so that few are searched for the one under the pointer
  function buildGrid() {
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < n; i++) {
      if (x[i] < left) left = x[i];
      if (x[i] > right) right = x[i];
      if (y[i] < low) low = y[i];
      if (y[i] > high) high = y[i];
    }
    const wide = (right - left || 1) / GRID, tall = (high - low || 1) / GRID;
    const column = (v) => Math.min(GRID - 1, Math.max(0, Math.floor((v - left) / wide)));
    const row = (v) => Math.min(GRID - 1, Math.max(0, Math.floor((v - low) / tall)));
    const starts = new Uint32Array(GRID * GRID + 1), order = new Uint32Array(n), cell = new Uint32Array(n);
    for (let i = 0; i < n; i++) starts[(cell[i] = row(y[i]) * GRID + column(x[i])) + 1]++;
    for (let c = 0; c < GRID * GRID; c++) starts[c + 1] += starts[c];
    const next = starts.slice();
    for (let i = 0; i < n; i++) order[next[cell[i]]++] = i;
    return { column, row, starts, order };
  }
  function pointAt(event) {
    const axes = root._fullLayout, box = root.getBoundingClientRect();
    const px = event.clientX - box.left - axes.xaxis._offset, py = event.clientY - box.top - axes.yaxis._offset;
    if (px < 0 || py < 0 || px > axes.xaxis._length || py > axes.yaxis._length) return -1;
    grid ||= buildGrid();
    const [from, to] = [axes.xaxis.p2d(px - REACH), axes.xaxis.p2d(px + REACH)].map(grid.column);
    const [low, high] = [axes.yaxis.p2d(py + REACH), axes.yaxis.p2d(py - REACH)].map(grid.row);
    let best = -1, nearest = REACH * REACH;
    for (let r = low; r <= high; r++) {
      for (let k = grid.starts[r * GRID + from]; k < grid.starts[r * GRID + to + 1]; k++) {
        const i = grid.order[k];
        if (hidden.has(codes[i])) continue;
        const away = (axes.xaxis.d2p(x[i]) - px) ** 2 + (axes.yaxis.d2p(y[i]) - py) ** 2;
        if (away < nearest) [nearest, best] = [away, i];
      }
    }
    return best;
  }

  // descriptions of points
  const known = new Map(), labelOf = {};
  async function describe(wanted) {
    const missing = wanted.filter((i) => !known.has(i));
    for (let from = 0; from < missing.length; from += 32) {
      const some = missing.slice(from, from + 32);
      const points = await (await request("/map/points.json", { numbers: some.join(",") })).json();
      some.forEach((i, place) => known.set(i, points[place]));
    }
    return wanted.map((i) => known.get(i));
  }
  function figure(point) {
    const item = element("li"), inside = point.link ? element("a", "", { href: point.link }) : element("div");
    if (point.picture) inside.append(element("img", "", { src: point.picture, alt: `Cell: ${point.title}, ${point.where}` }));
    inside.append(element("span", point.title), element("span", point.mechanism));
    item.append(inside);
    return item;
  }
  let waiting = 0, over = -1;
  async function hover(event) {
    const i = pointAt(event);
    if (i === over) return;
    over = i;
    root.classList.toggle("over", i >= 0);
    clearTimeout(waiting);
    if (i < 0) { card.hidden = true; return; }
    const box = root.parentElement.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    waiting = setTimeout(async () => {
      try {
        const [point] = await describe([i]);
        if (i !== over) return;
        const shown = figure(point);
        shown.firstChild.append(element("span", point.where));
        card.replaceChildren(...shown.firstChild.childNodes);
        card.hidden = false;
        card.style.left = `${Math.max(0, Math.min(left + 14, box.width - card.offsetWidth))}px`;
        card.style.top = `${top + 14 + card.offsetHeight > box.height ? Math.max(0, top - card.offsetHeight - 10) : top + 14}px`;
      } catch (error) { report(error); }
    }, 40);
  }

  // the selection: its composition and some of its cells
  function inside(px, py) {
    let within = false;
    for (let i = 0, j = lasso.length - 1; i < lasso.length; j = i++) {
      const [xi, yi] = lasso[i], [xj, yj] = lasso[j];
      if (yi > py !== yj > py && px < ((xj - xi) * (py - yi)) / (yj - yi) + xi) within = !within;
    }
    return within;
  }
  function pointsInLasso() {
    const xs = lasso.map((at) => at[0]), ys = lasso.map((at) => at[1]), found = [];
    const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    for (let i = 0; i < n; i++) {
      if (x[i] < left || x[i] > right || y[i] < low || y[i] > high || hidden.has(codes[i])) continue;
      if (inside(x[i], y[i])) found.push(i);
    }
    return found;
  }
    async function show() {
    selectionBox.hidden = !selection;
    if (!selection) return;
    const total = selection.total ?? selection.numbers.length;
    selectionBox.querySelector("h2").textContent = `${selection.title}: ${formatted(total)} ${total === 1 ? root.dataset.of.slice(0, -1) : root.dataset.of}`;
    const counts = new Uint32Array(groups.length);
    for (const i of selection.numbers) counts[codes[i]]++;
    const rows = [...counts.keys()].filter((g) => counts[g]).sort((a, b) => counts[b] - counts[a]).slice(0, 12);
    const body = selectionBox.querySelector("tbody");
    body.replaceChildren(...rows.map((g) => {
      const row = element("tr"), share = (100 * counts[g]) / selection.numbers.length, of = (100 * counts[g]) / groups[g].count;
      row.append(element("th", groups[g].name, { scope: "row" }), element("td", formatted(counts[g]), { class: "number" }),
        element("td", `${share.toFixed(share < 10 ? 1 : 0)} %`, { class: "number" }),
        element("td", `${of.toFixed(of < 10 ? 1 : 0)} %`, { class: "number" }));
      return row;
    }));
    const partly = selection.numbers.length < total ? `Counted in ${formatted(selection.numbers.length)} of them. ` : "";
    const more = rows.length < counts.filter(Boolean).length ? "The twelve largest groups are listed. " : "";
    selectionBox.querySelector(".note").textContent = partly + more + (total ? `Below, ${total > GALLERY ? `${GALLERY} random ones` : "all"}.` : "No points: draw around some, or search for something else.");
    const save = document.getElementById("save"), chosen = selection.numbers.slice(0, MOST_MARKED);
    save.hidden = !chosen.length;
    save.href = `/map/selection.csv?${root.dataset.query}&numbers=${chosen.join(",")}`;
    save.textContent = `Save the ${chosen.length < total ? `first ${formatted(chosen.length)} points` : "selection"} (CSV)`;
    document.getElementById("compare").hidden = !chosen.length || chosen.length === n;
    document.getElementById("differs").textContent = "";
    const gallery = selectionBox.querySelector("ul.cells");
    const mine = selection;
    try {
      const points = await describe(selection.numbers.slice(0, GALLERY));
      if (mine === selection) gallery.replaceChildren(...points.map(figure));
    } catch (error) { report(error); }
  }
  async function select(next, around = []) {
    [selection, lasso] = [next, around];
    await draw();
    updateAddress();
    await show();
  }
  const selectGroup = (g) => {
    const found = [];
    for (let i = 0; i < n; i++) if (codes[i] === g) found.push(i);
    return select({ title: groups[g].name, numbers: found, group: g });
  };
  const selectLasso = (path) => {
    const step = Math.ceil(path.length / 60);
    lasso = path.filter((_, i) => i % step === 0);
    return select({ title: "In the lasso", numbers: pointsInLasso() }, lasso);
  };
  async function compare() {  // points come in random order, so the first are a random sample
    const answerBox = document.getElementById("differs"), mine = selection, within = new Set(selection.numbers), outside = [];
    for (let i = 0; i < n && outside.length < COMPARED; i++) if (!within.has(i) && !hidden.has(codes[i])) outside.push(i);
    if (!outside.length) { answerBox.textContent = "There are no other points."; return; }
    answerBox.textContent = "Measuring …";
    try {
      const found = await (await request("/map/differs.json", { inside: mine.numbers.slice(0, COMPARED).join(","), outside: outside.join(",") })).json();
      if (mine !== selection) return;
      const parts = found.map((one) => `${one.measure} (${one.change} s.d. of controls)`);
      answerBox.textContent = parts.length ? `A sample of the selection differs from a sample of the rest in ${parts.join("; ")}.`
        : "In a sample of cells, no measure differs from the rest beyond its 95 % interval.";
    } catch (error) { answerBox.textContent = error.message; }
  }
  async function find(text) {
    if (!text.trim()) return select(null);
    const answer = await (await request("/map/found.json", { text: text.slice(0, 200) })).json();
    return select({ title: `“${text}”`, numbers: answer.numbers, total: answer.n, find: text });
  }

  // the legend: a box to show or hide a group, its name to select it
  const SYMBOLS = { circle: "●", square: "■", diamond: "◆", "triangle-up": "▲", cross: "✚", x: "✖", star: "★", "triangle-down": "▼" };
  function list() {
    legend.replaceChildren(...groups.map((group, g) => {
      const item = element("li"), box = element("input", "", { type: "checkbox", "aria-label": `Show ${group.name}` });
      const symbol = element("span", SYMBOLS[n > MANY ? "circle" : group.symbol], { "aria-hidden": "true" });
      const button = element("button", `${group.name} `, { type: "button" });
      box.checked = !hidden.has(g);
      symbol.style.color = group.color;
      button.append(element("span", formatted(group.count), { class: "fine" }));
      box.addEventListener("change", () => {
        box.checked ? hidden.delete(g) : hidden.add(g);
        const own = root.data.flatMap((trace, place) => (trace.meta === g ? [place] : []));
        Plotly.restyle(root, { visible: box.checked }, own);
        updateAddress();
      });
      button.addEventListener("click", () => selectGroup(g));
      item.append(box, symbol, button);
      return item;
    }));
  }
  async function colour() {
    [codes, groups] = await Promise.all([numbers("/map/groups.bin", Uint16Array, { by }),
      request("/map/groups.json", { by }).then((answer) => answer.json())]);
    groups.forEach((group) => { group.color = group.colour; });
    hidden = new Set();
  }

  const press = (id, how) => document.getElementById(id).addEventListener("click", how);
  function zoom(times, right = 0, up = 0) {
    const { xaxis, yaxis } = root._fullLayout;
    const moved = ({ range: [low, high] }, shift) => {
      const middle = (low + high) / 2 + shift * (high - low), half = ((high - low) / 2) * times;
      return [middle - half, middle + half];
    };
    Plotly.relayout(root, { "xaxis.range": moved(xaxis, right), "yaxis.range": moved(yaxis, up) });
  }
  const whole = () => Plotly.relayout(root, { "xaxis.autorange": true, "yaxis.autorange": true });
  const KEYS = { "+": [0.7], "=": [0.7], "-": [1 / 0.7], ArrowLeft: [1, -0.15], ArrowRight: [1, 0.15], ArrowUp: [1, 0, 0.15],
    ArrowDown: [1, 0, -0.15] };
  function listen() {
    press("zoom-in", () => zoom(0.7));
    press("zoom-out", () => zoom(1 / 0.7));
    press("whole", whole);
    press("clear", () => select(null));
    press("compare", compare);
    for (const id of ["move", "lasso"]) {
      press(id, () => {
        for (const other of ["move", "lasso"]) document.getElementById(other).setAttribute("aria-pressed", other === id);
        Plotly.relayout(root, { dragmode: id === "lasso" ? "drawclosedpath" : "pan" });
      });
    }
    root.addEventListener("keydown", (event) => {
      if (event.key in KEYS) { zoom(...KEYS[event.key]); event.preventDefault(); }
      if (event.key === "0") whole();
    });
    root.addEventListener("pointermove", hover);
    root.addEventListener("pointerleave", () => { over = -1; card.hidden = true; clearTimeout(waiting); });
    root.addEventListener("click", async (event) => {
      const i = pointAt(event);
      if (i >= 0) await select({ title: "The point you clicked", numbers: [i] });
    });
    root.on("plotly_relayout", (change) => {
      if (change.shapes?.length > (lasso.length ? 1 : 0)) {
        const path = change.shapes.at(-1).path.slice(1, -1).split("L").map((at) => at.split(",").map(Number));
        selectLasso(path);
      } else updateAddress();
    });
    document.getElementById("by").addEventListener("change", async (event) => {
      by = event.target.value;
      try {
        if (selection?.group !== undefined) selection = null;
        await colour();
        list();
        await select(selection, lasso);
      } catch (error) { report(error); }
    });
    document.getElementById("search").addEventListener("submit", (event) => {
      event.preventDefault();
      find(document.getElementById("find").value).catch(report);
    });
    document.getElementById("names")?.addEventListener("change", async (event) => {
      names = event.target.checked;
      if (names) (await describe([...Array(n).keys()])).forEach((point, i) => { labelOf[i] = point.title; });
      draw();
    });
  }

  const painted = () => new Promise((go) => requestAnimationFrame(() => requestAnimationFrame(go)));  // resolves after the next frame
  const plotly = new Promise((go) => document.addEventListener("DOMContentLoaded", go));  // its script is loaded after this one
  async function begin() {
    const [places, about] = await Promise.all([numbers("/map/places.bin", Float32Array),
      request("/map/about.json").then((answer) => answer.json()), colour()]);
    [n, control] = [places.length / 2, about.control];
    [x, y] = [places.subarray(0, n), places.subarray(n)];
    const left = new Set(query.getAll("hide"));
    hidden = new Set(groups.flatMap((group, g) => (left.has(group.name) ? [g] : [])));
    await plotly;
    plotted = Math.min(n, AT_ONCE);
    await Plotly.newPlot(root, traces(), layout(), options);
    list();  // only now can its controls change the plot
    listen();
    if (plotted < n) {  // show a random sample at once, however slowly this browser draws
      status.textContent = `${formatted(plotted)} of ${formatted(n)} points are drawn, selected at random; the others follow …`;
      await painted();
      root.dataset.begun = plotted;
      plotted = n;
      await draw();
    }
    status.textContent = `${about.caption}${control ? " The cross is the control." : ""}`;
    status.className = "note";
    painted().then(() => { root.dataset.drawn = n; });
    const group = groups.findIndex((one) => one.name === query.get("group"));
    const around = (query.get("lasso") || "").split(" ").map((at) => at.split(",").map(Number));
    if (selection) return;  // made while the rest was drawn
    if (query.get("find")) await find(query.get("find"));
    else if (group >= 0) await selectGroup(group);
    else if (around.length > 2 && around.flat().every(Number.isFinite)) await selectLasso(around);
  }
  begin().catch(report);
})();
