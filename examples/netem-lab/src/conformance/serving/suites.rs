//! Which suites there are, and in which parts they run. Plain data.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::scenario::{KANTAI_CLASS, KPA_CLASS};

/// One of Serving's own suites: the tests of one package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServingSuite {
    /// What the API promises: `test/conformance/api/v1`.
    Api,
    /// What a container may rely on: `test/conformance/runtime`.
    Runtime,
    /// The whole at work: `test/e2e`.
    E2e,
}

impl ServingSuite {
    /// All of them, the short ones first.
    pub const ALL: [ServingSuite; 3] = [ServingSuite::Api, ServingSuite::Runtime, ServingSuite::E2e];

    /// The folder of its package in Serving's module. Names of tests begin with it: two suites have
    /// tests of one name.
    #[must_use]
    pub fn package(self) -> &'static str {
        match self {
            ServingSuite::Api => "test/conformance/api/v1",
            ServingSuite::Runtime => "test/conformance/runtime",
            ServingSuite::E2e => "test/e2e",
        }
    }

    /// Its short name, also of its files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ServingSuite::Api => "api",
            ServingSuite::Runtime => "runtime",
            ServingSuite::E2e => "e2e",
        }
    }
}

impl fmt::Display for ServingSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A part of the comparison, with a cluster of its own. The ingress is ours in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The suites with the stock autoscaler as the cluster's default class.
    Stock,
    /// The suites with our class as the default.
    Ours,
    /// The tests that fit the stock class alone by construction, with our class.
    Enacted,
}

impl Part {
    /// All of them, in the order in which they run.
    pub const ALL: [Part; 3] = [Part::Stock, Part::Ours, Part::Enacted];

    /// Its name, also of its folder.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Part::Stock => "stock",
            Part::Ours => "ours",
            Part::Enacted => "enacted",
        }
    }

    /// The autoscaling class of revisions that name none.
    #[must_use]
    pub fn class(self) -> &'static str {
        match self {
            Part::Stock => KPA_CLASS,
            Part::Ours | Part::Enacted => KANTAI_CLASS,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
