//! Which of a folder's files are for what.

/// What data of a folder is read for, where the names of its files tell parts apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Split {
    /// To learn from.
    #[default]
    Train,
    /// To evaluate on in between: what is for that, else what is for tests.
    Validation,
    /// To evaluate on: what is for tests, else what is for evaluations in between.
    Test,
}

/// Words in the names of files, and what they are for.
const WORDS: [(Split, &[&str]); 3] = [
    (Split::Train, &["train", "training"]),
    (
        Split::Validation,
        &["validation", "valid", "val", "dev", "eval", "evaluation"],
    ),
    (Split::Test, &["test", "testing"]),
];

impl Split {
    /// The names of the files that are read for it, and the others. Where no name is for it, those that are
    /// for nothing else are read, or all.
    pub(super) fn choose(self, names: Vec<String>) -> (Vec<String>, Vec<String>) {
        let wanted: &[Self] = match self {
            Self::Train => &[Self::Train],
            Self::Validation => &[Self::Validation, Self::Test, Self::Train],
            Self::Test => &[Self::Test, Self::Validation, Self::Train],
        };
        let wanted = wanted.iter().map(|split| Some(*split)).chain([None]);
        for split in wanted {
            let is_for = |name: &String| Self::of(name) == split;
            if names.iter().any(is_for) {
                return names.into_iter().partition(is_for);
            }
        }
        (names, Vec::new())
    }

    /// What the name of a file says that it is for.
    fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let words = name.split(|c: char| !c.is_ascii_alphanumeric());
        let mut words = words.map(|word| word.trim_end_matches(|c: char| c.is_ascii_digit()));
        words.find_map(|word| {
            let mut all = WORDS.iter();
            let (split, _) = all.find(|(_, words)| words.contains(&word))?;
            Some(*split)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_parts_apart_by_their_words() {
        let chosen = |split: Split, names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            split.choose(names).0.join(" ")
        };
        let all = [
            "test.jsonl",
            "train-00000-of-00002.parquet",
            "train1.csv",
            "valid.json",
        ];
        assert_eq!(chosen(Split::Train, &all), format!("{} {}", all[1], all[2]));
        assert_eq!(chosen(Split::Validation, &all), "valid.json");
        assert_eq!(chosen(Split::Test, &all), "test.jsonl");
        let none = ["constraints.jsonl", "facts.jsonl"];
        for split in [Split::Train, Split::Validation, Split::Test] {
            assert_eq!(chosen(split, &none), none.join(" "));
        }
        assert_eq!(chosen(Split::Test, &["train.csv", "dev.csv"]), "dev.csv");
        assert_eq!(chosen(Split::Test, &["train.csv", "more.csv"]), "train.csv");
        assert_eq!(
            chosen(Split::Train, &["my_test.csv", "more.csv"]),
            "more.csv"
        );
        assert_eq!(
            chosen(Split::Train, &["test.csv", "val.csv"]),
            "test.csv val.csv"
        );
    }
}
