"use strict";
// The review of events, one after the other; its answers as a table, and from one.

/** Draw a number from a text, the same in every browser: FNV-1a, its bits mixed as MurmurHash3 ends. */
function draw(text) {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}

const GROUPS = {
  top: () => "",
  random: () => "",
  bands: (event) => 9 - Math.min(9, Math.floor(event.confidence * 10)),
  days: (event) => `${event.recording.site}|${event.clock.slice(0, 10) || event.recording.name}`,
};

/** Take events of each group in turn; groups and events in an order that depends on the seed and on them alone. */
function sample(pool, strategy, size, seed) {
  const groups = new Map();
  for (const event of pool) {
    const group = `${event.species.label}|${GROUPS[strategy](event)}`;
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push({ event, drawn: draw(`${seed}|${event.key}`) });
  }
  const order = (a, b) => (strategy === "top" ? b.event.confidence - a.event.confidence : 0) || a.drawn - b.drawn;
  const rows = [...groups].map(([group, members]) => ({
    drawn: draw(`${seed}|${group}`),
    members: members.sort(order),
  }));
  rows.sort((a, b) => a.drawn - b.drawn);
  const taken = [];
  for (let turn = 0; taken.length < Math.min(size, pool.length); turn++) {
    taken.push(...rows.filter((row) => turn < row.members.length).map((row) => row.members[turn].event));
  }
  return taken.slice(0, size);
}

const queue = { events: [], at: 0 };

function openReview() {
  stop();
  const options = [all, ...species].map((one) =>
    make("option", { value: one.label }, `${one.name} (${one.events.length})`),
  );
  $("queue-scope").replaceChildren(...options);
  $("queue-scope").value = shown.species.label;
  showPart("queue");
  $("review").showModal();
}

function showPart(part) {
  for (const id of ["queue", "reviewing", "reviewed"]) $(id).hidden = id !== part;
}

function startReview(submitted) {
  submitted.preventDefault();
  const one = [all, ...species].find((each) => each.label === $("queue-scope").value);
  const [size, seed] = [Number($("queue-size").value), Number($("queue-seed").value)];
  queue.events = sample(one.events, $("queue-strategy").value, size, seed);
  queue.at = -1;
  $("review").classList.toggle("blind", $("queue-blind").checked);
  step(1);
}

/** Go to the next event without an answer, or back to the one before. */
function step(by) {
  let at = queue.at + by;
  while (by > 0 && at < queue.events.length && answers.has(queue.events[at])) at++;
  if (at < 0) return;
  stop();
  queue.at = Math.min(at, queue.events.length);
  if (queue.at === queue.events.length) {
    endReview();
    return;
  }
  showPart("reviewing");
  const event = queue.events[queue.at];
  const card = makeCard(event, true);
  $("review-event").replaceChildren(card);
  const done = queue.events.filter((each) => answers.has(each)).length;
  $("review-title").textContent = `Review: ${queue.at + 1} of ${queue.events.length}`;
  $("review-progress").max = queue.events.length;
  $("review-progress").value = done;
  $("previous").disabled = !queue.at;
  $("review-status").textContent = `${event.species.name}, ${queue.at + 1} of ${queue.events.length}`;
  card.focus();
  play(card, event);
}

function endReview() {
  const given = queue.events.map((event) => answers.get(event)?.answer);
  const counts = Object.keys(ANSWERS).map((value) => `${given.filter((each) => each === value).length} ${value}`);
  const open = given.filter((each) => !each).length;
  $("review-title").textContent = "Reviewed";
  $("review-summary").textContent =
    `${number(queue.events.length, "event")}: ${counts.join(", ")}${open ? `, ${open} without an answer` : ""}.`;
  showPart("reviewed");
  $("export-reviewed").focus();
}

// ---- export and import ----

const COLUMNS = [
  "recording",
  "file",
  "start",
  "end",
  "label",
  "confidence",
  "verdict",
  "reviewed",
  "scientific_name",
  "common_name",
  "clock",
  "site",
];
const quoted = (cell) => (/[",\r\n]/.test(cell) ? `"${String(cell).replaceAll('"', '""')}"` : cell);

function reviewsTable() {
  const rows = events
    .filter((event) => answers.has(event))
    .map((event) => {
      const { answer: value, when } = answers.get(event);
      const { recording, species: one } = event;
      return [
        recording.name,
        recording.file,
        event.start,
        event.end,
        one.label,
        event.confidence,
        value,
        when,
        one.scientific,
        one.common,
        event.clock,
        recording.site,
      ];
    });
  return [COLUMNS, ...rows].map((row) => row.map(quoted).join(",") + "\n").join("");
}

function exportReviews() {
  const link = make("a", {
    download: "reviews.csv",
    href: URL.createObjectURL(new Blob([reviewsTable()], { type: "text/csv" })),
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}

function parseTable(text) {
  const separator = text.split("\n", 1)[0].includes(",") ? "," : ";";
  const cell = new RegExp(`(?:"((?:[^"]|"")*)"|([^${separator}\\r\\n]*))(${separator}|\\r?\\n|$)`, "g");
  const rows = [[]];
  for (const [, inQuotes, plain, end] of text.replace(/^\ufeff/, "").matchAll(cell)) {
    rows.at(-1).push(inQuotes === undefined ? plain : inQuotes.replaceAll('""', '"'));
    if (end !== separator) rows.push([]);
  }
  return rows;
}

async function importReviews() {
  const file = $("import").files[0];
  if (!file) return;
  const [header, ...rows] = parseTable(await file.text());
  $("import").value = "";
  const columns = ["recording", "start", "label", "verdict", "reviewed"].map((name) => header.indexOf(name));
  if (columns.slice(0, 4).includes(-1)) {
    warn(`${file.name} is no table of reviews: it needs the columns recording, start, label and verdict.`);
    return;
  }
  const known = new Map(
    events.map((event) => [[event.recording.name, event.start, event.species.label].join("|"), event]),
  );
  let taken = 0;
  for (const row of rows) {
    const [name, start, label, value, when] = columns.map((column) => row[column]);
    const event = known.get([name, Number(start), label].join("|"));
    if (!event || !(value in ANSWERS)) continue;
    setAnswer(event, value, when || undefined);
    taken++;
  }
  warn(`${number(taken, "review")} of ${file.name} taken.`);
  render();
}
