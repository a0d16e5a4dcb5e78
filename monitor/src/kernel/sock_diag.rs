//! Reads the TCP sockets of one network namespace by `NETLINK_SOCK_DIAG` (sock_diag(7)).
//!
//! The kernel returns a dump in datagrams of about 70 sockets, filling each when the previous one is
//! received. Each socket is passed to the caller and dropped, so a million sockets cost no memory here.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN,
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_sock_diag::inet::{ExtensionFlags, StateFlags};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use rustix::io::Errno;

pub mod inet_diag;
pub(super) mod port_filter;
pub mod scan;
mod seed;
pub mod sock_destroy;
pub mod socket_finder;
pub mod socket_query;
pub mod tcp_info;

use super::clock;
use inet_diag::{DiagSocket, MalformedSocket, parse_socket};
use monitor_core::Ktime;
use port_filter::PortFilter;

/// Room for a datagram and for the kernel's queue of them. The kernel currently fills at most 32 KiB at
/// a time; a longer datagram is an error, not a silent cut.
const RECEIVE_BUFFER: usize = 256 * 1024;

/// Report the true length of a datagram even if it did not fit (recv(2)).
const MSG_TRUNC: i32 = 0x20;
/// Fail rather than wait (recv(2)).
const MSG_DONTWAIT: i32 = 0x40;

