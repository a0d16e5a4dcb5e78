//! End to end: the real daemon, the real kernel, real peers, and connections that really die.
//!
//! Every test uses its own ports, because a daemon sees all namespaces of this host. Tests run side by side,
//! except those in [`alone`] and [`full_load`].

mod access_log;
mod alertmanager;
mod all_verdicts;
mod alone;
mod backend;
mod capture;
mod cgroup_tree;
mod control;
mod crowd;
mod dice;
mod durations;
mod frames;
mod full_load;
mod groups;
mod handshakes;
mod idle_gaps;
mod inhibitions;
mod killable;
mod lifecycle;
mod lossy;
mod multipath;
mod older;
mod outages;
mod owners;
mod peers;
mod ports;
mod protocols;
mod rates;
mod readers;
mod reaping;
mod reload;
mod responses;
mod roles;
mod rotation;
mod scraping;
mod selection;
mod service_manager;
mod stage;
mod state;
mod status_page;
mod talk;
mod terminal;
mod tmux;
mod top;
mod trouble;
mod verdicts;
mod viewer;
mod workloads;
