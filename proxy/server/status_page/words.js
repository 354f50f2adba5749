// Figures and states in words. Pure: nothing here touches the page.

const whole = new Intl.NumberFormat("en");
const NONE = "–";

export const known = (value) => value !== null && value !== undefined;

export function count(value) {
  return known(value) ? whole.format(Math.floor(value)) : NONE;
}

export function decimal(value, digits = 1) {
  return known(value) ? Number(value).toFixed(digits) : NONE;
}

export function percent(share) {
  return known(share) ? `${Math.round(share * 100)} %` : NONE;
}

export function rate(perSecond) {
  if (!known(perSecond)) return NONE;
  return perSecond >= 100 ? whole.format(Math.round(perSecond)) : perSecond.toFixed(1);
}

export function millis(value) {
  if (!known(value)) return NONE;
  if (value === 0) return "0 ms";
  if (value >= 1000) return `${Number((value / 1000).toFixed(value < 10000 ? 2 : 1))} s`;
  return `${value < 10 && !Number.isInteger(value) ? value.toFixed(1) : whole.format(Math.round(value))} ms`;
}

export function span(seconds) {
  if (!known(seconds)) return NONE;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`;
}

export function clock(millisSinceEpoch) {
  return new Date(millisSinceEpoch).toTimeString().slice(0, 8);
}

export const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many}`;

const REASONS = {
  headroom: "latency leaves room below the target",
  over_target: "latency is above the target, or would be",
  emergency: "latency was far above the target",
  idle: "so many seats have not been used for a while",
  recovery: "back towards the start value after a cut",
  preemption: "the engine ran out of KV memory and recomputed work",
  engine_cap: "requests waited inside the engine",
  ceiling: "memory, or the configured maximum, holds no more",
  shed: "the engine refused work",
  timeout: "the engine stayed silent too long",
  reset: "the engine dropped a connection",
  held: "an operator holds it",
  restored: "resumed where it was before",
  reconfigured: "the configuration changed",
};

export const reason = (name) => REASONS[name] ?? String(name).replaceAll("_", " ");
export const words = (name) => String(name).replaceAll("_", " ");

export function change(step) {
  const up = step.direction === "up";
  const digits = Math.abs(step.after - step.before) < 1 ? 1 : 0;
  const seats = (value) => (digits ? value.toFixed(1) : count(value));
  return {
    mark: up ? "▲" : "▼",
    kind: up ? "up" : "down",
    head: `${up ? "Raised" : "Lowered"} ${seats(step.before)} → ${seats(step.after)}`,
    rest: `${step.upstream}: ${reason(step.reason)}`,
  };
}

export const usable = (one) => one.healthy && !one.draining && one.breaker !== "open";

export function upstreamState(one) {
  if (!one.healthy) return ["down", "bad"];
  if (one.draining) return ["draining", "warn"];
  if (one.breaker === "open") return ["breaker open", "bad"];
  if (one.breaker === "half_open") return ["trying again", "warn"];
  return ["up", "good"];
}

const sum = (items, pick) => items.reduce((total, item) => total + (pick(item) || 0), 0);

function bound(one) {
  if (one.limit_held) return "an operator holds the limit";
  if (known(one.ceiling_seats) && one.limit >= one.ceiling_seats - 1) return "the engine's memory holds no more";
  if (one.limit_reason === "headroom" || one.limit_reason === "recovery") return "the limit is being raised step by step";
  if (one.limit_reason === "over_target" || one.limit_reason === "emergency")
    return "more at once would be slower than the latency target allows";
  return one.limit_reason ? `the last reason for the limit: ${reason(one.limit_reason)}` : "the limit is still at its start value";
}

function why(usableOnes) {
  const seats = sum(usableOnes, (one) => Math.floor(one.limit));
  const fullest = usableOnes.reduce((a, b) => (b.in_flight / b.limit > a.in_flight / a.limit ? b : a));
  const busy = sum(usableOnes, (one) => one.in_flight);
  const tight = usableOnes.find((one) => one.ceiling_tokens && one.kv_reserved_tokens > 0.9 * one.ceiling_tokens);
  const taken = `${count(Math.min(busy, seats))} of ${plural(seats, "seat is", "seats are")} taken`;
  if (busy >= seats - Math.max(1, 0.1 * seats)) return `${taken}, and ${bound(fullest)}`;
  if (tight) return `running requests have been promised ${percent(tight.kv_reserved_tokens / tight.ceiling_tokens)} of the KV memory of ${tight.name}`;
  return `${taken}; the rest is kept for higher classes, or lies beyond a tenant's own bound`;
}

// What an operator wants to know first: does anything wait, and why.
export function verdict(state) {
  const flight = sum(state.upstreams, (one) => one.in_flight);
  const queued = sum(state.classes, (one) => one.queued);
  const open = state.upstreams.filter(usable);
  const away = state.upstreams.filter((one) => !usable(one));
  const more = away.map((one) => `${one.name} is ${upstreamState(one)[0]}`);
  if (state.server.draining) return { kind: "warn", text: "The proxy is draining: it finishes what runs and takes nothing new.", more };
  if (!open.length) return { kind: "bad", text: "No upstream is usable: requests are refused.", more };
  const kind = away.length ? "bad" : queued ? "warn" : "good";
  if (queued) return { kind, text: `${plural(queued, "request waits", "requests wait")}: ${why(open)}.`, more };
  if (!flight) return { kind, text: "Idle: nothing runs and nothing waits.", more };
  const seats = sum(open, (one) => Math.floor(one.limit));
  return { kind, text: `Nothing waits: ${count(flight)} of ${plural(seats, "seat is", "seats are")} in use.`, more };
}
