//! Sizes, durations and the room to grow, as people write them: `64MiB`, `1h30m`, `20%`.
//!
//! Pure text to number, used by the config files, the environment and the command line alike. Every function answers
//! `None` for what it does not understand; the caller knows the key and says what is allowed.

use std::time::Duration;

/// Bytes from text: a number and a unit (`B K KiB KB M MiB MB G GiB GB T TiB TB`, any case). A single letter counts in
/// powers of 1024, as `KiB` does; `KB` is 1000 bytes. A bare number is bytes.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    if !number.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let factor: u64 = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "p" | "pib" => 1 << 50,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "pb" => 1_000_000_000_000_000,
        _ => return None,
    };
    match number.split_once('.') {
        None => number.parse::<u64>().ok()?.checked_mul(factor),
        Some((whole, part)) => {
            // At most nine decimals, so that the product below cannot overflow 128 bits.
            if part.is_empty() || part.len() > 9 || factor == 1 {
                return None;
            }
            let scale = 10u128.pow(u32::try_from(part.len()).ok()?);
            let whole = u128::from(whole.parse::<u64>().ok()?);
            let part = u128::from(part.parse::<u64>().ok()?);
            let bytes = (whole * scale + part).checked_mul(u128::from(factor))? / scale;
            u64::try_from(bytes).ok()
        }
    }
}

/// The shortest exact text of a size: `64MiB`, `1000B` never, `1000` instead.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    const UNITS: [(u64, &str); 5] =
        [(1 << 50, "PiB"), (1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (factor, unit) in UNITS {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// A duration from text: one or more of number and unit (`ms s m h d`), as in `300ms`, `21d`, `1h30m`. `0` needs no unit.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total_ms = 0u64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(rest.len());
        let unit_ms = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        rest = &rest[letters..];
        total_ms = total_ms.checked_add(number.checked_mul(unit_ms)?)?;
    }
    Some(Duration::from_millis(total_ms))
}

/// The shortest exact text of a duration in one unit: `90m`, `300ms`, `0s`.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (factor, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if ms.is_multiple_of(factor) && ms > 0 {
            return format!("{}{unit}", ms / factor);
        }
    }
    if ms == 0 { "0s".to_owned() } else { format!("{ms}ms") }
}

/// Room that a slot keeps so that the next edit fits in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// So many hundredths of the length.
    Percent(u32),
    /// So many bytes.
    Bytes(u64),
}

/// The most that [`Reserve::Percent`] may be.
pub const RESERVE_PERCENT_MAX: u32 = 400;
/// The most that [`Reserve::Bytes`] may be.
pub const RESERVE_BYTES_MAX: u64 = 16 << 20;

impl Reserve {
    /// From `20%`, `512` or `4KiB`; `None` also when out of bounds ([`RESERVE_PERCENT_MAX`], [`RESERVE_BYTES_MAX`]).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(number) = text.strip_suffix('%') {
            let number = number.trim_end();
            let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            let percent = plain.then(|| number.parse::<u32>().ok()).flatten()?;
            return (percent <= RESERVE_PERCENT_MAX).then_some(Self::Percent(percent));
        }
        let bytes = parse_size(text)?;
        (bytes <= RESERVE_BYTES_MAX).then_some(Self::Bytes(bytes))
    }

    /// Bytes of room for a payload of `len` bytes; never overflows.
    #[must_use]
    pub fn bytes_for(self, len: u64) -> u64 {
        match self {
            Self::Percent(percent) => {
                u64::try_from(u128::from(len) * u128::from(percent) / 100).unwrap_or(u64::MAX)
            }
            Self::Bytes(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("0", Some(0))]
    #[case("512", Some(512))]
    #[case("4k", Some(4096))]
    #[case("4KiB", Some(4096))]
    #[case("4KB", Some(4000))]
    #[case("64 MiB", Some(64 << 20))]
    #[case("1.5GiB", Some(3 << 29))]
    #[case("16EiB", None)]
    #[case("18446744073709551615", Some(u64::MAX))]
    #[case("18446744073709551616", None)]
    #[case("18014398509481984KiB", None)]
    #[case("", None)]
    #[case("-1", None)]
    #[case(".5GiB", None)]
    #[case("1.GiB", None)]
    #[case("1.5", None)]
    #[case("1..5KiB", None)]
    #[case("64MiBs", None)]
    #[case("MiB", None)]
    #[case("1e3", None)]
    #[case("99999999999.999999999PiB", None)]
    fn a_size_is_never_misread(#[case] text: &str, #[case] bytes: Option<u64>) {
        assert_eq!(parse_size(text), bytes);
    }

    #[rstest]
    #[case("0", Some(0))]
    #[case("0s", Some(0))]
    #[case("300ms", Some(300))]
    #[case("1h30m", Some(5_400_000))]
    #[case("21d", Some(1_814_400_000))]
    #[case("5", None)]
    #[case("5 s", None)]
    #[case("s", None)]
    #[case("", None)]
    #[case("-5s", None)]
    #[case("5S", None)]
    #[case("5sec", None)]
    #[case("1.5s", None)]
    #[case("99999999999999999999s", None)]
    #[case("18446744073709551615d", None)]
    fn a_duration_is_never_misread(#[case] text: &str, #[case] ms: Option<u64>) {
        assert_eq!(parse_duration(text), ms.map(Duration::from_millis));
    }

    #[rstest]
    #[case("20%", Some(Reserve::Percent(20)))]
    #[case("0%", Some(Reserve::Percent(0)))]
    #[case("512", Some(Reserve::Bytes(512)))]
    #[case("4KiB", Some(Reserve::Bytes(4096)))]
    #[case("401%", None)]
    #[case("17MiB", None)]
    #[case("%", None)]
    #[case("+20%", None)]
    #[case("-20%", None)]
    #[case("20.5%", None)]
    #[case("20 percent", None)]
    fn a_reserve_is_never_misread(#[case] text: &str, #[case] reserve: Option<Reserve>) {
        assert_eq!(Reserve::parse(text), reserve);
    }

    #[test]
    fn texts_come_back_as_the_same_number() {
        for bytes in [0, 1, 1000, 1024, 64 << 20, 3 << 29, u64::MAX] {
            assert_eq!(parse_size(&size_text(bytes)), Some(bytes));
        }
        for ms in [0, 1, 999, 1000, 5_400_000, 86_400_000] {
            let duration = Duration::from_millis(ms);
            assert_eq!(parse_duration(&duration_text(duration)), Some(duration));
        }
    }

    #[test]
    fn room_to_grow_never_overflows() {
        assert_eq!(Reserve::Percent(20).bytes_for(1000), 200);
        assert_eq!(Reserve::Percent(400).bytes_for(u64::MAX), u64::MAX);
        assert_eq!(Reserve::Bytes(512).bytes_for(7), 512);
    }
}
