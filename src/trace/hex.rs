//! Ids in lower-case hexadecimal, as W3C and X-Ray write them, and random ones.

use std::fmt;

/// So many digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hex<const DIGITS: usize>([u8; DIGITS]);

impl<const DIGITS: usize> Hex<DIGITS> {
    /// The last digits of a number.
    pub fn of(number: u128) -> Self {
        let mut rest = number;
        let mut digits = [0; DIGITS];
        for digit in digits.iter_mut().rev() {
            let value = (rest & 0xf) as u8;
            *digit = if value < 10 { b'0' + value } else { b'a' + value - 10 };
            rest >>= 4;
        }
        Self(digits)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl<const DIGITS: usize> fmt::Debug for Hex<DIGITS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Appends a span's id.
pub(super) fn push(text: &mut String, id: u64) {
    text.push_str(Hex::<16>::of(id.into()).as_str());
}

/// An id of a span, or a part of a trace's: never zero, which is no id.
pub(super) fn random() -> u64 {
    fastrand::u64(1..)
}

/// A number of exactly this many digits, in lower case only, and never zero, which is no id.
pub(super) fn parse(text: &str, digits: usize) -> Option<u128> {
    let right = text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    u128::from_str_radix(text, 16).ok().filter(|number| right && *number != 0)
}
