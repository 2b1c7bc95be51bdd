//! Reads keys of a ConfigMap or annotations, and notes what is wrong with them.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use super::go_value;

/// Text of others is shown up to this many characters.
const SHOWN: usize = 60;

pub(super) struct Reader<'a> {
    data: &'a BTreeMap<String, String>,
    pub(super) problems: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(data: &'a BTreeMap<String, String>) -> Self {
        Self { data, problems: Vec::new() }
    }

    /// The first of `keys` that is there, and its value.
    pub(super) fn text<'k>(&self, keys: &[&'k str]) -> Option<(&'k str, &'a str)> {
        keys.iter().find_map(|key| self.data.get(*key).map(|text| (*key, text.as_str())))
    }

    /// The value of the first of `keys` that is there, where `parse` reads it and `is_valid` allows
    /// it. Else a problem is noted, where there is a value: it must be `rule`.
    pub(super) fn value<T>(
        &mut self,
        keys: &[&str],
        parse: impl Fn(&str) -> Option<T>,
        is_valid: impl Fn(&T) -> bool,
        rule: &str,
    ) -> Option<T> {
        let (key, text) = self.text(keys)?;
        let value = parse(text).filter(is_valid);
        if value.is_none() {
            self.refuse(key, text, rule);
        }
        value
    }

    pub(super) fn bool(&mut self, key: &str) -> Option<bool> {
        self.value(&[key], go_value::parse_bool, |_| true, "true or false")
    }

    pub(super) fn float(&mut self, keys: &[&str], is_valid: impl Fn(f64) -> bool, rule: &str) -> Option<f64> {
        self.value(keys, go_value::parse_float, |value| is_valid(*value), rule)
    }

    /// A count of pods.
    pub(super) fn count(&mut self, keys: &[&str], least: u32) -> Option<u32> {
        let count = |text: &str| go_value::parse_int(text).and_then(|count| u32::try_from(count).ok());
        self.value(keys, count, |count| *count >= least, &format!("a whole number from {least} to {}", i32::MAX))
    }

    pub(super) fn duration(&mut self, keys: &[&str], is_valid: impl Fn(Duration) -> bool, rule: &str) -> Option<Duration> {
        self.value(keys, go_value::parse_duration, |value| is_valid(*value), rule)
    }

    /// Notes that the value of `key` must be `rule`.
    pub(super) fn refuse(&mut self, key: &str, text: impl Display, rule: impl Display) {
        let text: String = text.to_string().chars().take(SHOWN).collect();
        self.problems.push(format!("{key}: {text:?} is ignored, it must be {rule}"));
    }
}

pub(super) fn is_whole_seconds(duration: Duration) -> bool {
    duration.subsec_nanos() == 0
}
