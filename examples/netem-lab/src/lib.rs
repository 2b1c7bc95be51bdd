//! The lab: a small real cluster on one machine, with network delay between its nodes, and
//! scenarios to run on it.

pub mod burst;
pub mod cleanup;
pub mod cluster;
pub mod conformance;
pub mod experiment;
pub mod faults;
pub mod images;
pub mod load;
pub mod report;
pub mod run;
pub mod scenario;
pub mod state;
pub mod wire;
