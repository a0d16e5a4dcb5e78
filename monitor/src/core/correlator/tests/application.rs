//! Connections that an application neglects: half closed, or not read.

use super::*;

#[test]
fn a_peer_that_closed_a_minute_ago_makes_a_half_closed_connection() {
    let (mut bench, mut facts) = Bench::opened(None);
    facts.fin_rx = true;
    facts.closing = Some(Closing {
        at: ms(2_000),
        by: ClosingBy::Fin(Direction::Rx),
    });
    facts.at = ms(2_000);
    bench.event(Event::Closing(Box::new(facts.clone())));
    bench.snapshot = Some(facts.clone());
    bench.until(61_999);
    assert_eq!(bench.said, []);
    bench.until(62_000);
    assert_eq!(bench.said, [(62_000, FIRING, HalfClosed, Confirmed)]);
    facts.fin_tx = true;
    bench.closed(CloseHow::Fin, 63_000, &facts);
    assert_eq!(bench.said.len(), 2);
    assert_eq!(
        bench.tally().idle_at_death.count(),
        1,
        "of the close, not of the verdict"
    );
}

#[test]
fn an_application_that_does_not_read_for_half_a_minute_is_stalled_until_it_does() {
    let (mut bench, facts) = Bench::opened(None);
    let look = |bench: &mut Bench, at: u64, read: u64, bytes: u32| {
        let queue = ReceiveQueue {
            conn: facts.conn,
            bytes,
            read,
        };
        let unread = (bytes > 0).then_some(queue).into_iter().collect();
        bench.event(Event::QueuesSeen {
            at: ms(at),
            unread,
            complete: true,
        });
        bench.until(at);
    };
    look(&mut bench, 10_000, 7, 100);
    look(&mut bench, 25_000, 9, 200);
    look(&mut bench, 50_000, 9, 300);
    assert_eq!(bench.said, [], "it read in between, 25 s ago");
    look(&mut bench, 56_000, 9, 400);
    assert_eq!(bench.said, [(56_000, FIRING, Stalled, Confirmed)]);
    assert_eq!(
        bench.reasons[0],
        "this host's application has left 400 bytes unread for 31 s"
    );
    look(&mut bench, 70_000, 409, 0);
    assert_eq!(bench.said[1..], [(70_000, RECOVERED, Stalled, Confirmed)]);
}
