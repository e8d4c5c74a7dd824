"use strict";

const token = document.body.dataset.token;
const at = (id) => document.getElementById(id);
const grid = at("grid");
let outline = null;
let rows = [];
let total = 0;
let current = 0;
let mode = { kind: "filter" };
let shown = null; // the threshold whose changes are on the page
let asked = 0; // answers to older questions are dropped

const number = (value) => Number(value).toLocaleString("en");
const fixed = (value) => Number(value).toPrecision(4);

function say(text, error) {
  at("status").textContent = text;
  at("status").className = error ? "error" : "";
}

async function ask(path, body) {
  const post = body !== undefined;
  const answer = await fetch(path, {
    method: post ? "POST" : "GET",
    headers: { "x-curate-token": token },
    body: post ? (body instanceof Blob ? body : JSON.stringify(body)) : undefined,
  });
  const value = await answer.json().catch(() => ({ error: answer.statusText }));
  if (!answer.ok) throw new Error(value.error || answer.statusText);
  return value;
}

async function trying(work) {
  try {
    await work();
  } catch (error) {
    say(error.message, true);
  }
}

function option(value, text) {
  const item = document.createElement("option");
  item.value = value;
  item.textContent = text;
  return item;
}

function choices(select, items) {
  const before = select.value;
  select.replaceChildren(...items.map(([value, text]) => option(value, text)));
  if (items.some(([value]) => value === before)) select.value = before;
}

async function begin() {
  outline = await ask("api/outline");
  at("pool").textContent = outline.pool;
  document.title = outline.pool + " · curate view";
  at("version").textContent = "version " + outline.version;
  const counted = Object.entries(outline.decisions).map(([name, count]) => `${number(count)} ${name}`);
  at("counts").textContent = `${number(outline.rows)} samples: ${counted.join(", ")}`;
  const reasons = Object.entries(outline.reasons).map(([name, count]) => [name, `${name} (${number(count)})`]);
  choices(at("reason"), [["", "any"], ...reasons]);
  const labels = Object.entries(outline.labels).map(([name, count]) => [name, `${name} (${number(count)})`]);
  choices(at("label"), [["", "any"], ...labels]);
  at("labels").replaceChildren(...Object.keys(outline.labels).map((name) => option(name, name)));
  choices(at("since"), [["", "any"], ...outline.versions.map(([name, when]) => [String(name), `${name} (${when.replace("T", " ")})`])]);
  const names = Object.keys(outline.scores);
  const sorts = names.flatMap((name) => [[name, `${name}, lowest first`], ["-" + name, `${name}, highest first`]]);
  choices(at("sort"), [["", "arrival"], ...sorts]);
  choices(at("score"), names.map((name) => [name, name]));
  at("slider").hidden = !names.length;
  if (names.length) span(false);
  pending(outline.pending);
}

function span(keep) {
  const score = outline.scores[at("score").value];
  const set = score.threshold ?? (score.low + score.high) / 2;
  at("threshold").min = Math.min(score.low, set);
  at("threshold").max = Math.max(score.high, set);
  if (!keep) at("threshold").value = at("value").value = set;
  at("moved").textContent = score.threshold == null ? "" : `in force: ${fixed(score.threshold)}`;
  at("drop-out").hidden = true;
}

function query(start) {
  const given = { reason: at("reason").value, label: at("label").value, text: at("text").value, since: at("since").value, sort: at("sort").value, start };
  return new URLSearchParams(Object.entries(given).filter(([, value]) => value !== "" && value !== 0));
}

async function load(more) {
  const mine = ++asked;
  const start = more ? rows.length : 0;
  let found;
  if (mode.kind === "filter") found = await ask("api/rows?" + query(start));
  else if (mode.kind === "near") found = await ask("api/near/" + mode.row);
  else if (mode.kind === "example") found = await ask("api/near", mode.file);
  else {
    const given = { score: at("score").value, threshold: at("value").value };
    at("drop-out").hidden = true;
    found = await ask("api/slide?" + new URLSearchParams({ ...given, label: at("label").value }));
    shown = { score: given.score, threshold: Number(given.threshold) };
    at("moved").textContent = `${number(found.out)} would go, ${number(found.back)} would come back`;
    at("drop-out").hidden = !found.out || at("label").value !== "";
    at("drop-out").textContent = `Drop these ${number(found.out)}`;
  }
  if (mine !== asked) return;
  rows = more ? rows.concat(found.rows) : found.rows;
  total = found.total;
  pending(found.pending);
  if (!more) grid.replaceChildren();
  found.rows.forEach((row, i) => grid.append(tile(row, start + i, found.cosine && found.cosine[i])));
  at("more").hidden = mode.kind !== "filter" || rows.length >= total;
  const words = { filter: "samples", near: "samples most like it", example: "samples most like the image", slide: "samples nearest to the threshold" };
  say(`${number(total)} ${words[mode.kind]}`);
  select(more ? current : 0, false);
}

