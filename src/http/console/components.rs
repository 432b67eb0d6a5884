//! The parts that pages are made of: numbers, times, badges, notices, cards, tables, fields and dialogs. Every text is
//! escaped by maud. Must not contain a page.

use jiff::{Timestamp, Unit};
use maud::{Markup, Render, html};

/// The meaning of a colour. The text always says it, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Warn,
    Bad,
}

impl Tone {
    /// Its class in the stylesheet.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// A whole number in groups of three digits: `1,000`.
pub(super) fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if number < 0 {
        text.push('\u{2212}');
    }
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number, in groups of three digits of one width.
pub(super) fn number(number: i64) -> Markup {
    html! { span.number { (grouped(number)) } }
}

/// A change: as [`number`], with its sign.
pub(super) fn change(points: i64) -> Markup {
    html! {
        span.number.good[points > 0].bad[points < 0] { @if points > 0 { "+" } (grouped(points)) }
    }
}

/// A moment. `console.js` writes it in the viewer's zone, with the UTC on hover.
pub(super) fn time(at: Timestamp) -> Markup {
    let utc = at.round(Unit::Second).unwrap_or(at);
    html! { time datetime=(at) { (utc) } }
}

/// As [`time`], for a moment whose distance from now matters: "3 minutes ago".
pub(super) fn since(at: Timestamp) -> Markup {
    let utc = at.round(Unit::Second).unwrap_or(at);
    html! { time datetime=(at) data-relative { (utc) } }
}

/// A text with a capital first letter.
pub(super) fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    first + characters.as_str()
}

/// As [`grouped`], for a count.
pub(super) fn counted(count: usize) -> String {
    grouped(i64::try_from(count).unwrap_or(i64::MAX))
}

/// A word about a state.
pub(super) fn badge(tone: Tone, word: &str) -> Markup {
    html! { span class={ "badge " (tone.class()) } { (word) } }
}

/// A message. Screen readers read an error out immediately.
pub(super) fn notice(tone: Tone, content: impl Render) -> Markup {
    let role = if tone == Tone::Bad { "alert" } else { "status" };
    html! { div class={ "notice " (tone.class()) } role=(role) { (content) } }
}

/// A titled part of a page. `id` must be unique on it.
pub(super) fn card(id: &str, title: &str, content: impl Render) -> Markup {
    html! {
        section.card aria-labelledby={ (id) "-title" } id=(id) {
            h2 id={ (id) "-title" } { (title) }
            (content)
        }
    }
}

/// A table that scrolls in its own box where the screen is narrow. `rows` are `tr` elements.
pub(super) fn table(caption: &str, columns: &[&str], rows: impl Render) -> Markup {
    html! {
        div.scroll tabindex="0" role="group" aria-label=(caption) {
            table {
                caption.hidden { (caption) }
                thead { tr { @for column in columns { th scope="col" { (column) } } } }
                tbody { (rows) }
            }
        }
    }
}

/// A labelled text field of a form. Its hint, if any, is read with it.
pub(super) struct Field<'a> {
    pub(super) name: &'a str,
    pub(super) label: &'a str,
    pub(super) value: &'a str,
    pub(super) hint: &'a str,
    pub(super) required: bool,
}

impl Render for Field<'_> {
    fn render(&self) -> Markup {
        let Self { name, label, value, hint, required } = *self;
        let hint_id = format!("{name}-hint");
        html! {
            div.field {
                label for=(name) { (label) }
                input id=(name) name=(name) value=(value) required[required] autocomplete="off" spellcheck="false"
                    aria-describedby=[(!hint.is_empty()).then_some(&hint_id)];
                @if !hint.is_empty() { p.hint id=(hint_id) { (hint) } }
            }
        }
    }
}

/// A dialog that asks before a form is sent. The button `opens(id, ...)` opens it.
pub(super) struct Dialog<'a> {
    /// Unique on the page.
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    /// The path that the form is sent to.
    pub(super) action: &'a str,
    /// The label of the button that sends the form.
    pub(super) verb: &'a str,
    /// Whether it destroys something.
    pub(super) is_danger: bool,
    /// The word that the viewer must type before the button works.
    pub(super) typed: Option<&'a str>,
}

impl Dialog<'_> {
    /// The dialog. `content` explains the effect, and has the fields of the form.
    pub(super) fn with(&self, content: impl Render) -> Markup {
        let Self { id, title, action, verb, is_danger, typed } = *self;
        html! {
            dialog id=(id) aria-labelledby={ (id) "-title" } {
                form.stack method="post" action=(action) {
                    h2 id={ (id) "-title" } { (title) }
                    (content)
                    @if let Some(typed) = typed {
                        div.field {
                            label for={ (id) "-typed" } { "Type " strong { (typed) } " to confirm" }
                            input id={ (id) "-typed" } name="typed" required autocomplete="off" spellcheck="false"
                                data-typed=(typed);
                        }
                    }
                    div.row.end {
                        button type="button" data-closes { "Cancel" }
                        button.danger[is_danger].primary[!is_danger] type="submit" { (verb) }
                    }
                }
            }
        }
    }
}

/// The button that opens a dialog.
pub(super) fn opens(id: &str, label: &str) -> Markup {
    html! { button type="button" data-opens=(id) { (label) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_texts_are_escaped() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (-1, "\u{2212}1"),
            (-123_456, "\u{2212}123,456"),
            (9_007_199_254_740_991, "9,007,199,254,740,991"),
            (i64::MIN, "\u{2212}9,223,372,036,854,775,808"),
        ] {
            assert_eq!(grouped(value), text);
        }
        assert_eq!(change(5).0, r#"<span class="number good">+5</span>"#);
        let hostile = "<script>alert(1)</script>\"'";
        for shown in [badge(Tone::Bad, hostile), notice(Tone::Bad, hostile), card("a", hostile, hostile)] {
            assert!(!shown.0.contains("<script"), "{}", shown.0);
        }
        let field = Field { name: "a", label: hostile, value: hostile, hint: hostile, required: true };
        assert!(!field.render().0.contains("<script") && !field.render().0.contains(r#"""'"#));
    }
}
