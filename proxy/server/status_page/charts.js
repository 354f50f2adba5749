// The three charts over the last ten minutes. Rows come from /admin/history once, then one with every event.

import { count, known, millis, usable } from "./words.js";

const WINDOW_S = 600;
const GAP_S = 4; // a longer pause between rows is drawn as a gap
const SYNC = "penstock";

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const sum = (items, pick) => items.reduce((total, item) => total + pick(item), 0);

export class Past {
  constructor() {
    this.rows = [];
  }

  // After a restart of the proxy its history is short: what was seen before stays.
  adopt(history, now) {
    const names = Object.entries(history.upstreams);
    const rows = history.ago_s.map((ago, index) => ({
      at: now - ago,
      queued: history.queued[index],
      totals: Object.fromEntries(Object.entries(history.totals).map(([name, values]) => [name, values[index]])),
      upstreams: Object.fromEntries(names.filter(([, one]) => one.limit[index] !== null)
        .map(([name, one]) => [name, Object.fromEntries(Object.entries(one).map(([key, values]) => [key, values[index]]))])),
    }));
    const first = rows.length ? rows[0].at : now;
    this.rows = this.rows.filter((row) => row.at < first - 0.5).concat(rows);
    this.trim(now);
  }

  add(state, now) {
    const upstreams = Object.fromEntries(state.upstreams.map((one) => [one.name, { ...one, usable: usable(one) }]));
    const queued = sum(state.classes, (one) => one.queued);
    this.rows.push({ at: now, queued, totals: state.totals, upstreams });
    this.trim(now);
  }

  trim(now) {
    this.rows = this.rows.filter((row) => row.at > now - WINDOW_S - 5);
  }

  // Differences of the totals over the last seconds; null while there is nothing to compare, or after a restart.
  since(seconds) {
    const last = this.rows.at(-1);
    const first = this.rows.find((row) => row.at >= last?.at - seconds);
    if (!last || !first || last.at - first.at < 1 || last.totals.requests < first.totals.requests) return null;
    const diffs = Object.entries(last.totals).map(([name, value]) => [name, value - first.totals[name]]);
    return { seconds: last.at - first.at, ...Object.fromEntries(diffs) };
  }

  columns(name) {
    const columns = { at: [], limit: [], flight: [], ceiling: [], queued: [], itl: [], itlTarget: [], ttft: [], ttftTarget: [] };
    let before = null;
    for (const row of this.rows) {
      if (before !== null && row.at - before > GAP_S) push(columns, { at: before + 1 });
      push(columns, point(row, name));
      before = row.at;
    }
    return columns;
  }
}

function push(columns, values) {
  for (const [name, column] of Object.entries(columns)) column.push(values[name] ?? null);
}

function point(row, name) {
  const ones = Object.entries(row.upstreams).filter(([key]) => !name || key === name).map(([, one]) => one);
  const made = { at: row.at, queued: name ? null : row.queued };
  if (!ones.length) return made;
  const open = ones.filter((one) => one.usable);
  made.limit = sum(open, (one) => Math.floor(one.limit));
  made.flight = sum(ones, (one) => one.in_flight);
  made.ceiling = open.length && open.every((one) => known(one.ceiling_seats)) ? sum(open, (one) => one.ceiling_seats) : null;
  for (const signal of ["itl", "ttft"]) {
    const slow = worst(open, signal);
    made[signal] = slow?.[`${signal}_ms`];
    made[`${signal}Target`] = (slow ?? ones[0])[`${signal}_target_ms`];
  }
  return made;
}

// The upstream that is nearest to its target, or furthest above it.
export function worst(upstreams, signal) {
  const share = (one) => one[`${signal}_ms`] / one[`${signal}_target_ms`];
  const measured = upstreams.filter((one) => known(one[`${signal}_ms`]) && one[`${signal}_target_ms`]);
  return measured.reduce((bad, one) => (bad === null || share(one) > share(bad) ? one : bad), null);
}

const stepped = (...given) => uPlot.paths.stepped({ align: 1 })(...given);

