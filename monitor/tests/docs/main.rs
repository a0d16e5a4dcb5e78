//! Checks that the reference pages match the program: every metric, flag and field of a record is
//! documented, and no others. Also checks what ARCHITECTURE.md says of the sources.

mod alert_samples;
mod alertmanager;
mod alerts;
mod commands;
mod config;
mod help;
mod metrics;
mod pages;
mod records;
mod rooms;
mod rules;
mod samples;
