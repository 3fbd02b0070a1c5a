//! Of how many requests there is a trace.
//!
//! The trace id decides, as OpenTelemetry's samplers by ratio have it: by its last eight bytes. Whether
//! somebody before us traces is never asked: KMS sends no `traceparent`, and a stranger's is none of
//! our business.

use std::str::FromStr;

use super::span::TraceId;

/// A share of all requests, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ratio(f64);

/// Not a share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a number from 0.0 to 1.0")]
pub struct RatioError;

impl FromStr for Ratio {
    type Err = RatioError;

    fn from_str(text: &str) -> Result<Self, RatioError> {
        let ratio: f64 = text.parse().map_err(|_| RatioError)?;
        if (0.0..=1.0).contains(&ratio) { Ok(Self(ratio)) } else { Err(RatioError) }
    }
}

impl Ratio {
    /// All requests.
    pub const ALL: Self = Self(1.0);

    /// Gives the id back if its request is traced.
    pub fn sample(self, id: TraceId) -> Option<TraceId> {
        let [.., a, b, c, d, e, f, g, h] = *id.as_bytes();
        // 63 bits, like everybody, so that equal ratios mean equal choices.
        let drawn = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1;
        let bound = (self.0 * (1_u64 << 63) as f64) as u64;
        (drawn < bound).then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(first_of_the_last_eight: u8) -> TraceId {
        let mut bytes = [0xff; 16];
        bytes[8] = first_of_the_last_eight;
        TraceId::from_bytes(bytes)
    }

    #[test]
    fn the_last_eight_bytes_decide() {
        let half: Ratio = "0.5".parse().unwrap();
        assert_eq!(half.sample(id(0x7f)), Some(id(0x7f)));
        assert_eq!(half.sample(id(0x80)), None);
    }

    #[test]
    fn none_and_all_are_exact() {
        let none: Ratio = "0".parse().unwrap();
        assert_eq!(none.sample(TraceId::from_bytes([0; 16])), None);
        assert!(Ratio::ALL.sample(id(0xff)).is_some());
    }

    #[test]
    fn a_ratio_is_between_nothing_and_all() {
        assert_eq!("1".parse(), Ok(Ratio::ALL));
        for text in ["", "-0.1", "1.1", "NaN", "inf", "10%", "0,5"] {
            assert_eq!(text.parse::<Ratio>(), Err(RatioError), "{text}");
        }
    }
}
