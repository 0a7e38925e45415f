//! Who is let in: whoever shows the token; without one, this machine, but no page in its browsers.
//!
//! A page may send requests to any address, also to this machine, and may have a name of its own
//! point there. So without a token the `Host` must be a name of this machine; an `Origin` must be
//! this server; and a command needs a content type that a page may not send to others unasked.

use super::problem::Problem;
use crate::Token;
use axum::http::{HeaderMap, Method, StatusCode, header, request::Parts};
use lockkeeper::wire::code;
use std::net::IpAddr;

/// Looks at the head of a request.
#[derive(Debug)]
pub(crate) struct Guard {
    token: Option<Token>,
}

impl Guard {
    pub(crate) fn new(token: Option<Token>) -> Guard {
        Guard { token }
    }

    pub(crate) fn check(&self, parts: &Parts) -> Result<(), Problem> {
        // Where the address names a host of its own, the header does not count.
        let host = match parts.uri.authority() {
            Some(authority) => Some(authority.as_str()),
            None => only(&parts.headers, header::HOST.as_str()),
        };
        if parts.headers.contains_key(header::ORIGIN) {
            let origin = only(&parts.headers, header::ORIGIN.as_str());
            let authority = origin.and_then(|origin| origin.split_once("://")).map(|(_, at)| at);
            if authority.is_none() || !same(authority, host) {
                return Err(forbidden("origin", "requests of other pages are not answered"));
            }
        }
        // A picture in a page is asked for without an origin.
        let site = only(&parts.headers, "sec-fetch-site");
        if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
            return Err(forbidden("origin", "requests of other pages are not answered"));
        }
        match &self.token {
            Some(token) => knows(token, &parts.headers)?,
            None if host.is_some_and(is_this_machine) => {}
            None => {
                let said = "the Host must be a name of this machine, such as localhost";
                return Err(forbidden("host", said));
            }
        }
        if parts.method == Method::POST && !is_json(&parts.headers) {
            let said = "the content type must be application/json";
            let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return Err(Problem::new(status, code::INVALID_REQUEST, "content_type", said));
        }
        Ok(())
    }
}

fn forbidden(word: &str, said: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, code::FORBIDDEN, word, said)
}

fn same(one: Option<&str>, other: Option<&str>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one.eq_ignore_ascii_case(other))
}

/// The value of a header that is there once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

fn knows(token: &Token, headers: &HeaderMap) -> Result<(), Problem> {
    let shown = only(headers, header::AUTHORIZATION.as_str()).and_then(|value| {
        let (scheme, shown) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| shown.trim())
    });
    let said = match shown {
        Some(shown) if token.is(shown) => return Ok(()),
        Some(_) => "the token is another one",
        None => "a token is needed: Authorization: Bearer TOKEN",
    };
    let problem = Problem::new(StatusCode::UNAUTHORIZED, code::FORBIDDEN, "token", said);
    Err(problem.header(header::WWW_AUTHENTICATE, "Bearer"))
}

/// Whether a `Host` can only mean this machine.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(name, _)| name),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    match name.parse::<IpAddr>() {
        Ok(ip) => ip.to_canonical().is_loopback(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    only(headers, header::CONTENT_TYPE.as_str()).is_some_and(|value| {
        let kind = value.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case("application/json")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_mean_it() {
        for host in ["localhost", "LocalHost:80", "127.0.0.1:7", "127.9.9.9", "[::1]", "[::1]:7"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example:80",
            "192.168.1.7",
            "0.0.0.0",
            "[::2]:7",
            "[::1",
            "[::]",
        ] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
