//! Switches, numbers, sizes and durations.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Given, Rule};

/// A switch.
pub(in crate::config) fn flag() -> Rule<bool> {
    let read = |given: &Given| match given {
        Given::Boolean(flag) => Ok(*flag),
        Given::Untyped(text) if text == "true" => Ok(true),
        Given::Untyped(text) if text == "false" => Ok(false),
        _ => Err(format!("{given} is not a switch")),
    };
    Rule::new("true or false", read, ToString::to_string)
}

/// A whole number in `range`.
pub(in crate::config) fn number<T: Integer>(range: RangeInclusive<T>) -> Rule<T> {
    let expected = format!("an integer from {} to {}", range.start(), range.end());
    Rule::new(expected, move |given| integer(given, |number| range.contains(number)), ToString::to_string)
}

/// A whole number up to `max`, 0 = no limit.
pub(in crate::config) fn quota<T: Integer>(max: T) -> Rule<T> {
    let expected = format!("0 for no limit, or an integer up to {max}");
    Rule::new(expected, move |given| integer(given, |number| *number <= max), ToString::to_string)
}

/// One of two close codes.
pub(in crate::config) fn close_code(codes: [u16; 2]) -> Rule<u16> {
    let expected = format!("{} or {}", codes[0], codes[1]);
    Rule::new(expected, move |given| integer(given, |code| codes.contains(code)), ToString::to_string)
}

/// The number types of the configuration.
pub(in crate::config) trait Integer: TryFrom<i128> + PartialOrd + Display + Copy + 'static {}

impl<T: TryFrom<i128> + PartialOrd + Display + Copy + 'static> Integer for T {}

fn integer<T: Integer>(given: &Given, allowed: impl Fn(&T) -> bool) -> Result<T, String> {
    let number = given.integer().ok_or_else(|| format!("{given} is not an integer"))?;
    T::try_from(number).ok().filter(allowed).ok_or_else(|| format!("{number} is out of range"))
}

/// A number of bytes in `range`.
pub(in crate::config) fn bytes(range: RangeInclusive<usize>) -> Rule<usize> {
    let (min, max) = (show_bytes(range.start()), show_bytes(range.end()));
    let expected = format!("a number of bytes from {min} to {max}");
    let read = move |given: &Given| {
        let number = given.integer().or_else(|| given.text().and_then(parse_bytes));
        let number = number.ok_or_else(|| format!("{given} is not a number of bytes"))?;
        let number = usize::try_from(number).ok().filter(|number| range.contains(number));
        number.ok_or_else(|| format!("{given} is out of range"))
    };
    Rule::new(expected, read, show_bytes)
}

/// The units of sizes. `kB` is left out: some read it as 1000 bytes, some as 1024.
const SIZES: [(&str, i128); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn parse_bytes(text: &str) -> Option<i128> {
    let (number, factor) = number_and_unit(text, &SIZES)?;
    number.checked_mul(factor)
}

fn show_bytes(bytes: &usize) -> String {
    let bytes = *bytes as i128;
    match SIZES.iter().find(|(unit, size)| *unit != "B" && bytes != 0 && bytes % size == 0) {
        Some((unit, size)) => format!("\"{} {unit}\"", bytes / size),
        None => bytes.to_string(),
    }
}

/// A length of time in `range`.
pub(in crate::config) fn duration(range: RangeInclusive<Duration>) -> Rule<Duration> {
    let (min, max) = (show_duration(range.start()), show_duration(range.end()));
    let expected = format!("a duration from {min} to {max}");
    let read = move |given: &Given| {
        let time = match given.integer() {
            Some(0) => Some(Duration::ZERO),
            Some(_) => return Err(format!("{given} has no unit")),
            None => given.text().and_then(parse_duration),
        };
        let time = time.ok_or_else(|| format!("{given} is not a duration"))?;
        if range.contains(&time) { Ok(time) } else { Err(format!("{given} is out of range")) }
    };
    Rule::new(expected, read, show_duration)
}

/// The units of durations, in milliseconds.
const TIMES: [(&str, i128); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, factor) = number_and_unit(text, &TIMES)?;
    Some(Duration::from_millis(number.checked_mul(factor)?.try_into().ok()?))
}

fn show_duration(time: &Duration) -> String {
    let milliseconds = i128::try_from(time.as_millis()).unwrap_or(i128::MAX);
    let unit = if milliseconds == 0 {
        &TIMES[2]
    } else {
        TIMES.iter().find(|(_, size)| milliseconds % size == 0).unwrap_or(&TIMES[3])
    };
    format!("\"{}{}\"", milliseconds / unit.1, unit.0)
}

/// "64 KiB" is 64 and the factor of KiB.
fn number_and_unit(text: &str, units: &[(&str, i128)]) -> Option<(i128, i128)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit.trim_start())?.1;
    Some((number.parse().ok()?, factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Given {
        Given::Text(text.to_owned())
    }

    #[test]
    fn durations_and_sizes_are_read_and_written_with_their_unit() {
        let any_time = duration(Duration::ZERO..=Duration::MAX);
        let times =
            [("500ms", 500), ("120s", 120_000), ("30m", 1_800_000), ("24h", 86_400_000), ("0", 0), ("5 s", 5000)];
        for (given, milliseconds) in times {
            let untyped = Given::Untyped(given.to_owned());
            assert_eq!((any_time.read)(&untyped), Ok(Duration::from_millis(milliseconds)), "{given}");
        }
        for (milliseconds, shown) in [(0, "0s"), (1500, "1500ms"), (90_000, "90s"), (120_000, "2m"), (7_200_000, "2h")]
        {
            assert_eq!((any_time.write)(&Duration::from_millis(milliseconds)), format!("{shown:?}"));
        }
        let any_size = bytes(0..=usize::MAX);
        for (given, bytes) in [("10 KiB", 10_240), ("1MiB", 1 << 20), ("7 B", 7), ("2 GiB", 2 << 30)] {
            assert_eq!((any_size.read)(&text(given)), Ok(bytes), "{given}");
        }
        for (bytes, shown) in [(0, "0"), (1000, "1000"), (10_240, "\"10 KiB\""), (3 << 20, "\"3 MiB\"")] {
            assert_eq!((any_size.write)(&bytes), shown);
        }
    }

    #[test]
    fn durations_and_sizes_that_could_mean_two_things_are_refused() {
        let any_time = duration(Duration::ZERO..=Duration::MAX);
        for given in ["", "s", "-5s", "1.5s", "5S", "5 sec", "1h30m", "99999999999999999999999999999999999999999h"] {
            assert!((any_time.read)(&text(given)).is_err(), "{given}");
        }
        assert_eq!((any_time.read)(&Given::Integer(120)), Err("120 has no unit".to_owned()));
        assert_eq!((any_time.read)(&Given::Untyped("120".to_owned())), Err("\"120\" has no unit".to_owned()));
        for given in ["", "KiB", "10 kB", "10 MB", "10K", "1.5 MiB", "-1 B"] {
            assert!((bytes(0..=usize::MAX).read)(&text(given)).is_err(), "{given}");
        }
    }
}
