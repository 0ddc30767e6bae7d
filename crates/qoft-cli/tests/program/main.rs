//! Tests of the program, run as a user runs it.

mod bad_arguments;
mod bad_input;
mod cli;
mod common;
mod random_damage;
