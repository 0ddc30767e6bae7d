//! `qoft` with one more backend.

use qoft_block_fp8 as _;

fn main() -> std::process::ExitCode {
    qoft_cli::run()
}
