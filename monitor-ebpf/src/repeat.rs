//! Bounded loops, with the helper that the kernel supports. The verifier checks the body once.

use core::{
    ffi::{c_long, c_void},
    ptr,
};

use aya_ebpf::helpers::generated::{bpf_for_each_map_elem, bpf_loop};

use crate::maps::{LOOP_KIND, PORTS, loop_kind};

/// The body of a loop.
pub(crate) trait Body {
    /// Shared by the steps; lives on the stack of the function that loops.
    type Context;

    /// One step; true to continue.
    fn step(index: u32, context: &mut Self::Context) -> bool;
}

/// Runs at most `TIMES` steps; returns how many ran.
///
/// A frozen global selects the helper, so the verifier prunes the other branch, and kernels without that
/// helper never see it.
#[inline(always)]
pub(crate) fn repeat<const TIMES: u32, B: Body>(context: &mut B::Context) -> u32 {
    const { assert!(TIMES <= PORTS_LEN, "the array has an element for each step") };
    let context = ptr::from_mut(context).cast();
    if LOOP_KIND.load() == loop_kind::BPF_LOOP {
        // SAFETY: the callback has the signature that the helper expects, and the context outlives the
        // loop.
        unsafe { bpf_loop(TIMES, by_index::<B> as *mut c_void, context, 0) as u32 }
    } else {
        let map = ptr::from_ref(&PORTS).cast_mut().cast();
        // SAFETY: as above.
        let ran = unsafe {
            bpf_for_each_map_elem(map, by_element::<TIMES, B> as *mut c_void, context, 0)
        } as u32;
        // The helper also counts the element at which the callback stops.
        if ran > TIMES { TIMES } else { ran }
    }
}

/// Elements of [`PORTS`].
const PORTS_LEN: u32 = 1 << 16;

/// One call by `bpf_loop`: 0 continues, 1 ends the loop.
unsafe extern "C" fn by_index<B: Body>(index: u32, context: *mut B::Context) -> c_long {
    // SAFETY: the helper passes the context that `repeat` gave it.
    !B::step(index, unsafe { &mut *context }) as c_long
}

/// One call by `bpf_for_each_map_elem`. The key of an array's element is its index.
unsafe extern "C" fn by_element<const TIMES: u32, B: Body>(
    _map: *const c_void,
    key: *const u32,
    _value: *const c_void,
    context: *mut B::Context,
) -> c_long {
    // SAFETY: the helper passes the key, and the context that `repeat` gave it.
    let (index, context) = unsafe { (*key, &mut *context) };
    // Before the step: the key, kept across it, would take stack space that is not available.
    if index >= TIMES {
        return 1;
    }
    !B::step(index, context) as c_long
}
