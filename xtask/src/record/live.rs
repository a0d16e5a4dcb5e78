//! Recordings of real clients, servers and proxies in the lab's network namespaces.

mod capture;
mod peer;
mod proxy;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use lab::{Client, Direction, Lab, Manner, Message, Namespace, Opcode, Server, wait_until};

use self::capture::{Capture, Tool};
use self::peer::{Library, Peer, spawn_client};
use self::proxy::Proxy;
use Library::{Aiohttp, Websockets, Ws};
use Tool::{Cooked, CookedV2, Nanoseconds, PcapNg, Tcpdump};

/// Peers and proxies answer within this, or something is wrong with them.
const SOON: Duration = Duration::from_secs(20);

const SERVER_PORT: u16 = 8080;
const PROXY_PORT: u16 = 8000;

/// Makes them all.
///
/// # Errors
/// When the lab cannot be built, a program is missing, or a peer does not do as it should.
pub(crate) fn write(folder: &Path) -> Result<()> {
    let stage = Stage {
        lab: Lab::new()?,
        folder,
    };
    for ending in [
        "close-without-code",
        "asked-close",
        "asked-close-without-code",
        "vanish",
        "reset",
        "server-vanishes",
        "server-resets",
    ] {
        let name = format!("ws-{ending}");
        stage.uplink(&name, Tcpdump, Ws, "/echo", &[(Ws, ending)])?;
    }
    stage.uplink("ws-messages", Tcpdump, Ws, "/echo", &[(Ws, "messages")])?;
    stage.uplink("ws-deflate", Tcpdump, Ws, "/deflate", &[(Ws, "messages")])?;
    stage.uplink("ws-heartbeat", Tcpdump, Ws, "/heartbeat", &[(Ws, "listen")])?;
    stage.uplink(
        "ws-early-frames",
        Nanoseconds,
        Ws,
        "/early",
        &[(Ws, "early")],
    )?;
    stage.uplink("ws-refused", Tcpdump, Ws, "/refuse", &[(Ws, "messages")])?;
    stage.uplink(
        "ws-refused-once",
        Tcpdump,
        Ws,
        "/patience",
        &[(Ws, "patience")],
    )?;
    stage.loopback("ws-burst-loopback", PcapNg, Ws, "/count", (Ws, "burst"))?;
    stage.loopback("ws-long-loopback", Tcpdump, Ws, "/count", (Ws, "long"))?;
    stage.uplink("ws-long", Tcpdump, Ws, "/count", &[(Ws, "long")])?;

    let websockets = Websockets;
    stage.uplink(
        "websockets-messages",
        Cooked,
        websockets,
        "/echo",
        &[(websockets, "messages")],
    )?;
    stage.uplink(
        "websockets-deflate",
        CookedV2,
        websockets,
        "/echo",
        &[(websockets, "deflate")],
    )?;
    stage.uplink(
        "websockets-abort",
        Tcpdump,
        websockets,
        "/echo",
        &[(websockets, "abort")],
    )?;
    stage.over_ipv6(
        "websockets-heartbeat-ipv6",
        websockets,
        "/heartbeat",
        (websockets, "listen"),
    )?;

    stage.uplink(
        "aiohttp-messages",
        PcapNg,
        Aiohttp,
        "/echo",
        &[(Aiohttp, "messages")],
    )?;
    stage.uplink(
        "aiohttp-deflate",
        Tcpdump,
        Aiohttp,
        "/echo",
        &[(Aiohttp, "deflate")],
    )?;
    stage.uplink(
        "aiohttp-browse",
        Tcpdump,
        Aiohttp,
        "/echo",
        &[(Aiohttp, "browse")],
    )?;
    stage.over_ipv6(
        "aiohttp-heartbeat-ipv6",
        Aiohttp,
        "/heartbeat",
        (Aiohttp, "listen"),
    )?;
    let everybody = [
        (Ws, "asked-close"),
        (Websockets, "deflate"),
        (Aiohttp, "browse"),
        (Ws, "messages"),
        (Websockets, "asked-close"),
    ];
    stage.uplink("many-clients", Cooked, Aiohttp, "/echo", &everybody)?;

    stage.tungstenite()?;
    stage.tungstenite_stream()?;
    stage.proxied("nginx", Proxy::nginx)?;
    stage.proxied("haproxy", Proxy::haproxy)?;
    stage.forwarded_twice()
}

