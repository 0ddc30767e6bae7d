//! Lines on standard output, which may be a pipe that nobody reads to its end.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// As `println!`, but the process ends quietly when the reader has gone, as in `qoft … | head`.
macro_rules! outln {
    () => {
        $crate::print::line(format_args!(""))
    };
    ($($arg:tt)*) => {
        $crate::print::line(format_args!($($arg)*))
    };
}
pub(crate) use outln;

/// Writes a line to standard output.
pub fn line(text: Arguments) {
    let mut out = std::io::stdout().lock();
    if let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) {
        let gone = error.kind() == ErrorKind::BrokenPipe;
        if !gone {
            eprintln!("error: standard output: {error}");
        }
        std::process::exit(if gone { 0 } else { 1 });
    }
}