function tile(row, place, cosine) {
  const item = document.createElement("li");
  item.id = "sample-" + place;
  item.setAttribute("role", "option");
  item.addEventListener("click", () => select(place, true));
  item.addEventListener("dblclick", () => trying(why));
  const frame = document.createElement("div");
  frame.className = "frame";
  if (row.embedded) {
    const image = document.createElement("img");
    image.loading = "lazy";
    image.alt = row.caption || row.label || row.key;
    image.src = `image/${row.row}/320?token=${encodeURIComponent(token)}`;
    image.addEventListener("error", () => frame.replaceChildren("no image"));
    frame.append(image);
  } else frame.append("no image");
  const words = document.createElement("div");
  words.className = "words";
  const line = (kind, text) => {
    if (!text) return;
    const part = document.createElement("span");
    part.className = kind;
    part.dir = "auto";
    part.textContent = text;
    words.append(part);
  };
  line("reason " + row.decision, row.reason);
  line("label", row.label);
  line("caption", row.caption);
  line("key", row.key);
  const score = at("sort").value.replace(/^-/, "") || (mode.kind === "slide" ? at("score").value : "");
  if (cosine != null) line("score", "cosine " + cosine);
  else if (row.scores[score] != null) line("score", `${score} ${fixed(row.scores[score])}`);
  item.append(frame, words);
  mark(item, row);
  return item;
}

function mark(item, row) {
  item.querySelector(".pending")?.remove();
  item.classList.toggle("drop", row.pending?.action === "drop");
  const told = row.pending ? [row.pending.action, row.pending.label].filter(Boolean).join(": ") : row.review ? "reviewed: " + row.review : "";
  item.setAttribute("aria-label", [row.reason, row.label, row.caption, row.key, told].filter(Boolean).join(", "));
  if (!told) return;
  const badge = document.createElement("div");
  badge.className = "pending";
  badge.textContent = told;
  item.append(badge);
}

function select(place, focus) {
  grid.querySelector("[aria-selected=true]")?.setAttribute("aria-selected", "false");
  current = Math.max(0, Math.min(place, rows.length - 1));
  const item = grid.children[current];
  if (!item) return;
  item.setAttribute("aria-selected", "true");
  grid.setAttribute("aria-activedescendant", item.id);
  if (focus) {
    grid.focus({ preventScroll: true });
    item.scrollIntoView({ block: "nearest" });
  }
}

function pending(count) {
  at("undo").disabled = !count;
  at("write").disabled = !count;
  at("write").textContent = count ? `Write ${number(count)} decision${count === 1 ? "" : "s"} to the pool` : "Nothing to write";
}

async function decide(action, label) {
  const row = rows[current];
  if (!row) return;
  const place = current;
  const done = await ask("api/decide", { rows: [[row.row, row.uid]], action, label });
  const before = row.pending;
  const both = action === "relabel" ? { ...(before || { action }), label } : { action, label: before?.label };
  row.pending = both;
  mark(grid.children[place], row);
  pending(done.pending);
  say(`${row.key}: ${action}${label ? " " + label : ""}`);
  select(place + 1, true);
}

async function undo() {
  const done = await ask("api/undo", {});
  say(done.undone.length ? `${number(done.undone.length)} taken back` : "nothing to undo");
  const place = current;
  await load(false);
  select(place, true);
  pending(done.pending);
}

async function write() {
  say("writing…");
  at("write").disabled = true;
  let done;
  try {
    done = await ask("api/write", {});
  } catch (error) {
    at("write").disabled = false;
    throw error;
  }
  await begin();
  mode = { kind: "filter" };
  await load(false);
  say(`written as version ${done.version}; ${number(done.changed)} decisions changed, ${number(done.admitted)} samples are admitted${done.gone ? `; ${number(done.gone)} were taken down meanwhile` : ""}`);
}

