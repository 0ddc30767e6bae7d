//! Saving what must not be lost: again after a while, and then somewhere else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use qoft_core::Error;

use super::observer::Observer;
use crate::error::TrainError;

/// How long to wait before each further try: a full disk may be cleared.
const WAITS: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Saves into `folder` what `save` writes. If that cannot be done, it is written into a new folder
/// somewhere else, which the error names.
pub(super) fn save(
    folder: &Path,
    events: &mut dyn Observer,
    save: &mut dyn FnMut(&Path) -> Result<(), Error>,
) -> Result<(), TrainError> {
    let mut failed = match save(folder) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    // A system that refuses may do so for a while. Anything else stays as it is.
    let waits = match failed {
        Error::Io { .. } => WAITS.as_slice(),
        _ => &[],
    };
    for wait in waits {
        let seconds = wait.as_secs_f64();
        events.warning(&format!("{failed}; trying again in {seconds} s"));
        std::thread::sleep(*wait);
        failed = match save(folder) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
    }
    let rescued = waits.first().and_then(|_| elsewhere(save));
    Err(TrainError::NotSaved {
        folder: folder.to_owned(),
        source: Box::new(failed),
        rescued,
    })
}

/// A new folder with what `save` writes, at the first place where there is room for it.
fn elsewhere(save: &mut dyn FnMut(&Path) -> Result<(), Error>) -> Option<PathBuf> {
    let places = [
        Some(std::env::temp_dir()),
        std::env::current_dir().ok(),
        std::env::home_dir(),
    ];
    places.into_iter().flatten().find_map(|place| {
        let mut builder = tempfile::Builder::new();
        let folder = builder.prefix("qoft-rescued-").tempdir_in(place).ok()?;
        let target = folder.path().join("adapter");
        std::fs::create_dir(&target).ok()?;
        save(&target).ok()?;
        Some(folder.keep().join("adapter"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(path: &Path) -> Error {
        Error::io(path)(std::io::ErrorKind::StorageFull.into())
    }

    #[test]
    fn a_disk_that_is_cleared_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let mut tries = 0;
        save(dir.path(), &mut (), &mut |folder| {
            tries += 1;
            assert_eq!(folder, dir.path());
            if tries < 3 { Err(full(folder)) } else { Ok(()) }
        })
        .unwrap();
        assert_eq!(tries, 3);
    }

    #[test]
    fn what_finds_no_room_goes_somewhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let error = save(dir.path(), &mut (), &mut |folder| {
            if folder == dir.path() {
                return Err(full(folder));
            }
            std::fs::write(folder.join("a"), "1").map_err(Error::io(folder))
        })
        .unwrap_err();
        let TrainError::NotSaved {
            rescued: Some(rescued),
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert!(error.to_string().contains(&rescued.display().to_string()));
        assert!(rescued.join("a").exists());
        std::fs::remove_dir_all(rescued.parent().unwrap()).unwrap();
    }

    #[test]
    fn what_cannot_be_saved_anywhere_is_not_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut tries = 0;
        let result = save(dir.path(), &mut (), &mut |folder| {
            tries += 1;
            Err(Error::file(folder, "no number"))
        });
        let error = result.unwrap_err();
        assert!(matches!(error, TrainError::NotSaved { rescued: None, .. }));
        assert_eq!(tries, 1);
    }
}
