//! Segments that came before what precedes them.
//!
//! TCP keeps them and asks for the hole only, so they pass just once, at a moment when it is not
//! known where in them a frame begins. Each run of them is an *island*: from the first place that
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
pub const ISLANDS: usize = 4;

/// Frames that can wait for their proof.
pub const LOG: usize = 92;

/// Steps that one segment of an island may take; the next one goes on looking. Behind a hole not
/// everything has to be found, and time matters more.
pub const ISLAND_STEPS: u32 = 2048;

/// Steps of [`Holes::bridge`] after which it has said [`Bridge::End`]: each success looks through
/// the log once, and lets every island be looked at again.
pub const BRIDGE_STEPS: u32 = (ISLANDS * (LOG + 2) + (ISLANDS + 1) * ISLANDS + 1) as u32;

/// What waits behind the front of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Holes {
    islands: [Island; ISLANDS],
    log: [Logged; LOG],
    log_len: u32,
    /// Islands so far: tells the chains of this storage apart.
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
struct Island {
    /// Its `next_seq` is the island's end. It is not live where there is no island.
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

/// How far the joining of the front with the islands is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct Bridging {
    /// The island in hand, which is looked through the log for.
    island: u32,
    /// Islands looked at since the last success.
    looked: u32,
    /// The next entry of the log to look at, or [`NO_ISLAND`].
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
    /// It lies on an island, see [`Holes::step`]; this is the offset of its first unseen byte.
    Island(u32),
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

/// In [`Holes::scratch`]: no island, or one that is free.
const NOWHERE: u32 = u32::MAX;
const FREE: u32 = 1 << 16;

/// In [`Bridging::cursor`]: none is in hand.
const NO_ISLAND: u32 = u32::MAX;

/// Chains of one island that have numbers of their own.
const CHAIN_BITS: u32 = 16;

impl Holes {
    /// No hole; all zero, which is also how the kernel hands out new storage.
    pub const EMPTY: Self = Self {
        islands: [Island {
            walk: Walk::EMPTY,
            start: 0,
            logged_from: 0,
        }; ISLANDS],
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
            island: 0,
            looked: 0,
            cursor: 0,
            expected: 0,
            found: 0,
            _pad: 0,
        },
    };

