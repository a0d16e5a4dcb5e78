//! One JSON object a line.

use std::io::{self, Write};

use jiff::Timestamp;
use serde::Serialize;

use super::Report;
use crate::{
    core::transition,
    replay::{Record, Replay},
    sink::alert_log,
};

pub(super) struct Json<W> {
    out: W,
    frames: bool,
}

/// An object that does not say itself what it is.
#[derive(Serialize)]
struct Typed<T> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(flatten)]
    object: T,
}

#[derive(Serialize)]
struct Warning<'a> {
    message: &'a str,
}

/// A connection went from one state to the next.
#[derive(Serialize)]
struct State<'a> {
    ts: Timestamp,
    conn: String,
    listener: &'a str,
    from: Option<transition::State>,
    to: transition::State,
    reason: transition::Reason,
}

impl<W: Write> Json<W> {
    pub(super) fn new(out: W, frames: bool) -> Self {
        Self { out, frames }
    }

    fn line(&mut self, object: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer(&mut self.out, object)?;
        self.out.write_all(b"\n")
    }
}

impl<W: Write> Report for Json<W> {
    fn record(&mut self, replay: &Replay, record: &Record) -> io::Result<()> {
        match record {
            Record::Frame(_) | Record::State(_) if !self.frames => Ok(()),
            Record::Frame(frame) => self.line(frame),
            Record::State(transition) => self.line(&Typed {
                kind: "state",
                object: State {
                    ts: replay.wall_clock(transition.at),
                    conn: transition.conn.0.to_string(),
                    listener: &replay.listener(transition.listener).rules.name,
                    from: transition.from,
                    to: transition.to,
                    reason: transition.reason,
                },
            }),
            Record::Alert(alert) => {
                let listener = replay.listener(alert.listener);
                let ts = replay.wall_clock(alert.at);
                self.line(&Typed {
                    kind: "alert",
                    object: alert_log::Line::new(alert, listener, ts),
                })
            }
            Record::Connection(connection) => self.line(connection),
        }
    }

    fn warning(&mut self, message: &str) -> io::Result<()> {
        self.line(&Typed {
            kind: "warning",
            object: Warning { message },
        })
    }

    fn summary(&mut self, replay: &Replay) -> io::Result<()> {
        self.line(replay.summary())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
