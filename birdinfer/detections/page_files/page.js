"use strict";
// Shows the detections of events.js, plays them, and collects answers: right, wrong, unsure. Nothing is sent anywhere.
// All text of the data goes into the page as text, never as HTML. Clock times are text, too: a recorder's clock does not
// become the reader's.

const data = DETECTIONS;
const PER_PAGE = 48;
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const ANSWERS = { right: "✓ Right", wrong: "✗ Wrong", unsure: "? Unsure" };
const KEYS = { r: "right", 1: "right", w: "wrong", 2: "wrong", u: "unsure", 3: "unsure", Backspace: "", Delete: "" };

const $ = (id) => document.getElementById(id);
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const number = (count, one, many = one + "s") => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** Make an element: properties whose names have "-" and those of SVG become attributes. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element && !name.includes("-")) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

// ---- the data ----

const species = data.species.map((each) => ({
  ...each,
  events: [],
  name: each.common || each.scientific || each.label,
}));
const events = data.events.start.map((start, id) => {
  const event = { id, start };
  for (const column of ["end", "confidence", "clock", "clip"]) event[column] = data.events[column][id];
  event.species = species[data.events.species[id]];
  event.recording = data.recordings[data.events.recording[id]];
  event.key = ["birdinfer", event.recording.name, start, event.end, event.species.label, event.confidence].join("|");
  event.species.events.push(event);
  return event;
});
const all = { label: "", name: "All species", scientific: "", events, count: data.totals.events };
for (const each of species) each.highest = each.events.reduce((high, event) => Math.max(high, event.confidence), 0);

function day(date) {
  return `${Number(date.slice(8, 10))} ${MONTHS[Number(date.slice(5, 7)) - 1]} ${date.slice(0, 4)}`;
}

function clock(event) {
  return event.clock ? `${day(event.clock)}, ${event.clock.slice(11, 19)} ${event.clock.slice(23)}`.trim() : "";
}

function position(seconds) {
  const tenths = Math.round(seconds * 10);
  const [hours, minutes] = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60];
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}

// ---- answers: one entry for each event in the browser's store, so that tabs do not overwrite each other ----

const answers = new Map();

function readAnswers() {
  for (const event of events) {
    const [answer, when] = (localStorage.getItem(event.key) || "").split(" ");
    if (answer in ANSWERS) answers.set(event, { answer, when });
    else answers.delete(event);
  }
}

function setAnswer(event, answer, when = new Date().toISOString().slice(0, 19) + "Z") {
  if (answer) answers.set(event, { answer, when });
  else answers.delete(event);
  try {
    if (answer) localStorage.setItem(event.key, `${answer} ${when}`);
    else localStorage.removeItem(event.key);
  } catch {
    warn(
      "The browser keeps no answers of this page (private window, or its store is full): export them before you close it.",
    );
  }
}

/** Give an event an answer, "" for none; in a review go to the next. */
function answer(event, value) {
  setAnswer(event, value);
  showAnswers(event);
  if (value && $("review").open) step(1);
}

function showAnswers(event) {
  const given = answers.get(event)?.answer;
  for (const card of document.querySelectorAll(`[data-event="${event.id}"]`)) {
    for (const button of card.querySelectorAll("[data-answer]")) {
      button.setAttribute("aria-pressed", String(button.dataset.answer === given));
    }
  }
  showCounts();
}

function warn(text) {
  $("warning").textContent = text;
  $("warning").hidden = false;
}

// ---- the player: one for the page ----

const player = new Audio();
let playing = null;

function play(card, event, seconds = 0) {
  stop();
  if (typeof event.clip === "string") return;
  playing = { card, event };
  player.src = `page/sound/${event.id}.${data.sound}`;
  player.currentTime = seconds;
  player.play().catch((error) => {
    if (error.name !== "AbortError") stop(`This sound cannot be played: page/sound/${event.id}.${data.sound}`);
  });
  card.querySelector(".play").textContent = "■";
  card.querySelector(".play").setAttribute("aria-label", "Stop");
  const [playhead, own] = [card.querySelector(".playhead"), playing];
  const move = () => {
    if (playing !== own) return;
    playhead.style.left = `${Math.min(100, (100 * player.currentTime) / (event.clip[1] - event.clip[0]))}%`;
    requestAnimationFrame(move);
  };
  playhead.hidden = false;
  move();
}

