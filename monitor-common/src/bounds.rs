//! Bounds that every kernel's verifier understands.

/// `index`, which is at most `mask`. The compiler knows that and would leave the mask out; Linux 6.1
/// does not see it where the index is put together from comparisons.
#[inline(always)]
pub(crate) fn within(index: usize, mask: usize) -> usize {
    hidden(index) & mask
}

#[cfg(target_arch = "bpf")]
#[inline(always)]
fn hidden(value: usize) -> usize {
    let mut value = value;
    // A real instruction: the line information of an empty one is refused by the kernel.
    // SAFETY: moves a register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack)) };
    value
}

#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
fn hidden(value: usize) -> usize {
    value
}
