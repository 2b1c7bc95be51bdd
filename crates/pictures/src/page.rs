//! The page around the plots.

use maud::{DOCTYPE, Markup, PreEscaped, html};

const STYLE: &str = include_str!("style.css");

/// A page with its style inside.
///
/// ```
/// use maud::html;
/// use pictures::page;
///
/// let text = page("5 < 6", &html! { p { "a" } });
/// assert!(text.contains("<title>5 &lt; 6</title>"));
/// ```
#[must_use]
pub fn page(title: &str, body: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                // Ours, and no text of others is in it.
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    }
    .into_string()
}
