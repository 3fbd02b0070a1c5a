//! The highest rate at which a proxy still answers in time.
//!
//! Latency over rate is flat up to a knee, and noisy: one bad run says little. The search doubles
//! the rate until a run fails, halves the gap until it is narrow, and then has the best rate prove
//! itself in further runs; where one of those fails, it goes down a step and tries again.

/// What a run at a rate has to keep to, and how exactly the rate is looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Search {
    /// Requests per second to begin with.
    pub start: f64,
    /// Highest rate that is tried.
    pub most: f64,
    /// The gap that is narrow enough, as a share of the rate.
    pub precision: f64,
    /// Runs in which the rate found has to prove itself.
    pub confirmations: u32,
}

impl Default for Search {
    fn default() -> Self {
        Self { start: 100.0, most: 1_000_000.0, precision: 0.03, confirmations: 2 }
    }
}

/// Finds the highest rate at which `holds` is true, as exactly as `search` says; `None` where it
/// holds at no rate that was tried.
///
/// # Errors
/// That of `holds`, which ends the search.
pub async fn find<E>(
    search: Search,
    mut holds: impl AsyncFnMut(f64) -> Result<bool, E>,
) -> Result<Option<f64>, E> {
    let Search { start, most, precision, confirmations } = search;
    // Below 1% of the start there is nothing worth the name.
    let least = start / 100.0;
    let (mut good, mut bad) = (0.0, most);
    let mut rate = start;
    while good == 0.0 || bad == most {
        if holds(rate).await? {
            good = rate;
            if rate >= most {
                break;
            }
            rate = (rate * 2.0).min(most);
        } else {
            bad = rate;
            if good > 0.0 {
                break;
            }
            rate /= 2.0;
            if rate < least {
                return Ok(None);
            }
        }
    }
    while bad - good > precision * good {
        let middle = f64::midpoint(good, bad);
        if holds(middle).await? { good = middle } else { bad = middle }
    }
    let mut confirmed = 0;
    while confirmed < confirmations {
        if holds(good).await? {
            confirmed += 1;
        } else {
            (good, confirmed) = (good * (1.0 - precision), 0);
            if good < least {
                return Ok(None);
            }
        }
    }
    Ok(Some(good))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    /// What is found for a proxy that holds up to `limit`, and lies in every `lies`-th run.
    async fn found(limit: f64, lies: u32) -> (Option<f64>, u32) {
        let mut runs = 0;
        let found = find(Search::default(), async |rate| {
            runs += 1;
            let lied = lies > 0 && runs % lies == 0;
            Ok::<_, Infallible>((rate <= limit) != lied)
        });
        let found = found.await.unwrap();
        (found, runs)
    }

    #[tokio::test]
    async fn it_is_found_as_exactly_as_asked() {
        for limit in [3.0, 99.0, 100.0, 101.0, 1800.0, 10_390.0, 999_999.0] {
            let (rate, runs) = found(limit, 0).await;
            let rate = rate.unwrap();
            assert!(rate <= limit && rate >= limit * 0.96, "{rate} of {limit}");
            assert!(runs <= 30, "{runs} runs for {limit}");
        }
        assert_eq!(found(5e6, 0).await.0, Some(1e6), "the highest rate that is tried");
        assert_eq!(found(0.5, 0).await.0, None);
    }

    /// A lucky run is not enough: what was found has held in all runs that confirm it.
    #[tokio::test]
    async fn what_is_found_was_confirmed() {
        let mut runs = Vec::new();
        let rate = find(Search::default(), async |rate| {
            // The first run at 1,600 is lucky.
            let lucky = rate == 1600.0 && !runs.contains(&1600.0);
            runs.push(rate);
            Ok::<_, Infallible>(rate <= 1000.0 || lucky)
        });
        let rate = rate.await.unwrap().unwrap();
        assert!(rate <= 1000.0, "{rate}");
        assert!(runs.ends_with(&[rate, rate]), "{runs:?}");
    }

    #[tokio::test]
    async fn a_search_ends_with_its_proxy() {
        let found = find(Search::default(), async |_rate| Err::<bool, _>("gone")).await;
        assert_eq!(found, Err("gone"));
    }
}
