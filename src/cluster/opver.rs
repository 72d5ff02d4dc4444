//! `opver`: how people see a version. The tag in one printable token.
//!
//! ```text
//! life.term.n.machine.log-id.sequence-check        0.0.17.1.9f3a2c11.1000000000002a-5be1c0
//! ```
//! `log-id` and `sequence` are hexadecimal, the others decimal; `check` is the low 24 bits of the CRC32C of all that
//! stands before the dash, so that a typo is an error and never another version. No spaces, nothing that a shell or a
//! URL would touch, never a leading dash. There is one spelling of each tag: leading zeros or capitals are refused.

use std::fmt;
use std::str::FromStr;

use crate::format::ids::Tag;

/// Longest token that can be a valid one, in bytes.
pub const OPVER_LEN_MAX: usize = 81;

/// A tag as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Opver(pub Tag);

/// Why a token is none (a usage error, exit 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpverError {
    /// Not of the form of a version at all.
    #[error("not a version: expected six parts and a check, as printed by `stat` or `put`")]
    Malformed,
    /// The form is right and the check is not: mistyped or cut.
    #[error("mistyped version: its check does not match, copy it again")]
    Mistyped,
}

fn check(text: &str) -> u32 {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, text.as_bytes());
    // The CRC has 32 bits; the low 24 are kept.
    u32::try_from(crc & 0x00ff_ffff).unwrap_or(0)
}

fn body(tag: &Tag) -> String {
    let Tag { life, term, n, machine, log_id, sequence } = tag;
    format!("{life}.{term}.{n}.{machine}.{log_id:x}.{sequence:x}")
}

impl fmt::Display for Opver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = body(&self.0);
        write!(f, "{body}-{:06x}", check(&body))
    }
}

impl FromStr for Opver {
    type Err = OpverError;

    fn from_str(text: &str) -> Result<Self, OpverError> {
        if text.len() > OPVER_LEN_MAX || !text.is_ascii() {
            return Err(OpverError::Malformed);
        }
        let (front, given) = text.rsplit_once('-').ok_or(OpverError::Malformed)?;
        let tag = parse_body(front).ok_or(OpverError::Malformed)?;
        // Printing again and comparing refuses every second spelling ("+1", "01", capitals) along with typos.
        if body(&tag) != front || format!("{:06x}", check(front)) != given {
            return Err(OpverError::Mistyped);
        }
        Ok(Self(tag))
    }
}

fn parse_body(front: &str) -> Option<Tag> {
    let mut parts = front.split('.');
    let tag = Tag {
        life: parts.next()?.parse().ok()?,
        term: parts.next()?.parse().ok()?,
        n: parts.next()?.parse().ok()?,
        machine: parts.next()?.parse().ok()?,
        log_id: u32::from_str_radix(parts.next()?, 16).ok()?,
        sequence: u64::from_str_radix(parts.next()?, 16).ok()?,
    };
    parts.next().is_none().then_some(tag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_tag() -> impl Strategy<Value = Tag> {
        any::<(u32, u32, u64, u16, u32, u64)>().prop_map(
            |(life, term, n, machine, log_id, sequence)| Tag {
                life,
                term,
                n,
                machine,
                log_id,
                sequence,
            },
        )
    }

    #[test]
    fn the_longest_token_fits_its_bound() {
        let most = Opver(Tag {
            life: u32::MAX,
            term: u32::MAX,
            n: u64::MAX,
            machine: u16::MAX,
            log_id: u32::MAX,
            sequence: u64::MAX,
        });
        assert!(most.to_string().len() <= OPVER_LEN_MAX, "{}", most.to_string().len());
        assert_eq!(most.to_string().parse(), Ok(most));
    }

    #[test]
    fn nonsense_is_malformed_and_second_spellings_are_refused() {
        for text in
            ["", "-", "1", "1.2.3.4.5.6", "a.b.c.d.e.f-000000", "1.2.3.4.5.6.7-000000", "é-1"]
        {
            assert_eq!(text.parse::<Opver>(), Err(OpverError::Malformed), "{text}");
        }
        let good = Opver(Tag { n: 17, log_id: 0xabc, ..Tag::default() }).to_string();
        for bad in [good.to_uppercase(), format!("0{good}"), format!("+{good}"), format!("{good}0")]
        {
            assert!(bad.parse::<Opver>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_token_never_reads_back_as_another_version(tag in any_tag()) {
            let text = Opver(tag).to_string();
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-'));
            prop_assert!(!text.starts_with('-'));
            prop_assert_eq!(text.parse(), Ok(Opver(tag)));
        }

        #[test]
        fn one_wrong_character_is_never_a_version(tag in any_tag(), at in any::<prop::sample::Index>(), with in "[0-9a-f.-]") {
            let text = Opver(tag).to_string();
            let at = at.index(text.len());
            prop_assume!(!text[at..].starts_with(&with));
            let mut wrong = text.clone();
            wrong.replace_range(at..=at, &with);
            prop_assert!(wrong.parse::<Opver>().is_err(), "{} {}", text, wrong);
        }

        #[test]
        fn garbage_never_panics(text in "\\PC{0,100}") {
            let _ = text.parse::<Opver>().is_ok();
        }
    }
}
