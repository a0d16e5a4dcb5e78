//! The walk over records recovers what was sent, however the stream was cut.

use monitor_common::{
    frame::Head,
    stream::Payload,
    tls::{HelloFact, RECORD_STEPS, RecordHeader, RecordStep, RecordWalk},
};
use proptest::prelude::*;
use wire::{APPLICATION_DATA, client_hello, server_hello, tls_record};

/// Where the first byte of every stream is, close to the wrap.
const ISN: u32 = u32::MAX - 500;

struct Bytes<'a>(&'a [u8]);

impl Payload for Bytes<'_> {
    fn read(&self, offset: u32, len: u32) -> Option<Head> {
        assert!((1..=14).contains(&len), "{len}");
        let range = offset as usize..(offset + len) as usize;
        let mut head = Head::default();
        for (i, byte) in (0_u8..).zip(self.0.get(range)?) {
            head.put(i, *byte);
        }
        Some(head)
    }

    fn readable(&self, offset: u32) -> u32 {
        u32::try_from(self.0.len()).map_or(0, |len| len.saturating_sub(offset))
    }
}

/// A walk and what it has reported.
struct Walker {
    walk: RecordWalk,
    headers: Vec<RecordHeader>,
    facts: Vec<HelloFact>,
}

impl Walker {
    fn new() -> Self {
        Self {
            walk: RecordWalk::EMPTY,
            headers: Vec::new(),
            facts: Vec::new(),
        }
    }

    fn of(stream: &[u8], cuts: &[usize]) -> Self {
        let mut walker = Self::new();
        for (at, segment) in cut(stream, cuts) {
            walker.segment(at, segment);
        }
        walker
    }

    /// A segment whose first byte is number `at` of the stream.
    fn segment(&mut self, at: usize, bytes: &[u8]) {
        let len = bytes.len() as u32;
        let seq = ISN.wrapping_add(at as u32);
        let Some(begin) = self.walk.place(seq, len) else {
            return;
        };
        let mut done = begin;
        for _ in 0..RECORD_STEPS {
            match self.walk.step(&mut done, begin, len, &Bytes(bytes)) {
                RecordStep::End => return,
                RecordStep::Again => {}
                RecordStep::Record(header) => self.headers.push(header),
                RecordStep::Hello(fact) => self.facts.push(fact),
            }
        }
        self.walk.lose_sync();
    }
}

/// The stream in segments of these lengths, over and over.
fn cut<'a>(stream: &'a [u8], lens: &[usize]) -> Vec<(usize, &'a [u8])> {
    let mut segments = Vec::new();
    let mut at = 0;
    for len in lens.iter().cycle() {
        if at >= stream.len() {
            break;
        }
        let end = stream.len().min(at + len);
        segments.push((at, &stream[at..end]));
        at = end;
    }
    segments
}

fn header(len: u16) -> RecordHeader {
    RecordHeader {
        content_type: APPLICATION_DATA,
        len,
    }
}

fn data(lens: &[u16]) -> Vec<u8> {
    // Ciphertext that looks like a header at every offset would be no ciphertext.
    lens.iter()
        .flat_map(|len| tls_record(APPLICATION_DATA, &vec![0xee; usize::from(*len)]))
        .collect()
}

#[test]
fn hellos_show_version_suite_and_protocols() {
    let (version, suite, selects) = (HelloFact::version, HelloFact::suite, HelloFact::selects);
    for (hello, facts) in [
        (client_hello(&[], 0), vec![]),
        (client_hello(&["http/1.1"], 40), vec![]),
        (
            client_hello(&["h2", "http/1.1"], 900),
            vec![HelloFact::OFFERS_H2],
        ),
        (
            client_hello(&["http/1.1", "h2"], 0),
            vec![HelloFact::OFFERS_H2],
        ),
        (client_hello(&["h2c", "xx"], 0), vec![]),
        (
            server_hello(true, 0x1302, None),
            vec![version(3), suite(0x1302), version(4)],
        ),
        (
            server_hello(false, 0xc02f, None),
            vec![version(3), suite(0xc02f)],
        ),
        (
            server_hello(false, 0xc02f, Some("h2")),
            vec![version(3), suite(0xc02f), selects(true)],
        ),
        (
            server_hello(false, 0xc02f, Some("http/1.1")),
            vec![version(3), suite(0xc02f), selects(false)],
        ),
    ] {
        let stream = [hello.clone(), data(&[40, 23])].concat();
        for first in 11..hello.len() {
            let walker = Walker::of(&stream, &[first, stream.len()]);
            assert_eq!(walker.facts, facts, "cut after {first} bytes");
            assert_eq!(walker.headers[1..], [header(40), header(23)]);
        }
    }
}

