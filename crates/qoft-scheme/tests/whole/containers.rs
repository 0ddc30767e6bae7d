//! File formats beside folders of safetensors: registered, listed, passed, and opened.

use std::path::Path;

use qoft_scheme::{
    Checkpoint, Container, ContainerRegistration, Containers, Contents, Dtype, Error, MappedFile,
    MappedTensors, Result, StoredTensor, Tier,
};
use serde_json::json;

/// A file of four bytes, `ONE` and a value: a model with one tensor.
struct One(&'static str);

impl Container for One {
    fn name(&self) -> &'static str {
        self.0
    }

    fn reads(&self, path: &Path) -> bool {
        std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"ONE"))
    }

    fn open(&self, path: &Path) -> Result<Contents> {
        let file = MappedFile::open(path)?;
        let tensor = StoredTensor::new("layer.weight", Dtype::U8, &[1], 3..4);
        let tensors = MappedTensors::new(file, vec![tensor])?;
        let config = json!({"model_type": self.0});
        let small = vec![("tokenizer.json".to_owned(), b"{}".to_vec())];
        Ok(Contents::new(config, small, vec![tensors]))
    }
}

static ONE: ContainerRegistration = ContainerRegistration::new(&One("one"));
static LATER: ContainerRegistration = ContainerRegistration::new(&One("later"));
static FIRST: ContainerRegistration =
    ContainerRegistration::new(&One("zero")).in_tier(Tier::Preferred);
static INSTEAD: ContainerRegistration = ContainerRegistration::new(&One("ONE")).replacing();

fn names(containers: &Containers) -> Vec<&'static str> {
    let entries = containers.registrations().iter();
    entries.map(ContainerRegistration::name).collect()
}

#[test]
fn formats_are_registered_like_schemes() {
    let none = Containers::new([]).unwrap();
    assert_eq!(names(&none), [""; 0]);
    let one = none.with(&ONE).unwrap();
    let all = Containers::new([&LATER, &ONE, &FIRST]).unwrap();
    assert_eq!(names(&all), ["zero", "later", "one"]);
    assert_eq!(all.containers().count(), 3);
    let error = one.with(&ONE).err().unwrap();
    assert!(matches!(error, Error::Duplicate { .. }), "{error}");
    assert_eq!(names(&one.with(&INSTEAD).unwrap()), ["ONE"]);
    // None is linked into this program.
    assert_eq!(names(&Containers::linked().unwrap()), [""; 0]);
}

#[test]
fn a_file_is_opened_by_the_first_that_reads_it() {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("model.one");
    std::fs::write(&path, b"ONE\x07").unwrap();
    let all = Containers::new([&LATER, &ONE, &FIRST]).unwrap();
    let checkpoint = all.open(&path).unwrap();
    assert_eq!(checkpoint.config()["model_type"], "zero");
    assert_eq!(checkpoint.container().unwrap().name(), "zero");
    assert_eq!(checkpoint.path(), path);
    assert!(checkpoint.dir().join("tokenizer.json").is_file());
    let tensor = checkpoint.tensor("layer.weight").unwrap();
    assert_eq!(tensor.bytes()[..], [7]);
}

#[test]
fn a_folder_is_opened_whatever_formats_there_are() {
    let work = tempfile::tempdir().unwrap();
    std::fs::write(work.path().join("config.json"), "{}").unwrap();
    let none = Vec::<(String, safetensors::tensor::TensorView)>::new();
    let bytes = safetensors::serialize(none, None).unwrap();
    std::fs::write(work.path().join("model.safetensors"), bytes).unwrap();
    for containers in [Containers::new([]), Containers::new([&ONE])] {
        let checkpoint = containers.unwrap().open(work.path()).unwrap();
        assert!(checkpoint.container().is_none());
    }
}

#[test]
fn a_file_of_no_format_names_those_that_there_are() {
    let work = tempfile::tempdir().unwrap();
    let path = work.path().join("model.two");
    std::fs::write(&path, b"TWO\x07").unwrap();
    let says = |containers: Containers| containers.open(&path).unwrap_err().to_string();
    let error = says(Containers::new([&ONE, &FIRST]).unwrap());
    assert!(error.contains("registered: zero, one"), "{error}");
    let error = says(Containers::new([]).unwrap());
    assert!(error.contains("registered: none"), "{error}");
    // Nothing is reached for that was not passed.
    let error = Checkpoint::open(&path).unwrap_err().to_string();
    assert!(error.contains("opened by `Containers`"), "{error}");
}
