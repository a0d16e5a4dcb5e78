//! End to end: the real daemon, the real kernel, real peers, and connections that really die.
//!
//! Every test uses its own ports, because a daemon sees all namespaces of this host.

mod alertmanager;
mod backend;
mod capture;
mod control;
mod crowd;
mod dice;
mod frames;
mod handshakes;
mod hops;
mod idle_gaps;
mod lifecycle;
mod lossy;
mod multipath;
mod older;
mod outages;
mod peers;
mod protocols;
mod reaping;
mod reload;
mod roles;
mod rotation;
mod stage;
mod state;
mod storms;
mod talk;
mod thousand;
mod torrent;
mod verdicts;
mod viewer;
