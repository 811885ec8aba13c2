"use strict";
// The travel: a slider and play over frames that are in the page already; channels and brightness ask for them anew.

(() => {
  const player = document.getElementById("player");
  if (!player) return;
  const now = document.getElementById("now"), words = document.getElementById("words");
  const slider = document.getElementById("frame"), play = document.getElementById("play");
  const cursor = document.getElementById("cursor"), form = document.querySelector("form.pictures");
  const frames = [...document.querySelectorAll("ol.film li")];
  const STEP_MS = 350, HOLD = 3;  // a frame's time; how many of them the ends stand still
  let at = Number(player.dataset.frame), timer = 0, still = 0;

  function go(number) {
    at = Math.max(0, Math.min(frames.length - 1, number));
    const item = frames[at];
    now.src = item.querySelector("img").src;
    now.alt = `Frame ${at + 1} of ${frames.length}, decoded`;
    words.textContent = item.querySelector("[data-words]").textContent;
    const flag = item.querySelector("[data-flag]").textContent;
    if (flag) {
      const strong = document.createElement("strong");
      strong.className = "flag";
      strong.textContent = `⚠ ${flag}`;
      words.append(document.createElement("br"), strong);
    }
    slider.value = at + 1;
    frames.forEach((other) => other.classList.toggle("at", other === item));
    if (cursor) {
      const x = cursor.dataset.x.split(",")[at];
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
    }
    const here = new URL(location.href);
    here.searchParams.set("frame", at);
    history.replaceState(null, "", here);
  }
  function stop() {
    clearInterval(timer);
    timer = 0;
    play.textContent = "▶ Play";
    play.setAttribute("aria-pressed", "false");
  }
  function start() {
    play.textContent = "⏸ Pause";
    play.setAttribute("aria-pressed", "true");
    if (at === frames.length - 1) go(0);
    timer = setInterval(() => {
      if (at === frames.length - 1) {
        if (++still < HOLD) return;
        go(0);
      } else go(at + 1);
      still = 0;
    }, STEP_MS);
  }
  play.hidden = document.getElementById("slide").hidden = false;
  play.addEventListener("click", () => (timer ? stop() : start()));
  slider.addEventListener("input", () => { stop(); go(Number(slider.value) - 1); });
  frames.forEach((item, number) => item.querySelector("[data-go]").addEventListener("click", (event) => {
    event.preventDefault();
    stop();
    go(number);
  }));

  // how pictures are shown: the same addresses with other channels or brightness
  form.querySelector("button").hidden = true;
  form.addEventListener("submit", (event) => event.preventDefault());
  let asking = 0;
  form.addEventListener("input", () => {
    clearTimeout(asking);
    asking = setTimeout(() => {
      const given = new FormData(form), channels = given.getAll("channels");
      const all = form.querySelectorAll("[name=channels]").length;
      const changed = (address) => {
        const url = new URL(address, location.href);
        url.searchParams.delete("channels");
        if (channels.length < all) channels.forEach((name) => url.searchParams.append("channels", name));
        if (!channels.length) url.searchParams.append("channels", "");
        given.get("bright") === "100" ? url.searchParams.delete("bright") : url.searchParams.set("bright", given.get("bright"));
        return url;
      };
      document.querySelectorAll("img[data-picture]").forEach((image) => { image.src = changed(image.dataset.picture); });
      document.querySelectorAll("a[data-shown]").forEach((link) => { link.href = changed(link.href); });
      const said = [...changed("/travel").searchParams];  // goes along with another travel
      document.getElementById("shown").replaceChildren(...said.map(([name, value]) => {
        const field = document.createElement("input");
        Object.assign(field, { type: "hidden", name, value });
        return field;
      }));
      now.src = frames[at].querySelector("img").src;
      history.replaceState(null, "", changed(location.href));
    }, 120);
  });
  go(at);
})();