const SEATS = [
  { key: "ceiling", label: "memory ceiling", ink: "--ceiling", dash: [2, 4], width: 1.5, shape: "dotted" },
  { key: "limit", label: "limit", ink: "--limit", width: 2, paths: stepped },
  { key: "flight", label: "in flight", ink: "--flight", fill: "--flight-fill", width: 1.5, paths: stepped },
  { key: "queued", label: "waiting", ink: "--queued", dash: [6, 3], width: 1.5, paths: stepped, shape: "dashed" },
];
const ITL = [
  { key: "itlTarget", label: "target", ink: "--target", dash: [6, 4], width: 1.5, shape: "dashed" },
  { key: "itl", label: "time per token", ink: "--latency", fill: "--latency-fill", width: 1.75 },
];
const TTFT = [
  { key: "ttftTarget", label: "target", ink: "--target", dash: [6, 4], width: 1.5, shape: "dashed" },
  { key: "ttft", label: "first token, own queue excluded", ink: "--latency", fill: "--latency-fill", width: 1.75 },
];

class Chart {
  constructor(id, series, shown) {
    this.holder = document.getElementById(id);
    this.series = series;
    this.shown = shown;
    this.end = Date.now() / 1000;
    this.values = this.legend(document.getElementById(`${id}-legend`));
    this.plot = new uPlot(this.options(), [[], ...series.map(() => [])], this.holder);
    new ResizeObserver(() => this.plot.setSize(this.size())).observe(this.holder);
  }

  size() {
    return { width: this.holder.clientWidth, height: this.holder.clientHeight };
  }

  legend(list) {
    return this.series.map((one) => {
      const item = document.createElement("span");
      item.className = `key ${one.key} ${one.shape ?? "solid"}`;
      const value = document.createElement("b");
      item.append(document.createTextNode(one.label), value);
      list.append(item);
      return value;
    });
  }

  options() {
    const axis = { stroke: () => color("--faint"), font: `12px ${getComputedStyle(document.body).fontFamily}`, ticks: { show: false } };
    const grid = { stroke: () => color("--line"), width: 1 };
    return {
      ...this.size(),
      padding: [8, 8, 0, 0],
      legend: { show: false },
      cursor: { sync: { key: SYNC }, drag: { x: false, y: false }, points: { size: 6 }, y: false },
      scales: {
        x: { time: true, range: () => [this.end - WINDOW_S, this.end] },
        y: { range: () => [0, this.top()] },
      },
      axes: [
        { ...axis, grid: { show: false }, size: 28, space: 80, values: (plot, splits) => splits.map(clockOf) },
        { ...axis, grid, size: 52, values: (plot, splits) => splits.map((value) => this.shown(value)) },
      ],
      series: [{}, ...this.series.map((one) => this.line(one))],
      hooks: { setCursor: [() => this.tell()] },
    };
  }

  // A ceiling far above everything else would press the rest into a flat line: it then lies outside, its value in the legend.
  top() {
    const most = (kind) => this.series.reduce((top, one, index) =>
      (one.key === "ceiling") === kind ? Math.max(top, ...this.plot?.data[index + 1] ?? []) : top, 0);
    const used = Math.max(1, most(false));
    const ceiling = most(true);
    return (ceiling <= 3 * used ? Math.max(used, ceiling) : used) * 1.12;
  }

  line(one) {
    return {
      label: one.label,
      stroke: () => color(one.ink),
      fill: one.fill ? () => color(one.fill) : undefined,
      width: one.width,
      dash: one.dash,
      paths: one.paths,
      points: { show: false },
    };
  }

  draw(columns, end) {
    this.end = end;
    this.plot.setData([columns.at, ...this.series.map((one) => columns[one.key])]);
    this.tell();
  }

  // Legend values: at the cursor, else the newest.
  tell() {
    const at = this.plot.cursor.idx ?? this.plot.data[0].length - 1;
    this.values.forEach((node, index) => {
      const value = this.plot.data[index + 1][at];
      node.textContent = known(value) ? this.shown(value) : "–";
    });
  }

  describe() {
    const texts = this.series.map((one, index) => `${one.label} ${this.values[index].textContent}`);
    this.holder.setAttribute("aria-label", `Chart of the last ten minutes. Now: ${texts.join(", ")}.`);
  }
}

function clockOf(seconds) {
  return new Date(seconds * 1000).toTimeString().slice(0, 5);
}

export class Charts {
  constructor() {
    this.all = [new Chart("seats", SEATS, count), new Chart("itl", ITL, millis), new Chart("ttft", TTFT, millis)];
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.all.forEach((one) => one.plot.redraw()));
  }

  draw(columns, end) {
    this.all.forEach((one) => { one.draw(columns, end); one.describe(); });
  }
}
