// Keys that answer: left arrow for "real", right arrow for "synthetic"; no letters, which people who dictate would
// press by accident (WCAG 2.1.4). The buttons work without this script.
"use strict";

const picture = document.getElementById("cell");
const message = document.getElementById("status");
const answers = document.getElementById("answers");
const buttons = {
  ArrowLeft: document.getElementById("real"),
  ArrowRight: document.getElementById("synthetic"),
};
let sent = false;

// an answer before the cell is visible would be accidental
const visible = () => picture.complete && picture.naturalWidth > 0;

const reportMissing = () => {
  message.textContent = "The picture did not load. Reload the page; your answers are kept.";
};
picture.addEventListener("error", reportMissing);
if (picture.complete && !visible()) {
  reportMissing(); // it failed before this script ran
}

answers.addEventListener("submit", (event) => {
  if (sent || !visible()) {
    event.preventDefault();
  } else {
    sent = true;
  }
});

document.addEventListener("keydown", (event) => {
  const button = buttons[event.key];
  if (!button || event.repeat || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  event.preventDefault();
  button.click();
});

// a page restored from the browser's cache shows a cell that is already answered
window.addEventListener("pageshow", (event) => {
  if (event.persisted) {
    window.location.reload();
  }
});
