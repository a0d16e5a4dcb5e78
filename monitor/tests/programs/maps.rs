//! What the maps and rings hold, and what is counted as lost.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    time::Duration,
};

use monitor::{
    decode,
    kernel::bpf::{maps::Snapshots, snapshot_pages::Pages},
};
use monitor_common::{drop_reason::DropReason, event::EventKind};
use monitor_core::{
    ConnId, Event, Facts, Ktime, ListenerId,
    facts::{Protocol, Role},
};
use wire::{REQUEST, RESPONSE};

use super::{
    kernel::{KernelGuard, load},
    link::Link,
    tun::{Family, in_new_namespace},
};

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn every_vital_event_is_either_read_or_counted_as_dropped() {
    // With three events each, more than the ring holds.
    const CONNECTIONS: u64 = 12_000;
    let port = 28_108;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    in_new_namespace(|_| {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        for _ in 0..CONNECTIONS {
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (mut server, _) = listener.accept().unwrap();
            client.write_all(REQUEST).unwrap();
            server.read_exact(&mut [0; REQUEST.len()]).unwrap();
            server.write_all(RESPONSE).unwrap();
            client.read_exact(&mut [0; RESPONSE.len()]).unwrap();
            drop(client);
            assert_eq!(server.read(&mut [0; 1]).unwrap(), 0);
        }
    });

    let mut read = [0_u64; 13];
    let kind = |record: &[u8]| {
        decode::vital(record).expect("a valid record");
        usize::from(record[8])
    };
    while let Some(kind) = kernel.vitals.next(kind) {
        read[kind] += 1;
    }
    let dropped = kernel.dropped(DropReason::VitalsFull);
    let consumed = read.iter().sum::<u64>();
    println!("{consumed} read, {dropped} dropped: {read:?}");
    assert!(dropped > 0, "the ring was never full");
    // Opened, the first FIN, and the close of each connection, plus the listening socket's open and
    // close. On a slow machine a retransmission may come after the close, and elicit a reset.
    let resets = read[EventKind::Reset as usize];
    assert_eq!(consumed + dropped, 3 * CONNECTIONS + 2 + resets);
    assert!(read[1] >= read[2] && read[2] >= read[3], "out of order");

    // Once there is room again, new events arrive.
    in_new_namespace(|tun| {
        let _link = Link::upgraded(tun, Family::V4, port, 20_000);
    });
    let reported: Vec<_> = std::iter::from_fn(|| kernel.vitals.next(kind)).collect();
    assert_eq!(
        (reported[0], reported.contains(&1)),
        (10, true),
        "{reported:?}"
    );
    assert_eq!(kernel.dropped(DropReason::VitalsFull), dropped);
}

#[test]
#[ignore = "needs root: loads programs, makes network namespaces"]
fn opening_and_closing_a_listening_socket_is_reported_with_its_namespace() {
    let port = 28_110;
    let mut turn = KernelGuard::wait();
    let kernel = turn.watching(port);
    let netns = in_new_namespace(|_| {
        let elsewhere = TcpListener::bind(("10.99.0.1", 28_112)).unwrap();
        let listener = TcpListener::bind(("10.99.0.1", port)).unwrap();
        drop((elsewhere, listener));
        std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
    });
    // Another test may be starting a process, which briefly holds a copy of the socket.
    let mut next = || {
        let event = lab::wait_for("a record", Duration::from_secs(10), || {
            kernel.vitals.next(decode::vital)
        });
        match event.unwrap() {
            Ok(Event::Listening { socket, begins, .. }) => {
                assert_eq!((socket.port, u64::from(socket.netns)), (port, netns));
                (socket.conn, begins)
            }
            other => panic!("{other:?}"),
        }
    };
    let (begun, ended) = (next(), next());
    assert_eq!((begun.1, ended), (true, (begun.0, false)));
}

/// The connections published by the kernel.
pub(super) fn published(snapshots: &Snapshots) -> Vec<ConnId> {
    let (mut pages, mut conns) = (Pages::new(16), Vec::new());
    loop {
        let (page, last) = snapshots.next_page(&mut pages).unwrap();
        conns.extend(page.into_iter().map(|(conn, _)| conn));
        if last {
            return conns;
        }
    }
}

#[test]
#[ignore = "needs root: loads programs"]
fn a_sweep_visits_every_snapshot_once_in_any_number_of_parts() {
    const CONNS: u64 = 5_000;
    let mut loaded = load(0..1);
    let mut snapshots = Snapshots::take(&mut loaded).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], 8080));
    for conn in (1..=CONNS).map(ConnId) {
        let (listener, role) = (ListenerId(0), Role::Server);
        let facts = Facts::new(
            Ktime(1),
            conn,
            listener,
            role,
            Protocol::Assumed,
            address,
            address,
        );
        assert!(snapshots.seed(&facts).unwrap());
    }
    for parts in [1, 2, 7, 1_000] {
        let mut seen = Vec::new();
        for part in 1..=parts {
            let before = seen.len();
            let share = f64::from(part) / f64::from(parts);
            snapshots
                .sweep(share, |facts| seen.push(facts.unwrap().conn.0))
                .unwrap();
            // A system call may reach a few hundred entries into the next part.
            let fair = CONNS as usize / parts as usize;
            assert!(seen.len() - before < fair + fair / 2 + 512, "{parts} parts");
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(1..=CONNS), "{parts} parts");
        snapshots.restart_sweep();
    }
}
