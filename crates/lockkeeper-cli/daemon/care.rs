//! The verbs `stop` and `migrate`.

use super::{link, start};
use crate::{
    args::daemon::Migrate,
    output::{Answer, words},
    places::Here,
    trouble::Trouble,
};
use lockkeeper::{
    StoreError,
    store::{self, MigrationReport},
};
use serde_json::json;

pub(crate) async fn stop(here: &Here) -> Result<Answer, Trouble> {
    let client = match link::running(here).await {
        Ok(Some(client)) => client,
        Ok(None) => {
            let text = "no daemon was running".to_owned();
            return Ok(Answer::done(text, json!({ "was_running": false })));
        }
        Err(trouble) if trouble.code == link::OTHER_PROTOCOL => {
            start::stop_unknown(here).await?;
            let text = "the daemon of another version has ended".to_owned();
            return Ok(Answer::done(text, json!({ "was_running": true })));
        }
        Err(trouble) => return Err(trouble),
    };
    let status = start::stop(here, &client).await?;
    let pid = status.hello.pid;
    let kept = match status.holds {
        0 => String::new(),
        holds => format!("; {} kept", words::are(holds, "lock")),
    };
    let text = format!("the daemon, process {pid}, has ended{kept}");
    let fields = json!({
        "was_running": true,
        "pid": pid,
        "locks": status.holds,
        "waits": status.waits,
    });
    Ok(Answer::done(text, fields))
}

pub(crate) fn migrate(here: &Here, wanted: &Migrate) -> Result<Answer, Trouble> {
    let copy = wanted.backup.then(|| {
        let day = words::now().to_string().replace([':', '.'], "-");
        start::beside(&here.store, &format!(".backup-{day}"))
    });
    if !here.store.exists() {
        return Err(Trouble::store(&StoreError::Missing { path: here.store.clone() }));
    }
    let report = store::migrate(&here.store, copy).map_err(|error| {
        let trouble = Trouble::store(&error);
        match &*trouble.code {
            "owned" => trouble.next("end it first: `lockkeeper stop`"),
            _ => trouble,
        }
    })?;
    let MigrationReport { path, from, to, applied, backup } = report;
    let path = path.display().to_string();
    let mut text = match from == to {
        true => format!("{path} has the newest form already, {to}"),
        false => format!("{path} went from form {from} to {to}"),
    };
    if let Some(backup) = &backup {
        text.push_str(&format!("\nas it was: {}", backup.display()));
    }
    let backup = backup.map(|path| path.display().to_string());
    let fields =
        json!({ "store": path, "from": from, "to": to, "applied": applied, "backup": backup });
    Ok(Answer::done(text, fields))
}
