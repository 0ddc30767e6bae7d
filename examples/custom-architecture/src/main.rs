//! `qoft` with one more architecture.

use qoft_starcoder2 as _;

fn main() -> std::process::ExitCode {
    qoft_cli::run()
}