function stop(problem = "") {
  if (problem) warn(problem);
  player.pause();
  if (!playing) return;
  const button = playing.card.querySelector(".play");
  button.textContent = "▶";
  button.setAttribute("aria-label", "Play");
  playing.card.querySelector(".playhead").hidden = true;
  playing = null;
}

function toggle(card, event) {
  if (playing?.card === card) stop();
  else play(card, event);
}

player.addEventListener("ended", () => stop());

// ---- an event ----

const WITHOUT_SOUND = { speech: "not cut: there is speech", unreadable: "not cut: the recording cannot be read" };

function picture(event) {
  if (typeof event.clip === "string") {
    return make("div", { className: "picture" }, make("p", { className: "nothing" }, WITHOUT_SOUND[event.clip]));
  }
  const [begin, end] = event.clip;
  const share = (seconds) => `${(100 * seconds) / (end - begin)}%`;
  const image = make("img", {
    alt: `Spectrogram of ${(end - begin).toFixed(1)} s, the event from ${Math.max(0, event.start - begin).toFixed(1)} s`,
    loading: "lazy",
    decoding: "async",
    src: `page/picture/${event.id}.png`, // the last: with it an image that is not lazy would load
  });
  const box = make("div", { className: "picture" }, image);
  for (const [side, seconds] of [
    ["before", event.start - begin],
    ["after", end - event.end],
  ]) {
    if (seconds > 0) box.append(make("span", { className: `outside ${side}`, style: `width: ${share(seconds)}` }));
  }
  for (const [khz, height] of data.khz) {
    box.append(make("small", { className: "hz", style: `bottom: ${100 * height}%` }, `${khz} kHz`));
  }
  box.append(
    make("i", { className: "playhead", hidden: true }),
    make("button", { className: "play", type: "button", "aria-label": "Play" }, "▶"),
  );
  return box;
}

function names(one) {
  const parts = [one.name];
  if (one.scientific && one.scientific !== one.name) parts.push(" ", make("i", {}, one.scientific));
  return parts;
}

function makeCard(event, withName) {
  const facts = make("div", { className: "facts" });
  if (withName) facts.append(make("p", { className: "who" }, ...names(event.species)));
  const isPart = typeof event.clip !== "string" && event.clip[1] - event.clip[0] < event.end - event.start - 0.05;
  const part = isPart ? `; here ${event.clip.map(position).join(" to ")}` : "";
  const bar = make("span", { "aria-hidden": "true" }, make("b", { style: `width: ${100 * event.confidence}%` }));
  facts.append(
    make("p", { className: "confidence", title: capital(data.measure) }, event.confidence.toFixed(3), bar),
    make("p", {}, [clock(event), event.recording.site].filter(Boolean).join(" · ")),
    make(
      "p",
      { className: "file quiet" },
      `${position(event.start)} to ${position(event.end)} in ${event.recording.file}${part}`,
    ),
  );
  const buttons = Object.entries(ANSWERS).map(([value, text]) =>
    make(
      "button",
      { type: "button", "data-answer": value, "aria-pressed": String(answers.get(event)?.answer === value) },
      text,
      " ",
      make("kbd", { "aria-hidden": "true" }, value[0].toUpperCase()),
    ),
  );
  const label = `${event.species.name}, ${clock(event) || event.recording.file}`;
  const card = make(
    "article",
    { className: "event", tabIndex: -1, "data-event": event.id, "aria-label": label },
    picture(event),
    facts,
    make("div", { className: "answers", role: "group", "aria-label": "Is it right?" }, ...buttons),
  );
  card.addEventListener("click", ({ target, clientX }) => {
    const value = target.closest("[data-answer]")?.dataset.answer;
    if (value) answer(event, answers.get(event)?.answer === value && !$("review").open ? "" : value);
    else if (target.className === "play") toggle(card, event);
    else if (target.tagName === "IMG") {
      const box = target.getBoundingClientRect();
      play(card, event, ((clientX - box.left) / box.width) * (event.clip[1] - event.clip[0]));
    }
  });
  return card;
}

