// What the types must refuse: a line that they let through is an error of its own ("unused directive").
import type { Board } from "./board";

type Panel = Board["panels"][number];
type Variable = NonNullable<NonNullable<Board["templating"]>["list"]>[number];
const panel = { title: "a", description: "b" };
const board = { uid: "a", title: "b", schemaVersion: 39, panels: [] };

export const right: Board = { ...board, graphTooltip: 1, refresh: "10s" };
// @ts-expect-error a number, not a text
export const tooltip: Board = { ...board, graphTooltip: "1" };
// @ts-expect-error no such key
export const key: Board = { ...board, refreshes: "10s" };
// @ts-expect-error no such kind of variable
export const variable: Variable = { name: "job", type: "querry" };
// @ts-expect-error no such panel
export const kind: Panel = { ...panel, type: "timeserie", options: {}, fieldConfig: { defaults: { custom: {} }, overrides: [] } };
// @ts-expect-error no such mode of a legend
export const mode: Panel = { ...panel, type: "timeseries", options: { legend: { displayMode: "tables" } }, fieldConfig: { defaults: { custom: {} }, overrides: [] } };
// @ts-expect-error an option of another panel
export const option: Panel = { ...panel, type: "stat", options: { legend: {} }, fieldConfig: { defaults: {}, overrides: [] } };
// @ts-expect-error no such way to fill
export const fill: Panel = { ...panel, type: "timeseries", options: {}, fieldConfig: { defaults: { custom: { fillOpacity: "20" } }, overrides: [] } };
