//! The ids or labels of an example, as a part of something larger.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytemuck::{Pod, cast_slice};
use qoft_core::MappedFile;

/// Numbers of an example: a part of an array in memory, or of a file that is mapped there, which
/// other examples have parts of too. Data of many short rows would otherwise be as many small
/// allocations.
///
/// It is used as a slice; what is changed becomes an array of its own.
#[derive(Clone)]
pub struct Numbers<T> {
    store: Store<T>,
    start: usize,
    length: usize,
}

#[derive(Clone)]
enum Store<T> {
    Memory(Arc<Vec<T>>),
    /// Numbers in the order of this machine's bytes, of which the file's first is at a multiple of their size.
    File(MappedFile),
}

impl<T: Pod> Numbers<T> {
    /// The `length` numbers of a file from its byte `at` on; `None` if it has not so many, or `at` is
    /// no multiple of a number's size.
    pub(super) fn of_file(file: &MappedFile, at: usize, length: usize) -> Option<Self> {
        let size = size_of::<T>();
        let end = length.checked_mul(size)?.checked_add(at)?;
        (at.is_multiple_of(size) && end <= file.bytes().len()).then(|| Self {
            store: Store::File(file.clone()),
            start: at / size,
            length,
        })
    }

    /// Puts the numbers of several into one array.
    pub(super) fn join<'a>(parts: impl Iterator<Item = &'a mut Self>)
    where
        T: 'a,
    {
        let parts: Vec<&mut Self> = parts.collect();
        let mut all = Vec::with_capacity(parts.iter().map(|part| part.length).sum());
        parts.iter().for_each(|part| all.extend_from_slice(part));
        let all = Arc::new(all);
        let mut start = 0;
        for part in parts {
            part.store = Store::Memory(all.clone());
            part.start = start;
            start += part.length;
        }
    }

    /// Keeps the first `length` numbers.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }
}

impl<T> From<Vec<T>> for Numbers<T> {
    fn from(numbers: Vec<T>) -> Self {
        Self {
            start: 0,
            length: numbers.len(),
            store: Store::Memory(Arc::new(numbers)),
        }
    }
}

impl<T: Pod> Deref for Numbers<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let part = self.start..self.start + self.length;
        match &self.store {
            Store::Memory(all) => &all[part],
            Store::File(file) => {
                let size = size_of::<T>();
                cast_slice(&file.bytes()[part.start * size..part.end * size])
            }
        }
    }
}

impl<T: Pod> DerefMut for Numbers<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let is_own = match &mut self.store {
            Store::Memory(all) => Arc::get_mut(all).is_some(),
            Store::File(_) => false,
        };
        if !is_own {
            *self = self.to_vec().into();
        }
        match &mut self.store {
            Store::Memory(all) => &mut Arc::make_mut(all)[self.start..self.start + self.length],
            Store::File(_) => unreachable!("it has an array of its own"),
        }
    }
}

impl<T: Pod + PartialEq> PartialEq for Numbers<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Pod + Eq> Eq for Numbers<T> {}

impl<T: Pod + PartialEq, const N: usize> PartialEq<[T; N]> for Numbers<T> {
    fn eq(&self, other: &[T; N]) -> bool {
        **self == *other
    }
}

impl<T: Pod + fmt::Debug> fmt::Debug for Numbers<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_changed_one_by_one() {
        let mut parts: Vec<Numbers<u32>> = vec![vec![1, 2].into(), vec![].into(), vec![3].into()];
        Numbers::join(parts.iter_mut());
        assert_eq!((&parts[0], parts[1].len()), (&vec![1, 2].into(), 0));
        let copy = parts[2].clone();
        parts[2][0] = 7;
        parts[0].truncate(1);
        assert_eq!((&parts[0], &parts[2]), (&vec![1].into(), &vec![7].into()));
        assert_eq!(copy, [3]);
        parts[2].truncate(9);
        assert_eq!(parts[2], [7]);
    }

    #[test]
    fn a_file_has_numbers_where_it_has_bytes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), cast_slice::<u32, u8>(&[5, 6, 7])).unwrap();
        let file = MappedFile::open(file.path()).unwrap();
        let mut found = Numbers::<u32>::of_file(&file, 4, 2).unwrap();
        assert_eq!(found, [6, 7]);
        found.fill(1);
        assert_eq!(found, [1, 1]);
        assert_eq!(Numbers::<i32>::of_file(&file, 4, 2).unwrap(), [6, 7]);
        for (at, length) in [(4, 3), (2, 1), (0, usize::MAX), (16, 0)] {
            assert!(Numbers::<u32>::of_file(&file, at, length).is_none());
        }
    }
}
