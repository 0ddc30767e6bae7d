//! The behaviour of every backend, on files that bitsandbytes wrote.

use qoft_conformance::{PeakAlloc, Subject};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn folders(prefixes: &[&str]) -> Vec<std::path::PathBuf> {
    let mut folders = qoft_fixtures::folders("bnb");
    folders.retain(|path| {
        let name = path.file_name().unwrap().to_string_lossy();
        prefixes.iter().any(|prefix| name.starts_with(prefix))
    });
    folders
}

#[test]
fn conforms() {
    let four = Subject::new(&qoft_bnb::REGISTRATION_4BIT);
    four.folders(folders(&["nf4", "fp4"])).check();
    let eight = Subject::new(&qoft_bnb::REGISTRATION_8BIT);
    eight.folders(folders(&["int8"])).check();
}
