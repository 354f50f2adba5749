// Grafana's own types for what the builder writes: string enums as the texts they stand for, panel options as the
// panels read them (all optional: Grafana fills in what is not given).
import type { Dashboard, GraphFieldConfig, Panel, RowPanel } from "@grafana/schema";
import type { Options as Stat } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type { Options as Series } from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

type Plain<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
type Some<T> = T extends string ? `${T}` : T extends unknown[] ? Plain<T> : T extends object ? { [K in keyof T]?: Some<T[K]> } : T;

type Shared = Plain<Omit<Panel, "type" | "options" | "fieldConfig">> & { title: string; description: string };
type Field<Custom> = { defaults: Plain<Omit<NonNullable<Panel["fieldConfig"]>["defaults"], "custom">> & Custom; overrides: never[] };

type Curves = Shared & { type: "timeseries"; options: Some<Series>; fieldConfig: Field<{ custom: Some<GraphFieldConfig> }> };
type Figure = Shared & { type: "stat"; options: Some<Stat>; fieldConfig: Field<{ custom?: never }> };
type Row = Plain<Omit<RowPanel, "panels">> & { type: "row"; panels: never[] };

export type Board = Plain<Omit<Dashboard, "panels">> & { title: string; uid: string; panels: Array<Curves | Figure | Row> };
