//! Aborts one connection, like `ss --kill`: `SOCK_DESTROY` (`net/core/sock_diag.c`).
//!
//! The application's next or waiting call on the socket fails with `ECONNABORTED`, and the peer gets a
//! RST.

use std::io;

use rustix::io::Errno;

use super::{
    SockDiag, SockDiagError,
    socket_finder::{FindError, SocketFinder},
    socket_query::SocketKey,
};

/// The result of an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DestroyOutcome {
    Destroyed,
    /// The socket no longer exists in any accessible namespace.
    Gone,
}

#[derive(Debug, thiserror::Error)]
pub enum DestroyError {
    #[error(
        "this kernel cannot abort sockets; run one that is built with CONFIG_INET_DIAG_DESTROY=y"
    )]
    Unsupported,
    #[error(
        "not permitted to abort a socket; this needs CAP_NET_ADMIN in the user namespace that owns \
         the socket's network namespace"
    )]
    NotPermitted,
    #[error(
        "not aborted: it is one subflow of an MPTCP connection, which may live on by another subflow"
    )]
    Subflow,
    #[error(transparent)]
    Find(#[from] FindError),
}

/// Aborts the connection with these addresses and this cookie, in any network namespace, and no other.
/// Leaves subflows of MPTCP untouched.
pub fn destroy(finder: &mut SocketFinder, key: &SocketKey) -> Result<DestroyOutcome, DestroyError> {
    let hit = finder.search(|sock_diag| {
        if sock_diag.find(key)?.is_some_and(|socket| socket.is_subflow) {
            return Ok(Some(Err(DestroyError::Subflow)));
        }
        match sock_diag.destroy(key) {
            Ok(true) => Ok(Some(Ok(()))),
            Ok(false) => Ok(None),
            // No other namespace would give another answer.
            Err(SockDiagError::Refused(cause)) => match final_refusal(&cause) {
                Some(error) => Ok(Some(Err(error))),
                None => Err(SockDiagError::Refused(cause)),
            },
            Err(error) => Err(error),
        }
    })?;
    match hit {
        Some((_, destroyed)) => destroyed.map(|()| DestroyOutcome::Destroyed),
        None => Ok(DestroyOutcome::Gone),
    }
}

/// Whether this kernel can abort sockets at all. Aborts none, and needs no capability.
///
/// # Errors
///
/// If the kernel cannot even report TCP sockets.
pub fn is_supported() -> Result<bool, SockDiagError> {
    let mut sock_diag = SockDiag::open()?;
    // Without tcp_diag the kernel would respond "no such socket", as it does below.
    sock_diag.probe()?;
    match sock_diag.destroy(&SocketKey::NO_SOCKET) {
        Ok(_) => Ok(true),
        Err(SockDiagError::Refused(cause)) if is_unsupported(&cause) => Ok(false),
        Err(error) => Err(error),
    }
}

fn final_refusal(cause: &io::Error) -> Option<DestroyError> {
    if is_unsupported(cause) {
        return Some(DestroyError::Unsupported);
    }
    // The kernel checks the permission only once it has found the socket.
    (cause.raw_os_error() == Some(Errno::PERM.raw_os_error())).then_some(DestroyError::NotPermitted)
}

fn is_unsupported(cause: &io::Error) -> bool {
    cause.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error())
}

#[cfg(test)]
mod churn;
#[cfg(test)]
mod tests {
    use std::{
        fs,
        io::{ErrorKind, Read},
        net::{SocketAddr, TcpListener, TcpStream},
        sync::mpsc,
        thread,
        time::Duration,
    };

    use rustix::{net::Protocol, thread::gettid};

    use super::*;
    use crate::{
        config::listeners::{ListenerConfig, PortRange},
        kernel::{
            sock_diag::scan,
            testing::{Connection, Namespace, key_of, wait_for, with_cookie},
        },
    };
    use monitor_core::ListenerRules;

    /// Once a scan of the namespaces is due.
    fn destroyed(finder: &mut SocketFinder, key: &SocketKey) {
        wait_for("the socket to be destroyed", || {
            (destroy(finder, key).unwrap() == DestroyOutcome::Destroyed).then_some(())
        });
    }

