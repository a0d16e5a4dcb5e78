//! TCP sockets of one network namespace, by `NETLINK_SOCK_DIAG` (sock_diag(7)).
//!
//! The kernel hands out a dump in datagrams of some 70 sockets, each filled when the one before is
//! received, so a million sockets cost no more memory here than the ones that are wanted.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_OVERRUN,
    NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{
        AF_INET, AF_INET6, INET_DIAG_INFO, IPPROTO_TCP, TCP_CLOSE_WAIT, TCP_CLOSING,
        TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_LAST_ACK,
    },
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};

use super::{clock, tcp_info::TcpInfo};
use crate::core::Ktime;

/// Room for a datagram and for the kernel's queue of them. The kernel fills at most 32 KiB at a
/// time today; a longer datagram is an error, not a silent cut.
const RECEIVE_BUFFER: usize = 256 * 1024;

/// `MSG_TRUNC`: report the true length of a datagram even if it did not fit (recv(2)).
const MSG_TRUNC: i32 = 0x20;

/// One TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiagSocket {
    /// When the kernel took this picture, at most a datagram's filling (about 0.2 ms) too late.
    pub at: Ktime,
    /// The number that `bpf_get_socket_cookie` gives.
    pub cookie: u64,
    pub family: Family,
    pub state: TcpState,
    /// IPv4 also where an IPv6 socket carries it (`::ffff:192.0.2.1` becomes `192.0.2.1`); without
    /// an IPv6 scope.
    pub local: SocketAddr,
    /// In the same form as `local`.
    pub peer: SocketAddr,
    /// Bytes received and not yet read by the application.
    pub receive_queue: u32,
    /// Bytes written and not yet acknowledged, sent or not; a FIN counts as one.
    pub send_queue: u32,
    pub uid: u32,
    /// The inode of the socket's file; 0 once the application has closed it.
    pub inode: u32,
    /// `None` where the kernel gave none.
    pub info: Option<TcpInfo>,
}

/// The family of the socket itself: an [`Inet6`](Family::Inet6) one may carry IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    Inet,
    Inet6,
}

/// The states of a connection, from the end of the handshake to its last acknowledgement
/// (`include/net/tcp_states.h`). The others are not asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    LastAck,
    Closing,
}

/// What one dump gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    /// A socket that changed its hash chain meanwhile may be here twice, with the same cookie.
    pub sockets: Vec<DiagSocket>,
    /// Sockets on wanted ports that could not be understood.
    pub unparsed: u64,
    /// The kernel says that its tables changed too much to be sure that nothing was skipped.
    pub interrupted: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SockDiagError {
    #[error("cannot open a sock_diag socket: {0}")]
    Open(#[source] io::Error),
    #[error("cannot ask sock_diag for sockets: {0}")]
    Send(#[source] io::Error),
    #[error("cannot receive from sock_diag: {0}")]
    Receive(#[source] io::Error),
    #[error("sock_diag refused the dump: {0}; the kernel needs CONFIG_INET_DIAG and tcp_diag")]
    Refused(#[source] io::Error),
    #[error(
        "sock_diag sent a datagram of {length} bytes, of which {} fit",
        RECEIVE_BUFFER
    )]
    DatagramTooLong { length: usize },
    #[error("sock_diag sent a truncated message at byte {offset} of a datagram of {length}")]
    Truncated { offset: usize, length: usize },
    #[error("sock_diag lost messages for want of buffer space")]
    Overrun,
}

/// A netlink socket of one network namespace: the one in which [`SockDiag::open`] was called,
/// wherever it is used from afterwards.
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

    /// The connections for which `wanted(local port, peer port)` holds, of both families. Nothing
    /// is allocated for the others.
    pub fn dump(
        &mut self,
        mut wanted: impl FnMut(u16, u16) -> bool,
    ) -> Result<Dump, SockDiagError> {
        let mut dump = Dump::default();
        for family in [AF_INET, AF_INET6] {
            self.request(family)?;
            // The kernel fills the next datagram while it hands out this one: a picture is as old
            // as the end of the system call before.
            let mut filled_at = clock::now();
            loop {
                self.receive()?;
                let progress = read_datagram(
                    &self.buffer,
                    self.sequence,
                    filled_at,
                    &mut wanted,
                    &mut dump,
                )?;
                if progress == Progress::Done {
                    break;
                }
                filled_at = clock::now();
            }
        }
        Ok(dump)
    }

    fn request(&mut self, family: u8) -> Result<(), SockDiagError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        header.sequence_number = self.sequence;
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::INFO,
            states: StateFlags::ESTABLISHED
                | StateFlags::FIN_WAIT1
                | StateFlags::FIN_WAIT2
                | StateFlags::CLOSE_WAIT
                | StateFlags::LAST_ACK
                | StateFlags::CLOSING,
            socket_id: SocketId::new_v4(),
        });
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket
            .send(&bytes, 0)
            .map(drop)
            .map_err(SockDiagError::Send)
    }

    /// The next datagram into the buffer.
    fn receive(&mut self) -> Result<(), SockDiagError> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, MSG_TRUNC) {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    More,
    Done,
}

