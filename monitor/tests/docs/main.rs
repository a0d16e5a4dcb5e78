//! Checks that the reference pages match the program: every metric, flag and alert field is documented,
//! and no others. Also checks what ARCHITECTURE.md says of the sources.

mod alerts;
mod commands;
mod config;
mod frames;
mod metrics;
mod pages;
mod rooms;
mod written;
