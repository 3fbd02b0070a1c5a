//! How the texts of the configuration are read: durations, sizes, addresses.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::report::Wrong;

/// The units of durations, largest first, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads a duration: a whole number and one unit, `250ms`, `5s`, `15m`, `1h`, `365d`.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor);
    let milliseconds = factor.and_then(|factor| number.parse::<u64>().ok()?.checked_mul(*factor));
    match milliseconds {
        Some(milliseconds) => Ok(Duration::from_millis(milliseconds)),
        None => {
            let problem = "must be a duration: a whole number and ms, s, m, h or d";
            Err(Wrong::from(problem).hint("for instance \"250ms\" or \"15m\""))
        }
    }
}

/// Reads a duration within bounds, both written as durations are.
pub(super) fn duration_within(
    shortest: &'static str,
    longest: &'static str,
) -> impl Fn(&str) -> Result<Duration, Wrong> {
    let bound = |text| duration(text).expect("bounds are written as durations are");
    let range = bound(shortest)..=bound(longest);
    move |text| {
        let duration = duration(text)?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        Err(format!("must be {shortest} to {longest}").into())
    }
}

/// Reads a whole number within bounds.
pub(super) fn number_within<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, Wrong>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    move |text| match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!("must be a whole number, {} to {}", range.start(), range.end()).into()),
    }
}

/// Reads `true` or `false`.
pub(super) fn flag(text: &str) -> Result<bool, Wrong> {
    text.parse().map_err(|_| "must be true or false".into())
}

/// Reads an IP address and a port.
pub(super) fn address(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| {
        Wrong::from("must be an IP address and a port")
            .hint("for instance \"127.0.0.1:8443\" or \"[::1]:8443\"; names are not looked up")
    })
}

/// Reads a network, or one address.
pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(|_| address()).map_err(|_| {
        Wrong::from("must be a network or an IP address").hint("for instance \"10.0.0.0/8\"")
    })
}

/// Reads a text that is not empty.
pub(super) fn filled(text: &str) -> Result<String, Wrong> {
    if text.is_empty() { Err("must not be empty".into()) } else { Ok(text.to_owned()) }
}

/// Writes a list of alternatives: "a, b or c".
pub(super) fn alternatives(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => format!("`{one}`"),
        [first @ .., last] => format!("`{}` or `{last}`", first.join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, milliseconds) in
            [("0s", 0), ("120ms", 120), ("5s", 5000), ("15m", 900_000), ("2h", 7_200_000)]
                .into_iter()
                .chain([("365d", 31_536_000_000)])
        {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(milliseconds), "{text}");
        }
        let too_long = format!("{}h", u64::MAX);
        for text in ["", "5", "s", "5 s", "5S", "-5s", "+5s", "1.5s", "5s5s", "5min", &too_long] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn bounds_are_allowed_themselves() {
        let parse = duration_within("1ms", "250ms");
        assert!(parse("1ms").is_ok() && parse("250ms").is_ok());
        assert!(parse("0s").is_err() && parse("251ms").is_err());
        let parse = number_within(1..=1024_usize);
        assert!(parse("1").is_ok() && parse("1024").is_ok());
        assert!(parse("0").is_err() && parse("1025").is_err() && parse("-1").is_err());
    }

    #[test]
    fn networks_may_be_single_addresses() {
        assert_eq!(network("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(network("fd00::/8").unwrap().to_string(), "fd00::/8");
        assert!(network("10.0.0.0/33").is_err());
    }

    #[test]
    fn alternatives_read_as_a_sentence() {
        assert_eq!(alternatives(&["a"]), "`a`");
        assert_eq!(alternatives(&["a", "b", "c"]), "`a`, `b` or `c`");
    }
}