/// Adds the wanted sockets of one datagram to `dump`. Messages of another sequence belong to an
/// earlier dump that ended in an error, and are skipped.
fn read_datagram(
    datagram: &[u8],
    sequence: u32,
    at: Ktime,
    mut wanted: impl FnMut(u16, u16) -> bool,
    dump: &mut Dump,
) -> Result<Progress, SockDiagError> {
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
            // A dump that broke off ends with an error number in place of 0.
            NLMSG_DONE => {
                return refusal(message.payload()).map_or(Ok(Progress::Done), Err);
            }
            NLMSG_ERROR => return Err(refusal(message.payload()).unwrap_or(truncated)),
            NLMSG_OVERRUN => return Err(SockDiagError::Overrun),
            _ => match parse_socket(message.payload(), at, &mut wanted) {
                Ok(Some(socket)) => dump.sockets.push(socket),
                Ok(None) => {}
                Err(Malformed) => dump.unparsed += 1,
            },
        }
    }
    Ok(Progress::More)
}

/// The negative error number at the start of `NLMSG_ERROR` and `NLMSG_DONE`.
fn refusal(payload: &[u8]) -> Option<SockDiagError> {
    let errno = i32::from_ne_bytes(*payload.first_chunk()?);
    (errno < 0)
        .then(|| SockDiagError::Refused(io::Error::from_raw_os_error(errno.saturating_neg())))
}

/// `struct inet_diag_msg` (`include/uapi/linux/inet_diag.h`).
const INET_DIAG_MSG: usize = 72;

/// `None` for a socket that is not wanted.
fn parse_socket(
    payload: &[u8],
    at: Ktime,
    mut wanted: impl FnMut(u16, u16) -> bool,
) -> Result<Option<DiagSocket>, Malformed> {
    let (header, attributes) = payload
        .split_first_chunk::<INET_DIAG_MSG>()
        .ok_or(Malformed)?;
    let local_port = u16::from_be_bytes([header[4], header[5]]);
    let peer_port = u16::from_be_bytes([header[6], header[7]]);
    if !wanted(local_port, peer_port) {
        return Ok(None);
    }
    describe(header, attributes, at).map(Some)
}

fn describe(
    header: &[u8; INET_DIAG_MSG],
    attributes: &[u8],
    at: Ktime,
) -> Result<DiagSocket, Malformed> {
    let array = |offset: usize| -> [u8; 4] { std::array::from_fn(|index| header[offset + index]) };
    let u32_at = |offset| u32::from_ne_bytes(array(offset));

    let family = Family::of(header[0])?;
    let address = |port_at: usize, address_at: usize| {
        let ip = match family {
            Family::Inet => IpAddr::V4(Ipv4Addr::from(array(address_at))),
            Family::Inet6 => {
                let octets: [u8; 16] = std::array::from_fn(|index| header[address_at + index]);
                Ipv6Addr::from(octets).to_canonical()
            }
        };
        SocketAddr::new(
            ip,
            u16::from_be_bytes([header[port_at], header[port_at + 1]]),
        )
    };
    Ok(DiagSocket {
        at,
        // Two 32-bit halves, the low one first on every architecture.
        cookie: u64::from(u32_at(44)) | u64::from(u32_at(48)) << 32,
        family,
        state: TcpState::of(header[1])?,
        local: address(4, 8),
        peer: address(6, 24),
        receive_queue: u32_at(56),
        send_queue: u32_at(60),
        uid: u32_at(64),
        inode: u32_at(68),
        info: find_info(attributes)?,
    })
}

/// `None` where the kernel gave no `INET_DIAG_INFO`.
fn find_info(attributes: &[u8]) -> Result<Option<TcpInfo>, Malformed> {
    for attribute in NlasIterator::new(attributes) {
        let attribute = attribute.map_err(|_| Malformed)?;
        if attribute.kind() == INET_DIAG_INFO {
            return TcpInfo::parse(attribute.value()).map(Some).ok_or(Malformed);
        }
    }
    Ok(None)
}

/// A socket that does not read as `inet_diag` says it should.
struct Malformed;

impl Family {
    fn of(family: u8) -> Result<Self, Malformed> {
        match family {
            AF_INET => Ok(Self::Inet),
            AF_INET6 => Ok(Self::Inet6),
            _ => Err(Malformed),
        }
    }
}

