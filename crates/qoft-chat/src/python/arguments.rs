//! The arguments of filters, tests and methods, by position or by name.

use minijinja::Error;
use minijinja::value::{Kwargs, Value, ValueKind};

use super::{int, sized, type_name};
use crate::error::failure;

type Result<T> = std::result::Result<T, Error>;

/// Arguments in the order of their names.
pub(crate) struct Arguments<const N: usize> {
    what: &'static str,
    names: [&'static str; N],
    values: [Option<Value>; N],
}

impl<const N: usize> Arguments<N> {
    /// Puts the arguments of `what` in the order of `names`, and counts their sizes.
    pub(crate) fn bind(
        what: &'static str,
        args: &[Value],
        names: [&'static str; N],
    ) -> Result<Self> {
        let (positional, named) = split(args);
        if positional.len() > N {
            return Err(failure(format!("{what} takes at most {N} arguments")));
        }
        let mut values = [const { None }; N];
        for (place, value) in values.iter_mut().zip(positional) {
            *place = Some(sized(value.clone())?);
        }
        for (name, value) in named {
            let value = sized(value)?;
            let place = names.iter().position(|known| *known == name);
            match place.map(|place| &mut values[place]) {
                Some(place @ None) => *place = Some(value),
                Some(_) => return Err(failure(format!("{what} got '{name}' twice"))),
                None => return Err(failure(format!("{what} has no argument '{name}'"))),
            }
        }
        Ok(Self {
            what,
            names,
            values,
        })
    }

    pub(crate) fn get(&self, place: usize) -> Option<&Value> {
        self.values[place].as_ref()
    }

    pub(crate) fn required(&self, place: usize) -> Result<&Value> {
        let missing = || failure(format!("{} needs '{}'", self.what, self.names[place]));
        self.get(place).ok_or_else(missing)
    }

    /// A text, if it is there and not None.
    pub(crate) fn text(&self, place: usize) -> Result<Option<&str>> {
        match self.some(place) {
            None => Ok(None),
            Some(value) => match value.as_str() {
                Some(text) => Ok(Some(text)),
                None => Err(self.wrong(place, "a text", value)),
            },
        }
    }

    pub(crate) fn required_text(&self, place: usize) -> Result<&str> {
        let value = self.required(place)?;
        value
            .as_str()
            .ok_or_else(|| self.wrong(place, "a text", value))
    }

    /// An int, if it is there and not None.
    pub(crate) fn int(&self, place: usize) -> Result<Option<i128>> {
        match self.some(place) {
            None => Ok(None),
            Some(value) => match int(value) {
                Some(number) => Ok(Some(number)),
                None => Err(self.wrong(place, "an int", value)),
            },
        }
    }

    /// A width or count; what is below 0 counts as 0.
    pub(crate) fn size(&self, place: usize, default: usize) -> Result<usize> {
        Ok(match self.int(place)? {
            None => default,
            Some(number) => usize::try_from(number.max(0)).unwrap_or(usize::MAX),
        })
    }

    pub(crate) fn flag(&self, place: usize) -> bool {
        self.get(place).is_some_and(Value::is_true)
    }

    /// An argument that is there and not None.
    pub(crate) fn some(&self, place: usize) -> Option<&Value> {
        self.get(place)
            .filter(|value| value.kind() != ValueKind::None)
    }

    fn wrong(&self, place: usize, expected: &str, found: &Value) -> Error {
        failure(format!(
            "{}: '{}' must be {expected}, not '{}'",
            self.what,
            self.names[place],
            type_name(found)
        ))
    }
}

/// Positional arguments, and names with their values.
pub(crate) fn split(args: &[Value]) -> (&[Value], Vec<(String, Value)>) {
    let kwargs = args.last().filter(|last| last.is_kwargs());
    let Some(kwargs) = kwargs.and_then(|last| Kwargs::try_from(last.clone()).ok()) else {
        return (args, Vec::new());
    };
    let names: Vec<String> = kwargs.args().map(str::to_owned).collect();
    let named = names
        .into_iter()
        .filter_map(|name| Some((name.clone(), kwargs.get::<Value>(&name).ok()?)));
    (&args[..args.len() - 1], named.collect())
}
