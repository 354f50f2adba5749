"use strict";

const POINTS_MAX = 600; // one per second: ten minutes
const REASON_ROWS = 50;
const past = [];

const byId = (id) => document.getElementById(id);
const shown = (value, unit = "", digits = 0) =>
  value === null || value === undefined ? "–" : Number(value).toFixed(digits) + unit;
const sum = (items, pick) => items.reduce((total, item) => total + (pick(item) || 0), 0);

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text; // text only: names come from outside
  if (kind) made.className = kind;
  return made;
}

function table(id, heads, rows) {
  const head = element("tr");
  heads.forEach((text) => { const cell = element("th", text); cell.scope = "col"; head.append(cell); });
  const lines = rows.map((cells) => {
    const line = element("tr");
    cells.forEach(([text, kind]) => line.append(element("td", text, kind)));
    return line;
  });
  if (!lines.length) lines.push(element("tr"));
  if (!rows.length) { const none = element("td", "none"); none.colSpan = heads.length; lines[0].append(none); }
  byId(id).replaceChildren(head, ...lines);
}

function tiles(entries) {
  byId("tiles").replaceChildren(...entries.map(([name, text, kind]) => {
    const box = element("div");
    box.append(element("dt", name), element("dd", text, kind));
    return box;
  }));
}

function chart(id, series) {
  const box = byId(id).viewBox.baseVal;
  const top = Math.max(1e-9, ...series.flatMap(([, pick]) => past.map((point) => pick(point) || 0))) * 1.08;
  byId(id).replaceChildren(...series.map(([kind, pick]) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    const points = past.map((point, index) => {
      const value = pick(point);
      const x = box.width - (past.length - 1 - index) * (box.width / (POINTS_MAX - 1));
      return value === null ? null : x.toFixed(1) + "," + (box.height * (1 - value / top)).toFixed(1);
    });
    line.setAttribute("points", points.filter((point) => point !== null).join(" "));
    line.setAttribute("class", kind);
    return line;
  }));
}

function worst(upstreams) {
  const measured = upstreams.filter((one) => one.itl_ms !== null && one.itl_target_ms);
  return measured.reduce(
    (bad, one) => (bad === null || one.itl_ms / one.itl_target_ms > bad.itl_ms / bad.itl_target_ms ? one : bad), null);
}

function tables(state) {
  table("upstreams",
    ["name", "state", "limit", "ceiling", "in flight", "token time", "target", "engine runs", "waits", "KV used", "age"],
    state.upstreams.map((one) => {
      const words = [one.healthy ? "up" : "down", one.draining ? "draining" : "", one.breaker === "closed" ? "" : "breaker " + one.breaker.replace("_", " ")];
      const well = one.healthy && one.breaker === "closed";
      const late = one.itl_ms !== null && one.itl_target_ms !== null && one.itl_ms > one.itl_target_ms;
      return [[one.name], [words.filter(Boolean).join(", "), well ? "" : "bad"],
        [shown(Math.floor(one.limit)) + (one.limit_held ? " (held)" : "")], [shown(one.ceiling_seats)],
        [shown(one.in_flight) + (one.aborting ? " + " + one.aborting + " aborting" : "")],
        [shown(one.itl_ms, " ms", 1), late ? "bad" : ""], [shown(one.itl_target_ms, " ms")],
        [shown(one.engine_running)], [shown(one.engine_waiting)],
        [one.engine_kv_usage === null ? "–" : shown(one.engine_kv_usage * 100, " %")], [shown(one.telemetry_age_s, " s", 1)]];
    }));
  table("classes", ["name", "queued", "places", "oldest wait", "backlog"], state.classes.map((one) =>
    [[one.name], [shown(one.queued)], [shown(one.capacity)], [shown(one.oldest_wait_s, " s", 1)], [shown(one.backlog_s, " s", 1)]]));
  table("tenants", ["name", "in flight", "queued"], state.tenants.map((one) => [[one.name], [shown(one.in_flight)], [shown(one.queued)]]));
  const ago = (one) => [shown(one.ago_s, " s ago")];
  table("changes", ["when", "upstream", "limit", "reason"], state.limit_changes.slice(-REASON_ROWS).reverse().map((one) =>
    [ago(one), [one.upstream], [shown(one.before, "", 1) + " → " + shown(one.after, "", 1)], [one.reason.replaceAll("_", " ")]]));
  table("refusals", ["when", "outcome", "class", "tenant", "detail"], state.refusals.slice(-REASON_ROWS).reverse().map((one) =>
    [ago(one), [one.outcome.replaceAll("_", " ")], [one.class], [one.tenant], [one.detail]]));
}

function show(state) {
  const seats = sum(state.upstreams, (one) => Math.floor(one.limit));
  const flight = sum(state.upstreams, (one) => one.in_flight);
  const queued = sum(state.classes, (one) => one.queued);
  const known = state.upstreams.length > 0 && state.upstreams.every((one) => one.ceiling_seats !== null);
  const up = state.upstreams.filter((one) => one.healthy).length;
  const slow = worst(state.upstreams);
  past.push({ seats, flight, queued, itl: slow ? slow.itl_ms : null, target: slow ? slow.itl_target_ms : null });
  if (past.length > POINTS_MAX) past.shift();
  tiles([
    ["upstreams up", up + " of " + state.upstreams.length, up < state.upstreams.length ? "bad" : ""],
    ["limit", shown(seats)],
    ["memory ceiling", known ? shown(sum(state.upstreams, (one) => one.ceiling_seats)) : "–"],
    ["in flight", shown(flight)],
    ["queued", shown(queued)],
    ["saturation", shown(state.saturation * 100, " %")],
    ["token time / target", slow ? shown(slow.itl_ms, "", 1) + " / " + shown(slow.itl_target_ms, " ms") : "–", slow && slow.itl_ms > slow.itl_target_ms ? "bad" : ""],
    ["succeeded", shown(state.outcomes.success)],
  ]);
  chart("seats", [["limit", (p) => p.seats], ["flight", (p) => p.flight], ["queued", (p) => p.queued]]);
  chart("latency", [["latency", (p) => p.itl], ["target", (p) => p.target]]);
  tables(state);
  byId("server").textContent = Object.entries(state.server).filter(([, value]) => typeof value !== "object")
    .map(([name, value]) => name.replaceAll("_", " ") + " " + value).join(" · ");
}

function connection(word, kind) {
  byId("connection").textContent = word;
  byId("connection").className = kind;
}

function listen() {
  const events = new EventSource("admin/events");
  events.addEventListener("state", (event) => { connection("live", "live"); show(JSON.parse(event.data)); });
  events.onerror = () => {
    connection("no connection, trying again", "lost");
    if (events.readyState === EventSource.CLOSED) { events.close(); setTimeout(listen, 3000); }
  };
}

listen();