// ---- the list ----

const shown = { species: all, cell: null, events: [], count: 0 };
const SORTS = {
  high: (a, b) => b.confidence - a.confidence || a.id - b.id,
  low: (a, b) => a.confidence - b.confidence || a.id - b.id,
  time: (a, b) => compare(a.clock, b.clock) || a.id - b.id,
  site: (a, b) => compare(a.recording.site, b.recording.site) || compare(a.clock, b.clock) || a.id - b.id,
};
const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

function render() {
  stop();
  const [least, site, state] = [Number($("least").value), $("site").value, $("state").value];
  $("least-shown").textContent = least.toFixed(2);
  shown.events = shown.species.events.filter(
    (event) =>
      event.confidence >= least &&
      (!site || event.recording.site === site) &&
      (!state || (answers.get(event)?.answer || "none") === state) &&
      (!shown.cell || event.clock.startsWith(shown.cell)),
  );
  shown.events.sort(SORTS[$("sort").value]);
  $("list").replaceChildren();
  shown.count = 0;
  showMore();
  $("cell").hidden = !shown.cell;
  if (shown.cell) $("cell").textContent = `${day(shown.cell)}, ${shown.cell.slice(11)} h ✕`;
  showCounts();
}

function showMore() {
  const more = shown.events.slice(shown.count, shown.count + PER_PAGE);
  $("list").append(...more.map((event) => makeCard(event, shown.species === all)));
  shown.count += more.length;
  $("more").hidden = shown.count >= shown.events.length;
}

function showCounts() {
  const left = shown.species.events.filter((event) => !answers.has(event)).length;
  const [here, of] = [shown.events.length, shown.species.events.length];
  $("count").textContent =
    `${number(here, "event")}${here < of ? ` of ${of.toLocaleString("en")}` : ""}, ${of - left} reviewed`;
  for (const button of $("species").querySelectorAll("button")) {
    const one = button.species;
    const done = one.events.filter((event) => answers.has(event)).length;
    button.querySelector(".done").textContent = done ? `${done} reviewed` : "";
  }
}

function showSpecies(one) {
  shown.species = one;
  shown.cell = null;
  $("name").replaceChildren(...names(one));
  const sample =
    one.events.length < one.count ? `, ${one.events.length.toLocaleString("en")} of them on this page` : "";
  const label = one.label && one.label !== one.name ? `${one.label} · ` : "";
  $("about").textContent = `${label}${number(one.count, "event")}${sample}`;
  $("chosen-species").textContent = `${one.name} (${one.count.toLocaleString("en")})`;
  for (const button of $("species").querySelectorAll("button")) {
    button.setAttribute("aria-current", String(button.species === one));
  }
  drawMap(one);
  render();
}

function listSpecies() {
  const wanted = $("find-species").value.trim().toLowerCase();
  const orders = {
    count: (a, b) => b.count - a.count,
    confidence: (a, b) => b.highest - a.highest,
    name: (a, b) => a.name.localeCompare(b.name),
  };
  const matching = species
    .filter((one) => [one.name, one.scientific, one.label].some((text) => text.toLowerCase().includes(wanted)))
    .sort((a, b) => orders[$("sort-species").value](a, b) || a.name.localeCompare(b.name));
  const items = (wanted ? matching : [all, ...matching]).map((one) => {
    const button = make(
      "button",
      { type: "button", "aria-current": String(one === shown.species) },
      make("span", {}, one.name),
      make("span", { className: "number" }, one.count.toLocaleString("en")),
      make("i", {}, one.scientific !== one.name ? one.scientific : ""),
      make("small", { className: "done" }),
    );
    button.species = one;
    return make("li", {}, button);
  });
  $("species").replaceChildren(...items);
  showCounts();
}

