//! Each representation's kernels compiled for NVIDIA's GPUs, and what they need there.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{llvm, pip};
use crate::stages::is_there;
use crate::{cargo, say};

/// The folder of what is built, and of the assembler.
const TARGET: &str = "target-cuda";
/// NVIDIA's assembler of CUDA 13.0.
const PACKAGE: &str = "nvidia-cuda-nvcc==13.0.88";
const ASSEMBLER: &str = "nvidia/cu13/bin/ptxas";

/// What `ptxas` says of a kernel.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    registers: usize,
    /// Bytes of registers that are stored and loaded again.
    spilled: usize,
}

/// Compiles kernels and program, and prints a table of the kernels' registers.
pub fn run(root: &Path) -> Result<()> {
    llvm::set_up(root)?;
    let target = root.join(TARGET);
    let assembler = assembler(&target)?;
    let folder = target.join("ptx");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    let built = ["--profile", "test-gpu", "--target-dir", TARGET];
    let kernels = [
        "--package",
        "qoft-kernels",
        "--features",
        "ptx",
        "--lib",
        "--",
        "ptx",
    ];
    call(root, &[&["test"], &built[..], &kernels].concat(), &folder)?;
    let table = table(&assembler, &folder)?;
    say(&table)?;
    let program = [
        "--workspace",
        "--bin",
        "qoft",
        "--features",
        "qoft-cli/cuda",
    ];
    call(root, &[&["build"], &built[..], &program].concat(), &folder)
}

fn call(root: &Path, args: &[&str], folder: &Path) -> Result<()> {
    let line = format!("cargo {}", args.join(" "));
    say(&format!("\n=== {line}"))?;
    let mut command = Command::new(cargo());
    command.args(args).env("QOFT_PTX_DIR", folder);
    let status = command.current_dir(root).status();
    let status = status.with_context(|| format!("cannot run {line}"))?;
    if !status.success() {
        bail!("{line} failed ({status})");
    }
    Ok(())
}

/// The `ptxas` of the machine, or else NVIDIA's package on PyPI.
fn assembler(target: &Path) -> Result<PathBuf> {
    if is_there("ptxas") {
        return Ok("ptxas".into());
    }
    let folder = target.join("nvcc");
    let program = folder.join(ASSEMBLER);
    if !program.is_file() {
        pip::unpack(&[PACKAGE], &folder)?;
    }
    Ok(program)
}

/// Assembles all files of a folder.
fn table(assembler: &Path, folder: &Path) -> Result<String> {
    let files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files = files.collect::<Result<Vec<PathBuf>>>()?;
    files.sort();
    if files.is_empty() {
        bail!("{} has no kernels", folder.display());
    }
    let head = ["architecture", "weight", "kernel", "registers", "spilled"];
    let [arch, weight, kernel, registers, spilled] = head;
    let mut text = format!("{arch:<13}{weight:<20}{kernel:<10}{registers:>10}{spilled:>10}\n");
    for file in &files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let parts: Vec<&str> = name.split('.').collect();
        let [arch, weight, kernel, "ptx"] = parts[..] else {
            bail!("{}: no kernel's name", file.display());
        };
        let Needs { registers, spilled } = assembled(assembler, arch, file)?;
        writeln!(
            text,
            "{arch:<13}{weight:<20}{kernel:<10}{registers:>10}{spilled:>10}"
        )?;
    }
    writeln!(text, "--- {} kernels assembled", files.len())?;
    Ok(text)
}

fn assembled(assembler: &Path, arch: &str, file: &Path) -> Result<Needs> {
    let mut command = Command::new(assembler);
    let object = file.with_extension("cubin");
    command.args(["--verbose", "--gpu-name", arch, "--output-file"]);
    let output = command.arg(&object).arg(file).output();
    let output = output.with_context(|| format!("cannot run {}", assembler.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{}: {}", file.display(), said.trim());
    }
    fs::remove_file(object)?;
    needs(&said).with_context(|| format!("{}: ptxas says: {}", file.display(), said.trim()))
}

/// Reads `Used 40 registers, used 1 barriers` and `0 bytes spill stores`.
fn needs(said: &str) -> Option<Needs> {
    let before = |what: &str| {
        let (before, _) = said.split_once(what)?;
        before.split_whitespace().last()?.parse().ok()
    };
    let spilled = |what| before(what).unwrap_or(0);
    Some(Needs {
        registers: before(" registers")?,
        spilled: spilled(" bytes spill stores") + spilled(" bytes spill loads"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_assembler_says_is_read() {
        let said = "ptxas info    : Compiling entry function 'tiled' for 'sm_90a'\n\
                    ptxas info    : Function properties for tiled\n    \
                    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
                    ptxas info    : Used 40 registers, used 1 barriers\n";
        let expected = Needs {
            registers: 40,
            spilled: 16,
        };
        assert_eq!(needs(said), Some(expected));
        assert_eq!(needs("ptxas fatal"), None);
    }
}
