//! The whole thing: the real daemon, the real kernel, real peers, connections that really die.
//!
//! Every test has ports of its own, because a daemon sees all namespaces of this host.

mod control;
mod frames;
mod handshakes;
mod lifecycle;
mod older;
mod peers;
mod protocols;
mod roles;
mod stage;
mod thousand;
mod verdicts;
mod viewer;
