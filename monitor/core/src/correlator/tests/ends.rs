//! The ends of connections, and the verdicts that they had.

use super::*;

fn expired(resolution: Option<AlertResolution>, count: u32) -> PastVerdict {
    PastVerdict {
        kind: Expired,
        certainty: Suspected,
        resolution,
        count,
    }
}

/// A flow that was suspected twice while it was alive, and is suspected again.
fn suspected_again() -> (Bench, Facts) {
    let (mut bench, mut facts) = Bench::opened(Some(OnExpiry::Silent));
    for at in [7_000, 14_000] {
        bench.until(at);
        receive(&mut facts, at);
        facts.at = ms(at);
        bench.trouble(Trouble::Answered, at, &facts);
    }
    bench.until(21_000);
    (bench, facts)
}

#[test]
fn an_end_has_the_verdicts_of_its_connection_and_leaves_none_behind() {
    let (mut bench, facts) = suspected_again();
    let recovered = expired(Some(AlertResolution::Recovered), 2);
    assert_eq!(
        bench.core.verdicts(facts.conn),
        [recovered, expired(None, 1)]
    );
    bench.closed(CloseHow::RstReceived, 22_000, &facts);
    let [ended] = &bench.ended[..] else {
        panic!("{:?}", bench.ended);
    };
    assert_eq!((ended.conn, ended.at), (facts.conn, ms(22_000)));
    assert_eq!(ended.how, CloseHow::RstReceived);
    let closed = AlertResolution::Closed(CloseHow::RstReceived);
    assert_eq!(ended.verdicts, [recovered, expired(Some(closed), 1)]);
    assert_eq!(bench.core.verdicts(facts.conn), []);

    bench.event(Event::Opened(Box::new(Facts::just_opened(1, ms(23_000)))));
    bench.closed(CloseHow::Fin, 24_000, &Facts::just_opened(1, ms(23_000)));
    assert_eq!(bench.ended[1].verdicts, [], "its successor starts anew");
}

#[test]
fn a_connection_that_is_gone_ends_once_and_one_that_is_dismissed_never_was_one() {
    let (mut bench, facts) = suspected_again();
    let (conn, at) = (facts.conn, ms(22_000));
    bench.event(Event::Gone { conn, at });
    bench.event(Event::Gone { conn, at });
    assert_eq!(bench.ended.len(), 1);
    assert_eq!(bench.ended[0].how, CloseHow::Unknown);
    assert_eq!(bench.ended[0].verdicts.len(), 2);

    let (mut bench, facts) = suspected_again();
    let (conn, at) = (facts.conn, ms(22_000));
    bench.event(Event::Dismissed { conn, at });
    assert_eq!(bench.ended, []);
}
