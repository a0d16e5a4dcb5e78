//! Everything that touches the kernel: load, attach, maps, rings, sockets. The only unsafe code
//! of the daemon is here.

pub mod decode;
pub mod load;
pub mod maps;
pub mod offsets;
