"use strict";
// The travel: a slider and a player over the frames in the page, the chart of measured change, and display settings.

(() => {
  const player = document.getElementById("player");
  if (!player) return;
  const now = document.getElementById("now"), caption = document.getElementById("caption");
  const slider = document.getElementById("frame"), play = document.getElementById("play");
  const form = document.querySelector("form.pictures"), chart = document.getElementById("chart");
  const frames = [...document.querySelectorAll("ol.film li")];
  const STEP_MS = 350, HOLD = 3;  // time per frame; for how many of them the last one stays
  let current = Number(player.dataset.frame), timer = 0, held = 0, drawn = false;  // frames are numbered from 1

  function show(number) {
    current = Math.max(1, Math.min(frames.length, number));
    const item = frames[current - 1];
    now.src = item.querySelector("img").src;
    now.alt = `Frame ${current} of ${frames.length}, decoded`;
    caption.textContent = item.querySelector("[data-caption]").textContent;
    const flag = item.querySelector("[data-flag]").textContent;
    if (flag) {
      const strong = document.createElement("strong");
      strong.className = "flag";
      strong.textContent = `⚠ ${flag}`;
      caption.append(document.createElement("br"), strong);
    }
    slider.value = current;
    frames.forEach((other) => other.classList.toggle("at", other === item));
    if (drawn) Plotly.relayout(chart, { "shapes[0].x0": current, "shapes[0].x1": current });
    const here = new URL(location.href);
    here.searchParams.set("frame", current);
    history.replaceState(null, "", here);
  }
  function pause() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "▶ Play";
    play.setAttribute("aria-pressed", "false");
  }
  function start() {
    play.textContent = "⏸ Pause";
    play.setAttribute("aria-pressed", "true");
    if (current === frames.length) show(1);
    timer = setInterval(() => {
      if (current < frames.length) show(current + 1);
      else if (++held >= HOLD) show(1);
      else return;
      held = 0;
    }, STEP_MS);
  }
  play.hidden = document.getElementById("slide").hidden = false;
  play.addEventListener("click", () => (timer ? pause() : start()));
  slider.addEventListener("input", () => { pause(); show(Number(slider.value)); });
  frames.forEach((item, index) => item.querySelector("[data-frame]").addEventListener("click", (event) => {
    event.preventDefault();
    pause();
    show(index + 1);
  }));

  async function draw() {
    const curves = JSON.parse(chart.dataset.curves), x = frames.map((_, index) => index + 1);
    const grid = { gridcolor: "#e6eaee", tickfont: { size: 11, color: "#5f6b78" }, fixedrange: true };
    const font = { size: 12, color: "#5f6b78" };
    await Plotly.newPlot(chart, curves.map((curve) => ({
      x, y: curve.change, name: curve.label, mode: "lines+markers", marker: { size: 5 },
      line: { color: curve.colour, width: 2.2, dash: curve.dash ? curve.dash.replaceAll(/(\d+)/g, "$1px") : "solid" },
      hovertemplate: "frame %{x}: %{y:+.1f} s.d.<extra></extra>",
    })), {
      margin: { l: 56, r: 8, t: 8, b: 40 }, showlegend: false, hovermode: "closest", font: { family: "inherit" },
      xaxis: { ...grid, title: { text: "frame", font }, tickmode: "linear", dtick: 1, showgrid: false, zeroline: false },
      yaxis: { ...grid, title: { text: "change, s.d. of controls", font }, zerolinecolor: "#8b949e" },
      shapes: [{ type: "line", x0: current, x1: current, y0: 0, y1: 1, yref: "paper",
        line: { color: "#1f2933", width: 1, dash: "dot" } }],
    }, { displayModeBar: false, responsive: true });
    drawn = true;
    show(current);
  }
  if (chart) document.addEventListener("DOMContentLoaded", draw);  // plotly is loaded after this script

  // channels and brightness: the same addresses with other settings
  form.querySelector("button").hidden = true;
  form.addEventListener("submit", (event) => event.preventDefault());
  let waiting = 0;
  form.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      const values = new FormData(form), channels = values.getAll("channels"), brightness = values.get("brightness");
      const all = form.querySelectorAll("[name=channels]").length;
      const changed = (address) => {
        const url = new URL(address, location.href);
        url.searchParams.delete("channels");
        if (channels.length < all) channels.forEach((name) => url.searchParams.append("channels", name));
        if (!channels.length) url.searchParams.append("channels", "");
        brightness === "100" ? url.searchParams.delete("brightness") : url.searchParams.set("brightness", brightness);
        return url;
      };
      document.querySelectorAll("img[data-picture]").forEach((image) => { image.src = changed(image.dataset.picture); });
      document.querySelectorAll("a[data-display]").forEach((link) => { link.href = changed(link.href); });
      const settings = [...changed("/travel").searchParams];  // the form for another travel keeps them
      document.getElementById("display").replaceChildren(...settings.map(([name, value]) => {
        const field = document.createElement("input");
        Object.assign(field, { type: "hidden", name, value });
        return field;
      }));
      now.src = frames[current - 1].querySelector("img").src;
      history.replaceState(null, "", changed(location.href));
    }, 120);
  });
  show(current);
})();
