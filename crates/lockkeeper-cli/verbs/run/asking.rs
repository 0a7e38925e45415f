//! Asks for the locks of a run, and says who waits for whom meanwhile.
//!
//! Each run is a session of its own, which ends with its connection, however that ends. Two others
//! may in truth wait for it, and that is declared, so that a deadlock through them is seen: the
//! `run` this one runs under, until this one ends, and the session in which the agent takes locks
//! one by one.

use super::short_name;
use crate::{
    args::run::Run,
    daemon::{desk::Reach, link},
    output::words,
    places::{self, Here},
    trouble::{Asker, Trouble, Wanted},
    verbs::waiting::{For, Line, PACE, QUIET_FOR},
};
use lockkeeper::{
    CallError, DeclareWait, LockGuard, LockManager, LockMode, Refusal, Resource, Session,
    SessionId, SessionKind, Sessions, remote::Client,
};
use std::{env, ffi::OsStr, time::Duration};
use tokio::time::{Instant, sleep};

/// The longest wait there is. Deadlocks are seen, and holders die or lose their lease, so waiting
/// for ever is no danger.
const FOR_EVER: Duration = Duration::from_secs(7 * 24 * 3600);

/// Whoever is served sooner need not say that its agent waits.
const SERVED_SOON: Duration = Duration::from_millis(5);

/// How long the locks outlive our connection. Should we be killed, the system closes the connection
/// first and kills the command then: nobody else may be inside in between.
const TO_DIE: Duration = Duration::from_millis(50);

/// What a run has.
pub(super) struct Held {
    pub(super) guards: Vec<LockGuard>,
    pub(super) session: Session,
    /// Keeps the connection.
    _manager: LockManager,
}

pub(super) async fn ask(
    here: &Here,
    wanted: &Run,
    command: &OsStr,
    resources: Vec<Resource>,
) -> Result<Held, Trouble> {
    let manager = link::manager(here, TO_DIE).await?;
    let told = |error: CallError| refused(here, &error);
    let session =
        manager.session(&here.project, &here.agent).priority(wanted.priority.unwrap_or(0));
    let session = session.await.map_err(|error| told(error.into()))?;
    if let Some(outer) = outer(here) {
        declare(here, &link::reach(here).await?, outer, session.id()).await.map_err(told)?;
    }
    let wait = match wanted.no_wait {
        true => Duration::ZERO,
        false => wanted.wait.unwrap_or(FOR_EVER),
    };
    let mode = mode(wanted);
    let wants = resources.iter().map(|resource| (resource.clone(), mode));
    let reason = wanted.reason.clone().unwrap_or_else(|| short_name(command));
    let mut request = session.acquire_each(wants).wait(wait).reason(reason).keep_alive();
    if let Some(lease) = wanted.lease {
        request = request.lease(lease);
    }
    let asked = async { request.await };
    let own = declare_own(here, session.id());
    let shown = show(here, session.id(), &resources, Instant::now() + wait);
    tokio::pin!(asked, own, shown);
    let mut has_declared = false;
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut asked => break answer.map_err(CallError::from),
            declared = &mut own, if !has_declared => match declared {
                Ok(()) => has_declared = true,
                Err(error) => break Err(error),
            },
            () = &mut shown => {}
        }
    };
    let guards = answer.map_err(told)?.into_vec();
    Ok(Held { guards, session, _manager: manager })
}

/// Shows who has it, and the place in the queue, to whoever is not served soon. Never ends.
async fn show(here: &Here, session: SessionId, resources: &[Resource], until: Instant) {
    sleep(QUIET_FOR).await;
    if let Ok(Some(client)) = link::running(here).await {
        let until = client.now().after(until.saturating_duration_since(Instant::now()));
        let what = For::Locks(resources.to_vec(), until);
        let mut line = Line::new(Reach::of(client), here, session, what);
        while line.is_shown() {
            line.show().await;
            sleep(PACE).await;
        }
    }
    std::future::pending().await
}

fn mode(wanted: &Run) -> LockMode {
    match wanted.permits {
        // The parser bounds it far below any u32.
        Some(permits) => LockMode::Permit(permits as u32),
        None if wanted.shared => LockMode::Shared,
        None => LockMode::Exclusive,
    }
}

/// The session of the `run` this one runs under. A session of another project is one of another
/// table.
fn outer(here: &Here) -> Option<SessionId> {
    let var = |name| env::var(name).ok();
    var(places::PROJECT).filter(|project| *project == here.project)?;
    var(places::SESSION)?.parse().ok().map(SessionId::from_u64)
}

/// Says that the session in which the agent takes locks one by one waits for this one, if there is
/// one that holds anything and the wait is not over at once.
async fn declare_own(here: &Here, on: SessionId) -> Result<(), CallError> {
    // A terminal is not one worker: whoever shares its name need not wait for this.
    if !here.is_named {
        return Ok(());
    }
    sleep(SERVED_SOON).await;
    // Without an answer nothing can be declared; the request itself tells why there is none.
    let Ok(Some(client)) = link::running(here).await else { return Ok(()) };
    let Ok(sessions) = client.see(&here.project, Sessions {}).await else { return Ok(()) };
    let its = sessions.iter().find(|view| {
        view.kind == SessionKind::Detached && *view.agent == *here.agent && view.holds > 0
    });
    match its {
        Some(view) => declare(here, &client, view.session, on).await,
        None => Ok(()),
    }
}

/// Only a deadlock matters: a session that is over waits for nobody, and a daemon that is away for
/// a moment has more important things to be asked.
async fn declare(
    here: &Here,
    client: &Client,
    session: SessionId,
    on: SessionId,
) -> Result<(), CallError> {
    match client.command(&here.project, DeclareWait { session, on }).await {
        Err(error @ CallError::Refused(Refusal::Deadlock(_))) => Err(error),
        _ => Ok(()),
    }
}

fn refused(here: &Here, error: &CallError) -> Trouble {
    let Here { agent, is_named, .. } = here;
    let wanted = Wanted::Lock { wait_flag: "-w" };
    Trouble::call(error, &Asker { agent, is_named: *is_named, wanted, now: words::now() })
}
