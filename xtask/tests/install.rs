//! The script that installs a release, with an archive of `scripts/package.sh`.
#![cfg(target_os = "linux")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TARGET: &str = concat!(env!("CARGO_PKG_NAME"), "-test");

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../scripts")
        .join(name)
}

/// A program that answers as far as the scripts ask.
const PROGRAM: &str = "#!/bin/sh
case $1 in
    man) mkdir -p \"$2\" && echo page > \"$2/qoft.1\" ;;
    completions) echo \"for $2\" ;;
    -V) echo 'qoft 7.8.9' ;;
esac
";

fn install(releases: &str, bin: &Path) -> Output {
    let mut command = Command::new("sh");
    command.arg(script("install.sh")).env("QOFT_BIN", bin);
    command.env("QOFT_RELEASES", releases);
    command.output().expect("sh runs")
}

#[test]
fn an_archive_is_installed_if_its_checksum_is_right() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("there is no curl: nothing is tried");
        return;
    }
    let work = std::env::temp_dir().join(format!("qoft-install-{}", std::process::id()));
    let (bin, releases) = (work.join("bin"), work.join("releases"));
    fs::create_dir_all(&releases).expect("a folder");
    let program = work.join("qoft");
    fs::write(&program, PROGRAM).expect("a file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("its mode");
    let packed = Command::new("bash")
        .arg(script("package.sh"))
        .arg(TARGET)
        .arg(&program)
        .output();
    let packed = packed.expect("bash runs");
    assert!(
        packed.status.success(),
        "{}",
        String::from_utf8_lossy(&packed.stderr)
    );

    // The archive of this machine has the name that the script asks for.
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dist");
    let here = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let (from, to) = (format!("qoft-{TARGET}"), format!("qoft-{here}"));
    let tar = |args: &[&Path]| {
        let done = Command::new("tar").args(args).status();
        assert!(done.expect("tar runs").success());
    };
    let packed = dist.join(format!("{from}.tar.gz"));
    tar(&["-C".as_ref(), &work, "-xzf".as_ref(), &packed]);
    for name in [
        "README.md",
        "LICENSE-MIT",
        "man/qoft.1",
        "completions/qoft.zsh",
    ] {
        assert!(work.join(&from).join(name).exists(), "{name}");
    }
    for end in ["tar.gz", "tar.gz.sha256"] {
        fs::remove_file(dist.join(format!("{from}.{end}"))).expect("it is there");
    }
    fs::rename(work.join(&from), work.join(&to)).expect("a folder");
    let archive = releases.join(format!("{to}.tar.gz"));
    tar(&["-C".as_ref(), &work, "-czf".as_ref(), &archive, to.as_ref()]);
    let sum = || {
        let mut command = Command::new("sha256sum");
        let output = command
            .arg(format!("{to}.tar.gz"))
            .current_dir(&releases)
            .output();
        String::from_utf8(output.expect("sha256sum runs").stdout).expect("text")
    };
    let sums = releases.join(format!("{to}.tar.gz.sha256"));
    let address = format!("file://{}", releases.display());

    let refused = install(&address, &bin);
    assert!(
        !refused.status.success() && !bin.exists(),
        "without a checksum"
    );
    fs::write(&sums, sum().replace(&sum()[..8], "00000000")).expect("a file");
    let refused = install(&address, &bin);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && !bin.exists(), "{said}");
    assert!(said.contains("nothing was installed"), "{said}");
    fs::write(&sums, sum()).expect("a file");
    for _ in 0..2 {
        let installed = install(&address, &bin);
        let said = String::from_utf8_lossy(&installed.stdout).into_owned();
        assert!(
            installed.status.success() && said.contains("qoft 7.8.9 is in"),
            "{said}"
        );
        assert!(bin.join("qoft").exists());
    }
    fs::remove_dir_all(&work).expect("it goes");
}
