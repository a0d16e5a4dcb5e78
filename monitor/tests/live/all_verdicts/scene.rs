//! One daemon with connections and clients that get into every kind of trouble.
//!
//! The slowest verdicts set the pace: `half_closed` takes a minute, and `expiring` holds for a twentieth of its
//! limit. What comes later on the screen waits for what comes before it.

use std::{fs, net::SocketAddr, ops::Range, path::Path, time::Duration};

use lab::{Alert, Client, Direction, Lab, Manner, Message, Opcode, wait_until};
use tempfile::TempDir;

use super::server_process::{self, ServerProcess};
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

/// The listeners of the server process, each with the rest of its table in the configuration.
const LISTENERS: [(&str, &str); 6] = [
    (
        "chat",
        r#"
path = [{ name = "nlb", idle_timeout = "60s" }]
[[listener.route]]
network = "10.77.1.20/32"
path = [{ name = "vpn", idle_timeout = "104s" }]"#,
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
        r#"path = [{ name = "alb", idle_timeout = "100s", on_expiry = "fin" }]"#,
    ),
    (
        "mobile",
        r#"path = [{ name = "cgnat", idle_timeout = "6s" }]"#,
    ),
    ("partner", ""),
];
/// Those of servers that only accept or refuse.
const TICKER: &str = "ticker";
const WIDGET: &str = "widget";

const HEARTBEAT: &str = "/heartbeat?every=2s";
/// The client that the route of `chat` is for, by its index in the lab.
const BEHIND_VPN: u8 = 9;
/// Connections to `partner` that end in the same silence.
const CUT: Range<u8> = 12..24;
/// With three digits each, so that their addresses are equally long.
const TRADERS: Range<u16> = 100..130;
const RESTLESS: Range<u16> = 130..131;
const A_MINUTE: Duration = Duration::from_secs(60);

/// Fields are dropped in this order.
pub(super) struct Scene {
    _traders: Crowd,
    _clients: Vec<Client>,
    watch: Watch,
    _backends: [Backend; 2],
    _server: ServerProcess,
    _cgroup: CgroupTree,
    _files: TempDir,
    _lab: Lab,
}

impl Scene {
    /// Returns when every alert stands but `stalled` and `expiring`.
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

        let client = |listener: &str, index: u8, path: &str, manner| {
            let place = LISTENERS.iter().position(|(name, _)| *name == listener);
            let url = format!("ws://{}{path}", addrs[place.unwrap()]);
            Client::connect(lab.client_ns(), lab.client_addr(index), &url, manner).unwrap()
        };
        let traders = Crowd::gather(&lab, ticker, TRADERS, Retry::Fixed(Duration::from_secs(1)));
        let dead = client("push", 0, "/heartbeat?every=7s", Manner::Responsive);
        lab.black_hole(lab.client_addr(0)).unwrap();
        let deaf = client("chat", 1, HEARTBEAT, Manner::Deaf);
        let gone = client("chat", 3, "/deaf", Manner::Responsive);
        gone.hang_up().unwrap();
        let idle = client("push", 4, "/quiet", Manner::Responsive);
        let slow = client("chat", 5, "/stream?every=10ms&size=5000", Manner::Deaf);
        let silent = client("feed", 6, HEARTBEAT, Manner::Responsive);
        let expiring = client("api", 7, "/quiet", Manner::Responsive);
        let at_risk = client("chat", BEHIND_VPN, "/quiet", Manner::Responsive);
        let healthy = [10, 11].map(|index| client("chat", index, HEARTBEAT, Manner::Responsive));
        let late = [0, 1].map(|index| {
            client(
                "mobile",
                index + 24,
                "/heartbeat?every=5500ms",
                Manner::Responsive,
            )
        });

        let cut: Vec<_> = CUT
            .map(|index| client("partner", index, "/quiet", Manner::Responsive))
            .collect();
        for client in &cut {
            let is_silent = || client.connected_at().elapsed() > Duration::from_secs(2);
            wait_until("a silence of two seconds", SOON, is_silent).unwrap();
            client.hang_up().unwrap();
        }
        confirmed(&mut watch, "expired", dead.local_addr());
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
        on_listener(&mut watch, "at_risk", "mobile");
        drop(late);
        confirmed(&mut watch, "black_holed", lost.local_addr());

        about(&mut watch, "backlogged", slow.local_addr());
        on_listener(&mut watch, "limit_mismatch", "partner");
        watch.alert("the rhythm of the traders", A_MINUTE, |alert| {
            alert.text("/pattern") == "lockstep"
        });
        about(&mut watch, "quiet", silent.local_addr());
        confirmed(&mut watch, "half_closed", gone.local_addr());
        let retry = Retry::Restless {
            stays: Duration::from_millis(300),
            back: Duration::from_millis(1_200),
        };
        let restless = Crowd::gather(&lab, widget, RESTLESS, retry);
        on_listener(&mut watch, "thrash", WIDGET);
        // Its alert stands for another minute.
        drop(restless);
        // So late that it stays suspected: when a scan confirms it is not certain.
        let is_late = || expiring.connected_at().elapsed() > Duration::from_secs(75);
        wait_until("the last twenty seconds", A_MINUTE, is_late).unwrap();
        let uploading = client("chat", 2, "/deaf", Manner::Responsive);
        let more_than_fits = vec![0x77; 8 << 20];
        uploading
            .send(Message::Binary(more_than_fits.into()))
            .unwrap();
        let mut clients = vec![
            dead, deaf, uploading, gone, idle, slow, silent, expiring, at_risk, lost,
        ];
        clients.extend(healthy);
        Self {
            _traders: traders,
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

    /// From now on every alert stands, for six seconds.
    pub(super) fn wait_for_the_last_alert(&mut self) {
        let is_last = |alert: &Alert| is_firing(alert, "expiring");
        self.watch.alert("expiring", A_MINUTE, is_last);
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
