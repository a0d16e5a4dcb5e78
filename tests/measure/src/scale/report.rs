//! The results of crowds of several sizes: a table, JSON, and a picture of how the cost grows.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::stage::Measured;
use crate::{
    machine,
    picture::{Anchor, GRID, INK, LINE_HEIGHT, OURS, Picture, TARGET},
    statistics::{quantile, slope},
};

const MEBI: f64 = 1_048_576.0;

/// The crowds, the smallest first.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) crowds: Vec<Measured>,
}

impl Report {
    pub(super) fn table(&self) -> String {
        let cells = |name: &str, of: &dyn Fn(&Measured) -> String| {
            let cells = self.crowds.iter().map(|crowd| format!("{:>14}", of(crowd)));
            format!("{name:<44}{}\n", cells.collect::<String>())
        };
        let seconds = |of: Option<f64>| of.map_or_else(|| "-".to_owned(), |s| format!("{s:.3} s"));
        let mut table = cells("connections", &|crowd| crowd.plan.connections.to_string());
        table += &cells("set-up", &|crowd| format!("{:.1} s", crowd.set_up));
        table += &cells("pings a second", &|crowd| {
            format!("{:.0}", crowd.pings_per_second)
        });
        table += &cells("daemon, of one core", &|crowd| percent(crowd.daemon_share));
        table += &cells("  of it looking at the host's sockets", &|crowd| {
            percent(crowd.reconcile_share)
        });
        table += &cells("daemon, resident", &|crowd| mebi(crowd.daemon_bytes as f64));
        table += &cells("  bytes a connection", &|crowd| {
            format!(
                "{:.0}",
                daemon_growth(crowd) / crowd.plan.connections as f64
            )
        });
        table += &cells("kernel, slabs", &|crowd| mebi(crowd.kernel_bytes as f64));
        table += &cells("  bytes a connection", &|crowd| {
            format!(
                "{:.0}",
                crowd.kernel_bytes as f64 / crowd.plan.connections as f64
            )
        });
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            table += &cells(
                &format!("deaths one by one: found after, {name}"),
                &|crowd| seconds(quantile(&crowd.fading, share)),
            );
        }
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
            table += &cells(&format!("deaths at once: found after, {name}"), &|crowd| {
                seconds(quantile(&crowd.at_once, share))
            });
        }
        table += &cells("  daemon's CPU until then", &|crowd| {
            seconds(Some(crowd.verdicts_cpu))
        });
        table += &cells("deaths", &|crowd| {
            (crowd.plan.fading + crowd.plan.at_once).to_string()
        });
        table += &cells("  missed / wrong", &|crowd| {
            format!("{} / {}", crowd.missed, crowd.wrong.len())
        });
        table += &cells("  reported, in lines of the alert log", &|crowd| {
            format!("{} in {}", crowd.reported, crowd.alert_lines)
        });
        table += &cells("events lost / untracked", &|crowd| {
            format!("{} / {}", lost(crowd), crowd.untracked)
        });
        table += &cells("scrape every 5 s, median", &|crowd| {
            seconds(quantile(&crowd.scrapes, 0.5))
        });
        table += &cells("  max", &|crowd| seconds(quantile(&crowd.scrapes, 1.0)));
        table += &cells("wsmon list --limit 40", &|crowd| {
            seconds(Some(crowd.list_screen))
        });
        table += &cells("wsmon list", &|crowd| seconds(Some(crowd.list_all)));
        table += &cells("second daemon: ready after", &|crowd| {
            seconds(Some(crowd.second_ready))
        });
        table += &cells("a ping of theirs was late by at most", &|crowd| {
            seconds(Some(crowd.most_late))
        });
        let slopes = [
            ("kernel", self.slope(|crowd| crowd.kernel_bytes as f64)),
            ("daemon", self.slope(daemon_growth)),
        ];
        for (name, slope) in slopes {
            if let Some(slope) = slope {
                table += &format!("slope, {name}: {slope:.0} bytes a connection\n");
            }
        }
        for failure in self.failures() {
            table += &format!("FAILED  {failure}\n");
        }
        table
    }

    pub(super) fn failures(&self) -> Vec<String> {
        self.crowds.iter().flat_map(Measured::failures).collect()
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "machine": machine::description(),
            "kernel_bytes_per_connection": self.slope(|crowd| crowd.kernel_bytes as f64),
            "daemon_bytes_per_connection": self.slope(daemon_growth),
            "failures": self.failures(),
            "crowds": self.crowds.iter().map(crowd_json).collect::<Vec<_>>(),
        })
    }

    /// Four panels over the number of connections, both axes logarithmic: a line of slope one means
    /// proportional cost.
    pub(super) fn picture(&self) -> String {
        const PANEL: (f64, f64) = (370.0, 210.0);
        let mut picture = Picture::new(
            PANEL.0 * 2.0,
            PANEL.1 * 2.0 + LINE_HEIGHT,
            "What wsmon costs, by the number of connections",
        );
        let panels: [Panel; 4] = [
            Panel {
                title: "kernel, MiB (green: 1 KiB each)",
                value: |crowd| crowd.kernel_bytes as f64 / MEBI,
                target: |connections| connections * 1_024.0 / MEBI,
            },
            Panel {
                title: "daemon, MiB (green: 200 bytes each)",
                value: |crowd| daemon_growth(crowd) / MEBI,
                target: |connections| connections * 200.0 / MEBI,
            },
            Panel {
                title: "daemon, % of a core (green: 5 % at 1 M)",
                value: |crowd| crowd.daemon_share * 100.0,
                target: |connections| connections * 5.0 / 1e6,
            },
            Panel {
                title: "deaths at once found, s, p99 (green: 1 s)",
                value: |crowd| quantile(&crowd.at_once, 0.99).unwrap_or_default(),
                target: |_| 1.0,
            },
        ];
        for (index, panel) in panels.iter().enumerate() {
            let origin = (
                (index % 2) as f64 * PANEL.0,
                (index / 2) as f64 * PANEL.1 + LINE_HEIGHT,
            );
            panel.draw(&mut picture, origin, PANEL, &self.crowds);
        }
        picture.svg()
    }

    fn slope(&self, of: impl Fn(&Measured) -> f64) -> Option<f64> {
        let point = |crowd: &Measured| (crowd.plan.connections as f64, of(crowd));
        slope(&self.crowds.iter().map(point).collect::<Vec<_>>())
    }
}

