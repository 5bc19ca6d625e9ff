//! One line of the result.

use std::fmt;

pub(super) const HEAD: &str = "# name value baseline ratio goal ok|short";

/// What must hold of a measure.
#[derive(Debug, Clone, Copy)]
pub(super) enum Goal {
    ValueAtMost(f64),
    RatioAtMost(f64),
    RatioAtLeast(f64),
    /// Told for comparison only.
    None,
}

/// A measure beside its baseline.
#[derive(Debug, Clone)]
pub struct Line {
    name: String,
    unit: &'static str,
    value: f64,
    baseline: Option<f64>,
    goal: Goal,
}

impl Line {
    pub(super) fn new(name: &str, unit: &'static str, value: f64, baseline: Option<f64>, goal: Goal) -> Self {
        Self { name: name.to_owned(), unit, value, baseline, goal }
    }

    fn ratio(&self) -> Option<f64> {
        self.baseline.map(|baseline| self.value / baseline)
    }

    /// Whether the goal was met.
    pub fn good(&self) -> bool {
        let ratio = self.ratio();
        match self.goal {
            Goal::ValueAtMost(most) => self.value <= most,
            Goal::RatioAtMost(most) => ratio.is_some_and(|ratio| ratio <= most),
            Goal::RatioAtLeast(least) => ratio.is_some_and(|ratio| ratio >= least),
            Goal::None => true,
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |value: f64| match value.abs() {
            0.0..10.0 => format!("{value:.3}"),
            10.0..1000.0 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        };
        let unit = self.unit;
        let baseline = self.baseline.map_or("-".to_owned(), |b| format!("{}{unit}", number(b)));
        let ratio = self.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let goal = match self.goal {
            Goal::ValueAtMost(most) => format!("<={}{unit}", number(most)),
            Goal::RatioAtMost(most) => format!("<={most}x"),
            Goal::RatioAtLeast(least) => format!(">={least}x"),
            Goal::None => "-".to_owned(),
        };
        let verdict = if self.good() { "ok" } else { "short" };
        write!(f, "{} {}{unit} {baseline} {ratio} {goal} {verdict}", self.name, number(self.value))
    }
}

/// The value below which `share` of the sorted values lie.
pub(super) fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    let at = (last as f64 * share).round() as usize;
    values.get(at.min(last)).copied().unwrap_or(f64::NAN)
}

pub(super) fn median(values: &mut [f64]) -> f64 {
    percentile(values, 0.5)
}
