//! Queries exactly one TCP socket, by its addresses and its cookie.
//!
//! The kernel finds the socket in its hash by the addresses and then compares the cookie. A request
//! therefore costs the same among ten sockets and among a million, and cannot match a later connection
//! with the same addresses.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use netlink_packet_core::{NLM_F_ACK, NLMSG_ERROR, NetlinkBuffer};
use netlink_packet_sock_diag::{
    SockDiagDestroy, SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DIAG_BY_FAMILY},
    inet::{ExtensionFlags, InetRequest, SocketId, StateFlags},
};
use rustix::io::Errno;

use super::{
    SockDiag, SockDiagError,
    inet_diag::{DiagSocket, TcpState, parse_socket},
    refusal,
};
use crate::kernel::clock;
use monitor_core::Ktime;

/// `INET_DIAG_NOCOOKIE` in both halves: any socket with these addresses. If there is no connection,
/// that is the listener of the local port.
const ANY: u64 = u64::MAX;

/// The one socket with this cookie. Cookies are unique until reboot, in all network namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketKey {
    cookie: u64,
    local: SocketAddr,
    peer: SocketAddr,
    /// 0 for a socket that is not bound to an interface.
    interface: u32,
}

impl From<&DiagSocket> for SocketKey {
    fn from(socket: &DiagSocket) -> Self {
        Self {
            cookie: socket.cookie,
            local: socket.local,
            peer: socket.peer,
            interface: socket.interface,
        }
    }
}

impl SocketKey {
    /// Matches nothing: no socket has port 0 or cookie 0.
    pub(super) const NO_SOCKET: Self = Self {
        cookie: 0,
        local: UNSPECIFIED,
        peer: UNSPECIFIED,
        interface: 0,
    };

    /// Addresses as the socket has them, IPv4 plain or mapped into IPv6. `None` for the cookie that
    /// means any socket.
    pub fn new(cookie: u64, local: SocketAddr, peer: SocketAddr) -> Option<Self> {
        let plain =
            |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        (cookie != ANY).then(|| Self {
            cookie,
            local: plain(local),
            peer: plain(peer),
            interface: 0,
        })
    }

    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    pub fn local(&self) -> SocketAddr {
        self.local
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// IPv4 is queried as such. The kernel looks up both families by the addresses in the packets, so
    /// this also finds the IPv6 socket of a dual-stack server.
    fn request(&self) -> SockDiagMessage {
        SockDiagMessage::InetRequest(InetRequest {
            family: if self.local.is_ipv4() {
                AF_INET
            } else {
                AF_INET6
            },
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::INFO,
            // Used only by a dump.
            states: StateFlags::empty(),
            socket_id: SocketId {
                source_port: self.local.port(),
                destination_port: self.peer.port(),
                source_address: self.local.ip(),
                destination_address: self.peer.ip(),
                interface_id: self.interface,
                cookie: wire_cookie(self.cookie),
            },
        })
    }
}

const UNSPECIFIED: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Two 32-bit halves, the low one first on every architecture.
fn wire_cookie(cookie: u64) -> [u8; 8] {
    let [a, b, c, d] = (cookie as u32).to_ne_bytes();
    let [e, f, g, h] = ((cookie >> 32) as u32).to_ne_bytes();
    [a, b, c, d, e, f, g, h]
}

impl SockDiag {
    /// The connection, if it exists in this namespace. Also `None` for a socket bound to an interface
    /// (`SO_BINDTODEVICE`, a VRF, an IPv6 link-local address), unless the key is from a dump.
    pub fn find(&mut self, key: &SocketKey) -> Result<Option<DiagSocket>, SockDiagError> {
        let response = self.exchange(0, key.request(), |datagram, sequence| {
            parse_response(datagram, sequence, clock::now())
        })?;
        match response {
            Response::Socket(socket) => Ok(socket.map(|socket| *socket)),
            Response::Done => Ok(None),
            Response::Refused(cause) if is_absent(&cause) => Ok(None),
            Response::Refused(cause) => Err(SockDiagError::Refused(cause)),
        }
    }

