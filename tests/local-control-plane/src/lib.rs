//! Real parts on this machine, shared by the tests and the lab.
//!
//! - [`components`]: stock programs, found or built once, in a cache outside the clone.
//! - [`control_plane`]: etcd, kube-apiserver and the stock controllers as processes.
//! - [`progress`]: what takes minutes is shown line by line.
//! - [`nested_cargo`]: builds of our own programs.

pub mod components;
pub mod control_plane;
pub mod nested_cargo;
pub mod progress;
