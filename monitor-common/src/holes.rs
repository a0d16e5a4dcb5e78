//! Segments that came before what precedes them.
//!
//! TCP keeps them and asks for the hole only, so they pass just once, at a moment when it is not
//! known where in them a frame begins. Each run of them is a *pending run*: from the first place that
//! looks like a header the chain of headers is followed, and its frames go to a log instead of being
//! counted; where the chain breaks, it was wrong, and the next place is tried. When the hole is filled, the walk in front of it (the *front*) arrives with the
//! knowledge of where the next header is. If the chain has one just there it is proven from there
//! on, and its frames are accounted as if they had come in order; if not, they never existed.
//!
//! Work is done in bounded steps, as in [`crate::stream`].

use crate::{
    frame::Header,
    segment::after,
    stream::{Payload, Step, Walk, mode},
};

/// Runs of segments that can wait at the same time, with a hole in front of each.
pub const PENDING_RUNS: usize = 4;

/// Frames that can wait for their proof.
pub const LOG: usize = 92;

/// Steps that one segment of a pending run may take; the next one goes on looking. Behind a hole not
/// everything has to be found, and time matters more.
pub const PENDING_RUN_STEPS: u32 = 2048;

/// Steps of [`Holes::bridge`] after which it has said [`Bridge::End`]: each success looks through
/// the log once, and lets every pending run be looked at again.
pub const BRIDGE_STEPS: u32 =
    (PENDING_RUNS * (LOG + 2) + (PENDING_RUNS + 1) * PENDING_RUNS + 1) as u32;

/// What waits behind the front of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Holes {
    pending_runs: [PendingRun; PENDING_RUNS],
    log: [Logged; LOG],
    log_len: u32,
    /// Pending runs so far: tells the chains of this storage apart.
    count: u32,
    /// Scratch and cursor. They are kept here because the verifier follows every value of a local
    /// variable by itself.
    scratch: u32,
    /// The chain of the last entry of the log.
    last_logged: u32,
    bridging: Bridging,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct PendingRun {
    /// Its `next_seq` is the pending run's end. It is not live where there is no pending run.
    walk: Walk,
    start: u32,
    /// Where in the log the chain begins that is followed; beyond it if that is not known.
    logged_from: u32,
}

/// A frame whose header began at `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Logged {
    header: Header,
    chain: u32,
    seq: u32,
}

/// How far the joining of the front with the pending runs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Bridging {
    /// The pending run in hand, which is looked through the log for.
    run: u32,
    /// Pending runs looked at since the last success.
    searched: u32,
    /// The next entry of the log to look at, or [`NO_PENDING_RUN`].
    cursor: u32,
    /// Where the front expects a header.
    expected: u32,
    /// 1 once it was found: all that follows in the chain is true.
    found: u32,
    _pad: u32,
}

/// What becomes of a segment that lies ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// Nothing in it is new.
    Old,
    /// It lies on a pending run, see [`Holes::step`]; this is the offset of its first unseen byte.
    PendingRun(u32),
    /// There is no room to wait for the hole in front of it.
    NoRoom,
}

/// What one step of bridging found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bridge {
    /// A frame is proven.
    Frame(Header),
    /// These bytes belong to no known frame.
    Unsynced(u32),
    Again,
    /// The front is as far as it can be.
    End,
}

/// In [`Holes::scratch`]: no pending run, or one that is free.
const NOWHERE: u32 = u32::MAX;
const FREE: u32 = 1 << 16;

/// In [`Bridging::cursor`]: none is in hand.
const NO_PENDING_RUN: u32 = u32::MAX;

/// Chains of one pending run that have numbers of their own.
const CHAIN_BITS: u32 = 16;

impl Holes {
    /// No hole; all zero, which is also how the kernel hands out new storage.
    pub const EMPTY: Self = Self {
        pending_runs: [PendingRun {
            walk: Walk::EMPTY,
            start: 0,
            logged_from: 0,
        }; PENDING_RUNS],
        log: [Logged {
            header: Header::EMPTY,
            chain: 0,
            seq: 0,
        }; LOG],
        log_len: 0,
        count: 0,
        scratch: 0,
        last_logged: 0,
        bridging: Bridging {
            run: 0,
            searched: 0,
            cursor: 0,
            expected: 0,
            found: 0,
            _pad: 0,
        },
    };

