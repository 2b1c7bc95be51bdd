//! A daemon's page of metrics, as far as single numbers of it are asked for.

/// The number of the series `name` that has the label `key="value"`; of any series of that name
/// without `label`. `None` where the page has no such series.
///
/// The daemons' label values are names of nodes and inputs, which need no escapes.
pub(crate) fn number(page: &str, name: &str, label: Option<(&str, &str)>) -> Option<f64> {
    series(page, name).find(|one| label.is_none_or(|(key, value)| one.label(key) == Some(value))).map(|one| one.value)
}

/// One series of a page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Series<'a> {
    labels: &'a str,
    pub(crate) value: f64,
}

impl<'a> Series<'a> {
    /// The value of a label.
    pub(crate) fn label(&self, key: &str) -> Option<&'a str> {
        self.labels
            .split(',')
            .find_map(|label| label.split_once('=').filter(|(name, _)| *name == key)?.1.strip_prefix('"')?.strip_suffix('"'))
    }
}

/// All series of this name.
pub(crate) fn series<'a>(page: &'a str, name: &str) -> impl Iterator<Item = Series<'a>> {
    page.lines().filter_map(move |line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once('}')?,
            None => ("", rest),
        };
        // Behind the value a timestamp may follow.
        let value = value.strip_prefix(' ')?.split(' ').next()?.parse().ok()?;
        Some(Series { labels, value })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP behind_seconds x\n# TYPE behind_seconds gauge\nbehind_seconds{node=\"node1\"} 0\n\
        behind_seconds{node=\"node2\",more=\"x\"} 12.5 1700000000\nbehind_seconds_more 3\nleading 1\n# EOF\n";

    #[test]
    fn numbers_are_found_by_name_and_label() {
        assert_eq!(number(PAGE, "behind_seconds", Some(("node", "node2"))), Some(12.5));
        assert_eq!(number(PAGE, "leading", None), Some(1.0));
        assert_eq!(series(PAGE, "behind_seconds").count(), 2);
    }

    #[test]
    fn what_is_not_said_is_not_zero() {
        assert_eq!(number(PAGE, "behind_seconds", Some(("node", "node3"))), None);
        assert_eq!(number(PAGE, "behind", None), None);
        assert_eq!(number("", "leading", None), None);
    }
}
