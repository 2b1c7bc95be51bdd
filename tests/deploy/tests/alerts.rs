//! The alert rules, run by promtool.

use deploy_checks::tools::Tools;

#[test]
fn the_rules_are_understood() -> anyhow::Result<()> {
    let said = Tools::get()?.promtool(&["check", "rules", "rules.yaml"])?;
    assert!(said.contains("rules found"), "{said}");
    Ok(())
}

/// Each fires on its series and resolves after them: `rules.test.yaml`.
#[test]
fn the_rules_fire_and_resolve() -> anyhow::Result<()> {
    let said = Tools::get()?.promtool(&["test", "rules", "rules.test.yaml"])?;
    assert!(said.contains("SUCCESS") && !said.contains("FAILED"), "{said}");
    Ok(())
}
