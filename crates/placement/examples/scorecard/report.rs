//! The form of a line.

/// How a figure is judged.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
}

/// Prints `id  value  unit  goal  ok|short`, tab-separated.
pub(crate) fn line(id: &str, value: f64, unit: &str, goal: Goal) {
    let (text, reached) = match goal {
        Goal::AtMost(most) => (format!("<= {most}"), value <= most),
        Goal::AtLeast(least) => (format!(">= {least}"), value >= least),
    };
    println!("{id}\t{value:.4}\t{unit}\t{text}\t{}", if reached { "ok" } else { "short" });
}

/// Prints the line of a figure that needs data which is not there.
pub(crate) fn absent(id: &str, unit: &str) {
    println!("{id}\t-\t{unit}\t-\tabsent");
}

/// Prints something worth knowing beside the figures; starts with `#`.
pub(crate) fn note(text: &str) {
    println!("# {text}");
}

/// Says on standard error what is computed now.
pub(crate) fn progress(text: &str) {
    eprintln!("{text} ...");
}
