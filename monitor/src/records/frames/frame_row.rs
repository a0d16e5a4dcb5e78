//! A frame as a line of text.

use std::{fmt, time::Duration};

use jiff::Timestamp;

use super::{FrameRecord, OpcodeName};

/// The columns of a table of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameLayout {
    /// 80 wide; an IPv6 peer takes more.
    Narrow,
    /// About 110 wide; an IPv6 peer takes more.
    Wide,
    /// The same with microseconds, for recordings.
    Recorded,
}

/// The width of a line of [`FrameLayout::Wide`] with the longest IPv4 addresses.
const WIDE: usize = 120;

impl FrameLayout {
    /// The layout for a terminal of this width; `None` is a pipe.
    pub fn of_width(width: Option<usize>) -> Self {
        match width {
            Some(width) if width < WIDE => Self::Narrow,
            Some(_) | None => Self::Wide,
        }
    }

    /// The heading of the columns. Times are UTC.
    pub const fn head(self) -> &'static str {
        match self {
            Self::Narrow => {
                "TIME          COOKIE   PEER                   DIR  OPCODE         FLAGS   LENGTH"
            }
            Self::Wide => {
                "TIME          COOKIE     PEER                   DIR  FIN  RSV  OPCODE        MASK      LENGTH"
            }
            Self::Recorded => {
                "TIME             COOKIE     PEER                   DIR  FIN  RSV  OPCODE        MASK      LENGTH"
            }
        }
    }
}

/// One frame in the columns of a layout.
#[derive(Clone, Copy, Debug)]
pub struct FrameRow<'a> {
    pub frame: &'a FrameRecord,
    pub layout: FrameLayout,
}

impl fmt::Display for FrameRow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ts = self.frame.ts.strftime("%H:%M:%S.%3f");
        match self.layout {
            FrameLayout::Narrow => write!(f, "{ts}  {}", Narrow(self.frame)),
            FrameLayout::Wide => write!(f, "{ts}  {}", Wide(self.frame)),
            FrameLayout::Recorded => write!(f, "{}  {}", Clock(self.frame.ts), Wide(self.frame)),
        }
    }
}

/// All columns but the time.
struct Narrow<'a>(&'a FrameRecord);

impl fmt::Display for Narrow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frame = self.0;
        let opcode = OpcodeName(frame.opcode);
        // Control frames have short names.
        let opcode = match (frame.ping_rtt, frame.close_code) {
            (Some(rtt), _) => format!("{opcode} {}", RoundTrip(rtt)),
            (None, Some(code)) => format!("{opcode} {code}"),
            (None, None) => opcode.to_string(),
        };
        write!(
            f,
            "{:<7}  {:<21}  {:<3}  {opcode:<13}  {}{}{}  {:>7}",
            frame.cookie.0,
            frame.peer.to_string(),
            frame.direction.as_str(),
            if frame.fin { 'F' } else { '-' },
            Rsv(frame.rsv),
            if frame.masked { 'M' } else { '-' },
            frame.length,
        )
    }
}

/// All columns but the time.
struct Wide<'a>(&'a FrameRecord);

impl fmt::Display for Wide<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FrameRecord {
            ts: _,
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
            "{:<9}  {:<21}  {:<3}  {:<3}  {}  {:<12}  {:<4}  {length:>10}",
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
        let table = |layout: FrameLayout| {
            let frames = [&text, &close, &pong];
            let rows = frames.map(|frame| FrameRow { frame, layout }.to_string());
            [layout.head(), &rows[0], &rows[1], &rows[2]].join("\n")
        };
        let narrow = "\
TIME          COOKIE   PEER                   DIR  OPCODE         FLAGS   LENGTH
18:37:52.533  315653   10.77.1.12:53787       tx   text           F----        5
18:37:52.533  315653   10.77.1.12:53787       rx   close 1001     -1-3M        5
18:37:52.533  315653   10.77.1.12:53787       tx   pong 1.2 ms    F----        5";
        assert_eq!(table(FrameLayout::Narrow), narrow);
        let wide = "\
TIME          COOKIE     PEER                   DIR  FIN  RSV  OPCODE        MASK      LENGTH
18:37:52.533  315653     10.77.1.12:53787       tx   FIN  ---  text          -              5
18:37:52.533  315653     10.77.1.12:53787       rx   -    1-3  close         mask           5  code 1001
18:37:52.533  315653     10.77.1.12:53787       tx   FIN  ---  pong          -              5  rtt 1.2 ms";
        assert_eq!(table(FrameLayout::Wide), wide);
        let recorded = table(FrameLayout::Recorded);
        assert!(
            recorded.contains("\n18:37:52.533000  315653     10.77"),
            "{recorded}"
        );
    }

    #[test]
    fn the_longest_ipv4_lines_fit_their_terminals() {
        let longest = FrameRecord {
            cookie: ConnId(9_999_999),
            peer: ([255, 255, 255, 255], 65_535).into(),
            opcode: opcode::PONG,
            length: 9_999_999,
            ping_rtt: Some(Duration::from_millis(999)),
            close_code: None,
            ..frame()
        };
        for (layout, width) in [(FrameLayout::Narrow, 80), (FrameLayout::Wide, WIDE)] {
            let frame = &longest;
            let line = FrameRow { frame, layout }.to_string();
            assert!(line.chars().count() <= width, "{line}");
            assert!(layout.head().len() <= width, "{layout:?}");
        }
        assert_eq!(FrameLayout::of_width(Some(80)), FrameLayout::Narrow);
        assert_eq!(FrameLayout::of_width(Some(120)), FrameLayout::Wide);
        assert_eq!(FrameLayout::of_width(None), FrameLayout::Wide);
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
