//! Tests of the program, run as a user runs it.

mod about;
mod adapters;
mod bad_arguments;
mod bad_input;
mod beside;
mod caches;
mod calibration;
mod chat;
mod cli;
mod common;
mod dequantize;
mod documents;
mod estimate;
mod first_hour;
#[cfg(feature = "wgpu")]
mod gpu;
#[cfg(feature = "hub")]
mod hub;
mod kills;
mod launched;
mod merge;
#[cfg(feature = "mpi")]
mod mpi;
mod new_tokens;
mod newcomer;
mod output;
mod pipes;
mod pointers;
mod preferences;
mod quantize;
mod quantize_train;
mod random_damage;
mod resume;
mod saved;
#[cfg(all(feature = "hub", feature = "all-schemes"))]
mod schemas;
#[cfg(feature = "serve")]
mod serve;
mod signals;
mod sizes;
mod strategies;
mod templates;
mod threads;
