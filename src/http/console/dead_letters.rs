//! The page of the dead letters: the reason and the content of each, and the actions on it. Must not contain AMQP.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use maud::{Markup, html};

use super::{
    components::{Dialog, Tone, badge, capitalised, counted, notice, opens, since},
    door::{self, Viewer},
    fields::Fields,
    layout::{Page, Place},
};
use crate::{
    domain::Delta,
    http::{Api, admission, error::ApiError},
    queue::{DeadLetter, DeadLettersError, LetterId, Settled, Verdict, Which},
};

/// The most letters on a page.
const SHOWN_MAX: usize = 50;

/// The longest part of a message that is shown.
const BODY_SHOWN_BYTES: usize = 16 * 1024;

/// The most request ids that are shown of a message.
const IDS_SHOWN: usize = 20;

const PATH: &str = "/console/dead-letters";

/// The word that a viewer types to remove a letter permanently.
const DROP: &str = "drop";

/// Lists the dead letters.
pub(super) async fn page(viewer: Viewer, api: web::Data<Api>, fields: Fields) -> HttpResponse {
    let count = |name| fields.get(name).and_then(|count| count.parse().ok());
    let is_drop = fields.get("verdict") == Some(DROP);
    let told = count("done").map(|done| outcome(is_drop, done, count("left").unwrap_or_default()));
    let skipped = count("skip").unwrap_or_default();
    match in_a_task(&api, async move |desk| desk.list(skipped, SHOWN_MAX).await).await {
        Ok((letters, count)) => show(&viewer, StatusCode::OK, told, &list(&letters, skipped, count)),
        Err(error) => failed(&viewer, &error),
    }
}

/// Settles one letter, or all of them.
///
/// # Errors
/// A field of the form is wrong.
pub(super) async fn settle(
    request: HttpRequest,
    viewer: Viewer,
    api: web::Data<Api>,
    fields: Fields,
) -> Result<HttpResponse, ApiError> {
    let verdict = match fields.required("verdict")? {
        "redrive" => Verdict::Redrive,
        DROP if fields.get("typed") == Some(DROP) => Verdict::Drop,
        DROP => return Err(ApiError::invalid("typed", format!("must be the word {DROP}"))),
        _ => return Err(ApiError::invalid("verdict", "must be redrive or drop")),
    };
    let which = match fields.required("letter")? {
        "all" => Which::All,
        id => {
            let id = u64::from_str_radix(id, 16)
                .map_err(|_| ApiError::invalid("letter", "must be all or an id"))?;
            Which::One(LetterId(id))
        }
    };
    match in_a_task(&api, async move |desk| desk.settle(which, verdict).await).await {
        Ok(Settled { done, left }) => {
            let actor =
                admission::actor(&request).map_or_else(|| "nobody".to_owned(), |actor| actor.to_string());
            log::info!(actor:%; "console: {verdict:?} of dead letters: {done} settled, {left} left");
            let verdict = if verdict == Verdict::Drop { DROP } else { "redrive" };
            Ok(door::redirect(&format!("{PATH}?verdict={verdict}&done={done}&left={left}")))
        }
        Err(error) => Ok(failed(&viewer, &error)),
    }
}

/// Runs `errand` to its end, even if the browser disconnects: held messages return to the queue in order.
async fn in_a_task<T: Send + 'static, F>(
    api: &Api,
    errand: impl FnOnce(crate::queue::LetterDesk) -> F,
) -> Result<T, DeadLettersError>
where
    F: Future<Output = Result<T, DeadLettersError>> + Send + 'static,
{
    let running = tokio::spawn(errand(api.letters.clone()));
    running.await.unwrap_or_else(|error| Err(DeadLettersError::Unavailable(error.to_string())))
}

fn show(viewer: &Viewer, status: StatusCode, told: Option<Markup>, content: &Markup) -> HttpResponse {
    let page =
        Page { title: "Dead letters", viewer: Some(viewer), place: Some(Place::DeadLetters), scripts: &[] };
    page.answer(
        status,
        &html! {
            div.stack {
                h1 { "Dead letters" }
                @if let Some(told) = told { (told) }
                (content)
            }
        },
    )
}

fn failed(viewer: &Viewer, error: &DeadLettersError) -> HttpResponse {
    let advice = match error {
        DeadLettersError::Locked(_) => {
            "The dead letters are open in another session. Reload the page in a moment."
        }
        DeadLettersError::Unavailable(_) => "RabbitMQ does not answer. The overview says since when.",
        DeadLettersError::Unredrivable(_) => "The message stays among the dead letters.",
        DeadLettersError::Full(_) | DeadLettersError::Publish(_) => {
            "The message is still a dead letter. Try again once the workers have made room."
        }
    };
    let content = notice(Tone::Bad, html! { p { strong { (advice) } } p { (error) } });
    show(viewer, StatusCode::SERVICE_UNAVAILABLE, None, &content)
}

