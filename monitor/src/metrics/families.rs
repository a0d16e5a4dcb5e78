//! Builds metric families from counters that are kept elsewhere.

use monitor_common::{
    idle_gap_scale,
    stats::{Counter, Histogram as KernelHistogram},
};
use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};

use monitor_core::{Ktime, histogram::DurationHistogram};

/// A metric family, and since when its series count.
#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) proto: MetricFamily,
    /// Whether a series only ever increases and so has a time of creation.
    pub(super) is_cumulative: bool,
    /// Of each series: when it began, or `None` if it began with wsmon.
    pub(super) since: Vec<Option<Ktime>>,
}

/// A metric family under construction.
pub(super) struct FamilyBuilder {
    family: MetricFamily,
    kind: MetricType,
    is_cumulative: bool,
    metrics: Vec<Metric>,
    since: Vec<Option<Ktime>>,
}

impl FamilyBuilder {
    pub(super) fn counter(name: &str, help: &str) -> Self {
        Self::new(format!("wsmon_{name}"), help, MetricType::COUNTER)
    }

    pub(super) fn gauge(name: &str, help: &str) -> Self {
        Self::new(format!("wsmon_{name}"), help, MetricType::GAUGE)
    }

    pub(super) fn histogram(name: &str, help: &str) -> Self {
        Self::new(format!("wsmon_{name}"), help, MetricType::HISTOGRAM)
    }

    /// A gauge in the form of a histogram: values leave its buckets again.
    pub(super) fn gauge_histogram(name: &str, help: &str) -> Self {
        Self {
            is_cumulative: false,
            ..Self::histogram(name, help)
        }
    }

    /// A family whose `name` all programs share, such as `process_open_fds`.
    pub(super) fn shared(name: &str, help: &str, kind: MetricType) -> Self {
        Self::new(name.to_owned(), help, kind)
    }

    fn new(name: String, help: &str, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name);
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        Self {
            family,
            kind,
            is_cumulative: kind != MetricType::GAUGE,
            metrics: Vec::new(),
            since: Vec::new(),
        }
    }

    /// Lets the series that was added last begin at this moment.
    pub(super) fn since(&mut self, since: Option<Ktime>) {
        if let Some(last) = self.since.last_mut() {
            *last = since;
        }
    }

    pub(super) fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut metric = Metric::default();
        if self.kind == MetricType::COUNTER {
            let mut counter = proto::Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.push(labels, metric);
    }

    pub(super) fn add_histogram(&mut self, labels: &[(&str, &str)], histogram: proto::Histogram) {
        let mut metric = Metric::default();
        metric.set_histogram(histogram);
        self.push(labels, metric);
    }

    fn push(&mut self, labels: &[(&str, &str)], mut metric: Metric) {
        let labels = labels
            .iter()
            .map(|(name, value)| {
                let mut pair = LabelPair::default();
                pair.set_name((*name).to_owned());
                pair.set_value((*value).to_owned());
                pair
            })
            .collect();
        metric.set_label(labels);
        self.metrics.push(metric);
        self.since.push(None);
    }

    pub(super) fn finish(mut self) -> Family {
        self.family.set_metric(self.metrics);
        Family {
            proto: self.family,
            is_cumulative: self.is_cumulative,
            since: self.since,
        }
    }
}

/// The kernel's units in one of Prometheus's.
pub(super) const NANOSECONDS: f64 = 1e9;
pub(super) const BYTES: f64 = 1.0;

/// Converts the kernel's buckets, which are not cumulative and have their own `unit`.
pub(super) fn kernel_histogram<const N: usize>(
    histogram: &KernelHistogram<N>,
    bounds: &[u64],
    unit: f64,
) -> proto::Histogram {
    let mut total = 0;
    let mut cumulative = bounds
        .iter()
        .map(|&bound| bound as f64 / unit)
        .chain([f64::INFINITY])
        .zip(&histogram.buckets)
        .map(|(bound, bucket)| {
            total += bucket.get();
            (bound, total)
        })
        .collect::<Vec<_>>();
    let all = cumulative.pop().map_or(0, |(_, total)| total);
    prometheus_histogram(cumulative, all, histogram.sum.get() as f64 / unit)
}

/// Counts on the kernel's [`idle_gap_scale`] with coarser `bounds`, all in nanoseconds.
///
/// A slot belongs to the bucket in which it begins: a timer of 30 s fires a little later, and must
/// appear at 30 s. The sum uses the middle of a slot, or the inner bound for the first and the last
/// slot.
pub(super) fn scale_histogram(
    slots: &[Counter; idle_gap_scale::SLOTS],
    bounds: &[u64],
) -> proto::Histogram {
    let mut buckets = vec![0; bounds.len() + 1];
    let mut sum = 0.0;
    for (slot, counter) in slots.iter().enumerate() {
        let (lower, upper) = idle_gap_scale::bounds(slot);
        buckets[bounds.partition_point(|bound| *bound <= lower)] += counter.get();
        let value = match slot {
            0 => upper as f64,
            _ if upper == u64::MAX => lower as f64,
            _ => (lower + upper) as f64 / 2.0,
        };
        sum += counter.get() as f64 * value / NANOSECONDS;
    }
    let mut total = 0;
    let cumulative = bounds
        .iter()
        .zip(&buckets)
        .map(|(&bound, bucket)| {
            total += bucket;
            (bound as f64 / NANOSECONDS, total)
        })
        .collect();
    prometheus_histogram(cumulative, buckets.iter().sum(), sum)
}

pub(super) fn core_histogram(histogram: &DurationHistogram) -> proto::Histogram {
    let buckets = histogram
        .cumulative()
        .map(|(bound, n)| (bound as f64, n))
        .collect();
    prometheus_histogram(buckets, histogram.count(), histogram.sum().as_secs_f64())
}

fn prometheus_histogram(cumulative: Vec<(f64, u64)>, all: u64, sum: f64) -> proto::Histogram {
    let buckets = cumulative
        .into_iter()
        .map(|(bound, n)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound);
            bucket.set_cumulative_count(n);
            bucket
        })
        .collect();
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(all);
    histogram.set_sample_sum(sum);
    histogram
}