    /// Aborts the socket; returns whether it existed.
    pub(super) fn destroy(&mut self, key: &SocketKey) -> Result<bool, SockDiagError> {
        let request = SockDiagDestroy::new(key.request());
        let response = self.exchange(NLM_F_ACK, request, |datagram, sequence| {
            parse_response(datagram, sequence, clock::now())
        })?;
        match response {
            Response::Done => Ok(true),
            Response::Refused(cause) if is_absent(&cause) => Ok(false),
            Response::Refused(cause) => Err(SockDiagError::Refused(cause)),
            Response::Socket(_) => Err(SockDiagError::MalformedSocket),
        }
    }
}

/// No socket with these addresses, or none with this cookie.
fn is_absent(cause: &io::Error) -> bool {
    cause.raw_os_error() == Some(Errno::NOENT.raw_os_error())
}

#[derive(Debug)]
enum Response {
    /// `None`: the socket is no longer a connection.
    Socket(Option<Box<DiagSocket>>),
    Done,
    Refused(io::Error),
}

/// `None` for a datagram that answers an earlier request.
fn parse_response(
    datagram: &[u8],
    sequence: u32,
    at: Ktime,
) -> Result<Option<Response>, SockDiagError> {
    let Ok(message) = NetlinkBuffer::new_checked(datagram) else {
        return Err(SockDiagError::Truncated {
            offset: 0,
            length: datagram.len(),
        });
    };
    if message.sequence_number() != sequence {
        return Ok(None);
    }
    let response = match message.message_type() {
        NLMSG_ERROR => match refusal(message.payload()) {
            Some(SockDiagError::Refused(cause)) => Response::Refused(cause),
            Some(error) => return Err(error),
            None => Response::Done,
        },
        SOCK_DIAG_BY_FAMILY => {
            let socket = parse_socket(message.payload(), at, |_, _| true)
                .map_err(|_| SockDiagError::MalformedSocket)?
                .filter(|socket| socket.state != TcpState::Listen);
            Response::Socket(socket.map(Box::new))
        }
        _ => return Err(SockDiagError::MalformedSocket),
    };
    Ok(Some(response))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use netlink_packet_core::{NLMSG_NOOP, NetlinkSerializable};
    use netlink_packet_sock_diag::constants::{TCP_CLOSE, TCP_LISTEN};
    use rustix::fs::fstat;

    use super::*;
    use crate::kernel::{
        sock_diag::{
            inet_diag::{
                AddressFamily,
                tests::{response, with_info},
            },
            port_filter::PortFilter,
            tests::{SEQUENCE, message},
        },
        testing::{Connection, Namespace, key_of, wait_for, with_cookie},
    };

    const AT: Ktime = Ktime(1_000_000_000);

    fn key(cookie: u64, local: &str, peer: &str) -> Option<SocketKey> {
        SocketKey::new(cookie, local.parse().unwrap(), peer.parse().unwrap())
    }

    #[test]
    fn the_cookie_for_any_socket_is_not_a_key() {
        assert_eq!(key(u64::MAX, "127.0.0.1:1", "127.0.0.1:2"), None);
        // Half of it is an ordinary cookie.
        assert!(key(0xffff_ffff, "127.0.0.1:1", "127.0.0.1:2").is_some());
    }

    /// `struct inet_diag_req_v2` in `include/uapi/linux/inet_diag.h`.
    #[test]
    fn a_request_has_every_field_at_its_offset() {
        let key = key(0x22_0000_0011, "192.0.2.1:8080", "[::ffff:192.0.2.2]:9").unwrap();
        let request = key.request();
        let mut bytes = vec![0xee; request.buffer_len()];
        request.serialize(&mut bytes);
        let mut expected = vec![2, 6, 2, 0, 0, 0, 0, 0];
        expected.extend([0x1f, 0x90, 0, 9]);
        expected.extend([192, 0, 2, 1].into_iter().chain([0; 12]));
        expected.extend([192, 0, 2, 2].into_iter().chain([0; 12]));
        expected.extend([0; 4]);
        expected.extend(0x11_u32.to_ne_bytes());
        expected.extend(0x22_u32.to_ne_bytes());
        assert_eq!(bytes, expected);
        let destroy = SockDiagDestroy::new(request);
        assert_eq!(destroy.message_type(), 21);
    }

    fn read(kind: u16, payload: &[u8]) -> Result<Option<Response>, SockDiagError> {
        parse_response(&message(kind, 0, payload), SEQUENCE, AT)
    }

    #[test]
    fn a_response_is_a_socket_an_acknowledgement_or_a_refusal() {
        let socket = with_info(response(AF_INET, "127.0.0.1:1", "127.0.0.1:2"), 280);
        let response = read(SOCK_DIAG_BY_FAMILY, &socket).unwrap();
        let Some(Response::Socket(Some(found))) = response else {
            panic!("{response:?}")
        };
        assert_eq!((found.receive_queue, found.at), (3, AT));
        for state in [TCP_LISTEN, TCP_CLOSE] {
            let mut socket = socket.clone();
            socket[1] = state;
            let response = read(SOCK_DIAG_BY_FAMILY, &socket).unwrap();
            assert!(matches!(response, Some(Response::Socket(None))));
        }
        assert!(matches!(
            read(NLMSG_ERROR, &0_i32.to_ne_bytes()),
            Ok(Some(Response::Done))
        ));
        let response = read(NLMSG_ERROR, &(-2_i32).to_ne_bytes()).unwrap();
        let Some(Response::Refused(cause)) = response else {
            panic!("{response:?}")
        };
        assert!(is_absent(&cause));
    }

    #[test]
    fn an_invalid_response_is_an_error_and_an_earlier_one_is_skipped() {
        assert!(matches!(
            read(NLMSG_NOOP, &[0; 4]),
            Err(SockDiagError::MalformedSocket)
        ));
        assert!(matches!(
            read(SOCK_DIAG_BY_FAMILY, &[0; 4]),
            Err(SockDiagError::MalformedSocket)
        ));
        assert!(matches!(
            parse_response(&[0; 8], SEQUENCE, AT),
            Err(SockDiagError::Truncated { .. })
        ));
        let earlier = parse_response(&message(NLMSG_ERROR, 0, &[0; 4]), SEQUENCE + 1, AT);
        assert!(earlier.unwrap().is_none());
    }

    #[test]
    fn a_connection_is_found_with_its_unread_bytes() {
        let mut connection = Connection::new("127.0.0.1:0", "127.0.0.1:0");
        connection.client.write_all(b"hello").unwrap();
        let key = key_of(&connection.server);
        let mut sock_diag = SockDiag::open().unwrap();
        let socket = wait_for("5 bytes to arrive", || {
            let found = sock_diag.find(&key).unwrap().unwrap();
            (found.receive_queue == 5).then_some(found)
        });
        assert_eq!(socket.cookie, key.cookie());
        assert_eq!((socket.local, socket.peer), (key.local(), key.peer()));
        let inode = fstat(&connection.server).unwrap().st_ino;
        assert_eq!(u64::from(socket.inode), inode);
        assert_eq!(socket.info.unwrap().bytes_received, 5);
        assert!(socket.cgroup_id.is_some());
    }

    #[test]
    fn another_cookie_finds_nothing() {
        let connection = Connection::new("127.0.0.1:0", "127.0.0.1:0");
        let key = key_of(&connection.server);
        let mut sock_diag = SockDiag::open().unwrap();
        for cookie in [0, key.cookie() + 1, key.cookie() | 1 << 63] {
            let stale = with_cookie(&key, cookie);
            assert_eq!(sock_diag.find(&stale).unwrap(), None);
        }
        assert!(sock_diag.find(&key).unwrap().is_some());
    }

    #[test]
    fn a_connection_in_time_wait_is_not_found() {
        let connection = Connection::new("127.0.0.1:0", "127.0.0.1:0");
        let key = key_of(&connection.client);
        drop(connection.client);
        drop(connection.server);
        let mut sock_diag = SockDiag::open().unwrap();
        wait_for("the end of the connection", || {
            sock_diag.find(&key).unwrap().is_none().then_some(())
        });
    }

    #[test]
    fn a_request_after_an_abandoned_dump_gets_its_own_response() {
        let connection = Connection::new("127.0.0.1:0", "127.0.0.1:0");
        let key = key_of(&connection.server);
        let mut sock_diag = SockDiag::open().unwrap();
        let all = PortFilter::default();
        sock_diag.request(&StateFlags::ESTABLISHED, &all).unwrap();
        let found = sock_diag.find(&key).unwrap().unwrap();
        assert_eq!(found.cookie, key.cookie());
    }

    #[test]
    #[ignore = "needs root: makes network namespaces"]
    fn sockets_of_either_family_are_found_by_plain_addresses() {
        let namespace = Namespace::new();
        let mut sock_diag = namespace.enter(|| SockDiag::open().unwrap());
        for (listen, server, of_server, of_client) in [
            (
                "127.0.0.1:18101",
                "127.0.0.1:0",
                AddressFamily::Inet,
                AddressFamily::Inet,
            ),
            (
                "[::1]:18102",
                "[::1]:0",
                AddressFamily::Inet6,
                AddressFamily::Inet6,
            ),
            // A dual-stack listener.
            (
                "[::]:18103",
                "127.0.0.1:0",
                AddressFamily::Inet6,
                AddressFamily::Inet,
            ),
            (
                "[::]:18104",
                "[::ffff:127.0.0.1]:0",
                AddressFamily::Inet6,
                AddressFamily::Inet6,
            ),
        ] {
            let connection = namespace.connect(listen, server);
            for (end, family) in [
                (&connection.server, of_server),
                (&connection.client, of_client),
            ] {
                let found = sock_diag.find(&key_of(end)).unwrap().expect(listen);
                assert_eq!(found.family, family, "{listen}");
                assert_eq!(found.cookie, key_of(end).cookie());
            }
        }
    }

    #[test]
    #[ignore = "needs root: makes network namespaces"]
    fn a_find_costs_the_same_among_thousands_of_sockets() {
        const ROUNDS: u32 = 10_000;
        let namespace = Namespace::new();
        let mut sock_diag = namespace.enter(|| SockDiag::open().unwrap());
        for others in [0, 4_000] {
            let (connection, _others) = namespace.enter(|| {
                let others: Vec<_> = (0..others)
                    .map(|_| Connection::new("127.0.0.1:0", "127.0.0.1:0"))
                    .collect();
                (Connection::new("127.0.0.1:0", "127.0.0.1:0"), others)
            });
            let key = key_of(&connection.server);
            let stale = with_cookie(&key, 1);
            for (what, key, hits) in [("hit", key, true), ("miss", stale, false)] {
                let started = std::time::Instant::now();
                for _ in 0..ROUNDS {
                    assert_eq!(sock_diag.find(&key).unwrap().is_some(), hits);
                }
                println!("{what} among {others}: {:?}", started.elapsed() / ROUNDS);
            }
        }
    }
}