fn outcome(is_drop: bool, done: usize, left: usize) -> Markup {
    let (count, verb) = (counted(done), if is_drop { "dropped" } else { "redriven" });
    let (tone, content) = match (done, left) {
        (0, 0) => (
            Tone::Warn,
            html! { "The message is no longer among the dead letters: it has already been redriven or dropped." },
        ),
        (_, 0) => (Tone::Good, html! { (count) " " (verb) "." }),
        _ => (Tone::Warn, html! { (count) " " (verb) "; " (counted(left)) " can't be redriven and remain." }),
    };
    notice(tone, content)
}

/// A page of the letters, after those that are skipped.
fn list(letters: &[DeadLetter], skipped: usize, count: usize) -> Markup {
    if letters.is_empty() {
        return html! {
            div.card {
                p.empty { @if skipped > 0 { "There are no more dead letters." } @else { "There are no dead letters." } }
                @if skipped > 0 { (first()) }
            }
        };
    }
    let shown = skipped + letters.len();
    html! {
        div.row.apart {
            p.quiet {
                (counted(count)) " in all, oldest first"
                @if count > letters.len() { "; " (counted(skipped + 1)) " to " (counted(shown)) " are shown" }
                ". None is applied until you decide."
            }
            div.row { (opens("redrive-all", "Redrive all")) }
        }
        (Dialog { id: "redrive-all", title: "Redrive all dead letters?", action: PATH, verb: "Redrive all", is_danger: false, typed: None }
            .with(html! {
                input type="hidden" name="letter" value="all";
                input type="hidden" name="verdict" value="redrive";
                p { "Each change goes back into the queue of its user. A change that is applied already has no effect. \
                     Messages that can't be read stay here." }
            }))
        @for letter in letters { (one(letter)) }
        @if skipped > 0 || shown < count {
            div.row {
                @if skipped > 0 { (first()) }
                @if shown < count { a.button href={ (PATH) "?skip=" (shown) } { "Next dead letters" } }
            }
        }
    }
}

fn first() -> Markup {
    html! { a.button href=(PATH) { "First dead letters" } }
}

fn one(letter: &DeadLetter) -> Markup {
    let (position, id) = (letter.position, format!("{:016x}", LetterId::of(letter).0));
    let can_redrive = letter.death.is_redrivable();
    html! {
        article.card aria-labelledby={ "letter-" (position) } {
            div.row.apart {
                h2 id={ "letter-" (position) } { (capitalised(&letter.death.to_string())) }
                @if can_redrive { (badge(Tone::Good, "can be redriven")) } @else { (badge(Tone::Plain, "can't be redriven")) }
            }
            dl.facts {
                dt { "Position" } dd { (position) }
                @if let Some(at) = letter.died_at { dt { "Since" } dd { (since(at)) } }
                dt { "From" } dd { @match letter.partition { Some(partition) => { "partition " (partition) } None => "elsewhere" } }
                @if let Some(id) = &letter.message_id { dt { "Message id" } dd { code { (id) } } }
                dt { "Changes" } dd { (changes(&letter.deltas)) }
            }
            details {
                summary { "Content, " (counted(letter.body.len())) " bytes" }
                pre tabindex="0" { (text(&letter.body)) }
            }
            div.row {
                @if can_redrive {
                    form method="post" action=(PATH) {
                        input type="hidden" name="letter" value=(id);
                        input type="hidden" name="verdict" value="redrive";
                        button.small.primary type="submit" { "Redrive" span.hidden { " message " (position) } }
                    }
                }
                button.small type="button" data-opens={ "drop-" (position) } { "Drop…" span.hidden { " message " (position) } }
            }
        }
        (Dialog { id: &format!("drop-{position}"), title: "Drop this message permanently?", action: PATH, verb: "Drop", is_danger: true, typed: Some(DROP) }
            .with(html! {
                input type="hidden" name="letter" value=(id);
                input type="hidden" name="verdict" value=(DROP);
                p { "Its changes will never be applied, and nobody can bring the message back. Save a copy of its content \
                     in case its sender needs it." }
            }))
    }
}

fn changes(deltas: &[Delta]) -> Markup {
    html! {
        @if deltas.is_empty() { "unknown: the message can't be read" }
        @for (index, delta) in deltas.iter().take(IDS_SHOWN).enumerate() {
            @if index > 0 { br; }
            code { (delta.request_id) } " of user " (delta.user_id)
        }
        @if deltas.len() > IDS_SHOWN { br; "and " (counted(deltas.len() - IDS_SHOWN)) " more" }
    }
}

/// The content as text, whatever it is.
fn text(body: &[u8]) -> String {
    let shown = &body[..body.len().min(BODY_SHOWN_BYTES)];
    let rest = if shown.len() < body.len() { "\n…" } else { "" };
    format!("{}{rest}", String::from_utf8_lossy(shown))
}
