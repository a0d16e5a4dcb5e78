//! Temporary black holes: heavy loss, and an outage that ends.

use std::time::{Duration, Instant};

use lab::{Client, Manner, wait_until};

use crate::stage::{SOON, Stage};

#[test]
#[ignore = "needs root: network namespaces and programs"]
fn neither_heavy_loss_nor_an_outage_of_five_seconds_is_a_confirmed_zombie() {
    const CLIENTS: usize = 250;
    /// One packet in this many is lost each way, so that more than one try in three fails, and six
    /// in a row fail several times a minute.
    const LOST: u32 = 5;
    const LOSSY: Duration = Duration::from_secs(30);
    const OUTAGE: Duration = Duration::from_secs(5);
    /// Time to retransmit the last lost packets, so that the outage is not longer than intended.
    const CALM: Duration = Duration::from_secs(3);
    /// TCP recovers after the fifth retransmission.
    const BACK: Duration = Duration::from_secs(5);
    let stage = Stage::new();
    let lab = &stage.lab;
    let mut watch = stage.watch(&["--lb-timeout", "20s"]);
    let heartbeat = "/heartbeat?every=1s";
    let clients: Vec<Client> = (0..CLIENTS)
        .map(|_| stage.client(0, heartbeat, Manner::Responsive))
        .collect();
    lab.lose_one_in(LOST).unwrap();
    pass(LOSSY);
    lab.lose_nothing().unwrap();
    pass(CALM);
    lab.black_hole(lab.client_addr(0)).unwrap();
    pass(OUTAGE);
    lab.heal(lab.client_addr(0)).unwrap();
    pass(BACK);
    lab.lose_one_in(LOST).unwrap();
    pass(LOSSY);
    let loss = watch.metric("wsmon_tcp_loss_ratio", &[]);

    let (dropped, counts) = (lab.dropped_packets().unwrap(), stage.server.counts());
    let (pings, pongs) = (counts.pings_sent(), counts.pongs_received());
    let retransmits = watch.metric("wsmon_tcp_retransmits_total", &[]);
    println!(
        "{dropped:?}; {pings} pings, {pongs} pongs, {retransmits} retransmissions, {loss:.2} lost"
    );
    for alert in watch.alerts() {
        println!("{}", alert.json);
    }
    let confirmed: Vec<String> = watch
        .alerts()
        .iter()
        .filter(|alert| alert.text("/certainty") == "confirmed")
        .map(|alert| alert.json.to_string())
        .collect();
    assert!(confirmed.is_empty(), "{}", confirmed.join("\n"));
    assert!(loss > 0.15, "{loss}");
    // A fifth of one ping, answer and acknowledgement per second from each client.
    assert!(dropped.lost > 5_000, "{dropped:?}");
    assert!(dropped.black_holed > 20, "{dropped:?}");
    assert!(clients.iter().all(|client| client.view().open));
}

fn pass(time: Duration) {
    let began = Instant::now();
    wait_until("the time to pass", time + SOON, || began.elapsed() >= time).unwrap();
}
