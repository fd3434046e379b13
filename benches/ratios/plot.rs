//! The plot: time against the number of tenants for a rollout and for nothing to do, and bars for a new tenant.
//! All scales are logarithmic. Colours follow the reader's choice of light or dark.

use std::fmt::Write as _;

use crate::{peers::PEERS, report::Report, stats::count};

const STYLE: &str = include_str!("plot.css");
/// Height of a plotted area, and where it begins.
const HEIGHT: f64 = 280.0;
const TOP: f64 = 60.0;
const WIDTH: f64 = 230.0;
/// Labels closer than this would cover each other.
const APART: f64 = 14.0;

/// One line of a panel, in milliseconds by tenants.
struct Line {
    label: String,
    class: &'static str,
    /// Worked out of a sample.
    guessed: bool,
    points: Vec<(f64, f64)>,
}

/// A logarithmic scale from values to places.
#[derive(Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Scale {
    /// Whole powers of ten around these values.
    fn around(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min).log10().floor();
        let high = values.fold(0.0, f64::max).log10().ceil();
        Self {
            low,
            high: high.max(low + 1.0),
            from,
            to,
        }
    }

    /// From the smallest of these values to the largest.
    fn over(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min).log10();
        let high = values.fold(0.0, f64::max).log10();
        Self {
            low,
            high: high.max(low + 0.1),
            from,
            to,
        }
    }

    fn at(&self, value: f64) -> f64 {
        self.from + (value.log10() - self.low) / (self.high - self.low) * (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (low, high) = (self.low, self.high);
        std::iter::successors(Some((low - 0.001).ceil()), |it| Some(it + 1.0))
            .take_while(move |it| *it <= high + 0.001)
            .map(|it| 10_f64.powf(it))
    }
}

pub(crate) fn draw(report: &Report) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 1160 400\" role=\"img\" \
         aria-label=\"tenantd, bare SQL and other tools: time of a rollout, of nothing to do, and of a new tenant\">\n\
         <style>\n{STYLE}</style>\n"
    );
    panel(
        &mut svg,
        60.0,
        "One ADD COLUMN for every tenant",
        &rollout(report),
    );
    panel(
        &mut svg,
        440.0,
        "Nothing to do: who is not at head?",
        &nothing(report),
    );
    bars(&mut svg, 930.0, report);
    let _ = writeln!(
        svg,
        "<text class=\"small\" x=\"60\" y=\"392\">dashed: worked out of the time a tenant in a sample</text>\n</svg>"
    );
    svg
}

fn sizes(report: &Report, part: &str, who: &str) -> Vec<(usize, f64)> {
    let found = report
        .measurements
        .iter()
        .filter(|it| it.part == part && it.who == who);
    let mut sizes: Vec<_> = found.map(|it| (it.tenants, it.median)).collect();
    sizes.sort_by_key(|it| it.0);
    sizes
}

fn line(label: &str, class: &'static str, points: Vec<(f64, f64)>) -> Line {
    Line {
        label: label.to_owned(),
        class,
        guessed: false,
        points,
    }
}

fn rollout(report: &Report) -> Vec<Line> {
    let time = |(tenants, rate): (usize, f64)| (count(tenants), count(tenants) / rate * 1000.0);
    let of = |who: &str| -> Vec<_> {
        sizes(report, "ADD COLUMN", who)
            .into_iter()
            .map(time)
            .collect()
    };
    let mut lines = vec![
        line("tenantd", "tenantd", of("tenantd daemon")),
        line("bare SQL", "bare", of("bare SQL, asynchronous")),
    ];
    lines.extend(peers(report, "ADD COLUMN a tenant"));
    lines
}

fn nothing(report: &Report) -> Vec<Line> {
    let of = |part: &str, who: &str| -> Vec<_> {
        sizes(report, part, who)
            .into_iter()
            .map(|(tenants, ms)| (count(tenants), ms))
            .collect()
    };
    let mut lines = vec![
        line(
            "tenantd, head check",
            "tenantd",
            of("head check", "tenantd"),
        ),
        line(
            "tenantd, full sweep",
            "tenantd",
            of("full sweep", "tenantd"),
        ),
        line("bare query", "bare", of("head check", "bare SQL")),
        line("bare query, full", "bare", of("full sweep", "bare SQL")),
    ];
    lines.extend(peers(report, "nothing to do a tenant"));
    lines
}

fn peers(report: &Report, part: &str) -> Vec<Line> {
    let smallest = report
        .measurements
        .iter()
        .map(|it| it.tenants)
        .filter(|it| *it > 1)
        .min()
        .unwrap_or(100);
    let lines = PEERS.iter().filter_map(|who| {
        let each = report.median(part, who, 0)?;
        let points =
            [smallest, report.tenants].map(|tenants| (count(tenants), each * count(tenants)));
        Some(Line {
            label: (*who).to_owned(),
            class: who,
            guessed: true,
            points: points.into(),
        })
    });
    lines.collect()
}

