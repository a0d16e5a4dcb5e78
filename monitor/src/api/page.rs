//! The page at `/` of the metrics address, for people: links to what wsmon serves there, and with
//! `--status-page` the state of the daemon.
//!
//! It has no script and loads nothing, and its policy lets nothing in. It names listeners and hops of the
//! configuration, and no connection, peer or owner.

use std::fmt::{self, Display};

use crate::records::status::StatusRecord;

mod alerts;
mod chart;
mod listeners;
mod state;
mod text;
pub mod trend;

use alerts::AlertCounts;
use listeners::{ListenerCharts, ListenerTable};
use state::StateSection;
use trend::TimedPoint;

/// What the page with the state of the daemon shows.
#[derive(Clone, Debug)]
pub struct PageData {
    pub status: StatusRecord,
    /// The last hour of each listener, in the order of the record.
    pub hours: Vec<Vec<TimedPoint>>,
}

/// What every response forbids a browser. The hash is that of [`STYLE`]; a test compares it.
pub(super) const POLICY: &str = "default-src 'none'; \
    style-src 'sha256-IrznSQVku+Zhl2N/qZ2YkqqiVtf3H4X/6WqrKhryoUY='; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const STYLE: &str = include_str!("page/style.css");

/// Without one, a browser requests `/favicon.ico`.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E\
    %3Cpath d='M1 8h3l2-5 4 10 2-5h3' fill='none' stroke='%231a7f37' stroke-width='2'/%3E%3C/svg%3E";

/// The query with which the page loads again every 30 seconds. Only on request: a page that changes
/// alone is hard to read with a screen reader or a magnifier.
pub(super) const RELOADING: &str = "refresh=on";

/// The page without `--status-page`.
pub(super) fn links() -> String {
    Document {
        title: "wsmon",
        reloads: false,
        content: "<p>wsmon watches the WebSocket connections of this host. <code>--status-page</code> shows \
                  its state here.</p>\n",
    }
    .to_string()
}

/// The page while the daemon doesn't answer.
pub(super) fn unavailable(reloads: bool) -> String {
    Document {
        title: "wsmon: no state yet",
        reloads,
        content: "<p>wsmon has no state to show: it is starting or stopping, or its log has the reason.</p>\n",
    }
    .to_string()
}

/// The state of the daemon.
pub(super) fn status(data: &PageData, reloads: bool) -> String {
    let title = match data.status.healthy {
        true => "wsmon: healthy".to_owned(),
        false => format!("wsmon: {}", state::problems(&data.status)),
    };
    Document {
        title: &title,
        reloads,
        content: Content { data, reloads },
    }
    .to_string()
}

struct Document<'a, T> {
    title: &'a str,
    reloads: bool,
    content: T,
}

impl<T: Display> Display for Document<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let refresh = match self.reloads {
            true => "<meta http-equiv=\"refresh\" content=\"30\">\n",
            false => "",
        };
        let Self { title, content, .. } = self;
        write!(
            f,
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n{refresh}\
             <title>{title}</title>\n<link rel=\"icon\" href=\"{ICON}\">\n<style>{STYLE}</style>\n</head>\n\
             <body>\n<a class=\"skip\" href=\"#content\">Skip to the content</a>\n<header>\n\
             <h1>wsmon <small>{}</small></h1>\n<nav aria-label=\"Pages\"><ul>\n\
             <li><a href=\"/metrics\">Metrics</a></li>\n<li><a href=\"/healthz\">Health</a></li>\n\
             <li><a href=\"/readyz\">Readiness</a></li>\n\
             <li><a href=\"/docs/alerts.md\">What the verdicts mean</a></li>\n\
             <li><a href=\"/docs/metrics.md\">What the metrics mean</a></li>\n</ul></nav>\n</header>\n\
             <main id=\"content\">\n{content}</main>\n</body>\n</html>\n",
            env!("CARGO_PKG_VERSION")
        )
    }
}

struct Content<'a> {
    data: &'a PageData,
    reloads: bool,
}