struct Panel {
    title: &'static str,
    value: fn(&Measured) -> f64,
    target: fn(f64) -> f64,
}

impl Panel {
    fn draw(
        &self,
        picture: &mut Picture,
        (left, top): (f64, f64),
        (width, height): (f64, f64),
        crowds: &[Measured],
    ) {
        let points: Vec<(f64, f64)> = crowds
            .iter()
            .map(|crowd| (crowd.plan.connections as f64, (self.value)(crowd)))
            .filter(|point| point.1 > 0.0)
            .collect();
        picture.heading(left + 8.0, top, self.title);
        let (Some(first), Some(last)) = (points.first(), points.last()) else {
            return;
        };
        let decades = |values: &mut dyn Iterator<Item = f64>| {
            let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), value| {
                (low.min(value), high.max(value))
            });
            (
                low.log10().floor(),
                high.log10().ceil().max(low.log10().floor() + 1.0),
            )
        };
        let targets = [first.0, last.0].map(|x| (x, (self.target)(x)));
        let xs = decades(&mut points.iter().map(|point| point.0));
        let ys = decades(&mut points.iter().chain(&targets).map(|point| point.1));
        let (x0, x1, y0, y1) = (
            left + 58.0,
            left + width - 26.0,
            top + height - 44.0,
            top + 12.0,
        );
        let place = |(x, y): (f64, f64)| {
            (
                x0 + (x.log10() - xs.0) / (xs.1 - xs.0) * (x1 - x0),
                y0 - (y.log10() - ys.0) / (ys.1 - ys.0) * (y0 - y1),
            )
        };
        for exponent in xs.0 as i32..=xs.1 as i32 {
            let (x, _) = place((10_f64.powi(exponent), 1.0));
            picture.line((x, y0), (x, y1), GRID, 1.0);
            picture.text(x, y0 + 15.0, Anchor::Middle, &power(exponent));
        }
        for exponent in ys.0 as i32..=ys.1 as i32 {
            let (_, y) = place((1.0, 10_f64.powi(exponent)));
            picture.line((x0, y), (x1, y), GRID, 1.0);
            picture.text(x0 - 6.0, y + 4.0, Anchor::End, &power(exponent));
        }
        picture.line(place(targets[0]), place(targets[1]), TARGET, 1.5);
        for pair in points.windows(2) {
            picture.line(place(pair[0]), place(pair[1]), OURS, 2.0);
        }
        for point in &points {
            let (x, y) = place(*point);
            picture.dot(x, y, OURS);
        }
        picture.line((x0, y0), (x1, y0), INK, 1.0);
    }
}

