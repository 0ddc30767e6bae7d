//! Where output goes, and what happens where it cannot.
#![cfg(unix)]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::file::edit_json;
use crate::common::{arg, copy_fixture, fixture, lines, names, qoft, temporary};
use tempfile::tempdir;

const MODEL: &str = "models/llama_nf4";
const ADAPTER: &str = "adapters/all_linear";
const ROWS: &str = "train/nf4_all_linear/rows.jsonl";

fn full() -> Stdio {
    let full = OpenOptions::new().write(true).open("/dev/full");
    full.expect("/dev/full").into()
}

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

/// Runs the program, with what `set` says of it, and returns its exit code.
fn code(args: &[&str], set: impl FnOnce(&mut Command) -> &mut Command) -> Option<i32> {
    let temporary = temporary();
    let mut command = Command::new(env!("CARGO_BIN_EXE_qoft"));
    let command = command.args(args).env("TMPDIR", temporary.path());
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    set(command).status().expect("a run").code()
}

fn train_args<'a>(model: &'a str, rows: &'a str, out: &'a Path) -> Vec<&'a str> {
    vec![
        "train",
        "--model",
        model,
        "--data",
        rows,
        "--output",
        arg(out),
        "--max-steps=6",
        "--save-steps=2",
        "--logging-steps=1",
    ]
}

#[test]
fn nobody_has_to_listen() {
    let work = tempdir().expect("a folder");
    let (model, rows, adapter) = (fixture(MODEL), fixture(ROWS), fixture(ADAPTER));
    for (name, stderr) in [("full", full as fn() -> Stdio), ("closed", closed)] {
        let out = work.path().join(name);
        let train = train_args(&model, &rows, &out);
        assert_eq!(code(&train, |run| run.stderr(stderr())), Some(0), "{name}");
        assert!(out.join("adapter_model.safetensors").is_file());
        assert_eq!(lines(&out.join("log.jsonl")), 6);
        let merged = work.path().join(format!("{name}-merged"));
        let merge = [
            "merge",
            "--model",
            &model,
            "--adapter",
            &adapter,
            "--report",
        ];
        let args = [&merge[..], &["--output", arg(&merged)]].concat();
        assert_eq!(code(&args, |run| run.stderr(stderr())), Some(0), "{name}");
        assert!(merged.join("config.json").is_file());
        // An error is an error all the same.
        assert_eq!(code(&args, |run| run.stderr(stderr())), Some(1), "{name}");
    }
}

#[test]
fn a_result_that_cannot_be_printed_is_an_error() {
    let model = fixture("tokenizer");
    let quantized = fixture(MODEL);
    let rows = fixture(ROWS);
    let eval = ["eval", "--model", &quantized, "--data", &rows];
    let inspect = ["inspect", &quantized];
    for args in [
        &eval[..],
        &inspect,
        &["backends"],
        &["backends", "--json"],
        &["devices"],
        &["devices", "--json"],
        &["--help"],
        &["merge", "--help"],
        &["--version"],
    ] {
        assert_eq!(code(args, |run| run.stdout(full())), Some(1), "{args:?}");
        assert_eq!(code(args, |run| run.stdout(closed())), Some(0), "{args:?}");
    }
    let work = tempdir().expect("a folder");
    let folder = crate::common::copy_fixture(MODEL, work.path(), "model");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(Path::new(&model).join(name), folder.join(name)).expect("a copy");
    }
    let generate = [
        "generate",
        "--model",
        arg(&folder),
        "--prompt=a",
        "--max-new-tokens=3",
    ];
    assert_eq!(code(&generate, |run| run.stdout(full())), Some(1));
    assert_eq!(code(&generate, |run| run.stdout(closed())), Some(0));
}

