// Two keys answer: R or left arrow "real", S or right arrow "synthetic". Without this script the buttons do the same.
"use strict";

const picture = document.getElementById("cell");
const says = document.getElementById("says");
const answers = document.getElementById("answers");
const buttons = {
  r: document.getElementById("real"),
  arrowleft: document.getElementById("real"),
  s: document.getElementById("synthetic"),
  arrowright: document.getElementById("synthetic"),
};
let sent = false;

// an answer before the cell can be seen would be a slip of the finger
const seen = () => picture.complete && picture.naturalWidth > 0;

const sayMissing = () => {
  says.textContent = "The picture did not come. Load the page again; your answers are kept.";
};
picture.addEventListener("error", sayMissing);
if (picture.complete && !seen()) {
  sayMissing(); // it failed before this script was there
}

answers.addEventListener("submit", (event) => {
  if (sent || !seen()) {
    event.preventDefault();
  } else {
    sent = true;
  }
});

document.addEventListener("keydown", (event) => {
  const button = buttons[event.key.toLowerCase()];
  if (!button || event.repeat || event.ctrlKey || event.metaKey || event.altKey) {
    return;
  }
  event.preventDefault();
  button.click();
});

// a page that comes back from the browser's memory shows a cell that is answered
window.addEventListener("pageshow", (event) => {
  if (event.persisted) {
    window.location.reload();
  }
});
