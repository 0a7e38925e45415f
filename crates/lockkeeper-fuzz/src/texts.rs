//! What people type: resources, ids, spans of time, paths.

use crate::{span, walk};
use lockkeeper_core::{LockId, RequestId, Resource};
use std::{
    path::{Component, Path},
    time::Duration,
};

/// One text, taken for each of the things that it may be.
pub(crate) fn texts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    resource(text);
    ids(text);
    span(text);
    path(text);
}

fn resource(text: &str) {
    match text.parse::<Resource>() {
        Ok(found) => {
            assert_eq!(found.to_string(), text, "it is shown as it was written");
            let parts = Resource::new(found.resource_type(), found.key());
            assert_eq!(parts, found, "it is made of its parts");
            assert_eq!(found.problem(usize::MAX), None);
            let json = serde_json::to_string(&found).expect("it is JSON");
            assert_eq!(serde_json::from_str::<Resource>(&json).ok(), Some(found));
            assert!(!text.contains(['\n', '\r', '\0', '\u{1b}']), "nothing that a terminal obeys");
        }
        Err(problem) => assert!(!problem.to_string().is_empty(), "a refusal says why"),
    }
}

fn ids(text: &str) {
    match text.parse::<LockId>() {
        Ok(id) => {
            assert_eq!(id.to_string(), text.to_ascii_lowercase());
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        Err(problem) => assert!(problem.to_string().contains("36 characters")),
    }
    let json = serde_json::to_string(text).expect("it is JSON");
    if let Ok(id) = serde_json::from_str::<RequestId>(&json) {
        let again = serde_json::to_string(&id).expect("it is JSON");
        assert_eq!(serde_json::from_str::<RequestId>(&again).ok(), Some(id));
    }
}

fn span(text: &str) {
    let read = match span::any(text) {
        Ok(read) => read,
        Err(problem) => return assert!(problem.contains("write a time as"), "{problem}"),
    };
    let millis = u64::try_from(read.as_millis()).unwrap_or(u64::MAX);
    if millis < u64::MAX {
        assert_eq!(span::any(&format!("{millis}ms")), Ok(read), "it can be written again");
        assert!(read >= at_least(text), "{text} is read as {read:?}, which is less");
    }
    // The two who bound it agree with it, or say why they do not.
    for bounded in [span::wait(text), span::lease(text)] {
        match bounded {
            Ok(bounded) => assert_eq!(bounded, read),
            Err(problem) => assert!(problem.contains("7 days") || read.is_zero(), "{problem}"),
        }
    }
}

/// What a span that was read is at least: every part of it whole, and one millisecond more for
/// whatever is behind a point.
fn at_least(text: &str) -> Duration {
    const UNITS: &[(&str, u64)] =
        &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("", 1_000)];
    let mut millis = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let letters = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(letters);
        let digits = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(digits);
        let per_unit = UNITS.iter().find(|(name, _)| *name == unit).map_or(0, |(_, ms)| *ms);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let more = u64::from(fraction.bytes().any(|digit| digit != b'0'));
        let whole = if whole.is_empty() { 0 } else { whole.parse().unwrap_or(0) };
        millis = millis.saturating_add(per_unit.saturating_mul(whole)).saturating_add(more);
        rest = after;
    }
    Duration::from_millis(millis)
}

fn path(text: &str) {
    // A folder that is not there, so that no file of this machine has a say.
    let base = Path::new("/nowhere-at-all/repo");
    let Ok(led) = walk::lead(base, Path::new(text)) else {
        return assert!(text.contains('\0') || text.len() > 200 || text.contains('/'), "{text:?}");
    };
    assert!(led.is_absolute(), "{led:?}");
    let is_plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    assert!(led.components().all(is_plain), "{led:?} is not the end of it");
    if led.starts_with("/nowhere-at-all") {
        assert_eq!(
            walk::lead(Path::new("/"), &led).ok().as_ref(),
            Some(&led),
            "it leads to itself"
        );
        let detour = Path::new("x/..").join(text);
        if !text.starts_with('/') {
            assert_eq!(walk::lead(base, &detour).ok(), Some(led), "a detour does not matter");
        }
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "file:src/main.rs",
        "git:index",
        "llm:a:b",
        "File:x",
        ":x",
        "file:",
        "x",
        "task:\u{85}",
        "0190b5a2-7c1e-7d3a-8f00-1234567890ab",
        "ffffffffffffffffffffffffffffffff",
        "+7f",
        "250ms",
        "1h30m",
        "0.5",
        ".5h",
        "7d",
        "99999999999999999999d",
        "1.0000000000000000001s",
        "5m30",
        "src/../a",
        "./x//y/.",
        "../../..",
        "/etc/passwd",
        "a/b/c/../../../..",
        "é/ü",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}