    /// Finds the pending run of `len` bytes at `seq`, which lie ahead of the front.
    #[inline(always)]
    pub fn land(&mut self, seq: u32, len: u32) -> Landing {
        self.set_scratch(NOWHERE);
        let mut i = 0;
        while i < PENDING_RUNS {
            if !self.pending_runs[i].walk.is_live() {
                self.set_scratch(i as u32 | FREE);
            }
            i += 1;
        }
        let mut i = 0;
        while i < PENDING_RUNS {
            let PendingRun { walk, start, .. } = &self.pending_runs[i];
            let length = walk.next_seq.wrapping_sub(*start);
            if walk.is_live() && seq.wrapping_sub(*start) <= length {
                self.set_scratch(i as u32);
            }
            i += 1;
        }
        let picked = self.scratch();
        if picked == NOWHERE {
            return Landing::NoRoom;
        }
        let run = &mut self.pending_runs[picked as usize % PENDING_RUNS];
        if picked & FREE != 0 {
            self.count = self.count.wrapping_add(1);
            run.walk = Walk::pending_run(seq, self.count << CHAIN_BITS);
            run.start = seq;
        }
        let seen = run.walk.next_seq.wrapping_sub(seq);
        if seen >= len {
            return Landing::Old;
        }
        run.walk.next_seq = seq.wrapping_add(len);
        Landing::PendingRun(seen)
    }

    /// Does one bounded piece of work on the pending run that [`Holes::land`] found; see [`Walk::step`].
    /// The segment is at `seq`. False once the segment is done.
    #[inline(always)]
    pub fn step(
        &mut self,
        at: &mut u32,
        begin: u32,
        seq: u32,
        len: u32,
        from_client: u8,
        payload: &impl Payload,
    ) -> bool {
        let picked = self.scratch() as usize % PENDING_RUNS;
        let log_len = self.log_len;
        let run = &mut self.pending_runs[picked];
        let walk = &mut run.walk;
        let (chain, was_on_trial, fresh) =
            (walk.chain(), walk.mode == mode::TRIAL, walk.is_fresh());
        match walk.step(at, begin, len, from_client, payload) {
            Step::End | Step::Unreadable => return false,
            Step::Frame(header) => self.log(&header, seq),
            Step::Again if walk.chain() != chain => run.logged_from = log_len,
            Step::Again if was_on_trial && walk.mode == mode::UNSYNCED => {
                *at = self.refute(*at, begin, seq, fresh);
            }
            Step::Again | Step::Synced(_) | Step::Unsynced(_) => {}
        }
        *at < len
    }

    /// The segment in hand takes too long: the chain that is followed in it ends.
    #[inline(always)]
    pub fn give_up_segment(&mut self) {
        let picked = self.scratch() as usize % PENDING_RUNS;
        self.pending_runs[picked].walk.lose_sync();
    }

    /// Keeps a frame of the pending run in hand until it is proven; it was found in a segment at `seq`.
    #[inline(always)]
    fn log(&mut self, header: &Header, seq: u32) {
        let picked = self.scratch() as usize % PENDING_RUNS;
        let place = self.log_len;
        let run = &mut self.pending_runs[picked];
        let chain = run.walk.chain();
        let Some(entry) = self.log.get_mut(place as usize) else {
            // Half of a chain must not be taken for all of it.
            run.walk.rest();
            return;
        };
        if self.last_logged != chain && run.logged_from != place {
            // Another pending run's frames are among this chain's.
            run.logged_from = LOG as u32;
        }
        self.last_logged = chain;
        entry.header = *header;
        entry.chain = chain;
        entry.seq = seq.wrapping_add(run.walk.mark);
        self.log_len = place + 1;
    }

    /// The chain in hand broke at offset `at`: its frames are forgotten. Returns the offset to go
    /// on at: behind where it began, in this segment.
    #[inline(always)]
    fn refute(&mut self, at: u32, begin: u32, seq: u32, fresh: bool) -> u32 {
        let picked = self.scratch() as usize % PENDING_RUNS;
        let from = self.pending_runs[picked].logged_from;
        let mut next = at + 1;
        if from < self.log_len
            && let Some(first) = self.log.get(from as usize)
        {
            next = first.seq.wrapping_sub(seq).wrapping_add(1);
            self.log_len = from;
        }
        if fresh { next } else { begin }
    }

    /// The first hole will not be filled: the front goes on behind it, out of step. Returns the
    /// bytes that may have held a header.
    #[cfg(feature = "replay")]
    pub(crate) fn give_up(&mut self, front: &mut Walk) -> u32 {
        let nearest = self
            .pending_runs
            .iter()
            .filter(|run| run.walk.is_live())
            .map(|run| run.start.wrapping_sub(front.next_seq))
            .min();
        nearest.map_or(0, |hole| front.leap(hole))
    }

