"use strict";
// A click on a heading sorts the table by it, a second one the other way round.
for (const button of document.querySelectorAll(".sortable th button")) {
  button.addEventListener("click", () => {
    const heading = button.parentElement, row = heading.parentElement, body = heading.closest("table").tBodies[0];
    const place = heading.cellIndex, cell = (line) => line.cells[place], isNumber = body.querySelector(`td:nth-child(${place + 1}).number`);
    const down = heading.ariaSort ? heading.ariaSort === "ascending" : Boolean(isNumber);
    const value = (line) => (isNumber ? Number(cell(line).dataset.value ?? -Infinity) : cell(line).textContent);
    const order = (one, other) => (isNumber ? value(one) - value(other) : value(one).localeCompare(value(other)));
    for (const each of row.cells) each.removeAttribute("aria-sort");
    heading.ariaSort = down ? "descending" : "ascending";
    body.append(...[...body.rows].sort((one, other) => (down ? order(other, one) : order(one, other))));
  });
}
// A link to a table opens it.
const open = () => { const found = document.getElementById(location.hash.slice(1)); if (found?.tagName === "DETAILS") found.open = true; };
addEventListener("hashchange", open);
open();