impl TcpState {
    fn of(state: u8) -> Result<Self, Malformed> {
        match state {
            TCP_ESTABLISHED => Ok(Self::Established),
            TCP_FIN_WAIT1 => Ok(Self::FinWait1),
            TCP_FIN_WAIT2 => Ok(Self::FinWait2),
            TCP_CLOSE_WAIT => Ok(Self::CloseWait),
            TCP_LAST_ACK => Ok(Self::LastAck),
            TCP_CLOSING => Ok(Self::Closing),
            _ => Err(Malformed),
        }
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{Emitable, NLMSG_NOOP};
    use netlink_packet_sock_diag::inet::{InetResponse, InetResponseHeader, nlas::Nla};

    use super::*;

    const SEQUENCE: u32 = 7;
    const AT: Ktime = Ktime(1_000_000_000);

    fn message(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
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

    /// A socket as the netlink crate writes it: an opinion on the layout that is not our own.
    fn response(family: u8, local: &str, peer: &str) -> Vec<u8> {
        let (local, peer): (SocketAddr, SocketAddr) =
            (local.parse().unwrap(), peer.parse().unwrap());
        let response = InetResponse {
            header: InetResponseHeader {
                family,
                state: TCP_ESTABLISHED,
                timer: None,
                socket_id: SocketId {
                    source_port: local.port(),
                    destination_port: peer.port(),
                    source_address: local.ip(),
                    destination_address: peer.ip(),
                    interface_id: 0,
                    cookie: [0x11, 0, 0, 0, 0x22, 0, 0, 0],
                },
                recv_queue: 3,
                send_queue: 4,
                uid: 1000,
                inode: 4711,
            },
            nlas: vec![Nla::Mark(5), Nla::Congestion("cubic".to_owned())].into(),
        };
        let mut bytes = vec![0; response.buffer_len()];
        response.emit(&mut bytes);
        bytes
    }

    fn with_info(mut response: Vec<u8>, length: u16) -> Vec<u8> {
        response.extend((4 + length).to_ne_bytes());
        response.extend(INET_DIAG_INFO.to_ne_bytes());
        response.resize(response.len() + usize::from(length), 1);
        response
    }

    fn socket_message(payload: &[u8]) -> Vec<u8> {
        message(20, 0, payload)
    }

    fn read(datagram: &[u8]) -> Result<(Progress, Dump), SockDiagError> {
        let mut dump = Dump::default();
        let progress = read_datagram(datagram, SEQUENCE, AT, |_, _| true, &mut dump)?;
        Ok((progress, dump))
    }

    #[test]
    fn every_field_of_a_socket_is_read() {
        let payload = with_info(response(AF_INET, "127.0.0.1:8080", "192.0.2.1:40000"), 280);
        let (progress, dump) = read(&socket_message(&payload)).unwrap();
        assert_eq!(progress, Progress::More);
        let expected = DiagSocket {
            at: AT,
            cookie: 0x22_0000_0011,
            family: Family::Inet,
            state: TcpState::Established,
            local: "127.0.0.1:8080".parse().unwrap(),
            peer: "192.0.2.1:40000".parse().unwrap(),
            receive_queue: 3,
            send_queue: 4,
            uid: 1000,
            inode: 4711,
            info: TcpInfo::parse(&[1; 280]),
        };
        assert_eq!(dump.sockets, [expected]);
    }

    #[test]
    fn tcp_info_of_an_older_kernel_is_read() {
        let payload = with_info(response(AF_INET, "127.0.0.1:1", "127.0.0.1:2"), 232);
        let (_, dump) = read(&socket_message(&payload)).unwrap();
        assert_eq!(dump.sockets[0].info, TcpInfo::parse(&[1; 232]));
        assert!(dump.sockets[0].info.is_some());
    }

    #[test]
    fn a_mapped_address_is_ipv4_and_a_real_one_ipv6() {
        for (given, expected) in [
            ("[::ffff:192.0.2.1]:5", "192.0.2.1:5"),
            ("[::1]:5", "[::1]:5"),
        ] {
            let payload = response(AF_INET6, given, given);
            let (_, dump) = read(&socket_message(&payload)).unwrap();
            assert_eq!(dump.sockets[0].local, expected.parse().unwrap());
            assert_eq!(dump.sockets[0].peer, expected.parse().unwrap());
            assert_eq!(dump.sockets[0].family, Family::Inet6);
            assert_eq!(dump.sockets[0].info, None);
        }
    }

    #[test]
    fn what_cannot_be_understood_is_counted_and_the_rest_goes_on() {
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
        let (progress, dump) = read(&datagram).unwrap();
        assert_eq!(progress, Progress::Done);
        assert_eq!((dump.sockets.len(), dump.unparsed), (1, 5));
    }

    #[test]
    fn only_wanted_ports_are_kept() {
        let datagram = [
            socket_message(&response(AF_INET, "127.0.0.1:8080", "127.0.0.1:40000")),
            socket_message(&response(AF_INET, "127.0.0.1:40000", "127.0.0.1:8080")),
        ]
        .concat();
        let mut dump = Dump::default();
        read_datagram(&datagram, SEQUENCE, AT, |local, _| local == 8080, &mut dump).unwrap();
        assert_eq!(dump.sockets.len(), 1);
        assert_eq!(dump.sockets[0].local.port(), 8080);
    }

    #[test]
    fn an_interrupted_dump_says_so() {
        let (_, dump) = read(&message(NLMSG_DONE, NLM_F_DUMP_INTR, &0_i32.to_ne_bytes())).unwrap();
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
        assert_eq!(read(&stale).unwrap(), (Progress::More, Dump::default()));
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
