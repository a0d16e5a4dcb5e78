//! The part of `struct tcp_info` that shows whether a connection is alive.
//!
//! The struct only ever grows at its end (224 bytes in Linux 5.4, 232 in 6.1, 280 in 6.18), so the
//! fields are read by offset and the rest is ignored.

use std::time::Duration;

/// TCP's state of one socket (`include/uapi/linux/tcp.h`).
///
/// The three `last_*` clocks count jiffies (4 ms steps at `CONFIG_HZ=250`). All three start when the
/// connection is established, so on a socket that never carried data they give its age.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpInfo {
    /// Consecutive timeouts without an acknowledgement.
    pub retransmits: u8,
    /// Consecutive zero-window or keepalive probes without a response.
    pub probes: u8,
    /// How many times the retransmission timer has doubled.
    pub backoff: u8,
    /// The current retransmission timeout, including doublings.
    pub retransmission_timeout: Duration,
    /// Segments sent and not acknowledged; a FIN counts as one.
    pub unacked_segments: u32,
    /// Time since a segment with data (or FIN) was sent, *retransmissions included*: on a socket with
    /// unacknowledged data this is not an idle time.
    pub last_data_sent: Duration,
    /// Time since a segment with data arrived. A keepalive probe from the peer does not count.
    pub last_data_recv: Duration,
    /// Time since an acceptable acknowledgement arrived, whether or not it covered new bytes. The
    /// response to our keepalive probe counts, a keepalive probe from the peer does not.
    pub last_ack_recv: Duration,
    /// Bytes the peer has acknowledged; the SYN of an outgoing connection counts as one.
    pub bytes_acked: u64,
    pub bytes_received: u64,
    /// Bytes written by the application and never sent.
    pub notsent_bytes: u32,
    /// Segments with data sent, retransmissions included.
    pub data_segments_sent: u32,
    /// The window that the peer last advertised, scaled; `None` before Linux 5.4.
    pub peer_window: Option<u32>,
}

/// Up to and including `tcpi_data_segs_out` (Linux 4.6).
const NEEDED: usize = 160;
/// The offset of `tcpi_snd_wnd`.
const PEER_WINDOW: usize = 228;

impl TcpInfo {
    /// `None` if the kernel is too old to fill all the fields.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let peer_window = bytes.get(PEER_WINDOW..).and_then(<[u8]>::first_chunk);
        let bytes: &[u8; NEEDED] = bytes.first_chunk()?;
        let u32_at = |offset| u32::from_ne_bytes(array(bytes, offset));
        let u64_at = |offset| u64::from_ne_bytes(array(bytes, offset));
        let millis_at = |offset| Duration::from_millis(u64::from(u32_at(offset)));
        Some(Self {
            retransmits: bytes[2],
            probes: bytes[3],
            backoff: bytes[4],
            retransmission_timeout: Duration::from_micros(u64::from(u32_at(8))),
            unacked_segments: u32_at(24),
            last_data_sent: millis_at(44),
            last_data_recv: millis_at(52),
            last_ack_recv: millis_at(56),
            bytes_acked: u64_at(120),
            bytes_received: u64_at(128),
            notsent_bytes: u32_at(144),
            data_segments_sent: u32_at(156),
            peer_window: peer_window.map(|window| u32::from_ne_bytes(*window)),
        })
    }

    /// The minimum time for which the oldest unacknowledged segment has been outstanding.
    ///
    /// The kernel keeps only the moment of the last transmission. Each timeout was half of the next, so
    /// the time of the first follows from the current timeout. The tail loss probe and the ceiling of
    /// 120 s make the true time longer, never shorter.
    pub fn outstanding_for(&self) -> Duration {
        let earlier_timeouts =
            (1..=u32::from(self.backoff).min(31)).map(|n| self.retransmission_timeout / (1 << n));
        self.last_data_sent + earlier_timeouts.sum::<Duration>()
    }
}

/// `N` bytes at `offset`, which every caller above keeps at most `NEEDED - N`.
fn array<const N: usize>(bytes: &[u8; NEEDED], offset: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[offset + index])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `tcp_info` in which the 32-bit word at offset `4 n` holds `n`.
    fn numbered(length: usize) -> Vec<u8> {
        (0..length as u32 / 4).flat_map(u32::to_ne_bytes).collect()
    }

    #[test]
    fn fields_are_read_at_the_offsets_of_the_uapi_header() {
        let info = TcpInfo::parse(&numbered(232)).unwrap();
        assert_eq!(info.retransmission_timeout, Duration::from_micros(8 / 4));
        assert_eq!(info.unacked_segments, 24 / 4);
        assert_eq!(info.last_data_sent, Duration::from_millis(44 / 4));
        assert_eq!(info.last_data_recv, Duration::from_millis(52 / 4));
        assert_eq!(info.last_ack_recv, Duration::from_millis(56 / 4));
        assert_eq!(info.notsent_bytes, 144 / 4);
        assert_eq!(info.data_segments_sent, 156 / 4);
        assert_eq!(info.peer_window, Some(228 / 4));
    }

    #[test]
    fn a_longer_struct_is_parsed_like_a_shorter_one() {
        let of_linux_6_1 = TcpInfo::parse(&numbered(232));
        let of_linux_6_18 = TcpInfo::parse(&numbered(280));
        assert!(of_linux_6_1.is_some());
        assert_eq!(of_linux_6_1, of_linux_6_18);
    }

    #[test]
    fn a_struct_without_our_fields_is_refused() {
        let without_window = TcpInfo::parse(&numbered(228)).unwrap();
        assert_eq!(without_window.peer_window, None);
        assert_eq!(TcpInfo::parse(&numbered(156)), None);
        assert_eq!(TcpInfo::parse(&[]), None);
    }

    /// Measured on Linux 6.18: 5.0 s after a send into a black hole.
    #[test]
    fn the_age_of_a_black_hole_follows_from_the_backoff_and_is_never_too_long() {
        let info = TcpInfo {
            backoff: 4,
            retransmits: 4,
            retransmission_timeout: Duration::from_micros(3_264_000),
            last_data_sent: Duration::from_millis(1652),
            ..TcpInfo::default()
        };
        let age = info.outstanding_for();
        assert!(age <= Duration::from_secs(5), "{age:?}");
        assert!(age >= Duration::from_millis(4500), "{age:?}");
    }

    #[test]
    fn an_absurd_backoff_does_not_overflow() {
        let info = TcpInfo {
            backoff: u8::MAX,
            ..TcpInfo::default()
        };
        assert_eq!(info.outstanding_for(), Duration::ZERO);
    }
}
