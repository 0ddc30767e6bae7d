//! `#[walk(…)]` on types and fields.

use syn::{Attribute, Error, LitStr, Path, Result};

/// What a type says.
#[derive(Default)]
pub struct OfType {
    /// It is a layer itself.
    pub layer: bool,
    /// The path of the core.
    pub core: Option<Path>,
}

/// What a field says.
#[derive(Default)]
pub struct OfField {
    /// It holds nothing that is to be adapted.
    pub skip: bool,
    /// Its name in module paths.
    pub name: Option<String>,
}

impl OfType {
    pub fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut found = Self::default();
        for attribute in walk(attributes) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("layer") {
                    found.layer = true;
                } else if meta.path.is_ident("crate") {
                    found.core = Some(meta.value()?.parse::<LitStr>()?.parse()?);
                } else {
                    return Err(meta.error("`layer` and `crate = \"path\"` are known for types"));
                }
                Ok(())
            })?;
        }
        Ok(found)
    }
}

impl OfField {
    pub fn read(attributes: &[Attribute]) -> Result<Self> {
        let mut found = Self::default();
        for attribute in walk(attributes) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("skip") {
                    found.skip = true;
                } else if meta.path.is_ident("name") {
                    found.name = Some(meta.value()?.parse::<LitStr>()?.value());
                } else {
                    return Err(meta.error("`skip` and `name = \"…\"` are known for fields"));
                }
                Ok(())
            })?;
            if found.skip && found.name.is_some() {
                return Err(Error::new_spanned(
                    attribute,
                    "a field that is skipped has no name",
                ));
            }
        }
        Ok(found)
    }
}

fn walk(attributes: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attributes
        .iter()
        .filter(|attribute| attribute.path().is_ident("walk"))
}