function inWords(value) {
  if (value === null || typeof value !== "object") return String(value);
  const inner = (part) => (part !== null && typeof part === "object" ? `(${inWords(part)})` : inWords(part));
  return Array.isArray(value) ? value.map(inner).join(", ") : Object.entries(value).map(([name, part]) => `${name} ${inner(part)}`).join(", ");
}

async function why() {
  const row = rows[current];
  if (!row) return;
  const told = await ask("api/why/" + row.uid);
  at("why-title").textContent = told.key;
  at("why-image").src = row.embedded ? `image/${row.row}/1024?token=${encodeURIComponent(token)}` : "";
  at("why-image").hidden = !row.embedded;
  at("why-image").alt = told.caption || told.key;
  const list = [];
  for (const [name, value] of Object.entries(told)) {
    const empty = value === null || value === "" || (typeof value === "object" && !Object.keys(value).length);
    if (empty || name === "mended") continue; // the history has what was mended
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = name;
    text.dir = "auto";
    text.textContent = Array.isArray(value) ? value.map(inWords).join("\n") : inWords(value);
    list.push(term, text);
  }
  at("why-list").replaceChildren(...list);
  at("why").showModal();
  at("why").scrollTop = 0;
}

function relabel() {
  if (!rows[current]) return;
  at("new-label").value = rows[current].label || "";
  at("relabel").returnValue = "";
  at("relabel").showModal();
  at("new-label").select();
}

at("relabel").addEventListener("close", () => {
  const label = at("new-label").value.trim();
  if (at("relabel").returnValue === "set" && label) trying(() => decide("relabel", label));
  else grid.focus();
});

const filtered = () => trying(() => ((mode = { kind: "filter" }), load(false)));
let waiting = 0;
function later(work) {
  clearTimeout(waiting);
  waiting = setTimeout(work, 250);
}
at("filter").addEventListener("submit", (event) => (event.preventDefault(), filtered()));
for (const id of ["reason", "label", "since", "sort"]) at(id).addEventListener("change", filtered);
at("text").addEventListener("input", () => later(filtered));
at("example").addEventListener("change", () => {
  const file = at("example").files[0];
  if (file) trying(() => (say("looking…"), (mode = { kind: "example", file }), load(false)));
});
const slide = () => later(() => trying(() => ((mode = { kind: "slide" }), load(false))));
at("score").addEventListener("change", () => span(false));
at("threshold").addEventListener("input", () => ((at("value").value = at("threshold").value), slide()));
at("value").addEventListener("input", () => ((at("threshold").value = at("value").value), slide()));
at("drop-out").addEventListener("click", () =>
  trying(async () => {
    const done = await ask("api/decide", { slide: shown, action: "drop" });
    await load(false);
    say(`${number(done.decided)} are to be dropped`);
  }),
);
at("more").addEventListener("click", () => trying(() => load(true)));
at("undo").addEventListener("click", () => trying(undo));
at("write").addEventListener("click", () => trying(write));
function help() {
  at("help").hidden = !at("help").hidden;
  at("keys").setAttribute("aria-expanded", String(!at("help").hidden));
}
at("keys").addEventListener("click", help);

function perLine() {
  const first = grid.children[0];
  if (!first) return 1;
  let count = 1;
  while (grid.children[count] && grid.children[count].offsetTop === first.offsetTop) count++;
  return count;
}

document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (typing) {
    if (event.key === "Escape") grid.focus({ preventScroll: true });
    return;
  }
  const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: perLine(), ArrowUp: -perLine() };
  const keys = {
    k: () => decide("keep"),
    d: () => decide("drop"),
    c: () => decide("clear"),
    l: relabel,
    u: undo,
    n: () => rows[current] && ((mode = { kind: "near", row: rows[current].row }), load(false)),
    "/": () => at("text").focus(),
    "?": help,
  };
  if (event.key in moves) select(current + moves[event.key], true);
  else if (event.key === "Enter" && event.target.tagName !== "BUTTON") trying(why);
  else if (event.key in keys) trying(async () => keys[event.key]());
  else return;
  event.preventDefault();
});

trying(async () => {
  await begin();
  await load(false);
  grid.focus({ preventScroll: true });
});