    /// Two connections of the namespace to one listener.
    fn two(namespace: &Namespace, listen: &str, server: &str) -> [Connection; 2] {
        namespace.enter(|| {
            let listener = TcpListener::bind(listen).unwrap();
            [(); 2].map(|()| {
                let client = TcpStream::connect(server).unwrap();
                let (server, _) = listener.accept().unwrap();
                Connection { client, server }
            })
        })
    }

    #[test]
    fn a_missing_socket_is_gone() {
        let mut finder = SocketFinder::open().unwrap();
        let outcome = destroy(&mut finder, &SocketKey::NO_SOCKET).unwrap();
        assert_eq!(outcome, DestroyOutcome::Gone);
    }

    #[test]
    fn a_refusal_by_the_kernel_has_a_remedy() {
        let message = |errno: Errno| final_refusal(&errno.into()).map(|error| error.to_string());
        assert!(
            message(Errno::OPNOTSUPP)
                .unwrap()
                .contains("CONFIG_INET_DIAG_DESTROY")
        );
        assert!(message(Errno::PERM).unwrap().contains("CAP_NET_ADMIN"));
        assert_eq!(message(Errno::INVAL), None);
    }

    #[test]
    #[ignore = "needs root: the kernel has to be one that can abort sockets"]
    fn this_kernel_can_abort_sockets() {
        assert!(is_supported().unwrap());
    }

    #[test]
    #[ignore = "needs root: makes network namespaces, aborts connections"]
    fn a_waiting_read_fails_and_the_neighbouring_connection_stays() {
        let mut finder = SocketFinder::open().unwrap();
        let namespace = Namespace::new();
        for (listen, server) in [
            ("127.0.0.1:18301", "127.0.0.1:18301"),
            ("[::1]:18302", "[::1]:18302"),
            ("[::]:18303", "127.0.0.1:18303"),
        ] {
            let [doomed, neighbour] = two(&namespace, listen, server);
            let key = key_of(&doomed.server);
            let (send, receive) = mpsc::channel();
            let mut reader = doomed.server.try_clone().unwrap();
            let reading = thread::spawn(move || {
                send.send(gettid()).unwrap();
                reader.read(&mut [0])
            });
            let status = format!(
                "/proc/self/task/{}/stat",
                receive.recv().unwrap().as_raw_nonzero()
            );
            wait_for("the thread to sleep in its read", || {
                fs::read_to_string(&status)
                    .unwrap()
                    .contains(") S ")
                    .then_some(())
            });

            destroyed(&mut finder, &key);
            let error = reading.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionAborted, "{listen}");
            let mut client = doomed.client;
            client
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            let error = client.read(&mut [0]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{listen}");
            neighbour.assert_alive();
            assert_eq!(destroy(&mut finder, &key).unwrap(), DestroyOutcome::Gone);
        }
    }

    #[test]
    #[ignore = "needs root: may abort connections"]
    fn a_wrong_cookie_destroys_neither_connection_nor_listener() {
        let mut finder = SocketFinder::open().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        let connection = Connection { client, server };
        let key = key_of(&connection.server);
        for cookie in [
            0,
            key.cookie() - 1,
            key.cookie() + 1,
            u64::MAX - 1,
            0xffff_ffff,
        ] {
            let outcome = destroy(&mut finder, &with_cookie(&key, cookie)).unwrap();
            assert_eq!(outcome, DestroyOutcome::Gone);
        }
        // Without a connection the kernel's search ends at the listener.
        let nobodys = SocketKey::new(key.cookie(), address, ([127, 0, 0, 1], 1).into()).unwrap();
        assert_eq!(
            destroy(&mut finder, &nobodys).unwrap(),
            DestroyOutcome::Gone
        );
        connection.assert_alive();
        TcpStream::connect(address).unwrap();
    }

    #[test]
    #[ignore = "needs root: may abort connections"]
    fn the_next_connection_with_the_same_addresses_is_a_different_one() {
        let namespace = Namespace::new();
        let mut finder = namespace.enter(|| SocketFinder::open().unwrap());
        namespace.enter(|| {
            let open = || Connection::between("127.0.0.1:28311", "127.0.0.1:18311");
            let first = open();
            let keys = [key_of(&first.client), key_of(&first.server)];
            drop(first);
            let second = open();
            for stale in keys {
                let twin = [key_of(&second.client), key_of(&second.server)]
                    .into_iter()
                    .find(|key| key.local() == stale.local())
                    .expect("the same addresses");
                assert_eq!(twin.peer(), stale.peer());
                assert_ne!(twin.cookie(), stale.cookie());
                assert_eq!(destroy(&mut finder, &stale).unwrap(), DestroyOutcome::Gone);
            }
            second.assert_alive();
            destroyed(&mut finder, &key_of(&second.server));
        });
    }

