//! Tables of numbers whose cells are the darker the larger they are.

use maud::{Markup, html};

use crate::scale::short;

/// A table with a row and a column per name. What `value` does not know is left empty.
///
/// ```
/// let names = ["a".to_owned(), "b".to_owned()];
/// let far = |row: usize, column: usize| (row != column).then_some(50.0);
/// let table = pictures::heat_map(&names, far).into_string();
/// assert_eq!(table.matches("50").count(), 2);
/// ```
#[must_use]
pub fn heat_map(names: &[String], value: impl Fn(usize, usize) -> Option<f64>) -> Markup {
    let all = || (0..names.len()).flat_map(|row| (0..names.len()).map(move |column| (row, column)));
    let largest = all().filter_map(|(row, column)| value(row, column)).fold(0.0, f64::max);
    html! {
        table class="heat" {
            thead { tr { th {} @for name in names { th class="n" { (name) } } } }
            tbody {
                @for (row, name) in names.iter().enumerate() {
                    tr {
                        th { (name) }
                        @for column in 0..names.len() {
                            @match value(row, column) {
                                Some(value) => td class="n" style=(shade(value, largest)) { (short(value)) },
                                None => td {},
                            }
                        }
                    }
                }
            }
        }
    }
}

fn shade(value: f64, largest: f64) -> String {
    let share = if largest > 0.0 { (value / largest).clamp(0.0, 1.0) } else { 0.0 };
    format!("background:rgba(34,94,168,{:.2})", share * 0.55)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_is_the_darkest_and_unknown_is_empty() {
        let names = ["a".to_owned(), "<".to_owned()];
        let text = heat_map(&names, |row, column| (row != column).then_some(if row == 0 { 10.0 } else { 20.0 })).into_string();
        assert!(text.contains("0.28)\">10") && text.contains("0.55)\">20"), "{text}");
        assert!(text.contains("<td></td>") && text.contains("&lt;"), "{text}");
    }
}
