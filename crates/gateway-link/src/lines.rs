//! Splits a stream of bytes into lines of bounded length.

/// A line longer than the reader's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to read a line: more than {limit} bytes")]
pub struct LineTooLong {
    /// The limit in bytes.
    pub limit: usize,
}

/// What has come of the line that is not complete yet.
///
/// ```
/// use gateway_link::lines::Lines;
///
/// let mut lines = Lines::new(8);
/// assert_eq!(lines.take_in(b"one\ntw")?, [b"one".to_vec()]);
/// assert_eq!(lines.take_in(b"o\n\n")?, [b"two".to_vec(), b"".to_vec()]);
/// assert!(lines.take_in(b"nine bytes").is_err());
/// # Ok::<(), gateway_link::lines::LineTooLong>(())
/// ```
#[derive(Clone, Debug)]
pub struct Lines {
    begun: Vec<u8>,
    limit: usize,
}

impl Lines {
    /// Lines of at most `limit` bytes, newline not counted.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { begun: Vec::new(), limit }
    }

    /// The lines that `chunk` completes, without their newlines.
    ///
    /// # Errors
    /// [`LineTooLong`]; nothing of the stream can be used after it.
    pub fn take_in(&mut self, chunk: &[u8]) -> Result<Vec<Vec<u8>>, LineTooLong> {
        let mut complete = Vec::new();
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            if self.begun.len() + text.len() > self.limit {
                return Err(LineTooLong { limit: self.limit });
            }
            self.begun.extend_from_slice(text);
            if ends {
                complete.push(std::mem::take(&mut self.begun));
            }
        }
        Ok(complete)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_they_come(text in "[ab\n]{0,60}", cuts in prop::collection::vec(1_usize..7, 60)) {
            let mut lines = Lines::new(60);
            let mut rest = text.as_bytes();
            let mut got = Vec::new();
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                got.extend(lines.take_in(chunk).unwrap());
                rest = after;
            }
            let mut want: Vec<Vec<u8>> = text.split('\n').map(|line| line.as_bytes().to_vec()).collect();
            want.pop();
            prop_assert_eq!(got, want);
        }
    }
}