    /// Finds the island of `len` bytes at `seq`, which lie ahead of the front.
    #[inline(always)]
    pub fn land(&mut self, seq: u32, len: u32) -> Landing {
        self.set_scratch(NOWHERE);
        let mut i = 0;
        while i < ISLANDS {
            if !self.islands[i].walk.is_live() {
                self.set_scratch(i as u32 | FREE);
            }
            i += 1;
        }
        let mut i = 0;
        while i < ISLANDS {
            let Island { walk, start, .. } = &self.islands[i];
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
        let island = &mut self.islands[picked as usize % ISLANDS];
        if picked & FREE != 0 {
            self.count = self.count.wrapping_add(1);
            island.walk = Walk::island(seq, self.count << CHAIN_BITS);
            island.start = seq;
        }
        let seen = island.walk.next_seq.wrapping_sub(seq);
        if seen >= len {
            return Landing::Old;
        }
        island.walk.next_seq = seq.wrapping_add(len);
        Landing::Island(seen)
    }

    /// Does one bounded piece of work on the island that [`Holes::land`] found; see [`Walk::step`].
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
        let picked = self.scratch() as usize % ISLANDS;
        let log_len = self.log_len;
        let island = &mut self.islands[picked];
        let walk = &mut island.walk;
        let (chain, was_on_trial, fresh) =
            (walk.chain(), walk.mode == mode::TRIAL, walk.is_fresh());
        match walk.step(at, begin, len, from_client, payload) {
            Step::End | Step::Unreadable => return false,
            Step::Frame(header) => self.log(&header, seq),
            Step::Again if walk.chain() != chain => island.logged_from = log_len,
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
        let picked = self.scratch() as usize % ISLANDS;
        self.islands[picked].walk.lose_sync();
    }

    /// Keeps a frame of the island in hand until it is proven; it was found in a segment at `seq`.
    #[inline(always)]
    fn log(&mut self, header: &Header, seq: u32) {
        let picked = self.scratch() as usize % ISLANDS;
        let place = self.log_len;
        let island = &mut self.islands[picked];
        let chain = island.walk.chain();
        let Some(entry) = self.log.get_mut(place as usize) else {
            // Half of a chain must not be taken for all of it.
            island.walk.rest();
            return;
        };
        if self.last_logged != chain && island.logged_from != place {
            // Another island's frames are among this chain's.
            island.logged_from = LOG as u32;
        }
        self.last_logged = chain;
        entry.header = *header;
        entry.chain = chain;
        entry.seq = seq.wrapping_add(island.walk.mark);
        self.log_len = place + 1;
    }

    /// The chain in hand broke at offset `at`: its frames are forgotten. Returns the offset to go
    /// on at: behind where it began, in this segment.
    #[inline(always)]
    fn refute(&mut self, at: u32, begin: u32, seq: u32, fresh: bool) -> u32 {
        let picked = self.scratch() as usize % ISLANDS;
        let from = self.islands[picked].logged_from;
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
            .islands
            .iter()
            .filter(|island| island.walk.is_live())
            .map(|island| island.start.wrapping_sub(front.next_seq))
            .min();
        nearest.map_or(0, |hole| front.leap(hole))
    }

    /// Prepares for [`Holes::bridge`].
    #[inline(always)]
    pub fn begin_bridge(&mut self) {
        self.bridging.looked = 0;
        self.bridging.cursor = NO_ISLAND;
    }

    /// Does one bounded piece of work on joining the front with the islands that it has reached.
    #[inline(always)]
    pub fn bridge(&mut self, front: &mut Walk) -> Bridge {
        if self.bridging.cursor != NO_ISLAND {
            return self.look_through_log(front);
        }
        if self.bridging.looked >= ISLANDS as u32 {
            return Bridge::End;
        }
        let i = self.bridging.looked;
        self.bridging.looked += 1;
        let island = &mut self.islands[i as usize % ISLANDS];
        if !island.walk.is_live() || after(island.start, front.next_seq) {
            return Bridge::Again;
        }
        self.bridging.looked = 0;
        let left = island.walk.next_seq.wrapping_sub(front.next_seq);
        // The front went through all of it itself, or it is in the middle of a frame.
        if left as i32 <= 0 || front.covers(left as u64) {
            island.walk = Walk::EMPTY;
            return Bridge::Unsynced(if left as i32 <= 0 {
                0
            } else {
                front.leap(left)
            });
        }
        let Some(expected) = front.expected_header() else {
            let unsynced = if front.mode == mode::UNSYNCED && island.walk.mode == mode::TRIAL {
                front.continue_trial(&island.walk);
                left
            } else {
                front.leap(left)
            };
            island.walk = Walk::EMPTY;
            return Bridge::Unsynced(unsynced);
        };
        self.bridging.expected = expected;
        self.bridging.island = i;
        self.bridging.found = 0;
        self.bridging.cursor = 0;
        Bridge::Again
    }

    /// Accounts for the frames of the island in hand, from the one on that begins where the front
    /// expects a header.
    #[inline(always)]
    fn look_through_log(&mut self, front: &mut Walk) -> Bridge {
        let island = &mut self.islands[self.bridging.island as usize % ISLANDS];
        let place = self.bridging.cursor as usize;
        if self.bridging.cursor >= self.log_len || place >= LOG {
            self.bridging.cursor = NO_ISLAND;
            let left = island.walk.next_seq.wrapping_sub(front.next_seq);
            island.walk = Walk::EMPTY;
            return Bridge::Unsynced(if self.bridging.found != 0 {
                0
            } else {
                front.leap(left)
            });
        }
        self.bridging.cursor += 1;
        let entry = &self.log[place];
        let on_trial = island.walk.mode == mode::TRIAL;
        if !on_trial || entry.chain != island.walk.chain() {
            return Bridge::Again;
        }
        if self.bridging.found == 0 {
            if entry.seq != self.bridging.expected {
                return Bridge::Again;
            }
            self.bridging.found = 1;
            front.continue_as(&island.walk);
        }
        Bridge::Frame(entry.header)
    }

    /// Whether nothing waits any more.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        let mut live = 0;
        let mut i = 0;
        while i < ISLANDS {
            live |= self.islands[i].walk.is_live() as u8;
            i += 1;
        }
        live == 0
    }

    /// Bytes of all islands: what is not accounted if the stream ends now.
    #[inline(always)]
    pub fn waiting_bytes(&self) -> u64 {
        let mut bytes = 0;
        let mut i = 0;
        while i < ISLANDS {
            let Island { walk, start, .. } = &self.islands[i];
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
