//! JSON output, one object per line.

use std::io::{self, Write};

use serde::Serialize;

use super::Report;
use crate::{
    records::{alert::AlertRecord, json, transitions::TransitionRecord, warning::WarningRecord},
    replay::{Replay, ReplayRecord},
};

pub(super) struct Json<W> {
    out: W,
    frames: bool,
}

impl<W: Write> Json<W> {
    pub(super) fn new(out: W, frames: bool) -> Self {
        Self { out, frames }
    }

    fn line(&mut self, object: &impl Serialize) -> io::Result<()> {
        json::write(object, &mut self.out)?;
        self.out.write_all(b"\n")
    }
}

impl<W: Write> Report for Json<W> {
    fn record(&mut self, replay: &Replay, record: &ReplayRecord) -> io::Result<()> {
        match record {
            ReplayRecord::Frame(_) | ReplayRecord::State(_) if !self.frames => Ok(()),
            ReplayRecord::Frame(frame) => self.line(frame),
            ReplayRecord::State(transition) => self.line(&TransitionRecord::new(
                transition,
                &replay.listener(transition.listener).rules.name,
                replay.wall_clock(transition.at),
            )),
            ReplayRecord::Alert(alert) => {
                let listener = replay.listener(alert.listener);
                let ts = replay.wall_clock(alert.at);
                self.line(&AlertRecord::new(alert, &listener.rules.name, ts))
            }
            ReplayRecord::Connection(connection) => self.line(connection),
        }
    }

    fn warning(&mut self, message: &str) -> io::Result<()> {
        self.line(&WarningRecord { message })
    }

    fn summary(&mut self, replay: &Replay) -> io::Result<()> {
        self.line(replay.summary())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
