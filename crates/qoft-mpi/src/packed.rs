//! Several values as one.

/// Values one after another, each behind its length.
pub(crate) fn packed(values: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for value in values {
        bytes.extend((value.len() as u64).to_le_bytes());
        bytes.extend(value);
    }
    bytes
}

/// `count` values as [`packed`] writes them; `None` if it is something else.
pub(crate) fn unpacked(mut bytes: &[u8], count: usize) -> Option<Vec<Vec<u8>>> {
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        let (length, rest) = bytes.split_first_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (value, rest) = rest.split_at_checked(length)?;
        values.push(value.to_vec());
        bytes = rest;
    }
    bytes.is_empty().then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_packed_and_unpacked() {
        let values = [b"a".to_vec(), Vec::new(), b"ccc".to_vec()];
        let bytes = packed(&values);
        assert_eq!(unpacked(&bytes, 3).unwrap(), values);
        assert!(unpacked(&bytes, 2).is_none() && unpacked(&bytes, 4).is_none());
        assert!(unpacked(&bytes[..bytes.len() - 1], 3).is_none());
    }
}
