"use strict";

// Tables: a press on a column's title sorts by it, a second press turns the order. Cells without a value stay last.
for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => {
    const header = button.closest("th");
    const body = header.closest("table").tBodies[0];
    const column = header.cellIndex;
    const isText = header.hasAttribute("data-text");
    const before = header.getAttribute("aria-sort");
    const rises = before ? before === "descending" : isText;
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", rises ? "ascending" : "descending");
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const compare = (a, b) => isText ? a.localeCompare(b, "en") : Number(a) - Number(b);
    const rows = [...body.rows].sort((one, other) => {
      const [a, b] = [value(one), value(other)];
      if (a === "" || b === "") return (a === "") - (b === "");
      return rises ? compare(a, b) : compare(b, a);
    });
    body.append(...rows);
  });
}

// Sound: the spectrogram is the button; a line runs over it. One cut plays at a time, at the chosen speed.
const speeds = [...document.querySelectorAll("input[name=speed]")];
let playing = null;

function setSpeed(audio) {
  audio.preservesPitch = false; // a call of 20 Hz shall rise into hearing
  audio.webkitPreservesPitch = false;
  audio.playbackRate = Number(speeds.find(speed => speed.checked).value);
}

for (const button of document.querySelectorAll("button.play")) {
  const audio = button.parentElement.querySelector("audio");
  const follow = () => {
    button.style.setProperty("--at", `${100 * audio.currentTime / (audio.duration || 1)}%`);
    if (!audio.paused) requestAnimationFrame(follow);
  };
  button.addEventListener("click", () => {
    if (!audio.paused) return audio.pause();
    playing?.pause();
    playing = audio;
    setSpeed(audio);
    audio.play();
  });
  audio.addEventListener("play", () => { button.setAttribute("aria-pressed", "true"); follow(); });
  audio.addEventListener("pause", () => button.setAttribute("aria-pressed", "false"));
}

for (const speed of speeds) speed.addEventListener("change", () => { if (playing) setSpeed(playing); });
