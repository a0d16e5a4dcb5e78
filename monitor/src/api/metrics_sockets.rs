//! The listening sockets of the metrics server.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs},
};

use rustix::io::Errno;

use crate::config::metrics_address::MetricsAddress;

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
            // A socket on [::] also accepts IPv4.
            let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, *port));
            let bound = match both {
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
