//! Reading from the current packet.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use monitor_common::{frame::Head, stream::Payload};

use crate::opaque::opaque;

/// The payload of the current packet. Loopback and GRO keep it in fragments, so it is read through the
/// helper and never by direct access.
pub(crate) struct SkbPayload {
    pub(crate) skb: *mut c_void,
    pub(crate) offset: u32,
}

impl Payload for SkbPayload {
    #[inline(always)]
    fn read(&self, offset: u32, len: u32) -> Option<Head> {
        // Callers pass 1..=14; the mask shows both bounds to the verifier.
        let len = (opaque(len.into()).wrapping_sub(1) & 15) as u32 + 1;
        let mut head = MaybeUninit::<[u64; 2]>::uninit();
        let words = head.as_mut_ptr().cast::<u64>();
        // Word by word and volatile: the compiler turns zeroing or copying a whole array into a call of
        // `memset` or `memcpy`, which are loops over bytes here.
        // SAFETY: both words are written before they are read, and the helper writes at most the 16 bytes
        // they have.
        unsafe {
            words.write_volatile(0);
            words.add(1).write_volatile(0);
            let offset = self.offset.wrapping_add(offset);
            if bpf_skb_load_bytes(self.skb, offset, words.cast(), len) != 0 {
                return None;
            }
            Some(Head([words.read_volatile(), words.add(1).read_volatile()]))
        }
    }
}
