//! One panel: its queries to Prometheus, and how Grafana draws the results.

use serde_json::{Value, json};

/// What a panel looks like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A number.
    Number,
    /// A number of faults: red from 1 on.
    Faults,
    Lines,
    /// Lines, one on top of the other.
    Stacked,
    /// The states of each series over time, 1 in red.
    States,
    /// The counts of a histogram's buckets over the whole range.
    Buckets,
    Table,
}

pub(super) struct Panel {
    kind: Kind,
    title: &'static str,
    description: &'static str,
    unit: &'static str,
    /// PromQL, in which `@` stands for the selector of the dashboard, and the legend.
    queries: Vec<(&'static str, &'static str)>,
    /// Columns, of 24 in a row.
    pub(super) width: u8,
}

/// Grafana's names of units.
pub(super) const COUNT: &str = "short";
pub(super) const PER_SECOND: &str = "cps";
pub(super) const SHARE: &str = "percentunit";
pub(super) const SECONDS: &str = "s";
pub(super) const BYTES: &str = "bytes";
pub(super) const BYTES_PER_SECOND: &str = "Bps";

impl Panel {
    pub(super) fn number(title: &'static str, query: &'static str) -> Self {
        Self::new(Kind::Number, title, COUNT, 3).query(query, "")
    }

    pub(super) fn faults(title: &'static str, query: &'static str) -> Self {
        Self::new(Kind::Faults, title, COUNT, 3).query(query, "")
    }

    pub(super) fn lines(title: &'static str, unit: &'static str) -> Self {
        Self::new(Kind::Lines, title, unit, 12)
    }

    pub(super) fn stacked(title: &'static str, unit: &'static str) -> Self {
        Self::new(Kind::Stacked, title, unit, 12)
    }

    pub(super) fn states(title: &'static str) -> Self {
        Self::new(Kind::States, title, COUNT, 12)
    }

    pub(super) fn buckets(title: &'static str, query: &'static str) -> Self {
        Self::new(Kind::Buckets, title, COUNT, 12).query(query, "{{le}}")
    }

    /// A table with a column for each query.
    pub(super) fn table(title: &'static str) -> Self {
        Self::new(Kind::Table, title, COUNT, 24)
    }

    fn new(kind: Kind, title: &'static str, unit: &'static str, width: u8) -> Self {
        Self {
            kind,
            title,
            description: "",
            unit,
            queries: Vec::new(),
            width,
        }
    }

    pub(super) fn query(mut self, expr: &'static str, legend: &'static str) -> Self {
        self.queries.push((expr, legend));
        self
    }

    pub(super) fn width(mut self, width: u8) -> Self {
        self.width = width;
        self
    }

    pub(super) fn about(mut self, description: &'static str) -> Self {
        self.description = description;
        self
    }

    /// Rows of the grid.
    pub(super) fn height(&self) -> u8 {
        match self.kind {
            Kind::Number | Kind::Faults => 4,
            _ => 8,
        }
    }

    /// The panel without its place in the grid.
    pub(super) fn json(&self, selector: &str) -> Value {
        json!({
            "type": self.kind.plugin(),
            "title": self.title,
            "description": self.description,
            "datasource": datasource(),
            "fieldConfig": { "defaults": self.field_defaults(), "overrides": [] },
            "options": self.kind.options(),
            "targets": self.targets(selector),
            "transformations": self.transformations(),
        })
    }

    fn targets(&self, selector: &str) -> Vec<Value> {
        let over_time = matches!(self.kind, Kind::Lines | Kind::Stacked | Kind::States);
        let format = match self.kind {
            Kind::Table => "table",
            Kind::Buckets => "heatmap",
            _ => "time_series",
        };
        (b'A'..)
            .zip(&self.queries)
            .map(|(id, (expr, legend))| {
                json!({
                    "refId": char::from(id).to_string(),
                    "datasource": datasource(),
                    "expr": expr.replace('@', selector),
                    "legendFormat": legend,
                    "format": format,
                    "instant": !over_time,
                    "range": over_time,
                })
            })
            .collect()
    }

    fn field_defaults(&self) -> Value {
        match self.kind {
            Kind::Number => json!({
                "unit": self.unit,
                "color": { "mode": "thresholds" },
                "thresholds": steps("text", "text"),
            }),
            Kind::Faults => json!({
                "unit": self.unit,
                "color": { "mode": "thresholds" },
                "thresholds": steps("green", "red"),
            }),
            Kind::Lines | Kind::Stacked => {
                let stacking = if self.kind == Kind::Stacked {
                    "normal"
                } else {
                    "none"
                };
                json!({
                    "unit": self.unit,
                    "custom": {
                        "drawStyle": "line",
                        "lineWidth": 1,
                        "fillOpacity": if self.kind == Kind::Stacked { 30 } else { 5 },
                        "showPoints": "never",
                        "stacking": { "mode": stacking, "group": "A" },
                    },
                })
            }
            Kind::States => json!({
                "color": { "mode": "thresholds" },
                "thresholds": steps("green", "red"),
                "mappings": [{
                    "type": "value",
                    "options": { "0": { "text": "no", "index": 0 }, "1": { "text": "yes", "index": 1 } },
                }],
                "custom": { "lineWidth": 0, "fillOpacity": 70 },
            }),
            Kind::Buckets | Kind::Table => json!({ "unit": self.unit }),
        }
    }

    /// Columns have the title of their query's legend.
    fn transformations(&self) -> Value {
        if self.kind != Kind::Table {
            return json!([]);
        }
        let mut names = serde_json::Map::new();
        for (id, (_, legend)) in (b'A'..).zip(&self.queries) {
            let value = match self.queries.len() {
                1 => "Value".to_owned(),
                _ => format!("Value #{}", char::from(id)),
            };
            names.insert(value, json!(legend));
        }
        json!([
            { "id": "merge", "options": {} },
            {
                "id": "organize",
                "options": {
                    "excludeByName": { "Time": true, "__name__": true, "alertstate": true },
                    "indexByName": {},
                    "renameByName": names,
                },
            },
        ])
    }
}

impl Kind {
    /// The name of Grafana's plugin.
    const fn plugin(self) -> &'static str {
        match self {
            Self::Number | Self::Faults => "stat",
            Self::Lines | Self::Stacked => "timeseries",
            Self::States => "state-timeline",
            Self::Buckets => "bargauge",
            Self::Table => "table",
        }
    }

    fn options(self) -> Value {
        let last = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
        match self {
            Self::Number | Self::Faults => {
                json!({ "reduceOptions": last, "colorMode": "value", "graphMode": "none" })
            }
            Self::Lines | Self::Stacked => json!({
                "legend": {
                    "displayMode": "table",
                    "placement": "bottom",
                    "showLegend": true,
                    "calcs": ["lastNotNull", "max"],
                },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
            Self::States => json!({
                "mergeValues": true,
                "showValue": "never",
                "alignValue": "left",
                "rowHeight": 0.8,
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": [] },
                "tooltip": { "mode": "single", "sort": "none" },
            }),
            Self::Buckets => json!({
                "reduceOptions": last,
                "orientation": "vertical",
                "displayMode": "basic",
                "showUnfilled": true,
            }),
            Self::Table => json!({ "showHeader": true, "cellHeight": "sm" }),
        }
    }
}

fn steps(below: &str, from_one: &str) -> Value {
    json!({
        "mode": "absolute",
        "steps": [{ "color": below, "value": null }, { "color": from_one, "value": 1 }],
    })
}

pub(super) fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}
