//! Values that the compiler must know nothing of.

/// `value`, of which the compiler knows nothing any more.
///
/// It proves checks away by what it sees in other functions; the verifier sees one function at a time
/// and wants them.
#[inline(always)]
pub(crate) fn opaque(mut value: u64) -> u64 {
    // A real instruction: the line information of an empty one is refused by the kernel.
    // SAFETY: moves a register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack)) };
    value
}
