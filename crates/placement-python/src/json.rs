//! Plain data between Python and the library: JSON, as Python's own module writes and reads it.

use std::fmt::Display;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What the library refuses, as Python says it.
pub(crate) fn refused(error: impl Display) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Data of the library from an object of dicts, lists, numbers and texts.
pub(crate) fn read<T: DeserializeOwned>(object: &Bound<'_, PyAny>) -> PyResult<T> {
    let text = object.py().import("json")?.call_method1("dumps", (object,))?;
    serde_json::from_str(text.extract::<&str>()?).map_err(refused)
}

/// The same the other way.
pub(crate) fn write<'py>(py: Python<'py>, data: &impl Serialize) -> PyResult<Bound<'py, PyAny>> {
    let text = serde_json::to_string(data).map_err(refused)?;
    py.import("json")?.call_method1("loads", (text,))
}
