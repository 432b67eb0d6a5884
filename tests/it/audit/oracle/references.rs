//! The rules of what an entry is about: an earlier entry of its user.

use super::{Entry, is_one_of, transfers};

/// Whether a reversal, a capture or a release is about an earlier entry as its outcome says.
pub fn refers_well(before: &[Entry], entry: &Entry) -> bool {
    let Some(reference) = &entry.reference else { return true };
    match entry.action.as_deref() {
        Some("reverse") => {}
        Some("capture" | "release") => return ends_well(before, entry, reference),
        _ => return true,
    }
    let earlier = || before.iter().filter(|other| other.seq < entry.seq);
    let mut named = earlier().filter(|other| other.request == *reference);
    let is_change = |other: &Entry| {
        other.reject_reason.is_none()
            && ["add", "subtract", "transfer", "capture"].contains(&other.action.as_deref().unwrap_or(""))
    };
    let is_capture = |other: &Entry| other.action.as_deref() == Some("capture");
    let has_size = |other: &Entry| entry.point.is_some() && other.change.map(i128::abs) == entry.point;
    let has_its_size = |other: &Entry| {
        if is_capture(other) { entry.point.is_some() && other.point == entry.point } else { has_size(other) }
    };
    let is_reversal =
        |other: &Entry| other.reject_reason.is_none() && other.action.as_deref() == Some("reverse");
    let was_reversed =
        earlier().any(|other| is_reversal(other) && other.reference.as_ref() == Some(reference));
    let undoes = |other: &Entry| match (entry.reject_reason.as_deref(), other.change) {
        (Some("insufficient_points"), _) if is_capture(other) => false,
        (Some(_), _) if is_capture(other) => true,
        (None, _) if is_capture(other) => entry.change.is_some_and(|undone| undone > 0),
        (_, None) => false,
        (Some("insufficient_points"), Some(change)) => (change > 0) != is_one_of(other, &["transfer"]),
        (Some(_), Some(change)) => change < 0,
        (None, Some(change)) => entry.change.is_some_and(|undone| (undone > 0) == (change < 0)),
    };
    match entry.reject_reason.as_deref() {
        None | Some("insufficient_points" | "balance_limit") => {
            let is_same = |other: &Entry| is_change(other) && other.counterparty == entry.counterparty;
            named.any(|other| is_same(other) && has_its_size(other) && undoes(other)) && !was_reversed
        }
        Some("unknown_request") => named.next().is_none(),
        Some("not_reversible") => named.any(|other| {
            let is_other = other.action.is_some() && !is_change(other) || transfers::is_received(other);
            (other.reject_reason.is_some() || is_other) && has_size(other)
        }),
        Some("already_reversed") => {
            named.any(|other| is_reversal(other) && entry.point.is_some() && other.point == entry.point)
        }
        Some(_) => true,
    }
}

/// Whether a capture or a release is about a hold as its outcome says.
fn ends_well(before: &[Entry], entry: &Entry, reference: &String) -> bool {
    let earlier = || before.iter().filter(|other| other.seq < entry.seq && other.reject_reason.is_none());
    let ends = |other: &&Entry| is_one_of(other, &["capture", "release"]);
    let mut holds = earlier().filter(|other| other.request == *reference && is_one_of(other, &["hold"]));
    let by_time = is_one_of(entry, &["release"]) && entry.actor.as_deref() == Some("system:expiry");
    let is_open = |hold: &Entry| {
        let is_over = hold.expires_at.zip(entry.created_at).map(|(end, now)| end <= now);
        let is_small = || hold.point.zip(entry.point).is_some_and(|(held, asked)| held < asked);
        is_over == Some(by_time) && (entry.reject_reason.is_none() || is_small())
    };
    match entry.reject_reason.as_deref() {
        None | Some("hold_too_small") => {
            holds.any(is_open)
                && !earlier().any(|other| ends(&other) && other.reference.as_ref() == Some(reference))
        }
        Some("unknown_hold") => holds.next().is_none(),
        Some("hold_over") => earlier().filter(ends).any(|other| {
            let returned = if is_one_of(other, &["capture"]) { other.change } else { Some(0) };
            let all = other.point.zip(returned).map(|(point, returned)| point + returned);
            let fits = is_one_of(entry, &["capture"]) || all.is_some() && all == entry.point;
            other.request == *reference && fits
        }),
        Some(_) => true,
    }
}
