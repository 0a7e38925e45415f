//! Keeps a manager connected: brings one connection after the other, for as long as anybody needs
//! one.

use super::{
    ConnectError, Link,
    dial::{Dialled, dial},
    pump::{Inbox, pump},
};
use crate::error::Unavailable;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;

/// How soon a daemon that is gone is looked for again: at first, at most, and when nobody waits for
/// it any more. There is nothing that tells when a socket appears.
const FIRST: Duration = Duration::from_millis(5);
const MOST: Duration = Duration::from_millis(250);
const RARELY: Duration = Duration::from_secs(1);

/// Tells everybody that it is over, also when the task is dropped with its runtime.
struct End(Arc<Link>);

impl Drop for End {
    fn drop(&mut self) {
        let gone = format!("{}: the connection's runtime is gone", self.0.address());
        self.0.end(Unavailable::Unreachable(gone.into()));
    }
}

pub(super) async fn keep(link: Arc<Link>, first: Dialled) {
    let end = End(link);
    let link = &end.0;
    let mut dialled = first;
    loop {
        let outbox = link.resume(&dialled);
        let inbox = Inbox::new(std::mem::take(&mut dialled.read));
        let why = pump(&mut dialled.stream, inbox, &outbox, |line| link.heard(line)).await;
        drop(dialled);
        if !link.interrupted(&why) {
            break;
        }
        tracing::debug!(daemon = %link.address(), %why, "the connection is gone");
        match find_again(link, &why).await {
            Some(found) => dialled = found,
            None => break,
        }
    }
    link.end(Unavailable::ShutDown);
}

/// Looks for the daemon until it is there again, or nobody needs it.
async fn find_again(link: &Arc<Link>, why: &str) -> Option<Dialled> {
    let connect = &link.connect;
    let give_up_at = Instant::now() + connect.give_up_after;
    let (mut pause, mut has_given_up) = (FIRST, false);
    let mut why = format!("{}: {why}", link.address());
    let mut is_nobody_there = false;
    loop {
        let is_left = link.is_closing() && (has_given_up || link.owes_nothing());
        if link.is_over() || is_left {
            return None;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = link.changed.notified() => continue,
        }
        if is_nobody_there
            && !has_given_up
            && let Some(revive) = &connect.revive
        {
            let _ = tokio::time::timeout_at(give_up_at, revive()).await;
        }
        let dialled = match has_given_up {
            true => dial(&connect.address).await,
            false => match tokio::time::timeout_at(give_up_at, dial(&connect.address)).await {
                Ok(dialled) => dialled,
                Err(_) => {
                    has_given_up = true;
                    link.give_up(&why);
                    continue;
                }
            },
        };
        let error = match dialled {
            Ok(dialled) => return Some(dialled),
            Err(error) => error,
        };
        is_nobody_there = error.is_nobody_there();
        why = error.to_string();
        // Waiting does not help against these, only somebody who does something.
        let is_hopeless =
            matches!(error, ConnectError::Refused { .. } | ConnectError::OtherProtocol { .. });
        if !has_given_up && (is_hopeless || Instant::now() >= give_up_at) {
            has_given_up = true;
            link.give_up(&why);
        }
        pause = if has_given_up { RARELY } else { (pause * 2).min(MOST) };
    }
}
