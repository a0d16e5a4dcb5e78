//! One received segment of a socket at a time.

use core::ffi::{c_long, c_void};

use aya_ebpf::helpers::generated::bpf_loop;
use monitor_common::flow::Flow;

/// Tries for a turn: most of a millisecond. A segment takes microseconds, but where this is a
/// virtual machine, the other CPU may stand still in the middle of it.
const TRIES: u32 = 1 << 16;

/// Waits for the other CPU that has a segment of this socket in hand. False if it takes too long.
#[inline(always)]
pub(crate) fn take(flow: *mut Flow) -> bool {
    // SAFETY: storage the kernel keeps while this program runs.
    let word = unsafe { &raw mut (*flow).receiving };
    if swap(word, 1) == 0 {
        return true;
    }
    wait(word)
}

#[inline(always)]
pub(crate) fn give_back(flow: *mut Flow) {
    // SAFETY: storage the kernel keeps while this program runs.
    swap(unsafe { &raw mut (*flow).receiving }, 0);
}

/// What [`try_again`] needs across the iterations of `bpf_loop`; lives on the stack.
#[repr(C)]
struct Waiting {
    word: *mut u64,
    taken: u64,
}

#[inline(never)]
fn wait(word: *mut u64) -> bool {
    let mut waiting = Waiting { word, taken: 0 };
    // SAFETY: the callback has the signature bpf_loop wants and the context outlives the loop.
    unsafe {
        bpf_loop(
            TRIES,
            try_again as *mut c_void,
            (&raw mut waiting).cast(),
            0,
        );
        // Written behind the compiler's back.
        (&raw const waiting.taken).read_volatile() != 0
    }
}

/// One iteration of `bpf_loop`: 0 goes on, 1 ends the loop.
unsafe extern "C" fn try_again(_index: u32, waiting: *mut Waiting) -> c_long {
    // SAFETY: bpf_loop passes the context that `wait` gave it.
    let waiting = unsafe { &mut *waiting };
    waiting.taken = (swap(waiting.word, 1) == 0) as u64;
    waiting.taken as c_long
}

/// Puts `value` into a word and returns what was there; orders everything before and after.
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
