//! One daemon with connections and clients that get into every kind of trouble.
//!
//! Most alerts stand to the end. Two conditions pass: a connection is at risk for the last fifth of its limit, and
//! `expiring` for the last twentieth and a second. Both come back every 15 s, for 1.7 s at the same time, so that a
//! view that misses them shows them later.

use std::{fs, net::SocketAddr, ops::Range, path::Path, time::Duration};

use lab::{Alert, Client, Direction, Lab, Manner, Message, Opcode, wait_until};
use tempfile::TempDir;

use super::{
    server_process::{self, ServerProcess},
    short_lived::ShortLived,
};
use crate::{
    backend::Backend,
    cgroup_tree::CgroupTree,
    crowd::{Crowd, Retry},
    stage::{SOON, Watch, fresh_port},
};

const POD: &str = "chat-6d4cf56db6-x7k2p";
const UID: &str = "2c48913c-b29f-11e7-9350-020968147796";
/// As containerd names it with the cgroupfs driver.
const CGROUP: &str = "kubepods/burstable/pod2c48913c-b29f-11e7-9350-020968147796/\
    0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The listeners of the server process, each with the rest of its table in the configuration. The limit of `chat` is
/// longer than the pauses between TCP's probes of a closed window.
const LISTENERS: [(&str, &str); 6] = [
    (
        "chat",
        r#"path = [{ name = "nlb", idle_timeout = "350s" }]"#,
    ),
    ("push", r#"path = [{ name = "nat", idle_timeout = "5s" }]"#),
    (
        "feed",
        r#"
message_gap = "10s"
path = [{ name = "nlb", idle_timeout = "60s" }]"#,
    ),
    (
        "api",
        r#"path = [{ name = "alb", idle_timeout = "100s", max_lifetime = "14s", on_expiry = "fin" }]"#,
    ),
    (
        "mobile",
        r#"path = [{ name = "cgnat", idle_timeout = "16s" }]"#,
    ),
    ("partner", ""),
];
/// Those of servers that only accept or refuse.
const TICKER: &str = "ticker";
const WIDGET: &str = "widget";

const HEARTBEAT: &str = "/heartbeat?every=2s";
/// A second before the limit of `mobile`, and a second after the lifetime of a connection to `api`.
const HEARTBEAT_AT_RISK: &str = "/heartbeat?every=15s";
/// Connections to `partner` that end in the same silence.
const CUT: Range<u8> = 12..24;
/// With three digits each, so that their addresses are equally long.
const TRADERS: Range<u16> = 100..130;
const RESTLESS: Range<u16> = 130..131;
const A_MINUTE: Duration = Duration::from_secs(60);

/// Fields are dropped in this order.
pub(super) struct Scene {
    _crowds: [Crowd; 2],
    _expiring: ShortLived,
    _clients: Vec<Client>,
    watch: Watch,
    _backends: [Backend; 2],
    _server: ServerProcess,
    _cgroup: CgroupTree,
    _files: TempDir,
    _lab: Lab,
}

impl Scene {
    /// Returns when every alert stands, except that `expiring` comes and goes.
    pub(super) fn new() -> Self {
        let lab = Lab::new().unwrap();
        let addrs = LISTENERS.map(|_| lab.server_addr(fresh_port()));
        let [ticker, widget] = [TICKER, WIDGET].map(|_| lab.server_addr(fresh_port()));
        let files = tempfile::tempdir().unwrap();
        fs::create_dir(files.path().join(format!("shop_{POD}_{UID}"))).unwrap();
        let config = files.path().join("wsmon.toml");
        fs::write(&config, config_text(&addrs, ticker, widget)).unwrap();
        let cgroup = CgroupTree::new(CGROUP);
        let server = server_process::start(&cgroup.leaf(), lab.server_ns(), &addrs);
        // It refuses everyone until the end.
        let trading = Backend::start(lab.server_ns(), ticker, Duration::from_secs(3600));
        let other = Backend::start(lab.server_ns(), widget, Duration::ZERO);
        let flags = ["--config", "--pod-logs"].into_iter();
        let paths = [&*config, files.path()].map(|path| path.to_str().unwrap());
        let flags: Vec<&str> = flags.zip(paths).flat_map(<[&str; 2]>::from).collect();
        let mut watch = Watch::start(&flags);

        let url = |listener: &str, path: &str| {
            let place = LISTENERS.iter().position(|(name, _)| *name == listener);
            format!("ws://{}{path}", addrs[place.unwrap()])
        };
        let client = |listener: &str, index: u8, path: &str, manner| {
            let from = lab.client_addr(index);
            Client::connect(lab.client_ns(), from, &url(listener, path), manner).unwrap()
        };
        let traders = Crowd::gather(&lab, ticker, TRADERS, Retry::Fixed(Duration::from_secs(1)));
        let dead = client("push", 0, "/heartbeat?every=7s", Manner::Responsive);
        lab.black_hole(lab.client_addr(0)).unwrap();
        let deaf = client("chat", 1, HEARTBEAT, Manner::Deaf);
        let gone = client("chat", 3, "/deaf", Manner::Responsive);
        let idle = client("push", 4, "/quiet", Manner::Responsive);
        let slow = client("chat", 5, "/stream?every=10ms&size=5000", Manner::Deaf);
        let silent = client("feed", 6, HEARTBEAT, Manner::Responsive);
        let at_risk = client("mobile", 9, HEARTBEAT_AT_RISK, Manner::Responsive);
        let heartbeats = move || at_risk.view().frames.get(Direction::Rx, Opcode::Ping);
        let from = lab.client_addr(7);
        let expiring = ShortLived::start(lab.client_ns(), from, url("api", HEARTBEAT), heartbeats);
        let late = client("mobile", 24, HEARTBEAT_AT_RISK, Manner::Responsive);
        let healthy = [10, 11].map(|index| client("chat", index, HEARTBEAT, Manner::Responsive));

        let cut: Vec<_> = CUT
            .map(|index| client("partner", index, "/quiet", Manner::Responsive))
            .collect();
        for client in &cut {
            let is_silent = || client.connected_at().elapsed() > Duration::from_secs(2);
            wait_until("a silence of two seconds", SOON, is_silent).unwrap();
            client.hang_up().unwrap();
        }
        // The verdicts are listed in the order in which they become certain, which must be the same each time.
        confirmed(&mut watch, "expired", dead.local_addr());
        // Certain with the first scan 30 s after the one that finds it, so after 30 s to 50 s.
        let uploading = client("chat", 2, "/deaf", Manner::Responsive);
        let more_than_fits = vec![0x77; 8 << 20];
        uploading
            .send(Message::Binary(more_than_fits.into()))
            .unwrap();
        confirmed(&mut watch, "unresponsive", deaf.local_addr());
        let lost = client(
            "chat",
            8,
            "/stream?every=200ms&size=1000",
            Manner::Responsive,
        );
        wait_until("some frames", SOON, || {
            lost.view().frames.get(Direction::Rx, Opcode::Binary) >= 3
        })
        .unwrap();
        lab.black_hole(lab.client_addr(8)).unwrap();
        confirmed(&mut watch, "black_holed", lost.local_addr());
        // Certain after a minute.
        gone.hang_up().unwrap();

        let retry = Retry::Restless {
            stays: Duration::from_millis(50),
            back: Duration::from_millis(1_200),
        };
        let restless = Crowd::gather(&lab, widget, RESTLESS, retry);
        on_listener(&mut watch, "thrash", WIDGET);
        on_listener(&mut watch, "at_risk", "mobile");
        drop(late);
        about(&mut watch, "backlogged", slow.local_addr());
        on_listener(&mut watch, "limit_mismatch", "partner");
        watch.alert("the rhythm of the traders", A_MINUTE, |alert| {
            alert.text("/pattern") == "lockstep"
        });
        about(&mut watch, "quiet", silent.local_addr());
        confirmed(&mut watch, "stalled", uploading.local_addr());
        confirmed(&mut watch, "half_closed", gone.local_addr());
        let mut clients = vec![dead, deaf, uploading, gone, idle, slow, silent, lost];
        clients.extend(healthy);
        Self {
            _crowds: [traders, restless],
            _expiring: expiring,
            _clients: clients,
            watch,
            _backends: [trading, other],
            _server: server,
            _cgroup: cgroup,
            _files: files,
            _lab: lab,
        }
    }

    pub(super) fn control(&self) -> &Path {
        self.watch.daemon.control()
    }
}

fn confirmed(watch: &mut Watch, kind: &str, peer: SocketAddr) {
    watch.alert(&format!("confirmed {kind}"), A_MINUTE, |alert| {
        let is_confirmed = alert.text("/certainty") == "confirmed";
        is_firing(alert, kind) && alert.peer() == Some(peer) && is_confirmed
    });
}

fn about(watch: &mut Watch, kind: &str, peer: SocketAddr) {
    watch.alert(kind, A_MINUTE, |alert| {
        is_firing(alert, kind) && alert.peer() == Some(peer)
    });
}

fn on_listener(watch: &mut Watch, kind: &str, listener: &str) {
    watch.alert(kind, A_MINUTE, |alert| {
        is_firing(alert, kind) && alert.text("/listener") == listener
    });
}

fn is_firing(alert: &Alert, kind: &str) -> bool {
    alert.text("/status") == "firing" && alert.text("/kind") == kind
}

fn config_text(addrs: &[SocketAddr], ticker: SocketAddr, widget: SocketAddr) -> String {
    let addrs = addrs.iter().chain([&ticker, &widget]);
    let listeners = LISTENERS.into_iter().chain([(TICKER, ""), (WIDGET, "")]);
    let tables = listeners.zip(addrs).map(|((name, rest), addr)| {
        let port = addr.port();
        format!("[[listener]]\nname = \"{name}\"\nports = [\"{port}\"]\n{rest}\n")
    });
    tables.collect()
}
