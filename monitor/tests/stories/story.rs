//! The language of the stories: the steps of both ends, their times, and the expected reports of wsmon.
//!
//! ```ignore
//! story("the path dies while the server pings", "ws#1014")
//!     .every(20.0, 20.0..100.0, Host(Ping))
//!     .at(50.0, PathBreaks)
//!     .until(120.0)
//!     .reports("black_holed confirmed", 67.0..76.0)
//! ```
//!
//! Times are seconds since the SYN of the first connection. The *host* is the machine that wsmon
//! watches, a server unless the story is [`outgoing`](Story::outgoing); the *peer* is the other end.
//! Both TCPs acknowledge, retransmit and probe without a step ([`World`](crate::world::World)), and an
//! application answers pings unless a step prevents it.
//!
//! A story lists **everything** that wsmon reports, in order. Any other report fails it.

use std::{ops::Range, time::Duration};

use monitor_core::{
    Hop, ListenerRules, OnExpiry,
    hop::{Activity, Directions},
};

/// An act of one end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// A binary message with this many bytes of payload.
    Message(usize),
    Ping,
    /// This many pings in one segment.
    Pings(u8),
    /// An unsolicited pong.
    Pong,
    /// A close frame with this code.
    Close(u16),
    Fin,
    Rst,
    /// A TCP keepalive probe: no payload, one byte before the acknowledged sequence number.
    KeepAlive,
    /// Raw bytes, HTTP for example.
    Raw(&'static [u8]),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Host(Act),
    Peer(Act),
    /// No packet passes any more, in either direction.
    PathBreaks,
    /// The path answers every packet of the host with a RST, and drops everything else.
    PathResets,
    PathHeals,
    /// One in this many segments of the host is lost; 0: none.
    PathLoses(u32),
    /// The path transmits this many kbit/s from the host.
    PathSlows(u32),
    /// The round trip in seconds.
    PathTakes(f64),
    /// The peer's application stops. Its TCP, or a proxy before it, acknowledges.
    PeerFreezes,
    /// It continues, and sends its owed responses.
    PeerWakes,
    /// A proxy answers pings from now on, whatever the peer does.
    ProxyAnswersPings,
    /// The peer is alive, but its library sends no pongs.
    PeerIgnoresPings,
    /// The peer stops reading: its window is 0 from its next acknowledgement on.
    PeerStopsReading,
    PeerReads,
    /// One message of this many bytes, at this many kbit/s. Pongs wait behind it.
    PeerUploads(usize, u32),
    /// The host stops reading: its window is 0 from its next acknowledgement on.
    HostStopsReading,
    HostReads,
}

/// The course of the opening handshake.
#[derive(Clone, Debug)]
pub(crate) enum Opening {
    /// 101.
    Upgrade,
    /// TLS; frames are hidden.
    Tls,
    /// The client's first segment, and the server's.
    Spoken(Vec<u8>, Vec<u8>),
    /// The request comes in the segment that completes TCP's handshake (TCP_DEFER_ACCEPT).
    Deferred,
    /// This response instead of a 101.
    Refused(&'static str),
    /// A request without a response.
    Unanswered,
    /// It was before the recording.
    Unseen,
}

impl Opening {
    /// The first segments of client and server.
    pub(crate) fn heads(&self) -> (&[u8], &[u8]) {
        match self {
            Self::Upgrade | Self::Deferred | Self::Unseen => (wire::REQUEST, wire::RESPONSE),
            Self::Tls => (CLIENT_HELLO, SERVER_HELLO),
            Self::Spoken(request, response) => (request, response),
            Self::Refused(response) => (wire::REQUEST, response.as_bytes()),
            Self::Unanswered => (wire::REQUEST, b""),
        }
    }
}

const CLIENT_HELLO: &[u8] =
    b"\x16\x03\x01\x00\x2a\x01\x00\x00\x26\x03\x03 and then 32 bytes of random";
const SERVER_HELLO: &[u8] =
    b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03 and then 32 bytes of random";

/// One connection.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    /// The source of the SYN.
    pub(crate) client: String,
    pub(crate) begins: f64,
    pub(crate) opening: Opening,
    /// Seconds since the story's beginning, in any order.
    pub(crate) steps: Vec<(f64, Step)>,
}

/// A row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    pub(crate) name: &'static str,
    /// A project and the number of a report, a rule of an RFC, or the subject.
    pub(crate) source: &'static str,
    pub(crate) rules: ListenerRules,
    /// The host is the client.
    pub(crate) is_outgoing: bool,
    /// Every segment has an MPTCP option.
    pub(crate) is_mptcp: bool,
    pub(crate) connections: Vec<Connection>,
    /// When the recording ends.
    pub(crate) until: f64,
    /// The expected reports and their times.
    pub(crate) reports: Vec<(&'static str, Range<f64>)>,
    /// Expected reasons among those of the connections' states.
    pub(crate) shows: Vec<&'static str>,
    /// Why a death at the end cannot be detected.
    pub(crate) unseen: Option<&'static str>,
    /// The speed-up of the row with real sockets.
    pub(crate) live: Option<f64>,
}

pub(crate) fn story(name: &'static str, source: &'static str) -> Story {
    Story {
        name,
        source,
        rules: ListenerRules::new("8080", None),
        is_outgoing: false,
        is_mptcp: false,
        connections: vec![connection("10.0.0.2:40000", 0.0)],
        until: 0.0,
        reports: Vec::new(),
        shows: Vec::new(),
        unseen: None,
        live: None,
    }
}

