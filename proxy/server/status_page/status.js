// The live page: one state a second from /admin/events, shown without replacing what has not changed.

import { Charts, Past, worst } from "./charts.js";
import * as say from "./words.js";

const AGAIN_MS = 1500;
const SILENT_MS = 10000;
const ROWS_MAX = 50;
const OLD_S = 5; // older telemetry says what was, not what is
const past = new Past();
const charts = new Charts();
let events = null;
let heard = Date.now();
let paused = false;
let latest = null;

const byId = (id) => document.getElementById(id);
const sum = (items, pick) => items.reduce((total, item) => total + (pick(item) || 0), 0);

function put(node, text, kind) {
  if (node.textContent !== text) node.textContent = text; // text only: names come from outside
  if (kind !== undefined && node.dataset.kind !== kind) node.dataset.kind = kind;
}

function fill(node, share) {
  node.style.setProperty("--share", `${Math.max(0, Math.min(1, share || 0)) * 100}%`);
}

function element(name, kind) {
  const made = document.createElement(name);
  if (kind) made.className = kind;
  return made;
}

// As many children as items, reused, so that focus, selection and scroll position stay.
function each(parent, items, make, show) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  while (parent.children.length < items.length) parent.append(make());
  items.forEach((item, index) => show(parent.children[index], item));
}

const cloned = (id) => () => byId(id).content.firstElementChild.cloneNode(true);

function gauge() {
  const made = element("div", "gauge");
  const bar = element("span", "bar");
  bar.append(element("span"));
  made.append(element("b"), bar);
  return made;
}

function showGauge(cell, text, share, kind) {
  const [value, bar] = cell.firstChild.children;
  put(value, text);
  fill(bar.firstChild, share);
  bar.dataset.kind = kind;
}

function row(columns) {
  return () => {
    const line = element("tr");
    columns.forEach((kind, index) => {
      const cell = element(index ? "td" : "th", kind);
      if (!index) cell.scope = "row";
      if (kind === "wide") cell.append(gauge());
      line.append(cell);
    });
    return line;
  };
}

function none(body, columns, text) {
  const line = element("tr");
  const cell = element("td", "faint");
  cell.colSpan = columns;
  cell.textContent = text;
  line.append(cell);
  body.replaceChildren(line);
  body.dataset.empty = "yes";
}

function table(id, columns, items, show, text) {
  const body = byId(id);
  if (!items.length) return none(body, columns.length, text);
  if (body.dataset.empty) { body.replaceChildren(); delete body.dataset.empty; }
  return each(body, items, row(columns), (line, item) => show(line.children, item));
}

// ---- tiles ----
function latencyTile(name, slow, signal) {
  const value = slow?.[`${signal}_ms`];
  const target = slow?.[`${signal}_target_ms`];
  if (!slow) return { name, text: "–", note: "not measured yet" };
  const late = value > target;
  return { name, text: say.millis(value), share: value / target, kind: late ? "bad" : "good",
    note: `${late ? "▲ over the target of" : "target"} ${say.millis(target)}` };
}

function goodTile(minute) {
  const share = minute && minute.succeeded > 0 ? minute.good / minute.succeeded : null;
  const kind = share === null ? "" : share >= 0.95 ? "good" : share >= 0.8 ? "warn" : "bad";
  return { name: "Within targets", text: say.percent(share), share: share ?? 0, kind, note: "of successes, last minute" };
}

function tiles(state) {
  const ones = state.upstreams;
  const open = ones.filter(say.usable);
  const limit = sum(open, (one) => Math.floor(one.limit));
  const flight = sum(ones, (one) => one.in_flight);
  const queued = sum(state.classes, (one) => one.queued);
  const oldest = Math.max(0, ...state.classes.map((one) => one.oldest_wait_s));
  const ceiling = open.length && open.every((one) => say.known(one.ceiling_seats)) ? sum(open, (one) => one.ceiling_seats) : null;
  const kv = Math.max(-1, ...open.map((one) => one.engine_kv_usage ?? -1));
  const minute = past.since(60);
  const short = past.since(10);
  return [
    { name: "Upstreams up", text: `${open.length} of ${ones.length}`, share: open.length / (ones.length || 1),
      kind: open.length < ones.length ? "bad" : "good", note: open.length < ones.length ? "▼ see below" : "all usable" },
    { name: "In flight", text: `${say.count(flight)} / ${say.count(limit)}`, share: flight / (limit || 1), kind: "flight",
      note: ceiling === null ? "of the limit; no memory ceiling known" : `of the limit; memory ceiling ${say.count(ceiling)}` },
    { name: "Waiting", text: say.count(queued), share: queued / (sum(state.classes, (one) => one.capacity) || 1), kind: queued ? "warn" : "good",
      note: queued ? `oldest ${say.span(oldest)}` : "nobody waits" },
    latencyTile("Time per token", worst(open, "itl"), "itl"),
    latencyTile("First token", worst(open, "ttft"), "ttft"),
    goodTile(minute),
    { name: "Throughput", text: `${say.rate(short && short.requests / short.seconds)} /s`,
      note: `${say.rate(short && short.output_tokens / short.seconds)} tokens/s out` },
    { name: "KV memory", text: kv < 0 ? "–" : say.percent(kv), share: Math.max(0, kv), kind: kv > 0.9 ? "warn" : "flight",
      note: kv < 0 ? "the engine does not tell" : "in use, fullest engine" },
  ];
}