#[test]
fn a_hello_that_ends_early_leads_to_the_next_record() {
    for keep in 6..60 {
        let whole = client_hello(&["h2"], 0);
        let stream = [
            tls_record(wire::HANDSHAKE, &whole[5..5 + keep]),
            data(&[23, 99]),
        ]
        .concat();
        let walker = Walker::of(&stream, &[stream.len()]);
        assert_eq!(walker.headers[1..], [header(23), header(99)], "{keep}");
    }
}

#[test]
fn a_walk_that_joins_later_needs_two_headers_that_fit() {
    let stream = data(&[300, 23, 1000, 27, 19, 40]);
    let mut walker = Walker::new();
    // First from the middle of a record on, then from the beginning of the third.
    let (third, fourth) = (305 + 28, 305 + 28 + 1005);
    walker.segment(100, &stream[100..third]);
    walker.segment(third, &stream[third..700]);
    walker.segment(700, &stream[700..fourth]);
    assert_eq!(walker.headers, []);
    walker.segment(fourth, &stream[fourth..]);
    assert_eq!(walker.headers, [header(27), header(19), header(40)]);
}

#[test]
fn a_hole_inside_a_record_is_harmless_and_any_other_is_left_at_the_next_records() {
    let stream = data(&[1000, 23, 50, 60, 70]);
    let begin = [client_hello(&[], 0), stream.clone()].concat();
    let hello = begin.len() - stream.len();
    let mut walker = Walker::new();
    walker.segment(0, &begin[..hello + 100]);
    walker.segment(hello + 500, &begin[hello + 500..hello + 1005]);
    walker.segment(hello + 1005, &begin[hello + 1005..hello + 1010]);
    assert_eq!(walker.headers[1..], [header(1000), header(23)]);
    // The end of the second record and the third one are missing.
    let fourth = hello + 1005 + 28 + 55;
    walker.segment(fourth, &begin[fourth..]);
    assert_eq!(walker.headers[3..], [header(70)]);
    // What fills the hole comes too late.
    walker.segment(hello + 1010, &begin[hello + 1010..fourth]);
    assert_eq!(walker.headers.len(), 4);
}

#[test]
fn a_truncated_segment_ends_the_walk_until_headers_fit_again() {
    let stream = [client_hello(&[], 0), data(&[900, 20, 30, 40])].concat();
    let hello = stream.len() - 900 - 20 - 30 - 40 - 4 * 5;
    let mut walker = Walker::new();
    let shown = &stream[..hello + 50];
    let begin = walker.walk.place(ISN, (hello + 905 + 25) as u32);
    assert_eq!(begin, Some(0));
    let mut at = 0;
    while walker
        .walk
        .step(&mut at, 0, (hello + 905 + 25) as u32, &Bytes(shown))
        != RecordStep::End
    {}
    walker.segment(hello + 930, &stream[hello + 930..]);
    assert_eq!(walker.headers, [header(40)]);
}

proptest! {
    #[test]
    fn records_do_not_depend_on_the_cuts(
        lens in prop::collection::vec(0..1500_u16, 1..40),
        first in 11..300_usize,
        cuts in prop::collection::vec(1..700_usize, 1..20),
        is_server in any::<bool>(),
    ) {
        let hello = match is_server {
            true => server_hello(true, 0x1301, None),
            false => client_hello(&["h2", "http/1.1"], 200),
        };
        let stream = [hello, data(&lens)].concat();
        let whole = Walker::of(&stream, &[stream.len()]);
        let expected: Vec<_> = lens.iter().map(|len| header(*len)).collect();
        prop_assert_eq!(&whole.headers[1..], &expected);
        let cut = Walker::of(&stream, &[&[first][..], &cuts].concat());
        prop_assert_eq!(cut.headers, whole.headers);
        prop_assert_eq!(cut.facts, whole.facts);
    }

    #[test]
    fn a_segment_that_came_before_adds_nothing(
        lens in prop::collection::vec(0..300_u16, 1..20),
        cuts in prop::collection::vec(11..200_usize, 1..9),
        back in 0..400_usize,
    ) {
        let stream = [client_hello(&[], 0), data(&lens)].concat();
        let once = Walker::of(&stream, &cuts);
        let mut twice = Walker::new();
        for (at, segment) in cut(&stream, &cuts) {
            twice.segment(at, segment);
            twice.segment(at, segment);
            let from = at.saturating_sub(back);
            twice.segment(from, &stream[from..at + segment.len()]);
        }
        prop_assert_eq!(twice.headers, once.headers);
    }

    #[test]
    fn any_bytes_take_a_bounded_number_of_steps(
        stream in prop::collection::vec(any::<u8>(), 1..3000),
        cuts in prop::collection::vec(1..400_usize, 1..9),
    ) {
        let walker = Walker::of(&stream, &cuts);
        prop_assert!(walker.headers.len() <= stream.len() / 5);
    }
}
