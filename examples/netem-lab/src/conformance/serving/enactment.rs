//! The tests that fit the stock autoscaler alone by construction, changed so that they judge our
//! class. Pure.
//!
//! They are Serving's own, read from its module's folder when the lab is prepared. What is changed
//! is which class they ask for and how they count pods; loads, times and bounds stay as they are. A
//! change that no longer finds its place is an error, and not a test that judges something else.

use local_control_plane::components::SourceFile;

/// Why a test fits the stock autoscaler alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    PinsClass,
    PinsClassAndReadsDeployment,
    ReadsDeployment,
}

impl Reason {
    fn in_words(self) -> &'static str {
        match self {
            Reason::PinsClass => "its services name the stock class, whatever the cluster's default is",
            Reason::PinsClassAndReadsDeployment => {
                "its services name the stock class, and it judges the scale by the replicas of the Deployment"
            }
            Reason::ReadsDeployment => "it judges the scale by the replicas of the Deployment, and our pods are a Seika's",
        }
    }
}

/// The tests of `test/e2e` that are enacted again.
const TESTS: [(&str, Reason); 10] = [
    ("TestActivationScale", Reason::PinsClass),
    ("TestAutoscaleSustaining", Reason::PinsClassAndReadsDeployment),
    ("TestAutoscaleUpCountPods", Reason::PinsClassAndReadsDeployment),
    ("TestAutoscaleUpDownUp", Reason::PinsClassAndReadsDeployment),
    ("TestFastScaleToZero", Reason::PinsClass),
    ("TestGRPCAutoscaleUpDownUp", Reason::ReadsDeployment),
    ("TestRPSBasedAutoscaleUpCountPods", Reason::PinsClassAndReadsDeployment),
    ("TestTargetBurstCapacity", Reason::PinsClassAndReadsDeployment),
    ("TestTargetBurstCapacityMinusOne", Reason::PinsClass),
    ("TestTargetBurstCapacityZero", Reason::PinsClassAndReadsDeployment),
];

/// The environment variable with the class that the changed tests use.
pub(super) const CLASS_VARIABLE: &str = "ENACTED_CLASS";

/// What the changed tests call instead of Serving's own helpers.
const HELPERS: &str = include_str!("pods.go");

/// A change of one line of Serving's tests.
struct Edit {
    file: &'static str,
    /// What stands there, once in the file.
    from: &'static str,
    to: &'static str,
}

const EDITS: [Edit; 5] = [
    Edit { file: "autoscale.go", from: " aopts.Class,", to: " enactedClass," },
    Edit { file: "autoscale.go", from: "func numberOfReadyPods(", to: "func numberOfReadyReplicas(" },
    Edit { file: "autoscale.go", from: "WaitForScaleToZero(ctx.t, deploymentName, ctx.clients)", to: "waitForNoPods(ctx)" },
    Edit { file: "autoscale.go", from: "strings.Contains(pod.Name, deploymentName)", to: "isOfRevision(ctx, pod)" },
    Edit { file: "autoscale_test.go", from: "return d.Status.ReadyReplicas == 0, nil", to: "return hasNoReadyPods(ctx)" },
];

/// Why the tests cannot be changed.
#[derive(Debug, thiserror::Error)]
#[error("failed to change {file} of Serving's tests: {from:?} stands in it {times} times, not once")]
pub struct EnactmentError {
    file: &'static str,
    from: &'static str,
    times: usize,
}

/// The names of the tests that fit the stock autoscaler alone, each with the reason in words.
pub fn tests() -> impl Iterator<Item = (&'static str, &'static str)> {
    TESTS.iter().map(|(name, reason)| (*name, reason.in_words()))
}

/// The files of Serving's package `test/e2e`, changed, and ours.
///
/// # Errors
/// When a change does not find its place.
pub fn change(mut files: Vec<SourceFile>) -> Result<Vec<SourceFile>, EnactmentError> {
    for edit in &EDITS {
        let text = files.iter_mut().find(|(name, _)| name == edit.file).map(|(_, text)| text);
        let times = text.as_ref().map_or(0, |text| text.matches(edit.from).count());
        match text {
            Some(text) if times == 1 => *text = text.replace(edit.from, edit.to),
            _ => return Err(EnactmentError { file: edit.file, from: edit.from, times }),
        }
    }
    files.push(("enacted_pods.go".to_owned(), HELPERS.to_owned()));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served() -> Vec<SourceFile> {
        let of = |file: &str| {
            let lines: Vec<_> = EDITS.iter().filter(|edit| edit.file == file).map(|edit| edit.from).collect();
            (file.to_owned(), lines.join("\n"))
        };
        vec![of("autoscale.go"), of("autoscale_test.go"), ("grpc_test.go".to_owned(), "as it was".to_owned())]
    }

    #[test]
    fn the_class_and_the_counting_are_changed_and_nothing_else() {
        let changed = change(served()).unwrap();
        let text = |name: &str| &changed.iter().find(|(file, _)| file == name).unwrap().1;
        assert_eq!(text("grpc_test.go"), "as it was");
        assert!(text("autoscale.go").contains("enactedClass"));
        assert!(text("enacted_pods.go").contains(CLASS_VARIABLE));
        for edit in &EDITS {
            let called = edit.to.trim_start_matches("return ").split('(').next().unwrap();
            assert!(text(edit.file).contains(edit.to), "{called}");
        }
    }

    #[test]
    fn a_test_that_was_written_anew_is_an_error() {
        let without = served().into_iter().filter(|(name, _)| name != "autoscale_test.go").collect();
        assert_eq!(change(without).unwrap_err().times, 0);
        let mut twice = served();
        twice[0].1.push_str("\n aopts.Class,");
        assert_eq!(change(twice).unwrap_err().times, 2);
    }

    #[test]
    fn each_test_is_listed_once_with_its_reason() {
        let names: std::collections::BTreeSet<_> = tests().map(|(name, _)| name).collect();
        assert_eq!(names.len(), TESTS.len());
        assert!(tests().all(|(name, reason)| name.starts_with("Test") && !reason.is_empty()));
    }
}
