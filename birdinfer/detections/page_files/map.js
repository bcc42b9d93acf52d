"use strict";
// The map of the day: a row for each date, a column for each hour, a square whose area shows how many events.

const map = { counts: new Map(), effort: new Map(), cursor: 0 };
for (let i = 0; i < DETECTIONS.effort.length; i += 2) map.effort.set(DETECTIONS.effort[i], DETECTIONS.effort[i + 1]);

function drawMap(one) {
  $("map-figure").hidden = !DETECTIONS.dates.length;
  if (!DETECTIONS.dates.length) return;
  map.counts = new Map();
  for (const each of one === all ? species : [one]) {
    for (let i = 0; i < each.cells.length; i += 2) {
      map.counts.set(each.cells[i], (map.counts.get(each.cells[i]) || 0) + each.cells[i + 1]);
    }
  }
  const [left, top] = [52, 16];
  const width = Math.max(8, Math.min(26, Math.floor(($("map").clientWidth - left - 2) / 24)));
  const height = DETECTIONS.dates.length > 200 ? 6 : DETECTIONS.dates.length > 60 ? 9 : 17;
  const most = Math.max(1, ...map.counts.values());
  const svg = (tag, attributes, text = "") => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.textContent = text;
    return element;
  };
  const size = { width: left + 24 * width + 2, height: top + DETECTIONS.dates.length * height + 2 };
  const root = svg("svg", { ...size, tabindex: 0, role: "application", "aria-roledescription": "map of the day" });
  root.setAttribute("aria-label", "Events by hour and date. Arrow keys move, Enter shows the events of an hour.");
  for (let hour = 0; hour <= 24; hour += 6) {
    const x = left + hour * width;
    root.append(svg("line", { x1: x, x2: x, y1: top, y2: size.height, class: "grid" }));
    root.append(svg("text", { x, y: 11, "text-anchor": hour === 24 ? "end" : "start" }, hour === 24 ? "h" : hour));
  }
  const every = Math.ceil(13 / height);
  DETECTIONS.dates.forEach((date, row) => {
    const text = day(date).split(" ").slice(0, 2).join(" ");
    if (row % every === 0) root.append(svg("text", { x: 0, y: top + row * height + Math.min(13, height + 3) }, text));
  });
  const centre = (cell) => [left + (cell % 24) * width + width / 2, top + Math.floor(cell / 24) * height + height / 2];
  for (const cell of map.effort.keys()) {
    const [cx, cy] = centre(cell);
    if (!map.counts.has(cell)) root.append(svg("circle", { cx, cy, r: 1.2, class: "effort" }));
  }
  for (const [cell, count] of map.counts) {
    const [cx, cy] = centre(cell);
    const share = Math.max(0.25, Math.sqrt(count / most)); // the area shows the count
    const [w, h] = [share * (width - 2), share * (height - 2)];
    root.append(svg("rect", { x: cx - w / 2, y: cy - h / 2, width: w, height: h, class: "count" }));
  }
  const cursor = svg("rect", { width: width, height: height, class: "cursor", visibility: "hidden" });
  root.append(cursor);
  const point = (cell) => {
    map.cursor = Math.min(Math.max(0, cell), 24 * DETECTIONS.dates.length - 1);
    const [cx, cy] = centre(map.cursor);
    cursor.setAttribute("x", cx - width / 2);
    cursor.setAttribute("y", cy - height / 2);
    cursor.setAttribute("visibility", "visible");
    const [count, minutes] = [map.counts.get(map.cursor) || 0, map.effort.get(map.cursor) || 0];
    const recorded = minutes ? `${number(count, "event")} in ${minutes} min` : "not recorded";
    $("map-reading").textContent =
      `${day(DETECTIONS.dates[Math.floor(map.cursor / 24)])}, ${map.cursor % 24} to ${(map.cursor % 24) + 1} h: ${recorded}`;
  };
  const cellAt = ({ clientX, clientY }) => {
    const box = root.getBoundingClientRect();
    const [column, row] = [
      Math.floor((clientX - box.left - left) / width),
      Math.floor((clientY - box.top - top) / height),
    ];
    return column >= 0 && column < 24 && row >= 0 && row < DETECTIONS.dates.length ? row * 24 + column : null;
  };
  const choose = () => {
    const cell = `${DETECTIONS.dates[Math.floor(map.cursor / 24)]}T${String(map.cursor % 24).padStart(2, "0")}`;
    shown.cell = shown.cell === cell ? null : cell;
    render();
  };
  root.addEventListener("pointermove", (event) => cellAt(event) !== null && point(cellAt(event)));
  root.addEventListener("click", (event) => {
    if (cellAt(event) === null) return;
    point(cellAt(event));
    choose();
  });
  root.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -24, ArrowDown: 24 }[event.key];
    if (move) point(map.cursor + move);
    else if (event.key === "Enter") choose();
    else return;
    event.preventDefault();
  });
  $("map").replaceChildren(root);
  $("map-reading").textContent = "";
}
