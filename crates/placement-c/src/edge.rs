//! Where C and Rust meet: pointers become references after a look at them, failures and panics
//! become statuses.

use std::any::Any;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use placement::NodeName;
use placement::latency::MatrixError;
use placement::problem::{ProblemError, SpecError};
use thiserror::Error;

/// How a call ended.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KantaiStatus {
    /// All went well.
    Ok = 0,
    /// A pointer is NULL or not aligned.
    Pointer = 1,
    /// A text is not UTF-8.
    Text = 2,
    /// A count does not fit: too large, or not that of the nodes.
    Length = 3,
    /// A position beyond the list of nodes.
    Position = 4,
    /// Data that cannot be true or read. The error text says what.
    Invalid = 5,
    /// A fault of this library.
    Panic = 6,
}

/// Why a call failed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    #[error("failed to read {0}: the pointer is NULL or not aligned")]
    Pointer(&'static str),
    #[error("failed to read {0}: the text is not UTF-8")]
    Text(&'static str),
    #[error("failed to read {what}: {found} instead of {expected}")]
    Length { what: &'static str, found: usize, expected: usize },
    #[error("failed to read {what}: {count} of them cannot be in memory")]
    TooMany { what: &'static str, count: usize },
    #[error("failed to find a pair of nodes: {from} or {to} is beyond the {nodes} nodes")]
    Position { from: usize, to: usize, nodes: usize },
    #[error("failed to read {what}: {value} is none of its values")]
    Choice { what: &'static str, value: u32 },
    #[error("failed to read or write JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("failed to read the problem: there are costs in it and beside it")]
    CostsTwice,
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Problem(#[from] ProblemError),
    #[error("failed to compute: {0}")]
    Panic(String),
}

impl Failure {
    fn status(&self) -> KantaiStatus {
        match self {
            Self::Pointer(_) => KantaiStatus::Pointer,
            Self::Text(_) => KantaiStatus::Text,
            Self::Length { .. } | Self::TooMany { .. } => KantaiStatus::Length,
            Self::Position { .. } => KantaiStatus::Position,
            Self::Panic(_) => KantaiStatus::Panic,
            Self::Choice { .. } | Self::Json(_) | Self::CostsTwice | Self::Matrix(_) | Self::Spec(_) | Self::Problem(_) => {
                KantaiStatus::Invalid
            }
        }
    }
}

/// Runs the body of a function of the interface. What fails or panics there becomes a status and,
/// where the caller wants one, a text.
pub(crate) unsafe fn guard(error: *mut *mut c_char, body: impl FnOnce() -> Result<(), Failure>) -> KantaiStatus {
    let wants_text = !error.is_null() && error.is_aligned();
    if wants_text {
        // SAFETY: neither NULL nor unaligned, and the caller's by contract.
        unsafe { error.write(std::ptr::null_mut()) };
    }
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(Failure::Panic(text_of(payload.as_ref()))));
    let Err(failure) = result else { return KantaiStatus::Ok };
    if wants_text {
        // SAFETY: as above.
        unsafe { error.write(string(failure.to_string())) };
    }
    failure.status()
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without a text".to_owned())
}

/// A text for the caller, who gives it back.
pub(crate) fn string(mut text: String) -> *mut c_char {
    // Names come from C and hold no zero byte; what JSON holds is escaped.
    text.retain(|character| character != '\0');
    CString::new(text).unwrap_or_default().into_raw()
}

/// Gives back a text of this library. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kantai_string_free(text: *mut c_char) {
    if !text.is_null() {
        // SAFETY: made by `string`, and given back once by contract.
        drop(unsafe { CString::from_raw(text) });
    }
}

/// What a pointer leads to.
pub(crate) unsafe fn shared<'a, T>(pointer: *const T, what: &'static str) -> Result<&'a T, Failure> {
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(Failure::Pointer(what));
    }
    // SAFETY: neither NULL nor unaligned; a live object by contract.
    Ok(unsafe { &*pointer })
}

/// What a pointer leads to, to be changed.
pub(crate) unsafe fn exclusive<'a, T>(pointer: *mut T, what: &'static str) -> Result<&'a mut T, Failure> {
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(Failure::Pointer(what));
    }
    // SAFETY: neither NULL nor unaligned; a live object that nobody else uses now, by contract.
    Ok(unsafe { &mut *pointer })
}

/// Whether a list can be where the caller says; a list without entries may be NULL.
fn judge<T>(pointer: *const T, count: usize, what: &'static str) -> Result<(), Failure> {
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(Failure::Pointer(what));
    }
    if count > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(Failure::TooMany { what, count });
    }
    Ok(())
}

