//! What can be iterated in Python, but is neither list nor tuple.

use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Enumerator, Object, ObjectRepr, Value};

/// A generator, as filters such as `map` return it: true even without elements, and empty once its
/// elements were taken.
#[derive(Debug)]
pub(crate) struct Generator(Mutex<std::vec::IntoIter<Value>>);

impl Generator {
    /// A generator of `elements`.
    pub(crate) fn value(elements: Vec<Value>) -> Value {
        Value::from_object(Self(Mutex::new(elements.into_iter())))
    }

    pub(crate) fn next(&self) -> Option<Value> {
        let mut elements = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        elements.next()
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let generator = Arc::clone(self);
        Enumerator::Iter(Box::new(std::iter::from_fn(move || generator.next())))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
}

/// What a [`View`] shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ViewKind {
    Items,
    Keys,
    Values,
    Range,
}

/// The keys, values or items of a dict, or a range of numbers.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) kind: ViewKind,
    elements: Vec<Value>,
}

impl View {
    /// A view of `elements`.
    pub(crate) fn value(kind: ViewKind, elements: Vec<Value>) -> Value {
        Value::from_object(Self { kind, elements })
    }
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.elements.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.elements.len())
    }
}