    /// The two ends of a connection between sockets of these protocols, the client's and the listening
    /// one; `None` if this kernel has no MPTCP.
    fn connected(port: u16, of: [Option<Protocol>; 2]) -> Option<Connection> {
        use rustix::net::{AddressFamily, SocketType, bind, connect, listen, socket};
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let opened = of.map(|protocol| socket(AddressFamily::INET, SocketType::STREAM, protocol));
        let [Ok(client), Ok(listening)] = opened else {
            eprintln!("skipped: this kernel has no MPTCP");
            return None;
        };
        bind(&listening, &address).unwrap();
        listen(&listening, 1).unwrap();
        connect(&client, &address).unwrap();
        let (server, _) = TcpListener::from(listening).accept().unwrap();
        let client = client.into();
        Some(Connection { client, server })
    }

    /// The only connection on a watched port. The application's socket has another cookie than its
    /// subflow.
    fn key_on(namespace: &Namespace, port: u16, remote: bool) -> SocketKey {
        let listeners = [ListenerConfig {
            rules: ListenerRules::new("l", None),
            ports: vec![PortRange(port..=port)],
            remote,
        }];
        let mut facts = None;
        let netns = namespace.netns();
        scan::connections(&listeners, &[&netns], |found| facts = found.facts()).unwrap();
        let facts = facts.expect("a connection");
        SocketKey::new(facts.conn.0, facts.local, facts.peer).unwrap()
    }

    const MPTCP: Option<Protocol> = Some(rustix::net::ipproto::MPTCP);

    #[test]
    #[ignore = "needs root: makes network namespaces, aborts connections"]
    fn a_subflow_of_mptcp_is_left_untouched_and_plain_tcp_to_the_same_listener_is_aborted() {
        let mut finder = SocketFinder::open().unwrap();
        let namespace = Namespace::new();
        for (port, protocol) in [(18_341, MPTCP), (18_342, None)] {
            let Some(connection) = namespace.enter(|| connected(port, [protocol, MPTCP])) else {
                return;
            };
            let key = key_on(&namespace, port, false);
            if protocol.is_none() {
                destroyed(&mut finder, &key);
                continue;
            }
            wait_for("the socket to be found", || {
                match destroy(&mut finder, &key) {
                    Err(DestroyError::Subflow) => Some(()),
                    Ok(DestroyOutcome::Gone) => None,
                    other => panic!("{other:?}"),
                }
            });
            connection.assert_alive();
        }
    }

    #[test]
    #[ignore = "needs root: makes network namespaces, aborts connections"]
    fn a_client_of_mptcp_that_fell_back_to_plain_tcp_is_aborted_and_gets_the_error() {
        let mut finder = SocketFinder::open().unwrap();
        let namespace = Namespace::new();
        let Some(mut connection) = namespace.enter(|| connected(18_343, [MPTCP, None])) else {
            return;
        };
        destroyed(&mut finder, &key_on(&namespace, 18_343, true));
        let error = connection.client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    }

    #[test]
    #[ignore = "needs root: drops capabilities"]
    fn without_the_capability_it_is_not_permitted_and_nothing_happens() {
        let connection = Connection::new("127.0.0.1:0", "127.0.0.1:0");
        let key = key_of(&connection.server);
        // Capabilities belong to a thread.
        let result = thread::spawn(move || {
            let mut finder = SocketFinder::open().unwrap();
            caps::drop(
                None,
                caps::CapSet::Effective,
                caps::Capability::CAP_NET_ADMIN,
            )
            .unwrap();
            (destroy(&mut finder, &key), is_supported())
        })
        .join()
        .unwrap();
        assert!(
            matches!(result.0, Err(DestroyError::NotPermitted)),
            "{result:?}"
        );
        assert!(result.1.unwrap());
        connection.assert_alive();
    }
}