function showTile(box, tile) {
  const [name, value, bar, note] = box.children;
  put(name, tile.name);
  put(value, tile.text, tile.kind ?? "");
  bar.hidden = tile.share === undefined;
  bar.dataset.kind = tile.kind ?? "";
  fill(bar, tile.share);
  put(note, tile.note);
}

// ---- upstreams ----
function seatsBar(node, one) {
  const used = Math.max(one.limit, one.in_flight, 1);
  const top = say.known(one.ceiling_seats) && one.ceiling_seats <= 3 * used ? Math.max(used, one.ceiling_seats) : 1.25 * used;
  fill(node.children[0], one.in_flight / top);
  fill(node.children[1], one.limit / top);
  const ceiling = say.known(one.ceiling_seats) ? `, memory ceiling ${say.count(one.ceiling_seats)} (${one.ceiling_source})` : "";
  const text = `${say.count(one.in_flight)} in flight of ${say.count(one.limit)}${ceiling}`;
  if (node.getAttribute("aria-label") !== text) node.setAttribute("aria-label", text);
  return text;
}

function latency(node, value, target) {
  const late = say.known(value) && say.known(target) && value > target;
  put(node, `${say.millis(value)} / ${say.millis(target)}${late ? " ▲" : ""}`, late ? "bad" : "");
}

function showUpstream(card, one) {
  const part = (name) => card.querySelector(`[data-is=${name}]`);
  const probed = latest.server.upstreams?.[one.name] ?? {};
  put(part("name"), one.name);
  put(part("state"), ...say.upstreamState(one));
  put(part("what"), [one.engine || probed.engine || "engine not known yet", ...one.models.slice(0, 3)].join(" · "));
  const wrong = one.healthy ? probed.telemetry_error : probed.error;
  put(part("error"), wrong ? `${one.healthy ? "telemetry" : "last probe"}: ${wrong}` : "");
  const extra = [one.limit_held ? "limit held by an operator" : "", one.aborting ? `${one.aborting} being aborted` : ""];
  put(part("words"), [seatsBar(part("seats"), one), ...extra.filter(Boolean)].join(" · "));
  latency(part("itl"), one.itl_ms, one.itl_target_ms);
  latency(part("ttft"), one.ttft_ms, one.ttft_target_ms);
  const old = one.telemetry_age_s > OLD_S;
  put(part("running"), say.count(one.engine_running), old ? "old" : "");
  put(part("waiting"), say.count(one.engine_waiting), old ? "old" : "");
  put(part("kv"), say.percent(one.engine_kv_usage), old ? "old" : "");
  put(part("promised"), one.ceiling_tokens ? say.percent(one.kv_reserved_tokens / one.ceiling_tokens) : `${say.count(one.kv_reserved_tokens)} tokens`);
  put(part("preemptions"), say.count(one.engine_preemptions), old ? "old" : "");
  put(part("age"), say.known(one.telemetry_age_s) ? `${say.span(one.telemetry_age_s)} ago` : "never", old ? "bad" : "");
}

// ---- lists ----
function logLine() {
  const line = element("li");
  line.append(element("time"), element("i"), element("b"), element("span"));
  line.children[1].setAttribute("aria-hidden", "true");
  return line;
}

function showLine(line, [agoS, mark, kind, head, rest]) {
  const [time, sign, strong, text] = line.children;
  put(time, say.clock(Date.now() - agoS * 1000));
  time.title = `${say.span(agoS)} ago`;
  put(sign, mark, kind);
  put(strong, head);
  put(text, rest);
}

function log(id, lines, text) {
  const list = byId(id);
  each(list, lines.length ? lines : [[0, "", "", text, ""]], logLine, showLine);
  list.dataset.empty = lines.length ? "" : "yes";
}

function changeLine(step) {
  const told = say.change(step);
  return [step.ago_s, told.mark, told.kind, told.head, told.rest];
}

function refusalLine(one) {
  const who = `class ${one.class}${one.tenant ? `, tenant ${one.tenant}` : ""}`;
  return [one.ago_s, "✕", "bad", say.words(one.outcome), one.detail ? `${who}: ${one.detail}` : who];
}

