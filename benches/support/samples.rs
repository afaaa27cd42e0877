//! What was measured, as numbers.

use std::fmt::Display;

/// Values of one kind, all kept: there are thousands at most.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

/// Which values are the bad ones: what p99 and max look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worse {
    /// Times, bytes.
    Larger,
    /// Rates.
    Smaller,
}

impl Samples {
    pub(crate) fn record(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(crate) fn record_us(&mut self, us: i64) {
        self.record(us as f64);
    }

    pub(crate) fn one(value: f64) -> Self {
        Self(vec![value])
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// p50, p99 and the worst. Of fewer than 100 values, p99 is the worst.
    pub(crate) fn summary(&self, worse: Worse) -> [f64; 3] {
        let mut values = self.0.clone();
        values.sort_unstable_by(f64::total_cmp);
        if worse == Worse::Smaller {
            values.reverse();
        }
        let at = |part: f64| {
            let rank = (part * values.len() as f64).ceil() as usize;
            values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
        };
        [at(0.5), at(0.99), at(1.0)]
    }

    pub(crate) fn p50(&self) -> f64 {
        self.summary(Worse::Larger)[0]
    }

    pub(crate) fn p99(&self) -> f64 {
        self.summary(Worse::Larger)[1]
    }
}

/// Three digits that count.
pub(crate) fn short(value: f64) -> impl Display {
    match value.abs() {
        size if size >= 10_000.0 => format!("{:.1}k", value / 1_000.0),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
