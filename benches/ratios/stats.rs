//! Repeated values, and what is said of them: median and quartiles.

use std::time::Duration;

/// Values of one kind in the order they were measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(pub(crate) Vec<f64>);

impl Samples {
    /// Adds a time, in milliseconds.
    pub(crate) fn time(&mut self, time: Duration) {
        self.0.push(ms(time));
    }

    /// Adds a rate: tenants a second.
    pub(crate) fn rate(&mut self, tenants: usize, time: Duration) {
        self.0.push(count(tenants) / time.as_secs_f64());
    }

    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// By the nearest rank, so that each answer is a value that was measured.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (mut rank, mut index) = (0.0, 0);
        while index + 1 < sorted.len() && rank + 1.0 < share * count(sorted.len()) {
            rank += 1.0;
            index += 1;
        }
        sorted.get(index).copied().unwrap_or(f64::NAN)
    }
}

pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// A count as a number to divide by.
pub(crate) fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::INFINITY, f64::from)
}

/// Four digits are more than the measurements are good for.
pub(crate) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    format!("{value:.3e}").parse().unwrap_or(value)
}