    /// Prepares for [`Holes::bridge`].
    #[inline(always)]
    pub fn begin_bridge(&mut self) {
        self.bridging.searched = 0;
        self.bridging.cursor = NO_PENDING_RUN;
    }

    /// Does one bounded piece of work on joining the front with the pending runs that it has reached.
    #[inline(always)]
    pub fn bridge(&mut self, front: &mut Walk) -> Bridge {
        if self.bridging.cursor != NO_PENDING_RUN {
            return self.look_through_log(front);
        }
        if self.bridging.searched >= PENDING_RUNS as u32 {
            return Bridge::End;
        }
        let i = self.bridging.searched;
        self.bridging.searched += 1;
        let run = &mut self.pending_runs[i as usize % PENDING_RUNS];
        if !run.walk.is_live() || after(run.start, front.next_seq) {
            return Bridge::Again;
        }
        self.bridging.searched = 0;
        let left = run.walk.next_seq.wrapping_sub(front.next_seq);
        // The front went through all of it itself, or it is in the middle of a frame.
        if left as i32 <= 0 || front.covers(left as u64) {
            run.walk = Walk::EMPTY;
            return Bridge::Unsynced(if left as i32 <= 0 {
                0
            } else {
                front.leap(left)
            });
        }
        let Some(expected) = front.expected_header() else {
            let unsynced = if front.mode == mode::UNSYNCED && run.walk.mode == mode::TRIAL {
                front.continue_trial(&run.walk);
                left
            } else {
                front.leap(left)
            };
            run.walk = Walk::EMPTY;
            return Bridge::Unsynced(unsynced);
        };
        self.bridging.expected = expected;
        self.bridging.run = i;
        self.bridging.found = 0;
        self.bridging.cursor = 0;
        Bridge::Again
    }

    /// Accounts for the frames of the pending run in hand, from the one on that begins where the front
    /// expects a header.
    #[inline(always)]
    fn look_through_log(&mut self, front: &mut Walk) -> Bridge {
        let run = &mut self.pending_runs[self.bridging.run as usize % PENDING_RUNS];
        let place = self.bridging.cursor as usize;
        if self.bridging.cursor >= self.log_len || place >= LOG {
            self.bridging.cursor = NO_PENDING_RUN;
            let left = run.walk.next_seq.wrapping_sub(front.next_seq);
            run.walk = Walk::EMPTY;
            return Bridge::Unsynced(if self.bridging.found != 0 {
                0
            } else {
                front.leap(left)
            });
        }
        self.bridging.cursor += 1;
        let entry = &self.log[place];
        let on_trial = run.walk.mode == mode::TRIAL;
        if !on_trial || entry.chain != run.walk.chain() {
            return Bridge::Again;
        }
        if self.bridging.found == 0 {
            if entry.seq != self.bridging.expected {
                return Bridge::Again;
            }
            self.bridging.found = 1;
            front.continue_as(&run.walk);
        }
        Bridge::Frame(entry.header)
    }

    /// Whether nothing waits any more.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        let mut live = 0;
        let mut i = 0;
        while i < PENDING_RUNS {
            live |= self.pending_runs[i].walk.is_live() as u8;
            i += 1;
        }
        live == 0
    }

    /// Bytes of all pending runs: what is not accounted if the stream ends now.
    #[inline(always)]
    pub fn waiting_bytes(&self) -> u64 {
        let mut bytes = 0;
        let mut i = 0;
        while i < PENDING_RUNS {
            let PendingRun { walk, start, .. } = &self.pending_runs[i];
            if walk.is_live() {
                bytes += walk.next_seq.wrapping_sub(*start) as u64;
            }
            i += 1;
        }
        bytes
    }

    /// Volatile, so that the verifier forgets which value it was.
    #[inline(always)]
    fn set_scratch(&mut self, value: u32) {
        let scratch = &raw mut self.scratch;
        // SAFETY: the pointer comes from a live, exclusive reference.
        unsafe { scratch.write_volatile(value) };
    }

    #[inline(always)]
    fn scratch(&self) -> u32 {
        let scratch = &raw const self.scratch;
        // SAFETY: the pointer comes from a live reference.
        unsafe { scratch.read_volatile() }
    }
}

const _: () = assert!(
    size_of::<Holes>() <= 4096 - 72,
    "with the kernel's own fields it fits in a page"
);