/// What one dump reports besides its sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// Sockets on wanted ports that could not be parsed.
    pub unparsed: u64,
    /// The kernel reports that its tables changed too much to guarantee a complete dump.
    pub interrupted: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SockDiagError {
    #[error("cannot open a sock_diag socket: {0}")]
    Open(#[source] io::Error),
    #[error("cannot send to sock_diag: {0}")]
    Send(#[source] io::Error),
    #[error("cannot receive from sock_diag: {0}")]
    Receive(#[source] io::Error),
    #[error("sock_diag refused the request: {0}; it needs the module tcp_diag")]
    Refused(#[source] io::Error),
    #[error("sock_diag sent an invalid description of a socket")]
    MalformedSocket,
    #[error(
        "sock_diag sent a datagram of {length} bytes, of which {} fit",
        RECEIVE_BUFFER
    )]
    DatagramTooLong { length: usize },
    #[error("sock_diag sent a truncated message at byte {offset} of a datagram of {length}")]
    Truncated { offset: usize, length: usize },
    #[error("sock_diag lost messages because its buffer was full")]
    Overrun,
}

/// A netlink socket of one network namespace: the one in which [`SockDiag::open`] was called, wherever
/// it is used from afterwards.
#[derive(Debug)]
pub struct SockDiag {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl SockDiag {
    pub fn open() -> Result<Self, SockDiagError> {
        let socket = Socket::new(NETLINK_SOCK_DIAG).map_err(SockDiagError::Open)?;
        // The kernel clamps this to net.core.rmem_max; a smaller queue is slower, not wrong.
        socket
            .set_rx_buf_sz(RECEIVE_BUFFER as i32)
            .map_err(SockDiagError::Open)?;
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(RECEIVE_BUFFER),
            sequence: 0,
        })
    }

    /// Passes the connections for which `wanted(local port, peer port)` holds, of both families. A
    /// connection that changes its hash chain meanwhile may be passed twice, with the same cookie.
    ///
    /// The kernel omits sockets that don't pass `filter`, so all wanted ones must pass it.
    pub fn dump(
        &mut self,
        filter: &PortFilter,
        mut wanted: impl FnMut(u16, u16) -> bool,
        mut show: impl FnMut(DiagSocket),
    ) -> Result<Dump, SockDiagError> {
        self.dump_states(connections(), filter, &mut wanted, &mut show)
    }

    /// Passes the listening sockets on ports for which `wanted(local port)` holds, of both families.
    /// The cost does not depend on the number of connections.
    pub fn dump_listening(
        &mut self,
        mut wanted: impl FnMut(u16) -> bool,
        mut show: impl FnMut(DiagSocket),
    ) -> Result<Dump, SockDiagError> {
        let mut wanted = |local, _| wanted(local);
        let all = PortFilter::default();
        self.dump_states(StateFlags::LISTEN, &all, &mut wanted, &mut show)
    }

    /// Fails if the kernel cannot report TCP sockets. Requests none, so it costs nothing.
    pub(super) fn probe(&mut self) -> Result<(), SockDiagError> {
        let (all, none) = (PortFilter::default(), StateFlags::empty());
        self.dump_states(none, &all, &mut |_, _| false, &mut drop)
            .map(drop)
    }

    /// Passes the wanted sockets in these states.
    fn dump_states(
        &mut self,
        states: StateFlags,
        filter: &PortFilter,
        wanted: &mut impl FnMut(u16, u16) -> bool,
        show: &mut impl FnMut(DiagSocket),
    ) -> Result<Dump, SockDiagError> {
        let filtered = self.dump_passed(&states, filter, wanted, show);
        match filtered {
            // A kernel that does not support its filter reports that before the first socket.
            Err(SockDiagError::Refused(cause)) if is_invalid(&cause) && !filter.is_empty() => {
                self.dump_passed(&states, &PortFilter::default(), wanted, show)
            }
            _ => filtered,
        }
    }

    fn dump_passed(
        &mut self,
        states: &StateFlags,
        filter: &PortFilter,
        wanted: &mut impl FnMut(u16, u16) -> bool,
        show: &mut impl FnMut(DiagSocket),
    ) -> Result<Dump, SockDiagError> {
        self.request(states, filter)?;
        let mut dump = Dump::default();
        // The kernel fills the next datagram while it returns this one, so the data is as old as the
        // end of the previous system call.
        let mut filled_at = clock::now();
        loop {
            self.receive(0)?;
            let (datagram, sequence) = (&self.buffer, self.sequence);
            let read = read_datagram(
                datagram,
                sequence,
                filled_at,
                &mut *wanted,
                &mut *show,
                &mut dump,
            )?;
            if read == DumpProgress::Done {
                return Ok(dump);
            }
            filled_at = clock::now();
        }
    }

    /// Sends one request about one socket and returns its response, if `read(datagram, sequence)`
    /// accepts it. The kernel responds within the send, so this never waits.
    pub(super) fn exchange<T>(
        &mut self,
        flags: u16,
        payload: impl NetlinkSerializable,
        mut read: impl FnMut(&[u8], u32) -> Result<Option<T>, SockDiagError>,
    ) -> Result<T, SockDiagError> {
        self.send(NLM_F_REQUEST | flags, payload)?;
        loop {
            self.receive(MSG_DONTWAIT)?;
            if let Some(answer) = read(&self.buffer, self.sequence)? {
                return Ok(answer);
            }
        }
    }

    pub(super) fn request(
        &mut self,
        states: &StateFlags,
        filter: &PortFilter,
    ) -> Result<(), SockDiagError> {
        let request = DumpRequest {
            states: states.bits(),
            attribute: filter.attribute(),
        };
        self.send(NLM_F_REQUEST | NLM_F_DUMP, request)
    }

    fn send(&mut self, flags: u16, payload: impl NetlinkSerializable) -> Result<(), SockDiagError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(payload));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket
            .send(&bytes, 0)
            .map(drop)
            .map_err(SockDiagError::Send)
    }

    /// Receives the next datagram into the buffer.
    fn receive(&mut self, flags: i32) -> Result<(), SockDiagError> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, MSG_TRUNC | flags) {
                Ok(length) if length > self.buffer.len() => {
                    return Err(SockDiagError::DatagramTooLong { length });
                }
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(SockDiagError::Receive(error)),
            }
        }
    }
}

/// A request for the sockets of both families: `struct inet_diag_req`, with type `TCPDIAG_GETSOCK`. Its
/// successor `struct inet_diag_req_v2` requests one family, and the kernel iterates over all sockets of
/// the host for each.
struct DumpRequest {
    states: u32,
    /// May be empty.
    attribute: Vec<u8>,
}

