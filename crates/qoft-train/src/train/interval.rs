//! How often something is done, in steps or as a share of the run.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// So many steps, or a share of all steps of a run, as transformers takes both in one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Interval {
    /// So many steps.
    Steps(usize),
    /// A share of the run, above 0 and below 1; of a fraction of a step the whole step.
    Share(f64),
}

impl Interval {
    /// A number of steps, or a share below 1; none for other numbers.
    #[must_use]
    pub fn new(number: f64) -> Option<Self> {
        match number {
            share if share > 0.0 && share < 1.0 => Some(Self::Share(share)),
            steps if steps >= 0.0 && steps.fract() == 0.0 && steps < MOST => {
                Some(Self::Steps(steps as usize))
            }
            _ => None,
        }
    }

    /// The steps that it comes to in a run of `total` steps.
    #[must_use]
    pub fn steps(self, total: usize) -> usize {
        match self {
            Self::Steps(steps) => steps,
            Self::Share(share) => (share * total as f64).ceil() as usize,
        }
    }
}

/// From here on not every whole number is an `f64`.
const MOST: f64 = 9_007_199_254_740_992.0;
/// What is wanted, in words.
const WANTED: &str = "a number of steps, or a share of the run below 1";

impl From<usize> for Interval {
    fn from(steps: usize) -> Self {
        Self::Steps(steps)
    }
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps(steps) => write!(f, "{steps}"),
            Self::Share(share) => write!(f, "{share}"),
        }
    }
}

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().parse().ok().and_then(Self::new);
        number.ok_or_else(|| format!("expected {WANTED}"))
    }
}

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Steps(steps) => steps.serialize(serializer),
            Self::Share(share) => share.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Interval;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WANTED)
            }

            fn visit_u64<E: de::Error>(self, steps: u64) -> Result<Interval, E> {
                let steps = usize::try_from(steps);
                let wrong = |_| E::invalid_value(de::Unexpected::Other("a larger number"), &self);
                steps.map(Interval::Steps).map_err(wrong)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Interval, E> {
                let steps = u64::try_from(number);
                steps
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
                    .and_then(|steps| self.visit_u64(steps))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Interval, E> {
                Interval::new(number)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Float(number), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_steps_or_shares() {
        let read = |text: &str| serde_json::from_str::<Interval>(text).ok();
        for (text, expected) in [
            ("7", Some(Interval::Steps(7))),
            ("7.0", Some(Interval::Steps(7))),
            ("0.1", Some(Interval::Share(0.1))),
            ("0", Some(Interval::Steps(0))),
            ("1.5", None),
            ("-1", None),
            ("-0.5", None),
            ("1e300", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
        assert_eq!(read("\"7\""), None);
        for kept in [Interval::Steps(7), Interval::Share(0.1)] {
            let text = serde_json::to_string(&kept).unwrap();
            assert_eq!(read(&text), Some(kept));
            assert_eq!(text, kept.to_string());
        }
    }

    #[test]
    fn a_share_is_of_all_steps_and_never_none() {
        assert_eq!(Interval::Share(0.1).steps(25), 3);
        assert_eq!(Interval::Share(0.5).steps(8), 4);
        assert_eq!(Interval::Share(1e-9).steps(3), 1);
        assert_eq!(Interval::Steps(100).steps(3), 100);
    }
}
