//! A daemon of ours with other durability than the program offers, for rows that only inform. It
//! is set up as the program does it.

use crate::trouble::{Result, trouble};
use lockkeeper::{Config, Durability, LockManager, Prometheus};
use lockkeeper_server::{Server, ServerConfig};
use std::{env, path::PathBuf, sync::Arc};

/// Serves where the environment says, until it is killed.
pub(crate) fn serve(durability: &str) -> Result<()> {
    let place = |name: &str| match env::var_os(name) {
        Some(place) => Ok(PathBuf::from(place)),
        None => trouble(format!("{name} is not set")),
    };
    let (store, socket) = (place("LOCKKEEPER_STORE")?, place("LOCKKEEPER_SOCKET")?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let prometheus = Prometheus::install().ok();
        let durability = match durability {
            "memory" => Durability::Memory,
            "process" => Durability::Process,
            "power" => Durability::Power,
            other => return trouble(format!("`{other}` is no durability")),
        };
        let config = Config {
            attached_outlive: true,
            events_capacity: 16 * 1024,
            durability,
            ..Config::default()
        };
        let manager = match durability {
            Durability::Memory => LockManager::in_memory(config),
            _ => LockManager::open_with(Config { path: Some(store), ..config }).await?,
        };
        let metrics = prometheus
            .map(|page| -> lockkeeper_server::Metrics { Arc::new(move || page.render()) });
        let config = ServerConfig { metrics, ..ServerConfig::at(socket) };
        Server::start(manager, config).await?.run().await;
        Ok(())
    })
}
