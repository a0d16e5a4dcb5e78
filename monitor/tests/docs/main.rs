//! The reference pages say what the program does: every metric, flag and alert field, and none that
//! does not exist.

mod alerts;
mod commands;
mod config;
mod frames;
mod metrics;
mod pages;
mod written;
