//! Parses one socket of a sock_diag dump: `struct inet_diag_msg` and its attributes
//! (`include/uapi/linux/inet_diag.h`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use netlink_packet_core::NlasIterator;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, INET_DIAG_INFO, TCP_CLOSE, TCP_CLOSE_WAIT, TCP_CLOSING, TCP_ESTABLISHED,
    TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_LAST_ACK, TCP_LISTEN, TCP_SYN_RECV, TCP_SYN_SENT,
    TCP_TIME_WAIT,
};

use super::tcp_info::TcpInfo;
use monitor_core::Ktime;

/// One TCP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiagSocket {
    /// When the kernel read the socket, late by at most the time to fill a datagram (about 0.2 ms).
    pub at: Ktime,
    /// The value of `bpf_get_socket_cookie`.
    pub cookie: u64,
    pub family: AddressFamily,
    pub state: TcpState,
    /// IPv4 even if an IPv6 socket carries it (`::ffff:192.0.2.1` becomes `192.0.2.1`); without an IPv6
    /// scope.
    pub local: SocketAddr,
    /// In the same form as `local`.
    pub peer: SocketAddr,
    /// The index of the interface to which the socket is bound (`SO_BINDTODEVICE`, a VRF, an IPv6
    /// link-local address); 0 without one.
    pub interface: u32,
    /// Bytes received and not yet read by the application; a FIN counts as one (`tcp_diag_get_info` in
    /// `net/ipv4/tcp_diag.c`).
    pub receive_queue: u32,
    /// Bytes written and not yet acknowledged, sent or not; a FIN counts as one.
    pub send_queue: u32,
    /// The inode of the socket's file; 0 once the application has closed it.
    pub inode: u32,
    /// The cgroup v2 in which the socket, or the listener that accepted it, was created: the value of
    /// `bpf_sk_cgroup_id`. `None` if the kernel reported none.
    pub cgroup_id: Option<u64>,
    /// One subflow of an MPTCP connection (RFC 8684), not a fallback to plain TCP. The kernel reports
    /// this only to a process that may administer the network namespace.
    pub is_subflow: bool,
    /// `None` if the kernel reported none.
    pub info: Option<TcpInfo>,
}

/// The family of the socket: an [`Inet6`](AddressFamily::Inet6) one may carry IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddressFamily {
    Inet,
    Inet6,
}

/// The states of a connection, from the end of the handshake to its last acknowledgement, and that of a
/// listening socket (`include/net/tcp_states.h`). No other states are requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TcpState {
    Established,
    FinWait1,
    FinWait2,
    CloseWait,
    LastAck,
    Closing,
    Listen,
}

/// A half-open connection, shown as `TCP_SYN_RECV` (`include/net/tcp_states.h`).
const TCP_NEW_SYN_RECV: u8 = 12;

/// The size of `struct inet_diag_msg`.
const INET_DIAG_MSG: usize = 72;

/// `INET_DIAG_CGROUP_ID`, a `u64`: always reported since Linux 5.8.
const INET_DIAG_CGROUP_ID: u16 = 21;

/// `INET_DIAG_ULP_INFO`, a nest: the protocol between TCP and the application, if any.
const INET_DIAG_ULP_INFO: u16 = 19;
/// `INET_ULP_INFO_MPTCP` in it, the nest of a subflow.
const INET_ULP_INFO_MPTCP: u16 = 3;
/// `MPTCP_SUBFLOW_ATTR_FLAGS` in that, a `u32` (`include/uapi/linux/mptcp.h`).
const MPTCP_SUBFLOW_ATTR_FLAGS: u16 = 8;
/// `MPTCP_SUBFLOW_FLAG_MCAP_REM` and `MPTCP_SUBFLOW_FLAG_JOIN_REM`: the peer supports MPTCP too.
const AGREED: u32 = 1 | 1 << 2;

/// `None` for a socket for which `wanted(local port, peer port)` is false, and for one that is neither a
/// listener nor a connection: it can be closed after the kernel has chosen it and before it describes
/// it, and a socket in SYN_RECV or TIME_WAIT carries the cookie of the connection.
pub(super) fn parse_socket(
    payload: &[u8],
    at: Ktime,
    mut wanted: impl FnMut(u16, u16) -> bool,
) -> Result<Option<DiagSocket>, MalformedSocket> {
    let (header, attributes) = payload
        .split_first_chunk::<INET_DIAG_MSG>()
        .ok_or(MalformedSocket)?;
    let local_port = u16::from_be_bytes([header[4], header[5]]);
    let peer_port = u16::from_be_bytes([header[6], header[7]]);
    if !wanted(local_port, peer_port) {
        return Ok(None);
    }
    match TcpState::of(header[1])? {
        Some(state) => describe(state, header, attributes, at).map(Some),
        None => Ok(None),
    }
}