#[test]
fn files_have_the_permissions_that_the_user_wants() {
    let work = tempdir().expect("a folder");
    let (model, rows) = (fixture(MODEL), fixture(ROWS));
    let dense = work.path().join("dense");
    let adapter = work.path().join("adapter");
    for (mask, file, folder) in [("077", 0o600, 0o700), ("002", 0o664, 0o775)] {
        for args in [
            vec!["dequantize", &model, "--output", arg(&dense)],
            train_args(&model, &rows, &adapter),
        ] {
            let script = format!("umask {mask}; exec \"$@\"");
            let status = Command::new("sh")
                .args(["-c", &script, "sh", env!("CARGO_BIN_EXE_qoft")])
                .args(args)
                .stderr(Stdio::null())
                .status();
            assert!(status.expect("a shell").success());
        }
        let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
        for path in [&dense, &adapter, &adapter.join("checkpoint-2")] {
            assert_eq!(mode(path), folder, "{}", path.display());
        }
        for name in ["dense/config.json", "dense/model.safetensors"] {
            assert_eq!(mode(&work.path().join(name)), file, "{name}");
        }
        for entry in names(&adapter)
            .iter()
            .filter(|name| !name.starts_with("check"))
        {
            assert_eq!(mode(&adapter.join(entry)), file, "{entry}");
        }
        let optimizer = adapter.join("checkpoint-2/optimizer.bin");
        assert_eq!(mode(&optimizer), file);
        fs::remove_dir_all(&dense).expect("a folder");
        fs::remove_dir_all(&adapter).expect("a folder");
    }
}

#[test]
fn a_folder_that_exists_may_be_filled_and_so_may_the_current_one() {
    let (model, adapter) = (fixture(MODEL), fixture(ADAPTER));
    let lora = [
        "export",
        "--to=lora",
        "--rank=2",
        "--model",
        &model,
        "--adapter",
        &adapter,
    ];
    let merge = ["merge", "--model", &model, "--adapter", &adapter];
    let dequantize = ["dequantize", &model];
    for command in [&lora[..], &merge, &dequantize] {
        let work = tempdir().expect("a folder");
        let new = work.path().join("new");
        let run = qoft(&[command, &["--output", arg(&new)]].concat());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
        let here = work.path().join("here");
        fs::create_dir(&here).expect("a folder");
        let inode = fs::metadata(&here).expect("a folder").ino();
        let into_here = [command, &["--output", "."]].concat();
        let code = code(&into_here, |run| run.current_dir(&here));
        assert_eq!(code, Some(0), "{command:?}");
        assert_eq!(names(&here), names(&new), "{command:?}");
        for name in names(&new) {
            let [a, b] = [&here, &new].map(|folder| fs::read(folder.join(&name)).expect("a file"));
            assert!(a == b, "{name}");
        }
        assert_eq!(fs::metadata(&here).expect("a folder").ino(), inode);
    }
}

/// A file system of some kilobytes, where there may be one.
struct Small(tempfile::TempDir);

