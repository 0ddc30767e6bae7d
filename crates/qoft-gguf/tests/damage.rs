//! Files that were changed or cut: an error, or a model of other values, but no panic.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use qoft_gguf as _;
use qoft_scheme::{Checkpoint, Containers, LayerSource, Purpose, Result, Schemes};

/// Bytes at the beginning that are changed: metadata and table.
const HEADER: u64 = 24_000;

/// Numbers that follow from a seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % end
    }
}

fn open(path: &Path) -> Result<Checkpoint> {
    Containers::linked()?.open(path)
}

/// Opens a model and loads all of its layers.
fn read(path: &Path) {
    let Ok(checkpoint) = open(path) else {
        return;
    };
    let Ok(schemes) = Schemes::linked(&checkpoint) else {
        return;
    };
    for module in checkpoint.modules() {
        if let Some(layer) = schemes.claim(LayerSource::new(&checkpoint, module, None)) {
            let _ = layer.load(Purpose::Forward);
        }
    }
    for name in checkpoint.names() {
        let _ = checkpoint.tensor(name).map(|tensor| tensor.to_f32());
    }
}

fn copy(name: &str, folder: &Path) -> (std::path::PathBuf, File) {
    let path = folder.join("model.gguf");
    std::fs::copy(qoft_fixtures::path(name), &path).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path);
    (path.clone(), file.unwrap())
}

#[test]
fn changed_bytes_of_the_header_end_in_an_error_or_a_model() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["gguf/llama.gguf", "gguf/qwen2.gguf"] {
        let (path, mut file) = copy(name, folder.path());
        let mut numbers = Numbers(7);
        for _ in 0..400 {
            let mut old = Vec::new();
            for _ in 0..1 + numbers.below(3) {
                let at = numbers.below(HEADER);
                let mut byte = [0];
                file.seek(SeekFrom::Start(at)).unwrap();
                file.read_exact(&mut byte).unwrap();
                old.push((at, byte));
                let new = match numbers.below(3) {
                    0 => [0xff],
                    1 => [byte[0] ^ 1 << numbers.below(8)],
                    _ => [numbers.below(256) as u8],
                };
                file.seek(SeekFrom::Start(at)).unwrap();
                file.write_all(&new).unwrap();
            }
            read(&path);
            for (at, byte) in old.into_iter().rev() {
                file.seek(SeekFrom::Start(at)).unwrap();
                file.write_all(&byte).unwrap();
            }
        }
        assert!(open(&path).is_ok());
    }
}

#[test]
fn cut_files_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let (path, file) = copy("gguf/llama.gguf", folder.path());
    // Up to 31 bytes at the end only fill the last tensor up.
    let mut length = file.metadata().unwrap().len() - 32;
    while length > 0 {
        file.set_len(length).unwrap();
        assert!(open(&path).is_err(), "{length} bytes");
        length = length * 4 / 5;
    }
}

/// What is said of a file that begins with `start`.
fn said(start: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, start).unwrap();
    open(&path).unwrap_err().to_string()
}

#[test]
fn errors_say_what_is_wrong() {
    let header = |version: u32, tensors: u64, keys: u64| {
        [
            &b"GGUF"[..],
            &version.to_le_bytes(),
            &tensors.to_le_bytes(),
            &keys.to_le_bytes(),
        ]
        .concat()
    };
    assert!(said(b"GGML\0\0\0\0").contains("not a GGUF file"));
    assert!(said(&header(1, 0, 0)).contains("version 1; those that are supported: 2, 3"));
    assert!(said(&header(0x0300_0000, 0, 0)).contains("big-endian"));
    assert!(said(&header(3, u64::MAX, 0)).contains("18446744073709551615 tensors"));
    assert!(said(&header(3, 0, 1 << 40)).contains("1099511627776 keys"));
    assert!(said(&header(3, 0, 0)).contains("`general.architecture`: is missing"));

    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let string = |key: &str, value: &str| [text(key), vec![8, 0, 0, 0], text(value)].concat();
    let bert = [header(3, 0, 1), string("general.architecture", "bert")].concat();
    assert!(said(&bert).contains("`bert` is not supported; those that are: llama, mistral"));

    let entry = |kind: u32| {
        let sizes = [256u64, 1].map(u64::to_le_bytes).concat();
        [
            text("x"),
            vec![2, 0, 0, 0],
            sizes,
            kind.to_le_bytes().to_vec(),
            vec![0; 8],
        ]
        .concat()
    };
    let iq2 = [header(3, 1, 0), entry(16)].concat();
    assert!(said(&iq2).contains("tensor `x`: type IQ2_XXS is not supported; those that are: F32"));
    let outside = [header(3, 1, 0), entry(12)].concat();
    assert!(said(&outside).contains("tensor `x` has bytes 0..144 of the data"));
    // Arrays of arrays would nest without an end.
    let nested = [
        header(3, 0, 1),
        text("a"),
        vec![9, 0, 0, 0, 9, 0, 0, 0],
        vec![0; 8],
    ]
    .concat();
    assert!(said(&nested).contains("an array of arrays"));
}
