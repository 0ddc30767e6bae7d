//! Small values as bytes, exactly: numbers keep their bits.

/// Values one after another.
#[derive(Debug, Default)]
pub(crate) struct Words(Vec<u8>);

impl Words {
    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    pub(crate) fn float(&mut self, number: f64) {
        self.number(number.to_bits());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.extend(text.as_bytes());
    }

    pub(crate) fn flags(&mut self, flags: &[bool]) {
        self.number(flags.len() as u64);
        self.0.extend(flags.iter().map(|flag| u8::from(*flag)));
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Reads what [`Words`] wrote; `None` where there is nothing of the kind.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, left) = self.0.split_at_checked(count)?;
        self.0 = left;
        Some(taken)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let bytes = self.bytes(size_of::<u64>())?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    pub(crate) fn float(&mut self) -> Option<f64> {
        self.number().map(f64::from_bits)
    }

    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.number()?).ok()?;
        std::str::from_utf8(self.bytes(length)?).ok()
    }

    pub(crate) fn flags(&mut self) -> Option<Vec<bool>> {
        let length = usize::try_from(self.number()?).ok()?;
        Some(self.bytes(length)?.iter().map(|flag| *flag != 0).collect())
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_bits() {
        let mut words = Words::default();
        words.number(7);
        words.float(0.1 + 0.2);
        words.float(f64::NAN);
        words.text("größe");
        words.flags(&[true, false]);
        let bytes = words.into_bytes();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.number(), Some(7));
        assert_eq!(reader.float(), Some(0.1 + 0.2));
        assert!(reader.float().is_some_and(f64::is_nan));
        assert_eq!(reader.text(), Some("größe"));
        assert!(!reader.is_at_end());
        assert_eq!(reader.flags(), Some(vec![true, false]));
        assert!(reader.is_at_end());
        assert_eq!(reader.number(), None);
        assert_eq!(Reader::new(&bytes[..10]).flags(), None);
    }
}
