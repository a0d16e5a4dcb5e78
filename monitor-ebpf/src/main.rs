//! wsmon's kernel programs. They see and report; they never drop, delay or change traffic.
//!
//! | program                | hook              | purpose                                                |
//! |------------------------|-------------------|--------------------------------------------------------|
//! | `ingress`              | cgroup_skb in     | every packet to a watched socket: clocks, acks, frames |
//! | `egress`               | cgroup_skb out    | every packet from a watched socket: the same           |
//! | `inet_sock_set_state`  | tp_btf            | opened (ESTABLISHED), closed (CLOSE), listening sockets |
//! | `nested_set_state`     | tp_btf            | the same, where a softirq interrupts that program      |
//! | `tcp_retransmit_skb`   | tp_btf            | retransmissions                                        |
//! | `tcp_receive_reset`    | tp_btf            | the peer reset                                         |
//! | `tcp_send_reset`       | tp_btf            | this host reset                                        |
//!
//! The logic that turns packets into facts is in `monitor-common`; this crate has only hooks, maps
//! and emission.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

mod early_data;
mod emit;
mod handshake;
mod lifecycle;
mod lock;
mod maps;
mod marker;
mod opaque;
mod packet;
mod payload;
mod records;
mod repeat;
mod sock;
mod tally;
mod traffic;
mod walk;

/// The kernel allows tracing programs and most helpers only to GPL-compatible programs.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// An endless loop, so that the verifier refuses a program that can reach a panic.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
