//! The listening sockets of the metrics server.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs},
};

use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketFlags, SocketType, sockopt},
};

use crate::config::metrics_address::MetricsAddress;

/// Connections that may wait until they are accepted; as the standard library has it.
const BACKLOG: i32 = 128;

/// Binds an address: one socket, or one for each address of a name. An address of a name is left out if
/// this host lacks its family, but not if that leaves none.
///
/// # Errors
///
/// If the name is unknown or one of its addresses cannot be bound.
pub(super) fn bind(address: &MetricsAddress) -> io::Result<Vec<TcpListener>> {
    match address {
        MetricsAddress::None => Ok(Vec::new()),
        MetricsAddress::Address(address) => Ok(vec![TcpListener::bind(address)?]),
        MetricsAddress::Everywhere(port) => {
            let bound = match bind_both_families(*port) {
                Err(error) if lacks_family(&error) => {
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port))
                }
                bound => bound,
            };
            Ok(vec![bound?])
        }
        MetricsAddress::Name(name, port) => bind_each((name.as_str(), *port).to_socket_addrs()?),
    }
}

/// One socket for IPv6 and IPv4, even where `net.ipv6.bindv6only` is 1.
fn bind_both_families(port: u16) -> io::Result<TcpListener> {
    let socket = net::socket_with(
        AddressFamily::INET6,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_ipv6_v6only(&socket, false)?;
    // As the standard library does: a restart needs the port at once.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))?;
    net::listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

fn bind_each(addresses: impl Iterator<Item = SocketAddr>) -> io::Result<Vec<TcpListener>> {
    let (mut bound, mut seen) = (Vec::new(), Vec::new());
    let mut lacking = io::Error::other("the name has no address");
    for address in addresses {
        if seen.contains(&address) {
            continue;
        }
        seen.push(address);
        match TcpListener::bind(address) {
            Ok(listener) => bound.push(listener),
            Err(error) if lacks_family(&error) => lacking = error,
            Err(error) => return Err(error),
        }
    }
    match bound.is_empty() {
        true => Err(lacking),
        false => Ok(bound),
    }
}

/// Such as IPv6 on a host where it is switched off.
fn lacks_family(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        let parsed = texts.iter().map(|text| text.parse());
        parsed.collect::<Result<_, _>>().expect("addresses")
    }

    #[test]
    fn a_name_is_bound_at_each_of_its_addresses_once() {
        let wanted = addresses(&["127.0.0.1:0", "127.0.0.2:0", "127.0.0.1:0"]);
        let bound = bind_each(wanted.into_iter()).expect("loopback");
        let ips = bound
            .iter()
            .map(|listener| listener.local_addr().expect("an address").ip().to_string());
        assert_eq!(ips.collect::<Vec<_>>(), ["127.0.0.1", "127.0.0.2"]);
        let name = MetricsAddress::Name("localhost".to_owned(), 0);
        assert!(!bind(&name).expect("a name of every host").is_empty());
    }

    #[test]
    fn everywhere_is_every_address_of_both_families() {
        let bound = bind(&MetricsAddress::Everywhere(0)).expect("a free port");
        let port = bound[0].local_addr().expect("an address").port();
        for loopback in ["127.0.0.1", "::1"] {
            TcpStream::connect((loopback, port)).expect(loopback);
        }
    }

    #[test]
    fn an_address_that_this_host_lacks_is_left_out_unless_it_is_the_only_one() {
        // RFC 5737: it belongs to no host.
        let lacking = "192.0.2.1:0";
        let bound = bind_each(addresses(&[lacking, "127.0.0.1:0"]).into_iter());
        assert_eq!(bound.expect("one is ours").len(), 1);
        assert!(bind_each(addresses(&[lacking]).into_iter()).is_err());
        assert!(bind_each(std::iter::empty()).is_err());
    }

    #[test]
    fn a_taken_port_of_a_name_is_refused() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let taken = taken.local_addr().expect("an address");
        let wanted = [addresses(&["127.0.0.2:0"])[0], taken];
        let error = bind_each(wanted.into_iter()).expect_err("taken");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
