//! A histogram of durations that is counted without a lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// Upper bounds of the buckets, in microseconds; one more bucket takes the rest.
const BOUNDS_MICROSECONDS: [u32; 11] = [50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000, 1_000_000];

/// Counts durations by bucket; clones share the counts.
#[derive(Debug, Clone, Default)]
pub(super) struct DurationHistogram(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// One for each bound, and the rest.
    buckets: [AtomicU64; BOUNDS_MICROSECONDS.len() + 1],
    sum_nanoseconds: AtomicU64,
}

impl DurationHistogram {
    /// Counts one duration. The sum wraps after 584 years.
    pub(super) fn observe(&self, took: Duration) {
        let within = |bound: &u32| took <= Duration::from_micros(u64::from(*bound));
        let bucket = BOUNDS_MICROSECONDS.iter().position(within).unwrap_or(BOUNDS_MICROSECONDS.len());
        self.0.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0.sum_nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}

impl EncodeMetric for DurationHistogram {
    fn encode(&self, mut encoder: MetricEncoder) -> fmt::Result {
        let bounds = BOUNDS_MICROSECONDS.iter().map(|micros| f64::from(*micros) / 1e6).chain([f64::INFINITY]);
        let counts = self.0.buckets.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<_> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(self.0.sum_nanoseconds.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}
