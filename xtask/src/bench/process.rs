//! A child process with its time and its memory.

use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Time between two looks at the memory. The largest value of a process only grows, so that just
/// a peak in the last moment of its life can be missed.
const LOOK: Duration = Duration::from_millis(5);

/// What a process did.
#[derive(Debug)]
pub struct Finished {
    /// Its standard output.
    pub stdout: String,
    /// From its start to its end.
    pub seconds: f64,
    /// Its largest resident set in bytes; only Linux tells.
    pub peak_bytes: Option<u64>,
}

/// Runs a program to its end.
///
/// # Errors
///
/// If it cannot be started or fails; the error has the last line that it wrote to stderr.
pub fn run(command: &mut Command) -> Result<Finished> {
    let program = command.get_program().display().to_string();
    command.stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let began = Instant::now();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let out = collect(child.stdout.take());
    let err = collect(child.stderr.take());
    let (status, peak_bytes) = watch(&mut child)?;
    let seconds = began.elapsed().as_secs_f64();
    let [stdout, stderr] = [out, err].map(|reader| reader.join().unwrap_or_default());
    if !status.success() {
        let last = stderr.lines().rev().find(|line| !line.trim().is_empty());
        bail!("{program}: {status}: {}", last.unwrap_or("no message"));
    }
    Ok(Finished {
        stdout,
        seconds,
        peak_bytes,
    })
}

/// Reads a pipe to its end, on a thread so that it never fills up.
fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What came before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn watch(child: &mut Child) -> Result<(ExitStatus, Option<u64>)> {
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak = None;
    loop {
        let status = std::fs::read_to_string(&status_file).ok();
        peak = peak.max(status.as_deref().and_then(peak_bytes));
        if let Some(status) = child.try_wait()? {
            return Ok((status, peak));
        }
        thread::sleep(LOOK);
    }
}

/// `VmHWM` of a process's status file. Unlike `ru_maxrss` it begins anew with a new program, so
/// that it does not contain the memory of the one that started it.
fn peak_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn output_time_and_memory_are_seen() {
        let script = "echo out; echo err >&2; sleep 0.1";
        let finished = run(Command::new("sh").args(["-c", script])).unwrap();
        assert_eq!(finished.stdout, "out\n");
        assert!(finished.seconds >= 0.1);
        assert!(finished.peak_bytes.unwrap() > 100 << 10);
    }

    #[test]
    fn a_failure_says_what_the_program_said() {
        let error = run(Command::new("sh").args(["-c", "echo one >&2; echo two >&2; exit 3"]));
        let text = error.unwrap_err().to_string();
        assert!(text.contains("two") && text.contains('3'), "{text}");
        assert!(run(&mut Command::new("/no/such/program")).is_err());
    }

    #[test]
    fn the_status_file_is_read() {
        let status = "Name:\tx\nVmHWM:\t    1672 kB\nVmRSS:\t 1 kB\n";
        assert_eq!(peak_bytes(status), Some(1672 * 1024));
        assert_eq!(peak_bytes("Name:\tx\n"), None);
    }
}
