//! `qoft` with one more backend.

use qoft_bitnet as _;

fn main() -> std::process::ExitCode {
    qoft_cli::run()
}