fn describe(
    state: TcpState,
    header: &[u8; INET_DIAG_MSG],
    attributes: &[u8],
    at: Ktime,
) -> Result<DiagSocket, MalformedSocket> {
    let array = |offset: usize| -> [u8; 4] { std::array::from_fn(|index| header[offset + index]) };
    let u32_at = |offset| u32::from_ne_bytes(array(offset));

    let family = AddressFamily::of(header[0])?;
    let address = |port_at: usize, address_at: usize| {
        let ip = match family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::from(array(address_at))),
            AddressFamily::Inet6 => {
                let octets: [u8; 16] = std::array::from_fn(|index| header[address_at + index]);
                Ipv6Addr::from(octets).to_canonical()
            }
        };
        SocketAddr::new(
            ip,
            u16::from_be_bytes([header[port_at], header[port_at + 1]]),
        )
    };
    let attributes = Attributes::parse(attributes)?;
    Ok(DiagSocket {
        at,
        // Two 32-bit halves, the low one first on every architecture.
        cookie: u64::from(u32_at(44)) | u64::from(u32_at(48)) << 32,
        family,
        state,
        local: address(4, 8),
        peer: address(6, 24),
        interface: u32_at(40),
        receive_queue: u32_at(56),
        send_queue: u32_at(60),
        inode: u32_at(68),
        cgroup_id: attributes.cgroup_id,
        is_subflow: attributes.is_subflow,
        info: attributes.info,
    })
}

/// The attributes of interest after a `struct inet_diag_msg`.
#[derive(Default)]
struct Attributes {
    cgroup_id: Option<u64>,
    is_subflow: bool,
    info: Option<TcpInfo>,
}

impl Attributes {
    fn parse(bytes: &[u8]) -> Result<Self, MalformedSocket> {
        let mut attributes = Self::default();
        for attribute in NlasIterator::new(bytes) {
            let attribute = attribute.map_err(|_| MalformedSocket)?;
            let value = attribute.value();
            match attribute.kind() {
                INET_DIAG_INFO => {
                    attributes.info = Some(TcpInfo::parse(value).ok_or(MalformedSocket)?);
                }
                INET_DIAG_CGROUP_ID => {
                    let id = value.try_into().map_err(|_| MalformedSocket)?;
                    attributes.cgroup_id = Some(u64::from_ne_bytes(id));
                }
                INET_DIAG_ULP_INFO => attributes.is_subflow = is_subflow(value)?,
                _ => {}
            }
        }
        Ok(attributes)
    }
}

/// Whether the protocol above is MPTCP. If the peer has none, the client's kernel keeps it unused.
fn is_subflow(ulp: &[u8]) -> Result<bool, MalformedSocket> {
    let Some(subflow) = find(ulp, INET_ULP_INFO_MPTCP)? else {
        return Ok(false);
    };
    let flags = find(&subflow, MPTCP_SUBFLOW_ATTR_FLAGS)?.ok_or(MalformedSocket)?;
    let flags = flags.try_into().map_err(|_| MalformedSocket)?;
    Ok(u32::from_ne_bytes(flags) & AGREED != 0)
}

/// The value of an attribute in a nest.
fn find(nest: &[u8], kind: u16) -> Result<Option<Vec<u8>>, MalformedSocket> {
    for attribute in NlasIterator::new(nest) {
        let attribute = attribute.map_err(|_| MalformedSocket)?;
        if attribute.kind() == kind {
            return Ok(Some(attribute.value().to_vec()));
        }
    }
    Ok(None)
}

/// A socket that does not match the layout of `inet_diag`.
#[derive(Debug)]
pub(super) struct MalformedSocket;

impl AddressFamily {
    fn of(family: u8) -> Result<Self, MalformedSocket> {
        match family {
            AF_INET => Ok(Self::Inet),
            AF_INET6 => Ok(Self::Inet6),
            _ => Err(MalformedSocket),
        }
    }
}

impl TcpState {
    /// `None` before and after the life of a connection.
    fn of(state: u8) -> Result<Option<Self>, MalformedSocket> {
        Ok(Some(match state {
            TCP_ESTABLISHED => Self::Established,
            TCP_FIN_WAIT1 => Self::FinWait1,
            TCP_FIN_WAIT2 => Self::FinWait2,
            TCP_CLOSE_WAIT => Self::CloseWait,
            TCP_LAST_ACK => Self::LastAck,
            TCP_CLOSING => Self::Closing,
            TCP_LISTEN => Self::Listen,
            TCP_SYN_SENT | TCP_SYN_RECV | TCP_TIME_WAIT | TCP_CLOSE | TCP_NEW_SYN_RECV => {
                return Ok(None);
            }
            _ => return Err(MalformedSocket),
        }))
    }

