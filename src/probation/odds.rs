//! How likely it is that a rise is chance.

use std::f64::consts::PI;

use super::Share;

/// What is smaller adds nothing to a sum.
const NEGLIGIBLE: f64 = 1e-12;

/// How likely it is that, of all failures of two times, so many or more fall into the later one, if they are
/// as likely in both: the tail of a binomial distribution over the failures, with the later part of the
/// requests as its chance. Exact also for small numbers, where the usual comparison of two shares
/// by a normal distribution finds too much. 1 where there is no rise at all.
///
/// Source: Przyborowski and Wilenski, Biometrika 31 (1940), "Homogeneity of results in testing samples from
/// Poisson series".
pub fn chance(before: Share, after: Share) -> f64 {
    let (k, all) = (before.failed + after.failed, before.requests + after.requests);
    let part = after.requests as f64 / all as f64;
    // Also without any requests, where the part is none.
    if after.failed as f64 <= k as f64 * part || !(part > 0.0 && part < 1.0) {
        return 1.0;
    }
    let mut term = (ln_factorial(k) - ln_factorial(after.failed) - ln_factorial(before.failed)
        + after.failed as f64 * part.ln()
        + before.failed as f64 * (1.0 - part).ln())
    .exp();
    let mut sum = term;
    // Beyond the mean each term is smaller than the one before.
    for n in after.failed..k {
        term *= (k - n) as f64 / (n + 1) as f64 * part / (1.0 - part);
        sum += term;
        if term <= sum * NEGLIGIBLE {
            break;
        }
    }
    sum.min(1.0)
}

/// Stirling's series; its error is below a thousandth even for 1, and falls from there.
fn ln_factorial(n: u64) -> f64 {
    if n == 0 {
        return 0.0;
    }
    let n = n as f64;
    n * n.ln() - n + 0.5 * (2.0 * PI * n).ln() + 1.0 / (12.0 * n) - 1.0 / (360.0 * n.powi(3))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn share(failed: u64, requests: u64) -> Share {
        Share { failed, requests }
    }

    #[test]
    fn known_tails() {
        // Of 10 failures all in one of two equal halves: 1 of 1024. Of 4, at least 3: 5 of 16.
        let cases = [
            (share(0, 50), share(10, 50), 1.0 / 1024.0),
            (share(1, 9), share(3, 9), 5.0 / 16.0),
            (share(0, 300), share(5, 100), 1.0 / 1024.0),
            (share(5, 50), share(5, 50), 1.0),
            (share(0, 0), share(5, 5), 1.0),
            (share(5, 5), share(0, 0), 1.0),
            (share(0, 0), share(0, 0), 1.0),
        ];
        for (before, after, expected) in cases {
            let found = chance(before, after);
            assert!((found - expected).abs() < expected * 0.002, "{before} {after}: {found}");
        }
    }

    #[test]
    fn large_numbers_agree_with_the_normal_distribution() {
        // Three standard deviations above the mean: 0.00135.
        let k = 1_000_000_u64;
        let after = k / 2 + 3 * 500;
        let found = chance(share(k - after, 10 * k), share(after, 10 * k));
        assert!((0.0012..0.0015).contains(&found), "{found}");
        assert_eq!(chance(share(0, u64::MAX / 4), share(1 << 40, 1 << 41)), 0.0);
    }

    proptest! {
        #[test]
        fn it_is_a_chance_and_falls_with_each_failure(
            before in 0..200_u64, after in 0..200_u64, n in 200..10_000_u64, m in 200..10_000_u64,
        ) {
            let of = |after| chance(share(before, n), share(after, m));
            prop_assert!((0.0..=1.0).contains(&of(after)));
            prop_assert!(of(after + 1) <= of(after) * 1.001);
        }
    }
}