/// A list of the caller's.
pub(crate) unsafe fn list<'a, T>(pointer: *const T, count: usize, what: &'static str) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    judge(pointer, count, what)?;
    // SAFETY: judged, and so many objects by contract.
    Ok(unsafe { std::slice::from_raw_parts(pointer, count) })
}

/// A buffer of the caller's for results.
pub(crate) unsafe fn buffer<'a, T>(pointer: *mut T, count: usize, what: &'static str) -> Result<&'a mut [T], Failure> {
    if count == 0 {
        return Ok(&mut []);
    }
    judge(pointer, count, what)?;
    // SAFETY: judged, and so many objects that nobody else uses, by contract. Numbers only: any
    // bits are one.
    Ok(unsafe { std::slice::from_raw_parts_mut(pointer, count) })
}

/// A text of the caller's.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, what: &'static str) -> Result<&'a str, Failure> {
    if pointer.is_null() {
        return Err(Failure::Pointer(what));
    }
    // SAFETY: not NULL, and ended by a zero byte by contract.
    unsafe { CStr::from_ptr(pointer) }.to_str().map_err(|_| Failure::Text(what))
}

/// Names of nodes.
pub(crate) unsafe fn names(pointer: *const *const c_char, count: usize) -> Result<Vec<NodeName>, Failure> {
    const WHAT: &str = "the names of nodes";
    // SAFETY: by contract, as in `list` and `text`.
    let names = unsafe { list(pointer, count, WHAT) }?;
    names.iter().map(|name| unsafe { text(*name, WHAT) }.map(NodeName::from)).collect()
}

/// Hands a new handle to the caller.
pub(crate) fn hand_over<T>(out: &mut *mut T, value: T) {
    *out = Box::into_raw(Box::new(value));
}

/// Takes a handle back.
pub(crate) unsafe fn take_back<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: made by `hand_over`, and given back once by contract.
        drop(unsafe { Box::from_raw(handle) });
    }
}

#[cfg(test)]
mod tests {
    use std::ptr::null_mut;

    use super::*;

    fn ended(body: impl FnOnce() -> Result<(), Failure>) -> (KantaiStatus, Option<String>) {
        let mut error = null_mut();
        let status = unsafe { guard(&raw mut error, body) };
        let text = (!error.is_null()).then(|| unsafe { CStr::from_ptr(error) }.to_str().unwrap().to_owned());
        unsafe { kantai_string_free(error) };
        (status, text)
    }

    #[test]
    fn a_panic_stays_on_this_side() {
        let (status, text) = ended(|| panic!("a fault with a \0 in it"));
        assert_eq!((status, text.as_deref()), (KantaiStatus::Panic, Some("failed to compute: a fault with a  in it")));
        assert_eq!(unsafe { guard(null_mut(), || panic!("nobody listens")) }, KantaiStatus::Panic);
    }

    #[test]
    fn a_success_has_no_text_and_a_failure_has_one() {
        assert_eq!(ended(|| Ok(())), (KantaiStatus::Ok, None));
        let (status, text) = ended(|| Err(Failure::Choice { what: "a state", value: 9 }));
        assert_eq!((status, text.as_deref()), (KantaiStatus::Invalid, Some("failed to read a state: 9 is none of its values")));
    }

    #[test]
    fn pointers_and_counts_are_judged() {
        let numbers = [1.0_f64, 2.0];
        let unaligned = numbers.as_ptr().wrapping_byte_add(1);
        unsafe {
            assert!(list::<f64>(std::ptr::null(), 0, "any").unwrap().is_empty());
            assert!(matches!(list::<f64>(std::ptr::null(), 1, "any"), Err(Failure::Pointer("any"))));
            assert!(matches!(list(unaligned, 1, "any"), Err(Failure::Pointer(_))));
            assert!(matches!(list(numbers.as_ptr(), usize::MAX / 2, "any"), Err(Failure::TooMany { .. })));
            assert_eq!(list(numbers.as_ptr(), 2, "any").unwrap(), numbers);
            assert!(matches!(shared(unaligned, "any"), Err(Failure::Pointer(_))));
            assert!(matches!(exclusive::<f64>(null_mut(), "any"), Err(Failure::Pointer(_))));
            assert!(matches!(buffer::<f64>(null_mut(), 3, "any"), Err(Failure::Pointer(_))));
            assert!(matches!(text(c"\xff".as_ptr(), "any"), Err(Failure::Text(_))));
            assert!(matches!(names([std::ptr::null()].as_ptr(), 1), Err(Failure::Pointer(_))));
        }
    }
}
