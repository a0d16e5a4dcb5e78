//! Recordings of real clients, servers and proxies in the lab's network namespaces.

mod peer;

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::Result;
use lab::{
    Client, Direction, Lab, LabError, Manner, Message, Namespace, Opcode, Proxy, Server, wait_until,
};

use self::peer::{Library, Peer, run_client};
use crate::{
    SOON,
    capture::{Capture, Tool},
};
use Library::{Aiohttp, Websockets, Ws};
use Tool::{Cooked, CookedV2, Nanoseconds, PcapNg, Tcpdump};

/// Longer than any silence in these conversations.
const IDLE_LIMIT: Duration = Duration::from_secs(30);

const SERVER_PORT: u16 = 8080;
const PROXY_PORT: u16 = 8000;

/// Client and server in their own namespaces, captured at the server.
const BETWEEN_NAMESPACES: [Scene; 25] = [
    scene("ws-messages", Tcpdump, Ws, "/echo", &[(Ws, "messages")]),
    scene("ws-deflate", Tcpdump, Ws, "/deflate", &[(Ws, "messages")]),
    scene("ws-heartbeat", Tcpdump, Ws, "/heartbeat", &[(Ws, "listen")]),
    scene("ws-long", Tcpdump, Ws, "/count", &[(Ws, "long")]),
    scene(
        "ws-early-frames",
        Nanoseconds,
        Ws,
        "/early",
        &[(Ws, "early")],
    ),
    scene("ws-refused", Tcpdump, Ws, "/refuse", &[(Ws, "messages")]),
    scene(
        "ws-refused-once",
        Tcpdump,
        Ws,
        "/patience",
        &[(Ws, "patience")],
    ),
    ending("ws-close-without-code", &[(Ws, "close-without-code")]),
    ending("ws-asked-close", &[(Ws, "asked-close")]),
    ending(
        "ws-asked-close-without-code",
        &[(Ws, "asked-close-without-code")],
    ),
    ending("ws-vanish", &[(Ws, "vanish")]),
    ending("ws-reset", &[(Ws, "reset")]),
    ending("ws-server-vanishes", &[(Ws, "server-vanishes")]),
    ending("ws-server-resets", &[(Ws, "server-resets")]),
    scene(
        "websockets-messages",
        Cooked,
        Websockets,
        "/echo",
        &[(Websockets, "messages")],
    ),
    scene(
        "websockets-deflate",
        CookedV2,
        Websockets,
        "/echo",
        &[(Websockets, "deflate")],
    ),
    scene(
        "websockets-abort",
        Tcpdump,
        Websockets,
        "/echo",
        &[(Websockets, "abort")],
    ),
    scene(
        "aiohttp-messages",
        PcapNg,
        Aiohttp,
        "/echo",
        &[(Aiohttp, "messages")],
    ),
    scene(
        "aiohttp-deflate",
        Tcpdump,
        Aiohttp,
        "/echo",
        &[(Aiohttp, "deflate")],
    ),
    scene(
        "aiohttp-browse",
        Tcpdump,
        Aiohttp,
        "/echo",
        &[(Aiohttp, "browse")],
    ),
    scene("many-clients", Cooked, Aiohttp, "/echo", &EVERYBODY),
    scene(
        "websockets-heartbeat-ipv6",
        Tcpdump,
        Websockets,
        "/heartbeat",
        &[(Websockets, "listen")],
    )
    .over_ipv6(),
    scene(
        "aiohttp-heartbeat-ipv6",
        Tcpdump,
        Aiohttp,
        "/heartbeat",
        &[(Aiohttp, "listen")],
    )
    .over_ipv6(),
    scene("ws-burst-loopback", PcapNg, Ws, "/count", &[(Ws, "burst")]).on_loopback(),
    scene("ws-long-loopback", Tcpdump, Ws, "/count", &[(Ws, "long")]).on_loopback(),
];

const EVERYBODY: [(Library, &str); 5] = [
    (Ws, "asked-close"),
    (Websockets, "deflate"),
    (Aiohttp, "browse"),
    (Ws, "messages"),
    (Websockets, "asked-close"),
];

/// Clients that run their scenarios on one server, one after another.
struct Scene {
    name: &'static str,
    tool: Tool,
    server: Library,
    path: &'static str,
    clients: &'static [(Library, &'static str)],
    reach: Reach,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    Ipv4,
    Ipv6,
    Loopback,
}

const fn scene(
    name: &'static str,
    tool: Tool,
    server: Library,
    path: &'static str,
    clients: &'static [(Library, &'static str)],
) -> Scene {
    Scene {
        name,
        tool,
        server,
        path,
        clients,
        reach: Reach::Ipv4,
    }
}

