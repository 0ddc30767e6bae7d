//! Entries of registries. Schemes, architectures and families of adapters are registered alike.

use crate::error::{Error, Result};

/// When something is asked whether it is responsible: all of one tier before those of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Tier {
    /// Before all others: for what takes over from another one that could do it, too.
    Preferred,
    /// Where most are.
    Standard,
    /// If nobody else is: dense layers, for example.
    Fallback,
}

impl Tier {
    /// `preferred`, `standard`, `fallback`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preferred => "preferred",
            Self::Standard => "standard",
            Self::Fallback => "fallback",
        }
    }
}

/// A kind of thing that crates register, each under a name of its own, in letters of any case.
pub trait Registered: Send + Sync + 'static {
    /// What messages call several of them, such as `backends`.
    const PLURAL: &'static str;

    /// The name of this one.
    fn registered_name(&self) -> &'static str;
}

/// An entry of a registry: a plain static of the crate that registers something.
pub struct Entry<T: ?Sized + 'static> {
    item: &'static T,
    tier: Tier,
    order: u16,
    replaces: bool,
}

impl<T: ?Sized> Clone for Entry<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: ?Sized> Copy for Entry<T> {}

impl<T: ?Sized + 'static> Entry<T> {
    /// An entry of the standard tier, after those that have a place there.
    pub const fn new(item: &'static T) -> Self {
        Self {
            item,
            tier: Tier::Standard,
            order: u16::MAX,
            replaces: false,
        }
    }

    /// The same in another tier.
    #[must_use]
    pub const fn in_tier(self, tier: Tier) -> Self {
        Self { tier, ..self }
    }

    /// The same at a place within its tier: low ones come first, those of one place in the order of
    /// their names.
    #[must_use]
    pub const fn at(self, order: u16) -> Self {
        Self { order, ..self }
    }

    /// The same in place of another entry of its name, whose tier and place it leaves.
    #[must_use]
    pub const fn replacing(self) -> Self {
        Self {
            replaces: true,
            ..self
        }
    }

    /// What is registered.
    pub fn item(&self) -> &'static T {
        self.item
    }

    /// Its tier.
    pub fn tier(&self) -> Tier {
        self.tier
    }

    /// Its place within the tier.
    pub fn order(&self) -> u16 {
        self.order
    }
}

impl<T: Registered + ?Sized> Entry<T> {
    /// The name of what is registered.
    pub fn name(&self) -> &'static str {
        self.item.registered_name()
    }
}

/// The entries of a registry in order, each under a name of its own.
pub struct Entries<T: ?Sized + 'static>(Vec<Entry<T>>);

impl<T: ?Sized> Clone for Entries<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Registered + ?Sized> Entries<T> {
    /// Puts entries in order.
    ///
    /// # Errors
    /// If two have the same name, and not one of them replaces the other.
    pub fn new<'a>(entries: impl IntoIterator<Item = &'a Entry<T>>) -> Result<Self> {
        let mut all: Vec<Entry<T>> = Vec::new();
        for entry in entries {
            let is_same = |known: &&mut Entry<T>| known.name().eq_ignore_ascii_case(entry.name());
            match all.iter_mut().find(is_same) {
                None => all.push(*entry),
                Some(known) if entry.replaces && !known.replaces => *known = *entry,
                Some(known) if known.replaces && !entry.replaces => {}
                Some(_) => {
                    return Err(Error::Duplicate {
                        what: T::PLURAL,
                        reason: format!("are registered under the name `{}`", entry.name()),
                    });
                }
            }
        }
        all.sort_by_key(|entry| (entry.tier, entry.order, entry.name()));
        Ok(Self(all))
    }

    /// Only this one.
    pub fn only(item: &'static T) -> Self {
        Self(vec![Entry::new(item)])
    }

    /// The same with one more entry.
    ///
    /// # Errors
    /// If there is one of this name already, unless the new one replaces it.
    pub fn with(&self, entry: &Entry<T>) -> Result<Self> {
        Self::new(self.0.iter().chain([entry]))
    }

    /// All entries.
    pub fn all(&self) -> &[Entry<T>] {
        &self.0
    }

    /// What is registered.
    pub fn items(&self) -> impl Iterator<Item = &'static T> {
        self.0.iter().map(Entry::item)
    }

    /// The names.
    pub fn names(&self) -> Vec<&'static str> {
        self.0.iter().map(Entry::name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(&'static str, u8);

    impl Registered for Thing {
        const PLURAL: &'static str = "things";

        fn registered_name(&self) -> &'static str {
            self.0
        }
    }

    static A: Thing = Thing("a", 1);
    static B: Thing = Thing("b", 2);
    static OTHER_A: Thing = Thing("A", 3);

    fn found(entries: &[Entry<Thing>]) -> Result<Vec<u8>> {
        Ok(Entries::new(entries)?.items().map(|item| item.1).collect())
    }

    #[test]
    fn tiers_come_first_then_places_then_names() {
        let (a, b) = (Entry::new(&A), Entry::new(&B));
        assert_eq!(found(&[b, a]).unwrap(), [1, 2]);
        assert_eq!(found(&[a.at(2), b.at(1)]).unwrap(), [2, 1]);
        assert_eq!(found(&[a, b.at(9)]).unwrap(), [2, 1]);
        let preferred = b.at(9).in_tier(Tier::Preferred);
        assert_eq!(found(&[a.at(1), preferred]).unwrap(), [2, 1]);
        let fallback = a.at(1).in_tier(Tier::Fallback);
        assert_eq!(found(&[fallback, b]).unwrap(), [2, 1]);
    }

    #[test]
    fn one_takes_the_place_of_another_only_if_it_says_so() {
        let (a, other) = (Entry::new(&A), Entry::new(&OTHER_A));
        for two in [[a, other], [a.replacing(), other.replacing()]] {
            let error = found(&two).unwrap_err().to_string();
            assert_eq!(error, "two things are registered under the name `A`");
        }
        for two in [[a.at(1), other.replacing()], [other.replacing(), a.at(1)]] {
            let entries = Entries::new(&two).unwrap();
            assert_eq!(entries.all()[0].item().1, 3);
            assert_eq!(entries.all()[0].order(), u16::MAX);
        }
        let one = Entries::new(&[a]).unwrap();
        assert!(one.with(&other).is_err());
        assert_eq!(one.with(&Entry::new(&B)).unwrap().names(), ["a", "b"]);
    }
}
