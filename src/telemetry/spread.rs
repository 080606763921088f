//! How long calls took: counts in two buckets an octave, and their quantiles.

use std::time::Duration;

/// From below a millisecond to above six minutes.
pub(super) const BUCKETS: usize = 40;
/// The first bucket is below so many microseconds, a power of two.
const FIRST: u32 = 10;
/// What weighs less than one call of ten minutes ago is nothing.
const LEAST: f32 = 1.0 / 1024.0;

/// Counts by bucket, in which older calls may weigh less.
pub(super) type Counts = [f32; BUCKETS];

/// The bucket of a call that took so long.
pub(super) fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    match micros.checked_ilog2() {
        Some(octave) if octave >= FIRST => {
            let upper = (micros >> (octave - 1)) & 1;
            (1 + 2 * (octave - FIRST) as usize + upper as usize).min(BUCKETS - 1)
        }
        _ => 0,
    }
}

/// Where a quantile is on the scale of the buckets: between `n` and `n + 1` in bucket `n`. `None` without a call.
pub(super) fn place(counts: &Counts, quantile: f32) -> Option<f32> {
    let total: f32 = counts.iter().sum();
    if total < LEAST {
        return None;
    }
    let (mut rank, mut last) = (quantile * total, 0.0);
    for (bucket, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0.0) {
        // Of the last bucket nothing is known but where it begins.
        let width = if bucket == BUCKETS - 1 { 0.0 } else { 1.0 };
        last = bucket as f32 + width;
        if rank <= *count {
            return Some(bucket as f32 + width * rank / count);
        }
        rank -= count;
    }
    Some(last)
}

/// The seconds at a place on the scale.
pub(super) fn seconds(place: f32) -> f32 {
    let bucket = place.floor();
    let (lower, upper) = (edge(bucket as usize), edge(bucket as usize + 1));
    lower + (upper - lower) * (place - bucket)
}

/// Where a bucket begins, in seconds.
fn edge(bucket: usize) -> f32 {
    match bucket.checked_sub(1) {
        None => 0.0,
        Some(half) => {
            let octave = (1_u64 << (FIRST as usize + half / 2)) as f32 / 1e6;
            octave * if half % 2 == 0 { 1.0 } else { 1.5 }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_within_the_edges_of_its_bucket() {
        for micros in (0..200).map(|n| 1.12_f64.powi(n) as u64).filter(|micros| *micros < 400_000_000) {
            let bucket = bucket(Duration::from_micros(micros));
            let seconds = micros as f32 / 1e6;
            assert!(edge(bucket) <= seconds, "{micros}");
            assert!(bucket == BUCKETS - 1 || seconds < edge(bucket + 1), "{micros}");
        }
        assert_eq!((bucket(Duration::ZERO), bucket(Duration::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn a_quantile_is_at_most_half_a_time_off() {
        let mut counts = [0.0; BUCKETS];
        assert_eq!(place(&counts, 0.5), None);
        for millis in 1..=1000 {
            counts[bucket(Duration::from_millis(millis))] += 1.0;
        }
        for quantile in [0.1, 0.5, 0.9, 0.99] {
            let found = seconds(place(&counts, quantile).unwrap());
            assert!((found / quantile - 1.0).abs() < 0.1, "{quantile}: {found}");
        }
        let mut one = [0.0; BUCKETS];
        one[bucket(Duration::from_secs(3600))] = 1.0;
        let longest = seconds(place(&one, 0.99).unwrap());
        assert!(longest > 300.0, "{longest}");
    }
}
