// The types of a dashboard, from Grafana's own. `cargo xtask dashboards --types` appends the dashboards.
import type {
  AnnotationQuery, Dashboard, Panel, VariableModel,
} from "@grafana/schema/dist/esm/raw/dashboard/x/Dashboard_types.gen";
import type { Options as Bars } from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type { Options as Stat } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type {
  FieldConfig as StatesField, Options as States,
} from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type { Options as Table } from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type {
  FieldConfig as LinesField, Options as Lines,
} from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

// JSON has the values of enums, and leaves out fields that have a default.
type Json<T> =
  T extends string ? `${T}`
  : T extends number ? (`${T}` extends `${infer N extends number}` ? N : T)
  : T extends boolean | null | undefined ? T
  : T extends (infer E)[] ? Json<E>[]
  : T extends object ? { [K in keyof T]?: Json<T[K]> }
  : T;

type Defaults = Omit<Json<NonNullable<Panel["fieldConfig"]>["defaults"]>, "custom">;

// Of a plugin, with its options and what it adds to the configuration of fields. The queries belong to the data source.
type Drawn<Plugin, Options, Field> = Omit<Json<Panel>, "type" | "options" | "fieldConfig" | "targets"> & {
  type: Plugin;
  options: Json<Options>;
  fieldConfig: { defaults: Defaults & { custom?: Json<Field> }; overrides: never[] };
  targets: object[];
};

type Row = {
  type: "row";
  id: number;
  title: string;
  collapsed: boolean;
  panels: never[];
  gridPos: Json<Panel["gridPos"]>;
};

type AnyPanel =
  | Drawn<"stat", Stat, {}>
  | Drawn<"timeseries", Lines, LinesField>
  | Drawn<"state-timeline", States, StatesField>
  | Drawn<"bargauge", Bars, {}>
  | Drawn<"table", Table, {}>
  | Row;

// Fields of Prometheus' data source.
type Annotation = Json<AnnotationQuery> & {
  expr: string;
  step: string;
  tagKeys: string;
  textFormat: string;
  titleFormat: string;
};

type Variable = Json<VariableModel> & { definition?: string };

type Checked = Omit<Json<Dashboard>, "annotations" | "panels" | "templating"> & {
  annotations: { list: Annotation[] };
  panels: AnyPanel[];
  templating: { list: Variable[] };
};
