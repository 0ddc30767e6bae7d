//! `qoft` with one more architecture.

use qoft_stablelm as _;

fn main() -> std::process::ExitCode {
    qoft_cli::run()
}
