//! The states in which the page is checked.

use std::{thread, time::Duration};

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use monitor::{
    api::{
        access::Access,
        http::{MetricsRequest, MetricsServer},
        page::{PageData, trend::Trend},
    },
    records::status::{ListenerStatus, LossCount, StatusRecord, ZombieCounts},
};
use monitor_core::{Alert, Ktime, ListenerId, Status, Subject, Tally, VerdictKind, storm::Thrash};

/// A served page.
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) url: String,
}

/// Every scene, each on its own port.
///
/// # Errors
/// If no port is free.
pub(crate) fn all() -> Result<Vec<Scene>> {
    Ok(vec![
        links()?,
        starting()?,
        serve("young", young())?,
        serve("healthy", healthy())?,
        serve("trouble", trouble())?,
        serve("many", many())?,
    ])
}

/// Without `--status-page`.
fn links() -> Result<Scene> {
    let (url, _) = start(false)?;
    Ok(Scene { name: "links", url })
}

/// Before the daemon answers.
fn starting() -> Result<Scene> {
    let (url, _) = start(true)?;
    let name = "starting";
    Ok(Scene { name, url })
}

/// The page with these data, until the process ends.
fn serve(name: &'static str, data: PageData) -> Result<Scene> {
    let (url, serving) = start(true)?;
    let mut requests = serving.begin();
    thread::spawn(move || {
        while let Some(request) = requests.blocking_recv() {
            if let MetricsRequest::Page(reply) = request {
                // The browser may have gone.
                drop(reply.send(Box::new(data.clone())));
            }
        }
    });
    Ok(Scene { name, url })
}

fn start(has_status_page: bool) -> Result<(String, monitor::api::http::Serving)> {
    let server = MetricsServer::bind(&["127.0.0.1:0".parse()?]).context("no free port")?;
    let addr = *server.local_addrs()?.first().context("no address")?;
    Ok((
        format!("http://{addr}/"),
        server.start(has_status_page, Access::open(None)?)?,
    ))
}

/// A minute after the start.
fn young() -> PageData {
    let listeners = vec![listener("8080", "8080")];
    let status = record(listeners, Vec::new(), Duration::from_secs(75));
    hour(status, 1, |_, _, _| {})
}

fn healthy() -> PageData {
    let listeners = vec![
        ListenerStatus {
            open: 1204,
            at_risk: 3,
            heartbeat_margin_seconds: Some(22.4),
            idle_gap_p99_seconds: Some(37.6),
            learned_lower_seconds: Some(58.0),
            ..listener("edge", "8080,9000-9010")
        },
        ListenerStatus {
            remote: true,
            listening_sockets: None,
            open: 12,
            idle_limit_seconds: Some(350.0),
            hop: Some("aws-nat-gateway".to_owned()),
            ..listener("feeds", "443")
        },
    ];
    let status = record(listeners, Vec::new(), Duration::from_secs(274_000));
    hour(status, 60, |minute, status, _| {
        status[0].open = 1100 + minute * 13 % 170;
        status[1].open = 8 + minute % 5;
    })
}

/// Zombies, a storm, losses and a port without a server.
fn trouble() -> PageData {
    let listeners = vec![
        ListenerStatus {
            open: 812,
            closing: 3,
            zombies: ZombieCounts {
                confirmed: 14,
                suspected: 5,
            },
            at_risk: 41,
            heartbeat_margin_seconds: Some(-1.5),
            idle_gap_p99_seconds: Some(61.5),
            learned_lower_seconds: Some(59.0),
            learned_upper_seconds: Some(61.0),
            storm: Some("storm".to_owned()),
            ..listener(
                "a-listener-with-a-long-name-that-must-wrap-on-a-phone",
                "8080",
            )
        },
        ListenerStatus {
            listening_sockets: Some(0),
            ..listener("chat", "7742")
        },
    ];
    let problems = [
        "nobody listens on 7742 (listener chat): start the server, or find its port with wsmon ports",
        "listener a-listener-with-a-long-name-that-must-wrap-on-a-phone has 14 confirmed zombies: see wsmon alerts",
    ];
    let mut status = record(
        listeners,
        problems.map(str::to_owned).to_vec(),
        Duration::from_secs(93_784),
    );
    status.losses = vec![LossCount {
        ring: "vitals".to_owned(),
        reason: "full".to_owned(),
        total: 1_204,
        last_five_minutes: 7,
    }];
    hour(status, 60, |minute, status, tallies| {
        status[0].open = if minute < 40 {
            900
        } else {
            300 + 25 * (minute - 40)
        };
        status[0].zombies.suspected = minute * 7 % 20;
        tallies[0].detected[VerdictKind::Expired as usize][0] = minute * 7;
        tallies[0].detected[VerdictKind::BlackHoled as usize][0] = minute / 3;
        tallies[0].reconnect_storm = (40..47).contains(&minute);
    })
}