/// A connection opened by an upgrade, without further steps.
pub(crate) fn connection(client: impl Into<String>, begins: f64) -> Connection {
    Connection {
        client: client.into(),
        begins,
        opening: Opening::Upgrade,
        steps: Vec::new(),
    }
}

impl Connection {
    pub(crate) fn opening(mut self, opening: Opening) -> Self {
        self.opening = opening;
        self
    }

    pub(crate) fn at(mut self, at: f64, step: Step) -> Self {
        self.steps.push((at, step));
        self
    }

    /// The step each `period` seconds in `during`, excluding its end.
    pub(crate) fn every(mut self, period: f64, during: Range<f64>, step: Step) -> Self {
        let times = (0..).map(|n| during.start + period * f64::from(n));
        let times = times.take_while(|at| *at < during.end);
        self.steps.extend(times.map(|at| (at, step)));
        self
    }
}

impl Story {
    fn first(mut self, change: impl FnOnce(Connection) -> Connection) -> Self {
        let first = self.connections.remove(0);
        self.connections.insert(0, change(first));
        self
    }

    /// A step on the first connection.
    pub(crate) fn at(self, at: f64, step: Step) -> Self {
        self.first(|connection| connection.at(at, step))
    }

    /// Like [`Connection::every`], on the first connection.
    pub(crate) fn every(self, period: f64, during: Range<f64>, step: Step) -> Self {
        self.first(|connection| connection.every(period, during, step))
    }

    pub(crate) fn opening(self, opening: Opening) -> Self {
        self.first(|connection| connection.opening(opening))
    }

    /// These connections instead of the usual one.
    pub(crate) fn connections(mut self, connections: impl IntoIterator<Item = Connection>) -> Self {
        self.connections = connections.into_iter().collect();
        self
    }

    /// The host opened the connection: its frames are masked, and the watched port is remote.
    pub(crate) fn outgoing(mut self) -> Self {
        self.is_outgoing = true;
        self
    }

    /// Each connection is the first subflow of an MPTCP connection. Its other subflows are not in the
    /// recording, so the peer may be alive whatever happens to this one.
    pub(crate) fn over_mptcp(mut self) -> Self {
        self.is_mptcp = true;
        self
    }

    /// A configured middlebox on the path.
    pub(crate) fn behind(mut self, hop: Hop) -> Self {
        self.rules.path.hops.push(hop);
        self
    }

    pub(crate) fn message_gap(mut self, seconds: f64) -> Self {
        self.rules.message_gap = Some(Duration::from_secs_f64(seconds));
        self
    }

    pub(crate) fn ping_timeout(mut self, seconds: f64) -> Self {
        self.rules.ping_timeout = Duration::from_secs_f64(seconds);
        self
    }

    /// The end of the recording. Anything due later is not reported.
    pub(crate) fn until(mut self, seconds: f64) -> Self {
        self.until = seconds;
        self
    }

    /// The next report: `KIND CERTAINTY` of a verdict, `KIND RESOLUTION` of its end, `thrash`,
    /// `reconnect_storm PHASE` with the pattern once it is known, or the name of another alert. A group
    /// has the suffix ` xCOUNT`; the end of an alert on a listener or among clients has the suffix `
    /// over`.
    pub(crate) fn reports(mut self, what: &'static str, when: Range<f64>) -> Self {
        self.reports.push((what, when));
        self
    }

    /// The same report for each of `count` connections.
    pub(crate) fn reports_each(
        mut self,
        count: usize,
        what: &'static str,
        when: Range<f64>,
    ) -> Self {
        self.reports
            .extend(std::iter::repeat_n((what, when), count));
        self
    }

    /// The reason of a state as `wsmon replay` prints it: `refused 503`.
    pub(crate) fn shows(mut self, reason: &'static str) -> Self {
        self.shows.push(reason);
        self
    }

    /// The row also runs with real sockets, at this speed-up, which shortens the limits of its rules.
    /// Constants of all rules, such as the 7 s of a black hole, stay: rows that depend on them need a
    /// speed-up of 1.
    pub(crate) fn live(mut self, speed: f64) -> Self {
        self.live = Some(speed);
        self
    }

    /// The peer is dead at the end, and nothing can show that.
    pub(crate) fn unseen(mut self, why: &'static str) -> Self {
        self.unseen = Some(why);
        self
    }
}

/// Forgets a connection after this many seconds, without a packet to either end.
pub(crate) fn silent(seconds: f64) -> Hop {
    Hop::new("hop", Duration::from_secs_f64(seconds), OnExpiry::Silent)
}

/// Forgets a connection, and answers the next packet with a RST.
pub(crate) fn resetting(seconds: f64) -> Hop {
    Hop {
        on_expiry: OnExpiry::RstOnNextPacket,
        ..silent(seconds)
    }
}

/// Closes a connection by FIN when its limit expires.
pub(crate) fn closing(seconds: f64) -> Hop {
    Hop {
        on_expiry: OnExpiry::Fin,
        ..silent(seconds)
    }
}

/// A proxy that terminates TCP: it counts payload only, and closes.
pub(crate) fn proxy(seconds: f64) -> Hop {
    Hop {
        activity: Activity::Payload,
        ..closing(seconds)
    }
}

/// The same with a clock for each direction.
pub(crate) fn proxy_each_way(seconds: f64) -> Hop {
    Hop {
        direction: Directions::Each,
        ..proxy(seconds)
    }
}

/// Closes connections of this age.
pub(crate) fn lifetime(seconds: f64) -> Hop {
    Hop {
        idle_timeout: None,
        max_lifetime: Some(Duration::from_secs_f64(seconds)),
        ..closing(seconds)
    }
}
