use super::*;
use crate::metrics::families::FamilyBuilder;
use prometheus::proto;

fn encoded(families: Vec<FamilyBuilder>) -> String {
    let families: Vec<_> = families.into_iter().map(FamilyBuilder::finish).collect();
    encode(&families, |since| {
        let nanoseconds = since.map_or(0, |at| at.0);
        Timestamp::from_nanosecond(nanoseconds.into()).expect("not far in the future")
    })
}

#[test]
fn each_type_has_its_suffixes_and_ends_with_its_creation() {
    let mut counter = FamilyBuilder::counter("program_seconds_total", "Says \"so\\\".\nTwice.");
    counter.add(&[("program", "a\"b\\c\nd")], 1.5);
    counter.add(&[], 2.0);
    counter.since(Some(Ktime(1_700_000_000_123_999_999)));
    let mut gauge = FamilyBuilder::gauge("queue_bytes", "Queue.");
    gauge.add(&[("stat", "max")], f64::INFINITY);
    gauge.add(&[("stat", "min")], f64::NEG_INFINITY);
    gauge.add(&[("stat", "mean")], f64::NAN);
    let mut info = FamilyBuilder::gauge("build_info", "Build.");
    info.add(&[("version", "1")], 1.0);
    let mut bucket = proto::Bucket::default();
    bucket.set_upper_bound(1.0);
    bucket.set_cumulative_count(2);
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(vec![bucket]);
    histogram.set_sample_count(3);
    histogram.set_sample_sum(7.25);
    let mut times = FamilyBuilder::histogram("times", "Times.");
    times.add_histogram(&[("listener", "80")], histogram.clone());
    let mut ages = FamilyBuilder::gauge_histogram("ages", "Ages.");
    ages.add_histogram(&[], histogram);
    let expected = "\
# HELP wsmon_program_seconds Says \\\"so\\\\\\\".\\nTwice.
# TYPE wsmon_program_seconds counter
# UNIT wsmon_program_seconds seconds
wsmon_program_seconds_total{program=\"a\\\"b\\\\c\\nd\"} 1.5
wsmon_program_seconds_created{program=\"a\\\"b\\\\c\\nd\"} 0.000
wsmon_program_seconds_total 2
wsmon_program_seconds_created 1700000000.123
# HELP wsmon_queue_bytes Queue.
# TYPE wsmon_queue_bytes gauge
# UNIT wsmon_queue_bytes bytes
wsmon_queue_bytes{stat=\"max\"} +Inf
wsmon_queue_bytes{stat=\"min\"} -Inf
wsmon_queue_bytes{stat=\"mean\"} NaN
# HELP wsmon_build Build.
# TYPE wsmon_build info
wsmon_build_info{version=\"1\"} 1
# HELP wsmon_times Times.
# TYPE wsmon_times histogram
wsmon_times_bucket{listener=\"80\",le=\"1.0\"} 2
wsmon_times_bucket{listener=\"80\",le=\"+Inf\"} 3
wsmon_times_sum{listener=\"80\"} 7.25
wsmon_times_count{listener=\"80\"} 3
wsmon_times_created{listener=\"80\"} 0.000
# HELP wsmon_ages Ages.
# TYPE wsmon_ages histogram
wsmon_ages_bucket{le=\"1.0\"} 2
wsmon_ages_bucket{le=\"+Inf\"} 3
wsmon_ages_sum 7.25
wsmon_ages_count 3
# EOF
";
    assert_eq!(encoded(vec![counter, gauge, info, times, ages]), expected);
}

#[test]
fn nothing_but_the_end_is_an_exposition() {
    assert_eq!(encoded(Vec::new()), "# EOF\n");
}

/// As `strconv.FormatFloat(x, 'g', -1, 64)` of Go, with `.0` where it has neither a point nor an exponent.
#[test]
fn bounds_are_canonical() {
    for (value, expected) in [
        (0.0, "0.0"),
        (0.000_1, "0.0001"),
        (0.000_025, "2.5e-05"),
        (0.25, "0.25"),
        (1.0, "1.0"),
        (604_800.0, "604800.0"),
        (1_000_000.0, "1e+06"),
        (1_048_576.0, "1.048576e+06"),
        (1e100, "1e+100"),
        (-1.0, "-1.0"),
        (f64::INFINITY, "+Inf"),
    ] {
        assert_eq!(bound(value), expected);
    }
}
