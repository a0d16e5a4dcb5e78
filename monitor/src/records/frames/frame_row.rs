//! A frame as a line of text.

use std::{fmt, time::Duration};

use jiff::Timestamp;

use super::{FrameRecord, OpcodeName};

/// One frame in columns, about 100 wide; an IPv6 peer takes more.
#[derive(Clone, Copy, Debug)]
pub struct FrameRow<'a>(pub &'a FrameRecord);

impl FrameRow<'_> {
    /// The heading of the columns. Times are UTC.
    pub const HEAD: &'static str = "TIME             COOKIE     PEER                   DIR  FIN  RSV  \
         OPCODE        MASK      LENGTH";
}

impl fmt::Display for FrameRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FrameRecord {
            ts,
            cookie,
            listener: _,
            local: _,
            peer,
            direction,
            fin,
            rsv,
            opcode,
            masked,
            length,
            ping_rtt,
            close_code,
        } = self.0;
        write!(
            f,
            "{}  {:<9}  {:<21}  {:<3}  {:<3}  {}  {:<12}  {:<4}  {length:>10}",
            Clock(*ts),
            cookie.0,
            peer.to_string(),
            direction.as_str(),
            if *fin { "FIN" } else { "-" },
            Rsv(*rsv),
            OpcodeName(*opcode),
            if *masked { "mask" } else { "-" },
        )?;
        if let Some(rtt) = ping_rtt {
            write!(f, "  rtt {}", RoundTrip(*rtt))?;
        }
        if let Some(code) = close_code {
            write!(f, "  code {code}")?;
        }
        Ok(())
    }
}

/// The time of day in UTC, to the microsecond.
#[derive(Clone, Copy, Debug)]
pub struct Clock(pub Timestamp);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.strftime("%H:%M:%S.%6f"))
    }
}

/// The reserved bits by their numbers, `1--` for RSV1.
struct Rsv(u8);

impl fmt::Display for Rsv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, number) in [(4, '1'), (2, '2'), (1, '3')] {
            write!(f, "{}", if self.0 & bit == 0 { '-' } else { number })?;
        }
        Ok(())
    }
}

/// In the unit that leaves one to three digits before the point.
#[derive(Clone, Copy, Debug)]
pub struct RoundTrip(pub Duration);

impl fmt::Display for RoundTrip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_micros() {
            micros @ 0..1_000 => write!(f, "{micros} µs"),
            1_000..1_000_000 => write!(f, "{:.1} ms", self.0.as_secs_f64() * 1e3),
            _ => write!(f, "{:.1} s", self.0.as_secs_f64()),
        }
    }
}

#[cfg(test)]
mod tests {
    use monitor_common::frame::opcode;

    use super::{super::tests::frame, *};
    use monitor_core::{ConnId, facts::Direction};

    #[test]
    fn lines_align_with_their_head() {
        let text = FrameRecord {
            cookie: ConnId(315_653),
            ..frame()
        };
        let close = FrameRecord {
            direction: Direction::Rx,
            fin: false,
            rsv: 0b101,
            opcode: opcode::CLOSE,
            masked: true,
            close_code: Some(1001),
            ..text.clone()
        };
        let pong = FrameRecord {
            opcode: opcode::PONG,
            ping_rtt: Some(Duration::from_micros(1_234)),
            ..text.clone()
        };
        let shown = [&text, &close, &pong].map(|frame| FrameRow(frame).to_string());
        let expected = "\
TIME             COOKIE     PEER                   DIR  FIN  RSV  OPCODE        MASK      LENGTH
18:37:52.533000  315653     10.77.1.12:53787       tx   FIN  ---  text          -              5
18:37:52.533000  315653     10.77.1.12:53787       rx   -    1-3  close         mask           5  code 1001
18:37:52.533000  315653     10.77.1.12:53787       tx   FIN  ---  pong          -              5  rtt 1.2 ms";
        assert_eq!(
            [FrameRow::HEAD, &shown[0], &shown[1], &shown[2]].join("\n"),
            expected
        );
    }

    #[test]
    fn the_longest_ipv4_line_fits_in_120_columns() {
        let longest = FrameRecord {
            cookie: ConnId(9_999_999_999),
            peer: ([255, 255, 255, 255], 65_535).into(),
            opcode: 0xf,
            length: 9_999_999_999,
            ping_rtt: Some(Duration::from_millis(99_900)),
            close_code: None,
            ..frame()
        };
        let line = FrameRow(&longest).to_string();
        assert!(line.chars().count() <= 120, "{line}");
    }

    #[test]
    fn round_trips_are_shown_in_a_fitting_unit() {
        for (micros, shown) in [
            (1, "1 µs"),
            (999, "999 µs"),
            (1_000, "1.0 ms"),
            (25_400, "25.4 ms"),
            (2_500_000, "2.5 s"),
        ] {
            assert_eq!(RoundTrip(Duration::from_micros(micros)).to_string(), shown);
        }
    }
}