// ---- keys ----

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, svg")) return;
  const isReview = $("review").open;
  if (isReview && $("reviewing").hidden) return;
  const card = isReview ? $("review-event").firstElementChild : document.activeElement.closest("#list .event");
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (!isReview && key === "v") openReview();
  else if (!card && key === "j") $("list").firstElementChild?.focus();
  else if (!card || (key === " " && event.target.closest("button"))) return;
  else if (key === " " || key === "p") toggle(card, events[card.dataset.event]);
  else if (key in KEYS) answer(events[card.dataset.event], KEYS[key]);
  else if (isReview && (key === "ArrowRight" || key === "j")) step(1);
  else if (isReview && (key === "ArrowLeft" || key === "k")) step(-1);
  else if (key === "j" || key === "k") {
    if (key === "j" && !card.nextElementSibling) showMore();
    (key === "j" ? card.nextElementSibling : card.previousElementSibling)?.focus();
  } else return;
  event.preventDefault();
}

// ---- start ----

function nameMeasure() {
  for (const place of document.querySelectorAll("label, option")) {
    for (const text of place.childNodes) {
      if (text.nodeType === Node.TEXT_NODE) {
        text.data = text.data.replace("confidence", data.measure).replace("Confidence", capital(data.measure));
      }
    }
  }
}

function begin() {
  const { totals } = data;
  nameMeasure();
  document.title = $("title").textContent = data.title;
  const period = data.dates.length ? [data.dates[0], data.dates.at(-1)].map(day) : [];
  const parts = [
    number(totals.events, "event"),
    number(species.length, "species", "species"),
    number(totals.recordings, "recording"),
    totals.seconds < 3600
      ? `${Math.round(totals.seconds / 60)} min`
      : `${Math.round(totals.seconds / 3600).toLocaleString("en")} h`,
    [...new Set(period)].join(" to "),
    data.bundle && `bundle ${data.bundle}`,
  ];
  $("totals").textContent = parts.filter(Boolean).join(" · ");
  const sites = [...new Set(data.recordings.map((each) => each.site))].filter(Boolean).sort();
  $("site").append(...sites.map((site) => make("option", { value: site }, site)));
  $("site").parentElement.hidden = !sites.length;
  try {
    readAnswers();
  } catch {
    warn("This browser keeps no answers of this page: export them before you close it.");
  }
  const wide = matchMedia("(min-width: 821px)");
  const fold = () => ($("species-panel").open = wide.matches);
  wide.addEventListener("change", fold);
  fold();
  listSpecies();
  showSpecies(species.length === 1 ? species[0] : all);

  $("species").addEventListener("click", ({ target }) => {
    const one = target.closest("button")?.species;
    if (!one) return;
    showSpecies(one);
    fold();
  });
  $("find-species").addEventListener("input", listSpecies);
  $("sort-species").addEventListener("change", listSpecies);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  for (const id of ["least", "site", "state", "sort"]) $(id).addEventListener("input", render);
  $("cell").addEventListener("click", () => {
    shown.cell = null;
    render();
  });
  $("more").addEventListener("click", showMore);
  new IntersectionObserver(([entry]) => entry.isIntersecting && showMore(), { rootMargin: "600px" }).observe($("more"));
  $("start-review").addEventListener("click", openReview);
  $("queue").addEventListener("submit", startReview);
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("again").addEventListener("click", () => showPart("queue"));
  $("close-review").addEventListener("click", () => $("review").close());
  $("review").addEventListener("close", render);
  for (const id of ["export", "export-reviewed"]) $(id).addEventListener("click", exportReviews);
  $("import").addEventListener("change", importReviews);
  document.addEventListener("keydown", onKey);
  addEventListener("resize", () => drawMap(shown.species));
  addEventListener("storage", () => {
    readAnswers();
    render();
  });
}

begin();