/// `TCPDIAG_GETSOCK`, and the size of `struct inet_diag_req` (`include/uapi/linux/inet_diag.h`).
const GETSOCK: u16 = 18;
const INET_DIAG_REQ: usize = 60;

impl NetlinkSerializable for DumpRequest {
    fn message_type(&self) -> u16 {
        GETSOCK
    }

    fn buffer_len(&self) -> usize {
        INET_DIAG_REQ + self.attribute.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (request, attribute) = buffer.split_at_mut(INET_DIAG_REQ);
        request.fill(0);
        request[3] = ExtensionFlags::INFO.bits();
        request[52..56].copy_from_slice(&self.states.to_ne_bytes());
        attribute.copy_from_slice(&self.attribute);
    }
}

fn is_invalid(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::INVAL.raw_os_error())
}

/// The states of a [`TcpState`](super::inet_diag::TcpState).
fn connections() -> StateFlags {
    StateFlags::ESTABLISHED
        | StateFlags::FIN_WAIT1
        | StateFlags::FIN_WAIT2
        | StateFlags::CLOSE_WAIT
        | StateFlags::LAST_ACK
        | StateFlags::CLOSING
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DumpProgress {
    More,
    Done,
}

/// Passes the wanted sockets of one datagram. Messages of another sequence belong to an earlier dump
/// that ended in an error, and are skipped.
fn read_datagram(
    datagram: &[u8],
    sequence: u32,
    at: Ktime,
    mut wanted: impl FnMut(u16, u16) -> bool,
    mut show: impl FnMut(DiagSocket),
    dump: &mut Dump,
) -> Result<DumpProgress, SockDiagError> {
    let mut offset = 0;
    while offset < datagram.len() {
        let truncated = SockDiagError::Truncated {
            offset,
            length: datagram.len(),
        };
        let Ok(message) = NetlinkBuffer::new_checked(&datagram[offset..]) else {
            return Err(truncated);
        };
        offset += (message.length() as usize).next_multiple_of(4);
        if message.sequence_number() != sequence {
            continue;
        }
        dump.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
        match message.message_type() {
            // A dump that was aborted ends with an error number in place of 0.
            NLMSG_DONE => {
                return refusal(message.payload()).map_or(Ok(DumpProgress::Done), Err);
            }
            NLMSG_ERROR => return Err(refusal(message.payload()).unwrap_or(truncated)),
            NLMSG_OVERRUN => return Err(SockDiagError::Overrun),
            GETSOCK => match parse_socket(message.payload(), at, &mut wanted) {
                Ok(Some(socket)) => show(socket),
                Ok(None) => {}
                Err(MalformedSocket) => dump.unparsed += 1,
            },
            _ => {}
        }
    }
    Ok(DumpProgress::More)
}

/// The negative error number at the start of `NLMSG_ERROR` and `NLMSG_DONE`.
pub(super) fn refusal(payload: &[u8]) -> Option<SockDiagError> {
    let errno = i32::from_ne_bytes(*payload.first_chunk()?);
    (errno < 0)
        .then(|| SockDiagError::Refused(io::Error::from_raw_os_error(errno.saturating_neg())))
}

#[cfg(test)]
pub(super) mod tests {
    use netlink_packet_core::NLMSG_NOOP;
    use netlink_packet_sock_diag::constants::AF_INET;

    use super::inet_diag::tests::{response, with_info};
    use super::*;

    pub(in crate::kernel) const SEQUENCE: u32 = 7;
    const AT: Ktime = Ktime(1_000_000_000);

    pub(in crate::kernel) fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
        let length = 16 + payload.len();
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(length).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(SEQUENCE.to_ne_bytes());
        bytes.extend(0_u32.to_ne_bytes());
        bytes.extend(payload);
        bytes.resize(length.next_multiple_of(4), 0);
        bytes
    }

    fn socket_message(payload: &[u8]) -> Vec<u8> {
        message(GETSOCK, 0, payload)
    }

    /// The sockets of a datagram on ports for which `wanted` holds, and the rest of its content.
    fn read_wanted(
        datagram: &[u8],
        wanted: impl FnMut(u16, u16) -> bool,
    ) -> Result<(DumpProgress, Vec<DiagSocket>, Dump), SockDiagError> {
        let (mut sockets, mut dump) = (Vec::new(), Dump::default());
        let show = |socket| sockets.push(socket);
        let progress = read_datagram(datagram, SEQUENCE, AT, wanted, show, &mut dump)?;
        Ok((progress, sockets, dump))
    }

    fn read(datagram: &[u8]) -> Result<(DumpProgress, Vec<DiagSocket>, Dump), SockDiagError> {
        read_wanted(datagram, |_, _| true)
    }

    #[test]
    fn unparsable_sockets_are_counted_and_the_rest_is_read() {
        let good = response(AF_INET, "127.0.0.1:1", "127.0.0.1:2");
        let mut unknown_state = good.clone();
        unknown_state[1] = 99;
        let mut unknown_family = good.clone();
        unknown_family[0] = 99;
        let bad_attribute = [&good[..], &[255, 255, 2, 0]].concat();
        let datagram = [
            socket_message(&unknown_state),
            socket_message(&good[..40]),
            socket_message(&unknown_family),
            socket_message(&bad_attribute),
            socket_message(&with_info(good.clone(), 100)),
            socket_message(&good),
            message(NLMSG_DONE, 0, &0_i32.to_ne_bytes()),
        ]
        .concat();
        let (progress, sockets, dump) = read(&datagram).unwrap();
        assert_eq!(progress, DumpProgress::Done);
        assert_eq!((sockets.len(), dump.unparsed), (1, 5));
    }

    #[test]
    fn only_wanted_ports_are_kept() {
        let datagram = [
            socket_message(&response(AF_INET, "127.0.0.1:8080", "127.0.0.1:40000")),
            socket_message(&response(AF_INET, "127.0.0.1:40000", "127.0.0.1:8080")),
        ]
        .concat();
        let (_, sockets, _) = read_wanted(&datagram, |local, _| local == 8080).unwrap();
        assert_eq!(sockets.len(), 1);
        assert_eq!(sockets[0].local.port(), 8080);
    }

    #[test]
    fn an_interrupted_dump_is_marked() {
        let (_, _, dump) =
            read(&message(NLMSG_DONE, NLM_F_DUMP_INTR, &0_i32.to_ne_bytes())).unwrap();
        assert!(dump.interrupted);
    }

    #[test]
    fn a_refusal_carries_its_error_number() {
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            let error = read(&message(kind, 0, &(-2_i32).to_ne_bytes())).unwrap_err();
            let SockDiagError::Refused(cause) = error else {
                panic!("{error}")
            };
            assert_eq!(cause.raw_os_error(), Some(2));
        }
        assert!(matches!(
            read(&message(NLMSG_OVERRUN, 0, &[])),
            Err(SockDiagError::Overrun)
        ));
    }

    #[test]
    fn messages_of_an_earlier_dump_are_skipped() {
        let mut stale = message(NLMSG_DONE, 0, &0_i32.to_ne_bytes());
        stale[8..12].copy_from_slice(&(SEQUENCE - 1).to_ne_bytes());
        let skipped = (DumpProgress::More, Vec::new(), Dump::default());
        assert_eq!(read(&stale).unwrap(), skipped);
    }

    #[test]
    fn a_datagram_cut_anywhere_is_an_error_or_shorter_and_never_a_panic() {
        let datagram = [
            message(NLMSG_NOOP, 0, &[0; 72]),
            socket_message(&with_info(
                response(AF_INET, "127.0.0.1:1", "127.0.0.1:2"),
                280,
            )),
            message(NLMSG_ERROR, 0, &(-2_i32).to_ne_bytes()),
        ]
        .concat();
        let second = 88;
        for length in second + 1..datagram.len() {
            match read(&datagram[..length]) {
                Err(SockDiagError::Truncated { offset, length: of }) => {
                    assert!(offset >= second && of == length);
                }
                Ok(_) => assert_eq!(length, datagram.len() - 20),
                Err(error) => panic!("{length}: {error}"),
            }
        }
    }
}