impl Display for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PageData { status, hours } = self.data;
        let reloads = self.reloads;
        write!(f, "{}", StateSection { status, reloads })?;
        write!(f, "{}", ListenerTable(&status.listeners))?;
        write!(f, "{}", AlertCounts { status, hours })?;
        write!(f, "{}", ListenerCharts { status, hours })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use base64::{Engine, prelude::BASE64_STANDARD};
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::{
        api::page::trend::{Trend, TrendPoint},
        records::status::{ListenerStatus, LossCount, ZombieCounts},
    };

    /// A listener without connections.
    pub(crate) fn listener(name: &str) -> ListenerStatus {
        ListenerStatus {
            listener: name.to_owned(),
            ports: "8080".to_owned(),
            remote: false,
            listening_sockets: Some(1),
            open: 0,
            closing: 0,
            zombies: ZombieCounts::default(),
            at_risk: 0,
            opened_total: 0,
            closed_total: 0,
            idle_limit_seconds: None,
            hop: None,
            idle_gap_p99_seconds: None,
            heartbeat_margin_seconds: None,
            learned_lower_seconds: None,
            learned_upper_seconds: None,
            storm: None,
        }
    }

    pub(crate) fn record(listeners: Vec<ListenerStatus>) -> StatusRecord {
        StatusRecord {
            ts: "2026-11-30T21:03:12Z".parse().expect("a time"),
            version: "0.1.0".to_owned(),
            kernel: "6.1.0".to_owned(),
            pid: 812,
            uptime_seconds: 93_784.0,
            healthy: true,
            problems: Vec::new(),
            open: listeners.iter().map(|listener| listener.open).sum(),
            closing: 0,
            zombies: ZombieCounts::default(),
            at_risk: 0,
            losses: Vec::new(),
            listeners,
        }
    }

    #[test]
    fn the_policy_has_the_hash_of_the_style() {
        let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
        let expected = format!("style-src 'sha256-{hash}';");
        assert!(POLICY.contains(&expected), "{expected} is not in {POLICY}");
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
    }

    #[test]
    fn a_page_before_the_first_minute_says_that_there_is_nothing_yet() {
        let data = PageData {
            status: record(Vec::new()),
            hours: Vec::new(),
        };
        let page = status(&data, false);
        assert!(page.contains("<title>wsmon: healthy</title>"), "{page}");
        assert!(
            page.contains("0 listeners, 0 open connections, 0 zombies"),
            "{page}"
        );
        assert!(page.contains("No alerts began"), "{page}");
        assert!(page.contains("2026-11-30 21:03:12 UTC"), "{page}");
        assert!(page.contains("up for 1 d 2 h"), "{page}");
        assert!(!page.contains("http-equiv"), "{page}");
        assert!(status(&data, true).contains("http-equiv=\"refresh\" content=\"30\""));
    }

    #[test]
    fn nothing_of_the_record_becomes_markup() {
        let hostile = "</style><script>alert('\"&')</script>\u{1b}[2J\u{202e}";
        let data = PageData {
            status: StatusRecord {
                healthy: false,
                problems: vec![hostile.to_owned()],
                kernel: hostile.to_owned(),
                losses: vec![LossCount {
                    ring: hostile.to_owned(),
                    reason: hostile.to_owned(),
                    total: 1,
                    last_five_minutes: 0,
                }],
                ..record(vec![ListenerStatus {
                    ports: hostile.to_owned(),
                    idle_limit_seconds: Some(60.0),
                    hop: Some(hostile.to_owned()),
                    storm: Some(hostile.to_owned()),
                    ..listener(hostile)
                }])
            },
            hours: vec![vec![hour_of("zombie")[0].clone()]],
        };
        let page = status(&data, false);
        assert_eq!(page.matches("<script").count(), 0, "{page}");
        assert_eq!(page.matches("</style>").count(), 1);
        assert!(!page.contains(|c: char| c == '\u{202e}' || c.is_control() && c != '\n'));
        assert!(page.contains("<title>wsmon: 1 problem</title>"), "{page}");
        // The name, the ports, the hop, the storm, the problem, the kernel and both of the loss.
        assert!(page.matches("&lt;script&gt;").count() >= 8, "{page}");
    }

    /// An hour in which every value differs from the one before, so that the chart is as long as it gets.
    fn hour_of(alert: &'static str) -> Vec<TimedPoint> {
        let minute = |index: usize| {
            let began_ago = 3_601.5 - 60.0 * index as f64;
            TimedPoint {
                began_ago,
                ended_ago: (began_ago - 60.0).max(0.0),
                point: TrendPoint {
                    open: 987_654_321 + 1_234_567 * (index as u64 % 7),
                    zombies: 123_456 + 7_890 * (index as u64 % 5),
                    at_risk: 12_345_678,
                    margin_seconds: Some(-0.123),
                    storm: index.is_multiple_of(2),
                    alerts: BTreeMap::from([(alert, 1_000_000)]),
                },
            }
        };
        (0..=Trend::MINUTES).map(minute).collect()
    }

    #[test]
    fn the_largest_page_has_less_than_a_megabyte_and_says_what_it_leaves_out() {
        let listeners: Vec<_> = (0..256)
            .map(|index| {
                let name = format!("{index}{}", "\"".repeat(1000));
                ListenerStatus {
                    ports: "'".repeat(1000),
                    open: u64::MAX,
                    closing: u64::MAX,
                    idle_limit_seconds: Some(1.0e9),
                    hop: Some("&".repeat(1000)),
                    heartbeat_margin_seconds: Some(-1.0e9),
                    learned_lower_seconds: Some(1.0e9),
                    learned_upper_seconds: Some(1.0e9),
                    storm: Some("mass_close".to_owned()),
                    ..listener(&name)
                }
            })
            .collect();
        let mut status_record = record(Vec::new());
        status_record.listeners = listeners;
        status_record.healthy = false;
        status_record.problems = vec!["<".repeat(2000); 300];
        let data = PageData {
            status: status_record,
            hours: vec![hour_of("reconnect_storm"); 256],
        };
        let page = status(&data, false);
        assert!(page.len() < 1 << 20, "{} bytes", page.len());
        assert_eq!(page.matches("<tr>").count(), 256 + 1 + 1 + 1, "{page}");
        assert!(page.contains("40 of 256 listeners"), "{page}");
        assert!(page.contains("and 280 more"), "{page}");
    }
}