    pub fn has_received_fin(self) -> bool {
        matches!(self, Self::CloseWait | Self::LastAck | Self::Closing)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use netlink_packet_core::Emitable;
    use netlink_packet_sock_diag::inet::{InetResponse, InetResponseHeader, SocketId, nlas::Nla};

    use super::*;

    const AT: Ktime = Ktime(1_000_000_000);

    /// A socket as written by the netlink crate, whose layout is independent of ours.
    pub(in crate::kernel) fn response(family: u8, local: &str, peer: &str) -> Vec<u8> {
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
                    interface_id: 9,
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

    pub(in crate::kernel) fn with_info(mut response: Vec<u8>, length: u16) -> Vec<u8> {
        response.extend((4 + length).to_ne_bytes());
        response.extend(INET_DIAG_INFO.to_ne_bytes());
        response.resize(response.len() + usize::from(length), 1);
        response
    }

    pub(in crate::kernel) fn with_cgroup(mut response: Vec<u8>, id: &[u8]) -> Vec<u8> {
        response.extend((4 + u16::try_from(id.len()).unwrap()).to_ne_bytes());
        response.extend(INET_DIAG_CGROUP_ID.to_ne_bytes());
        response.extend(id);
        response
    }

    fn parsed(payload: &[u8]) -> DiagSocket {
        parse_socket(payload, AT, |_, _| true).unwrap().unwrap()
    }

    #[test]
    fn every_field_of_a_socket_is_read() {
        let payload = with_info(response(AF_INET, "127.0.0.1:8080", "192.0.2.1:40000"), 280);
        let payload = with_cgroup(payload, &0x5_0000_0007_u64.to_ne_bytes());
        let expected = DiagSocket {
            at: AT,
            cookie: 0x22_0000_0011,
            family: AddressFamily::Inet,
            state: TcpState::Established,
            local: "127.0.0.1:8080".parse().unwrap(),
            peer: "192.0.2.1:40000".parse().unwrap(),
            interface: 9,
            receive_queue: 3,
            send_queue: 4,
            inode: 4711,
            cgroup_id: Some(0x5_0000_0007),
            is_subflow: false,
            info: TcpInfo::parse(&[1; 280]),
        };
        assert_eq!(parsed(&payload), expected);
    }

    #[test]
    fn a_cgroup_id_of_another_width_is_malformed() {
        let payload = with_cgroup(response(AF_INET, "127.0.0.1:1", "127.0.0.1:2"), &[0; 4]);
        assert!(parse_socket(&payload, AT, |_, _| true).is_err());
    }

    #[test]
    fn a_socket_before_or_after_its_connection_is_none() {
        let mut payload = response(AF_INET, "127.0.0.1:1", "127.0.0.1:2");
        // All states but TCP_BOUND_INACTIVE, which only a request for it shows.
        let is_some: Vec<u8> = (TCP_ESTABLISHED..=TCP_NEW_SYN_RECV)
            .filter(|&state| {
                payload[1] = state;
                parse_socket(&payload, AT, |_, _| true).unwrap().is_some()
            })
            .collect();
        assert_eq!(
            is_some,
            [
                TCP_ESTABLISHED,
                TCP_FIN_WAIT1,
                TCP_FIN_WAIT2,
                TCP_CLOSE_WAIT,
                TCP_LAST_ACK,
                TCP_LISTEN,
                TCP_CLOSING,
            ]
        );
        payload[1] = 99;
        assert!(parse_socket(&payload, AT, |_, _| true).is_err());
        assert!(parse_socket(&[], AT, |_, _| true).is_err());
    }

    #[test]
    fn tcp_info_of_an_older_kernel_is_read() {
        let payload = with_info(response(AF_INET, "127.0.0.1:1", "127.0.0.1:2"), 232);
        let info = parsed(&payload).info;
        assert!(info.is_some());
        assert_eq!(info, TcpInfo::parse(&[1; 232]));
    }

    #[test]
    fn a_mapped_address_is_ipv4_and_a_real_one_ipv6() {
        for (given, expected) in [
            ("[::ffff:192.0.2.1]:5", "192.0.2.1:5"),
            ("[::1]:5", "[::1]:5"),
        ] {
            let payload = response(AF_INET6, given, given);
            let socket = parsed(&payload);
            assert_eq!(socket.local, expected.parse().unwrap());
            assert_eq!(socket.peer, expected.parse().unwrap());
            assert_eq!(socket.family, AddressFamily::Inet6);
            assert_eq!(socket.info, None);
        }
    }
}
