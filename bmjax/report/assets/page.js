"use strict";
for (const panel of document.querySelectorAll(".case")) {
  for (const button of panel.querySelectorAll("button[data-hide]")) {
    button.addEventListener("click", () => {
      const hidden = panel.classList.toggle("hide-" + button.dataset.hide);
      button.setAttribute("aria-pressed", String(!hidden));
      panel.dispatchEvent(new Event("shown"));
    });
  }
  const zoom = panel.querySelector(".zoom");
  const pictures = panel.querySelectorAll(".panels svg");
  const toggle = () => {
    const near = panel.classList.toggle("near");
    zoom.setAttribute("aria-pressed", String(near));
    zoom.textContent = near ? "whole brain" : "zoom to lesion";
    for (const picture of pictures) {
      picture.dataset.whole ??= picture.getAttribute("viewBox");
      picture.setAttribute("viewBox", near ? picture.dataset.near : picture.dataset.whole);
    }
  };
  zoom?.addEventListener("click", toggle);
  for (const picture of pictures) picture.addEventListener("click", toggle);
}
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  heads.forEach((head, column) => head.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") !== "descending";
    const key = (row) => row.cells[column].textContent.trim().replace("\u2212", "-");
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [parseFloat(key(a)), parseFloat(key(b))];
      const byNumber = Number.isNaN(x) || Number.isNaN(y) ? NaN : x - y;
      const order = Number.isNaN(byNumber) ? key(a).localeCompare(key(b)) : byNumber;
      return down ? -order : order;
    });
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    table.tBodies[0].append(...rows);
  }));
}