const fn ending(name: &'static str, client: &'static [(Library, &'static str)]) -> Scene {
    scene(name, Tcpdump, Ws, "/echo", client)
}

impl Scene {
    const fn over_ipv6(mut self) -> Self {
        self.reach = Reach::Ipv6;
        self
    }

    const fn on_loopback(mut self) -> Self {
        self.reach = Reach::Loopback;
        self
    }
}

/// Makes all of them.
///
/// # Errors
/// If the lab cannot be built, a program is missing, or a peer misbehaves.
pub(crate) fn write(folder: &Path) -> Result<()> {
    let stage = Stage {
        lab: Lab::new()?,
        folder,
    };
    for scene in &BETWEEN_NAMESPACES {
        stage.play(scene)?;
    }
    stage.tungstenite()?;
    stage.tungstenite_stream()?;
    stage.proxied("nginx", |lb, at, to| Proxy::nginx(lb, at, to, IDLE_LIMIT))?;
    stage.proxied("haproxy", |lb, at, to| {
        Proxy::haproxy(lb, at, to, IDLE_LIMIT)
    })?;
    stage.forwarded_twice()
}

struct Stage<'a> {
    lab: Lab,
    folder: &'a Path,
}

impl Stage<'_> {
    fn play(&self, scene: &Scene) -> Result<()> {
        let (servers, clients) = (self.lab.server_ns(), self.lab.client_ns());
        let (addr, interface, clients) = match scene.reach {
            Reach::Ipv4 => (self.lab.server_addr(SERVER_PORT), "uplink", clients),
            Reach::Ipv6 => (self.lab.server_addr_v6(SERVER_PORT), "uplink", clients),
            Reach::Loopback => (
                SocketAddr::from(([127, 0, 0, 1], SERVER_PORT)),
                "lo",
                servers,
            ),
        };
        let _server = Peer::server(servers, scene.server, addr)?;
        let capture = self.capture(servers, interface, scene.tool, scene.name)?;
        for (library, scenario) in scene.clients {
            let url = format!("ws://{addr}{}", scene.path);
            run_client(clients, *library, &url, scenario)?;
        }
        capture.finish()
    }

    /// Two tungstenite clients and a tungstenite server: pings with payload, echoes, a close frame,
    /// and a RST.
    fn tungstenite(&self) -> Result<()> {
        let server = Server::start(self.lab.server_ns(), self.lab.server_addr_v6(SERVER_PORT))?;
        let tool = PcapNg;
        let capture = self.capture(self.lab.server_ns(), "uplink", tool, "tungstenite-ipv6")?;
        let connect = |index, path, manner| {
            let from = self.lab.client_addr_v6(index);
            Client::connect(self.lab.client_ns(), from, &server.url(path), manner)
        };
        let every = Duration::from_millis(20);
        let pinging = connect(0, "/quiet", Manner::Pinging { every })?;
        let echoed = connect(1, "/echo", Manner::Responsive)?;
        for text in ["", "hello"] {
            echoed.send(Message::text(text))?;
        }
        echoed.send(Message::binary(vec![0x77; 300]))?;
        wait_until("the pings of tungstenite", SOON, || {
            server.counts().frames.get(Direction::Rx, Opcode::Ping) >= 5
        })?;
        echoed.send(Message::Close(None))?;
        wait_until("the close handshake", SOON, || !echoed.view().open)?;
        pinging.reset()?;
        wait_until("the reset", SOON, || server.counts().closed == 2)?;
        capture.finish()
    }

    /// A server that talks and pings; its client crashes.
    fn tungstenite_stream(&self) -> Result<()> {
        let server = Server::start(self.lab.server_ns(), self.lab.server_addr(SERVER_PORT))?;
        let tool = CookedV2;
        let capture = self.capture(self.lab.server_ns(), "uplink", tool, "tungstenite-stream")?;
        let connect = |index, path| {
            let from = self.lab.client_addr(index);
            let manner = Manner::Responsive;
            Client::connect(self.lab.client_ns(), from, &server.url(path), manner)
        };
        let stream = connect(0, "/stream?every=20ms&size=900")?;
        let heartbeat = connect(1, "/heartbeat?every=20ms")?;
        wait_until("pings and messages", SOON, || {
            server.counts().pings_sent() >= 8
        })?;
        drop(stream);
        heartbeat.send(Message::Close(None))?;
        wait_until("both to end", SOON, || server.counts().closed == 2)?;
        capture.finish()
    }

    /// A proxy between the two, captured on its client side, on its server side, and on both at
    /// once.
    fn proxied(
        &self,
        name: &str,
        start: fn(&Namespace, SocketAddr, SocketAddr) -> Result<Proxy, LabError>,
    ) -> Result<()> {
        let (lb, to) = (self.lab.lb_ns(), self.lab.server_addr(SERVER_PORT));
        let at = self.lab.lb_addr(PROXY_PORT);
        let _proxy = start(lb, at, to)?;
        let _server = Peer::server(self.lab.server_ns(), Ws, to)?;
        let client_side = self.capture(lb, "clients", Tcpdump, &format!("{name}-client-side"))?;
        let server_side = self.capture(lb, "servers", Tcpdump, &format!("{name}-server-side"))?;
        let both_sides = self.capture(lb, "any", Cooked, &format!("{name}-both-sides"))?;
        let url = format!("ws://{at}/echo");
        for scenario in ["messages", "asked-close", "reset"] {
            run_client(self.lab.client_ns(), Ws, &url, scenario)?;
        }
        run_client(self.lab.client_ns(), Websockets, &url, "messages")?;
        for capture in [client_side, server_side, both_sides] {
            capture.finish()?;
        }
        Ok(())
    }

    /// On all interfaces of a router, every packet is captured twice.
    fn forwarded_twice(&self) -> Result<()> {
        let addr = self.lab.server_addr(SERVER_PORT);
        let _server = Peer::server(self.lab.server_ns(), Ws, addr)?;
        let capture = self.capture(self.lab.lb_ns(), "any", CookedV2, "router-sees-all-twice")?;
        let url = format!("ws://{addr}/echo");
        run_client(self.lab.client_ns(), Ws, &url, "messages")?;
        capture.finish()
    }

    fn capture(
        &self,
        namespace: &Namespace,
        interface: &str,
        tool: Tool,
        name: &str,
    ) -> Result<Capture> {
        println!("record   {name}");
        Capture::start(namespace, interface, tool, &self.folder.join(name))
    }
}