/// More listeners than have charts.
fn many() -> PageData {
    let listeners = (0..256_u64)
        .map(|index| ListenerStatus {
            open: index * 37 % 1000,
            ..listener(&format!("tenant-{index}"), &(10_000 + index).to_string())
        })
        .collect();
    let status = record(listeners, Vec::new(), Duration::from_secs(7200));
    hour(status, 60, |minute, status, tallies| {
        for (index, status) in (0..).zip(status) {
            status.open = (index * 37 + minute * 11) % 1000;
        }
        tallies[7].detected[VerdictKind::Quiet as usize][0] = minute;
    })
}

/// A record with an hour that led to it. `change` makes each minute different, by its number.
fn hour(
    status: StatusRecord,
    minutes: u64,
    change: impl Fn(u64, &mut [ListenerStatus], &mut [Tally]),
) -> PageData {
    let mut trend = Trend::new(status.listeners.len(), Ktime::ZERO);
    let mut tallies = vec![Tally::default(); status.listeners.len()];
    let mut now = Ktime::ZERO;
    for minute in 0..minutes {
        now = now + Trend::INTERVAL;
        let mut past = status.listeners.clone();
        for listener in &mut past {
            listener.zombies = ZombieCounts::default();
        }
        change(minute, &mut past, &mut tallies);
        if minute == 50 {
            trend.handle_alert(&thrash(), &tallies[0]);
        }
        trend.end_minute(now, &past, &tallies.iter().collect::<Vec<_>>());
    }
    now = now + Trend::INTERVAL / 4;
    let hours = trend.hours(now, &status.listeners, &tallies.iter().collect::<Vec<_>>());
    PageData { status, hours }
}

fn thrash() -> Alert {
    Alert {
        status: Status::Firing,
        listener: ListenerId(0),
        hop: None,
        at: Ktime::ZERO,
        since: Ktime::ZERO,
        reason: String::new(),
        subject: Subject::Thrash(Thrash {
            clients: 1,
            examples: Vec::new(),
        }),
    }
}

/// A local listener behind a hop of 60 s, without connections.
fn listener(name: &str, ports: &str) -> ListenerStatus {
    ListenerStatus {
        listener: name.to_owned(),
        ports: ports.to_owned(),
        remote: false,
        listening_sockets: Some(1),
        open: 0,
        closing: 0,
        zombies: ZombieCounts::default(),
        at_risk: 0,
        opened_total: 0,
        closed_total: 0,
        idle_limit_seconds: Some(60.0),
        hop: Some("lb".to_owned()),
        idle_gap_p99_seconds: None,
        heartbeat_margin_seconds: None,
        learned_lower_seconds: None,
        learned_upper_seconds: None,
        storm: None,
    }
}

fn record(listeners: Vec<ListenerStatus>, problems: Vec<String>, uptime: Duration) -> StatusRecord {
    let sum = |of: fn(&ListenerStatus) -> u64| listeners.iter().map(of).sum();
    StatusRecord {
        ts: Timestamp::UNIX_EPOCH,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: "6.1.0-50-amd64".to_owned(),
        pid: 812,
        uptime_seconds: uptime.as_secs_f64(),
        healthy: problems.is_empty(),
        problems,
        open: sum(|listener| listener.open),
        closing: sum(|listener| listener.closing),
        zombies: ZombieCounts {
            confirmed: sum(|listener| listener.zombies.confirmed),
            suspected: sum(|listener| listener.zombies.suspected),
        },
        at_risk: sum(|listener| listener.at_risk),
        losses: Vec::new(),
        listeners,
    }
}
