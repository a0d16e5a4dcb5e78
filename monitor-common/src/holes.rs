//! Out-of-order segments: those that arrive before the bytes that precede them.
//!
//! TCP keeps them and requests only the hole. So they pass just once, at a moment when it is unknown where
//! in them a frame begins. Each run of such segments is a *pending run*. From the first offset that looks
//! like a header, the walk follows the chain of headers and logs the frames instead of counting them. Where
//! the chain breaks, it was wrong, and the walk tries the next offset. When the hole is filled, the walk in
//! front of it (the *front*) knows where the next header is. If a chain has a header exactly there, the
//! chain is proven from there on, and its frames are accounted for as if they had arrived in order. If not,
//! they are discarded.
//!
//! The work is split into bounded steps, as in [`crate::stream`].

use crate::{
    frame::Header,
    segment::after,
    stream::{Payload, Step, Walk, mode},
};

/// Pending runs that can wait at the same time, each after a hole.
pub const PENDING_RUNS: usize = 4;

/// Frames that can wait for their proof.
pub const LOG: usize = 92;

/// Steps that one segment of a pending run may take; the next segment continues the search. Not every frame
/// after a hole has to be found, and time matters more.
pub const PENDING_RUN_STEPS: u32 = 2048;

/// Steps of [`Holes::bridge`] after which it has returned [`Bridge::End`]: each success scans the log once,
/// and lets every pending run be checked again.
pub const BRIDGE_STEPS: u32 =
    (PENDING_RUNS * (LOG + 2) + (PENDING_RUNS + 1) * PENDING_RUNS + 1) as u32;

/// What waits after the front of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Holes {
    pending_runs: [PendingRun; PENDING_RUNS],
    log: [Logged; LOG],
    log_len: u32,
    /// Number of pending runs so far; distinguishes the chains of this storage.
    count: u32,
    /// Scratch and cursor. They are stored here because the verifier follows every value of a local
    /// variable separately.
    scratch: u32,
    /// The chain of the last entry of the log.
    last_logged: u32,
    bridging: Bridging,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct PendingRun {
    /// Its `next_seq` is the end of the pending run. It is not live if the slot is free.
    walk: Walk,
    start: u32,
    /// Index in the log where the current chain begins; past the end of the log if unknown.
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

/// Progress of joining the front with the pending runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Bridging {
    /// The pending run whose frames are being searched for in the log.
    run: u32,
    /// Pending runs checked since the last success.
    searched: u32,
    /// The next entry of the log to check, or [`NO_PENDING_RUN`].
    cursor: u32,
    /// Where the front expects a header.
    expected: u32,
    /// 1 once the header was found: the rest of the chain is proven.
    found: u32,
    _pad: u32,
}

/// Where a segment ahead of the front belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landing {
    /// Nothing in it is new.
    Old,
    /// On a pending run, see [`Holes::step`]; the offset of its first unseen byte.
    PendingRun(u32),
    /// There is no room to wait until the hole in front of it is filled.
    NoRoom,
}

/// The result of one step of bridging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bridge {
    /// A frame is proven.
    Frame(Header),
    /// These bytes belong to no known frame.
    Unsynced(u32),
    Again,
    /// The front can advance no further.
    End,
}

/// In [`Holes::scratch`]: no pending run, or a free one.
const NOWHERE: u32 = u32::MAX;
const FREE: u32 = 1 << 16;

/// In [`Bridging::cursor`]: no pending run is being searched for.
const NO_PENDING_RUN: u32 = u32::MAX;

/// Bits of the chain's number within its pending run.
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

    /// Finds the pending run for `len` bytes at `seq`, which lie ahead of the front.
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

    /// The current segment takes too long: ends its current chain.
    #[inline(always)]
    pub fn give_up_segment(&mut self) {
        let picked = self.scratch() as usize % PENDING_RUNS;
        self.pending_runs[picked].walk.lose_sync();
    }

    /// Logs a frame of the current pending run until it is proven; its segment is at `seq`.
    #[inline(always)]
    fn log(&mut self, header: &Header, seq: u32) {
        let picked = self.scratch() as usize % PENDING_RUNS;
        let index = self.log_len;
        let run = &mut self.pending_runs[picked];
        let chain = run.walk.chain();
        let Some(entry) = self.log.get_mut(index as usize) else {
            // An incomplete chain must not be taken for a complete one.
            run.walk.rest();
            return;
        };
        if self.last_logged != chain && run.logged_from != index {
            // Frames of another pending run are among those of this chain.
            run.logged_from = LOG as u32;
        }
        self.last_logged = chain;
        entry.header = *header;
        entry.chain = chain;
        entry.seq = seq.wrapping_add(run.walk.mark);
        self.log_len = index + 1;
    }

    /// The current chain broke at offset `at`: forgets its frames. Returns the offset at which to continue
    /// in this segment: after the beginning of the chain.
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

    /// The first hole will not be filled: the front continues after it, unsynced. Returns the number of
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
            return self.search_log(front);
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
        // The front passed all of it already, or is in the middle of a frame.
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

    /// Accounts for the frames of the current pending run, from the frame that begins where the front
    /// expects a header.
    #[inline(always)]
    fn search_log(&mut self, front: &mut Walk) -> Bridge {
        let run = &mut self.pending_runs[self.bridging.run as usize % PENDING_RUNS];
        let index = self.bridging.cursor as usize;
        if self.bridging.cursor >= self.log_len || index >= LOG {
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
        let entry = &self.log[index];
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

    /// Whether nothing is waiting.
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

    /// Bytes of all pending runs: unaccounted for if the stream ends now.
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

    /// Volatile, so that the verifier forgets the value.
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
