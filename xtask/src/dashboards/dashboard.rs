//! A dashboard: variables, rows of panels, and annotations.

use serde_json::{Value, json};

use super::panel::{Panel, datasource};

pub(super) struct Dashboard {
    /// Also the file's name.
    pub(super) uid: &'static str,
    pub(super) title: &'static str,
    pub(super) description: &'static str,
    pub(super) variables: &'static [Variable],
    pub(super) rows: Vec<Row>,
}

pub(super) struct Row {
    pub(super) title: &'static str,
    pub(super) panels: Vec<Panel>,
}

/// A selection at the top of a dashboard: every value, or some, of a label of `wsmon_connections`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Variable {
    Job,
    Instance,
    Listener,
}

const COLUMNS: u8 = 24;

impl Dashboard {
    /// What Grafana imports.
    pub(super) fn json(&self) -> Value {
        json!({
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["wsmon"],
            "schemaVersion": 39,
            "version": 1,
            "editable": true,
            "graphTooltip": 1,
            "timezone": "browser",
            "refresh": "30s",
            "time": { "from": "now-1h", "to": "now" },
            "links": [{
                "type": "dashboards",
                "title": "wsmon",
                "tags": ["wsmon"],
                "asDropdown": false,
                "includeVars": true,
                "keepTime": true,
                "targetBlank": false,
                "icon": "external link",
                "tooltip": "",
                "url": "",
            }],
            "templating": { "list": self.variables() },
            "annotations": { "list": [self.annotation()] },
            "panels": self.panels(),
        })
    }

    /// The labels of the variables, as in a series' braces.
    fn selector(&self) -> String {
        let labels = self.variables.iter().map(|variable| {
            let name = variable.label();
            format!("{name}=~\"${name}\"")
        });
        labels.collect::<Vec<_>>().join(",")
    }

    fn variables(&self) -> Vec<Value> {
        let datasource = json!({
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "hide": 0,
            "includeAll": false,
            "multi": false,
            "options": [],
            "refresh": 1,
            "regex": "",
        });
        let variables = (0..).zip(self.variables).map(|(before, variable)| {
            let before = &self.variables[..before];
            variable.json(before)
        });
        [datasource].into_iter().chain(variables).collect()
    }

    /// The alerts of what is selected, while they fire.
    fn annotation(&self) -> Value {
        let selector = self.selector();
        json!({
            "name": "Alerts",
            "enable": true,
            "hide": false,
            "iconColor": "red",
            "datasource": datasource(),
            "expr": format!(
                "ALERTS{{alertstate=\"firing\",alertname=~\"WebSocket.+|Wsmon.+\",{selector}}}"
            ),
            "titleFormat": "{{alertname}}",
            "textFormat": "{{listener}} {{instance}} {{kind}}",
            "tagKeys": "severity",
            "step": "30s",
        })
    }

    fn panels(&self) -> Vec<Value> {
        let selector = self.selector();
        let mut placed = Vec::new();
        let mut y = 0;
        let mut place = |mut json: Value, x: u8, y: u32, width: u8, height: u8| {
            json["id"] = json!(placed.len() + 1);
            json["gridPos"] = json!({ "x": x, "y": y, "w": width, "h": height });
            placed.push(json);
        };
        for row in &self.rows {
            let title =
                json!({ "type": "row", "title": row.title, "collapsed": false, "panels": [] });
            place(title, 0, y, COLUMNS, 1);
            y += 1;
            let (mut x, mut height) = (0, 0);
            for panel in &row.panels {
                if x + panel.width > COLUMNS {
                    y += u32::from(height);
                    (x, height) = (0, 0);
                }
                place(panel.json(&selector), x, y, panel.width, panel.height());
                x += panel.width;
                height = height.max(panel.height());
            }
            y += u32::from(height);
        }
        placed
    }
}

impl Variable {
    /// The label, and the variable's name.
    const fn label(self) -> &'static str {
        match self {
            Self::Job => "job",
            Self::Instance => "instance",
            Self::Listener => "listener",
        }
    }

    /// The regular expression of all values.
    const fn all(self) -> &'static str {
        match self {
            // As in the rules: other jobs have `up` and `process_*` too. WsmonAbsent has no job.
            Self::Job => "(.*/)?wsmon|",
            // Alerts of the fleet have no instance, and those of wsmon itself no listener.
            Self::Instance | Self::Listener => ".*",
        }
    }

    /// The values depend on the variables `before` this one.
    fn json(self, before: &[Self]) -> Value {
        let name = self.label();
        let given: Vec<_> = before
            .iter()
            .map(|variable| format!("{0}=~\"${0}\"", variable.label()))
            .collect();
        let query = format!(
            "label_values(wsmon_connections{{{}}}, {name})",
            given.join(",")
        );
        json!({
            "name": name,
            "label": match self {
                Self::Job => "Job",
                Self::Instance => "Host",
                Self::Listener => "Listener",
            },
            "type": "query",
            "datasource": datasource(),
            "definition": query,
            "query": { "query": query, "refId": "StandardVariableQuery" },
            "includeAll": true,
            "allValue": self.all(),
            "multi": true,
            "current": { "text": ["All"], "value": ["$__all"] },
            "hide": 0,
            "options": [],
            "refresh": 2,
            "regex": "",
            "sort": 1,
        })
    }
}