struct Stage<'a> {
    lab: Lab,
    folder: &'a Path,
}

impl Stage<'_> {
    /// Client and server in their own namespaces, captured at the server's interface, or at all of
    /// its interfaces with a cooked link type. The clients come one after another.
    fn uplink(
        &self,
        name: &str,
        tool: Tool,
        server: Library,
        path: &str,
        clients: &[(Library, &str)],
    ) -> Result<()> {
        let addr = self.lab.server_addr(SERVER_PORT);
        let _server = Peer::server(self.lab.server_ns(), server, addr)?;
        let capture = self.capture(self.lab.server_ns(), "uplink", tool, name)?;
        for (library, scenario) in clients {
            self.client(self.lab.client_ns(), *library, addr, path, scenario)?;
        }
        capture.finish()
    }

    fn over_ipv6(
        &self,
        name: &str,
        server: Library,
        path: &str,
        (library, scenario): (Library, &str),
    ) -> Result<()> {
        let addr = self.lab.server_addr_v6(SERVER_PORT);
        let _server = Peer::server(self.lab.server_ns(), server, addr)?;
        let capture = self.capture(self.lab.server_ns(), "uplink", Tcpdump, name)?;
        self.client(self.lab.client_ns(), library, addr, path, scenario)?;
        capture.finish()
    }

    fn loopback(
        &self,
        name: &str,
        tool: Tool,
        server: Library,
        path: &str,
        (library, scenario): (Library, &str),
    ) -> Result<()> {
        let addr = SocketAddr::from(([127, 0, 0, 1], SERVER_PORT));
        let _server = Peer::server(self.lab.server_ns(), server, addr)?;
        let capture = self.capture(self.lab.server_ns(), "lo", tool, name)?;
        self.client(self.lab.server_ns(), library, addr, path, scenario)?;
        capture.finish()
    }

    /// Two clients of tungstenite on its own server: pings with payload, echoes, a close frame, and
    /// a RST.
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

    /// A server that talks, pings, and whose client crashes.
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
        start: fn(&Namespace, [SocketAddr; 2]) -> Result<Proxy>,
    ) -> Result<()> {
        let (lb, to) = (self.lab.lb_ns(), self.lab.server_addr(SERVER_PORT));
        let at = SocketAddr::from(([10, 77, 1, 1], PROXY_PORT));
        let _proxy = start(lb, [at, to])?;
        let _server = Peer::server(self.lab.server_ns(), Ws, to)?;
        let client_side = self.capture(lb, "clients", Tcpdump, &format!("{name}-client-side"))?;
        let server_side = self.capture(lb, "servers", Tcpdump, &format!("{name}-server-side"))?;
        let both_sides = self.capture(lb, "any", Cooked, &format!("{name}-both-sides"))?;
        for scenario in ["messages", "asked-close", "reset"] {
            self.client(self.lab.client_ns(), Ws, at, "/echo", scenario)?;
        }
        self.client(self.lab.client_ns(), Websockets, at, "/echo", "messages")?;
        for capture in [client_side, server_side, both_sides] {
            capture.finish()?;
        }
        Ok(())
    }

    /// On all interfaces of a router every packet is seen twice.
    fn forwarded_twice(&self) -> Result<()> {
        let addr = self.lab.server_addr(SERVER_PORT);
        let _server = Peer::server(self.lab.server_ns(), Ws, addr)?;
        let capture = self.capture(self.lab.lb_ns(), "any", CookedV2, "router-sees-all-twice")?;
        self.client(self.lab.client_ns(), Ws, addr, "/echo", "messages")?;
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

    /// Waits until the client has ended by itself.
    fn client(
        &self,
        namespace: &Namespace,
        library: Library,
        addr: SocketAddr,
        path: &str,
        scenario: &str,
    ) -> Result<()> {
        let url = format!("ws://{addr}{path}");
        spawn_client(namespace, library, &url, scenario)
    }
}
