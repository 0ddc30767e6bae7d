//! The tensors of the model that a tensor of a file has: one, or one for each expert.

use crate::experts::SHARED_GATE;
use crate::file::Entry;
use crate::model::Kind;

impl Kind {
    /// The tensors of the model that a tensor of a file has, under their names and each in its place.
    /// `None` if it is none of the model's.
    ///
    /// # Errors
    /// If the sizes of a tensor of all experts cannot be theirs.
    pub fn parts(&self, entry: &Entry) -> Result<Option<Vec<(String, Entry)>>, String> {
        if let Some(name) = self.model_name(&entry.name) {
            let mut part = entry.clone();
            if entry.name.contains(SHARED_GATE) && part.shape.len() == 1 {
                part.shape.insert(0, 1);
            }
            return Ok(Some(vec![(name, part)]));
        }
        let Some(mixture) = &self.mixture else {
            return Ok(None);
        };
        // Only a tensor of the model has as many names as its first size says.
        if mixture.model_names(&entry.name, 0).is_none() {
            return Ok(None);
        }
        let [count, rows, columns] = entry.shape[..] else {
            return Err(format!(
                "shape {:?}, expected a matrix for each expert",
                entry.shape
            ));
        };
        let names = mixture.model_names(&entry.name, count).unwrap_or_default();
        let length = entry.range.len() / count;
        let parts = names.into_iter().enumerate().map(|(expert, name)| {
            let start = entry.range.start + expert * length;
            let part = Entry {
                name: entry.name.clone(),
                shape: vec![rows, columns],
                kind: entry.kind,
                range: start..start + length,
            };
            (name, part)
        });
        Ok(Some(parts.collect()))
    }
}
