//! Bounds checks that the verifier of every kernel accepts.

/// Returns `index`, which is at most `mask`. The compiler would remove the redundant mask, but the verifier
/// of Linux 6.1 does not see the bound where the index results from comparisons.
#[inline(always)]
pub(crate) fn within(index: usize, mask: usize) -> usize {
    hidden(index) & mask
}

#[cfg(target_arch = "bpf")]
#[inline(always)]
fn hidden(value: usize) -> usize {
    let mut value = value;
    // An actual instruction, because the kernel refuses the line information of an empty one.
    // SAFETY: moves a register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack)) };
    value
}

#[cfg(not(target_arch = "bpf"))]
#[inline(always)]
fn hidden(value: usize) -> usize {
    value
}
