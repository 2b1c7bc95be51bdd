//! The form of a line.

/// How a figure is judged.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

/// Prints figures as they come and remembers whether one was short.
#[derive(Default)]
pub(crate) struct Report {
    short: bool,
}

impl Report {
    /// Prints `id  value  unit  goal  ok|short`, tab-separated.
    pub(crate) fn figure(&mut self, id: &str, value: f64, unit: &str, goal: Goal) {
        let (text, reached) = match goal {
            Goal::AtMost(most) => (format!("<= {most}"), value <= most),
            Goal::AtLeast(least) => (format!(">= {least}"), value >= least),
        };
        self.short |= !reached;
        println!("{id}\t{}\t{unit}\t{text}\t{}", rounded(value), if reached { "ok" } else { "short" });
    }

    /// Prints the line of a figure that was not measured, and why.
    pub(crate) fn absent(&mut self, id: &str, unit: &str, why: &str) {
        note(&format!("{id}: {why}"));
        println!("{id}\t-\t{unit}\t-\tabsent");
    }

    /// Whether a goal was missed.
    pub(crate) fn is_short(&self) -> bool {
        self.short
    }
}

fn rounded(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.2}") }
}

/// Prints something worth knowing beside the figures.
pub(crate) fn note(text: &str) {
    println!("# {text}");
}
