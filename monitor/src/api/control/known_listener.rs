//! Checks the listener of a query.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};

use super::{ControlRequest, ControlRequests, gone};
use crate::{
    api::http::request_reply,
    config::profiles::{did_you_mean, nearest},
};

/// The response to a query about the listener `name` if there is no such listener: 400 with the names of
/// all, or 503 if the daemon is ending. `None` if there is one, or if `name` is `None`.
pub(super) async fn refusal(requests: &ControlRequests, name: Option<&str>) -> Option<Response> {
    let name = name?;
    let Some(names) = request_reply(requests, ControlRequest::ListenerNames).await else {
        return Some(gone());
    };
    if names.iter().any(|known| known == name) {
        return None;
    }
    let text = unknown(name, &names) + "\n";
    Some((StatusCode::BAD_REQUEST, text).into_response())
}

fn unknown(name: &str, names: &[String]) -> String {
    let near = nearest(name, names.iter().map(String::as_str));
    let shown = names.iter().take(SHOWN).map(String::as_str);
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "no listener {name:?}{}, expected {shown}{more}",
        did_you_mean(near)
    )
}

/// The names in one message.
const SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn an_unknown_listener_is_refused_with_the_names_of_all_and_the_nearest() {
        assert_eq!(
            unknown("chta", &names(&["chat", "8080"])),
            "no listener \"chta\" (did you mean \"chat\"?), expected chat, 8080"
        );
        assert_eq!(
            unknown("elsewhere", &names(&["8080"])),
            "no listener \"elsewhere\", expected 8080"
        );
    }

    #[test]
    fn the_names_of_many_listeners_are_cut_short() {
        let many: Vec<_> = (1..=50).map(|port| format!("web-{port}")).collect();
        let text = unknown("x", &many);
        assert!(text.ends_with("web-19, web-20 and 30 more"), "{text}");
    }
}
