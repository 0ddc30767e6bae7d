//! Tuples, which differ from lists where they are printed, compared and added.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Value};

/// A tuple.
#[derive(Debug)]
pub(crate) struct Tuple(Vec<Value>);

impl Object for Tuple {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.0.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.0.len())
    }
}

/// A tuple of `elements`.
pub(crate) fn tuple(elements: impl IntoIterator<Item = Value>) -> Value {
    Value::from_object(Tuple(elements.into_iter().collect()))
}
