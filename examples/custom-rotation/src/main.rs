//! `qoft` with one more family of adapters.

use qoft_goft as _;

fn main() -> std::process::ExitCode {
    qoft_cli::run()
}
