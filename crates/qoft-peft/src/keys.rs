//! Families whose configuration is a struct of keys: all that has to do with files.

use std::marker::PhantomData;
use std::sync::Arc;

use qoft_core::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::common::CommonConfig;
use crate::family::{AdapterConfig, AdapterFamily, ConfigFile};

/// The key that names the family.
const PEFT_TYPE: &str = "peft_type";

/// A configuration that serde reads and writes: the keys of one family, with
/// [`CommonConfig`] flattened among them. `peft_type` is none of its fields.
///
/// A family is nothing more than such a struct, see [`Family`].
pub trait FamilyKeys: AdapterConfig + Default + Serialize + DeserializeOwned + 'static {
    /// PEFT's name of the family, in capitals.
    const PEFT_TYPE: &'static str;

    /// The keys that all families share.
    fn common_keys(&self) -> &CommonConfig;

    /// Checks the family's own keys; `file` is named in errors.
    ///
    /// # Errors
    /// If a value is impossible or asks for something that is not supported.
    fn check(&self, file: &str) -> Result<()>;

    /// Reads and checks a configuration; `file` is named in errors.
    ///
    /// # Errors
    /// If it is none of this family, or [`ConfigFile::validate`] refuses it.
    fn from_json(json: Value, file: &str) -> Result<Self> {
        read_keys(json, file)
    }
}

/// What [`FamilyKeys::from_json`] does unless a family has more to say about its files.
///
/// # Errors
/// If it is no configuration of this family, or [`ConfigFile::validate`] refuses it.
pub fn read_keys<C: FamilyKeys>(mut json: Value, file: &str) -> Result<C> {
    let family = C::PEFT_TYPE;
    let wrong = |reason: String| {
        Error::file(
            file,
            format!("this is not a configuration of {family}: {reason}"),
        )
    };
    let Some(keys) = json.as_object_mut() else {
        return Err(wrong("it is not a JSON object".into()));
    };
    if let Some(found) = keys.remove(PEFT_TYPE)
        && found != family
    {
        let found = found.as_str().map_or(found.to_string(), str::to_owned);
        let reason = format!("expected {family}, found {found}");
        return Err(Error::config(file).key(PEFT_TYPE, reason));
    }
    // Null stands for the default where that is a value.
    let defaults = C::default().to_json();
    keys.retain(|key, value| !value.is_null() || defaults[key.as_str()].is_null());
    let config: C = serde_json::from_value(json).map_err(|error| wrong(error.to_string()))?;
    config.validate(file)?;
    Ok(config)
}

/// The family whose configuration is `C`.
///
/// ```ignore
/// pub static REGISTRATION: FamilyRegistration =
///     FamilyRegistration::new(&Family::<MyConfig>::NEW);
/// ```
pub struct Family<C>(PhantomData<fn() -> C>);

impl<C> Family<C> {
    /// The only value.
    pub const NEW: Self = Self(PhantomData);
}

impl<C: FamilyKeys> AdapterFamily for Family<C> {
    fn peft_type(&self) -> &'static str {
        C::PEFT_TYPE
    }

    fn defaults(&self) -> Value {
        C::default().to_json()
    }

    fn read(&self, config: Value, file: &str) -> Result<Arc<dyn AdapterConfig>> {
        Ok(Arc::new(C::from_json(config, file)?))
    }
}

impl<C: FamilyKeys> ConfigFile for C {
    fn family(&self) -> &'static dyn AdapterFamily {
        &Family::<C>::NEW
    }

    fn common(&self) -> &CommonConfig {
        self.common_keys()
    }

    fn validate(&self, file: &str) -> Result<()> {
        check_bias::<C>(&self.common_keys().bias, file)?;
        self.check(file)
    }

    fn to_json(&self) -> Value {
        let mut keys = Map::new();
        keys.insert(PEFT_TYPE.into(), C::PEFT_TYPE.into());
        if let Value::Object(own) = serde_json::to_value(self).expect("keys and plain values") {
            keys.extend(own);
        }
        Value::Object(keys)
    }
}

/// Fails if `bias` is none of PEFT's words for a family.
fn check_bias<C: FamilyKeys>(bias: &str, file: &str) -> Result<()> {
    // PEFT looks at the end of the word, whatever the family.
    if bias == "none" || bias == "all" || bias.ends_with("_only") {
        return Ok(());
    }
    let only = format!("{}_only", C::PEFT_TYPE.to_lowercase());
    let reason = format!("expected none, all or {only}, found `{bias}`");
    Err(Error::config(file).key("bias", reason))
}
