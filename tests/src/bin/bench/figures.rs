//! Series of measurements, and the table that they end in.

use std::fmt::Write;

/// Measurements of one thing.
#[derive(Clone, Default, Debug)]
pub struct Series(pub Vec<f64>);

impl Series {
    /// Adds one.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// The value below which that share lies; 0 when there is none.
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = (sorted.len() as f64 * share) as usize;
        sorted.get(at.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// `min / median / max`, with so many digits behind the point.
    pub fn spread(&self, digits: usize) -> String {
        let (low, middle, high) = (self.quantile(0.0), self.median(), self.quantile(1.0));
        if self.0.is_empty() {
            return "–".to_owned();
        }
        format!("{low:.digits$} / **{middle:.digits$}** / {high:.digits$}")
    }

    /// Each measurement divided by its partner of the same round.
    pub fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).filter(|(_, b)| **b > 0.0).map(|(a, b)| a / b).collect())
    }

    /// Each measurement less its partner of the same round.
    pub fn minus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a - b).collect())
    }
}

/// A figure to reach.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// At most.
    Most(f64),
    /// At least.
    Least(f64),
    /// Shown for orientation.
    None,
}

impl Goal {
    fn text(self) -> String {
        match self {
            Self::Most(goal) => format!("≤ {goal}"),
            Self::Least(goal) => format!("≥ {goal}"),
            Self::None => "–".to_owned(),
        }
    }

    fn is_reached(self, value: f64) -> Option<bool> {
        match self {
            Self::Most(goal) => Some(value <= goal),
            Self::Least(goal) => Some(value >= goal),
            Self::None => None,
        }
    }
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured, with its unit.
    pub what: String,
    /// The product; each as `min / median / max` of the rounds.
    pub ours: String,
    /// What it is compared with, each with its name.
    pub others: Vec<(&'static str, String)>,
    /// The figure that counts: what it is, and its value.
    pub figure: Option<(&'static str, f64)>,
    /// What it should be.
    pub goal: Goal,
}

/// All lines, in the order in which they were measured.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

impl Table {
    /// Adds a line, and prints it.
    pub fn add(&mut self, row: Row) {
        println!("   {}", line(&row).replace("**", ""));
        self.rows.push(row);
    }

    /// Lines whose figure was missed.
    pub fn missed(&self) -> usize {
        self.rows.iter().filter(|row| verdict(row) == "**no**").count()
    }

    /// Lines with a figure to reach.
    pub fn judged(&self) -> usize {
        self.rows.iter().filter(|row| matches!(verdict(row), "yes" | "**no**")).count()
    }

    /// The table in Markdown.
    pub fn markdown(&self) -> String {
        let mut out = String::from(
            "| what | ClaudeNest | beside it, in the same run | figure | wanted | reached |\n|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let _ = writeln!(out, "{}", line(row));
        }
        out
    }
}

fn verdict(row: &Row) -> &'static str {
    match row.figure.and_then(|(_, value)| row.goal.is_reached(value)) {
        Some(true) => "yes",
        Some(false) => "**no**",
        None => "",
    }
}

fn line(row: &Row) -> String {
    let others: Vec<String> = row.others.iter().map(|(name, value)| format!("{name} {value}")).collect();
    let figure = row.figure.map_or_else(String::new, |(name, value)| format!("{} {name}", short(value)));
    format!(
        "| {} | {} | {} | {} | {} | {} |",
        row.what,
        row.ours,
        others.join("; "),
        figure.trim(),
        row.goal.text(),
        verdict(row)
    )
}

/// A number with as many digits as say something.
pub fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
