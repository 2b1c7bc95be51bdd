//! The settings of Knative's under which the suites run. Pure, but for files that are read.

use std::path::Path;

use serde_json::Value;

use super::{Part, ServingSuiteError};
use crate::cluster::Setting;

/// Where upstream keeps the settings that it tests with, one ConfigMap per file.
const FOLDER: &str = "test/config/ytt/core";
/// Those that a test asks for. The rest is about logs, or about machines larger than ours.
const CONFIGS: [&str; 3] = ["config-deployment", "config-domain", "config-observability"];

/// The settings of `part`: upstream's, the class, and nothing of the lab's haste.
pub(super) fn of_part(source: &Path, part: Part) -> Result<Vec<Setting>, ServingSuiteError> {
    let mut settings = Vec::new();
    for config in CONFIGS {
        let path = source.join(FOLDER).join(format!("overlay-{config}.yaml"));
        let text = std::fs::read_to_string(&path).map_err(|source| ServingSuiteError::Source { path: path.clone(), source })?;
        settings.extend(parse(config, &text).map_err(|problem| ServingSuiteError::Settings { path, problem })?);
    }
    let setting = |config: &str, key: &str, value: &str| Setting {
        config: config.to_owned(),
        key: key.to_owned(),
        value: value.to_owned(),
    };
    settings.push(setting("config-autoscaler", "pod-autoscaler-class", part.class()));
    // As shipped. Tests wait for a multiple of it.
    settings.push(setting("config-autoscaler", "scale-to-zero-grace-period", "30s"));
    settings.push(setting("config-autoscaler", "allow-zero-initial-scale", "false"));
    Ok(settings)
}

/// The settings in a file of upstream's: the `data` of its document, where they are all texts.
fn parse(config: &str, text: &str) -> Result<Vec<Setting>, String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| error.to_string())?;
    let data = documents.iter().find_map(|document| document.get("data")?.as_object()).ok_or("no data")?;
    let setting = |(key, value): (&String, &Value)| {
        let value = match value {
            Value::String(value) => value.clone(),
            // A key without a value, as YAML has it.
            Value::Null => String::new(),
            other => return Err(format!("{key} is {other}, not a text")),
        };
        Ok(Setting { config: config.to_owned(), key: key.clone(), value })
    };
    data.iter().map(setting).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_settings_are_read_from_between_its_templates() {
        let text = "#@ load(\"helpers\", \"config\")\n#@overlay/match expects=1\n---\n#@overlay/match-child-defaults\ndata:\n  progress-deadline: \"120s\"\n  example.com: |\n";
        let settings = parse("config-x", text).unwrap();
        let pairs: Vec<_> = settings.iter().map(|setting| (setting.key.as_str(), setting.value.as_str())).collect();
        assert_eq!(pairs, [("example.com", ""), ("progress-deadline", "120s")]);
        assert!(settings.iter().all(|setting| setting.config == "config-x"));
    }

    #[test]
    fn what_is_not_understood_is_an_error_and_not_no_settings() {
        assert_eq!(parse("c", "kind: A\n").unwrap_err(), "no data");
        assert_eq!(parse("c", "data:\n  a: 5\n").unwrap_err(), "a is 5, not a text");
    }
}
