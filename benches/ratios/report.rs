//! What a run has measured: written as JSON, merged with the file of an earlier run, judged by the goals.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    Outcome,
    goals::{self, Goal},
    stats::{Samples, rounded},
};

/// One kind of work done by one contender.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measurement {
    /// What was done, for instance `new tenant`.
    pub(crate) part: String,
    /// Who did it, for instance `bare SQL`.
    pub(crate) who: String,
    /// Tenants in the fleet; 0 where their number plays no part.
    pub(crate) tenants: usize,
    /// Unit of the values.
    pub(crate) unit: String,
    pub(crate) median: f64,
    /// First and third quartile.
    pub(crate) spread: [f64; 2],
    pub(crate) values: Vec<f64>,
}

/// A whole run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    /// What else the machine did: the load of the minute before the run.
    #[serde(default)]
    pub(crate) load_before: Option<f64>,
    pub(crate) postgresql: String,
    /// Server settings that matter here, as the server says them.
    pub(crate) settings: Vec<(String, String)>,
    /// Tenants of the largest fleet.
    pub(crate) tenants: usize,
    /// Whether parts of it are of an earlier run.
    #[serde(default)]
    pub(crate) merged: bool,
    /// What was left out, and why.
    pub(crate) skipped: Vec<String>,
    pub(crate) goals: Vec<Goal>,
    pub(crate) measurements: Vec<Measurement>,
}

impl Report {
    /// The file of an earlier run; empty if there is none.
    pub(crate) fn read(path: &Path) -> Outcome<Self> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(serde_json::from_str(&text)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether numbers of both may stand side by side.
    pub(crate) fn same_place(&self, other: &Self) -> bool {
        (
            self.cores,
            self.memory_gib,
            &self.postgresql,
            &self.settings,
        ) == (
            other.cores,
            other.memory_gib,
            &other.postgresql,
            &other.settings,
        )
    }

    pub(crate) fn write(&self, path: &Path) -> Outcome<()> {
        Ok(fs::write(path, serde_json::to_string_pretty(self)? + "\n")?)
    }

    /// Takes in what was measured, in place of an earlier value of the same, and says it.
    pub(crate) fn add(&mut self, part: &str, who: &str, tenants: usize, unit: &str, of: &Samples) {
        let measurement = Measurement {
            part: part.to_owned(),
            who: who.to_owned(),
            tenants,
            unit: unit.to_owned(),
            median: rounded(of.median()),
            spread: [rounded(of.quantile(0.25)), rounded(of.quantile(0.75))],
            values: of.0.iter().copied().map(rounded).collect(),
        };
        let size = if tenants > 0 {
            format!(", {tenants} tenants")
        } else {
            String::new()
        };
        println!(
            "{part}{size}: {who}: {} {unit} ({} to {}, n = {})",
            measurement.median,
            measurement.spread[0],
            measurement.spread[1],
            measurement.values.len()
        );
        self.measurements
            .retain(|it| (it.part.as_str(), it.who.as_str(), it.tenants) != (part, who, tenants));
        self.measurements.push(measurement);
    }

    /// Says by name what is left out.
    pub(crate) fn skip(&mut self, what: impl Into<String>) {
        let what = what.into();
        println!("{what}");
        self.skipped.retain(|it| *it != what);
        self.skipped.push(what);
    }

    /// The median of what was measured.
    pub(crate) fn median(&self, part: &str, who: &str, tenants: usize) -> Option<f64> {
        self.find(part, who, tenants).map(|it| it.median)
    }

    /// `over` divided by `under` in each turn, and the median of that: whatever else the machine does is the same for
    /// neighbours. A turn in which `under` took no time is left out.
    pub(crate) fn ratio(&self, part: &str, over: &str, under: &str, tenants: usize) -> Option<f64> {
        let over = &self.find(part, over, tenants)?.values;
        let under = &self.find(part, under, tenants)?.values;
        let pairs = over.iter().zip(under).map(|(over, under)| over / under);
        let ratios = Samples(pairs.filter(|ratio| ratio.is_finite()).collect());
        Some(ratios.median())
    }

    pub(crate) fn find(&self, part: &str, who: &str, tenants: usize) -> Option<&Measurement> {
        let same = |it: &&Measurement| it.part == part && it.who == who && it.tenants == tenants;
        self.measurements.iter().find(same)
    }

    /// Judges what is there by the goals, and says it.
    pub(crate) fn judge(&mut self) {
        self.goals = goals::judge(self);
        println!();
        for goal in &self.goals {
            println!("{goal}");
        }
    }
}
