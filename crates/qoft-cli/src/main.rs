//! `qoft`: fine-tune quantized language models with Orthogonal Fine-Tuning.

fn main() -> std::process::ExitCode {
    qoft_cli::run()
}