function tables(state) {
  table("classes", ["", "wide", "number", "number"], state.classes, (cells, one) => {
    put(cells[0], one.name);
    showGauge(cells[1], `${say.count(one.queued)} / ${say.count(one.capacity)}`, one.queued / one.capacity, "warn");
    put(cells[2], one.queued ? say.span(one.oldest_wait_s) : "–");
    put(cells[3], one.backlog_s ? say.span(one.backlog_s) : "–");
  }, "no classes");
  const most = Math.max(1, ...state.tenants.map((one) => one.in_flight));
  table("tenants", ["", "wide", "number"], state.tenants, (cells, one) => {
    put(cells[0], one.name);
    showGauge(cells[1], say.count(one.in_flight), one.in_flight / most, "flight");
    put(cells[2], say.count(one.queued));
  }, "no tenant has work here");
  log("changes", state.limit_changes.slice(-ROWS_MAX).reverse().map(changeLine), "No limit has changed yet.");
  log("refusals", state.refusals.slice(-ROWS_MAX).reverse().map(refusalLine), "Nothing was refused.");
  const ended = Object.entries(state.outcomes).filter(([, number]) => number).sort((a, b) => b[1] - a[1]);
  each(byId("outcomes"), ended.length ? ended : [["no request yet", ""]], () => {
    const item = element("li");
    item.append(element("b"), element("span"));
    return item;
  }, (item, [name, number]) => {
    put(item.firstChild, number === "" ? "" : say.count(number));
    put(item.lastChild, say.words(name));
  });
}

// ---- the whole ----
function head(state) {
  const about = state.server;
  put(byId("server"), `${about.version ?? ""} · ${about.listen ?? ""} · up ${say.span(about.uptime_s)} · configuration ${about.config_hash ?? ""}`);
  const badges = [about.simulated ? ["simulated engine", "warn"] : null, about.draining ? ["draining", "warn"] : null];
  each(byId("badges"), badges.filter(Boolean), () => element("span", "pill"), (node, [text, kind]) => put(node, text, kind));
  const told = say.verdict(state);
  byId("verdict").dataset.kind = told.kind;
  put(byId("verdict-text"), told.text);
  put(byId("verdict-more"), [...told.more, lastChange(state)].filter(Boolean).join(" · "));
  document.title = `${told.kind === "bad" ? "▲ " : ""}Penstock`;
}

function lastChange(state) {
  const step = state.limit_changes.at(-1);
  if (!step) return "The controller has not changed a limit yet.";
  const told = say.change(step);
  return `Last decision, ${say.span(step.ago_s)} ago: ${told.head.toLowerCase()} at ${told.rest}`;
}

function chooser(state) {
  const list = byId("upstream");
  const names = state.upstreams.map((one) => one.name);
  if ([...list.options].slice(1).map((one) => one.value).join("\n") === names.join("\n")) return;
  const chosen = list.value;
  list.replaceChildren(new Option("all", ""), ...names.map((name) => new Option(name, name)));
  list.value = names.includes(chosen) ? chosen : "";
  byId("chooser").hidden = names.length < 2;
}

function draw() {
  if (!latest || paused || document.hidden) return;
  head(latest);
  each(byId("tiles"), tiles(latest), cloned("tile-of"), showTile);
  each(byId("upstreams"), latest.upstreams, cloned("upstream-of"), showUpstream);
  tables(latest);
  chooser(latest);
  charts.draw(past.columns(byId("upstream").value), Date.now() / 1000);
}

function connection(text, kind) {
  put(byId("connection"), text, kind);
  document.body.classList.toggle("stale", kind === "bad");
}

function lost() {
  events?.close();
  if (events === null) return;
  events = null;
  connection(`no connection since ${say.clock(heard)}, trying again`, "bad");
  setTimeout(connect, AGAIN_MS);
}

function take(event) {
  latest = JSON.parse(event.data);
  heard = Date.now();
  past.add(latest, heard / 1000);
  connection(paused ? "paused" : "live", paused ? "warn" : "good");
  draw();
}

async function connect() {
  events = new EventSource("admin/events");
  const mine = events;
  events.addEventListener("error", () => { if (events === mine) lost(); });
  try {
    const answer = await fetch("admin/history");
    if (answer.ok) past.adopt(await answer.json(), Date.now() / 1000);
  } catch { /* the event stream tells */ }
  mine.addEventListener("state", take);
}

setInterval(() => { if (events && Date.now() - heard > SILENT_MS) { heard = Date.now(); lost(); } }, 1000);
document.addEventListener("visibilitychange", draw);
byId("upstream").addEventListener("change", draw);
byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  put(byId("pause"), paused ? "Resume" : "Pause");
  if (latest) connection(paused ? "paused" : "live", paused ? "warn" : "good");
  draw();
});
put(byId("curl"), `curl -s ${new URL("admin/state", location.href)}`);
byId("copy").addEventListener("click", async () => {
  await navigator.clipboard.writeText(byId("curl").textContent);
  put(byId("copy"), "Copied");
  setTimeout(() => put(byId("copy"), "Copy"), 2000);
});
connect();
