//! Stories of many clients.

use crate::{
    assert_all,
    check::check,
    story::{Act::*, Step::*, *},
};

#[test]
fn crowds() {
    assert_all(stories());
}

#[test]
fn thrash_behind_an_address_is_measured_by_all_of_its_connections() {
    for open in [2, 4, 5, 20, 100, 1000, 5000] {
        let stay = (0..open).map(|n| {
            let begins = f64::from(n) * 20.0 / f64::from(open);
            connection(format!("192.0.2.1:{}", 2000 + n), begins)
        });
        let leave = (0..5).map(|n| {
            let begins = 21.0 + f64::from(n);
            ended(
                connection(format!("192.0.2.1:{}", 1000 + n), begins),
                begins + 0.5,
            )
        });
        let mut row = story("five leave", "proxy")
            .connections(stay.chain(leave))
            .until(40.0);
        if open < 5 {
            row = row.reports("thrash", 25.5..27.5);
        }
        let wrong = check(&row);
        assert!(wrong.is_empty(), "{open} stay: {wrong:?}");
    }
}

/// This many clients with different addresses, which connect within `during` seconds.
fn clients(count: u16, during: f64) -> impl Iterator<Item = Connection> {
    (0..count).map(move |n| {
        let client = format!("10.1.{}.{}:40000", n / 200, n % 200 + 1);
        connection(client, f64::from(n) * during / f64::from(count))
    })
}

/// The server ends a connection without a close frame.
fn ended(connection: Connection, at: f64) -> Connection {
    connection.at(at, Host(Fin)).at(at + 0.02, Peer(Fin))
}

pub(crate) fn stories() -> Vec<Story> {
    let short_lived = |n: u16| {
        let begins = f64::from(n) * 5.0;
        ended(
            connection(format!("10.0.0.9:{}", 41_000 + n), begins),
            begins + 0.5,
        )
    };
    vec![
        story(
            "45 clients are lost in a deploy, 8 s after the last came",
            "deploy",
        )
        .live(1.0)
        .connections(clients(45, 20.0).map(|client| ended(client, 28.0)))
        .until(32.0)
        .reports("reconnect_storm mass_close", 28.0..30.5),
        story("ten of 300 clients leave at once", "deploy")
            .connections(
                clients(300, 20.0)
                    .enumerate()
                    .map(|(n, client)| match n < 10 {
                        true => ended(client, 28.0),
                        false => client,
                    }),
            )
            .until(32.0),
        story("45 clients leave one after another", "rolling restart")
            .connections(
                clients(45, 20.0)
                    .enumerate()
                    .map(|(n, client)| ended(client, 30.0 + 2.0 * n as f64)),
            )
            .until(130.0),
        story(
            "60 clients come back every 3 s, in step, until a restart is over",
            "garimto81#200",
        )
        .live(1.0)
        .connections(clients(60, 20.0).flat_map(|client| {
            let again = |n: u16| {
                let from = client.client.replace(":40000", &format!(":{}", 41_000 + n));
                connection(from, 28.0 + 3.0 * f64::from(n) + client.begins / 200.0)
            };
            let refused = (1..6).map(again).map(|connection| {
                let begins = connection.begins;
                connection
                    .opening(Opening::Refused(
                        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
                    ))
                    .at(begins + 0.02, Host(Fin))
                    .at(begins + 0.03, Peer(Fin))
            });
            let back = again(6);
            [ended(client.clone(), 28.0)]
                .into_iter()
                .chain(refused.collect::<Vec<_>>())
                .chain([back])
        }))
        .until(120.0)
        .reports("reconnect_storm mass_close", 28.0..30.1)
        .reports("reconnect_storm storm", 31.0..32.1)
        .reports("reconnect_storm storm lockstep", 34.0..41.0)
        .reports("reconnect_storm over lockstep", 56.0..59.0),
        story(
            "one client comes back every 5 s and stays for half a second",
            "MetaMask/core#6861",
        )
        .live(1.0)
        .connections((0..6).map(short_lived))
        .until(40.0)
        .reports("thrash", 20.0..22.0),
        story(
            "ten connections are reset after 30 s of silence, and no hop is configured",
            "limit_mismatch",
        )
        .connections(clients(10, 200.0).map(|client| {
            let at = client.begins + 30.0;
            client.at(at, Peer(Rst))
        }))
        .until(250.0)
        .reports("limit_mismatch", 210.0..241.0),
        story(
            "ten busy connections end at an age of 30 s, and no hop is configured",
            "boundary#3133",
        )
        .connections(clients(10, 200.0).map(|client| {
            let begins = client.begins;
            let busy = client.every(3.0, begins + 3.0..begins + 30.0, Peer(Message(9)));
            busy.at(begins + 29.0, Peer(Message(9)))
                .at(begins + 30.0, Peer(Fin))
                .at(begins + 30.1, Host(Fin))
        }))
        .until(250.0)
        .reports("lifetime_mismatch", 210.0..241.0),
        story("one client comes back four times", "MetaMask/core#6861")
            .live(1.0)
            .connections((0..4).map(short_lived))
            .until(40.0),
        story(
            "five of 100 users behind one address stay for half a second",
            "proxy",
        )
        .live(1.0)
        .connections((0..100).map(|n| {
            let begins = f64::from(n) * 0.2;
            let client = connection(format!("192.0.2.1:{}", 2000 + n), begins);
            match n % 20 {
                19 => ended(client, begins + 0.5),
                _ => client,
            }
        }))
        .until(40.0),
        story("30 clients are forgotten at once", "omi#5194")
            .live(1.0)
            .behind(silent(60.0))
            .connections(clients(30, 3.0).map(|client| client.at(60.0, PathBreaks)))
            .until(100.0)
            .reports_each(20, "expired suspected", 60.0..63.0)
            .reports("expired suspected x10", 60.0..75.0),
        story(
            "the path of twelve clients breaks, and no limit is blamed",
            "crowd",
        )
        .live(1.0)
        .connections(clients(12, 3.0).map(|client| {
            client
                .every(20.0, 20.0..100.0, Host(Ping))
                .at(50.0, PathBreaks)
        }))
        .until(100.0)
        .reports_each(12, "black_holed confirmed", 67.0..69.0),
        story(
            "one of 30 clients dies, and the others aren't blamed",
            "crowd",
        )
        .connections(clients(30, 3.0).enumerate().map(|(n, client)| {
            let client = client.every(10.0, 10.0..60.0, Host(Ping));
            match n {
                7 => client.at(25.0, PathBreaks),
                _ => client,
            }
        }))
        .until(60.0)
        .reports("black_holed confirmed", 37.0..39.0),
    ]
}