/// A power of ten for an axis.
fn power(exponent: i32) -> String {
    match exponent {
        ..0 => format!(
            "{:.*}",
            exponent.unsigned_abs() as usize,
            10_f64.powi(exponent)
        ),
        0..3 => format!("{}", 10_u32.pow(exponent as u32)),
        3..6 => format!("{} k", 10_u32.pow(exponent as u32 - 3)),
        _ => format!("{:.0} M", 10_f64.powi(exponent - 6)),
    }
}

fn crowd_json(crowd: &Measured) -> Value {
    let latencies = |values: &[f64]| {
        json!({
            "count": values.len(),
            "p50": quantile(values, 0.5),
            "p99": quantile(values, 0.99),
            "max": quantile(values, 1.0),
        })
    };
    let plan = crowd.plan;
    json!({
        "connections": plan.connections,
        "ping_every_seconds": plan.ping_every.as_secs_f64(),
        "limit_seconds": plan.limit.as_secs_f64(),
        "set_up_seconds": crowd.set_up,
        "daemon": {
            "share_of_a_core": crowd.daemon_share,
            "reconcile_share_of_a_core": crowd.reconcile_share,
            "measured_seconds": plan.steady.as_secs_f64(),
            "pings_per_second": crowd.pings_per_second,
            "resident_bytes": crowd.daemon_bytes,
            "resident_bytes_without_connections": crowd.daemon_empty_bytes,
        },
        "kernel_bytes": crowd.kernel_bytes,
        "deaths": {
            "seconds_after_the_limit": {
                "one_by_one": latencies(&crowd.fading),
                "at_once": latencies(&crowd.at_once),
            },
            "daemon_cpu_seconds": crowd.verdicts_cpu,
            "missed": crowd.missed,
            "wrong": crowd.wrong,
            "reported": crowd.reported,
            "alert_lines": crowd.alert_lines,
            "taken_back": crowd.recovered,
        },
        "events_lost": crowd.lost.iter().cloned().collect::<BTreeMap<_, _>>(),
        "events_lost_in_set_up": crowd.lost_in_set_up,
        "untracked": crowd.untracked,
        "scrape_seconds": {
            "median": quantile(&crowd.scrapes, 0.5),
            "max": quantile(&crowd.scrapes, 1.0),
        },
        "list_seconds": { "screen": crowd.list_screen, "all": crowd.list_all },
        "started_beside": {
            "ready_seconds": crowd.second_ready,
            "found": crowd.second_found,
        },
        "most_late_ping_seconds": crowd.most_late,
    })
}

fn lost(crowd: &Measured) -> f64 {
    crowd.lost.iter().fold(0.0, |sum, (_, number)| sum + number)
}

fn daemon_growth(crowd: &Measured) -> f64 {
    crowd.daemon_bytes.saturating_sub(crowd.daemon_empty_bytes) as f64
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn mebi(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / MEBI)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_labelled_in_thousands_and_millions() {
        let labels = [-2, -1, 0, 2, 3, 5, 6].map(power);
        assert_eq!(labels, ["0.01", "0.1", "1", "100", "1 k", "100 k", "1 M"]);
    }
}
