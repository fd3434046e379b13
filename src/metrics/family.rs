//! How one metric, or one for each label combination, is made and registered.

use std::marker::PhantomData;

use prometheus::core::{Collector, Metric, MetricVec, MetricVecBuilder};
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry,
};

use super::LabelSet;

/// One metric for each member of a label set, all of which exist from the start.
#[derive(Clone, Debug)]
pub struct Family<M, L> {
    members: Vec<M>,
    labels: PhantomData<fn(L)>,
}

impl<M, L: LabelSet> Family<M, L> {
    /// The metric with these labels.
    pub fn get(&self, labels: L) -> &M {
        &self.members[labels.index()]
    }

    fn of<B>(registry: &Registry, family: MetricVec<B>) -> prometheus::Result<Self>
    where
        B: MetricVecBuilder<M = M> + 'static,
        MetricVec<B>: Collector + Clone,
        M: Metric,
    {
        registry.register(Box::new(family.clone()))?;
        let all = L::all().into_iter();
        let members = all.map(|labels| family.get_metric_with_label_values(&labels.values()));
        Ok(Self {
            members: members.collect::<prometheus::Result<_>>()?,
            labels: PhantomData,
        })
    }
}

/// Makes and registers one kind of metric; only histograms have buckets.
pub(super) trait Register: Sized {
    fn register(registry: &Registry, opts: Opts, buckets: &[f64]) -> prometheus::Result<Self>;
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> prometheus::Result<C> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram(opts: Opts, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::from(opts).buckets(buckets.to_vec())
}

impl Register for IntGauge {
    fn register(registry: &Registry, opts: Opts, _: &[f64]) -> prometheus::Result<Self> {
        add(registry, Self::with_opts(opts)?)
    }
}

impl Register for Gauge {
    fn register(registry: &Registry, opts: Opts, _: &[f64]) -> prometheus::Result<Self> {
        add(registry, Self::with_opts(opts)?)
    }
}

impl Register for IntCounter {
    fn register(registry: &Registry, opts: Opts, _: &[f64]) -> prometheus::Result<Self> {
        add(registry, Self::with_opts(opts)?)
    }
}

impl Register for Histogram {
    fn register(registry: &Registry, opts: Opts, buckets: &[f64]) -> prometheus::Result<Self> {
        add(registry, Self::with_opts(histogram(opts, buckets))?)
    }
}

impl<L: LabelSet> Register for Family<IntGauge, L> {
    fn register(registry: &Registry, opts: Opts, _: &[f64]) -> prometheus::Result<Self> {
        Self::of(registry, IntGaugeVec::new(opts, L::NAMES)?)
    }
}

impl<L: LabelSet> Register for Family<IntCounter, L> {
    fn register(registry: &Registry, opts: Opts, _: &[f64]) -> prometheus::Result<Self> {
        Self::of(registry, IntCounterVec::new(opts, L::NAMES)?)
    }
}

impl<L: LabelSet> Register for Family<Histogram, L> {
    fn register(registry: &Registry, opts: Opts, buckets: &[f64]) -> prometheus::Result<Self> {
        Self::of(
            registry,
            HistogramVec::new(histogram(opts, buckets), L::NAMES)?,
        )
    }
}
