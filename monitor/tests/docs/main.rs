//! Checks that the reference pages match the program: every metric, flag and alert field is documented,
//! and no others.

mod alerts;
mod commands;
mod config;
mod frames;
mod metrics;
mod pages;
mod written;
