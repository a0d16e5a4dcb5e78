//! A host of the fleet: its network, its server, its clients and its daemon.

use std::{fs, net::SocketAddr, time::Duration};

use lab::{Client, Lab, Manner, Message, Server, wait_until};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};

use crate::stage::{SOON, Watch, fresh_port};

/// Of the listener `chat`. A mass close is more than 20.
const CLIENTS: u8 = 60;

pub(super) struct Host {
    /// The value of the label `instance`.
    name: &'static str,
    watch: Watch,
    chat_clients: Vec<Client>,
    others: Vec<Client>,
    chat: Server,
    feed: Server,
    pub(super) lab: Lab,
    _folder: TempDir,
}

impl Host {
    pub(super) fn start(name: &'static str, alertmanager: &str) -> Self {
        let lab = Lab::new().unwrap();
        let start = || Server::start(lab.server_ns(), lab.server_addr(fresh_port())).unwrap();
        let (chat, feed) = (start(), start());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wsmon.toml");
        let listener = |name, server: &Server| {
            let port = server.addr().port();
            format!(
                "[[listener]]\nname = \"{name}\"\nports = [\"{port}\"]\n\
                 path = [{{ name = \"lb\", idle_timeout = \"60s\" }}]\n"
            )
        };
        fs::write(&file, listener("chat", &chat) + &listener("feed", &feed)).unwrap();
        let mut flags = vec!["--config", file.to_str().unwrap()];
        if name == "a" {
            // More labels than those of the other hosts. There are no pods.
            flags.extend([
                "--workload-labels",
                "--pod-logs",
                folder.path().to_str().unwrap(),
            ]);
        }
        if name == "c" {
            // Also posts its alerts itself.
            flags.extend(["--alertmanager", alertmanager, "--instance", name]);
        }
        let watch = Watch::start(&flags);
        Self {
            name,
            watch,
            chat_clients: Vec::new(),
            others: Vec::new(),
            chat,
            feed,
            lab,
            _folder: folder,
        }
    }

    /// Its name, and where its metrics are.
    pub(super) fn target(&self) -> (&'static str, SocketAddr) {
        (self.name, self.watch.daemon.metrics_addr())
    }

    /// Connects clients that answer heartbeats, one that gets answers, and one that is silent.
    pub(super) fn welcome_clients(&mut self) {
        self.chat_clients = self.connect_to_chat();
        let every = Duration::from_millis(500);
        let talkative = Manner::Talkative { every, size: 100 };
        self.others = vec![
            self.client("/echo", talkative),
            self.client("/heartbeat?every=2s", Manner::Responsive),
            self.client("/quiet", Manner::Responsive),
        ];
        let chat = [("listener", "chat")];
        self.watch
            .wait_for_metric("wsmon_connections", &chat, CLIENTS.into());
    }

    /// A further client of the listener `feed`.
    pub(super) fn client(&self, path: &str, manner: Manner) -> Client {
        // The last addresses of the network; the clients of `chat` share the first ones.
        let from = self.lab.client_addr(lab::CLIENT_ADDRESSES - 1);
        Client::connect(self.lab.client_ns(), from, &self.feed.url(path), manner).unwrap()
    }

    /// The server closes the connections of all clients of `chat`, as before a restart, and the silent client resets
    /// its connection.
    pub(super) fn send_clients_away(&self) {
        for client in &self.chat_clients {
            let frame = CloseFrame {
                code: CloseCode::Restart,
                reason: "".into(),
            };
            let close = Message::Close(Some(frame));
            self.chat.send(client.local_addr(), close).unwrap();
        }
        self.others[2].reset().unwrap();
        wait_until("all clients to be gone", SOON, || {
            self.chat_clients.iter().all(|client| !client.view().open)
        })
        .unwrap();
    }

    pub(super) fn let_clients_come_back(&mut self) {
        self.chat_clients = self.connect_to_chat();
    }

    fn connect_to_chat(&self) -> Vec<Client> {
        let url = self.chat.url("/heartbeat?every=2s");
        let connect = |index: u8| {
            let from = self.lab.client_addr(index % (lab::CLIENT_ADDRESSES - 1));
            Client::connect(self.lab.client_ns(), from, &url, Manner::Responsive).unwrap()
        };
        (0..CLIENTS).map(connect).collect()
    }
}
