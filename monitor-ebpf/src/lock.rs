//! A lock that lets one CPU at a time process a received segment of a socket.

use monitor_common::flow::Flow;

use crate::{
    maps::STORES_ARE_ORDERED,
    repeat::{Body, repeat},
};

/// Attempts at the lock: about a millisecond at most. A segment takes microseconds, but a virtual CPU may
/// pause in between.
const ATTEMPTS: u32 = 1 << 16;

/// Waits while another CPU processes a segment of this socket. False if that takes too long.
#[inline(always)]
pub(crate) fn try_lock(flow: *mut Flow) -> bool {
    // SAFETY: storage the kernel keeps while this program runs.
    let word = unsafe { &raw mut (*flow).receiving };
    if swap(word, 1) == 0 {
        return true;
    }
    wait(word)
}

#[inline(always)]
pub(crate) fn unlock(flow: *mut Flow) {
    // SAFETY: storage the kernel keeps while this program runs.
    let word = unsafe { &raw mut (*flow).receiving };
    if STORES_ARE_ORDERED.load() == 0 {
        swap(word, 0);
        return;
    }
    // An exchange costs several times as much. The compiler moves nothing past the assembly.
    // SAFETY: as above.
    unsafe {
        core::arch::asm!(
            "*(u64 *)({word} + 0) = {free}",
            word = in(reg) word,
            free = in(reg) 0_u64,
            options(nostack),
        );
    }
}

/// Shared by the attempts; lives on the stack.
#[repr(C)]
struct LockWait {
    word: *mut u64,
    locked: u64,
}

#[inline(never)]
fn wait(word: *mut u64) -> bool {
    let mut waiting = LockWait { word, locked: 0 };
    repeat::<ATTEMPTS, LockAttempt>(&mut waiting);
    // SAFETY: a live local; volatile because it was written behind the compiler's back.
    unsafe { (&raw const waiting.locked).read_volatile() != 0 }
}

enum LockAttempt {}

impl Body for LockAttempt {
    type Context = LockWait;

    #[inline(always)]
    fn step(_index: u32, waiting: &mut LockWait) -> bool {
        waiting.locked = (swap(waiting.word, 1) == 0) as u64;
        waiting.locked == 0
    }
}

/// Writes `value` into a word and returns the previous value; orders everything before and after.
#[inline(always)]
fn swap(word: *mut u64, value: u64) -> u64 {
    let mut value = value;
    // SAFETY: callers pass a live, aligned word of a map value.
    unsafe {
        core::arch::asm!(
            "{value} = xchg_64({word} + 0, {value})",
            value = inout(reg) value,
            word = in(reg) word,
            options(nostack),
        );
    }
    value
}
