//! Values that the compiler must know nothing about.

/// Returns `value` and hides it from the compiler.
///
/// The compiler removes checks that it proves redundant from other functions. The verifier sees one
/// function at a time and needs these checks.
#[inline(always)]
pub(crate) fn opaque(mut value: u64) -> u64 {
    // An actual instruction, because the kernel refuses the line information of an empty one.
    // SAFETY: moves a register to itself.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack)) };
    value
}