fn panel(svg: &mut String, left: f64, title: &str, lines: &[Line]) {
    let lines: Vec<_> = lines
        .iter()
        .filter(|line| !line.points.is_empty())
        .collect();
    let points = || lines.iter().flat_map(|line| &line.points);
    let _ = writeln!(
        svg,
        "<text class=\"title\" x=\"{left}\" y=\"30\">{title}</text>"
    );
    if lines.is_empty() {
        let _ = writeln!(
            svg,
            "<text class=\"small\" x=\"{left}\" y=\"50\">not measured</text>"
        );
        return;
    }
    let across = Scale::over(points().map(|it| it.0), left, left + WIDTH);
    let up = Scale::around(points().map(|it| it.1), TOP + HEIGHT, TOP);
    for tick in up.ticks() {
        let y = up.at(tick);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{left}\" x2=\"{:.0}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            left + WIDTH
        );
        let _ = writeln!(
            svg,
            "<text class=\"small\" text-anchor=\"end\" x=\"{:.0}\" y=\"{:.1}\">{}</text>",
            left - 6.0,
            y + 4.0,
            time(tick)
        );
    }
    for tick in across.ticks() {
        let x = across.at(tick);
        let _ = writeln!(
            svg,
            "<text class=\"small\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.0}\">{tick}</text>",
            TOP + HEIGHT + 18.0
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"small\" text-anchor=\"middle\" x=\"{:.0}\" y=\"{:.0}\">tenants</text>",
        left + WIDTH / 2.0,
        TOP + HEIGHT + 34.0
    );
    let mut labels = Vec::new();
    for line in lines {
        let points: Vec<_> = line
            .points
            .iter()
            .map(|it| format!("{:.1},{:.1}", across.at(it.0), up.at(it.1)))
            .collect();
        let dash = if line.guessed { " dash" } else { "" };
        let _ = writeln!(
            svg,
            "<polyline class=\"line {}{dash}\" points=\"{}\"/>",
            line.class,
            points.join(" ")
        );
        let last = line.points.last().copied().unwrap_or_default();
        labels.push((up.at(last.1), across.at(last.0), line));
    }
    label(svg, labels);
}

/// Beside the ends of the lines, from below upwards, moved where they would cover each other.
fn label(svg: &mut String, mut labels: Vec<(f64, f64, &Line)>) {
    labels.sort_by(|one, other| other.0.total_cmp(&one.0));
    let mut free = f64::INFINITY;
    for (y, x, line) in labels {
        let y = y.min(free);
        free = y - APART;
        let _ = writeln!(
            svg,
            "<text class=\"{}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            line.class,
            x + 6.0,
            y + 4.0,
            line.label
        );
    }
}

fn bars(svg: &mut String, left: f64, report: &Report) {
    let _ = writeln!(
        svg,
        "<text class=\"title\" x=\"{:.0}\" y=\"30\">New tenant, 40 files</text>",
        left - 110.0
    );
    let new = |who: &str| report.median("new tenant", who, 0);
    let claim = |who: &str| report.median("insert to ready, by rename", who, 0);
    let mut bars = vec![
        ("bare rename", "bare", claim("bare SQL")),
        ("tenantd, spare", "tenantd", claim("tenantd with spares")),
        ("bare SQL", "bare", new("bare SQL")),
        ("tenantd", "tenantd", new("tenantd")),
    ];
    bars.extend(PEERS.map(|who| (who, who, new(who))));
    let bars: Vec<_> = bars
        .into_iter()
        .filter_map(|(label, class, ms)| Some((label, class, ms?)))
        .collect();
    if bars.is_empty() {
        return;
    }
    let across = Scale::around(bars.iter().map(|it| it.2), left, left + WIDTH - 60.0);
    for tick in across.ticks() {
        let x = across.at(tick);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.0}\"/>",
            TOP + HEIGHT
        );
        let _ = writeln!(
            svg,
            "<text class=\"small\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.0}\">{}</text>",
            TOP + HEIGHT + 18.0,
            time(tick)
        );
    }
    let step = HEIGHT / count(bars.len());
    let mut y = TOP;
    for (label, class, ms) in bars {
        let (end, middle) = (across.at(ms), y + step / 2.0 + 4.0);
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{left}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" rx=\"2\"/>",
            y + step * 0.2,
            (end - left).max(1.0),
            step * 0.6
        );
        let _ = writeln!(
            svg,
            "<text text-anchor=\"end\" x=\"{:.0}\" y=\"{middle:.1}\">{label}</text>",
            left - 6.0
        );
        let _ = writeln!(
            svg,
            "<text class=\"small\" x=\"{:.1}\" y=\"{middle:.1}\">{}</text>",
            end + 6.0,
            time(ms)
        );
        y += step;
    }
}

/// Milliseconds as people say them, with two digits.
pub(crate) fn time(ms: f64) -> String {
    let (value, unit) = match ms {
        ms if ms >= 1000.0 => (ms / 1000.0, "s"),
        ms => (ms, "ms"),
    };
    if value >= 10.0 || (value - value.round()).abs() < 0.05 {
        format!("{value:.0} {unit}")
    } else if value >= 1.0 {
        format!("{value:.1} {unit}")
    } else {
        let text = format!("{value:.3}");
        format!("{} {unit}", text.trim_end_matches('0'))
    }
}
