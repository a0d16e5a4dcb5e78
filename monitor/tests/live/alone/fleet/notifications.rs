//! Receives what Alertmanager sends to people.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use axum::{Router, extract::State, routing::post};
use lab::wait_for;
use serde_json::Value;

/// A webhook, and what it was sent so far.
pub(super) struct Notifications {
    addr: SocketAddr,
    received: Received,
}

type Received = Arc<Mutex<Vec<Notification>>>;

/// One message of Alertmanager: the alerts of one group.
#[derive(Clone, Debug)]
pub(super) struct Notification {
    pub(super) receiver: String,
    is_firing: bool,
    name: String,
    /// The labels of each alert of the group.
    pub(super) alerts: Vec<Value>,
}

impl Notifications {
    pub(super) fn receive() -> Self {
        let received = Received::default();
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        socket.set_nonblocking(true).unwrap();
        let app = Router::new()
            .route("/", post(keep))
            .with_state(Arc::clone(&received));
        // Ends with the process.
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.unwrap().block_on(async {
                let socket = tokio::net::TcpListener::from_std(socket).unwrap();
                axum::serve(socket, app).await.unwrap();
            });
        });
        Self { addr, received }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// All so far, oldest first.
    pub(super) fn all(&self) -> Vec<Notification> {
        self.received.lock().unwrap().clone()
    }

    /// The first notification that this alert fires.
    pub(super) fn wait_for_firing(&self, alert: &str, limit: Duration) -> Notification {
        self.wait_for(alert, true, limit)
    }

    /// Waits for the notification that all alerts of this name have ended.
    pub(super) fn wait_for_end(&self, alert: &str, limit: Duration) {
        self.wait_for(alert, false, limit);
    }

    fn wait_for(&self, alert: &str, is_firing: bool, limit: Duration) -> Notification {
        let what = format!("{alert}, firing: {is_firing}");
        let found = wait_for(&what, limit, || {
            let wanted = |it: &Notification| it.name == alert && it.is_firing == is_firing;
            self.all().into_iter().find(wanted)
        });
        found.unwrap_or_else(|error| panic!("{error}: {:#?}", self.all()))
    }
}

impl Notification {
    fn parse(text: &str) -> Self {
        let json: Value = serde_json::from_str(text).expect("JSON");
        let alerts = json["alerts"].as_array().expect("alerts").iter();
        Self {
            receiver: json["receiver"].as_str().expect("a receiver").to_owned(),
            is_firing: json["status"] == "firing",
            name: json["groupLabels"]["alertname"]
                .as_str()
                .expect("a name")
                .to_owned(),
            alerts: alerts.map(|alert| alert["labels"].clone()).collect(),
        }
    }

    /// The alert's name, if this says that it fires.
    pub(super) fn fired(&self) -> Option<&str> {
        self.is_firing.then_some(&*self.name)
    }
}

async fn keep(State(received): State<Received>, text: String) {
    received.lock().unwrap().push(Notification::parse(&text));
}
