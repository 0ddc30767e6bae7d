//! What to say of schemes and settings that there are not.

use qoft::core::{QuantBackend, Registry};

use super::unknown::nearest;

/// What is being named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// The scheme that a model is quantized into when it is loaded or written, for which some have options.
    Loaded,
    /// The scheme that another one is merged into.
    Merged,
}

/// Words for what has options of its own, which are for loading, and is written as this scheme.
const OPTIONS: [(&[&str], &str, &str); 3] = [
    (
        &[
            "4bit",
            "4-bit",
            "bnb4",
            "nf4",
            "int4",
            "bitsandbytes",
            "bnb",
        ],
        "--load-in-4bit",
        "bnb-4bit,bnb_4bit_quant_type=nf4",
    ),
    (&["fp4"], "--load-in-4bit", "bnb-4bit"),
    (
        &["8bit", "8-bit", "bnb8", "int8"],
        "--load-in-8bit",
        "bnb-8bit",
    ),
];

/// What is meant by `scheme,key=value…`, if a name in it is not known, and there is one like it.
pub(super) fn meant(text: &str, registry: &Registry, naming: Naming) -> Option<String> {
    let mut parts = text.split(',').map(str::trim);
    let name = parts.next()?.to_lowercase();
    let named = |word: &str| format!("`{word}` is meant");
    let Some(backend) = registry.backends().find(|backend| backend.name() == name) else {
        let option = OPTIONS
            .iter()
            .find(|(words, ..)| words.contains(&name.as_str()));
        if let Some((_, option, scheme)) = option {
            return Some(named(match naming {
                Naming::Loaded => option,
                Naming::Merged => scheme,
            }));
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
        let into = |text| meant(text, &registry, Naming::Merged);
        for (text, scheme) in [
            ("nf4", "bnb-4bit,bnb_4bit_quant_type=nf4"),
            ("int8", "bnb-8bit"),
        ] {
            assert_eq!(into(text), Some(format!("`{scheme}` is meant")), "{text}");
            assert!(registry.parse_quantization(scheme).is_ok(), "{scheme}");
        }
        let meant = |text| meant(text, &registry, Naming::Loaded);
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