impl Small {
    fn new(kilobytes: usize) -> Option<Self> {
        let folder = tempdir().expect("a folder");
        let size = format!("size={kilobytes}k");
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs", arg(folder.path())])
            .stderr(Stdio::null())
            .status();
        status
            .is_ok_and(|status| status.success())
            .then(|| Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_volume_is_filled_and_a_full_one_is_left_as_it_was() {
    let (model, adapter, rows) = (fixture(MODEL), fixture(ADAPTER), fixture(ROWS));
    let Some(volume) = Small::new(64 * 1024) else {
        // Only the superuser can mount.
        return;
    };
    let out = volume.0.path();
    let merge = [
        "merge",
        "--model",
        &model,
        "--adapter",
        &adapter,
        "--output",
    ];
    let run = qoft(&[&merge[..], &[arg(out)]].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(out.join("config.json").is_file());
    assert!(names(out).iter().all(|name| !name.starts_with('.')));
    drop(volume);

    // Too small for anything: an error, and nothing that is there is lost.
    for kilobytes in [8, 60, 120, 200] {
        let volume = Small::new(kilobytes).expect("a volume");
        let kept = volume.0.path().join("kept");
        fs::write(&kept, "kept").expect("a file");
        let out = volume.0.path().join("out");
        let run = qoft(&[&merge[..], &[arg(&out)]].concat());
        assert_eq!(run.code, Some(1), "{kilobytes}: {}", run.stderr);
        assert!(run.stderr.contains("No space left"), "{}", run.stderr);
        assert_eq!(names(volume.0.path()), ["kept"]);
        assert_eq!(fs::read(&kept).expect("a file"), b"kept");
    }

    // Room for some of a training: what is trained is somewhere.
    let work = tempdir().expect("a folder");
    let whole = work.path().join("whole");
    assert_eq!(qoft(&train_args(&model, &rows, &whole)).code, Some(0));
    let trained = |folder: &Path| fs::read(folder.join("adapter_model.safetensors")).ok();
    for kilobytes in [40, 100, 200, 300, 400, 600] {
        let volume = Small::new(kilobytes).expect("a volume");
        let out = volume.0.path().join("out");
        let output = Command::new(env!("CARGO_BIN_EXE_qoft"))
            .args(train_args(&model, &rows, &out))
            .env("TMPDIR", work.path())
            .output()
            .expect("a run");
        let says = String::from_utf8_lossy(&output.stderr);
        assert!(!says.contains("panicked"), "{says}");
        let rescued = says.split("what was trained is in ").nth(1);
        let rescued = rescued.and_then(|text| text.lines().next()).map(Path::new);
        match (output.status.code(), rescued) {
            (Some(0), None) => assert!(trained(&out) == trained(&whole), "{kilobytes}"),
            (Some(1), Some(rescued)) => assert!(trained(rescued) == trained(&whole), "{says}"),
            // Before the first step there is nothing to lose.
            (Some(1), None) => assert_eq!(lines(&out.join("log.jsonl")), 0, "{kilobytes}: {says}"),
            (code, _) => panic!("{kilobytes}: {code:?} {says}"),
        }
    }
}

#[test]
fn terminals_are_spared_control_characters() {
    let work = tempdir().expect("a folder");
    let config = work.path().join("c.yaml");
    fs::write(&config, "\"\\e]0;title\\a\\x9b31m\": 1\n").expect("a file");
    let run = qoft(&["train", "--config", arg(&config)]);
    assert_eq!(run.code, Some(1));
    assert!(
        !run.stderr.contains(['\u{1b}', '\u{7}', '\u{9b}']),
        "{:?}",
        run.stderr
    );
    assert!(run.stderr.contains("\\u001b]0;title"), "{:?}", run.stderr);
}

/// What a library logs is said with the name of the file.
#[test]
fn ids_of_added_tokens_that_are_not_given_to_them_are_told() {
    let work = tempdir().expect("a folder");
    let model = copy_fixture(MODEL, work.path(), "model");
    let text = fs::read_to_string(fixture("tokenizer/tokenizer.json")).expect("a file");
    let file = model.join("tokenizer.json");
    fs::write(&file, &text).expect("a file");
    let data = work.path().join("rows.txt");
    fs::write(&data, "one two\n").expect("a file");
    let eval = ["eval", "--model", arg(&model), "--data", arg(&data)];
    let run = qoft(&eval);
    assert_eq!((run.code, &*run.stderr), (Some(0), ""));
    edit_json(&file, |tokenizer| {
        tokenizer["added_tokens"][0]["id"] = u32::MAX.into();
    });
    let run = qoft(&eval);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let says = format!("{}: 1 added tokens get other ids", file.display());
    assert!(run.stderr.contains(&says), "{}", run.stderr);
    assert!(
        run.stderr.contains("4294967295 in the file"),
        "{}",
        run.stderr
    );
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
}

#[test]
fn too_many_threads_are_an_error() {
    let run = qoft(&["backends", "--threads=10000"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains("--threads 10000: at most"),
        "{}",
        run.stderr
    );
}

#[test]
fn the_program_has_its_name() {
    let run = qoft(&["--version"]);
    let first = format!("qoft {}\n", env!("CARGO_PKG_VERSION"));
    assert!(run.stdout.starts_with(&first), "{}", run.stdout);
    assert_eq!(qoft(&["-V"]).stdout, first);
    assert_eq!(qoft(&["train", "--version"]).stdout, run.stdout);
    let missing = qoft(&["eval", "--model", &fixture(MODEL), "--data", "no.jsonl"]);
    assert_eq!(
        missing.stderr.matches("no.jsonl does not exist").count(),
        1,
        "{}",
        missing.stderr
    );
}
