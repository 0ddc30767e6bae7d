//! What to say of schemes and settings that there are not.

use qoft::core::{QuantBackend, Registry};

use super::unknown::nearest;

/// Words for what has options of its own.
const OPTIONS: [(&[&str], &str); 2] = [
    (
        &[
            "4bit",
            "4-bit",
            "bnb4",
            "nf4",
            "fp4",
            "int4",
            "bitsandbytes",
            "bnb",
        ],
        "--load-in-4bit",
    ),
    (&["8bit", "8-bit", "bnb8", "int8"], "--load-in-8bit"),
];

/// What is meant by `scheme,key=value…`, if a name in it is not known, and there is one like it.
pub(super) fn meant(text: &str, registry: &Registry) -> Option<String> {
    let mut parts = text.split(',').map(str::trim);
    let name = parts.next()?.to_lowercase();
    let named = |word: &str| format!("`{word}` is meant");
    let Some(backend) = registry.backends().find(|backend| backend.name() == name) else {
        let option = OPTIONS
            .iter()
            .find(|(words, _)| words.contains(&name.as_str()));
        if let Some((_, option)) = option {
            return Some(named(option));
        }
        return nearest(&name, registry.backends().map(QuantBackend::name)).map(named);
    };
    let known = backend.settings();
    let keys = parts
        .filter_map(|pair| pair.split('=').next())
        .map(str::trim);
    let mut unknown = keys.filter(|key| !known.is_empty() && !known.contains(key));
    let key = unknown.next()?;
    let end = format!("_{key}");
    let longer = known.iter().copied().find(|known| known.ends_with(&end));
    longer
        .or_else(|| nearest(key, known.iter().copied()))
        .map(named)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_alike_are_told() {
        let registry = Registry::linked().expect("a registry");
        let meant = |text| meant(text, &registry);
        for (text, name) in [
            ("nf4", "--load-in-4bit"),
            ("INT8,a=1", "--load-in-8bit"),
            ("eeqt", "eetq"),
            ("hqq,bits=4", "nbits"),
            ("hqq,nbits=4,grup_size=64", "group_size"),
            ("bnb-4bit,quant_type=nf4", "bnb_4bit_quant_type"),
        ] {
            assert_eq!(meant(text), Some(format!("`{name}` is meant")), "{text}");
        }
        for text in ["hqq,nbits=4", "something", "hqq,something=1", ""] {
            assert_eq!(meant(text), None, "{text}");
        }
    }
}
