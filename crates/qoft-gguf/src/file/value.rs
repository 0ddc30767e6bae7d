//! Values of the metadata.

use qoft_scheme::Result;

use super::cursor::Cursor;

/// A value. Arrays hold values of one kind, and no arrays.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Unsigned(u64),
    Signed(i64),
    Float32(f32),
    Float64(f64),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    Signeds(Vec<i64>),
    Unsigneds(Vec<u64>),
    Floats(Vec<f64>),
    Bools(Vec<bool>),
}

/// Numbers of the types in files.
mod kind {
    pub const U8: u32 = 0;
    pub const I8: u32 = 1;
    pub const U16: u32 = 2;
    pub const I16: u32 = 3;
    pub const U32: u32 = 4;
    pub const I32: u32 = 5;
    pub const F32: u32 = 6;
    pub const BOOL: u32 = 7;
    pub const STRING: u32 = 8;
    pub const ARRAY: u32 = 9;
    pub const U64: u32 = 10;
    pub const I64: u32 = 11;
    pub const F64: u32 = 12;
}

/// A string with its length before it.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The types of an array and of its elements, and their number.
fn put_array(out: &mut Vec<u8>, element: u32, count: usize) {
    out.extend(kind::ARRAY.to_le_bytes());
    out.extend(element.to_le_bytes());
    out.extend((count as u64).to_le_bytes());
}

impl Value {
    /// Writes a key and this value. Numbers get 32 bits where they fit, as converters write them.
    pub fn put(&self, key: &str, out: &mut Vec<u8>) {
        put_string(out, key);
        let mut put = |kind: u32, bytes: &[u8]| {
            out.extend(kind.to_le_bytes());
            out.extend(bytes);
        };
        match self {
            Self::Unsigned(value) => match u32::try_from(*value) {
                Ok(value) => put(kind::U32, &value.to_le_bytes()),
                Err(_) => put(kind::U64, &value.to_le_bytes()),
            },
            Self::Signed(value) => match i32::try_from(*value) {
                Ok(value) => put(kind::I32, &value.to_le_bytes()),
                Err(_) => put(kind::I64, &value.to_le_bytes()),
            },
            Self::Float32(value) => put(kind::F32, &value.to_le_bytes()),
            Self::Float64(value) => put(kind::F64, &value.to_le_bytes()),
            Self::Bool(value) => put(kind::BOOL, &[u8::from(*value)]),
            Self::String(text) => {
                put(kind::STRING, &[]);
                put_string(out, text);
            }
            Self::Strings(all) => {
                put_array(out, kind::STRING, all.len());
                all.iter().for_each(|text| put_string(out, text));
            }
            Self::Signeds(all) => {
                put_array(out, kind::I32, all.len());
                all.iter()
                    .for_each(|value| out.extend((*value as i32).to_le_bytes()));
            }
            Self::Unsigneds(all) => {
                put_array(out, kind::U32, all.len());
                all.iter()
                    .for_each(|value| out.extend((*value as u32).to_le_bytes()));
            }
            Self::Floats(all) => {
                put_array(out, kind::F32, all.len());
                all.iter()
                    .for_each(|value| out.extend((*value as f32).to_le_bytes()));
            }
            Self::Bools(all) => {
                put_array(out, kind::BOOL, all.len());
                out.extend(all.iter().map(|value| u8::from(*value)));
            }
        }
    }

    /// Reads a value with its type before it.
    pub fn read(file: &mut Cursor) -> Result<Self> {
        match file.u32()? {
            kind::ARRAY => {
                let element = file.u32()?;
                Self::array(file, element)
            }
            kind => Self::single(file, kind),
        }
    }

    fn single(file: &mut Cursor, kind: u32) -> Result<Self> {
        Ok(match kind {
            kind::U8 => Self::Unsigned(u8::from_le_bytes(file.array()?).into()),
            kind::I8 => Self::Signed(i8::from_le_bytes(file.array()?).into()),
            kind::U16 => Self::Unsigned(u16::from_le_bytes(file.array()?).into()),
            kind::I16 => Self::Signed(i16::from_le_bytes(file.array()?).into()),
            kind::U32 => Self::Unsigned(file.u32()?.into()),
            kind::I32 => Self::Signed(i32::from_le_bytes(file.array()?).into()),
            kind::F32 => Self::Float32(f32::from_le_bytes(file.array()?)),
            kind::BOOL => Self::Bool(file.array::<1>()?[0] != 0),
            kind::STRING => Self::String(file.string()?.to_owned()),
            kind::U64 => Self::Unsigned(file.u64()?),
            kind::I64 => Self::Signed(i64::from_le_bytes(file.array()?)),
            kind::F64 => Self::Float64(f64::from_le_bytes(file.array()?)),
            other => return Err(file.error(format!("a value of the unknown type {other}"))),
        })
    }

    fn array(file: &mut Cursor, kind: u32) -> Result<Self> {
        let least = match kind {
            kind::U8 | kind::I8 | kind::BOOL => 1,
            kind::U16 | kind::I16 => 2,
            kind::U32 | kind::I32 | kind::F32 => 4,
            kind::STRING | kind::U64 | kind::I64 | kind::F64 => 8,
            kind::ARRAY => return Err(file.error("an array of arrays")),
            other => return Err(file.error(format!("an array of the unknown type {other}"))),
        };
        let count = file.count("elements of an array", least)?;
        let mut elements = (0..count).map(|_| Self::single(file, kind));
        macro_rules! all {
            ($all:path, $one:pat => $value:expr) => {
                elements
                    .by_ref()
                    .filter_map(|element| match element {
                        Ok($one) => Some(Ok($value)),
                        Ok(_) => None,
                        Err(error) => Some(Err(error)),
                    })
                    .collect::<Result<_>>()
                    .map($all)
            };
        }
        match kind {
            kind::STRING => all!(Self::Strings, Self::String(text) => text),
            kind::BOOL => all!(Self::Bools, Self::Bool(flag) => flag),
            kind::F32 | kind::F64 => {
                let value = |element| match element {
                    Self::Float32(value) => Some(f64::from(value)),
                    Self::Float64(value) => Some(value),
                    _ => None,
                };
                let mut floats = Vec::new();
                for element in elements {
                    floats.extend(value(element?));
                }
                Ok(Self::Floats(floats))
            }
            kind::I8 | kind::I16 | kind::I32 | kind::I64 => {
                all!(Self::Signeds, Self::Signed(value) => value)
            }
            _ => all!(Self::Unsigneds, Self::Unsigned(value) => value),
        }
    }
}
